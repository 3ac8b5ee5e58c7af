//! Random packets against random states: the program's verdict, member and bytes compared with the model's. Needs root.
//!
//! `WEIR_SEED` repeats a run, `WEIR_LONG=1` makes it longer.
#![allow(missing_docs)]

use std::{
    collections::BTreeSet,
    net::IpAddr,
    time::{Duration, Instant},
};

use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use lb_common::{
    maps::{ForwardKind, SOURCE_ALLOW, SOURCE_DENY, Service},
    reason::{Drop, Note},
    words::MemberWord,
};
use lb_userspace::config::model::Limits;
use weir_tests::fixture::{
    bench::{ALL_FEATURES, Bench, Counted, LIMITS, Ran, Verdict},
    model::{Fate, Flow, Model, Translated},
    oracle::{GUE_PORT, packet_of, wrong_checksums},
    state::{Hop, IN_MAC, Member, Port, ROUTER_MAC, SERVER_MAC, Slots, Spec, State, address, member, service},
    wire::{Ip, Link, Tcp, ip, number, tcp},
};

const PACKETS_PER_STATE: usize = 1000;
const RUN: Duration = Duration::from_secs(15);
const LONG_RUN: Duration = Duration::from_secs(300);

/// xorshift64*: Vigna, "An experimental exploration of Marsaglia's xorshift generators, scrambled", 2016.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, limit: usize) -> usize {
        (((self.next() >> 32) * limit as u64) >> 32) as usize
    }

    fn one_in(&mut self, chances: usize) -> bool {
        self.below(chances) == 0
    }

    fn of<T: Clone>(&mut self, list: &[T]) -> T {
        list[self.below(list.len())].clone()
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.next() as u8).collect()
    }
}

const VIPS: [&str; 4] = ["192.0.2.1", "192.0.2.2", "2001:db8::1", "2001:db8::2"];
const SNATS: [&str; 4] = ["10.0.0.253", "192.0.2.1", "fd00::fd", "2001:db8::1"];
const STATES: [u8; 6] =
    [0, 0, 0, MemberWord::NO_NEW, MemberWord::NO_NEW | MemberWord::DOWN, MemberWord::NO_NEW | MemberWord::DOWN | MemberWord::CLOSING];

fn random_member(random: &mut Random, number: usize, forward: ForwardKind, is_v4: bool) -> Member {
    let in_v4 = match forward {
        ForwardKind::Nat | ForwardKind::Dsr => is_v4,
        ForwardKind::Ipip4 | ForwardKind::Gue4 => true,
        ForwardKind::Ipip6 | ForwardKind::Gue6 => false,
    };
    let server = if in_v4 { format!("10.0.0.{}", number + 1) } else { format!("fd00::{}", number + 1) };
    let plain = member(forward, &server).in_state(random.of(&STATES));
    let hop = Hop { port: random.of(&[Port::In, Port::Out]), vlan: random.of(&[0, 0, 5]), mtu: 9000 };
    let plain = if random.one_in(12) { Member { hop: None, ..plain } } else { plain.by(hop) };
    if forward != ForwardKind::Nat {
        return plain;
    }
    let first = if is_v4 { 0 } else { 2 };
    // A plane belongs to one list: services that share a server share its addresses too.
    let snat = if number == 0 { &SNATS[first..first + 2] } else { &SNATS[first..=first] };
    plain.snat(snat, random.of(&[0, 8080]))
}

fn random_service(random: &mut Random, vip: &str, protocol: u8, port: u16) -> Spec {
    use ForwardKind::{Dsr, Gue4, Gue6, Ipip4, Ipip6, Nat};
    let is_v4 = !vip.contains(':');
    let forward = random.of(&[Nat, Nat, Dsr, Ipip4, Ipip6, Gue4, Gue6]);
    let members: Vec<Member> = (0..3).map(|number| random_member(random, number, forward, is_v4)).collect();
    let learning = Slots::Learning(0, random.of(&[Some(1), Some(1), Some(2), None]));
    let all_healthy = members.iter().all(|member| member.state & MemberWord::CLOSING == 0 && member.hop.is_some());
    let slots = random.of(&[Slots::All(0), Slots::All(1), learning, learning, Slots::Nobody]);
    let spread = forward != Nat && all_healthy && random.one_in(3);
    let rules = if random.one_in(3) {
        let nets = if is_v4 { ["198.51.100.0/30", "198.51.100.2/32"] } else { ["2001:db8:c::/126", "2001:db8:c::2/128"] };
        nets.iter().map(|net| (net.parse().unwrap(), random.of(&[SOURCE_ALLOW, SOURCE_DENY]))).collect()
    } else {
        vec![]
    };
    let strict = if !rules.is_empty() && random.one_in(2) { Service::DENY_OTHERS } else { 0 };
    let stateless = if protocol == number::UDP && random.one_in(3) { Service::STATELESS } else { 0 };
    Spec {
        rules,
        idle_s: 600,
        flags: strict | stateless,
        ..service(vip, protocol, port, members).slots(if spread { Slots::Spread } else { slots })
    }
}

