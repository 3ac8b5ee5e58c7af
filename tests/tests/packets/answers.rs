//! What is answered: echo, resets, unreachable, too big; and what is refused in silence.

use lb_common::{
    maps::{
        ForwardKind::{Dsr, Gue6, Ipip4, Ipip6},
        SOURCE_ALLOW, SOURCE_DENY, Service,
    },
    reason::{Drop, Note},
    words::MemberWord,
};
use weir_tests::fixture::{
    bench::{Counted, Expect},
    state::{HOP, Hop, Slots, Spec, State, link_of, member, service},
    wire::{Ip, Link, Tcp, ip, number, tcp},
};

use super::{SERVER4, SERVER6, VIP4, VIP6, bench, expect_delivered, from_client, link, tunnels, v4, v6, vip};

/// What we send back: hop limit 64, no identification, DF.
fn answer_to(ip: &Ip) -> Ip {
    let plain = Ip { hops: 64, class: 0, id: 0, options: vec![], extensions: vec![], fragment: None, dont_fragment: true, ..ip.clone() };
    plain.back()
}

fn kinds(is_v4: bool) -> [u8; 3] {
    if is_v4 { [8, 0, 3] } else { [128, 129, 1] }
}

#[test]
fn echo_to_a_vip_is_answered_with_a_fresh_hop_limit() {
    let mut bench = bench(&[service(VIP4, 6, 80, vec![member(Dsr, SERVER4)]), service(VIP6, 6, 80, vec![member(Dsr, SERVER6)])]);
    for is_v4 in [true, false] {
        let [request, reply, _] = kinds(is_v4);
        for tags in [vec![], vec![(0x8100, 5)], vec![(0x88a8, 5), (0x8100, 6)]] {
            let link = Link { tags, ..link() };
            for hops in [1, 64, 255] {
                for data in [&b""[..], b"x", &[0xff; 56], &[0; 1400]] {
                    let ip = Ip { hops, ..from_client(is_v4) };
                    let answer = Ip { hops: 64, ..ip.back() };
                    let out = link.back().frame(&answer.icmp(reply, 0, 0x0007_0001, data));
                    let expect = Expect::back(out).note(0, Note::EchoReplied);
                    bench.check("echo", &link.frame(&ip.icmp(request, 0, 0x0007_0001, data)), &expect);
                }
            }
        }
        let ip = from_client(is_v4);
        // A reply of zeros: its sum is that of no packet, and its checksum all ones.
        let out = link().back().frame(&Ip { hops: 64, ..ip.back() }.icmp(reply, 0, 0, b""));
        let expect = Expect::back(out).note(0, Note::EchoReplied);
        bench.check("echo of zeros", &link().frame(&ip.icmp(request, 0, 0, b"")), &expect);
        bench.check("reply", &link().frame(&ip.icmp(reply, 0, 1, b"x")), &Expect::pass());
        let other = if is_v4 { v4().packet(number::ICMPV6, &[128; 16]) } else { v6().packet(number::ICMP, &[8; 16]) };
        bench.check("the other family's", &link().frame(&other), &Expect::pass());
        let (first, later) = ip.fragments(if is_v4 { number::ICMP } else { number::ICMPV6 }, &[request; 64], 32);
        bench.check("first fragment of an echo", &link().frame(&first), &Expect::pass());
        bench.check("later fragment of an echo", &link().frame(&later), &Expect::pass());
    }
}

