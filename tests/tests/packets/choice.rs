//! Which member a packet goes to: ports, slots, and what the flow cache remembers. By DSR, so that the packet itself is unchanged.

use lb_common::{
    maps::{ForwardKind::Dsr, Service},
    reason::{Drop, Note},
    words::MemberWord,
};
use weir_tests::fixture::{
    bench::{Bench, Counted, Expect, Verdict},
    state::{HOP, Member, Port, Slots, Spec, State, link_of, member, service},
    wire::{ip, number, tcp},
};

use super::{SERVER4, SERVER6, VIP4, VIP6, bench, from_client, link, v4, vip};

const SYN: u8 = number::SYN;
const ACK: u8 = number::ACK;

fn three() -> Vec<Member> {
    vec![member(Dsr, SERVER4), member(Dsr, "10.0.0.2"), member(Dsr, "10.0.0.3")]
}

/// Sends a segment from a client's port to the first service and expects it at a member, or refused.
fn segment(bench: &mut Bench, what: &str, port: u16, flags: u8, to: Result<usize, Drop>, notes: &[Note]) {
    let packet = v4().tcp(&tcp(port, 80, flags));
    expect_at(bench, what, &packet, to, notes);
}

fn datagram(bench: &mut Bench, what: &str, port: u16, to: usize, notes: &[Note]) {
    let packet = v4().udp(port, 53, b"question");
    expect_at(bench, what, &packet, Ok(to), notes);
}

fn expect_at(bench: &mut Bench, what: &str, packet: &[u8], to: Result<usize, Drop>, notes: &[Note]) {
    bench.check_by(Port::In, what, &link().frame(packet), |ran| {
        let expect = match to {
            Ok(member) => Expect::back(link_of(HOP).frame(packet)).sent(1, member),
            Err(reason) if ran.verdict == Verdict::SentBack => {
                Expect::back(ran.frame.clone()).and(Counted::Drop(1, reason)).note(1, Note::ResetSent)
            }
            Err(reason) => Expect::drop(1, reason),
        };
        notes.iter().fold(expect, |expect, &note| expect.note(1, note))
    });
}

fn tcp_service(members: Vec<Member>, slots: Slots) -> Spec {
    service(VIP4, 6, 80, members).slots(slots)
}

fn with_state(mut members: Vec<Member>, number: usize, state: u8) -> Vec<Member> {
    members[number].state = state;
    members
}

#[test]
fn an_exact_port_beats_any_port_and_protocols_are_apart() {
    for is_v4 in [true, false] {
        let server = |last: u8| vec![member(Dsr, &if is_v4 { format!("10.0.0.{last}") } else { format!("fd00::{last}") })];
        let vip = vip(is_v4);
        let mut bench = bench(&[
            service(vip, 6, 0, server(1)),
            service(vip, 6, 80, server(2)),
            service(vip, 17, 53, server(3)),
            service(if is_v4 { VIP6 } else { VIP4 }, 17, 0, vec![member(Dsr, if is_v4 { SERVER6 } else { SERVER4 })]),
        ]);
        let ip = from_client(is_v4);
        for (port, id) in [(80, 2), (81, 1), (0, 1), (53, 1), (65535, 1)] {
            let packet = ip.tcp(&tcp(4000, port, SYN));
            bench.check(&format!("TCP {port}"), &link().frame(&packet), &Expect::back(link_of(HOP).frame(&packet)).sent(id, 0));
        }
        let packet = ip.udp(4000, 53, b"x");
        bench.check("UDP 53", &link().frame(&packet), &Expect::back(link_of(HOP).frame(&packet)).sent(3, 0));
        bench.check("UDP 54", &link().frame(&ip.udp(4000, 54, b"x")), &Expect::pass());
        let packet = from_client(!is_v4).udp(4000, 54, b"x");
        bench.check("any UDP port", &link().frame(&packet), &Expect::back(link_of(HOP).frame(&packet)).sent(4, 0));
    }
}

