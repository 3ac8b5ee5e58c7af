//! Frames one after the other through the decision, over tables in memory: what it says of a frame is about that frame, and its records are those that
//! the tables have.
#![no_main]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use lb_common::{
    address::Address,
    decide::{Concern, Decision, Delivery, FlowIndex, Ingress, Parsed, decide, parse, plain},
    maps::{ForwardKind, SOURCE_DENY, Service},
    packet::Fragment,
    tables::{Cell, Tables},
    words::{MemberId, MemberWord, ServiceId, SlotWord, VipWord},
};
use libfuzzer_sys::{
    arbitrary::{Result, Unstructured},
    fuzz_target,
};
use weir_tests::{
    fixture::wire::{Ip, Link, ip, number, tcp},
    tables::{Arrays, PlaneSpec, ServiceSpec, Sizes},
};

const VIPS: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1))];
const SNATS: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1)), IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2))];
const SERVERS: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::new(10, 1, 0, 1)), IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1))];
const SERVER_PORT: u16 = 8080;
const NAT_PORT: u16 = 80;
const PLAIN_PORT: u16 = 443;
const FIRST_SECOND: u32 = 1000;
/// Ports of NAT: few, so that they run out.
const NAT_CHUNKS: u32 = 3;
const MOST_FRAMES: usize = 64;

struct World {
    tables: Arrays,
    members: Vec<MemberId>,
    second: u32,
    last: Vec<u8>,
    last_flow: FlowIndex,
}

impl World {
    fn new() -> Self {
        let sizes = Sizes { flow_lines: 16, fragment_lines: 2, rate_lines: 2, nat_lines: 8, nat_chunks: NAT_CHUNKS, ..Sizes::default() };
        let mut world = Self { tables: Arrays::new(&sizes), members: Vec::new(), second: FIRST_SECOND, last: Vec::new(), last_flow: 0 };
        for family in 0..2 {
            world.tables.add_vip(VIPS[family], VipWord::VIP);
            world.tables.add_vip(SNATS[family], VipWord::SNAT);
            for protocol in [number::TCP, number::UDP] {
                world.add_service(family, protocol, NAT_PORT);
                world.add_service(family, protocol, PLAIN_PORT);
            }
        }
        world
    }

    /// A service with two members; over NAT the second has no slots, else each slot goes from one to the other.
    fn add_service(&mut self, family: usize, protocol: u8, port: u16) {
        let vip = VIPS[family];
        let spec = if protocol == number::TCP { ServiceSpec::tcp(vip, port) } else { ServiceSpec::udp(vip, port) };
        let is_nat = port == NAT_PORT;
        let flags = Service::SOURCE_RULES | Service::RATE | if is_nat { Service::NAT } else { 0 };
        let spec = ServiceSpec { flags, rate_interval_us: 100_000, rate_tolerance_us: 1_000_000, ..spec };
        let tables = &mut self.tables;
        let service = tables.add_service(&spec);
        tables.add_source_rule(service, client(family, 200), if family == 0 { 32 } else { 128 }, SOURCE_DENY);
        let plane =
            PlaneSpec { snat: SNATS[family], server: SERVERS[family], server_port: SERVER_PORT, protocol, first_chunk: 4, chunks: 2 };
        let headers = if is_nat {
            [tables.add_nat_header(&[plane]), 0]
        } else {
            [tables.add_plain_header(ForwardKind::Dsr), tables.add_plain_header(ForwardKind::Ipip4)]
        };
        let [first, second] = headers.map(|header| tables.add_member(service, header));
        let word = if is_nat { SlotWord::new(Some(first), None, 0) } else { SlotWord::new(Some(second), Some(first), FIRST_SECOND) };
        tables.fill_slots(service, word);
        self.members.extend([first, second]);
    }

    /// Another second, and perhaps another state of a member.
    fn change(&mut self, bytes: &mut Unstructured<'_>) -> Result<()> {
        let [seconds, member, state]: [u8; 3] = bytes.arbitrary()?;
        self.second += u32::from(seconds);
        self.tables.set_tick(self.second);
        let states =
            [0, MemberWord::NO_NEW, MemberWord::NO_NEW | MemberWord::DOWN, MemberWord::NO_NEW | MemberWord::DOWN | MemberWord::CLOSING];
        if let Some(state) = states.get(usize::from(state)) {
            self.tables.set_member_state(self.members[usize::from(member) % self.members.len()], *state);
        }
        Ok(())
    }

    fn take(&mut self, frame: Vec<u8>) {
        let ingress = Ingress { ifindex: 3, mac: [1, 2, 3], kind: 0x0008 };
        self.fast_ways(&frame);
        let (decision, parsed) = decide(&self.tables, &frame[..], &ingress);
        match parsed {
            Some(parsed) => self.check(decision, &parsed),
            None => assert!(matches!(decision, Decision::Pass | Decision::Drop(_)), "{decision:?} of what is not for us"),
        }
        self.last = frame;
    }

    /// The first half for plain frames finds what the one for all does.
    fn fast_ways(&self, frame: &[u8]) {
        let long = parse(&self.tables, frame);
        for fast in [plain::parse::<false, _, _>(&self.tables, frame), plain::parse::<true, _, _>(&self.tables, frame)] {
            match fast {
                plain::Plain::Nobody => assert_eq!(long, Concern::None),
                plain::Plain::Ours(parsed) => assert_eq!(long, Concern::Ours(parsed)),
                plain::Plain::Unknown => {}
            }
        }
    }

