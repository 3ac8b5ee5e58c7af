//! NAT flows: opened, found from both sides, reopened, closed, rested, and given up under pressure.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use lb_common::{
    decide::{Decision, Ingress, Refusal, decide},
    maps::{CHUNK_PENDING, Service},
    packet::{protocol, tcp},
    reason::{Drop, Note},
    tables::{Cell, Tables},
    words::{MemberWord, ServiceId, SlotWord, Tick, VipWord},
};
use weir_tests::{
    fixture::wire::{self, number},
    frames::{datagram, segment},
    tables::{Arrays, PlaneSpec, ServiceSpec, Sizes},
};

const VIP: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
const SNAT: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1));
const SERVER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 1, 0, 1));
const SPARE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 1, 0, 2));
const INGRESS: Ingress = Ingress { ifindex: 3, mac: [1, 2, 3], kind: 0 };
const FIRST_CHUNK: u8 = 4;
const NOW: Tick = 1000;
const IDLE_S: Tick = 300;

/// A service with one server, and a spare one that has no slots.
struct World {
    tables: Arrays,
    service: ServiceId,
    members: [lb_common::words::MemberId; 2],
    kind: u8,
}

impl World {
    fn new(kind: u8, chunks: u8, nat_lines: u32) -> Self {
        let mut tables = Arrays::new(&Sizes { nat_lines, nat_chunks: u32::from(chunks) + 1, ..Sizes::default() });
        tables.add_vip(VIP, VipWord::VIP);
        tables.add_vip(SNAT, VipWord::SNAT);
        let spec = if kind == protocol::TCP { ServiceSpec::tcp(VIP, 80) } else { ServiceSpec::udp(VIP, 80) };
        let service = tables.add_service(&ServiceSpec { idle_s: IDLE_S, flags: Service::NAT, ..spec });
        let mut member = |server, chunks| {
            let plane = PlaneSpec { snat: SNAT, server, server_port: 8080, protocol: kind, first_chunk: FIRST_CHUNK, chunks };
            let header = tables.add_nat_header(&[plane]);
            tables.add_member(service, header)
        };
        let members = [member(SERVER, chunks), member(SPARE, 1)];
        tables.fill_slots(service, SlotWord::new(Some(members[0]), None, 0));
        Self { tables, service, members, kind }
    }

    fn tcp() -> Self {
        Self::new(protocol::TCP, 4, 256)
    }

    fn frame(&self, from: SocketAddr, to: SocketAddr, flags: u8) -> Vec<u8> {
        if self.kind == protocol::TCP { segment(from, to, flags) } else { datagram(from, to, b"?") }
    }

    fn decide(&self, from: SocketAddr, to: SocketAddr, flags: u8) -> Decision {
        decide(&self.tables, &self.frame(from, to, flags)[..], &INGRESS).0
    }

    fn request(&self, client: SocketAddr, flags: u8) -> Result<u32, Drop> {
        let decision = self.decide(client, SocketAddr::new(VIP, 80), flags);
        if let Decision::Drop(Refusal { reason, .. }) = decision {
            return Err(reason);
        }
        let Decision::NatRequest(_, index) = decision else { panic!("{client}: {decision:?}") };
        Ok(index)
    }

    /// The flow of what a server sends to a SNAT port.
    fn reply(&self, server: IpAddr, snat_port: u16, flags: u8) -> Option<u32> {
        let decision = self.decide(SocketAddr::new(server, 8080), SocketAddr::new(SNAT, snat_port), flags);
        if decision == Decision::Pass {
            return None;
        }
        let Decision::NatReply(index) = decision else { panic!("port {snat_port}: {decision:?}") };
        Some(index)
    }

    fn answer(&self, index: u32, flags: u8) -> Option<u32> {
        self.reply(SERVER, self.snat_port(index), flags)
    }

    fn snat_port(&self, index: u32) -> u16 {
        u16::from_be(self.tables.nat_record(index).snat_port)
    }

    fn establish(&self, client: SocketAddr) -> Result<u32, Drop> {
        let index = self.request(client, tcp::SYN)?;
        assert_eq!(self.answer(index, tcp::SYN | tcp::ACK), Some(index));
        assert_eq!(self.request(client, tcp::ACK), Ok(index));
        Ok(index)
    }

    fn later(&self, seconds: Tick) {
        self.tables.set_tick(NOW + seconds);
    }
}

