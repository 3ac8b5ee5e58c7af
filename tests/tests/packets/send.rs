//! DSR and tunnels: exact bytes toward the member.

use lb_common::{
    maps::ForwardKind::{Dsr, Gue6, Ipip4},
    reason::{Drop, Note},
};
use weir_tests::fixture::{
    bench::{Counted, Expect},
    state::{HOP, Hop, Port, link_of, member, service},
    wire::{Ip, Link, number, tcp},
};

use super::{SERVER4, SERVER6, VIP4, bench, expect_delivered, from_client, link, tunnels, v4, vip};

#[test]
fn every_way_of_forwarding_carries_tcp_and_udp_of_both_families() {
    let hops = [HOP, Hop { port: Port::Out, ..HOP }, Hop { vlan: 0x2064, ..HOP }, Hop { vlan: 7, port: Port::Out, ..HOP }];
    let tags = [vec![], vec![(0x8100, 0x6005)], vec![(0x88a8, 3), (0x8100, 4)]];
    let mut bench = bench(&[]);
    for is_v4 in [true, false] {
        for member in tunnels(is_v4) {
            for hop in hops {
                let member = member.clone().by(hop);
                let state = weir_tests::fixture::state::State::of(&[
                    service(vip(is_v4), 6, 80, vec![member.clone()]),
                    service(vip(is_v4), 17, 53, vec![member]),
                ]);
                bench.install(&state).unwrap();
                for tags in &tags {
                    let what = format!("{:?} {hop:?} {tags:?}", state.services[0].members[0].forward);
                    let link = Link { tags: tags.clone(), ..link() };
                    let ip = Ip { class: 0xb9, ..from_client(is_v4) };
                    for data in [&b""[..], b"x", b"GET / HTTP/1.1\r\n\r\n", &[0xa5; 1361]] {
                        let packet = ip.tcp(&tcp(4000, 80, number::ACK).with(data));
                        expect_delivered(&mut bench, &what, &link.frame(&packet), &packet, &[]);
                    }
                }
            }
        }
    }
}

#[test]
fn every_way_of_forwarding_carries_udp() {
    let mut bench = bench(&[]);
    for is_v4 in [true, false] {
        for member in tunnels(is_v4) {
            let spec = service(vip(is_v4), 17, 53, vec![member]);
            bench.install(&weir_tests::fixture::state::State::of(&[spec])).unwrap();
            for data in [&b""[..], b"x", b"question", &[0; 1000]] {
                let packet = from_client(is_v4).udp(4000, 53, data);
                expect_delivered(&mut bench, "udp", &link().frame(&packet), &packet, &[]);
            }
            let mut unsummed = from_client(is_v4).udp(4000, 53, b"without a checksum");
            let at = if is_v4 { 26 } else { 46 };
            unsummed[at..at + 2].fill(0);
            expect_delivered(&mut bench, "without a checksum", &link().frame(&unsummed), &unsummed, &[]);
        }
    }
}

#[test]
fn options_and_extension_headers_are_carried_along() {
    let mut bench = bench(&[]);
    for is_v4 in [true, false] {
        for member in tunnels(is_v4) {
            let spec = service(vip(is_v4), 6, 80, vec![member]);
            bench.install(&weir_tests::fixture::state::State::of(&[spec])).unwrap();
            for words in 1..=10 {
                let ip = Ip { options: vec![1; words * 4], ..v4() };
                let extensions = vec![(0, vec![0, 0, 1, 4, 0, 0, 0, 0]), (43, [&[0, words as u8][..], &vec![0; 6 + 8 * words]].concat())];
                let ip = if is_v4 { ip } else { Ip { extensions, ..from_client(false) } };
                let packet = ip.tcp(&tcp(4000, 80, number::ACK).with(b"data"));
                expect_delivered(&mut bench, "options", &link().frame(&packet), &packet, &[]);
            }
        }
    }
}

/// Padding behind the IP packet is no part of it: lengths and checksums are those of the packet.
#[test]
fn a_padded_frame_keeps_its_padding() {
    let mut bench = bench(&[]);
    for is_v4 in [true, false] {
        for member in tunnels(is_v4) {
            let spec = service(vip(is_v4), 6, 80, vec![member]);
            bench.install(&weir_tests::fixture::state::State::of(&[spec])).unwrap();
            let packet = from_client(is_v4).tcp(&tcp(4000, 80, number::ACK));
            let member = bench.state().services[0].members[0].clone();
            let frame = [link().frame(&packet), vec![0xee; 6]].concat();
            bench.check_by(Port::In, "padded", &frame, |ran| {
                let out = super::delivered(&member, HOP, &packet, super::entropy_of(&ran.frame, &member, HOP));
                Expect::back([out, vec![0xee; 6]].concat()).sent(1, 0)
            });
        }
    }
}