#[test]
fn a_tcp_segment_that_no_server_will_have_is_reset() {
    let nobody = |is_v4: bool| service(vip(is_v4), 6, 80, vec![]).slots(Slots::Nobody);
    let closing = |is_v4: bool| {
        let server = member(Dsr, if is_v4 { SERVER4 } else { SERVER6 }).in_state(MemberWord::CLOSING | MemberWord::DOWN);
        service(vip(is_v4), 6, 81, vec![server])
    };
    let mut bench = bench(&[nobody(true), nobody(false), closing(true), closing(false)]);
    let cases =
        [(true, 1, 80, Drop::NoServer), (false, 2, 80, Drop::NoServer), (true, 3, 81, Drop::ServerDown), (false, 4, 81, Drop::ServerDown)];
    for (is_v4, id, port, reason) in cases {
        let plain = from_client(is_v4);
        let odd = if is_v4 {
            Ip { options: vec![1; 8], class: 3, ..plain.clone() }
        } else {
            Ip { extensions: vec![(0, vec![0, 0, 1, 4, 0, 0, 0, 0])], class: 3, ..plain.clone() }
        };
        for ip in [plain, odd] {
            for tags in [vec![], vec![(0x8100, 5)], vec![(0x88a8, 5), (0x8100, 6)]] {
                let link = Link { tags, ..link() };
                for (flags, data) in [
                    (number::SYN, &b""[..]),
                    (number::SYN, b"fast open"),
                    (number::SYN | number::FIN, b""),
                    (0, b"odd"),
                    (number::FIN, b""),
                    (number::ACK, b"GET /"),
                    (number::ACK | number::FIN, b""),
                    (number::ACK | number::SYN, b""),
                ] {
                    let segment = Tcp { options: vec![2, 4, 5, 0xb4], ..tcp(4000, port, flags).with(data) };
                    let reset = reset_of(&segment);
                    let out = link.back().frame(&answer_to(&ip).tcp(&reset));
                    let expect = Expect::back(out).and(Counted::Drop(id, reason)).note(id, Note::ResetSent);
                    bench.check(&format!("{flags:#x} {data:?}"), &link.frame(&ip.tcp(&segment)), &expect);
                }
                for flags in [number::RST, number::RST | number::ACK, number::RST | number::SYN] {
                    bench.check("a reset", &link.frame(&ip.tcp(&tcp(4000, port, flags))), &Expect::drop(id, reason));
                }
            }
        }
    }
}

/// RFC 9293 s3.10.7.1.
fn reset_of(segment: &Tcp) -> Tcp {
    let plain = Tcp { window: 0, ..tcp(segment.target, segment.source, number::RST) };
    if segment.flags & number::ACK != 0 {
        return Tcp { sequence: segment.acknowledgment, acknowledgment: 0, ..plain };
    }
    let control = u32::from(segment.flags & number::SYN != 0) + u32::from(segment.flags & number::FIN != 0);
    let next = segment.sequence.wrapping_add(segment.data.len() as u32 + control);
    Tcp { sequence: 0, acknowledgment: next, flags: number::RST | number::ACK, ..plain }
}

#[test]
fn a_datagram_that_no_server_will_have_is_unreachable() {
    let closing = member(Dsr, SERVER6).in_state(MemberWord::CLOSING);
    let mut bench = bench(&[service(VIP4, 17, 53, vec![]).slots(Slots::Nobody), service(VIP6, 17, 53, vec![closing])]);
    for (is_v4, id, reason) in [(true, 1, Drop::NoServer), (false, 2, Drop::ServerDown)] {
        let plain = from_client(is_v4);
        let options = Ip { options: vec![1; 40], ..plain.clone() };
        let extensions = vec![(0, vec![0, 0, 1, 4, 0, 0, 0, 0]), (60, [&[0, 1][..], &[0; 14]].concat())];
        let odd = if is_v4 { options } else { Ip { extensions, ..plain.clone() } };
        let (kind, code) = if is_v4 { (3, 3) } else { (1, 4) };
        for (ip, quote) in [(plain, if is_v4 { 28 } else { 48 }), (odd, if is_v4 { 68 } else { 72 })] {
            for tags in [vec![], vec![(0x8100, 5)], vec![(0x88a8, 5), (0x8100, 6)]] {
                let link = Link { tags, ..link() };
                for data in [&b""[..], b"x", &[7; 1000]] {
                    let packet = ip.udp(4000, 53, data);
                    let out = link.back().frame(&answer_to(&ip).icmp(kind, code, 0, &packet[..quote]));
                    let expect = Expect::back(out).and(Counted::Drop(id, reason)).note(id, Note::UnreachableSent);
                    bench.check(&format!("{} bytes", data.len()), &link.frame(&packet), &expect);
                }
            }
        }
    }
}

