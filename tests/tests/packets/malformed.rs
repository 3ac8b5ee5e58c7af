//! Packets for a service that are cut short or contradict themselves.

use lb_common::{maps::ForwardKind::Dsr, reason::Drop::Malformed};
use weir_tests::fixture::{
    bench::{Expect, Verdict},
    pool::Pooled,
    state::{Port, member, service},
    wire::{Ip, ip, number, tcp},
};

use super::{CLIENT4, CLIENT6, SERVER4, SERVER6, VIP4, VIP6, bench, link, v4, v6};

fn both() -> Pooled {
    bench(&[
        service(VIP4, 6, 80, vec![member(Dsr, SERVER4)]),
        service(VIP6, 6, 80, vec![member(Dsr, SERVER6)]),
        service(VIP4, 17, 53, vec![member(Dsr, SERVER4)]),
        service(VIP6, 17, 53, vec![member(Dsr, SERVER6)]),
        service(VIP4, 6, 81, vec![member(lb_common::maps::ForwardKind::Nat, SERVER4).snat(&["10.0.0.254"], 0)]),
    ])
}

fn packets() -> Vec<Vec<u8>> {
    let options4 = Ip { options: vec![7, 11, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0], ..v4() };
    let extensions6 = Ip { extensions: vec![(0, vec![0, 0, 1, 4, 0, 0, 0, 0]), (60, [&[0, 1][..], &[0; 14]].concat())], ..v6() };
    let mut packets = Vec::new();
    for ip in [v4(), v6(), options4, extensions6] {
        packets.push(ip.tcp(&tcp(4000, 80, number::SYN)));
        packets.push(ip.udp(4000, 53, b"question"));
        packets.push(ip.tcp(&tcp(4000, 81, number::SYN)));
        let kind = if ip.source.is_ipv4() { 3 } else { 1 };
        packets.push(ip.icmp(kind, 1, 0, &ip.back().tcp(&tcp(80, 4000, number::ACK))));
        packets.push(ip.fragments(number::UDP, &ip.datagram(4000, 53, &[1; 40]), 16).0);
    }
    packets
}

#[test]
fn a_packet_cut_at_any_byte_is_dropped_or_passed() {
    let mut bench = both();
    for packet in packets() {
        let kind = if packet[0] >> 4 == 6 { 0x86dd } else { 0x0800 };
        let fixed_header = if kind == 0x86dd { 40 } else { 20 };
        for length in 0..packet.len() {
            let frame = link().frame_of(kind, &packet[..length]);
            let expect = if length < fixed_header { Expect::pass() } else { Expect::drop(0, Malformed) };
            bench.check(&format!("{length} of {packet:02x?}"), &frame, &expect);
        }
    }
}

/// The packet says that it is shorter than its headers; the frame goes on.
#[test]
fn a_length_that_cuts_the_headers_is_malformed_even_when_the_frame_goes_on() {
    let mut bench = both();
    for packet in packets() {
        let headers = header_bytes(&packet);
        let is_v4 = packet[0] >> 4 == 4;
        for length in 0..headers {
            let mut packet = packet.clone();
            if is_v4 {
                packet[2..4].copy_from_slice(&(length as u16).to_be_bytes());
            } else if length >= 40 {
                packet[4..6].copy_from_slice(&(length as u16 - 40).to_be_bytes());
            } else {
                continue;
            }
            bench.check(&format!("length {length} in {packet:02x?}"), &link().frame(&packet), &Expect::drop(0, Malformed));
        }
    }
}

/// The bytes that a packet must have: everything up to the ports, the whole TCP header, and of a quotation its ports.
fn header_bytes(packet: &[u8]) -> usize {
    let parts = weir_tests::fixture::oracle::parts(packet).unwrap();
    let quoted = if parts.source.is_ipv4() { 20 } else { 40 };
    parts.header.len()
        + match parts.protocol {
            number::TCP => 20,
            number::UDP => 8,
            _ => 8 + quoted + 8,
        }
}

#[test]
fn contradicting_headers_are_malformed() {
    let mut bench = both();
    let mut check = |what: &str, ip: &Ip, at: usize, byte: u8| {
        let mut packet = ip.tcp(&tcp(4000, 80, number::SYN).with(&[0; 40]));
        packet[at] = byte;
        let kind = if ip.source.is_ipv4() { 0x0800 } else { 0x86dd };
        bench.check(what, &link().frame_of(kind, &packet), &Expect::drop(0, Malformed));
    };
    check("IPv4 of version 6", &v4(), 0, 0x65);
    check("header of four words", &v4(), 0, 0x44);
    check("longer than the frame", &v4(), 2, 0x10);
    check("IPv6 of version 4", &v6(), 0, 0x40);
    check("payload longer than the frame", &v6(), 4, 0x10);
    check("TCP header of four words", &v4(), 32, 0x40);
    check("TCP header of four words", &v6(), 52, 0x40);
}

#[test]
fn a_tcp_header_longer_than_its_segment_is_malformed() {
    let mut bench = both();
    for (ip, at) in [(v4(), 32), (v6(), 52)] {
        let mut packet = ip.tcp(&tcp(4000, 80, number::SYN));
        packet[at] = 0x60;
        packet.extend([2, 4, 0xff, 0xff, 0, 0]);
        bench.check("option behind the end", &link().frame(&packet), &Expect::drop(0, Malformed));
    }
}

#[test]
fn more_than_six_extension_headers_are_malformed() {
    let mut bench = both();
    let with = |count: usize| Ip { extensions: vec![(60, vec![0, 0, 1, 4, 0, 0, 0, 0]); count], ..v6() }.tcp(&tcp(4000, 80, number::SYN));
    let ran = bench.run(Port::In, &link().frame(&with(6))).unwrap();
    assert_eq!(ran.verdict, Verdict::SentBack);
    bench.check("seven", &link().frame(&with(7)), &Expect::drop(0, Malformed));
    let long = Ip { extensions: vec![(60, [&[0, 63][..], &[0; 510]].concat())], ..v6() }.tcp(&tcp(4000, 80, number::SYN));
    bench.check("512 bytes", &link().frame(&long), &Expect::drop(0, Malformed));
}

#[test]
fn an_error_that_quotes_less_than_ports_is_malformed() {
    let mut bench = both();
    for (ip, kind) in [(ip(CLIENT4, VIP4), 3), (ip(CLIENT6, VIP6), 1)] {
        let quoted = ip.back().tcp(&tcp(80, 4000, number::ACK));
        let least = if kind == 3 { 28 } else { 48 };
        for length in 0..least {
            let frame = link().frame(&ip.icmp(kind, 1, 0, &quoted[..length]));
            bench.check(&format!("{length} quoted"), &frame, &Expect::drop(0, Malformed));
            // What follows the IP packet in the frame is not quoted.
            bench.check(&format!("{length} quoted, then more"), &[&frame[..], &quoted[length..]].concat(), &Expect::drop(0, Malformed));
        }
    }
}

#[test]
fn every_malformed_packet_may_be_sampled_with_its_bytes() {
    let mut bench = both();
    let mut samples = bench.samples().unwrap();
    samples.drain(usize::MAX);
    let mut frame = link().frame(&v4().tcp(&tcp(4000, 80, number::SYN)));
    frame.truncate(40);
    bench.check("cut", &frame, &Expect::drop(0, Malformed));
    let taken = samples.drain(8);
    assert_eq!(taken.len(), 1);
    assert_eq!((taken[0].reason, taken[0].frame_bytes, &taken[0].frame), (Malformed, 40, &frame));
}
