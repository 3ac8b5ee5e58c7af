//! ICMP errors follow the flow that they quote.

use lb_common::{
    reason::{Drop, Note},
    words::MemberWord,
};
use weir_tests::fixture::{
    bench::{Bench, Counted, Expect},
    state::{HOP, Slots, State, address, link_of, service, tunnel_source},
    wire::{Ip, ip, number, tcp},
};

use super::{
    bench, expect_delivered, from_client, link,
    nat::{SNAT4, SNAT6, nat_service, opened, server, server_link, source_port, toward_server},
    tunnels, vip,
};

/// Each kind of error (type, code, second word) of a family.
fn kinds(is_v4: bool) -> Vec<(u8, u8, u32)> {
    if is_v4 {
        vec![(3, 0, 0), (3, 1, 0), (3, 3, 0), (3, 4, 1280), (11, 0, 0), (11, 1, 0), (12, 0, 0x1400_0000)]
    } else {
        vec![(1, 0, 0), (1, 4, 0), (2, 0, 1280), (3, 0, 0), (3, 1, 0), (4, 0, 6)]
    }
}

fn router(is_v4: bool) -> std::net::IpAddr {
    address(if is_v4 { "203.0.113.5" } else { "2001:db8:ffff::5" })
}

/// Bytes of a packet that errors quote: at least the header and eight more. Half a checksum is left as it is, so that no length ends in one.
fn quotations(is_v4: bool, packet: &[u8]) -> Vec<usize> {
    let least = if is_v4 { 28 } else { 48 };
    let all = [least, least + 1, least + 4, least + 8, least + 10, least + 11, least + 12, packet.len() - 1, packet.len()];
    all.into_iter().filter(|&length| length <= packet.len()).collect()
}

#[test]
fn an_error_about_what_a_server_sent_goes_to_that_server_untouched() {
    let forwarded = [Counted::Note(1, Note::IcmpForwarded)];
    let mut bench = bench(&[]);
    for is_v4 in [true, false] {
        for member in tunnels(is_v4) {
            for protocol in [number::TCP, number::UDP] {
                let port = if protocol == number::TCP { 80 } else { 53 };
                bench.install(&State::of(&[service(vip(is_v4), protocol, port, vec![member.clone()])])).unwrap();
                let client = from_client(is_v4);
                let to_client = Ip { hops: 1, ..client.back() };
                let quoted =
                    if protocol == number::TCP { to_client.tcp(&tcp(80, 4000, number::ACK)) } else { to_client.udp(53, 4000, b"answer") };
                for (kind, code, word) in kinds(is_v4) {
                    for length in quotations(is_v4, &quoted) {
                        let error = client.between(router(is_v4), client.target).icmp(kind, code, word, &quoted[..length]);
                        expect_delivered(&mut bench, &format!("{kind} {code} {length}"), &link().frame(&error), &error, &forwarded);
                    }
                }
            }
        }
    }
}

#[test]
fn an_error_goes_where_the_flow_it_quotes_went() {
    let three = ["10.0.0.1", "10.0.0.2", "10.0.0.3"].map(|server| super::tunnels(true)[0].clone_at(server));
    let mut bench = bench(&[service(vip(true), 6, 80, three.to_vec()).slots(Slots::Spread)]);
    for port in 1000..1100 {
        let client = from_client(true);
        let ran = bench.run(weir_tests::fixture::state::Port::In, &link().frame(&client.tcp(&tcp(port, 80, number::ACK)))).unwrap();
        let sent = *ran.counted.keys().next().unwrap();
        let quoted = client.back().tcp(&tcp(80, port, number::ACK));
        let error = client.between(router(true), client.target).icmp(3, 4, 1280, &quoted[..28]);
        let expect = Expect::back(link_of(HOP).frame(&error)).and(sent).note(1, Note::IcmpForwarded);
        bench.check("error", &link().frame(&error), &expect);
    }
}

trait At {
    fn clone_at(&self, server: &str) -> Self;
}

impl At for weir_tests::fixture::state::Member {
    fn clone_at(&self, server: &str) -> Self {
        Self { server: address(server), ..self.clone() }
    }
}