#[test]
fn what_exceeds_the_path_is_told_where_no_router_may_fragment_it() {
    let mut bench = bench(&[]);
    for is_v4 in [true, false] {
        for member in tunnels(is_v4) {
            let member = member.by(Hop { mtu: 1400, ..HOP });
            let fits = 1400 - member.forward.overhead();
            bench.install(&State::of(&[service(vip(is_v4), 6, 80, vec![member.clone()])])).unwrap();
            let headers = if is_v4 { 40 } else { 60 };
            let exactly = from_client(is_v4).tcp(&tcp(4000, 80, number::ACK).with(&vec![5; fits - headers]));
            expect_delivered(&mut bench, "fits", &link().frame(&exactly), &exactly, &[]);
            for tags in [vec![], vec![(0x8100, 5)], vec![(0x88a8, 5), (0x8100, 6)]] {
                let link = Link { tags, ..link() };
                let ip = from_client(is_v4);
                let packet = ip.tcp(&tcp(4000, 80, number::ACK).with(&vec![5; fits - headers + 1]));
                let (kind, code, quote) = if is_v4 { (3, 4, 548) } else { (2, 0, 1232) };
                let out = link.back().frame(&answer_to(&ip).icmp(kind, code, fits as u32, &packet[..quote]));
                let expect = Expect::back(out).and(Counted::Drop(1, Drop::TooBig)).note(1, Note::TooBigSent);
                bench.check(&format!("{:?}", member.forward), &link.frame(&packet), &expect);
                if is_v4 {
                    let fragile = Ip { dont_fragment: false, ..ip };
                    let packet = fragile.tcp(&tcp(4000, 80, number::ACK).with(&vec![5; fits - headers + 1]));
                    bench.check("without DF", &link.frame(&packet), &Expect::drop(1, Drop::TooBig));
                }
            }
        }
    }
}

/// RFC 1122 s3.2.2, RFC 4443 s2.4 (e): no error is made about an error.
#[test]
fn an_error_that_exceeds_the_path_is_dropped_in_silence() {
    for (is_v4, forward, server) in [(true, Ipip4, SERVER4), (false, Ipip6, SERVER6), (false, Gue6, SERVER6)] {
        let mut bench = bench(&[service(vip(is_v4), 6, 80, vec![member(forward, server).by(Hop { mtu: 1280, ..HOP })])]);
        let ip = from_client(is_v4);
        let quoted = ip.back().tcp(&tcp(80, 4000, number::ACK).with(&[1; 1400]));
        let headers = if is_v4 { 28 } else { 48 };
        let error = ip.icmp(kinds(is_v4)[2], 1, 0, &quoted[..1280 - headers]);
        bench.check("error", &link().frame(&error), &Expect::drop(1, Drop::TooBig).note(1, Note::IcmpForwarded));
    }
}

fn rules(denied_others: u32, rules: &[(&str, u32)]) -> Vec<Spec> {
    let parse = |list: &[(&str, u32)], is_v4: bool| -> Vec<_> {
        let all = list.iter().map(|(net, rule)| (net.parse::<ipnet::IpNet>().unwrap(), *rule));
        all.filter(|(net, _)| net.addr().is_ipv4() == is_v4).collect()
    };
    let one = |is_v4: bool| Spec {
        rules: parse(rules, is_v4),
        ..service(vip(is_v4), 6, 80, vec![member(Dsr, if is_v4 { SERVER4 } else { SERVER6 })]).flags(denied_others | Service::SOURCE_RULES)
    };
    vec![one(true), one(false)]
}

