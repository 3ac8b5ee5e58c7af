//! The decision: from a frame to what becomes of it. The kernel program performs it, `weir explain` tells it.

use crate::{
    address::Address,
    choose::{self, Asking},
    maps::{ForwardKind, NatFlow, OwnMacs, SOURCE_ALLOW, SOURCE_DENY, Service, Settings},
    nat::{self, ClientKey, ServerKey, Side, open::Opening},
    packet::{self, Fragment, Network, Packet, Transport, protocol, tcp},
    place,
    rate::{self, Rated},
    reason::{Drop, Note},
    tables::{Cell, Step, Tables},
    words::{MemberId, MemberWord, PortWord, ServiceId, VipWord},
};

pub mod fragment;
pub mod plain;
mod ruling;

pub use ruling::{Decision, Delivery, FlowIndex, Kind, Refusal, Ruling};

/// A frame as far as it was parsed.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Parsed {
    /// The network header.
    pub network: Network,
    /// The transport header.
    pub transport: Transport,
    /// The entry of the address that it is for.
    pub vip: VipWord,
}

/// Whether a frame concerns us at all.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Concern {
    /// It is for an address that is not ours, or not IP.
    None,
    /// It is for a VIP or SNAT address.
    Ours(Parsed),
    /// It is for one, but its headers are cut short or contradict each other.
    Malformed(VipWord),
}

/// What a frame came with beside its bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ingress {
    /// The interface it came in by.
    pub ifindex: u32,
    /// Its link-layer source, wire bytes.
    pub mac: [u16; 3],
    /// The EtherType at its beginning, wire bytes: that of the outermost VLAN tag, if it has one.
    pub kind: u16,
}

/// Decides on a frame.
pub fn decide<T: Tables, P: Packet + ?Sized>(tables: &T, frame: &P, ingress: &Ingress) -> (Decision, Option<Parsed>) {
    match parse(tables, frame) {
        Concern::None => (Decision::Pass, None),
        Concern::Malformed(vip) if is_hosts_as_well(vip) => (Decision::Pass, None),
        Concern::Malformed(_) => (MALFORMED, None),
        Concern::Ours(parsed) => {
            if parsed.transport.fragment == Fragment::Later {
                let ruling = fragment::follow(tables, &parsed);
                return (ruling.decision().unwrap_or(Decision::Pass), Some(parsed));
            }
            let mut ruling = route(tables, &parsed);
            if ruling.kind == Kind::Icmp {
                ruling = icmp(tables, frame, &parsed);
            }
            if ruling.kind == Kind::Request {
                ruling = request(tables, ruling.service(), &parsed);
            }
            if ruling.kind == Kind::Open {
                ruling = open(tables, ingress, ruling.service(), &parsed);
            }
            let decision = ruling.decision().unwrap_or(Decision::Pass);
            fragment::remember_decision(tables, &parsed, &decision);
            (decision, Some(parsed))
        }
    }
}

/// Whether packets to the address may be the host's own, which have to pass as odd as they are.
#[inline(always)]
pub const fn is_hosts_as_well(vip: VipWord) -> bool {
    vip.flags() & VipWord::SNAT != 0
}

const MALFORMED: Decision = Decision::Drop(Refusal { service: ServiceId::NONE, reason: Drop::Malformed, answered: false });

/// The first half of the decision: whether the frame is for us, and its headers.
#[inline(always)]
pub fn parse<T: Tables, P: Packet + ?Sized>(tables: &T, frame: &P) -> Concern {
    let ipv6 = has(tables, Settings::IPV6);
    let Some(network) = packet::network(frame, ipv6) else { return Concern::None };
    let Some(vip) = find_vip(tables, &network.destination) else { return Concern::None };
    if !is_to_this_host(tables, frame) {
        return Concern::None;
    }
    match packet::transport(frame, &network) {
        Ok(transport) => Concern::Ours(Parsed { network, transport, vip }),
        Err(packet::Malformed) => Concern::Malformed(vip),
    }
}