fn client(number: u32) -> SocketAddr {
    SocketAddr::new(Ipv4Addr::from_bits(0x0a64_0000 + number / 50_000).into(), 1024 + (number % 50_000) as u16)
}

#[test]
fn a_flow_is_found_from_both_sides() {
    let world = World::tcp();
    let index = world.establish(client(0)).unwrap();
    let record = world.tables.nat_record(index);
    assert_eq!(
        (record.client.ip(), record.server.ip(), record.snat_port),
        (client(0).ip(), SERVER, (4 << 8 | index as u16 & 0xff).to_be())
    );
    assert_eq!((record.ifindex, record.mac), (INGRESS.ifindex, INGRESS.mac));
    assert_eq!(world.tables.noted(world.service, Note::NatOpened), 1);
}

#[test]
fn what_belongs_to_no_flow_passes_or_is_refused() {
    let world = World::tcp();
    let index = world.establish(client(0)).unwrap();
    assert_eq!(world.request(client(1), tcp::ACK), Err(Drop::NatNoFlow));
    let port = world.snat_port(index);
    assert_eq!((world.reply(SERVER, port ^ 1, tcp::ACK), world.reply(SPARE, port, tcp::ACK)), (None, None));
}

#[test]
fn a_known_flow_keeps_its_server_when_the_slots_change() {
    let world = World::tcp();
    let index = world.establish(client(0)).unwrap();
    world.tables.fill_slots(world.service, SlotWord::new(Some(world.members[1]), None, 0));
    assert_eq!((world.request(client(0), tcp::ACK), world.request(client(0), tcp::SYN)), (Ok(index), Ok(index)));
    assert_eq!(world.tables.nat_record(index).server.ip(), SERVER);
}

#[test]
fn a_syn_toward_a_server_that_drains_asks_it_unless_it_has_not_answered_yet() {
    for is_established in [true, false] {
        let world = World::tcp();
        let index = if is_established { world.establish(client(0)).unwrap() } else { world.request(client(0), tcp::SYN).unwrap() };
        world.tables.set_member_state(world.members[0], MemberWord::NO_NEW);
        world.tables.fill_slots(world.service, SlotWord::new(Some(world.members[1]), Some(world.members[0]), NOW));
        let asked = world.request(client(0), tcp::SYN).unwrap();
        assert_eq!(world.tables.nat_record(asked).server.ip(), if is_established { SERVER } else { SPARE });
        assert_eq!(asked == index, is_established);
    }
}

#[test]
fn a_syn_toward_a_server_that_is_down_opens_another_flow() {
    let world = World::tcp();
    let index = world.establish(client(0)).unwrap();
    world.tables.set_member_state(world.members[0], MemberWord::NO_NEW | MemberWord::DOWN);
    world.tables.fill_slots(world.service, SlotWord::new(Some(world.members[1]), Some(world.members[0]), NOW));
    assert_eq!(world.request(client(0), tcp::ACK), Ok(index));
    let reopened = world.request(client(0), tcp::SYN).unwrap();
    assert_eq!(world.tables.nat_record(reopened).server.ip(), SPARE);
    assert_eq!((world.request(client(0), tcp::ACK), world.answer(index, tcp::ACK)), (Ok(reopened), Some(index)));
}

#[test]
fn a_later_fragment_does_not_follow_a_flow_that_has_its_port_from_another() {
    let world = World::new(protocol::TCP, 1, 256);
    let ip = wire::ip("10.100.0.0", "192.0.2.1");
    let syn = wire::tcp(1024, 80, number::SYN).with(&[7; 100]);
    let (first, later) = ip.fragments(number::TCP, &syn.bytes(&ip), 48);
    let link = wire::Link { target: [1; 6], source: [2; 6], tags: vec![] };
    let decide = |packet: &[u8]| decide(&world.tables, &link.frame(packet)[..], &INGRESS).0;
    let Decision::NatRequest(_, index) = decide(&first) else { panic!("{:?}", decide(&first)) };
    assert!(matches!(decide(&later), Decision::NatRequestFragment(_, followed) if followed == index));
    assert_eq!(world.request(client(0), tcp::RST), Ok(index));
    assert!(matches!(decide(&later), Decision::NatRequestFragment(..)), "the port is still the flow's");
    let takes_it = |number: &u32| world.request(client(*number), tcp::SYN) == Ok(index);
    (1..=256).find(takes_it).expect("an ended flow's port is given again");
    let unknown = Refusal { service: ServiceId::NONE, reason: Drop::FragmentUnknown, answered: false };
    assert_eq!(decide(&later), Decision::Drop(unknown));
}

