#![allow(clippy::type_complexity, reason = "tables of cases spell their columns out")]

extern crate std;

use core::net::{Ipv4Addr, Ipv6Addr};
use std::{vec, vec::Vec};

use proptest::prelude::*;

use super::*;

const SOURCE4: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const DESTINATION4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const SOURCE6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
const DESTINATION6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 2);
/// Source port 4321, destination port 443, sequence and acknowledgment, 20 bytes long, SYN.
const TCP: [u8; 20] = [0x10, 0xe1, 1, 0xbb, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, tcp::SYN, 0xff, 0xff, 0, 0, 0, 0];
/// The same ports and 8 bytes.
const UDP: [u8; 8] = [0x10, 0xe1, 1, 0xbb, 0, 8, 0, 0];

fn link(tags: &[(u16, u16)], kind: u16) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];
    for (ethertype, control) in tags {
        frame.extend(ethertype.to_ne_bytes());
        frame.extend(control.to_be_bytes());
    }
    frame.extend(kind.to_ne_bytes());
    frame
}

fn with_ipv4(mut frame: Vec<u8>, protocol: u8, options: &[u8], fragment: u16, payload: &[u8]) -> Vec<u8> {
    let header_bytes = 20 + options.len();
    frame.extend([0x40 | (header_bytes / 4) as u8, 0xb8]);
    frame.extend(((header_bytes + payload.len()) as u16).to_be_bytes());
    frame.extend([0xab, 0xcd]);
    frame.extend(fragment.to_be_bytes());
    frame.extend([64, protocol, 0, 0]);
    frame.extend(SOURCE4.octets());
    frame.extend(DESTINATION4.octets());
    frame.extend(options);
    frame.extend(payload);
    frame
}

fn ipv4(protocol: u8, options: &[u8], fragment: u16, payload: &[u8]) -> Vec<u8> {
    with_ipv4(link(&[], ETH_IPV4), protocol, options, fragment, payload)
}

fn with_ipv6(mut frame: Vec<u8>, next_header: u8, extensions: &[u8], payload: &[u8]) -> Vec<u8> {
    frame.extend([0x6b, 0x80, 0, 0]);
    frame.extend(((extensions.len() + payload.len()) as u16).to_be_bytes());
    frame.extend([next_header, 64]);
    frame.extend(SOURCE6.octets());
    frame.extend(DESTINATION6.octets());
    frame.extend(extensions);
    frame.extend(payload);
    frame
}

fn ipv6(next_header: u8, extensions: &[u8], payload: &[u8]) -> Vec<u8> {
    with_ipv6(link(&[], ETH_IPV6), next_header, extensions, payload)
}

/// An extension header of so many bytes, a multiple of eight.
fn extension(next_header: u8, bytes: usize) -> Vec<u8> {
    let mut header = vec![0; bytes];
    header[0] = next_header;
    header[1] = (bytes / 8 - 1) as u8;
    header
}

fn fragment_header(next_header: u8, offset_and_flags: u16) -> Vec<u8> {
    let mut header = vec![next_header, 0];
    header.extend(offset_and_flags.to_be_bytes());
    header.extend([1, 2, 3, 4]);
    header
}

fn parse(frame: &[u8]) -> Result<(Network, Transport), Malformed> {
    let network = network(frame, true).ok_or(Malformed)?;
    Ok((network, transport(frame, &network)?))
}

#[test]
fn zero_one_and_two_vlan_tags_are_passed_over_and_the_outermost_is_kept() {
    type Tagged<'a> = (&'a [(u16, u16)], usize, u16);
    let tagged: [Tagged<'_>; 4] =
        [(&[], 14, 0), (&[(ETH_VLAN, 0x2064)], 18, 0x2064), (&[(ETH_QINQ, 7)], 18, 7), (&[(ETH_QINQ, 7), (ETH_VLAN, 8)], 22, 7)];
    for (tags, l3, vlan) in tagged {
        let v4 = with_ipv4(link(tags, ETH_IPV4), protocol::TCP, &[], 0, &TCP);
        let v6 = with_ipv6(link(tags, ETH_IPV6), protocol::TCP, &[], &TCP);
        for (frame, header_bytes) in [(v4, 20), (v6, 40)] {
            let (network, transport) = parse(&frame).unwrap();
            assert_eq!((network.l3, network.offset(), u16::from_be(network.vlan)), (l3, l3, vlan));
            assert_eq!((transport.l4, transport.offset()), (l3 + header_bytes, l3 + header_bytes));
            assert_eq!((u16::from_be(transport.source_port), u16::from_be(transport.destination_port)), (4321, 443));
        }
    }
}