/// The second part of the decision: what becomes of a frame that is for us. Not of a later fragment: see [`fragment::follow`].
#[inline(always)]
pub fn route<T: Tables>(tables: &T, parsed: &Parsed) -> Ruling {
    match parsed.transport.protocol {
        protocol::TCP | protocol::UDP => for_port(tables, parsed),
        protocol::ICMP | protocol::ICMPV6 => Ruling::go_on(Kind::Icmp, ServiceId::NONE),
        _ => Ruling::PASS,
    }
}

#[inline(always)]
fn has<T: Tables>(tables: &T, feature: u32) -> bool {
    tables.setting(|s| &s.features) & feature != 0
}

/// Whether the frame is addressed to this host. One that is not, which a switch has flooded or a mirror copied, is left to the kernel, which ignores it.
#[inline(always)]
fn is_to_this_host<T: Tables, P: Packet + ?Sized>(tables: &T, frame: &P) -> bool {
    let (Some(first), Some(last)) = (frame.get::<u32>(0), frame.get::<u16>(4)) else { return false };
    tables.is_own_mac(OwnMacs::pack(first, last))
}

/// The word of one of our own addresses: a VIP, or a SNAT address.
#[inline(always)]
pub(crate) fn find_vip<T: Tables>(tables: &T, address: &Address) -> Option<VipWord> {
    let hash = place::vip(address, tables.table_key());
    let line = tables.vip_line(hash.index & tables.setting(|s| &s.vip_mask))?;
    let mut found = VipWord(0);
    for cell in line {
        let word = VipWord(cell.load());
        if place::vip_matches(word, hash.tag, address.is_v4()) {
            found = word;
            break;
        }
    }
    if found.index() == 0 {
        return None;
    }
    // The tag of an IPv4 address is the address itself.
    (address.is_v4() || tables.vip(found.index())?.address == *address).then_some(found)
}

#[inline(always)]
fn for_port<T: Tables>(tables: &T, parsed: &Parsed) -> Ruling {
    let (transport, vip) = (&parsed.transport, parsed.vip);
    let nat = has(tables, Settings::NAT);
    if nat && vip.flags() & VipWord::SNAT != 0 {
        let ruling = reply(tables, parsed);
        if ruling.kind != Kind::NoReply {
            return ruling;
        }
    }
    let Some(service) = find_service(tables, vip, &parsed.network.destination, transport.protocol, transport.destination_port) else {
        return Ruling::PASS;
    };
    let id = ServiceId(service.id);
    tables.trace(Step::Service(id));
    if let Some(reason) = refused_source(tables, &service, &parsed.network.source) {
        return Ruling::silent(id, reason);
    }
    if nat && service.is(Service::NAT) {
        return Ruling::go_on(Kind::Request, id);
    }
    if transport.is_syn() && is_above_rate(tables, &service, &parsed.network.source) {
        return Ruling::silent(id, Drop::ConnRate);
    }
    let asking = Asking { source: &parsed.network.source, ports: transport.ports(), tcp_flags: transport.tcp_flags, writes: true };
    let way = deliver(tables, &service, &asking);
    if way.is_refusal() {
        return refuse(way);
    }
    Ruling::to_member(Kind::Send, way, 0)
}

/// A sender is told when no server will have it; otherwise it may try again.
#[inline(always)]
const fn refuse(refusal: Delivery) -> Ruling {
    const TOLD: [u32; 3] = [Drop::NoServer.index(), Drop::ServerDown.index(), Drop::NatNoFlow.index()];
    let reason = refusal.header();
    let is_told = reason == TOLD[0] || reason == TOLD[1] || reason == TOLD[2];
    Ruling::of(if is_told { Kind::DropAnswered } else { Kind::Drop }, 0, refusal)
}