#[test]
fn datagrams_leave_a_server_that_closes_its_sessions() {
    let world = World::new(protocol::UDP, 4, 256);
    let index = world.request(client(0), 0).unwrap();
    world.tables.set_member_state(world.members[0], MemberWord::NO_NEW | MemberWord::DOWN | MemberWord::CLOSING);
    assert_eq!(world.request(client(0), 0), Err(Drop::ServerDown), "no other takes them");
    world.tables.fill_slots(world.service, SlotWord::new(Some(world.members[1]), Some(world.members[0]), NOW));
    let moved = world.request(client(0), 0).unwrap();
    assert_eq!(world.tables.nat_record(moved).server.ip(), SPARE);
    assert_eq!((world.request(client(0), 0), world.answer(index, 0)), (Ok(moved), Some(index)));
    world.tables.set_member_state(world.members[0], 0);
    assert_eq!((world.request(client(0), 0), world.tables.noted(world.service, Note::NatOpened)), (Ok(moved), 2));
}

#[test]
fn an_ended_connection_is_reopened_on_another_port() {
    type Ending = fn(&World, u32);
    let endings: [(&str, Ending); 3] = [
        ("reset", |world, _| assert!(world.request(client(0), tcp::RST).is_ok())),
        ("client first", |world, index| {
            world.request(client(0), tcp::FIN | tcp::ACK).unwrap();
            world.answer(index, tcp::FIN | tcp::ACK);
        }),
        ("server first", |world, index| {
            world.answer(index, tcp::FIN | tcp::ACK);
            world.request(client(0), tcp::FIN | tcp::ACK).unwrap();
        }),
    ];
    for (name, end) in endings {
        let world = World::tcp();
        let first = world.establish(client(0)).unwrap();
        end(&world, first);
        assert_eq!(world.request(client(0), tcp::ACK), Ok(first), "{name}: the last acknowledgment");
        let second = world.establish(client(0)).unwrap();
        let is_other = world.tables.nat_record(second).snat_port != world.tables.nat_record(first).snat_port || second == first;
        assert!(is_other, "{name}");
        assert_eq!(world.request(client(0), tcp::ACK), Ok(second), "{name}");
    }
}

/// Fills a plane of one chunk with flows that end in one way: whether a port is given again, its rest over, first after so many seconds.
fn is_given_again_after(kind: u8, seconds: Tick, end: impl Fn(&World, SocketAddr, u32)) -> bool {
    let is_given = |seconds: Tick| {
        let world = World::new(kind, 1, 256);
        for number in 0..256 {
            let index = world.request(client(number), tcp::SYN).unwrap();
            end(&world, client(number), index);
        }
        world.later(seconds);
        world.request(client(1000), tcp::SYN).is_ok() && world.tables.noted(world.service, Note::NatRestCut) == 0
    };
    is_given(seconds) && (seconds == 0 || !is_given(seconds - 1))
}

#[test]
fn a_port_rests_as_its_flow_ended() {
    let answered = |world: &World, index: u32| assert!(world.answer(index, tcp::SYN | tcp::ACK).is_some());
    let established = |world: &World, client: SocketAddr, index: u32| {
        answered(world, index);
        world.request(client, tcp::ACK).unwrap();
    };
    assert!(is_given_again_after(protocol::TCP, 6, |_, _, _| {}), "no answer");
    assert!(is_given_again_after(protocol::TCP, 9, |world, _, index| answered(world, index)), "the handshake was not completed");
    assert!(is_given_again_after(protocol::TCP, IDLE_S + 1, established), "established");
    let reset = |world: &World, client, index| {
        established(world, client, index);
        world.answer(index, tcp::RST);
    };
    assert!(is_given_again_after(protocol::TCP, 61, reset), "reset");
    let client_first = |world: &World, client, index| {
        established(world, client, index);
        world.request(client, tcp::FIN | tcp::ACK).unwrap();
        world.answer(index, tcp::FIN | tcp::ACK);
    };
    assert!(is_given_again_after(protocol::TCP, 11, client_first), "client first");
    let server_first = |world: &World, client, index| {
        established(world, client, index);
        world.answer(index, tcp::FIN | tcp::ACK);
        world.request(client, tcp::FIN | tcp::ACK).unwrap();
    };
    assert!(is_given_again_after(protocol::TCP, 61, server_first), "server first");
    let half_closed = |world: &World, client, index| {
        established(world, client, index);
        world.answer(index, tcp::FIN | tcp::ACK);
    };
    assert!(is_given_again_after(protocol::TCP, IDLE_S + 1, half_closed), "half closed");
    assert!(is_given_again_after(protocol::UDP, IDLE_S + 31, |_, _, _| {}), "a datagram");
}

