//! How NAT flows end, and when their ports may be used again.

use lb_common::{
    nat::{PortState, PortWord},
    reason::{Drop, Note},
    words::MemberWord,
};
use weir_tests::fixture::{
    bench::{Bench, Counted, Expect, Verdict},
    state::{Member, Port, State},
    wire::{ip, number, tcp},
};

use super::{
    VIP4, bench, from_client, link,
    nat::{nat_service, opened, server, server_link, source_port, toward_server},
};

const SYN: u8 = number::SYN;
const ACK: u8 = number::ACK;
const FIN: u8 = number::FIN;
const RST: u8 = number::RST;

/// A plane with room for 256 flows.
fn small(is_v4: bool) -> Member {
    Member { ports: [(8, 1), (0, 0)], ..server(is_v4) }
}

fn small_bench(is_v4: bool) -> impl std::ops::DerefMut<Target = Bench> {
    bench(&[nat_service(is_v4, number::TCP, vec![small(is_v4)])])
}

/// The state of the only port that was ever used.
fn state(bench: &Bench) -> PortState {
    let words = bench.words("NAT_PORTS").unwrap();
    assert_eq!(words.len(), 1);
    PortWord(words[0]).state()
}

fn from_server(bench: &mut Bench, port: u16, flags: u8) {
    let ran = bench.run(Port::In, &server_link().frame(&toward_server(true).back().tcp(&tcp(8080, port, flags)))).unwrap();
    assert_eq!(ran.verdict, Verdict::SentBack);
}

fn to_server(bench: &mut Bench, client_port: u16, flags: u8) {
    let ran = bench.run(Port::In, &link().frame(&from_client(true).tcp(&tcp(client_port, 80, flags)))).unwrap();
    assert_eq!((ran.verdict, ran.counted.get(&Counted::Sent(1, 0))), (Verdict::SentBack, Some(&1)));
}

#[derive(Clone, Copy)]
enum Sender {
    Client(u8),
    Server(u8),
}

#[test]
fn a_flow_goes_through_the_states_of_its_connection() {
    use PortState::{Answered, ClientClosing, Closed, Established, Opening, Reset, Resting, ServerClosing};
    use Sender::{Client, Server};
    let handshake = [(Client(SYN), Opening), (Server(SYN | ACK), Answered), (Client(ACK), Established)];
    let endings: [&[(Sender, PortState)]; 9] = [
        &[(Client(FIN | ACK), ClientClosing), (Server(ACK), ClientClosing), (Server(FIN | ACK), Closed), (Client(ACK), Closed)],
        &[(Server(FIN | ACK), ServerClosing), (Client(ACK), ServerClosing), (Client(FIN | ACK), Resting), (Server(ACK), Resting)],
        &[(Client(FIN | ACK), ClientClosing), (Client(FIN | ACK), ClientClosing), (Server(FIN | ACK), Closed)],
        &[(Client(RST), Reset), (Server(ACK), Established), (Client(RST), Reset)],
        &[(Server(RST | ACK), Reset), (Client(FIN | ACK), ClientClosing)],
        &[(Server(RST | ACK), Reset), (Server(SYN | ACK), Reset)],
        &[(Client(FIN | ACK), ClientClosing), (Server(FIN | ACK), Closed), (Client(RST), Closed)],
        &[(Client(ACK), Established), (Server(ACK), Established)],
        &[(Client(SYN), Established), (Server(SYN | ACK), Established)],
    ];
    for ending in endings {
        let mut bench = small_bench(true);
        let mut port = 0;
        for &(from, expected) in handshake.iter().chain(ending) {
            match from {
                Client(SYN) if expected == Opening => port = opened(&mut bench, true, 4000),
                Client(flags) => to_server(&mut bench, 4000, flags),
                Server(flags) => from_server(&mut bench, port, flags),
            }
            assert_eq!(state(&bench), expected);
        }
    }
}

#[test]
fn a_syn_after_the_end_opens_a_new_flow_and_before_it_does_not() {
    let mut bench = small_bench(true);
    let first = opened(&mut bench, true, 4000);
    to_server(&mut bench, 4000, SYN);
    // Another port might be as taken at the server as this one was.
    from_server(&mut bench, first, RST);
    to_server(&mut bench, 4000, SYN);
    from_server(&mut bench, first, SYN | ACK);
    to_server(&mut bench, 4000, ACK);
    from_server(&mut bench, first, FIN | ACK);
    to_server(&mut bench, 4000, FIN | ACK);
    let second = opened(&mut bench, true, 4000);
    assert_ne!(second, first, "the server still has its TIME_WAIT");
}

#[test]
fn a_forged_reset_and_a_forged_syn_after_it_end_nothing() {
    let mut bench = small_bench(true);
    let port = opened(&mut bench, true, 4000);
    from_server(&mut bench, port, SYN | ACK);
    to_server(&mut bench, 4000, ACK);
    for _ in 0..3 {
        to_server(&mut bench, 4000, RST);
        to_server(&mut bench, 4000, SYN);
        from_server(&mut bench, port, ACK);
        to_server(&mut bench, 4000, ACK);
    }
    to_server(&mut bench, 4000, FIN | ACK);
    from_server(&mut bench, port, FIN | ACK);
}