/// The service of a port.
#[inline(always)]
fn find_service<'t, T: Tables>(
    tables: &'t T,
    vip: VipWord,
    address: &Address,
    protocol: u8,
    wire_port: u16,
) -> Option<T::Ref<'t, Service>> {
    let id = service_id(tables, vip, address, protocol, wire_port);
    if id == ServiceId::NONE { None } else { tables.service(id) }
}

/// The service of a port: its own, or the VIP's any-port service. A number without an `Option` on its way, half of which would be undefined.
#[inline(always)]
fn service_id<T: Tables>(tables: &T, vip: VipWord, address: &Address, protocol: u8, wire_port: u16) -> ServiceId {
    let asked = PortWord::new(vip.index(), u16::from_be(wire_port), protocol, 0);
    let line = place::port(address, u16::from_be(wire_port), protocol, tables.table_key()).index;
    let mut id = ServiceId::NONE;
    if let Some(line) = tables.port_line(line & tables.setting(|s| &s.port_mask)) {
        for cell in line {
            let word = PortWord(cell.load());
            if word.matches(asked) {
                id = word.service();
                break;
            }
        }
    }
    if id == ServiceId::NONE
        && vip.flags() & VipWord::ANY_PORT != 0
        && let Some(record) = tables.vip(vip.index())
    {
        id = ServiceId(if protocol == protocol::TCP { record.any_tcp } else { record.any_udp });
    }
    id
}

#[inline(always)]
fn refused_source<T: Tables>(tables: &T, service: &Service, source: &Address) -> Option<Drop> {
    if !has(tables, Settings::SOURCE_RULES) || !service.is(Service::SOURCE_RULES) {
        return None;
    }
    let denied = match tables.source_rule(ServiceId(service.id), source) {
        SOURCE_DENY => true,
        SOURCE_ALLOW => false,
        _ => service.is(Service::DENY_OTHERS),
    };
    denied.then_some(Drop::SourceDenied)
}

#[inline(always)]
fn is_above_rate<T: Tables>(tables: &T, service: &Service, source: &Address) -> bool {
    if !has(tables, Settings::RATE) || !service.is(Service::RATE) {
        return false;
    }
    match rate::connection(tables, service, source) {
        Rated::Within => false,
        Rated::Above => true,
        Rated::NoRoom => {
            tables.note(ServiceId(service.id), Note::RateNoRoom);
            false
        }
    }
}

/// The way to the member that a packet goes to, or a refusal.
#[inline(always)]
fn deliver<T: Tables>(tables: &T, service: &Service, asking: &Asking<'_>) -> Delivery {
    let choice = choose::member(tables, service, asking);
    if choice.number() == 0 {
        return Delivery::new(ServiceId(service.id), 0, choice.reason_index());
    }
    delivery(service.id, choice.number(), choice.word())
}

#[inline(always)]
const fn delivery(service: u16, member: u16, word: MemberWord) -> Delivery {
    if word.header() == 0 {
        return Delivery::refusal(ServiceId(service), Drop::NoNextHop);
    }
    Delivery::new(ServiceId(service), member, word.header())
}

/// The way to the server of a NAT flow, or a refusal.
#[inline(always)]
fn flow_delivery<T: Tables>(tables: &T, flow: &NatFlow) -> Delivery {
    let service = nat::service_of(flow);
    let Some(id) = MemberId::new(flow.member) else { return Delivery::refusal(service, Drop::Inconsistent) };
    let Some(cell) = tables.member(id) else { return Delivery::refusal(service, Drop::Inconsistent) };
    let word = MemberWord(cell.load());
    tables.trace(Step::Member(id, word));
    if word.service() != service {
        return Delivery::refusal(service, Drop::Inconsistent);
    }
    if word.is(MemberWord::CLOSING) {
        return Delivery::refusal(service, Drop::ServerDown);
    }
    delivery(service.0, flow.member, word)
}