#[test]
fn clean_slots_spread_flows_without_remembering_them() {
    let mut bench = bench(&[tcp_service(three(), Slots::Spread)]);
    let mut hits = [0; 3];
    for port in 1024..1624 {
        let frame = link().frame(&v4().tcp(&tcp(port, 80, SYN)));
        let first = bench.run(Port::In, &frame).unwrap();
        let number = (0..3).find(|&number| first.counted.contains_key(&Counted::Sent(1, number))).unwrap();
        hits[number] += 1;
        segment(&mut bench, "the same flow", port, ACK, Ok(number), &[]);
    }
    assert!(hits.iter().all(|&count| count > 120), "{hits:?}");
    assert_eq!(bench.words("FLOWS").unwrap().len(), 0);
}

#[test]
fn a_source_hash_service_sends_all_of_a_source_to_one_member() {
    let mut bench = bench(&[tcp_service(three(), Slots::Spread).flags(Service::BY_SOURCE)]);
    let mut seen = std::collections::BTreeSet::new();
    for source in 1..=60 {
        let from = ip(&format!("198.51.100.{source}"), VIP4);
        let at: std::collections::BTreeSet<Counted> = (0..10)
            .flat_map(|port| bench.run(Port::In, &link().frame(&from.tcp(&tcp(3000 + port, 80, SYN)))).unwrap().counted.into_keys())
            .collect();
        assert_eq!(at.len(), 1, "{source}: {at:?}");
        seen.extend(at);
    }
    assert_eq!(seen.len(), 3);
}

#[test]
fn a_learning_slot_sends_new_flows_to_its_current_member_and_others_to_its_default() {
    let mut bench = bench(&[tcp_service(three(), Slots::Learning(0, Some(1)))]);
    segment(&mut bench, "new", 1000, SYN, Ok(1), &[Note::FlowInserted]);
    segment(&mut bench, "new, again", 1000, SYN, Ok(1), &[]);
    segment(&mut bench, "new, next", 1000, ACK, Ok(1), &[]);
    segment(&mut bench, "old", 1001, ACK, Ok(0), &[Note::FlowInserted]);
    segment(&mut bench, "old, next", 1001, ACK, Ok(0), &[]);
    segment(&mut bench, "SYN and ACK is no SYN", 1002, SYN | ACK, Ok(0), &[Note::FlowInserted]);
    segment(&mut bench, "a reset is not remembered", 1003, number::RST, Ok(0), &[]);
    segment(&mut bench, "nor with SYN", 1004, number::RST | SYN, Ok(0), &[]);
    segment(&mut bench, "nor with ACK", 1005, number::RST | ACK, Ok(0), &[]);
    assert_eq!(bench.words("FLOWS").unwrap().len(), 3);
}

#[test]
fn a_syn_that_reuses_a_closed_flows_ports_is_a_new_flow() {
    for closing in [number::FIN | ACK, number::RST] {
        let mut bench = bench(&[tcp_service(three(), Slots::Learning(0, Some(1)))]);
        segment(&mut bench, "old", 1000, ACK, Ok(0), &[Note::FlowInserted]);
        segment(&mut bench, "old ends", 1000, closing, Ok(0), &[]);
        segment(&mut bench, "its last packets", 1000, ACK, Ok(0), &[]);
        segment(&mut bench, "new", 1000, SYN, Ok(1), &[]);
        segment(&mut bench, "new, next", 1000, ACK, Ok(1), &[]);
    }
}

#[test]
fn a_syn_leaves_a_member_that_takes_none() {
    for state in [MemberWord::NO_NEW, MemberWord::NO_NEW | MemberWord::DOWN] {
        let mut bench = bench(&[tcp_service(three(), Slots::Learning(0, Some(1)))]);
        segment(&mut bench, "old", 1000, ACK, Ok(0), &[Note::FlowInserted]);
        segment(&mut bench, "a SYN of a live flow stays", 1000, SYN, Ok(0), &[]);
        bench.change(&State::of(&[tcp_service(with_state(three(), 0, state), Slots::Nobody)])).unwrap();
        segment(&mut bench, "old stays", 1000, ACK, Ok(0), &[]);
        segment(&mut bench, "unknown stays", 1001, ACK, Ok(0), &[Note::FlowInserted]);
        segment(&mut bench, "new leaves", 1000, SYN, Ok(1), &[]);
        segment(&mut bench, "and is gone", 1000, ACK, Ok(1), &[]);
    }
}