fn random_state(random: &mut Random) -> State {
    let mut services = Vec::new();
    for vip in VIPS {
        for (protocol, port) in [(number::TCP, 80), (number::UDP, 80), (number::TCP, 0), (number::UDP, 0)] {
            let wanted = if port == 0 { random.one_in(4) } else { random.below(4) != 0 };
            if wanted && services.len() < 12 {
                services.push(random_service(random, vip, protocol, port));
            }
        }
    }
    State { services }
}

/// A packet before it is damaged, and whether it comes from the servers' side.
fn random_packet(random: &mut Random, model: &Model) -> Vec<u8> {
    let flows: Vec<(Flow, Translated)> = model.flows.iter().map(|(flow, known)| (*flow, *known)).collect();
    if !flows.is_empty() && random.one_in(3) {
        let (_, known) = random.of(&flows);
        let from_server = header(random, known.server.0, known.snat.0);
        return if random.one_in(4) {
            let about = body(random, &from_server.back(), known.snat.1, known.server.1);
            error(random, &from_server, &about)
        } else {
            body(random, &from_server, known.server.1, known.snat.1)
        };
    }
    let vip = address(random.of(&VIPS));
    let last = random.below(5);
    let client = address(&if vip.is_ipv4() { format!("198.51.100.{last}") } else { format!("2001:db8:c::{last:x}") });
    let to_vip = header(random, client, vip);
    let (client_port, port) = (1000 + random.below(6) as u16, random.of(&[80, 80, 80, 80, 80, 80, 81, 0]));
    match random.below(8) {
        0 => {
            let kind = random.of(if vip.is_ipv4() { &[8, 8, 0, 13] } else { &[128, 128, 129, 135] });
            let (word, data) = (random.next() as u32, short(random));
            to_vip.icmp(kind, 0, word, &data)
        }
        1 => {
            let about = body(random, &to_vip.back(), port, client_port);
            error(random, &to_vip, &about)
        }
        2 => {
            let data = short(random);
            to_vip.packet(random.of(&[2, 4, 41, 47, 50, 59, 89, 132]), &data)
        }
        _ => body(random, &to_vip, client_port, port),
    }
}

fn short(random: &mut Random) -> Vec<u8> {
    let count = random.of(&[0, 1, 7, 8, 40, 200]);
    random.bytes(count)
}

fn header(random: &mut Random, source: IpAddr, target: IpAddr) -> Ip {
    let mut plain = ip("0.0.0.0", "0.0.0.0").between(source, target);
    plain.hops = random.next() as u8;
    plain.class = random.of(&[0, 0, 0xb8, 3]);
    plain.id = random.below(4) as u32;
    if random.one_in(6) {
        plain.options = vec![1; 4 * (1 + random.below(10))];
    }
    if random.one_in(5) {
        for _ in 0..=random.below(6) {
            let kind = random.of(&[0, 43, 60, 135]);
            let words = random.of(&[0, 0, 0, 1, 5, 30]);
            plain.extensions.push((kind, [&[0, words as u8][..], &vec![0; 6 + 8 * words]].concat()));
        }
    }
    plain
}

fn body(random: &mut Random, ip: &Ip, source: u16, target: u16) -> Vec<u8> {
    let data = short(random);
    let (protocol, bytes) = if random.one_in(3) {
        (number::UDP, ip.datagram(source, target, &data))
    } else {
        let (syn, ack, fin, rst) = (number::SYN, number::ACK, number::FIN, number::RST);
        let flags = random.of(&[syn, syn, syn | ack, ack, ack, ack, ack | fin, ack | fin, fin, rst, rst | ack, syn | fin, 0]);
        let segment = Tcp { sequence: random.next() as u32, ..tcp(source, target, flags).with(&data) };
        let options = random.of(&[vec![], vec![], vec![1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8], vec![1, 2, 4, 5, 0xb4, 0, 0, 0]]);
        (number::TCP, Tcp { options, ..segment }.bytes(ip))
    };
    if bytes.len() >= 32 && random.one_in(6) {
        let at = random.of(&[8, 16, 24]).min(bytes.len() / 8 * 8 - 8);
        // An extension header that is fragmented with what it precedes.
        let (protocol, bytes) = if ip.source.is_ipv6() && random.one_in(3) {
            (60, [&[protocol, 0, 1, 4, 0, 0, 0, 0], &bytes[..]].concat())
        } else {
            (protocol, bytes)
        };
        let (first, later) = ip.fragments(protocol, &bytes, at.max(24));
        return if random.one_in(2) { first } else { later };
    }
    ip.packet(protocol, &bytes)
}