#[test]
fn a_syn_leaves_a_server_that_takes_none_and_a_flow_does_not() {
    let two = |state: u8| {
        let second = Member { server: "10.0.0.2".parse().unwrap(), ..small(true) };
        State::of(&[nat_service(true, number::TCP, vec![small(true).in_state(state), second])])
    };
    let mut bench = bench(&two(0).services);
    opened(&mut bench, true, 4000);
    let mut moved = two(MemberWord::NO_NEW | MemberWord::DOWN);
    moved.services[0].slots = weir_tests::fixture::state::Slots::All(1);
    bench.change(&moved).unwrap();
    to_server(&mut bench, 4000, ACK);
    let ran = bench.run(Port::In, &link().frame(&from_client(true).tcp(&tcp(4000, 80, SYN)))).unwrap();
    assert_eq!(ran.counted.keys().copied().collect::<Vec<_>>(), [Counted::Note(1, Note::NatOpened), Counted::Sent(1, 1)]);
    let ran = bench.run(Port::In, &link().frame(&from_client(true).tcp(&tcp(4000, 80, ACK)))).unwrap();
    assert_eq!(ran.counted.keys().copied().collect::<Vec<_>>(), [Counted::Sent(1, 1)]);
}

#[test]
fn a_syn_of_a_connection_that_lives_goes_to_its_server_though_that_drains() {
    let two = |state: u8| {
        let second = Member { server: "10.0.0.2".parse().unwrap(), ..small(true) };
        State::of(&[nat_service(true, number::TCP, vec![small(true).in_state(state), second])])
    };
    let mut bench = bench(&two(0).services);
    let port = opened(&mut bench, true, 4000);
    from_server(&mut bench, port, SYN | ACK);
    to_server(&mut bench, 4000, ACK);
    let mut moved = two(MemberWord::NO_NEW);
    moved.services[0].slots = weir_tests::fixture::state::Slots::All(1);
    bench.change(&moved).unwrap();
    to_server(&mut bench, 4000, SYN);
    // The server asks (RFC 5961 s4.2); who has really begun anew answers with a reset, and its next SYN goes where new ones go.
    from_server(&mut bench, port, ACK);
    to_server(&mut bench, 4000, RST);
    let ran = bench.run(Port::In, &link().frame(&from_client(true).tcp(&tcp(4000, 80, SYN)))).unwrap();
    assert_eq!(ran.counted.keys().copied().collect::<Vec<_>>(), [Counted::Note(1, Note::NatOpened), Counted::Sent(1, 1)]);
}

#[test]
fn handshakes_that_nobody_goes_on_with_make_room_for_new_ones() {
    let mut bench = small_bench(true);
    fill(&mut bench, 255);
    let port = opened(&mut bench, true, 4000);
    from_server(&mut bench, port, SYN | ACK);
    to_server(&mut bench, 4000, ACK);
    bench.age(3).unwrap();
    for number in 0..20 {
        let ran = bench.run(Port::In, &link().frame(&from_client(true).tcp(&tcp(20_000 + number, 80, SYN)))).unwrap();
        assert_eq!(ran.counted.get(&Counted::Note(1, Note::NatRestCut)), Some(&1), "{number}");
    }
    to_server(&mut bench, 4000, ACK);
}

#[test]
fn replies_follow_the_client_to_another_router() {
    use weir_tests::fixture::wire::Link;
    let mut bench = small_bench(true);
    let port = opened(&mut bench, true, 4000);
    let other = Link { source: [2, 0, 0, 0, 0, 0xcc], ..link() };
    let reply = |bench: &mut Bench| {
        bench.run(Port::In, &server_link().frame(&toward_server(true).back().tcp(&tcp(8080, port, ACK)))).unwrap().frame
    };
    for (flags, router) in [(SYN, link()), (RST, link()), (ACK, other.clone())] {
        let frame = other.frame(&from_client(true).tcp(&tcp(4000, 80, flags)));
        assert_eq!(bench.run(Port::In, &frame).unwrap().verdict, Verdict::SentBack);
        if flags != RST {
            assert_eq!(reply(&mut bench)[..6], router.source, "after flags {flags:#x}");
        }
    }
}

#[test]
fn flows_of_a_server_whose_pool_closes_sessions_are_reset() {
    let mut bench = small_bench(true);
    opened(&mut bench, true, 4000);
    let closing = small(true).in_state(MemberWord::NO_NEW | MemberWord::DOWN | MemberWord::CLOSING);
    bench.change(&State::of(&[nat_service(true, number::TCP, vec![closing])])).unwrap();
    let segment = tcp(4000, 80, ACK);
    let reset = weir_tests::fixture::wire::Tcp { window: 0, sequence: segment.acknowledgment, ..tcp(80, 4000, RST) };
    let answer = weir_tests::fixture::wire::Ip { hops: 64, id: 0, ..from_client(true).back() };
    let expect = Expect::back(link().back().frame(&answer.tcp(&reset))).and(Counted::Drop(1, Drop::ServerDown)).note(1, Note::ResetSent);
    bench.check("ACK", &link().frame(&from_client(true).tcp(&segment)), &expect);
}

