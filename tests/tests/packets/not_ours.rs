//! What is not for us passes untouched, whatever odd thing it is.

use lb_common::maps::{ForwardKind::Dsr, VirtualMacs};
use weir_tests::fixture::{
    bench::{Bench, Expect},
    state::{State, member, service},
    wire::{Ip, ip, number, tcp},
};

use super::{CLIENT4, CLIENT6, SERVER4, SERVER6, VIP4, VIP6, bench, link, v4, v6};

const HOST4: &str = "192.0.2.99";
const HOST6: &str = "2001:db8::99";

fn services() -> Vec<weir_tests::fixture::state::Spec> {
    let nat = |vip, server, snat| service(vip, 6, 81, vec![member(lb_common::maps::ForwardKind::Nat, server).snat(&[snat], 0)]);
    vec![
        service(VIP4, 6, 80, vec![member(Dsr, SERVER4)]),
        service(VIP6, 6, 80, vec![member(Dsr, SERVER6)]),
        nat(VIP4, SERVER4, "10.0.0.254"),
        nat(VIP6, SERVER6, "fd00::fe"),
    ]
}

#[test]
fn other_protocols_than_ip_pass() {
    let mut bench = bench(&services());
    let arp = [0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 0xaa, 192, 0, 2, 7, 0, 0, 0, 0, 0, 0, 192, 0, 2, 1];
    bench.check("ARP for the VIP", &link().frame_of(0x0806, &arp), &Expect::pass());
    let packet = v4().tcp(&tcp(4000, 80, number::SYN));
    for kind in [0x0000, 0x0027, 0x86dc, 0x8847, 0x88cc, 0x9100, 0xffff] {
        bench.check("unknown EtherType", &link().frame_of(kind, &packet), &Expect::pass());
    }
}

#[test]
fn frames_too_short_for_their_headers_pass() {
    let mut bench = bench(&services());
    for kind in [0x0800_u16, 0x86dd, 0x8100, 0x88a8, 0x0806, 0x1234] {
        for length in 14..=60 {
            let mut frame = link().frame_of(kind, &[0; 46]);
            frame.truncate(length);
            bench.check(&format!("{length} bytes of {kind:#06x}"), &frame, &Expect::pass());
        }
    }
}

#[test]
fn packets_for_the_host_pass_with_options_extensions_and_fragments() {
    let mut bench = bench(&services());
    // RFC 3376 s4: a membership report, with the router alert of RFC 2113.
    let report = Ip { options: vec![0x94, 4, 0, 0], hops: 1, ..ip("192.0.2.7", "224.0.0.22") };
    let igmp = report.packet(2, &[0x22, 0, 0xf9, 0xfd, 0, 0, 0, 1, 4, 0, 0, 0, 224, 0, 0, 251]);
    bench.check("IGMP", &link().frame(&igmp), &Expect::pass());
    let mld = Ip { extensions: vec![(0, vec![0, 0, 5, 2, 0, 0, 1, 0])], hops: 1, ..ip("fe80::1", "ff02::16") };
    bench.check("MLD", &link().frame(&mld.icmp(143, 0, 1, &[4, 0, 0, 0])), &Expect::pass());
    let solicitation = ip("fe80::1", "ff02::1:ff00:1").icmp(135, 0, 0, &[0; 16]);
    bench.check("neighbour solicitation", &link().frame(&solicitation), &Expect::pass());
    for (source, host) in [(CLIENT4, HOST4), (CLIENT6, HOST6)] {
        let to_host = ip(source, host);
        bench.check("TCP", &link().frame(&to_host.tcp(&tcp(4000, 80, number::SYN))), &Expect::pass());
        bench.check("UDP", &link().frame(&to_host.udp(4000, 53, b"query")), &Expect::pass());
        bench.check("echo", &link().frame(&to_host.icmp(8, 0, 1, b"ping")), &Expect::pass());
        let (first, later) = to_host.fragments(number::UDP, &to_host.datagram(4000, 53, &[7; 64]), 32);
        bench.check("first fragment", &link().frame(&first), &Expect::pass());
        bench.check("later fragment", &link().frame(&later), &Expect::pass());
        let tags = vec![(0x88a8, 7), (0x8100, 8)];
        let tagged = weir_tests::fixture::wire::Link { tags, ..link() };
        bench.check("two tags", &tagged.frame(&to_host.tcp(&tcp(4000, 80, number::SYN))), &Expect::pass());
    }
}

