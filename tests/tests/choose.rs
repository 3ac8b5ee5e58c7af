//! The choice of a member, slot state by slot state.

use std::net::{IpAddr, Ipv4Addr};

use lb_common::{
    address::Address,
    choose::{self, Asking},
    flows,
    maps::{ForwardKind, Service},
    packet::{ports_word, tcp},
    place,
    reason::{Drop, Note},
    tables::{Cell, Tables},
    words::{FlowState, FlowWord, MemberId, MemberWord, ServiceId, SlotWord, Tick},
};
use weir_tests::tables::{Arrays, ServiceSpec, Sizes};

const VIP: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
const NOW: Tick = 1000;
const PORTS: u32 = ports_word(4321_u16.to_be(), 80_u16.to_be());

/// One service with the members A, B and C, all of whose slots are alike.
struct World {
    tables: Arrays,
    service: ServiceId,
    members: [MemberId; 3],
}

const A: usize = 0;
const B: usize = 1;
const C: usize = 2;

fn client() -> Address {
    Ipv4Addr::new(10, 0, 0, 1).into()
}

impl World {
    fn with(spec: ServiceSpec, flow_lines: u32) -> Self {
        let mut tables = Arrays::new(&Sizes { flow_lines, ..Sizes::default() });
        let service = tables.add_service(&spec);
        let header = tables.add_plain_header(ForwardKind::Dsr);
        let members = [(); 3].map(|()| tables.add_member(service, header));
        Self { tables, service, members }
    }

    fn tcp() -> Self {
        Self::with(ServiceSpec::tcp(VIP, 80), 1024)
    }

    fn udp() -> Self {
        Self::with(ServiceSpec::udp(VIP, 80), 1024)
    }

    fn slots(&self, current: Option<usize>, default: Option<usize>) {
        let id = |index: usize| self.members[index];
        self.tables.fill_slots(self.service, SlotWord::new(current.map(id), default.map(id), NOW));
    }

    fn ask(&self, source: &Address, tcp_flags: u8, writes: bool) -> Result<usize, Drop> {
        let service = self.tables.service(self.service).expect("it was made");
        let chosen = choose::member(&self.tables, &service, &Asking { source, ports: PORTS, tcp_flags, writes })?;
        Ok(self.members.iter().position(|id| *id == chosen.id).expect("it is one of the members"))
    }

    fn send(&self, tcp_flags: u8) -> Result<usize, Drop> {
        self.ask(&client(), tcp_flags, true)
    }

    fn state(&self, member: usize, state: u8) {
        self.tables.set_member_state(self.members[member], state);
    }

    fn entry(&self) -> Option<(usize, FlowState)> {
        let service = self.tables.service(self.service)?;
        let word = flows::find(&self.tables, place::flow(&client(), PORTS, &service, self.tables.table_key())).word;
        let member = self.members.iter().position(|id| Some(*id) == word.member())?;
        Some((member, word.state()))
    }

    fn noted(&self, note: Note) -> u64 {
        self.tables.noted(self.service, note)
    }

    /// Fills the whole cache with entries of C that were last seen now.
    fn crowd(&self, state: FlowState) {
        let word = FlowWord::new(0xffff_fff0, self.members[C], state, self.tables.tick());
        self.tables.flow_cells().for_each(|cell| cell.store(word.0));
    }
}

const DRAINING: u8 = MemberWord::NO_NEW;
const DOWN: u8 = MemberWord::NO_NEW | MemberWord::DOWN;
const CLOSING: u8 = DOWN | MemberWord::CLOSING;

#[test]
fn a_clean_slot_answers_alone_and_remembers_nothing() {
    let world = World::tcp();
    world.slots(Some(A), None);
    for flags in [tcp::SYN, tcp::ACK, tcp::FIN, tcp::RST] {
        assert_eq!(world.send(flags), Ok(A));
    }
    assert!(world.tables.flow_cells().all(|cell| cell.load() == 0));
}