fn error(random: &mut Random, ip: &Ip, about: &[u8]) -> Vec<u8> {
    let kind = random.of(if ip.source.is_ipv4() { &[3, 3, 11, 12] } else { &[1, 2, 3, 4] });
    let length = about.len().min(random.of(&[0, 20, 28, 40, 48, 56, 64, 1000]));
    ip.icmp(kind, random.below(5) as u8, random.below(1500) as u32, &about[..length])
}

fn damaged(random: &mut Random, mut frame: Vec<u8>) -> Vec<u8> {
    match random.below(10) {
        0 => frame.truncate(14 + random.below(frame.len() - 13)),
        1 => {
            let count = random.below(64);
            frame.extend(random.bytes(count));
        }
        2 | 3 => {
            for _ in 0..=random.below(3) {
                let at = 12 + random.below((frame.len() - 12).min(80));
                frame[at] = random.next() as u8;
            }
        }
        4 => {
            let at = 12 + random.below((frame.len() - 12).min(80));
            frame[at] ^= 1 << random.below(8);
        }
        _ => {}
    }
    frame
}

/// What the program did, as the model would put it: verdict and who was sent to.
fn sent_to(ran: &Ran) -> Option<(usize, usize)> {
    ran.counted.keys().find_map(|counted| match counted {
        Counted::Sent(service, member) => Some((usize::from(*service) - 1, *member)),
        Counted::Drop(..) | Counted::Note(..) => None,
    })
}

fn drops(ran: &Ran) -> Vec<(u16, Drop)> {
    let drop = |counted: &Counted| match counted {
        Counted::Drop(service, reason) => Some((*service, *reason)),
        Counted::Note(..) | Counted::Sent(..) => None,
    };
    ran.counted.keys().filter_map(drop).collect()
}

/// Compares one run with the model; the words say what is wrong.
fn compare(model: &mut Model, frame: &[u8], ran: &Ran) -> Result<(), String> {
    let fate = model.fate(frame);
    let refused = ran.verdict == Verdict::Dropped && sent_to(ran).is_none();
    let left = matches!(ran.verdict, Verdict::SentBack | Verdict::Redirected);
    let wrong = |what: &str| Err(format!("{what}: model {fate:?}, program {:?} {:?}", ran.verdict, ran.counted));
    match fate {
        Fate::Pass if ran.verdict == Verdict::Passed && ran.frame == frame && ran.counted.is_empty() => Ok(()),
        // Headers that lie about their length but lead to nothing that is balanced may as well pass.
        Fate::Refused(0, Drop::Malformed) if ran.verdict == Verdict::Passed && ran.frame == frame => Ok(()),
        Fate::Refused(0, Drop::Malformed) if refused && drops(ran)[..] == [(0, Drop::FragmentUnknown)] => Ok(()),
        Fate::Refused(service, reason) if refused && drops(ran)[..] == [(service, reason)] => Ok(()),
        Fate::Told(service, reason) if drops(ran)[..] == [(service, reason)] => told(frame, ran),
        Fate::Echo if ran.verdict == Verdict::SentBack && drops(ran).is_empty() => checksums(frame, ran),
        Fate::Member(service, number) if left && sent_to(ran) == Some((service, number)) => {
            delivered(model.member(service, number), frame, ran)
        }
        Fate::AnyMember(service) if left && sent_to(ran).is_some_and(|to| to.0 == service) => {
            delivered(model.member(service, sent_to(ran).map_or(0, |to| to.1)), frame, ran)
        }
        Fate::Opens(service, number) if left && sent_to(ran) == Some((service, number)) => {
            let (snat, _) = endpoints(ran)?;
            let flow = model.opened(frame, service, number, snat)?;
            translated(model, flow, true, frame, ran)
        }
        Fate::Opens(service, _) if refused && drops(ran)[..] == [(service as u16 + 1, Drop::NatPortsFull)] => Ok(()),
        Fate::Request(flow) if left && sent_to(ran).is_some_and(|to| to.0 == flow.service.0) => translated(model, flow, true, frame, ran),
        Fate::Reply(flow) if left && sent_to(ran).is_none() => translated(model, flow, false, frame, ran),
        Fate::Pass
        | Fate::Refused(..)
        | Fate::Told(..)
        | Fate::Echo
        | Fate::Member(..)
        | Fate::AnyMember(_)
        | Fate::Opens(..)
        | Fate::Request(_)
        | Fate::Reply(_) => wrong("another fate"),
    }
}