/// A server's packet to a SNAT address.
#[inline(always)]
fn reply<T: Tables>(tables: &T, parsed: &Parsed) -> Ruling {
    let transport = &parsed.transport;
    let key = ServerKey {
        server: parsed.network.source,
        server_port: transport.source_port,
        snat: parsed.network.destination,
        snat_port: transport.destination_port,
        protocol: transport.protocol,
    };
    let Some((found, flow)) = nat::find_server(tables, &key) else { return Ruling::go_on(Kind::NoReply, ServiceId::NONE) };
    tables.trace(Step::Service(nat::service_of(&flow)));
    nat::refresh(tables, found, Side::Server, transport.protocol == protocol::TCP, transport.tcp_flags);
    Ruling::to_client(Kind::NatReply, found.index)
}

/// A client's packet to a service that forwards by NAT; [`open`] may go on. The flow is looked up before the slot, so a change of the
/// table never touches it.
#[inline(always)]
pub fn request<T: Tables>(tables: &T, id: ServiceId, parsed: &Parsed) -> Ruling {
    let Some(service) = tables.service(id) else { return Ruling::silent(id, Drop::Inconsistent) };
    let (service, transport) = (&*service, &parsed.transport);
    let key = ClientKey { client: parsed.network.source, client_port: transport.source_port, vip_port: transport.destination_port };
    let hash = nat::client_hash(tables, service, &key);
    if let Some((found, flow)) = nat::find_client(tables, service, &key, hash)
        && !reopens(tables, service, transport, found, &flow)
    {
        let way = flow_delivery(tables, &flow);
        // What is answered with a reset has ended.
        let is_cut = way.is_refusal() && way.header() == Drop::ServerDown.index();
        let flags = if is_cut { transport.tcp_flags | tcp::RST } else { transport.tcp_flags };
        nat::refresh(tables, found, Side::Client, transport.protocol == protocol::TCP, flags);
        if !way.is_refusal() {
            return Ruling::to_member(Kind::NatRequest, way, found.index);
        }
        // UDP has no reset: its flow leaves a server that closes its sessions.
        let moves = transport.protocol == protocol::UDP && way.header() == Drop::ServerDown.index();
        return if moves { Ruling::go_on(Kind::Open, id) } else { refuse(way) };
    }
    if transport.protocol == protocol::TCP && !transport.is_syn() {
        let is_reset = transport.tcp_flags & tcp::RST != 0;
        return if is_reset { Ruling::silent(id, Drop::NatNoFlow) } else { Ruling::told(id, Drop::NatNoFlow) };
    }
    Ruling::go_on(Kind::Open, id)
}

/// A client's packet that opens a NAT flow.
#[inline(always)]
pub fn open<T: Tables>(tables: &T, ingress: &Ingress, id: ServiceId, parsed: &Parsed) -> Ruling {
    let Some(service) = tables.service(id) else { return Ruling::silent(id, Drop::Inconsistent) };
    if !can_be_replied_to(ingress, parsed) {
        return Ruling::silent(id, Drop::VlanTags);
    }
    if is_above_rate(tables, &service, &parsed.network.source) {
        return Ruling::silent(id, Drop::ConnRate);
    }
    match open_flow(tables, ingress, &service, parsed) {
        Ok((index, way)) => Ruling::to_member(Kind::NatRequest, way, index),
        Err(refusal) => refuse(refusal),
    }
}

/// Whether a flow's record has room for the frame's VLAN tags, which its replies carry: for one 802.1Q tag.
#[inline(always)]
const fn can_be_replied_to(ingress: &Ingress, parsed: &Parsed) -> bool {
    parsed.network.offset() <= packet::TAGGED_LINK && ingress.kind != packet::ETH_QINQ
}

