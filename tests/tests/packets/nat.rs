//! NAT: requests, replies, ports, and the flows that keep them together. Bytes are exact; the port that the server sees is the program's choice.

use lb_common::{
    maps::ForwardKind::Nat,
    reason::{Drop, Note},
};
use weir_tests::fixture::{
    bench::{Bench, Counted, Expect},
    state::{HOP, Hop, IN_MAC, Member, OUT_MAC, Port, ROUTER_MAC, SERVER_MAC, Spec, State, address, link_of, member, service},
    wire::{Ip, Link, Tcp, ip, number, tcp},
};

use super::{CLIENT4, CLIENT6, SERVER4, SERVER6, bench, from_client, link, vip};

pub(crate) const SNAT4: &str = "10.0.0.254";
pub(crate) const SNAT6: &str = "fd00::fe";

pub(crate) fn server(is_v4: bool) -> Member {
    member(Nat, if is_v4 { SERVER4 } else { SERVER6 }).snat(&[if is_v4 { SNAT4 } else { SNAT6 }], 8080)
}

pub(crate) fn nat_service(is_v4: bool, protocol: u8, members: Vec<Member>) -> Spec {
    service(vip(is_v4), protocol, if protocol == number::TCP { 80 } else { 53 }, members)
}

/// The first eight-byte word of the transport header begins here in a frame without tags.
pub(crate) fn transport_at(is_v4: bool) -> usize {
    14 + if is_v4 { 20 } else { 40 }
}

/// The source port of a frame that left by [`HOP`].
pub(crate) fn source_port(frame: &[u8], is_v4: bool) -> u16 {
    let at = transport_at(is_v4);
    u16::from_be_bytes([frame[at], frame[at + 1]])
}

/// From the SNAT address to the server.
pub(crate) fn toward_server(is_v4: bool) -> Ip {
    if is_v4 { ip(SNAT4, SERVER4) } else { ip(SNAT6, SERVER6) }
}

/// From a server, as it sends to us.
pub(crate) fn server_link() -> Link {
    Link { target: IN_MAC, source: SERVER_MAC, tags: vec![] }
}

/// Opens a flow and gives the port that the server sees.
pub(crate) fn opened(bench: &mut Bench, is_v4: bool, client_port: u16) -> u16 {
    let syn = tcp(client_port, 80, number::SYN);
    let mut port = 0;
    bench.check_by(Port::In, "SYN", &link().frame(&from_client(is_v4).tcp(&syn)), |ran| {
        port = source_port(&ran.frame, is_v4);
        let out = link_of(HOP).frame(&toward_server(is_v4).tcp(&syn.between(port, 8080)));
        Expect::back(out).note(1, Note::NatOpened).sent(1, 0)
    });
    let page = port / 256;
    assert!((8..10).contains(&page) || page == 200, "{port}");
    port
}

fn request(bench: &mut Bench, what: &str, is_v4: bool, segment: &Tcp, port: u16) {
    let out = link_of(HOP).frame(&toward_server(is_v4).tcp(&segment.between(port, 8080)));
    bench.check(what, &link().frame(&from_client(is_v4).tcp(segment)), &Expect::back(out).sent(1, 0));
}

fn reply(bench: &mut Bench, what: &str, is_v4: bool, segment: &Tcp, client_port: u16) {
    let out = link().back().frame(&from_client(is_v4).back().tcp(&segment.between(80, client_port)));
    bench.check(what, &server_link().frame(&toward_server(is_v4).back().tcp(segment)), &Expect::back(out));
}

#[test]
fn a_connection_is_translated_both_ways() {
    for is_v4 in [true, false] {
        let mut bench = bench(&[nat_service(is_v4, number::TCP, vec![server(is_v4)])]);
        let port = opened(&mut bench, is_v4, 4000);
        request(&mut bench, "SYN again", is_v4, &tcp(4000, 80, number::SYN), port);
        reply(&mut bench, "SYN ACK", is_v4, &tcp(8080, port, number::SYN | number::ACK), 4000);
        for data in [&b""[..], b"x", &[0xff; 700], &[0; 1431]] {
            request(&mut bench, "data", is_v4, &tcp(4000, 80, number::ACK).with(data), port);
            reply(&mut bench, "data", is_v4, &tcp(8080, port, number::ACK).with(data), 4000);
        }
        let other = opened(&mut bench, is_v4, 4001);
        assert_ne!(port, other);
        let usage = bench.dataplane().tables().nat_usage().unwrap();
        assert_eq!((usage.planes.len(), usage.planes[0].chunks_used), (1, 1));
    }
}