#[test]
fn while_learning_new_connections_go_to_current_and_unknown_ones_to_default() {
    for (flags, goes_to, entry) in [
        (tcp::SYN, B, Some((B, FlowState::Syn))),
        (tcp::ACK, A, Some((A, FlowState::Acknowledged))),
        (tcp::SYN | tcp::ACK, A, Some((A, FlowState::Acknowledged))),
        (tcp::FIN | tcp::ACK, A, Some((A, FlowState::Acknowledged))),
        (tcp::RST, A, None),
    ] {
        let world = World::tcp();
        world.slots(Some(B), Some(A));
        assert_eq!((world.send(flags), world.entry()), (Ok(goes_to), entry), "{flags:#x}");
    }
}

#[test]
fn a_settled_slot_honours_hits_and_writes_no_miss() {
    let world = World::tcp();
    world.slots(Some(B), Some(A));
    assert_eq!(world.send(tcp::ACK), Ok(A));
    world.slots(Some(B), Some(B));
    assert_eq!(world.send(tcp::ACK), Ok(A));
    let other = Ipv4Addr::new(10, 0, 0, 2).into();
    assert_eq!(world.ask(&other, tcp::ACK, true), Ok(B));
    assert_eq!(world.noted(Note::FlowInserted), 1);
}

#[test]
fn a_connection_reopened_in_a_settled_slot_keeps_its_new_server() {
    for (ending, state) in [(tcp::FIN, 0), (tcp::ACK, DRAINING), (tcp::ACK, DOWN)] {
        let world = World::tcp();
        world.slots(Some(B), Some(A));
        assert_eq!((world.send(tcp::ACK), world.send(ending)), (Ok(A), Ok(A)));
        world.state(A, state);
        world.slots(Some(B), Some(B));
        assert_eq!((world.send(tcp::SYN), world.send(tcp::ACK)), (Ok(B), Ok(B)), "{ending:#x}, state {state}");
    }
}

#[test]
fn a_syn_that_hits_a_live_entry_goes_to_its_member() {
    let world = World::tcp();
    world.slots(Some(B), Some(A));
    assert_eq!(world.send(tcp::ACK), Ok(A));
    assert_eq!(world.send(tcp::SYN), Ok(A));
}

#[test]
fn a_flow_idle_longer_than_the_timeout_is_forgotten() {
    let world = World::tcp();
    world.slots(Some(B), Some(A));
    assert_eq!(world.send(tcp::SYN), Ok(B));
    world.tables.set_tick(NOW + 300);
    assert_eq!(world.send(tcp::ACK), Ok(B));
    world.tables.set_tick(NOW + 601);
    assert_eq!(world.send(tcp::ACK), Ok(A));
}

#[test]
fn a_number_that_another_service_has_is_no_hit() {
    let mut world = World::tcp();
    let other = world.tables.add_service(&ServiceSpec::tcp(VIP, 81));
    world.slots(Some(B), Some(A));
    assert_eq!(world.send(tcp::SYN), Ok(B));
    world.tables.set_member(world.members[B], MemberWord::new(1, 0, other));
    world.slots(Some(C), Some(A));
    assert_eq!(world.send(tcp::ACK), Ok(A));
}

#[test]
fn without_room_a_new_connection_goes_to_default_and_that_is_counted() {
    for state in [0, DRAINING] {
        let world = World::with(ServiceSpec::tcp(VIP, 80), 1);
        world.crowd(FlowState::Proven);
        world.slots(Some(B), Some(A));
        world.state(A, state);
        assert_eq!((world.send(tcp::SYN), world.noted(Note::FlowNoRoom)), (Ok(A), 1));
        assert_eq!(world.tables.touch(world.service).map(Cell::load), Some(u64::from(NOW)));
    }
}

#[test]
fn without_room_a_connection_that_would_go_to_a_server_down_is_dropped() {
    let world = World::with(ServiceSpec::tcp(VIP, 80), 1);
    world.crowd(FlowState::Proven);
    world.slots(Some(B), Some(A));
    world.state(A, DOWN);
    assert_eq!(world.send(tcp::SYN), Err(Drop::FlowTableFull));
    assert_eq!(world.send(tcp::ACK), Ok(A));
}

