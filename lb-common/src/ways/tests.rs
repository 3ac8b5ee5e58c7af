extern crate std;

use core::net::IpAddr;
use std::{vec, vec::Vec};

use proptest::prelude::*;

use super::*;
use crate::checksum::sum_of;

const OWN: [&str; 2] = ["10.2.0.1", "fd00:2::1"];
const VIP: [&str; 2] = ["10.1.0.100", "fd00:1::100"];
const SERVER: [&str; 2] = ["10.2.0.11", "fd00:2::11"];

fn address(text: &str) -> Address {
    text.parse::<IpAddr>().unwrap().into()
}

/// A segment with its checksum, in an IP header.
fn packet(family: usize, protocol: u8, payload: &[u8]) -> (Vec<u8>, Inner) {
    let octets = |text: &str| -> Vec<u8> {
        match text.parse::<IpAddr>().unwrap() {
            IpAddr::V4(ip) => ip.octets().into(),
            IpAddr::V6(ip) => ip.octets().into(),
        }
    };
    let addresses = [octets(OWN[family]), octets(VIP[family])].concat();
    let offset = checksum_offset(protocol).unwrap();
    let mut segment = vec![0_u8; if protocol == protocol::TCP { 20 } else { 8 }];
    segment[..4].copy_from_slice(&[0x9c, 0x41, 0, 80]);
    segment.extend(payload);
    if protocol == protocol::UDP {
        let length = (segment.len() as u16).to_be_bytes();
        segment[4..6].copy_from_slice(&length);
    }
    let pseudo = sum_of(&addresses).add16((segment.len() as u16).to_be()).add16(u16::from(protocol).to_be());
    let checksum = pseudo.add(sum_of(&segment)).checksum();
    segment[offset..offset + 2].copy_from_slice(&checksum.to_ne_bytes());
    let mut header = if family == 0 {
        let length = (20_u16 + segment.len() as u16).to_be_bytes();
        vec![0x45, 0x28, length[0], length[1], 0x12, 0x34, 0x40, 0, 64, protocol, 0, 0]
    } else {
        let length = (segment.len() as u16).to_be_bytes();
        vec![0x62, 0x80, 0, 0, length[0], length[1], protocol, 64]
    };
    header.extend(&addresses);
    if family == 0 {
        let checksum = sum_of(&header).checksum();
        header[10..12].copy_from_slice(&checksum.to_ne_bytes());
    }
    let word = |at: usize| u32::from_ne_bytes(header[at..at + 4].try_into().unwrap());
    let inner = Inner {
        source: address(OWN[family]),
        destination: address(VIP[family]),
        first: [word(0), word(4)],
        ip_bytes: (header.len() + segment.len()) as u16,
        class: 0x28,
        protocol,
        source_port: u16::from_ne_bytes([0x9c, 0x41]),
    };
    header.extend(segment);
    (header, inner)
}

/// As the daemon builds it, without an outer source.
fn way(kind: ForwardKind, family: usize) -> Way {
    let mut bytes = [0_u8; OUTER_BYTES];
    let words = |text: &str| address(text).words();
    let inner = if family == 0 { protocol::IPV4 } else { protocol::IPV6 };
    let partial_sum = match kind {
        ForwardKind::Ipip4 | ForwardKind::Gue4 => {
            let protocol = if kind == ForwardKind::Gue4 { protocol::UDP } else { inner };
            bytes[..12].copy_from_slice(&[0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, protocol, 0, 0]);
            bytes[16..20].copy_from_slice(&words(SERVER[0])[3].to_ne_bytes());
            sum_of(&bytes[..20])
        }
        ForwardKind::Ipip6 | ForwardKind::Gue6 => {
            let protocol = if kind == ForwardKind::Gue6 { protocol::UDP } else { inner };
            bytes[..8].copy_from_slice(&[0x60, 0, 0, 0, 0, 0, protocol, 64]);
            bytes[24..40].copy_from_slice(bytemuck::bytes_of(&words(SERVER[1])));
            sum_of(&bytes[24..40]).add16(u16::from(protocol::UDP).to_be())
        }
        ForwardKind::Nat | ForwardKind::Dsr => unreachable!("no tunnels"),
    };
    if matches!(kind, ForwardKind::Gue4 | ForwardKind::Gue6) {
        let udp = kind.overhead() - 12;
        bytes[udp + 2..udp + 4].copy_from_slice(&6080_u16.to_be_bytes());
        bytes[udp + 9] = inner;
    }
    let vip = address(VIP[family]);
    Way { vip, outer: bytemuck::cast(bytes), partial_sum: u32::from(partial_sum.fold()), kind: kind as u8, takes_source: 1, reserved: 0 }
}