#[test]
fn sources_are_allowed_and_denied_by_their_longest_prefix() {
    let nested = [
        ("198.51.100.0/24", SOURCE_DENY),
        ("198.51.100.128/25", SOURCE_ALLOW),
        ("198.51.100.200/32", SOURCE_DENY),
        ("2001:db8:c::/48", SOURCE_DENY),
        ("2001:db8:c:8000::/49", SOURCE_ALLOW),
        ("2001:db8:c:8000::c8/128", SOURCE_DENY),
    ];
    let cases = [
        ("198.51.100.7", false, false),
        ("198.51.100.129", true, true),
        ("198.51.100.200", false, false),
        ("203.0.113.1", true, false),
        ("2001:db8:c::7", false, false),
        ("2001:db8:c:8000::7", true, true),
        ("2001:db8:c:8000::c8", false, false),
        ("2001:db8:d::7", true, false),
    ];
    for (flags, column) in [(0, 0), (Service::DENY_OTHERS, 1)] {
        let mut bench = bench(&rules(flags, &nested));
        for (source, listed, strict) in cases {
            let is_v4 = source.contains('.');
            let id = if is_v4 { 1 } else { 2 };
            let packet = ip(source, vip(is_v4)).tcp(&tcp(4000, 80, number::SYN));
            let expect = if [listed, strict][column] {
                Expect::back(link_of(HOP).frame(&packet)).sent(id, 0)
            } else {
                Expect::drop(id, Drop::SourceDenied)
            };
            bench.check(source, &link().frame(&packet), &expect);
        }
    }
}

#[test]
fn a_source_that_connects_too_fast_is_refused_and_others_are_not() {
    // One connection in a thousand seconds, and three ahead of it.
    let limited = |is_v4: bool| Spec {
        rate: (1_000_000_000, 3_000_000_000),
        ..service(vip(is_v4), 6, 80, vec![member(Dsr, if is_v4 { SERVER4 } else { SERVER6 })])
    };
    let mut bench = bench(&[limited(true), limited(false)]);
    let mut connect = |source: &str, flags: u8, allowed: bool| {
        let is_v4 = source.contains('.');
        let id = if is_v4 { 1 } else { 2 };
        let packet = ip(source, vip(is_v4)).tcp(&tcp(4000, 80, flags));
        let sent = Expect::back(link_of(HOP).frame(&packet)).sent(id, 0);
        bench.check(source, &link().frame(&packet), &if allowed { sent } else { Expect::drop(id, Drop::ConnRate) });
    };
    for source in ["198.51.100.7", "2001:db8:c::7"] {
        for number in 0..8 {
            connect(source, number::SYN, number < 4);
            connect(source, number::ACK, true);
        }
    }
    connect("198.51.100.8", number::SYN, true);
    connect("2001:db8:c::8", number::SYN, false);
    connect("2001:db8:c:1::8", number::SYN, true);
}

#[test]
fn where_too_many_sources_are_watched_another_is_let_in_and_counted() {
    let limited = Spec { rate: (1_000_000_000, 0), ..service(VIP4, 6, 80, vec![member(Dsr, SERVER4)]) };
    let mut bench = bench(&[limited]);
    let mut unwatched = 0;
    for number in 0..200 {
        let packet = ip(&format!("198.51.100.{number}"), VIP4).tcp(&tcp(4000, 80, number::SYN));
        bench.check_by(weir_tests::fixture::state::Port::In, "new source", &link().frame(&packet), |ran| {
            let expect = Expect::back(link_of(HOP).frame(&packet)).sent(1, 0);
            if ran.counted.contains_key(&Counted::Note(1, Note::RateNoRoom)) {
                unwatched += 1;
                return expect.note(1, Note::RateNoRoom);
            }
            expect
        });
    }
    // The table has room for 64.
    assert!((136..200).contains(&unwatched), "{unwatched}");
}