#[test]
fn who_cannot_be_answered_or_is_one_of_our_own_addresses_opens_no_flow() {
    for is_v4 in [true, false] {
        let mut bench = bench(&[nat_service(is_v4, number::UDP, vec![server(is_v4)])]);
        let own = if is_v4 { [vip(true), SNAT4] } else { [vip(false), SNAT6] };
        let martian: &[&str] = if is_v4 { &["0.0.0.0", "127.0.0.1", "224.0.0.1", "255.255.255.255"] } else { &["::", "::1", "ff02::1"] };
        for source in own.iter().chain(martian) {
            let frame = link().frame(&ip(source, vip(is_v4)).udp(53, 53, b"loop"));
            bench.check(source, &frame, &Expect::drop(1, Drop::MartianSource));
        }
        let port = opened_by_datagram(&mut bench, is_v4);
        assert_ne!(port, 0, "anybody else does");
    }
}

/// Opens a flow of UDP and gives the port that the server sees.
fn opened_by_datagram(bench: &mut Bench, is_v4: bool) -> u16 {
    let ran = bench.run(Port::In, &link().frame(&from_client(is_v4).udp(4000, 53, b"x"))).unwrap();
    source_port(&ran.frame, is_v4)
}

#[test]
fn replies_return_by_the_tags_mac_and_interface_of_the_flows_first_packet() {
    for is_v4 in [true, false] {
        for (hop, came_by) in [(HOP, Port::Out), (Hop { port: Port::Out, ..HOP }, Port::In), (Hop { vlan: 9, ..HOP }, Port::In)] {
            for tags in [vec![], vec![(0x8100, 0x6005)]] {
                let mut bench = bench(&[nat_service(is_v4, number::TCP, vec![server(is_v4).by(hop)])]);
                let own = if came_by == Port::In { IN_MAC } else { OUT_MAC };
                let client = Link { target: own, source: ROUTER_MAC, tags: tags.clone() };
                let syn = tcp(4000, 80, number::SYN);
                let mut port = 0;
                bench.check_by(came_by, "SYN", &client.frame(&from_client(is_v4).tcp(&syn)), |ran| {
                    let at = transport_at(is_v4) + if hop.vlan == 0 { 0 } else { 4 };
                    port = u16::from_be_bytes([ran.frame[at], ran.frame[at + 1]]);
                    let out = link_of(hop).frame(&toward_server(is_v4).tcp(&syn.between(port, 8080)));
                    let expect = if hop.port == came_by { Expect::back(out) } else { Expect::redirect(out) };
                    expect.note(1, Note::NatOpened).sent(1, 0)
                });
                let answer = tcp(8080, port, number::SYN | number::ACK);
                let out = client.back().frame(&from_client(is_v4).back().tcp(&answer.between(80, 4000)));
                let from_server = link_of(hop).back().frame(&toward_server(is_v4).back().tcp(&answer));
                let expect = if hop.port == came_by { Expect::back(out) } else { Expect::redirect(out) };
                bench.check_from(hop.port, "SYN ACK", &from_server, &expect);
            }
        }
    }
}

/// Replies could not be given the tags, and with others they would reach somebody else.
#[test]
fn a_client_behind_tags_that_a_reply_cannot_carry_opens_no_flow() {
    for is_v4 in [true, false] {
        let mut bench =
            bench(&[nat_service(is_v4, number::TCP, vec![server(is_v4)]), nat_service(is_v4, number::UDP, vec![server(is_v4)])]);
        for tags in [vec![(0x88a8, 5)], vec![(0x88a8, 5), (0x8100, 6)], vec![(0x8100, 5), (0x8100, 6)]] {
            let client = Link { tags, ..link() };
            let syn = client.frame(&from_client(is_v4).tcp(&tcp(4000, 80, number::SYN)));
            bench.check("SYN", &syn, &Expect::drop(1, Drop::VlanTags));
            let datagram = client.frame(&from_client(is_v4).udp(4000, 53, b"question"));
            bench.check("datagram", &datagram, &Expect::drop(2, Drop::VlanTags));
        }
    }
}