#[test]
fn broken_packets_for_the_host_pass() {
    let mut bench = bench(&services());
    for host in [ip(CLIENT4, HOST4), ip(CLIENT6, HOST6)] {
        let packet = host.tcp(&tcp(4000, 80, number::SYN));
        for length in 0..packet.len() {
            bench.check(&format!("cut to {length}"), &link().frame_of(ether(&packet), &packet[..length]), &Expect::pass());
        }
        for byte in 0..8 {
            let mut odd = packet.clone();
            odd[byte] ^= 0xff;
            bench.check(&format!("byte {byte}"), &link().frame_of(ether(&packet), &odd), &Expect::pass());
        }
    }
}

fn ether(packet: &[u8]) -> u16 {
    if packet[0] >> 4 == 6 { 0x86dd } else { 0x0800 }
}

#[test]
fn ports_of_the_vip_without_a_service_are_the_hosts() {
    let mut bench = bench(&services());
    for to_vip in [v4(), v6()] {
        bench.check("TCP 443", &link().frame(&to_vip.tcp(&tcp(4000, 443, number::SYN))), &Expect::pass());
        bench.check("UDP 80", &link().frame(&to_vip.udp(4000, 80, b"x")), &Expect::pass());
        for protocol in [2, 4, 41, 47, 50, 59, 89, 112, 132, 255] {
            bench.check(&format!("protocol {protocol}"), &link().frame(&to_vip.packet(protocol, &[9; 40])), &Expect::pass());
        }
    }
}

#[test]
fn what_comes_to_a_snat_address_without_a_flow_is_the_hosts() {
    let mut bench = bench(&services());
    for to_snat in [ip(SERVER4, "10.0.0.254"), ip(SERVER6, "fd00::fe")] {
        bench.check("TCP", &link().frame(&to_snat.tcp(&tcp(81, 2048, number::SYN | number::ACK))), &Expect::pass());
        bench.check("UDP", &link().frame(&to_snat.udp(53, 2048, b"x")), &Expect::pass());
        bench.check("echo", &link().frame(&to_snat.icmp(if to_snat.source.is_ipv4() { 8 } else { 128 }, 0, 1, b"ping")), &Expect::pass());
        let about = to_snat.back().udp(33000, 53, b"x");
        let unreachable = if to_snat.source.is_ipv4() { (3, 3) } else { (1, 4) };
        bench.check("error", &link().frame(&to_snat.icmp(unreachable.0, unreachable.1, 0, &about)), &Expect::pass());
        let (first, later) = to_snat.fragments(number::UDP, &to_snat.datagram(53, 33000, &[7; 64]), 32);
        bench.check("first fragment", &link().frame(&first), &Expect::pass());
        bench.check("later fragment", &link().frame(&later), &Expect::pass());
    }
}

#[test]
fn frames_for_other_hosts_pass_whoever_they_are_for_inside() {
    let own = [super::IN_MAC, [2, 0, 0, 0, 0, 0x77]];
    let mut bench = Bench::with_macs(weir_tests::fixture::bench::ALL_FEATURES, &own).unwrap();
    bench.install(&State::of(&services())).unwrap();
    let packets = [
        v4().tcp(&tcp(4000, 80, number::SYN)),
        v6().tcp(&tcp(4000, 80, number::ACK)),
        v4().tcp(&tcp(4000, 81, number::ACK)),
        v4().icmp(8, 0, 1, b"ping"),
        v4().fragments(number::TCP, &[0; 64], 32).1,
    ];
    for packet in &packets {
        for target in [[2, 0, 0, 0, 0, 2], [0xff; 6], [1, 0, 0x5e, 0, 0, 1], [0x33, 0x33, 0, 0, 0, 1], [0; 6]] {
            bench.check("another's", &weir_tests::fixture::wire::Link { target, ..link() }.frame(packet), &Expect::pass());
        }
        for target in own {
            let ran = bench
                .run(weir_tests::fixture::state::Port::In, &weir_tests::fixture::wire::Link { target, ..link() }.frame(packet))
                .unwrap();
            assert_ne!(ran.verdict, weir_tests::fixture::bench::Verdict::Passed, "{packet:?}");
        }
    }
}