#[test]
fn when_no_port_is_free_one_that_rested_long_goes_before_its_time_and_is_counted() {
    let world = World::new(protocol::TCP, 1, 256);
    // Each second eight connections end, their servers first.
    let ended: Vec<u32> = (0..256)
        .map(|number| {
            world.later(number / 8);
            let index = world.establish(client(number)).unwrap();
            world.answer(index, tcp::FIN | tcp::ACK);
            world.request(client(number), tcp::FIN | tcp::ACK).unwrap();
            index
        })
        .collect();
    for number in 0..64 {
        let index = world.request(client(1000 + number), tcp::SYN).unwrap();
        let turn = ended.iter().position(|&other| other == index).unwrap();
        assert!(turn < 128, "the flow that ended as number {turn}");
        assert_eq!(world.tables.noted(world.service, Note::NatRestCut), u64::from(number) + 1);
    }
    // A live flow never loses its port.
    let world = World::new(protocol::TCP, 1, 256);
    (0..256).for_each(|number| assert!(world.establish(client(number)).is_ok()));
    assert_eq!(world.request(client(1000), tcp::SYN), Err(Drop::NatPortsFull));
}

#[test]
fn datagrams_after_the_timeout_are_a_new_flow() {
    let world = World::new(protocol::UDP, 1, 64);
    let first = world.request(client(0), 0).unwrap();
    world.tables.set_member_state(world.members[0], MemberWord::NO_NEW | MemberWord::DOWN);
    world.tables.fill_slots(world.service, SlotWord::new(Some(world.members[1]), None, 0));
    world.later(IDLE_S);
    assert_eq!(world.request(client(0), 0), Ok(first));
    world.later(2 * IDLE_S + 1);
    let second = world.request(client(0), 0).unwrap();
    assert_eq!(world.tables.nat_record(second).server.ip(), SPARE);
    assert_eq!(world.request(client(0), 0), Ok(second));
}

#[test]
fn replies_to_an_earlier_use_of_a_port_reach_nobody() {
    let world = World::new(protocol::TCP, 1, 64);
    let first: Vec<u32> = (0..256).map(|number| world.request(client(number), tcp::SYN).unwrap()).collect();
    world.later(10);
    for number in 0..256 {
        let index = world.request(client(1000 + number), tcp::SYN).unwrap();
        let generation = world.tables.nat_record(index).generation;
        assert_eq!((world.tables.nat_record(index).client.ip(), generation), (client(1000 + number).ip(), 2));
    }
    assert_eq!(first.len(), 256);
    // The earlier clients' packets find no flow, though the directory may still hint at their records.
    for number in 0..256 {
        assert_eq!(world.request(client(number), tcp::ACK), Err(Drop::NatNoFlow), "client {number}");
    }
}

#[test]
fn no_two_live_flows_share_a_port_and_replies_find_each() {
    let world = World::new(protocol::TCP, 16, 1024);
    let flows: Vec<(u32, u32)> = (0..3500).map(|number| (number, world.establish(client(number)).unwrap())).collect();
    let ports: std::collections::BTreeSet<u16> = flows.iter().map(|&(_, index)| world.snat_port(index)).collect();
    assert_eq!(ports.len(), flows.len());
    for (number, index) in flows {
        assert_eq!(world.answer(index, tcp::ACK), Some(index));
        let record = world.tables.nat_record(index);
        assert_eq!(SocketAddr::new(record.client.ip(), u16::from_be(record.client_port)), client(number));
    }
}

#[test]
fn a_plane_serves_64_000_flows_at_a_time() {
    let world = World::new(protocol::TCP, 252, 16_384);
    let mut refused = 0;
    for number in 0..64_000 {
        if world.establish(client(number)).is_err() {
            refused += 1;
            // The client sends its SYN again a second later, and the search begins elsewhere.
            world.later(refused);
            assert_eq!(world.establish(client(number)).err(), None, "flow {number}");
        }
        assert!(number < 63_000 || refused < 5, "{refused} of {number}");
        assert!(number > 63_000 || refused == 0, "flow {number} was refused");
    }
}