/// Whether a client's packet begins a new flow although one of its addresses and ports is known: a SYN or datagram after that one has ended, or
/// a SYN toward a server that cannot answer. One that drains is asked if it knows the connection: anybody can forge a SYN.
#[inline(always)]
fn reopens<T: Tables>(tables: &T, service: &Service, transport: &Transport, found: nat::Found, flow: &NatFlow) -> bool {
    if transport.protocol == protocol::TCP && !transport.is_syn() {
        return false;
    }
    nat::reopens(found, service.idle_s, tables.tick()) || (transport.is_syn() && takes_none(tables, found, flow))
}

#[inline(always)]
fn takes_none<T: Tables>(tables: &T, found: nat::Found, flow: &NatFlow) -> bool {
    let Some(cell) = MemberId::new(flow.member).and_then(|id| tables.member(id)) else { return true };
    let word = MemberWord(cell.load());
    let is_new = matches!(found.word.state(), nat::PortState::Opening | nat::PortState::Reset);
    word.is(MemberWord::DOWN) || (word.is(MemberWord::NO_NEW) && is_new)
}

/// The flow that was opened and the way to its member, or a refusal.
#[inline(always)]
fn open_flow<T: Tables>(tables: &T, ingress: &Ingress, service: &Service, parsed: &Parsed) -> Result<(FlowIndex, Delivery), Delivery> {
    let transport = &parsed.transport;
    let refusal = |reason| Delivery::refusal(ServiceId(service.id), reason);
    let hash = place::flow(&parsed.network.source, transport.ports(), service, tables.table_key());
    // The NAT table remembers the flow: of the slot only its current member matters.
    let asking = Asking { source: &parsed.network.source, ports: transport.ports(), tcp_flags: tcp::SYN, writes: false };
    let way = deliver(tables, service, &asking);
    if way.is_refusal() {
        return Err(way);
    }
    let header = tables.header(way.header()).ok_or(refusal(Drop::Inconsistent))?;
    if header.forward() != Some(ForwardKind::Nat) || header.nat_planes == 0 {
        return Err(refusal(Drop::Inconsistent));
    }
    let turn = ((hash.index as u64 * header.nat_planes as u64) >> 32) as u16;
    let server_port = header.nat_server_port();
    let flow = NatFlow {
        client: parsed.network.source,
        server: header.nat_server(),
        client_port: transport.source_port,
        server_port: if server_port == 0 { transport.destination_port } else { server_port },
        vip_port: transport.destination_port,
        snat_port: 0,
        service: service.id,
        member: way.member(),
        plane: 0,
        vlan: parsed.network.vlan,
        mac: ingress.mac,
        reserved: 0,
        ifindex: ingress.ifindex,
        generation: 0,
    };
    let mut opening = Opening { hash, flow };
    let index = tables.open_nat(service, &mut opening, header.nat_plane.wrapping_add(turn)).map_err(refusal)?;
    Ok((index, way))
}

/// Types of ICMP messages that concern a flow (RFC 792, RFC 4443 s2.1).
#[derive(Clone, Copy, PartialEq, Eq)]
enum Icmp {
    Echo,
    Error,
    Other,
}

#[inline(always)]
const fn icmp_of(transport: &Transport) -> Icmp {
    let kind = (transport.source_port.to_be() >> 8) as u8;
    match (transport.protocol, kind) {
        (protocol::ICMP, 8) | (protocol::ICMPV6, 128) => Icmp::Echo,
        (protocol::ICMP, 3 | 11 | 12) | (protocol::ICMPV6, 1..=4) => Icmp::Error,
        _ => Icmp::Other,
    }
}

/// An ICMP message to one of our addresses.
#[inline(always)]
pub fn icmp<T: Tables, P: Packet + ?Sized>(tables: &T, frame: &P, parsed: &Parsed) -> Ruling {
    let vip = parsed.vip;
    if parsed.transport.fragment != Fragment::Whole || parsed.network.destination.is_v4() != (parsed.transport.protocol == protocol::ICMP) {
        return Ruling::PASS;
    }
    match icmp_of(&parsed.transport) {
        Icmp::Echo if vip.flags() & VipWord::VIP != 0 && parsed.network.source.can_be_answered() => Ruling::ECHO,
        Icmp::Error => for_error(tables, frame, vip, parsed),
        Icmp::Echo | Icmp::Other => Ruling::PASS,
    }
}