fn told(frame: &[u8], ran: &Ran) -> Result<(), String> {
    let is_reset = packet_of(frame)
        .and_then(weir_tests::fixture::oracle::parts)
        .is_some_and(|parts| parts.protocol == number::TCP && parts.body[13] & number::RST != 0);
    // Of headers longer than 120 bytes no message quotes enough.
    let is_long = packet_of(frame).and_then(weir_tests::fixture::oracle::parts).is_some_and(|parts| parts.header.len() > 120);
    match (is_reset || is_long, ran.verdict) {
        (true, Verdict::Dropped) => Ok(()),
        (true, Verdict::SentBack) if is_long => checksums(frame, ran),
        (false, Verdict::SentBack) => checksums(frame, ran),
        (_, verdict) => Err(format!("told by {verdict:?}")),
    }
}

/// A packet whose checksums hold must leave so; one with a wrong one must not leave with it mended.
fn checksums(frame: &[u8], ran: &Ran) -> Result<(), String> {
    let of = |frame: &[u8]| packet_of(frame).map_or(BTreeSet::from(["no packet"]), |packet| wrong_checksums(packet).into_iter().collect());
    let (came, goes): (BTreeSet<&str>, BTreeSet<&str>) = (of(frame), of(&ran.frame));
    let is_answer = ran.counted.keys().any(|counted| matches!(counted, Counted::Drop(..)));
    let is_tunnel = goes.len() != came.len()
        && packet_of(&ran.frame).is_some_and(|packet| matches!(packet[if packet[0] >> 4 == 4 { 9 } else { 6 }], 4 | 17 | 41));
    if came == goes || (!came.is_empty() && (is_answer || is_tunnel)) {
        Ok(())
    } else {
        Err(format!("checksums: {came:?} came, {goes:?} go"))
    }
}

type Endpoint = (IpAddr, u16);

/// Source and destination of the frame that left, read by etherparse, or where that is stricter than the packet path, by the oracle.
fn endpoints(ran: &Ran) -> Result<(Endpoint, Endpoint), String> {
    let parts = packet_of(&ran.frame).and_then(weir_tests::fixture::oracle::parts).ok_or("no IP packet")?;
    let ports = if parts.is_later || parts.body.len() < 4 {
        (0, 0)
    } else {
        (u16::from_be_bytes([parts.body[0], parts.body[1]]), u16::from_be_bytes([parts.body[2], parts.body[3]]))
    };
    let Ok(sliced) = SlicedPacket::from_ethernet(&ran.frame) else { return Ok(((parts.source, ports.0), (parts.target, ports.1))) };
    let (source, target) = match &sliced.net {
        Some(NetSlice::Ipv4(slice)) => (IpAddr::V4(slice.header().source_addr()), IpAddr::V4(slice.header().destination_addr())),
        Some(NetSlice::Ipv6(slice)) => (IpAddr::V6(slice.header().source_addr()), IpAddr::V6(slice.header().destination_addr())),
        Some(NetSlice::Arp(_)) | None => return Err("no IP packet".to_owned()),
    };
    let ports = match &sliced.transport {
        Some(TransportSlice::Tcp(tcp)) => (tcp.source_port(), tcp.destination_port()),
        Some(TransportSlice::Udp(udp)) => (udp.source_port(), udp.destination_port()),
        Some(TransportSlice::Icmpv4(_) | TransportSlice::Icmpv6(_) | TransportSlice::Igmp(_)) | None => ports,
    };
    Ok(((source, ports.0), (target, ports.1)))
}

fn expect_equal<T: PartialEq + std::fmt::Debug>(what: &str, is: T, should: T) -> Result<(), String> {
    if is == should { Ok(()) } else { Err(format!("{what} is {is:02x?}, not {should:02x?}")) }
}