#[test]
fn frames_for_virtual_routers_are_taken_while_this_host_is_these() {
    let mut bench = Bench::with_macs(weir_tests::fixture::bench::ALL_FEATURES, &[super::IN_MAC]).unwrap();
    bench.install(&State::of(&services())).unwrap();
    let routers =
        [[0, 0, 0x5e, 0, 1, 10], [0, 0, 0x5e, 0, 1, 200], [0, 0, 0x5e, 0, 2, 10], [0, 0, 0x5e, 0, 2, 255], [0, 0, 0x5e, 0, 0, 10]];
    let packet = v4().tcp(&tcp(4000, 80, number::SYN));
    for mask in 0_u32..16 {
        let ours: Vec<[u8; 6]> = (0..4).filter(|bit| mask >> bit & 1 != 0).map(|bit| routers[bit]).collect();
        bench.set_virtual_macs(&ours).unwrap();
        for target in routers {
            let frame = weir_tests::fixture::wire::Link { target, ..link() }.frame(&packet);
            let ran = bench.run(weir_tests::fixture::state::Port::In, &frame).unwrap();
            assert_eq!(
                ran.verdict == weir_tests::fixture::bench::Verdict::Passed,
                !ours.contains(&target),
                "{target:02x?} while {ours:02x?}"
            );
        }
    }

    // One that nobody says so of any more: its processes are dead, and another host is it.
    bench.set_virtual_macs(&routers).unwrap();
    let frame = weir_tests::fixture::wire::Link { target: routers[0], ..link() }.frame(&packet);
    let is_taken = |bench: &mut Bench| {
        let ran = bench.run(weir_tests::fixture::state::Port::In, &frame).unwrap();
        ran.verdict != weir_tests::fixture::bench::Verdict::Passed
    };
    assert!(is_taken(&mut bench));
    let (began, lease_s) = (std::time::Instant::now(), u64::from(VirtualMacs::LEASE_S));
    while is_taken(&mut bench) {
        std::thread::sleep(std::time::Duration::from_millis(50));
        assert!(began.elapsed().as_secs() <= lease_s + 2, "it is taken for too long");
    }
    assert!(began.elapsed().as_secs() >= lease_s - 1, "{:?}", began.elapsed());
    bench.set_virtual_macs(&routers).unwrap();
    assert!(is_taken(&mut bench));
}

#[test]
fn odd_packets_to_the_hosts_own_address_pass_though_servers_see_it_as_well() {
    let mut bench = bench(&services());
    let to_host = ip(CLIENT4, "10.0.0.254");
    let (first, _) = to_host.fragments(number::TCP, &tcp(4000, 22, number::SYN).bytes(&to_host), 16);
    bench.check("a first fragment without all of its TCP header", &link().frame(&first), &Expect::pass());
    bench.check("a TCP header of no length", &link().frame(&to_host.packet(number::TCP, &[0; 20])), &Expect::pass());
    bench.check("half a UDP header", &link().frame(&to_host.packet(number::UDP, &[0; 4])), &Expect::pass());
}

#[test]
fn an_echo_request_that_cannot_be_answered_passes() {
    let mut bench = bench(&services());
    for source in ["0.0.0.0", "127.0.0.1", "224.0.0.5", "255.255.255.255"] {
        bench.check(source, &link().frame(&ip(source, VIP4).icmp(8, 0, 1, b"ping")), &Expect::pass());
    }
    for source in ["::", "::1", "ff02::1"] {
        bench.check(source, &link().frame(&ip(source, VIP6).icmp(128, 0, 1, b"ping")), &Expect::pass());
    }
}

#[test]
fn mapped_addresses_on_the_wire_are_nobodys() {
    let mut bench = bench(&services());
    let to_mapped = ip(CLIENT6, &format!("::ffff:{VIP4}")).tcp(&tcp(4000, 80, number::SYN));
    bench.check("to the mapped VIP", &link().frame(&to_mapped), &Expect::pass());
    let from_mapped = ip(&format!("::ffff:{CLIENT4}"), VIP6).tcp(&tcp(4000, 80, number::SYN));
    bench.check("from a mapped client", &link().frame(&from_mapped), &Expect::pass());
}

#[test]
fn ipv6_passes_where_no_service_has_it() {
    let mut bench = Bench::new(lb_common::maps::Settings::DSR).unwrap();
    bench
        .install(&State::of(&[service(VIP4, 6, 80, vec![member(Dsr, SERVER4)]), service(VIP6, 6, 80, vec![member(Dsr, SERVER6)])]))
        .unwrap();
    bench.check("IPv6", &link().frame(&v6().tcp(&tcp(4000, 80, number::SYN))), &Expect::pass());
}