#[test]
fn three_tags_and_other_ethertypes_are_not_for_us() {
    let three = with_ipv4(link(&[(ETH_QINQ, 1), (ETH_QINQ, 2), (ETH_VLAN, 3)], ETH_IPV4), protocol::TCP, &[], 0, &TCP);
    let arp = with_ipv4(link(&[], 0x0806_u16.to_be()), protocol::TCP, &[], 0, &TCP);
    assert_eq!((network(&three[..], true), network(&arp[..], true)), (None, None));
    let v6 = ipv6(protocol::TCP, &[], &TCP);
    assert_eq!(network(&v6[..], false), None);
}

#[test]
fn an_ipv4_header_is_read_with_and_without_options() {
    for options in (0..=40).step_by(4) {
        let (network, transport) = parse(&ipv4(protocol::TCP, &vec![1; options], 0x4000, &TCP)).unwrap();
        assert_eq!((network.source, network.destination), (SOURCE4.into(), DESTINATION4.into()));
        assert_eq!((transport.protocol, transport.fragment, transport.dont_fragment), (protocol::TCP, Fragment::Whole, true));
        assert_eq!((transport.l4, transport.ip_bytes, transport.traffic_class), (34 + options, 40 + options, 0xb8));
        assert!(transport.is_syn());
    }
}

#[test]
fn a_syn_is_one_without_ack_and_rst() {
    for flags in 0..=u8::MAX {
        let mut segment = TCP;
        segment[13] = flags;
        let (_, transport) = parse(&ipv4(protocol::TCP, &[], 0, &segment)).unwrap();
        assert_eq!((transport.tcp_flags, transport.is_syn()), (flags, flags & 0x16 == 0x02));
    }
}

#[test]
fn ipv4_fragments_are_told_apart() {
    let identification = u32::from(0xabcd_u16.to_be());
    for (fragment, expected) in
        [(0, Fragment::Whole), (0x2000, Fragment::First), (0x2001, Fragment::Later), (0x0001, Fragment::Later), (0x1fff, Fragment::Later)]
    {
        let (_, transport) = parse(&ipv4(protocol::UDP, &[], fragment, &UDP)).unwrap();
        let port = if expected == Fragment::Later { 0 } else { 443 };
        assert_eq!((transport.fragment, u16::from_be(transport.destination_port)), (expected, port), "{fragment:#x}");
        assert_eq!(transport.identification, if expected == Fragment::Whole { 0 } else { identification });
    }
}

#[test]
fn ipv6_fragments_are_told_apart() {
    let identification = u32::from_ne_bytes([1, 2, 3, 4]);
    for (fragment, expected) in [(0, Fragment::Whole), (1, Fragment::First), (8, Fragment::Later), (9, Fragment::Later)] {
        let (_, transport) = parse(&ipv6(44, &fragment_header(protocol::UDP, fragment), &UDP)).unwrap();
        let port = if expected == Fragment::Later { 0 } else { 443 };
        assert_eq!((transport.fragment, u16::from_be(transport.destination_port)), (expected, port), "{fragment}");
        let identification = if expected == Fragment::Whole { 0 } else { identification };
        assert_eq!((transport.protocol, transport.identification), (protocol::UDP, identification));
    }
}

