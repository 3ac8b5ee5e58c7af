#![allow(clippy::disallowed_methods, reason = "an instant can be had from the clock alone")]

use super::{tunnel::Carrier, *};

const SERVER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 20, 0, 2));
const SOURCE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 2, 0, 1));
const UDP_TO_6080: [u8; 8] = [0xd0, 0, 0x17, 0xc0, 5, 200, 0, 0];

fn icmp4(kind: [u8; 2], mtu: u16, protocol: u8) -> Vec<u8> {
    let mut message = vec![kind[0], kind[1], 0, 0, 0, 0];
    message.extend(mtu.to_be_bytes());
    message.extend([0x45, 0, 5, 220, 0, 0, 0x40, 0, 63, protocol, 0, 0, 10, 2, 0, 1, 10, 20, 0, 2]);
    message.extend(UDP_TO_6080);
    message
}

fn icmp6(mtu: u32, next: u8) -> Vec<u8> {
    let mut message = vec![2, 0, 0, 0];
    message.extend(mtu.to_be_bytes());
    message.extend([0x60, 0, 0, 0, 5, 180, next, 63]);
    message.extend("fd00:2::1".parse::<Ipv6Addr>().unwrap().octets());
    message.extend("fd00:20::2".parse::<Ipv6Addr>().unwrap().octets());
    message.extend(UDP_TO_6080);
    message
}

fn outer(carrier: Carrier) -> Outer {
    Outer { source: SOURCE, server: SERVER, carrier }
}

fn tunnel(carrier: Carrier, carries_v6: bool) -> Tunnel {
    let overhead = if matches!(carrier, Carrier::Gue(_)) { 32 } else { 20 };
    Tunnel { outer: outer(carrier), overhead, carries_v6, room: 1500 - overhead }
}

const IPIP: Carrier = Carrier::Packet(4);

fn said(mtu: u16) -> TooBig {
    TooBig { outer: outer(IPIP), bytes: 1500, mtu }
}

fn with(tunnels: &[Tunnel]) -> (PathMtus, Instant) {
    let mut mtus = PathMtus::default();
    mtus.set_tunnels(tunnels.iter().copied());
    (mtus, Instant::now())
}

#[test]
fn a_router_tells_which_tunnel_has_a_narrower_path() {
    for (protocol, carrier) in [(4, Carrier::Packet(4)), (41, Carrier::Packet(41)), (17, Carrier::Gue(6080))] {
        assert_eq!(TooBig::from_icmp4(&icmp4([3, 4], 1300, protocol)), Some(TooBig { outer: outer(carrier), bytes: 1500, mtu: 1300 }));
        let outer = Outer { source: "fd00:2::1".parse().unwrap(), server: "fd00:20::2".parse().unwrap(), carrier };
        assert_eq!(TooBig::from_icmp6(&icmp6(1300, protocol)), Some(TooBig { outer, bytes: 1500, mtu: 1300 }));
    }
    assert_eq!(TooBig::from_icmp6(&icmp6(1 << 20, 4)).unwrap().mtu, u16::MAX);
}

#[test]
fn other_messages_and_short_ones_say_nothing() {
    assert_eq!(TooBig::from_icmp4(&icmp4([3, 3], 1300, 4)), None);
    assert_eq!(TooBig::from_icmp4(&icmp4([3, 4], 1300, 6)), None);
    let (v4, v6) = (icmp4([3, 4], 1300, 17), icmp6(1300, 17));
    assert!((0..v4.len() - 4).all(|length| TooBig::from_icmp4(&v4[..length]).is_none()));
    assert!((0..v6.len() - 4).all(|length| TooBig::from_icmp6(&v6[..length]).is_none()));
}