/// The packet itself, unchanged but for a clamped MSS, inside what leads to the member.
fn delivered(member: &Member, frame: &[u8], ran: &Ran) -> Result<(), String> {
    let came = packet_of(frame).ok_or("no IP packet came")?;
    let out = packet_of(&ran.frame).ok_or("no IP packet left")?;
    expect_equal("next hop", &ran.frame[..6], &SERVER_MAC[..])?;
    let mut outer = if member.server.is_ipv4() { 20 } else { 40 };
    match member.forward {
        ForwardKind::Nat => return Err("sent by NAT".to_owned()),
        ForwardKind::Dsr => outer = 0,
        ForwardKind::Ipip4 | ForwardKind::Ipip6 => {}
        ForwardKind::Gue4 | ForwardKind::Gue6 => {
            let (_, target) = endpoints(ran)?;
            expect_equal("GUE port", target.1, GUE_PORT)?;
            outer += 12;
        }
    }
    if member.forward != ForwardKind::Dsr {
        expect_equal("outer destination", endpoints(ran)?.1.0, member.server)?;
    }
    let is_clamped = ran.counted.keys().any(|counted| matches!(counted, Counted::Note(_, Note::MssClamped)));
    if is_clamped {
        // An MSS and a checksum: where exactly, the fixtures say.
        let changed = out[outer..].iter().zip(came).filter(|(out, came)| out != came).count();
        expect_equal("length", out.len() - outer, came.len())?;
        expect_equal("a clamped MSS", changed <= 4, true)?;
    } else {
        expect_equal("packet", &out[outer..], came)?;
    }
    checksums(frame, ran)
}

/// Addresses and ports of one side replaced by those of the other, everything that covers them mended.
fn translated(model: &Model, flow: Flow, is_request: bool, frame: &[u8], ran: &Ran) -> Result<(), String> {
    let Some(known) = model.flows.get(&flow) else { return checksums(frame, ran) };
    let (source, target) = endpoints(ran)?;
    let parts = packet_of(frame).and_then(weir_tests::fixture::oracle::parts).ok_or("no IP packet came")?;
    let vip = model.vip(flow.service.0);
    let is_error = matches!(parts.protocol, number::ICMP | number::ICMPV6);
    let (from, to) = if is_request { (known.snat, known.server) } else { ((vip, flow.service.1), flow.client) };
    expect_equal("destination", target.0, to.0)?;
    if !is_error {
        expect_equal("source", source.0, from.0)?;
    }
    if !is_error && !parts.is_later && (is_request || known.server.0 == parts.source) {
        expect_equal("ports", (source.1, target.1), (from.1, to.1))?;
    }
    let out = packet_of(&ran.frame).ok_or("no IP packet left")?;
    expect_equal("length", out.len(), packet_of(frame).map_or(0, <[u8]>::len))?;
    checksums(frame, ran)
}

#[test]
fn random_packets_meet_the_fate_that_the_design_says() {
    let seed: u64 = std::env::var("WEIR_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    let run = if std::env::var("WEIR_LONG").is_ok_and(|value| value == "1") { LONG_RUN } else { RUN };
    let limits = Limits { nat_planes: 128, nat_flows: 4096, fragments: 4096, ..LIMITS };
    let mut bench = Bench::with_limits(ALL_FEATURES, &limits).expect("packet tests need root and a kernel that takes the program");
    let began = Instant::now();
    let (mut states, mut packets) = (0, 0);
    let mut fates = std::collections::BTreeMap::<Verdict, usize>::new();
    while began.elapsed() < run {
        let world = seed + states;
        let mut random = Random(world.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let state = random_state(&mut random);
        bench.install(&state).unwrap();
        let mut model = Model::new(&state);
        for number in 0..PACKETS_PER_STATE {
            let tags = random.of(&[vec![], vec![], vec![], vec![(0x8100, 7)], vec![(0x88a8, 7), (0x8100, 8)]]);
            let link = Link { target: IN_MAC, source: ROUTER_MAC, tags };
            let packet = random_packet(&mut random, &model);
            let frame = if random.one_in(40) { random_frame(&mut random) } else { link.frame(&packet) };
            let frame = damaged(&mut random, frame);
            let port = random.of(&[Port::In, Port::In, Port::Out]);
            let ran = bench.run(port, &frame).unwrap();
            *fates.entry(ran.verdict).or_default() += 1;
            compare(&mut model, &frame, &ran).unwrap_or_else(|error| {
                panic!(
                    "WEIR_SEED={world}, packet {number} by {port:?}: {error}\ncame {frame:02x?}\nleft {:02x?}\n{:#?}",
                    ran.frame, state.services
                )
            });
        }
        states += 1;
        packets += PACKETS_PER_STATE;
    }
    println!("seed {seed}: {states} states, {packets} packets, {fates:?}");
    assert!(fates.len() >= 4, "{fates:?}");
}

fn random_frame(random: &mut Random) -> Vec<u8> {
    let count = 14 + random.below(200);
    let mut frame = random.bytes(count);
    let kind = random.of(&[[8, 0], [0x86, 0xdd], [0x81, 0], [0x88, 0xa8], [8, 6]]);
    frame[12..14].copy_from_slice(&kind);
    frame
}