#[test]
fn a_full_plane_refuses_and_says_so() {
    let world = World::new(protocol::TCP, 1, 64);
    let given = (0..400).filter(|&number| world.request(client(number), tcp::SYN).is_ok()).count();
    assert_eq!(given, 256);
    assert_eq!(world.request(client(1000), tcp::SYN), Err(Drop::NatPortsFull));
}

#[test]
fn the_directory_has_room_at_62_percent() {
    // 65 536 words.
    let world = World::new(protocol::TCP, 200, 8192);
    let mut number = 0;
    let (mut used, mut all) = world.tables.nat_directory_load();
    while used * 100 < all * 62 {
        assert_eq!(world.establish(client(number)).err(), None, "{used} of {all}");
        number += 1;
        if number % 1000 == 0 || number > 40_000 {
            (used, all) = world.tables.nat_directory_load();
        }
    }
}

#[test]
fn the_directory_has_room_at_62_percent_after_any_number_of_flows() {
    // 1 280 ports for 2 048 words: every flow ends, ports are given again, and the directory has to keep up.
    let world = World::new(protocol::TCP, 5, 256);
    for number in 0..100_000 {
        let index = world.establish(client(number)).unwrap();
        if number % 1280 < 1200 {
            world.answer(index, tcp::RST);
        } else {
            world.later(number / 1280 * 61);
        }
    }
    let (used, all) = world.tables.nat_directory_load();
    assert!(used * 100 <= all * 63, "{used} of {all}");
}

/// A server is reached with its own port by one service and with the packet's by another, from one SNAT address.
#[test]
fn a_flow_of_the_plane_of_all_ports_is_found_beside_another_plane_of_its_port() {
    let others: IpAddr = Ipv4Addr::new(192, 0, 2, 2).into();
    let mut world = World::tcp();
    world.tables.add_vip(others, VipWord::VIP);
    let any = world.tables.add_service(&ServiceSpec { idle_s: IDLE_S, flags: Service::NAT, ..ServiceSpec::tcp(others, 8080) });
    let plane = PlaneSpec { snat: SNAT, server: SERVER, server_port: 0, protocol: protocol::TCP, first_chunk: 100, chunks: 1 };
    let header = world.tables.add_nat_header(&[plane]);
    let member = world.tables.add_member(any, header);
    world.tables.fill_slots(any, SlotWord::new(Some(member), None, 0));
    let exact = world.establish(client(0)).unwrap();
    for number in 1..20 {
        let decision = world.decide(client(number), SocketAddr::new(others, 8080), tcp::SYN);
        let Decision::NatRequest(_, index) = decision else { panic!("{decision:?}") };
        assert_eq!(u16::from_be(world.tables.nat_record(index).server_port), 8080);
        assert_eq!(world.answer(index, tcp::SYN | tcp::ACK), Some(index));
    }
    assert_eq!(world.answer(exact, tcp::ACK), Some(exact));
}

#[test]
fn a_chunk_that_another_cpu_fetches_or_has_just_fetched_refuses_nobody() {
    let world = World::tcp();
    let cell = |ordinal| world.tables.nat_chunk(1, FIRST_CHUNK + ordinal).unwrap();
    cell(0).store(CHUNK_PENDING);
    let first = world.request(client(0), tcp::SYN).expect("the next chunk serves");
    assert_eq!((cell(0).load(), cell(2).load(), world.tables.nat_chunks_used(1).unwrap().load()), (CHUNK_PENDING, 0, 2));
    // What the other CPU fetched at last serves too.
    cell(0).store(4);
    let places: BTreeSet<u32> = (1..400).map(|number| world.request(client(number), tcp::SYN).unwrap() / 256).collect();
    assert_eq!((places, first / 256), (BTreeSet::from([0, 3]), 0));
    // Another CPU has just fetched the last chunk but not counted it yet.
    let world = World::new(protocol::TCP, 1, 256);
    world.tables.nat_chunk(1, FIRST_CHUNK).unwrap().store(1);
    assert_eq!(world.request(client(0), tcp::SYN).map(|place| place / 256), Ok(0));
    assert_eq!(world.tables.nat_chunks_used(1).unwrap().load(), 1);
}
