//! The decision: from a frame to what becomes of it. The kernel program performs it, `weir explain` tells it.

use crate::{
    address::Address,
    choose::{self, Asking},
    maps::{ForwardKind, NatFlow, SOURCE_ALLOW, SOURCE_DENY, Service, Settings},
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

/// What becomes of a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Decision {
    /// It goes on to the host, untouched.
    Pass,
    /// It is refused.
    Drop(Refusal),
    /// It is an echo request to a VIP, which answers.
    Echo,
    /// It goes to a member as it is, behind the member's prebuilt header.
    Send(Delivery),
    /// It goes to a member, translated.
    NatRequest(Delivery, FlowIndex),
    /// It comes from a member and goes to the client, translated.
    NatReply(FlowIndex),
    /// An ICMP error goes to the member whose flow it quotes.
    SendError(Delivery),
    /// An ICMP error goes to the member, its quotation translated.
    NatRequestError(Delivery, FlowIndex),
    /// An ICMP error from the server's side goes to the client, its quotation translated.
    NatReplyError(FlowIndex),
    /// A later fragment goes to a member, its addresses translated.
    NatRequestFragment(Delivery, FlowIndex),
    /// A later fragment goes to the client, its addresses translated.
    NatReplyFragment(FlowIndex),
}

/// A record of `NAT_FLOWS`.
pub type FlowIndex = u32;

/// A packet's way to a member.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Delivery {
    /// The service it is for.
    pub service: ServiceId,
    /// The member it goes to.
    pub member: MemberId,
    /// The member's header record.
    pub header: u32,
}

/// A refused packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Refusal {
    /// The service it was for, or none.
    pub service: ServiceId,
    /// Why.
    pub reason: Drop,
    /// Whether the sender is told (a TCP reset, an ICMP unreachable).
    pub answered: bool,
}

impl Refusal {
    #[inline(always)]
    const fn silent(service: ServiceId, reason: Drop) -> Decision {
        Decision::Drop(Self { service, reason, answered: false })
    }

    #[inline(always)]
    const fn told(service: ServiceId, reason: Drop) -> Decision {
        Decision::Drop(Self { service, reason, answered: true })
    }
}

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
    Malformed,
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
        Concern::Malformed => (MALFORMED, None),
        Concern::Ours(parsed) => {
            if let Fragment::Later { identification } = parsed.transport.fragment {
                return (fragment::follow(tables, &parsed, identification), Some(parsed));
            }
            let decision = match route(tables, &parsed) {
                Routed::Decided(decision) => decision,
                Routed::Icmp => icmp(tables, frame, &parsed),
                Routed::Request(service) => request(tables, service, &parsed).unwrap_or_else(|| open(tables, ingress, service, &parsed)),
            };
            fragment::remember_decision(tables, &parsed, &decision);
            (decision, Some(parsed))
        }
    }
}

/// What becomes of a malformed frame.
pub const MALFORMED: Decision = Refusal::silent(ServiceId::NONE, Drop::Malformed);

/// The first half of the decision: whether the frame is for us, and its headers.
#[inline(always)]
pub fn parse<T: Tables, P: Packet + ?Sized>(tables: &T, frame: &P) -> Concern {
    let ipv6 = has(tables, Settings::IPV6);
    let Some(network) = packet::network(frame, ipv6) else { return Concern::None };
    let Some(vip) = find_vip(tables, &network.destination) else { return Concern::None };
    match packet::transport(frame, &network) {
        Ok(transport) => Concern::Ours(Parsed { network, transport, vip }),
        Err(packet::Malformed) => Concern::Malformed,
    }
}

/// How far the second part of the decision came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Routed {
    /// To its end.
    Decided(Decision),
    /// [`icmp`] goes on.
    Icmp,
    /// [`request`] goes on, for this service.
    Request(ServiceId),
}

/// The second part of the decision: what becomes of a frame that is for us. Not of a later fragment: see [`fragment::follow`].
#[inline(always)]
pub fn route<T: Tables>(tables: &T, parsed: &Parsed) -> Routed {
    match parsed.transport.protocol {
        protocol::TCP | protocol::UDP => for_port(tables, parsed),
        protocol::ICMP | protocol::ICMPV6 => Routed::Icmp,
        _ => Routed::Decided(Decision::Pass),
    }
}