#[test]
fn an_error_writes_no_state() {
    let two = ["10.0.0.1", "10.0.0.2"].map(|server| super::tunnels(true)[0].clone_at(server));
    let mut bench = bench(&[service(vip(true), 6, 80, two.to_vec()).slots(Slots::Learning(0, Some(1)))]);
    let client = from_client(true);
    let error_about =
        |port: u16| client.between(router(true), client.target).icmp(3, 1, 0, &client.back().tcp(&tcp(80, port, number::ACK)));
    let to = |bench: &mut Bench, error: &[u8], member: usize| {
        let expect = Expect::back(link_of(HOP).frame(error)).sent(1, member).note(1, Note::IcmpForwarded);
        bench.check("error", &link().frame(error), &expect);
    };
    to(&mut bench, &error_about(1000), 0);
    assert_eq!(bench.words("FLOWS").unwrap().len(), 0);
    let syn = link().frame(&client.tcp(&tcp(1000, 80, number::SYN)));
    bench.run(weir_tests::fixture::state::Port::In, &syn).unwrap();
    let before = bench.words("FLOWS").unwrap();
    to(&mut bench, &error_about(1000), 1);
    assert_eq!(bench.words("FLOWS").unwrap(), before);
}

#[test]
fn errors_about_anything_else_are_the_hosts() {
    for is_v4 in [true, false] {
        let mut bench = bench(&[service(vip(is_v4), 6, 80, vec![tunnels(is_v4)[2].clone()])]);
        let client = from_client(is_v4);
        let kind = if is_v4 { 3 } else { 1 };
        let from_router = client.between(router(is_v4), client.target);
        let check = |bench: &mut Bench, what: &str, quoted: &[u8]| {
            bench.check(what, &link().frame(&from_router.icmp(kind, 1, 0, quoted)), &Expect::pass());
        };
        let back = client.back();
        check(&mut bench, "another port", &back.tcp(&tcp(81, 4000, number::ACK)));
        check(&mut bench, "UDP", &back.udp(80, 4000, b"x"));
        check(&mut bench, "another source", &back.between(router(is_v4), back.target).tcp(&tcp(80, 4000, number::ACK)));
        check(&mut bench, "our echo", &back.icmp(8, 0, 1, b"x"));
        check(&mut bench, "a tunnel", &back.packet(41, &[0x60; 60]));
        check(&mut bench, "a later fragment", &back.fragments(number::TCP, &[0; 64], 32).1);
    }
    // What a tunnel's router says comes to the tunnel's source, which is no VIP.
    let mut bench = bench(&[service(vip(true), 6, 80, vec![tunnels(true)[1].clone()])]);
    let source = tunnel_source(true);
    let outer =
        ip("0.0.0.0", "0.0.0.0").between(source, address("10.0.0.1")).packet(4, &from_client(true).tcp(&tcp(4000, 80, number::ACK)));
    let error = ip("10.0.0.9", &source.to_string()).icmp(3, 4, 1280, &outer);
    bench.check("path MTU of the tunnel", &link().frame(&error), &Expect::pass());
}

#[test]
fn an_error_is_translated_toward_the_server() {
    for is_v4 in [true, false] {
        let mut bench = bench(&[nat_service(is_v4, number::TCP, vec![server(is_v4)])]);
        let port = opened(&mut bench, is_v4, 4000);
        let client = from_client(is_v4);
        let toward = toward_server(is_v4);
        // As the router saw it, and as the server sent it.
        let segment = tcp(80, 4000, number::ACK).with(b"some data");
        let (seen, sent) = (client.back().tcp(&segment), toward.back().tcp(&segment.between(8080, port)));
        for (kind, code, word) in kinds(is_v4) {
            for length in quotations(is_v4, &seen) {
                let came = client.between(router(is_v4), client.target).icmp(kind, code, word, &seen[..length]);
                let goes = toward.between(router(is_v4), toward.target).icmp(kind, code, word, &sent[..length]);
                let expect = Expect::back(link_of(HOP).frame(&goes)).note(1, Note::IcmpForwarded).sent(1, 0);
                let what = format!("{kind} {code} {length}");
                bench.check(&what, &link().frame(&came), &expect);
                // Padding behind the packet is neither translated nor summed.
                let pad = |frame: Vec<u8>| [frame, vec![0x5a; 16]].concat();
                let expect = Expect { frame: expect.frame.map(pad), ..expect };
                bench.check(&format!("{what} padded"), &pad(link().frame(&came)), &expect);
            }
        }
    }
}