#[test]
fn extension_headers_are_skipped_up_to_six_and_400_bytes() {
    for kind in [0, 43, 60, 135] {
        for bytes in [8, 16, 64] {
            let (_, transport) = parse(&ipv6(kind, &extension(protocol::TCP, bytes), &TCP)).unwrap();
            assert_eq!((transport.protocol, transport.l4), (protocol::TCP, 54 + bytes), "header {kind}");
        }
    }
    // Its length counts 32-bit words less two (RFC 4302 s2.2).
    let authentication = [protocol::TCP, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    assert_eq!(parse(&ipv6(51, &authentication, &TCP)).unwrap().1.l4, 54 + 24);
    let chain = |headers: usize, bytes: usize| {
        let last = headers - 1;
        let headers: Vec<u8> = (0..headers).flat_map(|i| extension(if i == last { protocol::TCP } else { 60 }, bytes)).collect();
        parse(&ipv6(60, &headers, &TCP))
    };
    assert_eq!((chain(6, 8).unwrap().1.l4, chain(7, 8)), (54 + 48, Err(Malformed)));
    assert_eq!((chain(2, 224).unwrap().1.l4, chain(2, 232)), (54 + 448, Err(Malformed)));
}

#[test]
fn what_is_not_tcp_udp_or_icmp_has_no_ports() {
    for next in [2, protocol::IPV4, protocol::IPV6, 47, 50, 132] {
        for frame in [ipv4(next, &[], 0, &TCP), ipv6(next, &[], &TCP)] {
            let (_, transport) = parse(&frame).unwrap();
            assert_eq!((transport.protocol, transport.source_port, transport.tcp_flags), (next, 0, 0));
        }
    }
}

#[test]
fn headers_that_contradict_themselves_are_malformed() {
    let change = |frame: &[u8], offset: usize, byte: u8| {
        let mut frame = frame.to_vec();
        frame[offset] = byte;
        parse(&frame)
    };
    let v4 = ipv4(protocol::TCP, &[], 0, &TCP);
    let v6 = ipv6(protocol::TCP, &[], &TCP);
    for (name, parsed) in [
        ("version 5", change(&v4, 14, 0x55)),
        ("a header of 16 bytes", change(&v4, 14, 0x44)),
        ("a header longer than the packet", change(&v4, 14, 0x4f)),
        ("a packet longer than the frame", change(&v4, 17, 41)),
        ("a packet shorter than its header", change(&v4, 17, 19)),
        ("a TCP header of 16 bytes", change(&v4, 46, 0x40)),
        ("version 4 in IPv6", change(&v6, 14, 0x4b)),
        ("a payload longer than the frame", change(&v6, 19, 21)),
    ] {
        assert_eq!(parsed, Err(Malformed), "{name}");
    }
}

fn samples() -> Vec<Vec<u8>> {
    let headers: Vec<u8> = [extension(43, 8), extension(44, 16), fragment_header(protocol::TCP, 1)].concat();
    vec![
        ipv4(protocol::TCP, &[], 0, &TCP),
        ipv4(protocol::TCP, &[1; 40], 0, &TCP),
        ipv4(protocol::UDP, &[], 0x2000, &UDP),
        ipv6(protocol::UDP, &[], &UDP),
        ipv6(0, &headers, &TCP),
        with_ipv6(link(&[(ETH_QINQ, 1), (ETH_VLAN, 2)], ETH_IPV6), 0, &headers, &TCP),
    ]
}

#[test]
fn a_frame_cut_at_any_length_is_refused() {
    for frame in samples() {
        assert!(parse(&frame).is_ok());
        for length in 0..frame.len() {
            assert_eq!(parse(&frame[..length]), Err(Malformed), "{length} of {} bytes", frame.len());
        }
    }
}

#[test]
fn padding_after_the_packet_is_no_part_of_it() {
    for mut frame in samples() {
        let whole = parse(&frame).unwrap();
        frame.extend([0; 20]);
        assert_eq!(parse(&frame), Ok(whole));
    }
}

#[test]
fn a_quotation_needs_no_more_than_the_ports() {
    let v4 = ipv4(protocol::TCP, &[1; 8], 0, &TCP);
    let v6 = ipv6(protocol::TCP, &[], &TCP);
    for (frame, ports_at, is_v4) in [(v4, 42, true), (v6, 54, false)] {
        let quoted = quoted_transport(&frame[..ports_at + 8], 14, is_v4, ports_at + 8).unwrap();
        assert_eq!((u16::from_be(quoted.source_port), u16::from_be(quoted.destination_port), quoted.tcp_flags), (4321, 443, 0));
        assert_eq!(quoted_transport(&frame[..ports_at + 7], 14, is_v4, ports_at + 7), Err(Malformed));
    }
}

/// A frame whose TCP header has these options.
fn with_options(options: &[u8]) -> Vec<u8> {
    let mut segment = TCP.to_vec();
    segment[12] = (((20 + options.len()) / 4) << 4) as u8;
    segment.extend(options);
    ipv4(protocol::TCP, &[], 0, &segment)
}

#[test]
fn the_mss_option_is_found_wherever_it_stands() {
    type Case<'a> = (&'a [u8], Option<(usize, u16, bool)>);
    let cases: [Case<'_>; 9] = [
        (&[2, 4, 5, 180], Some((56, 1460, false))),
        (&[1, 1, 2, 4, 5, 180, 1, 0], Some((58, 1460, false))),
        (&[1, 2, 4, 5, 180, 1, 1, 0], Some((57, 1460, true))),
        (&[4, 2, 8, 10, 0, 0, 0, 0, 0, 0, 0, 0, 2, 4, 2, 24], Some((68, 536, false))),
        (&[], None),
        (&[1, 1, 1, 1], None),
        (&[0, 0, 0, 0, 2, 4, 5, 180], None),
        (&[3, 0, 2, 4, 5, 180, 0, 0], None),
        (&[3, 1, 2, 4, 5, 180, 0, 0], None),
    ];
    for (options, expected) in cases {
        let found = mss_option(&with_options(options)[..], 34);
        assert_eq!(found.map(|option| (option.offset, option.mss, option.is_odd)), expected, "{options:?}");
        let leading = found.filter(|option| option.offset == 56).map_or(NO_LEADING_MSS, |option| option.mss.into());
        assert_eq!(leading_mss(&with_options(options)[..], 34), leading, "{options:?}");
    }
}