#[test]
fn datagrams_are_translated_both_ways_with_and_without_checksum() {
    for is_v4 in [true, false] {
        let mut bench = bench(&[nat_service(is_v4, number::UDP, vec![server(is_v4)])]);
        let mut port = 0;
        let client = from_client(is_v4);
        bench.check_by(Port::In, "first", &link().frame(&client.udp(4000, 53, b"question")), |ran| {
            port = source_port(&ran.frame, is_v4);
            let out = link_of(HOP).frame(&toward_server(is_v4).udp(port, 8080, b"question"));
            Expect::back(out).note(1, Note::NatOpened).sent(1, 0)
        });
        let back = Expect::back(link().back().frame(&client.back().udp(53, 4000, b"answer")));
        bench.check("answer", &server_link().frame(&toward_server(is_v4).back().udp(8080, port, b"answer")), &back);
        // Every value of the checksum, 0xffff for 0 among them.
        for value in 0..=u16::MAX {
            if value % 251 != 0 && value < 0xfff0 && value > 16 {
                continue;
            }
            let data = [&b"data"[..], &value.to_be_bytes()].concat();
            let out = link_of(HOP).frame(&toward_server(is_v4).udp(port, 8080, &data));
            bench.check("data", &link().frame(&client.udp(4000, 53, &data)), &Expect::back(out).sent(1, 0));
        }
        let unsummed = |ip: Ip, source: u16, target: u16| {
            let mut body = ip.datagram(source, target, b"none");
            body[6..8].fill(0);
            ip.packet(number::UDP, &body)
        };
        let out = link_of(HOP).frame(&unsummed(toward_server(is_v4), port, 8080));
        bench.check("no checksum", &link().frame(&unsummed(client, 4000, 53)), &Expect::back(out).sent(1, 0));
    }
}

/// RFC 768: a checksum that comes out as zero is sent as all ones, since zero says that there is none.
#[test]
fn a_translated_checksum_of_zero_is_sent_as_all_ones() {
    for is_v4 in [true, false] {
        let mut bench = bench(&[nat_service(is_v4, number::UDP, vec![server(is_v4)])]);
        let client = from_client(is_v4);
        let ran = bench.run(Port::In, &link().frame(&client.udp(4000, 53, b"first!"))).unwrap();
        let port = source_port(&ran.frame, is_v4);
        let sum_of = |ip: &Ip, data: &[u8]| {
            let body = ip.datagram(port, 8080, data);
            u16::from_be_bytes([body[6], body[7]])
        };
        let base = sum_of(&toward_server(is_v4), &[0, 0]);
        let data = base.to_be_bytes();
        assert_eq!(sum_of(&toward_server(is_v4), &data), 0xffff);
        let out = link_of(HOP).frame(&toward_server(is_v4).udp(port, 8080, &data));
        bench.check("zero", &link().frame(&client.udp(4000, 53, &data)), &Expect::back(out).sent(1, 0));
    }
}

#[test]
fn options_and_extension_headers_are_carried_through() {
    for is_v4 in [true, false] {
        let mut bench = bench(&[nat_service(is_v4, number::TCP, vec![server(is_v4)])]);
        let port = opened(&mut bench, is_v4, 4000);
        let odd = |ip: Ip| {
            if is_v4 { Ip { options: vec![1; 12], ..ip } } else { Ip { extensions: vec![(0, vec![0, 0, 1, 4, 0, 0, 0, 0])], ..ip } }
        };
        let segment = tcp(4000, 80, number::ACK).with(b"data");
        let out = link_of(HOP).frame(&odd(toward_server(is_v4)).tcp(&segment.between(port, 8080)));
        bench.check("request", &link().frame(&odd(from_client(is_v4)).tcp(&segment)), &Expect::back(out).sent(1, 0));
    }
}

#[test]
fn both_handshake_segments_announce_no_more_than_fits() {
    for is_v4 in [true, false] {
        let hop = Hop { mtu: 1300, ..HOP };
        let mut bench = bench(&[nat_service(is_v4, number::TCP, vec![server(is_v4).by(hop)])]);
        let fits: u16 = 1300 - if is_v4 { 40 } else { 60 };
        let with = |mss: u16| [&[1, 2, 4][..], &mss.to_be_bytes(), &[1, 1, 1]].concat();
        let syn = |mss| Tcp { options: with(mss), ..tcp(4000, 80, number::SYN) };
        let mut port = 0;
        bench.check_by(Port::In, "SYN", &link().frame(&from_client(is_v4).tcp(&syn(1460))), |ran| {
            port = source_port(&ran.frame, is_v4);
            let out = link_of(hop).frame(&toward_server(is_v4).tcp(&syn(fits).between(port, 8080)));
            Expect::back(out).note(1, Note::NatOpened).note(1, Note::MssClamped).sent(1, 0)
        });
        let answer = |mss| Tcp { options: with(mss), ..tcp(8080, port, number::SYN | number::ACK) };
        let out = link().back().frame(&from_client(is_v4).back().tcp(&answer(fits).between(80, 4000)));
        let from_server = server_link().frame(&toward_server(is_v4).back().tcp(&answer(1460)));
        bench.check("SYN ACK", &from_server, &Expect::back(out).note(1, Note::MssClamped));
    }
}