fn fill(bench: &mut Bench, count: u16) -> std::collections::BTreeSet<u16> {
    (0..count).map(|number| opened(bench, true, 10_000 + number)).collect()
}

#[test]
fn every_port_of_a_plane_is_used_once_and_then_a_new_flow_is_a_counted_drop() {
    let mut bench = small_bench(true);
    let ports = fill(&mut bench, 256);
    assert_eq!(ports, (2048..2304).collect());
    let frame = link().frame(&from_client(true).tcp(&tcp(9000, 80, SYN)));
    bench.check("full", &frame, &Expect::drop(1, Drop::NatPortsFull));
    to_server(&mut bench, 10_000, ACK);
    bench.age(6).unwrap();
    opened(&mut bench, true, 9000);
}

/// A search looks at half of these ports at most, so that a plane this small is full to it a little early.
#[test]
fn a_plane_takes_chunk_after_chunk() {
    let mut bench = bench(&[nat_service(true, number::TCP, vec![server(true)])]);
    let mut ports = std::collections::BTreeSet::new();
    for number in 10_000..11_000 {
        let ran = bench.run(Port::In, &link().frame(&from_client(true).tcp(&tcp(number, 80, SYN)))).unwrap();
        if ran.verdict == Verdict::Dropped {
            assert_eq!(ran.counted.into_iter().collect::<Vec<_>>(), [(Counted::Drop(1, Drop::NatPortsFull), 1)]);
            break;
        }
        assert!(ports.insert(source_port(&ran.frame, true)), "{number}");
    }
    let positions: std::collections::BTreeSet<u16> = ports.iter().map(|port| port / 256).collect();
    assert_eq!(positions.into_iter().collect::<Vec<_>>(), [8, 9, 200]);
    assert!(ports.len() > 600, "{} of 768", ports.len());
    assert_eq!(bench.dataplane().tables().nat_usage().unwrap().free_chunks, 1);
}

/// Ends every flow in the same way, lets time pass, and says whether one of 256 ports can be used again, its rest over.
fn reusable(protocol: u8, end: impl Fn(&mut Bench, u16, u16), age_s: u32) -> bool {
    let mut bench = bench(&[nat_service(true, protocol, vec![small(true)])]);
    let port_of_vip = if protocol == number::TCP { 80 } else { 53 };
    let client = |number: u16| {
        let source = ip("198.51.100.9", VIP4);
        link().frame(&if protocol == number::TCP {
            source.tcp(&tcp(number, port_of_vip, SYN))
        } else {
            source.udp(number, port_of_vip, b"x")
        })
    };
    for number in 10_000..10_256 {
        let ran = bench.run(Port::In, &client(number)).unwrap();
        let port = source_port(&ran.frame, true);
        end(&mut bench, number, port);
    }
    bench.age(age_s).unwrap();
    let ran = bench.run(Port::In, &client(9_000)).unwrap();
    let is_cut = ran.counted.keys().any(|counted| matches!(counted, Counted::Note(_, Note::NatRestCut)));
    ran.verdict == Verdict::SentBack && !is_cut
}

fn run_both(bench: &mut Bench, client_port: u16, port: u16, segments: &[Sender]) {
    for segment in segments {
        let frame = match *segment {
            Sender::Client(flags) => link().frame(&ip("198.51.100.9", VIP4).tcp(&tcp(client_port, 80, flags))),
            Sender::Server(flags) => server_link().frame(&toward_server(true).back().tcp(&tcp(8080, port, flags))),
        };
        assert_eq!(bench.run(Port::In, &frame).unwrap().verdict, Verdict::SentBack);
    }
}

#[test]
fn a_port_rests_as_long_as_the_end_of_its_flow_asks() {
    use Sender::{Client, Server};
    let established = [Server(SYN | ACK), Client(ACK)];
    let with = |ending: &[Sender]| [&established[..], ending].concat();
    let cases: [(&str, Vec<Sender>, u32); 7] = [
        ("unanswered", vec![], 5),
        ("answered", vec![Server(SYN | ACK)], 8),
        ("established", with(&[]), 60),
        ("the client closes", with(&[Client(FIN | ACK)]), 60),
        ("the server closed first", with(&[Server(FIN | ACK), Client(FIN | ACK)]), 60),
        ("the client closed first", with(&[Client(FIN | ACK), Server(FIN | ACK)]), 10),
        ("reset", with(&[Server(RST)]), 60),
    ];
    for (what, segments, rest_s) in cases {
        let end = |bench: &mut Bench, client_port: u16, port: u16| run_both(bench, client_port, port, &segments);
        assert!(!reusable(number::TCP, end, rest_s - 2), "{what}: too early");
        assert!(reusable(number::TCP, end, rest_s + 1), "{what}: too late");
    }
    // A datagram flow: the idle timeout and 30 s more.
    assert!(!reusable(number::UDP, |_, _, _| {}, 88));
    assert!(reusable(number::UDP, |_, _, _| {}, 91));
}