#[test]
fn the_smallest_of_ten_minutes_holds() {
    let (mut mtus, start) = with(&[tunnel(IPIP, false)]);
    assert_eq!(mtus.handle_too_big(said(1300), start), Heard::Learned);
    let later = start + CHANGES_AT_MOST_EVERY;
    assert_eq!(mtus.handle_too_big(said(1400), later), Heard::Nothing);
    assert_eq!(mtus.handle_too_big(said(1200), later), Heard::Learned);
    assert_eq!(mtus.mtu(SERVER), Some(1200));
    assert!(!mtus.handle_timeout(later + HELD_FOR - Duration::from_secs(1)));
    assert!(mtus.handle_timeout(later + HELD_FOR));
    assert_eq!(mtus.mtu(SERVER), None);
}

#[test]
fn what_this_host_does_not_send_is_not_believed() {
    let (mut mtus, now) = with(&[tunnel(IPIP, false), tunnel(Carrier::Gue(6080), false)]);
    let other = "10.20.0.3".parse().unwrap();
    for quoted in [
        Outer { source: other, ..outer(IPIP) },
        Outer { server: other, ..outer(IPIP) },
        outer(Carrier::Packet(41)),
        outer(Carrier::Gue(53)),
    ] {
        assert_eq!(mtus.handle_too_big(TooBig { outer: quoted, ..said(1300) }, now), Heard::Unbelievable, "{quoted:?}");
    }
    // A packet that fits is not too big.
    assert_eq!(mtus.handle_too_big(TooBig { bytes: 1300, ..said(1300) }, now), Heard::Unbelievable);
    assert_eq!(mtus.mtu(SERVER), None);
    assert_eq!(mtus.handle_too_big(TooBig { outer: outer(Carrier::Gue(6080)), ..said(1300) }, now), Heard::Learned);
    mtus.set_tunnels([]);
    assert_eq!(mtus.handle_too_big(said(1200), now), Heard::Unbelievable);
}

#[test]
fn nobody_makes_packets_smaller_than_senders_can_follow() {
    let (mut mtus, now) = with(&[tunnel(IPIP, false)]);
    assert_eq!(mtus.handle_too_big(said(595), now), Heard::TooNarrow);
    assert_eq!(mtus.handle_too_big(said(0), now), Heard::TooNarrow);
    assert_eq!(mtus.mtu(SERVER), None);
    let [trouble] = &mtus.troubles()[..] else { panic!("{:?}", mtus.troubles()) };
    assert!(trouble.contains("server 10.20.0.2 passes 0 bytes only") && trouble.contains("(2 times)"), "{trouble}");
    assert_eq!(mtus.handle_too_big(said(596), now), Heard::Learned);

    // The MTU is the server's: a tunnel of IPv6 beside that of IPv4 has its say.
    let (mut mtus, now) = with(&[tunnel(IPIP, false), tunnel(Carrier::Packet(41), true)]);
    assert_eq!(mtus.handle_too_big(said(1299), now), Heard::TooNarrow);
    assert_eq!(mtus.handle_too_big(said(1300), now), Heard::Learned);
}

#[test]
fn a_flood_changes_a_server_once_a_second() {
    let (mut mtus, start) = with(&[tunnel(IPIP, false)]);
    let learned = (0..800).filter(|number| {
        let at = start + Duration::from_millis(u64::from(*number));
        mtus.handle_too_big(said(1499 - number), at) == Heard::Learned
    });
    assert_eq!(learned.count(), 1);
    assert_eq!(mtus.handle_too_big(said(600), start + CHANGES_AT_MOST_EVERY), Heard::Learned);
}

#[test]
fn a_link_that_ipv6_does_not_fit_is_told() {
    let narrow = Tunnel { room: 1279, ..tunnel(Carrier::Packet(41), true) };
    let (mtus, _) = with(&[tunnel(IPIP, false), narrow]);
    assert_eq!(mtus.troubles(), ["IPv6 packets of 1280 bytes do not fit the way to server 10.20.0.2: 1279 do"]);
    let (mtus, _) = with(&[Tunnel { room: 1280, ..narrow }, Tunnel { room: 600, ..tunnel(IPIP, false) }]);
    assert_eq!(mtus.troubles(), [] as [String; 0]);
}