#[test]
fn without_room_datagrams_still_leave_a_server_that_is_down() {
    let world = World::with(ServiceSpec::udp(VIP, 80), 1);
    world.crowd(FlowState::Proven);
    world.slots(Some(B), Some(A));
    assert_eq!(world.send(0), Ok(A));
    world.state(A, DOWN);
    assert_eq!((world.send(0), world.noted(Note::FlowNoRoom)), (Ok(B), 2));
}

#[test]
fn datagrams_stay_with_default_until_it_is_down() {
    let world = World::udp();
    world.slots(Some(B), Some(A));
    world.state(A, DRAINING);
    assert_eq!(world.send(0), Ok(A));
    let other = World::udp();
    other.slots(Some(B), Some(A));
    other.state(A, DOWN);
    assert_eq!((other.send(0), other.entry()), (Ok(B), Some((B, FlowState::Acknowledged))));
    other.slots(None, Some(A));
    assert_eq!(other.ask(&Ipv4Addr::new(10, 0, 0, 2).into(), 0, true), Ok(A));
}

#[test]
fn connections_of_a_server_down_go_on_unless_it_closes_sessions() {
    let world = World::tcp();
    world.slots(Some(B), Some(A));
    world.state(A, DOWN);
    assert_eq!(world.send(tcp::ACK), Ok(A));
    world.state(A, CLOSING);
    assert_eq!(world.send(tcp::ACK), Err(Drop::ServerDown));
}

#[test]
fn datagrams_leave_a_server_that_closes_its_sessions_and_do_not_return() {
    for (current, default) in [(B, A), (B, B), (B, C)] {
        let world = World::udp();
        world.slots(Some(B), Some(A));
        assert_eq!((world.send(0), world.entry()), (Ok(A), Some((A, FlowState::Acknowledged))));
        world.slots(Some(current), Some(default));
        world.state(A, CLOSING);
        assert_eq!(world.ask(&client(), 0, false), Ok(B), "an error follows");
        assert_eq!(world.entry(), Some((A, FlowState::Acknowledged)), "and writes nothing");
        assert_eq!((world.send(0), world.entry()), (Ok(B), Some((B, FlowState::Acknowledged))));
        world.state(A, 0);
        assert_eq!(world.send(0), Ok(B));
        assert_eq!(world.noted(Note::FlowInserted), 1);
    }
}

#[test]
fn datagrams_of_a_server_that_closes_its_sessions_are_refused_where_no_other_takes_them() {
    let world = World::udp();
    world.slots(Some(B), Some(A));
    assert_eq!(world.send(0), Ok(A));
    world.state(A, CLOSING);
    world.slots(None, Some(A));
    assert_eq!(world.send(0), Err(Drop::ServerDown));
    world.slots(Some(A), Some(A));
    assert_eq!(world.send(0), Err(Drop::ServerDown));
}

#[test]
fn nothing_is_written_for_sessions_that_are_closed() {
    let world = World::tcp();
    world.slots(Some(B), Some(A));
    world.state(A, CLOSING);
    assert_eq!(world.send(tcp::ACK), Err(Drop::ServerDown));
    assert_eq!((world.entry(), world.noted(Note::FlowInserted)), (None, 0));
    assert_eq!((world.send(tcp::SYN), world.entry()), (Ok(B), Some((B, FlowState::Syn))));
}

#[test]
fn a_flow_displaced_before_it_proved_itself_prolongs_learning() {
    for (state, wait_s, displaced) in [
        (FlowState::Acknowledged, 7, 1),
        (FlowState::Acknowledged, 300, 1),
        (FlowState::Acknowledged, 301, 0),
        (FlowState::Syn, 4, 0),
        (FlowState::Closed, 61, 0),
        (FlowState::Proven, 301, 0),
    ] {
        let world = World::with(ServiceSpec::tcp(VIP, 80), 1);
        world.crowd(state);
        world.slots(Some(B), Some(A));
        world.tables.set_tick(NOW + wait_s);
        assert_eq!((world.send(tcp::SYN), world.noted(Note::FlowDisplaced)), (Ok(B), displaced), "{state:?} after {wait_s} s");
        let touched = if displaced == 1 { u64::from(NOW + wait_s) } else { 0 };
        assert_eq!(world.tables.touch(world.service).map(Cell::load), Some(touched));
    }
}