#[inline(always)]
fn has<T: Tables>(tables: &T, feature: u32) -> bool {
    tables.setting(|s| &s.features) & feature != 0
}

#[inline(always)]
fn find_vip<T: Tables>(tables: &T, address: &Address) -> Option<VipWord> {
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
fn for_port<T: Tables>(tables: &T, parsed: &Parsed) -> Routed {
    let (transport, vip) = (&parsed.transport, parsed.vip);
    let nat = has(tables, Settings::NAT);
    if nat
        && vip.flags() & VipWord::SNAT != 0
        && let Some(decision) = reply(tables, parsed)
    {
        return Routed::Decided(decision);
    }
    let Some(service) = find_service(tables, vip, transport.protocol, transport.destination_port) else {
        return Routed::Decided(Decision::Pass);
    };
    let id = ServiceId(service.id);
    tables.trace(Step::Service(id));
    if let Some(reason) = refused_source(tables, &service, &parsed.network.source) {
        return Routed::Decided(Refusal::silent(id, reason));
    }
    if nat && service.is(Service::NAT) {
        return Routed::Request(id);
    }
    if transport.is_syn() && is_above_rate(tables, &service, &parsed.network.source) {
        return Routed::Decided(Refusal::silent(id, Drop::ConnRate));
    }
    let asking = Asking { source: &parsed.network.source, ports: transport.ports(), tcp_flags: transport.tcp_flags, writes: true };
    Routed::Decided(match deliver(tables, &service, &asking) {
        Ok(delivery) => Decision::Send(delivery),
        Err(reason) => refuse(id, reason),
    })
}

/// A sender is told when no server will have it; otherwise it may try again.
#[inline(always)]
const fn refuse(service: ServiceId, reason: Drop) -> Decision {
    match reason {
        Drop::NoServer | Drop::ServerDown | Drop::NatNoFlow => Refusal::told(service, reason),
        Drop::Malformed
        | Drop::SourceDenied
        | Drop::ConnRate
        | Drop::NoNextHop
        | Drop::TooBig
        | Drop::FragmentUnknown
        | Drop::FlowTableFull
        | Drop::NatPortsFull
        | Drop::NatTableFull
        | Drop::VlanTags
        | Drop::IcmpUnknown
        | Drop::Driver
        | Drop::Inconsistent => Refusal::silent(service, reason),
    }
}

/// The service of a port.
#[inline(always)]
fn find_service<T: Tables>(tables: &T, vip: VipWord, protocol: u8, wire_port: u16) -> Option<T::Ref<'_, Service>> {
    let id = service_id(tables, vip, protocol, wire_port);
    if id == ServiceId::NONE { None } else { tables.service(id) }
}