#[test]
fn what_is_too_big_for_the_server_or_the_client_is_told() {
    for is_v4 in [true, false] {
        let mut bench = bench(&[nat_service(is_v4, number::TCP, vec![server(is_v4).by(Hop { mtu: 1300, ..HOP })])]);
        let syn = tcp(4000, 80, number::SYN);
        let ran = bench.run(Port::Out, &link().frame(&from_client(is_v4).tcp(&syn))).unwrap();
        let port = source_port(&ran.frame, is_v4);
        let too_big = |ip: &Ip, packet: &[u8], mtu: u32| {
            let (kind, code, quote) = if is_v4 { (3, 4, 548) } else { (2, 0, 1232) };
            Ip { hops: 64, id: 0, ..ip.back() }.icmp(kind, code, mtu, &packet[..quote])
        };
        let client = from_client(is_v4);
        let request = client.tcp(&tcp(4000, 80, number::ACK).with(&[1; 1300]));
        let out = link().back().frame(&too_big(&client, &request, 1300));
        let expect = Expect::back(out).note(1, Note::TooBigSent).and(Counted::Drop(1, Drop::TooBig));
        bench.check_from(Port::Out, "request", &link().frame(&request), &expect);
        // The interface toward the client takes 1 400 bytes.
        let server = toward_server(is_v4).back();
        let reply = server.tcp(&tcp(8080, port, number::ACK).with(&[1; 1400]));
        let out = server_link().back().frame(&too_big(&server, &reply, 1400));
        let expect = Expect::back(out).note(1, Note::TooBigSent).and(Counted::Drop(1, Drop::TooBig));
        bench.check("reply", &server_link().frame(&reply), &expect);
        if is_v4 {
            let fragile = Ip { dont_fragment: false, ..client };
            let frame = link().frame(&fragile.tcp(&tcp(4000, 80, number::ACK).with(&[1; 1300])));
            bench.check("request without DF", &frame, &Expect::drop(1, Drop::TooBig));
        }
    }
}

#[test]
fn an_any_port_service_keeps_the_port() {
    for is_v4 in [true, false] {
        let keeps = Member { port: 0, ..server(is_v4) };
        let mut bench = bench(&[service(vip(is_v4), number::TCP, 0, vec![keeps])]);
        let syn = tcp(4000, 7777, number::SYN);
        let mut port = 0;
        bench.check_by(Port::In, "SYN", &link().frame(&from_client(is_v4).tcp(&syn)), |ran| {
            port = source_port(&ran.frame, is_v4);
            let out = link_of(HOP).frame(&toward_server(is_v4).tcp(&syn.between(port, 7777)));
            Expect::back(out).note(1, Note::NatOpened).sent(1, 0)
        });
        let answer = tcp(7777, port, number::SYN | number::ACK);
        let out = link().back().frame(&from_client(is_v4).back().tcp(&answer.between(7777, 4000)));
        bench.check("SYN ACK", &server_link().frame(&toward_server(is_v4).back().tcp(&answer)), &Expect::back(out));
        let stranger = server_link().frame(&toward_server(is_v4).back().tcp(&answer.between(7778, port)));
        bench.check("another port of the server", &stranger, &Expect::pass());
    }
}