#[test]
fn data_behind_a_header_without_options_is_no_mss() {
    let mut frame = with_options(&[]);
    frame.extend([2, 4, 5, 180]);
    assert_eq!(leading_mss(&frame[..], 34), NO_LEADING_MSS);
}

#[test]
fn an_mss_option_of_a_wrong_length_is_none() {
    for length in [0, 1, 2, 3, 5, 8, 255] {
        assert_eq!(mss_option(&with_options(&[2, length, 5, 180, 1, 1, 1, 0])[..], 34), None, "{length}");
    }
}

#[test]
fn an_mss_option_beyond_the_header_is_none() {
    let mut frame = with_options(&[1, 1, 1, 1]);
    frame.extend([2, 4, 5, 180]);
    assert_eq!(mss_option(&frame[..], 34), None);
    let cut = with_options(&[1, 1, 1, 1, 2, 4, 5, 180]);
    assert_eq!(mss_option(&cut[..cut.len() - 1], 34), None);
}

/// Random bytes, and sound frames of which some are changed.
fn frames() -> impl Strategy<Value = Vec<u8>> {
    let changed = (0..samples().len(), prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4));
    let changed = changed.prop_map(|(sample, changes)| {
        let mut frame = samples().swap_remove(sample);
        changes.into_iter().for_each(|(at, byte)| *at.get_mut(&mut frame) = byte);
        frame
    });
    prop_oneof![prop::collection::vec(any::<u8>(), 0..200), changed]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    #[test]
    fn any_bytes_are_parsed_or_refused_and_what_is_found_lies_in_the_frame(frame in frames(), at in 0_usize..200) {
        if let Ok((network, found)) = parse(&frame) {
            prop_assert!(network.l3 + found.ip_bytes <= frame.len());
            prop_assert_eq!((network.offset(), found.offset()), (network.l3, found.l4));
            let has_ports = found.source_port != 0 || found.destination_port != 0;
            prop_assert!(!has_ports || found.l4 + 8 <= frame.len());
        }
        for is_v4 in [true, false] {
            let quoted = quoted_transport(&frame[..], at, is_v4, frame.len());
            prop_assert!(quoted.is_err() || at < frame.len());
        }
        if let Some(option) = mss_option(&frame[..], at) {
            prop_assert!(option.offset + 2 <= frame.len());
        }
    }
}
