//! A frame of anybody: what the parsers find lies in it, and the short ways find what the long ones do.
#![no_main]

use lb_common::{
    checksum::sum_of,
    decap::{self, Opened},
    maps::DecapSettings,
    packet::{self, MAX_L4, NO_LEADING_MSS, Network, Transport, plain, protocol},
    reason::Decap,
};
use libfuzzer_sys::fuzz_target;

const ETHERNET: usize = 14;
const GUE_PORT: u16 = 6080;

fuzz_target!(|frame: &[u8]| {
    parsed(frame);
    quoted(frame);
    decapsulated(frame);
    checksum(frame);
});

fn parsed(frame: &[u8]) {
    let network = packet::network(frame, true);
    assert!(network.is_none_or(|network| matches!(network.l3, 14 | 18 | 22) && network.l3 < frame.len()));
    let long = network.and_then(|network| packet::transport(frame, &network).ok().map(|transport| (network, transport)));
    if let Some((network, transport)) = &long {
        lies_within(frame, network, transport);
        if transport.protocol == protocol::TCP {
            mss(frame, transport.l4);
        }
    }
    for (network, transport) in [
        (plain::network::<false, _>(frame), plain::transport::<false, _>(frame)),
        (plain::network::<true, _>(frame), plain::transport::<true, _>(frame)),
    ] {
        if let (Some(network), Some(transport)) = (network, transport) {
            assert_eq!(long, Some((network, transport)));
        }
    }
}

fn lies_within(frame: &[u8], network: &Network, transport: &Transport) {
    assert!(network.l3 + transport.ip_bytes <= frame.len());
    assert_eq!((network.offset(), transport.offset()), (network.l3, transport.l4));
    assert!(transport.l4 > network.l3 && transport.l4 <= MAX_L4);
    let has_ports = transport.source_port != 0 || transport.destination_port != 0;
    assert!(!has_ports || transport.l4 + 8 <= network.l3 + transport.ip_bytes);
    let has_flags = transport.tcp_flags != 0;
    assert!(!has_flags || transport.protocol == protocol::TCP && transport.l4 + 20 <= network.l3 + transport.ip_bytes);
}

fn mss(frame: &[u8], l4: usize) {
    let found = packet::mss_option(frame, l4);
    if let Some(option) = found {
        assert!(option.offset + 2 <= frame.len() && option.offset < l4 + 60);
        assert_eq!(option.is_odd, (option.offset - l4) % 2 != 0);
        assert_eq!(option.mss.to_be_bytes(), frame[option.offset..][..2]);
    }
    let leading = found.filter(|option| option.offset == l4 + 22).map_or(NO_LEADING_MSS, |option| option.mss.into());
    assert_eq!(packet::leading_mss(frame, l4), leading);
}

/// An ICMP error may quote a packet from anywhere in the frame on; here it does from where the frame's own would begin.
fn quoted(frame: &[u8]) {
    for is_v4 in [true, false] {
        let Ok(quoted) = packet::quoted_transport(frame, ETHERNET, is_v4, frame.len()) else { continue };
        let has_ports = quoted.source_port != 0 || quoted.destination_port != 0;
        assert!(!has_ports || quoted.l4 + 8 <= frame.len());
        assert_eq!(quoted.offset(), quoted.l4);
        assert_eq!(quoted.tcp_flags, 0);
    }
}

fn decapsulated(frame: &[u8]) {
    for settings in [DecapSettings::IPIP, DecapSettings::gue(GUE_PORT)] {
        let mut asked = 0;
        let opened = decap::open(frame, settings, |_| {
            asked += 1;
            true
        });
        assert!(asked <= 1 && opened.outcome <= Opened::NO_TUNNEL);
        if opened.outcome == Decap::Decapsulated.index() {
            assert_eq!(asked, 1);
            assert!(opened.l3 + 20 <= opened.inner && opened.inner + 20 <= frame.len());
            let version = frame[opened.inner] >> 4;
            assert_eq!(version == 4, opened.kind == packet::ETH_IPV4);
            assert!(opened.ecn <= 3 && opened.ecn_before <= 3);
        }
    }
    assert_eq!(decap::open(frame, DecapSettings::NONE, |_| true).outcome, Opened::NO_TUNNEL);
}

/// A word of the frame is another: the update of the checksum is that of the whole. Both zeros are the same (RFC 1624 s3).
fn checksum(frame: &[u8]) {
    let [first, second, rest @ ..] = frame else { return };
    let (old, new) = (u16::from_ne_bytes([*first, *second]), u16::from_ne_bytes([*second, *first]) ^ 0x5a5a);
    let before = sum_of(frame).checksum();
    let after = sum_of(rest).add16(new).checksum();
    let updated = sum_of(&[]).remove16(old).add16(new).update(before);
    assert!(updated == after || updated == !after && matches!(after, 0 | 0xffff));
}