/// RFC 768: the UDP length may be less than what the IP packet has room for, and the UDP checksum does not cover the rest.
#[test]
fn gue_over_ipv6_has_no_checksum_where_the_inner_one_does_not_cover_its_packet() {
    for is_v4 in [true, false] {
        let mut bench = bench(&[service(vip(is_v4), 17, 53, vec![member(Gue6, SERVER6)])]);
        let ip = from_client(is_v4);
        let body = [ip.datagram(4000, 53, b"question"), b"surplus!".to_vec()].concat();
        let packet = ip.packet(number::UDP, &body);
        expect_delivered(&mut bench, "surplus", &link().frame(&packet), &packet, &[]);
    }
}

#[test]
fn a_syn_announces_no_more_than_fits_the_path() {
    let clamped = [Counted::Note(1, Note::MssClamped)];
    let mut bench = bench(&[]);
    for is_v4 in [true, false] {
        for member in tunnels(is_v4) {
            let member = member.by(Hop { mtu: 1400, ..HOP });
            let fits = 1400 - member.forward.overhead() as u16 - if is_v4 { 40 } else { 60 };
            bench.install(&weir_tests::fixture::state::State::of(&[service(vip(is_v4), 6, 80, vec![member])])).unwrap();
            let mss = |mss: u16| [[2, 4], mss.to_be_bytes()].concat();
            let nops = |before: usize, mss: Vec<u8>, after: usize| [vec![1; before], mss, vec![1; after]].concat();
            for (before, after) in [(0, 0), (1, 3), (2, 2), (3, 1), (4, 0), (9, 3)] {
                for (announced, expected) in [(1460, fits), (65535, fits), (fits + 1, fits), (fits, fits), (536, 536), (0, 0)] {
                    let syn =
                        |value| weir_tests::fixture::wire::Tcp { options: nops(before, mss(value), after), ..tcp(4000, 80, number::SYN) };
                    let (came, goes) = (from_client(is_v4).tcp(&syn(announced)), from_client(is_v4).tcp(&syn(expected)));
                    let counted = if announced > expected { &clamped[..] } else { &[] };
                    expect_delivered(&mut bench, &format!("{announced} after {before}"), &link().frame(&came), &goes, counted);
                }
            }
        }
    }
}

#[test]
fn only_the_mss_option_of_a_syn_is_changed() {
    let mut bench = bench(&[service(VIP4, 6, 80, vec![member(Ipip4, SERVER4)])]);
    let timestamps = [&[1, 1, 8, 10][..], &[0xff; 8]].concat();
    for options in [
        vec![],
        timestamps.clone(),
        vec![0, 2, 4, 0xff, 0xff, 0, 0, 0],
        vec![2, 3, 0xff, 0xff],
        vec![2, 6, 0xff, 0xff, 0xff, 0xff, 1, 1],
        vec![3, 0, 2, 4, 0xff, 0xff, 1, 1],
        vec![3, 1, 2, 4, 0xff, 0xff, 1, 1],
        vec![1, 1, 1, 2],
        vec![1, 1, 2, 4],
    ] {
        let segment = weir_tests::fixture::wire::Tcp { options, ..tcp(4000, 80, number::SYN) }.with(&[2, 4, 0xff, 0xff]);
        let packet = v4().tcp(&segment);
        expect_delivered(&mut bench, &format!("{:?}", segment.options), &link().frame(&packet), &packet, &[]);
        let ack = v4().tcp(&weir_tests::fixture::wire::Tcp { flags: number::ACK, options: vec![2, 4, 0xff, 0xff], ..segment });
        expect_delivered(&mut bench, "no SYN", &link().frame(&ack), &ack, &[]);
    }
}

#[test]
fn a_member_without_a_next_hop_is_a_counted_drop() {
    let unresolved = weir_tests::fixture::state::Member { hop: None, ..member(Dsr, SERVER4) };
    let mut bench = bench(&[service(VIP4, 6, 80, vec![unresolved])]);
    bench.check("unresolved", &link().frame(&v4().tcp(&tcp(4000, 80, number::SYN))), &Expect::drop(1, Drop::NoNextHop));
}

#[test]
fn a_frame_that_may_not_leave_by_an_interface_is_a_counted_drop() {
    let mut bench = bench(&[service(VIP4, 6, 80, vec![member(Dsr, SERVER4).by(Hop { port: Port::Closed, ..HOP })])]);
    let expect = Expect::drop(1, Drop::Driver).sent(1, 0);
    bench.check("closed", &link().frame(&v4().tcp(&tcp(4000, 80, number::SYN))), &expect);
}

#[test]
fn frames_come_in_by_any_interface() {
    let mut bench = bench(&[service(VIP4, 6, 80, vec![member(Dsr, SERVER4)])]);
    let packet = v4().tcp(&tcp(4000, 80, number::SYN));
    let frame = link().frame(&packet);
    let out = link_of(HOP).frame(&packet);
    bench.check_from(Port::In, "the same", &frame, &Expect::back(out.clone()).sent(1, 0));
    bench.check_from(Port::Out, "another", &frame, &Expect::redirect(out.clone()).sent(1, 0));
    bench.check_from(Port::Closed, "another", &frame, &Expect::redirect(out).sent(1, 0));
}