#[test]
fn flows_of_a_member_whose_pool_closes_sessions_are_reset() {
    let mut bench = bench(&[tcp_service(three(), Slots::Learning(0, Some(1)))]);
    segment(&mut bench, "old", 1000, ACK, Ok(0), &[Note::FlowInserted]);
    let closing = MemberWord::NO_NEW | MemberWord::DOWN | MemberWord::CLOSING;
    bench.change(&State::of(&[tcp_service(with_state(three(), 0, closing), Slots::Nobody)])).unwrap();
    segment(&mut bench, "old", 1000, ACK, Err(Drop::ServerDown), &[]);
    segment(&mut bench, "new", 1000, SYN, Ok(1), &[]);
    segment(&mut bench, "new, next", 1000, ACK, Ok(1), &[]);
}

#[test]
fn a_settled_slot_honours_what_is_remembered_and_writes_nothing_else() {
    let mut bench = bench(&[tcp_service(three(), Slots::Learning(0, Some(1)))]);
    segment(&mut bench, "old", 1000, ACK, Ok(0), &[Note::FlowInserted]);
    let now = bench.dataplane().tick().unwrap();
    for tick in [now, now + 1000] {
        bench.dataplane().applier().ripen_all(tick).unwrap();
    }
    let stamps = |bench: &Bench| bench.slots(1).unwrap().iter().filter(|slot| slot.stamp() == now || slot.stamp() == now + 1).count();
    assert_eq!(stamps(&bench), 0);
    segment(&mut bench, "remembered", 1000, ACK, Ok(0), &[]);
    assert_eq!(stamps(&bench), 1, "the slot of a flow that goes elsewhere is stamped");
    segment(&mut bench, "unknown", 1001, ACK, Ok(1), &[]);
    segment(&mut bench, "new", 1002, SYN, Ok(1), &[]);
    assert_eq!(bench.words("FLOWS").unwrap().len(), 1);
    assert_eq!(stamps(&bench), 1);
}

/// Without a write the rest of the new connection would follow the old entry.
#[test]
fn in_a_settled_slot_too_a_new_flow_takes_over_the_entry_of_a_closed_one() {
    let mut bench = bench(&[tcp_service(three(), Slots::Learning(0, Some(1)))]);
    for port in [1000, 1001] {
        segment(&mut bench, "old", port, ACK, Ok(0), &[Note::FlowInserted]);
    }
    segment(&mut bench, "old ends", 1000, ACK | number::FIN, Ok(0), &[]);
    let now = bench.dataplane().tick().unwrap();
    for tick in [now, now + 1000] {
        bench.dataplane().applier().ripen_all(tick).unwrap();
    }
    segment(&mut bench, "new", 1000, SYN, Ok(1), &[]);
    segment(&mut bench, "new, next", 1000, ACK, Ok(1), &[]);
    for slot in bench.slots(1).unwrap() {
        assert_eq!(slot.current(), slot.default(), "settled");
    }
    let mut draining = tcp_service(with_state(three(), 0, MemberWord::NO_NEW), Slots::Nobody);
    draining.idle_s = 60;
    bench.change(&State::of(&[draining])).unwrap();
    segment(&mut bench, "drained", 1001, SYN, Ok(1), &[]);
    segment(&mut bench, "drained, next", 1001, ACK, Ok(1), &[]);
}