/// The service of a port: its own, or the VIP's any-port service. A number without an `Option` on its way, half of which would be undefined.
#[inline(always)]
fn service_id<T: Tables>(tables: &T, vip: VipWord, protocol: u8, wire_port: u16) -> ServiceId {
    let asked = PortWord::new(vip.index(), u16::from_be(wire_port), protocol, 0);
    let line = place::port(vip.index(), u16::from_be(wire_port), protocol, tables.table_key()).index;
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

#[inline(always)]
fn deliver<T: Tables>(tables: &T, service: &Service, asking: &Asking<'_>) -> Result<Delivery, Drop> {
    let chosen = choose::member(tables, service, asking)?;
    delivery(service.id, chosen.id, chosen.word)
}

#[inline(always)]
const fn delivery(service: u16, member: MemberId, word: MemberWord) -> Result<Delivery, Drop> {
    if word.header() == 0 {
        return Err(Drop::NoNextHop);
    }
    Ok(Delivery { service: ServiceId(service), member, header: word.header() })
}

/// The way to the server of a NAT flow.
#[inline(always)]
fn flow_delivery<T: Tables>(tables: &T, flow: &NatFlow) -> Result<Delivery, Drop> {
    let id = MemberId::new(flow.member).ok_or(Drop::Inconsistent)?;
    let word = MemberWord(tables.member(id).ok_or(Drop::Inconsistent)?.load());
    tables.trace(Step::Member(id, word));
    if word.service() != nat::service_of(flow) {
        return Err(Drop::Inconsistent);
    }
    if word.is(MemberWord::CLOSING) {
        return Err(Drop::ServerDown);
    }
    delivery(flow.service, id, word)
}

/// A server's packet to a SNAT address; none when it belongs to no flow.
#[inline(always)]
fn reply<T: Tables>(tables: &T, parsed: &Parsed) -> Option<Decision> {
    let transport = &parsed.transport;
    let key = ServerKey {
        server: parsed.network.source,
        server_port: transport.source_port,
        snat: parsed.network.destination,
        snat_port: transport.destination_port,
        protocol: transport.protocol,
    };
    let (found, flow) = nat::find_server(tables, &key)?;
    tables.trace(Step::Service(nat::service_of(&flow)));
    nat::refresh(tables, found, Side::Server, transport.protocol == protocol::TCP, transport.tcp_flags);
    Some(Decision::NatReply(found.index))
}

/// A client's packet to a service that forwards by NAT; none when [`open`] goes on. The flow is looked up before the slot, so a change of the
/// table never touches it.
#[inline(always)]
pub fn request<T: Tables>(tables: &T, id: ServiceId, parsed: &Parsed) -> Option<Decision> {
    let Some(service) = tables.service(id) else { return Some(Refusal::silent(id, Drop::Inconsistent)) };
    let (service, transport) = (&*service, &parsed.transport);
    let key = ClientKey { client: parsed.network.source, client_port: transport.source_port, vip_port: transport.destination_port };
    let hash = nat::client_hash(tables, service, &key);
    if let Some((found, flow)) = nat::find_client(tables, service, &key, hash)
        && !reopens(tables, service, transport, found, &flow)
    {
        nat::refresh(tables, found, Side::Client, transport.protocol == protocol::TCP, transport.tcp_flags);
        return match flow_delivery(tables, &flow) {
            Ok(delivery) => Some(Decision::NatRequest(delivery, found.index)),
            // UDP has no reset: its flow leaves a server that closes its sessions.
            Err(Drop::ServerDown) if transport.protocol == protocol::UDP => None,
            Err(reason) => Some(refuse(id, reason)),
        };
    }
    if transport.protocol == protocol::TCP && !transport.is_syn() {
        let is_reset = transport.tcp_flags & tcp::RST != 0;
        return Some(Decision::Drop(Refusal { service: id, reason: Drop::NatNoFlow, answered: !is_reset }));
    }
    None
}

/// A client's packet that opens a NAT flow.
#[inline(always)]
pub fn open<T: Tables>(tables: &T, ingress: &Ingress, id: ServiceId, parsed: &Parsed) -> Decision {
    let Some(service) = tables.service(id) else { return Refusal::silent(id, Drop::Inconsistent) };
    if !can_be_replied_to(ingress, parsed) {
        return Refusal::silent(id, Drop::VlanTags);
    }
    if is_above_rate(tables, &service, &parsed.network.source) {
        return Refusal::silent(id, Drop::ConnRate);
    }
    match open_flow(tables, ingress, &service, parsed) {
        Ok((index, delivery)) => Decision::NatRequest(delivery, index),
        Err(reason) => refuse(id, reason),
    }
}

/// Whether a flow's record has room for the frame's VLAN tags, which its replies carry: for one 802.1Q tag.
#[inline(always)]
const fn can_be_replied_to(ingress: &Ingress, parsed: &Parsed) -> bool {
    parsed.network.offset() <= packet::TAGGED_LINK && ingress.kind != packet::ETH_QINQ
}

/// Whether a client's packet begins a new flow although one of its addresses and ports is known: a SYN or datagram after that one has ended, or
/// a SYN toward a server that takes no new connections.
#[inline(always)]
fn reopens<T: Tables>(tables: &T, service: &Service, transport: &Transport, found: nat::Found, flow: &NatFlow) -> bool {
    if transport.protocol == protocol::TCP && !transport.is_syn() {
        return false;
    }
    nat::reopens(found, service.idle_s, tables.tick()) || (transport.is_syn() && takes_none(tables, flow))
}

#[inline(always)]
fn takes_none<T: Tables>(tables: &T, flow: &NatFlow) -> bool {
    MemberId::new(flow.member).and_then(|id| tables.member(id)).is_none_or(|cell| MemberWord(cell.load()).is(MemberWord::NO_NEW))
}

#[inline(always)]
fn open_flow<T: Tables>(tables: &T, ingress: &Ingress, service: &Service, parsed: &Parsed) -> Result<(FlowIndex, Delivery), Drop> {
    let transport = &parsed.transport;
    let hash = place::flow(&parsed.network.source, transport.ports(), service, tables.table_key());
    // The NAT table remembers the flow: of the slot only its current member matters.
    let asking = Asking { source: &parsed.network.source, ports: transport.ports(), tcp_flags: tcp::SYN, writes: false };
    let delivery = deliver(tables, service, &asking)?;
    let header = tables.header(delivery.header).ok_or(Drop::Inconsistent)?;
    if header.forward() != Some(ForwardKind::Nat) || header.nat_planes == 0 {
        return Err(Drop::Inconsistent);
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
        member: delivery.member.number(),
        plane: 0,
        vlan: parsed.network.vlan,
        mac: ingress.mac,
        reserved: 0,
        ifindex: ingress.ifindex,
        generation: 0,
    };
    let mut opening = Opening { hash, flow };
    let index = tables.open_nat(service, &mut opening, header.nat_plane.wrapping_add(turn))?;
    Ok((index, delivery))
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
pub fn icmp<T: Tables, P: Packet + ?Sized>(tables: &T, frame: &P, parsed: &Parsed) -> Decision {
    let vip = parsed.vip;
    if parsed.transport.fragment != Fragment::Whole || parsed.network.destination.is_v4() != (parsed.transport.protocol == protocol::ICMP) {
        return Decision::Pass;
    }
    match icmp_of(&parsed.transport) {
        Icmp::Echo if vip.flags() & VipWord::VIP != 0 => Decision::Echo,
        Icmp::Error => for_error(tables, frame, vip, parsed),
        Icmp::Echo | Icmp::Other => Decision::Pass,
    }
}

/// An ICMP error follows the flow it quotes. The quoted packet was sent by the address that the error came to.
#[inline(always)]
fn for_error<T: Tables, P: Packet + ?Sized>(tables: &T, frame: &P, vip: VipWord, parsed: &Parsed) -> Decision {
    let malformed = Refusal::silent(ServiceId::NONE, Drop::Malformed);
    let quoted_l3 = parsed.transport.offset() + 8;
    let Some((source, target)) = quoted_addresses(frame, quoted_l3, parsed.network.destination.is_v4()) else { return malformed };
    let end = parsed.network.l3 + parsed.transport.ip_bytes;
    let Ok(quoted) = packet::quoted_transport(frame, quoted_l3, source.is_v4(), end) else { return malformed };
    let is_ours = source == parsed.network.destination && matches!(quoted.protocol, protocol::TCP | protocol::UDP);
    if !is_ours || matches!(quoted.fragment, Fragment::Later { .. }) {
        return Decision::Pass;
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
            return Decision::NatReplyError(found.index);
        }
    }
    let Some(service) = find_service(tables, vip, quoted.protocol, quoted.source_port) else { return Decision::Pass };
    tables.trace(Step::Service(ServiceId(service.id)));
    error_for_service(tables, &service, target, &quoted)
}

#[inline(always)]
fn error_for_service<T: Tables>(tables: &T, service: &Service, client: Address, quoted: &Transport) -> Decision {
    let id = ServiceId(service.id);
    if service.is(Service::NAT) {
        let key = ClientKey { client, client_port: quoted.destination_port, vip_port: quoted.source_port };
        let hash = nat::client_hash(tables, service, &key);
        let Some((found, flow)) = nat::find_client(tables, service, &key, hash) else {
            return Refusal::silent(id, Drop::IcmpUnknown);
        };
        return match flow_delivery(tables, &flow) {
            Ok(delivery) => {
                tables.note(id, Note::IcmpForwarded);
                Decision::NatRequestError(delivery, found.index)
            }
            Err(reason) => Refusal::silent(id, reason),
        };
    }
    let ports = packet::ports_word(quoted.destination_port, quoted.source_port);
    let tcp_flags = if quoted.protocol == protocol::TCP { tcp::ACK } else { 0 };
    match deliver(tables, service, &Asking { source: &client, ports, tcp_flags, writes: false }) {
        Ok(delivery) => {
            tables.note(id, Note::IcmpForwarded);
            Decision::SendError(delivery)
        }
        Err(reason) => Refusal::silent(id, reason),
    }
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