    fn check(&mut self, decision: Decision, parsed: &Parsed) {
        let (source, destination) = (parsed.network.source, parsed.network.destination);
        let is_later = parsed.transport.fragment == Fragment::Later;
        match decision {
            Decision::Pass | Decision::Echo => {}
            Decision::Drop(refusal) => assert!(self.tables.service(refusal.service).is_some()),
            Decision::Send(delivery) | Decision::SendError(delivery) => self.leads_to_a_member(delivery),
            Decision::NatRequest(delivery, flow) | Decision::NatRequestFragment(delivery, flow) => {
                self.leads_to_a_member(delivery);
                let record = self.flow(flow);
                assert_eq!((record.client, record.member, record.service), (source, delivery.member(), delivery.service().0));
                assert_eq!(is_later, matches!(decision, Decision::NatRequestFragment(..)));
                assert!(
                    is_later || (record.client_port, record.vip_port) == (parsed.transport.source_port, parsed.transport.destination_port)
                );
                self.last_flow = flow;
            }
            Decision::NatReply(flow) | Decision::NatReplyFragment(flow) => {
                let record = self.flow(flow);
                assert_eq!((record.server, is_later), (source, matches!(decision, Decision::NatReplyFragment(..))));
                assert!(
                    is_later || (record.server_port, record.snat_port) == (parsed.transport.source_port, parsed.transport.destination_port)
                );
                assert!(SNATS.map(Address::from).contains(&destination));
            }
            Decision::NatRequestError(delivery, flow) => {
                self.leads_to_a_member(delivery);
                self.flow(flow);
            }
            Decision::NatReplyError(flow) => {
                self.flow(flow);
            }
        }
    }

    fn leads_to_a_member(&self, delivery: Delivery) {
        assert!(!delivery.is_refusal());
        let member = MemberId::new(delivery.member()).and_then(|id| self.tables.member(id)).expect("the member is in the table");
        let word = MemberWord(member.load());
        assert_eq!((word.service(), word.header()), (delivery.service(), delivery.header()));
        assert!(self.tables.header(delivery.header()).is_some() && delivery.service() != ServiceId::NONE);
    }

    fn flow(&self, index: FlowIndex) -> lb_common::maps::NatFlow {
        let record = *self.tables.nat_flow(index).expect("the flow has a record");
        assert!(record.client.can_be_answered(), "{:?}", record.client.ip());
        record
    }

    /// A frame, by the byte that names its kind and those that follow; the last of them may change a few of its bytes.
    fn frame(&self, bytes: &mut Unstructured<'_>) -> Result<Vec<u8>> {
        let [kind, from, to, flags]: [u8; 4] = bytes.arbitrary()?;
        let family = usize::from(kind >> 7);
        let port = if to & 1 == 0 { NAT_PORT } else { PLAIN_PORT };
        let client_port = 1024 + u16::from(from);
        let header = ip_of(client(family, from), VIPS[family]);
        let record = self.tables.nat_flow(self.last_flow).map(|record| *record);
        let packet = match (kind >> 2 & 7, record) {
            (0, _) => header.tcp(&tcp(client_port, port, flags)),
            (1, _) => header.udp(client_port, port, b"?"),
            (2, Some(flow)) => {
                let back = ip_of(flow.server.ip(), if flow.server.is_v4() { SNATS[0] } else { SNATS[1] });
                let (from, to) = (u16::from_be(flow.server_port), u16::from_be(flow.snat_port));
                if to & 1 == 0 { back.tcp(&tcp(from, to, flags)) } else { back.udp(from, to, b"!") }
            }
            (3, _) => {
                let quoted = self.last.get(14..).unwrap_or_default();
                let at = if to & 2 == 0 { VIPS[family] } else { SNATS[family] };
                ip_of(client(family, from), at).icmp(if family == 0 { 3 } else { 1 }, flags, 0, quoted)
            }
            (4, _) => header.icmp(if family == 0 { 8 } else { 128 }, 0, flags.into(), b"ping"),
            (5, _) => {
                let datagram = [client_port.to_be_bytes(), port.to_be_bytes(), [0, 24], [0, 0], [0; 2], [0; 2], [0; 2], [0; 2]].concat();
                let (first, rest) = header.fragments(number::UDP, &datagram, 8);
                if flags & 1 == 0 { first } else { rest }
            }
            (_, _) => {
                let length = usize::from(flags).min(bytes.len());
                return Ok(bytes.bytes(length)?.to_vec());
            }
        };
        let tags = [vec![], vec![(0x8100, 5)], vec![(0x88a8, 5), (0x8100, 6)], vec![(0x8100, 0)]][usize::from(to >> 6)].clone();
        let mut frame = Link { target: [2, 0, 0, 0, 0, 2], source: [2, 0, 0, 0, 0, 1], tags }.frame(&packet);
        for _ in 0..kind & 3 {
            let [at, bits]: [u8; 2] = bytes.arbitrary()?;
            let at = usize::from(at) % frame.len();
            frame[at] ^= bits;
        }
        Ok(frame)
    }
}

fn client(family: usize, last: u8) -> IpAddr {
    if family == 0 { IpAddr::from([203, 0, 113, last]) } else { IpAddr::from([0x2001, 0xdb8, 0xc, 0, 0, 0, 0, last.into()]) }
}

fn ip_of(source: IpAddr, target: IpAddr) -> Ip {
    ip("192.0.2.0", "192.0.2.0").between(source, target)
}

fuzz_target!(|data: &[u8]| {
    let mut bytes = Unstructured::new(data);
    let mut world = World::new();
    for _ in 0..MOST_FRAMES {
        if bytes.is_empty() {
            return;
        }
        // A frame that the input ends within is none.
        let Ok(frame) = world.frame(&mut bytes) else { return };
        world.take(frame);
        if bytes.arbitrary::<u8>().is_ok_and(|next| next == 1) && world.change(&mut bytes).is_err() {
            return;
        }
    }
});