#[test]
fn an_entry_is_forgotten_after_the_idle_timeout() {
    let mut bench = bench(&[tcp_service(three(), Slots::Learning(0, Some(1)))]);
    segment(&mut bench, "new", 1000, SYN, Ok(1), &[Note::FlowInserted]);
    bench.age(58).unwrap();
    segment(&mut bench, "within", 1000, ACK, Ok(1), &[]);
    bench.age(62).unwrap();
    segment(&mut bench, "after", 1000, ACK, Ok(0), &[]);
    segment(&mut bench, "its entry is another's", 1000, ACK, Ok(0), &[]);
}

#[test]
fn a_slot_without_a_current_member_keeps_its_older_flows() {
    let mut bench = bench(&[tcp_service(three(), Slots::Learning(0, None))]);
    segment(&mut bench, "old", 1000, ACK, Ok(0), &[Note::FlowInserted]);
    segment(&mut bench, "new", 1001, SYN, Err(Drop::NoServer), &[]);
}

#[test]
fn a_full_cache_sends_flows_to_the_default_and_drops_syns_when_it_is_down() {
    let mut bench = bench(&[tcp_service(three(), Slots::Learning(0, Some(1)))]);
    // Every place is taken by a live flow of a member of this service.
    let now = bench.dataplane().tick().unwrap();
    let live = |tag: u64| tag << 32 | u64::from(now & 0x3fff) << 18 | 2 << 16 | 1;
    bench.edit_lines("FLOWS", |_| live(0xffff_ff00)).unwrap();
    segment(&mut bench, "new", 1000, SYN, Ok(0), &[Note::FlowNoRoom]);
    segment(&mut bench, "old", 1001, ACK, Ok(0), &[Note::FlowNoRoom]);
    segment(&mut bench, "a reset needs no room", 1001, number::RST, Ok(0), &[]);
    assert!(bench.dataplane().tables().touches.word(1, 0).unwrap() >= u64::from(now));
    let down = MemberWord::NO_NEW | MemberWord::DOWN;
    bench.change(&State::of(&[tcp_service(with_state(three(), 0, down), Slots::Nobody)])).unwrap();
    segment(&mut bench, "new", 1002, SYN, Err(Drop::FlowTableFull), &[Note::FlowNoRoom]);
    segment(&mut bench, "old", 1001, ACK, Ok(0), &[Note::FlowNoRoom]);
    bench.age(61).unwrap();
    segment(&mut bench, "room again", 1003, SYN, Ok(1), &[Note::FlowInserted]);
}

fn udp_service(members: Vec<Member>, slots: Slots) -> Spec {
    Spec { idle_s: 30, ..service(VIP4, 17, 53, members).slots(slots) }
}

#[test]
fn datagrams_of_a_learning_slot_stay_with_its_default_until_that_is_down() {
    let mut bench = bench(&[udp_service(three(), Slots::Learning(0, Some(1)))]);
    datagram(&mut bench, "unknown", 1000, 0, &[Note::FlowInserted]);
    datagram(&mut bench, "known", 1000, 0, &[]);
    bench.change(&State::of(&[udp_service(with_state(three(), 0, MemberWord::NO_NEW | MemberWord::DOWN), Slots::Nobody)])).unwrap();
    datagram(&mut bench, "known", 1000, 0, &[]);
    datagram(&mut bench, "unknown leaves a member that is down", 1001, 1, &[Note::FlowInserted]);
    bench.edit_lines("FLOWS", |_| 0xffff_ff00 << 32 | 2 << 16 | 1).unwrap();
    let now = u64::from(bench.dataplane().tick().unwrap() & 0x3fff);
    bench.edit_lines("FLOWS", |word| word | now << 18).unwrap();
    datagram(&mut bench, "without room too", 1002, 1, &[Note::FlowNoRoom]);
}

#[test]
fn stateless_datagrams_move_at_once() {
    let mut bench = bench(&[udp_service(three(), Slots::Learning(0, Some(1))).flags(Service::STATELESS)]);
    datagram(&mut bench, "moved", 1000, 1, &[]);
    assert_eq!(bench.words("FLOWS").unwrap().len(), 0);
}