fn outer_of(kind: ForwardKind, family: usize, protocol: u8, payload: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let (packet, inner) = packet(family, protocol, payload);
    let header = outer(&way(kind, family), &inner)[..kind.overhead()].to_vec();
    (header, packet)
}

#[test]
fn an_ipv4_tunnel_has_lengths_source_class_and_checksum() {
    for kind in [ForwardKind::Ipip4, ForwardKind::Gue4] {
        let (header, packet) = outer_of(kind, 0, protocol::TCP, b"GET / HTTP/1.1");
        assert_eq!(sum_of(&header[..20]).checksum(), 0, "{kind:?}");
        assert_eq!(usize::from(u16::from_be_bytes([header[2], header[3]])), header.len() + packet.len());
        assert_eq!((header[1], &header[12..20]), (0x28, &[10, 2, 0, 1, 10, 2, 0, 11][..]));
        if kind == ForwardKind::Gue4 {
            assert_eq!(usize::from(u16::from_be_bytes([header[24], header[25]])), 12 + packet.len());
            assert_eq!((&header[20..24], &header[26..32]), (&[0x9c, 0x41, 0x17, 0xc0][..], &[0, 0, 0, 4, 0, 0][..]));
        }
    }
}

#[test]
fn a_source_that_is_configured_stays() {
    let (_, inner) = packet(0, protocol::TCP, b"");
    let mut fixed = way(ForwardKind::Ipip4, 0);
    let mut bytes: [u8; OUTER_BYTES] = bytemuck::cast(fixed.outer);
    bytes[12..16].copy_from_slice(&[192, 0, 2, 7]);
    fixed = Way { outer: bytemuck::cast(bytes), partial_sum: u32::from(sum_of(&bytes[..20]).fold()), takes_source: 0, ..fixed };
    let header = outer(&fixed, &inner);
    assert_eq!((&header[12..16], sum_of(&header[..20]).checksum()), (&[192, 0, 2, 7][..], 0));
}

#[test]
fn ipv6_in_ipv6_has_length_class_and_source() {
    let (header, packet) = outer_of(ForwardKind::Ipip6, 1, protocol::UDP, b"?");
    assert_eq!(&header[..8], &[0x62, 0x80, 0, 0, 0, packet.len() as u8, protocol::IPV6, 64]);
    assert_eq!(bytemuck::pod_read_unaligned::<Address>(&header[8..24]), address(OWN[1]));
}

proptest! {
    #[test]
    fn the_checksum_of_gue_in_ipv6_covers_everything(payload in prop::collection::vec(any::<u8>(), 0..200), is_tcp in any::<bool>()) {
        let (header, packet) = outer_of(ForwardKind::Gue6, 1, if is_tcp { protocol::TCP } else { protocol::UDP }, &payload);
        let datagram = [&header[40..], &packet].concat();
        prop_assert_eq!(usize::from(u16::from_be_bytes([header[4], header[5]])), datagram.len());
        let length = (datagram.len() as u16).to_be();
        let sum = sum_of(&header[8..40]).add16(length).add16(u16::from(protocol::UDP).to_be()).add(sum_of(&datagram));
        prop_assert_eq!(sum.checksum(), 0);
    }
}