/// Seconds that each state may be idle before its place can be taken; the service's timeout is 300.
const REPLACEABLE_AFTER_S: [(FlowState, u32); 4] =
    [(FlowState::Syn, 3), (FlowState::Acknowledged, 6), (FlowState::Closed, 60), (FlowState::Proven, 300)];

#[test]
fn an_entry_is_replaced_only_when_idle_longer_than_its_state_allows() {
    let world = World::tcp();
    for (state, after_s) in REPLACEABLE_AFTER_S {
        // A difference of nearly the whole range is a time to come: such an entry is alive.
        for idle_s in 0..FlowWord::TIME_MASK - 255 {
            let word = FlowWord::new(1, world.members[A], state, NOW);
            assert_eq!(flows::is_replaceable(&world.tables, word, NOW + idle_s), idle_s > after_s, "{state:?} idle {idle_s} s");
        }
        for ahead_s in 1..255 {
            let word = FlowWord::new(1, world.members[A], state, NOW + ahead_s);
            assert!(!flows::is_replaceable(&world.tables, word, NOW), "{state:?} {ahead_s} s ahead");
        }
    }
}

#[test]
fn an_entry_of_a_member_that_is_no_more_is_replaced_after_a_second() {
    let world = World::tcp();
    world.tables.free_member(world.members[A]);
    for number in [world.members[A].number(), 999] {
        let word = FlowWord::new(1, MemberId::new(number).unwrap(), FlowState::Proven, NOW);
        assert_eq!([NOW, NOW + 1].map(|now| flows::is_replaceable(&world.tables, word, now)), [false, true]);
    }
}

#[test]
fn errors_look_up_and_never_write() {
    let world = World::tcp();
    world.slots(Some(B), Some(A));
    assert_eq!(world.ask(&client(), tcp::ACK, false), Ok(A));
    assert!(world.tables.flow_cells().all(|cell| cell.load() == 0));
    assert_eq!(world.send(tcp::SYN), Ok(B));
    world.tables.set_tick(NOW + 200);
    assert_eq!(world.ask(&client(), tcp::ACK, false), Ok(B));
    world.tables.set_tick(NOW + 301);
    assert_eq!(world.ask(&client(), tcp::ACK, false), Ok(A));
    assert_eq!(world.tables.slot_of(world.service, &client(), PORTS).stamp(), NOW);
}

#[test]
fn a_slot_is_stamped_when_a_packet_goes_elsewhere_than_to_current() {
    let world = World::tcp();
    world.slots(Some(B), Some(A));
    world.tables.set_tick(NOW + 5);
    assert_eq!(world.send(tcp::SYN), Ok(B));
    assert_eq!(world.tables.slot_of(world.service, &client(), PORTS).stamp(), NOW);
    world.slots(Some(C), Some(A));
    assert_eq!(world.send(tcp::ACK), Ok(B));
    let slot = world.tables.slot_of(world.service, &client(), PORTS);
    assert_eq!((slot.stamp(), slot.current(), slot.default()), (NOW + 5, Some(world.members[C]), Some(world.members[A])));
}

#[test]
fn a_stateless_service_follows_its_slots() {
    let world = World::with(ServiceSpec { flags: Service::STATELESS, ..ServiceSpec::udp(VIP, 80) }, 1);
    world.slots(Some(B), Some(A));
    assert_eq!((world.send(0), world.entry()), (Ok(B), None));
}

#[test]
fn a_slot_of_nobody_refuses() {
    let world = World::tcp();
    assert_eq!(world.send(tcp::SYN), Err(Drop::NoServer));
    world.slots(None, Some(A));
    assert_eq!((world.send(tcp::SYN), world.send(tcp::ACK)), (Err(Drop::NoServer), Ok(A)));
}

#[test]
fn a_member_of_another_service_is_an_inconsistency() {
    let world = World::tcp();
    world.slots(Some(A), None);
    world.tables.free_member(world.members[A]);
    assert_eq!(world.send(tcp::SYN), Err(Drop::Inconsistent));
}