#[test]
fn several_snat_addresses_share_the_flows() {
    let many = member(Nat, SERVER4).snat(&["10.0.0.252", "10.0.0.253", SNAT4], 8080);
    let mut bench = bench(&[nat_service(true, number::TCP, vec![many])]);
    let mut hits = std::collections::BTreeMap::new();
    for client_port in 1000..1100 {
        let syn = tcp(client_port, 80, number::SYN);
        let ran = bench.run(Port::In, &link().frame(&from_client(true).tcp(&syn))).unwrap();
        let snat = std::net::Ipv4Addr::new(ran.frame[26], ran.frame[27], ran.frame[28], ran.frame[29]);
        let port = source_port(&ran.frame, true);
        *hits.entry(snat).or_insert(0) += 1;
        let out = link_of(HOP).frame(&toward_server(true).between(snat.into(), address(SERVER4)).tcp(&syn.between(port, 8080)));
        assert_eq!(ran.frame, out);
        let answer = tcp(8080, port, number::SYN | number::ACK);
        let out = link().back().frame(&from_client(true).back().tcp(&answer.between(80, client_port)));
        let came = server_link().frame(&toward_server(true).between(address(SERVER4), snat.into()).tcp(&answer));
        bench.check("SYN ACK", &came, &Expect::back(out));
    }
    assert!(hits.len() == 3 && hits.values().all(|&count| count > 15), "{hits:?}");
}

#[test]
fn a_packet_of_no_flow_that_opens_none_is_reset() {
    for is_v4 in [true, false] {
        let mut bench = bench(&[nat_service(is_v4, number::TCP, vec![server(is_v4)])]);
        let segment = tcp(4000, 80, number::ACK).with(b"data");
        let reset = Tcp { window: 0, sequence: segment.acknowledgment, ..tcp(80, 4000, number::RST) };
        let out = link().back().frame(&Ip { hops: 64, id: 0, ..from_client(is_v4).back() }.tcp(&reset));
        let refused = Counted::Drop(1, Drop::NatNoFlow);
        bench.check("ACK", &link().frame(&from_client(is_v4).tcp(&segment)), &Expect::back(out).and(refused).note(1, Note::ResetSent));
        for flags in [number::RST, number::RST | number::ACK] {
            let frame = link().frame(&from_client(is_v4).tcp(&tcp(4000, 80, flags)));
            bench.check("RST", &frame, &Expect::drop(1, Drop::NatNoFlow));
        }
        assert_eq!(bench.words("NAT_PORTS").unwrap().len(), 0);
    }
}

#[test]
fn a_stranger_to_the_flow_does_not_reach_its_client() {
    for (is_v4, stranger) in [(true, "10.0.0.9"), (false, "fd00::9")] {
        let mut bench = bench(&[nat_service(is_v4, number::TCP, vec![server(is_v4)])]);
        let port = opened(&mut bench, is_v4, 4000);
        let back = toward_server(is_v4).back();
        let answer = tcp(8080, port, number::ACK);
        let from = |ip: &Ip, segment: &Tcp| server_link().frame(&ip.tcp(segment));
        let other = back.between(address(stranger), back.target);
        bench.check("another server", &from(&other, &answer), &Expect::pass());
        bench.check("another port", &from(&back, &answer.between(8081, port)), &Expect::pass());
        bench.check("a port without a flow", &from(&back, &answer.between(8080, port ^ 1)), &Expect::pass());
        bench.check("UDP", &server_link().frame(&back.udp(8080, port, b"x")), &Expect::pass());
    }
    assert_ne!(CLIENT4, CLIENT6);
}

#[test]
fn the_state_of_another_service_is_not_touched() {
    let mut both = vec![nat_service(true, number::TCP, vec![server(true)])];
    both.push(service("192.0.2.2", number::TCP, 80, vec![server(true)]));
    let mut bench = bench(&[]);
    bench.install(&State::of(&both)).unwrap();
    let first = opened(&mut bench, true, 4000);
    let syn = tcp(4000, 80, number::SYN);
    let to_second = ip(CLIENT4, "192.0.2.2");
    let mut second = 0;
    bench.check_by(Port::In, "SYN", &link().frame(&to_second.tcp(&syn)), |ran| {
        second = source_port(&ran.frame, true);
        let out = link_of(HOP).frame(&toward_server(true).tcp(&syn.between(second, 8080)));
        Expect::back(out).note(2, Note::NatOpened).sent(2, 0)
    });
    assert_ne!(first, second);
    reply(&mut bench, "first", true, &tcp(8080, first, number::SYN | number::ACK), 4000);
    let out = link().back().frame(&to_second.back().tcp(&tcp(80, 4000, number::SYN | number::ACK)));
    let came = server_link().frame(&toward_server(true).back().tcp(&tcp(8080, second, number::SYN | number::ACK)));
    bench.check("second", &came, &Expect::back(out));
}