/// An ICMP error follows the flow it quotes. The quoted packet was sent by the address that the error came to.
#[inline(always)]
fn for_error<T: Tables, P: Packet + ?Sized>(tables: &T, frame: &P, vip: VipWord, parsed: &Parsed) -> Ruling {
    let malformed = Ruling::silent(ServiceId::NONE, Drop::Malformed);
    let quoted_l3 = parsed.transport.offset() + 8;
    let Some((source, target)) = quoted_addresses(frame, quoted_l3, parsed.network.destination.is_v4()) else { return malformed };
    let end = parsed.network.l3 + parsed.transport.ip_bytes;
    let Ok(quoted) = packet::quoted_transport(frame, quoted_l3, source.is_v4(), end) else { return malformed };
    let is_ours = source == parsed.network.destination && matches!(quoted.protocol, protocol::TCP | protocol::UDP);
    if !is_ours || quoted.fragment == Fragment::Later {
        return Ruling::PASS;
    }
    let nat = has(tables, Settings::NAT);
    if nat && vip.flags() & VipWord::SNAT != 0 {
        let key = ServerKey {
            server: target,
            server_port: quoted.destination_port,
            snat: source,
            snat_port: quoted.source_port,
            protocol: quoted.protocol,
        };
        if let Some((found, flow)) = nat::find_server(tables, &key) {
            tables.note(nat::service_of(&flow), Note::IcmpForwarded);
            return Ruling::to_client(Kind::NatReplyError, found.index);
        }
    }
    let Some(service) = find_service(tables, vip, &source, quoted.protocol, quoted.source_port) else { return Ruling::PASS };
    tables.trace(Step::Service(ServiceId(service.id)));
    error_for_service(tables, &service, target, &quoted)
}

#[inline(always)]
fn error_for_service<T: Tables>(tables: &T, service: &Service, client: Address, quoted: &Transport) -> Ruling {
    let id = ServiceId(service.id);
    if service.is(Service::NAT) {
        let key = ClientKey { client, client_port: quoted.destination_port, vip_port: quoted.source_port };
        let hash = nat::client_hash(tables, service, &key);
        let Some((found, flow)) = nat::find_client(tables, service, &key, hash) else {
            return Ruling::silent(id, Drop::IcmpUnknown);
        };
        let way = flow_delivery(tables, &flow);
        if way.is_refusal() {
            return Ruling::dropped(way);
        }
        tables.note(id, Note::IcmpForwarded);
        return Ruling::to_member(Kind::NatRequestError, way, found.index);
    }
    let ports = packet::ports_word(quoted.destination_port, quoted.source_port);
    let tcp_flags = if quoted.protocol == protocol::TCP { tcp::ACK } else { 0 };
    let way = deliver(tables, service, &Asking { source: &client, ports, tcp_flags, writes: false });
    if way.is_refusal() {
        return Ruling::dropped(way);
    }
    tables.note(id, Note::IcmpForwarded);
    Ruling::to_member(Kind::SendError, way, 0)
}

/// Source and destination of the packet that an error quotes.
#[inline(always)]
fn quoted_addresses<P: Packet + ?Sized>(frame: &P, l3: usize, is_v4: bool) -> Option<(Address, Address)> {
    if is_v4 {
        let ip: packet::Ipv4Header = frame.get(l3)?;
        return Some((Address::from_v4_word(ip.source), Address::from_v4_word(ip.destination)));
    }
    let ip: packet::Ipv6Header = frame.get(l3)?;
    Some((Address::from_words(ip.source), Address::from_words(ip.destination)))
}