#[test]
fn an_error_is_translated_toward_the_client() {
    for is_v4 in [true, false] {
        let mut bench = bench(&[nat_service(is_v4, number::TCP, vec![server(is_v4)])]);
        let port = opened(&mut bench, is_v4, 4000);
        let client = from_client(is_v4);
        let toward = toward_server(is_v4);
        let segment = tcp(4000, 80, number::ACK).with(b"some data");
        let (sent, seen) = (client.tcp(&segment), toward.tcp(&segment.between(port, 8080)));
        for (kind, code, word) in kinds(is_v4) {
            for length in quotations(is_v4, &seen) {
                // What the server itself says, the VIP says; a router speaks for itself.
                for (speaker, shown) in [(toward.target, client.target), (router(is_v4), router(is_v4))] {
                    let came = toward.between(speaker, toward.source).icmp(kind, code, word, &seen[..length]);
                    let goes = client.between(shown, client.source).icmp(kind, code, word, &sent[..length]);
                    let expect = Expect::back(link().back().frame(&goes)).note(1, Note::IcmpForwarded);
                    bench.check(&format!("{kind} {code} {length}"), &server_link().frame(&came), &expect);
                }
            }
        }
    }
}

/// Every value of the quoted checksum, zero for none and all ones among them.
#[test]
fn the_quoted_checksum_of_a_datagram_is_mended() {
    for is_v4 in [true, false] {
        let mut bench = bench(&[nat_service(is_v4, number::UDP, vec![server(is_v4)])]);
        let client = from_client(is_v4);
        let ran = bench.run(weir_tests::fixture::state::Port::In, &link().frame(&client.udp(4000, 53, b"x"))).unwrap();
        let port = source_port(&ran.frame, is_v4);
        let toward = toward_server(is_v4);
        let kind = if is_v4 { 3 } else { 1 };
        let base = toward.datagram(port, 8080, &[0, 0]);
        let zero = u16::from_be_bytes([base[6], base[7]]);
        for value in (0..=u16::MAX).step_by(509).chain([zero, zero.wrapping_add(1), zero.wrapping_sub(1)]) {
            let data = value.to_be_bytes();
            let (seen, sent) = (client.back().udp(53, 4000, &data), toward.back().udp(8080, port, &data));
            let came = client.between(router(is_v4), client.target).icmp(kind, 1, 0, &seen);
            let goes = toward.between(router(is_v4), toward.target).icmp(kind, 1, 0, &sent);
            let expect = Expect::back(link_of(HOP).frame(&goes)).note(1, Note::IcmpForwarded).sent(1, 0);
            bench.check(&format!("{value:#06x}"), &link().frame(&came), &expect);
        }
    }
}

#[test]
fn an_error_that_quotes_no_flow_of_a_nat_service_is_a_counted_drop() {
    for is_v4 in [true, false] {
        let mut bench = bench(&[nat_service(is_v4, number::TCP, vec![server(is_v4)])]);
        opened(&mut bench, is_v4, 4000);
        let client = from_client(is_v4);
        let kind = if is_v4 { 3 } else { 1 };
        let error = client.icmp(kind, 1, 0, &client.back().tcp(&tcp(80, 4001, number::ACK)));
        bench.check("another client port", &link().frame(&error), &Expect::drop(1, Drop::IcmpUnknown));
        let snat = ip("198.51.100.1", "198.51.100.2").between(router(true), address(SNAT4));
        let snat = if is_v4 { snat } else { snat.between(router(false), address(SNAT6)) };
        let stranger = snat.icmp(kind, 1, 0, &snat.back().tcp(&tcp(2048, 8080, number::ACK)));
        bench.check("another server", &server_link().frame(&stranger), &Expect::pass());
        let closing = server(is_v4).in_state(MemberWord::CLOSING);
        bench.change(&State::of(&[nat_service(is_v4, number::TCP, vec![closing])])).unwrap();
        let error = client.icmp(kind, 1, 0, &client.back().tcp(&tcp(80, 4000, number::ACK)));
        bench.check("a closing server", &link().frame(&error), &Expect::drop(1, Drop::ServerDown));
    }
}
