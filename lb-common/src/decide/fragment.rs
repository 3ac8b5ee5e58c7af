//! What becomes of a datagram's later fragments, which say nothing of its ports: what became of the first.

use super::{Decision, FlowIndex, Kind, Parsed, Ruling, delivery, flow_delivery, is_hosts_as_well};
use crate::{
    fragments::{self, Datagram, NatUse, Trail, TrailBits},
    maps::NatFlow,
    nat::{self, PortState},
    packet::{self, Fragment, Transport, protocol},
    reason::{Drop, Note},
    tables::{Cell, Step, Tables},
    words::{MemberId, MemberWord, ServiceId},
};

/// What the fragments of the packet's datagram share.
#[inline(always)]
const fn datagram(parsed: &Parsed) -> Datagram {
    let Transport { identification, protocol, .. } = parsed.transport;
    Datagram { source: parsed.network.source, destination: parsed.network.destination, identification, protocol }
}

/// Remembers what becomes of a TCP or UDP datagram's first fragment, for the later ones; other packets need no memory. The kernel program
/// does the same in a stage of its own.
pub(super) fn remember_decision<T: Tables>(tables: &T, parsed: &Parsed, decision: &Decision) {
    let trail = match decision {
        Decision::Pass => Trail::Pass,
        Decision::Send(delivery) => Trail::Member(delivery.member()),
        Decision::NatRequest(_, index) => Trail::NatRequest(use_of(tables, *index)),
        Decision::NatReply(index) => Trail::NatReply(use_of(tables, *index)),
        Decision::Drop(_)
        | Decision::Echo
        | Decision::SendError(_)
        | Decision::NatRequestError(..)
        | Decision::NatReplyError(_)
        | Decision::NatRequestFragment(..)
        | Decision::NatReplyFragment(_) => return,
    };
    remember_first(tables, parsed, trail.bits());
}

/// Remembers where a packet went if it is a TCP or UDP datagram's first fragment.
#[inline(always)]
pub fn remember_first<T: Tables>(tables: &T, parsed: &Parsed, trail: TrailBits) {
    if parsed.transport.fragment == Fragment::First && matches!(parsed.transport.protocol, protocol::TCP | protocol::UDP) {
        fragments::remember(tables, &datagram(parsed), trail, tables.tick());
    }
}

/// The use of a NAT flow's record by the flow that has it.
#[inline(always)]
pub fn use_of<T: Tables>(tables: &T, index: FlowIndex) -> NatUse {
    NatUse::new(index, tables.nat_flow(index).map_or(0, |flow| flow.generation))
}

/// What becomes of a later fragment: what became of its first. Without a trail it is refused, unless it may be the host's: for a SNAT address,
/// and where the fragment header is followed by another extension header, behind which the first alone tells what the datagram is.
#[inline(always)]
pub fn follow<T: Tables>(tables: &T, parsed: &Parsed) -> Ruling {
    let kind = parsed.transport.protocol;
    let is_extended = packet::is_extension(kind) && !parsed.network.source.is_v4();
    if !is_extended && !matches!(kind, protocol::TCP | protocol::UDP) {
        return Ruling::PASS;
    }
    let is_hosts = is_extended || is_hosts_as_well(parsed.vip);
    let unknown = if is_hosts { Ruling::PASS } else { Ruling::silent(ServiceId::NONE, Drop::FragmentUnknown) };
    let datagram = &datagram(parsed);
    match fragments::trail(tables, datagram) {
        None => unknown,
        Some(Trail::Pass) => Ruling::PASS,
        Some(Trail::Member(number)) => {
            let Some(id) = MemberId::new(number) else { return unknown };
            let Some(cell) = tables.member(id) else { return unknown };
            let word = MemberWord(cell.load());
            tables.trace(Step::Member(id, word));
            let way = delivery(word.service().0, number, word);
            if way.is_refusal() {
                return Ruling::dropped(way);
            }
            tables.note(way.service(), Note::FragmentForwarded);
            Ruling::to_member(Kind::Send, way, 0)
        }
        Some(Trail::NatRequest(used)) => {
            let Some(flow) = flow_of(tables, used) else { return unknown };
            let way = flow_delivery(tables, &flow);
            if way.is_refusal() {
                return Ruling::dropped(way);
            }
            tables.note(way.service(), Note::FragmentForwarded);
            Ruling::to_member(Kind::NatRequestFragment, way, used.index)
        }
        Some(Trail::NatReply(used)) => {
            let Some(flow) = flow_of(tables, used) else { return unknown };
            tables.note(nat::service_of(&flow), Note::FragmentForwarded);
            Ruling::to_client(Kind::NatReplyFragment, used.index)
        }
    }
}

/// The flow of a trail, unless its port has been given to another since.
#[inline(always)]
fn flow_of<T: Tables>(tables: &T, used: NatUse) -> Option<T::Ref<'_, NatFlow>> {
    let word = nat::PortWord(tables.nat_port_line(used.index >> 3)?.get((used.index & 7) as usize)?.load());
    let flow = tables.nat_flow(used.index)?;
    let is_same = used.is_of(word.generation()) && flow.generation == word.generation() && word.state() > PortState::Claimed;
    is_same.then_some(flow)
}
