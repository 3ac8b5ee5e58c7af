//! Planes, services, members, headers, source rules.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use lb_common::{
    maps::{ForwardKind, Header, MemberInfo, Service},
    words::{MemberId, MemberWord, ServiceId},
};

use super::{Draft, Scope, Table, Unplaced};
use crate::control::{
    Endpoint, ServiceKey,
    desired::{DesiredMember, DesiredService},
    header::{self, PlaneRun, Target},
    installed::{InstalledMember, pages_of},
    number,
    op::{Op, PlaneSpec},
    planes::PlaneNumbers,
};

/// The planes that have a number and are not as they should be. With some services alone to look at, no plane differs.
pub(super) fn planes(draft: &mut Draft<'_>, numbers: &PlaneNumbers) {
    if draft.scope != Scope::All {
        return;
    }
    let members = draft.desired.services.values().flat_map(|service| service.members.values());
    let wanted: BTreeSet<&PlaneSpec> = members.flat_map(|member| &member.planes).collect();
    numbers.writes(&draft.state, &wanted).into_iter().for_each(|op| draft.push(op));
}

/// Slot pages and records of services that have none: the slots cannot be set before the record says where they are. Pages side by side are
/// created at once, for each creation waits for the packets in flight.
pub(super) fn services(draft: &mut Draft<'_>, incarnation: &mut dyn FnMut() -> u64) {
    if draft.desired.services.keys().all(|key| draft.services.contains_key(key)) {
        return;
    }
    let mut free = draft.state.free_services().peekable();
    let mut free_pages = draft.state.free_pages();
    let mut created: Vec<(u32, u32)> = Vec::new();
    let mut records = Vec::new();
    for (key, service) in draft.desired.services.iter().filter(|(key, _)| !draft.services.contains_key(key)) {
        let pages = pages_of(service.slots);
        let first_page = if free.peek().is_some() { free_pages.take(pages) } else { None };
        let Some((id, slot_page)) = first_page.and_then(|page| Some((free.next()?, page))) else {
            let table = if free.peek().is_some() { Table::SlotPages } else { Table::Services };
            draft.unplaced.push(Unplaced { service: *key, server: None, table });
            continue;
        };
        match created.last_mut() {
            Some((first, count)) if *first + *count == slot_page => *count += pages,
            Some(_) | None => created.push((slot_page, pages)),
        }
        let kept = Kept { id, slot_page, slots: service.slots, slot_key: service.slot_key, incarnation: incarnation() };
        records.push((*key, id, record(key, service, kept)));
    }
    created.into_iter().for_each(|(first_page, pages)| draft.push(Op::CreateSlots { first_page, pages }));
    for (key, id, record) in records {
        draft.push(Op::WriteService { id, record });
        draft.services.insert(key, id);
    }
}

/// Of a member whose service is translated while it is not, or the other way round.
const UNUSABLE: u8 = MemberWord::NO_NEW | MemberWord::DOWN | MemberWord::CLOSING;

/// What of a service's record stays as long as it lives: its flows depend on it.
struct Kept {
    id: ServiceId,
    slot_page: u32,
    slots: u32,
    slot_key: u64,
    incarnation: u64,
}

impl Kept {
    fn of(id: ServiceId, record: &Service) -> Self {
        let slots = record.slot_mask + 1;
        Self { id, slot_page: record.slot_page, slots, slot_key: record.slot_key, incarnation: record.incarnation }
    }
}

fn record(key: &ServiceKey, service: &DesiredService, kept: Kept) -> Service {
    Service {
        vip: key.vip_address(),
        slot_key: kept.slot_key,
        incarnation: kept.incarnation,
        slot_page: kept.slot_page,
        slot_mask: kept.slots - 1,
        idle_s: service.idle_s,
        port: key.port,
        protocol: number(key.protocol),
        reserved0: 0,
        flags: service.flags,
        rate_interval_us: service.rate_interval_us,
        rate_tolerance_us: service.rate_tolerance_us,
        id: kept.id.0,
        reserved1: 0,
    }
}

/// Members that are new or may take more than they did, then headers: before any slot names them.
pub(super) fn members(draft: &mut Draft<'_>, planes: &PlaneNumbers) {
    for (service_id, key, service) in draft.at_work() {
        for (identity, member) in service.identities() {
            let (Some(&id), endpoint) = (draft.members.get(&(service_id, identity)), &identity.endpoint) else { continue };
            let info = info(draft, service_id, endpoint, member);
            if is_no_less(draft, id, &info) {
                write_member(draft, id, info);
            }
            let kept = || planes_of(draft, id).filter(|_| !member.planes.is_empty());
            let planes = planes.run(&member.planes).or_else(kept);
            set_header(draft, id, header_of(draft, key, endpoint, member, planes));
        }
    }
    reroute_retired(draft);
}

/// The planes that the member's header names.
fn planes_of(draft: &Draft<'_>, id: MemberId) -> Option<PlaneRun> {
    let header = draft.state.members.get(&id)?.header.as_deref().filter(|header| header.nat_planes > 0)?;
    let snat = draft.state.planes.get(&header.nat_plane)?.snat;
    Some(PlaneRun { first: header.nat_plane, count: header.nat_planes, snat })
}

/// Those of `members` that take less than they did, or retire: after the slots have left them, or their service is unpublished.
pub(super) fn lesser_members(draft: &mut Draft<'_>, members: Vec<MemberId>, wanted: &BTreeMap<MemberId, MemberInfo>) {
    for id in members {
        if !draft.holders.contains(&id) {
            let info = wanted.get(&id).copied().unwrap_or_else(|| retired(draft, id));
            write_member(draft, id, info);
        }
    }
}

/// What the desired members that have a number should be.
pub(super) fn wanted_members(draft: &Draft<'_>) -> BTreeMap<MemberId, MemberInfo> {
    let members =
        draft.at_work().into_iter().flat_map(|(id, _, service)| service.identities().map(move |(identity, member)| (id, identity, member)));
    let placed = members.filter_map(|(service, identity, member)| {
        let id = draft.members.get(&(service, identity))?;
        Some((*id, info(draft, service, &identity.endpoint, member)))
    });
    placed.collect()
}

/// What a desired member should be. Where others hold the service's slots and it is translated or not as they are, one of the other kind takes nothing.
fn info(draft: &Draft<'_>, service: ServiceId, endpoint: &Endpoint, member: &DesiredMember) -> MemberInfo {
    let is_translated = member.forward == ForwardKind::Nat;
    let holders = draft.held.get(&service).into_iter().flatten();
    let is_unusable = holders.map(|(_, id, _)| &draft.state.members[id]).any(|holder| holder.identity().is_translated != is_translated);
    let closing = if is_unusable { UNUSABLE } else { 0 };
    MemberInfo {
        address: endpoint.address.into(),
        port: endpoint.port,
        service: service.0,
        weight: member.weight,
        state: member.state | closing,
        forward: member.forward as u8,
        retired_at: 0,
    }
}

/// The info of a member that nobody wants. A time to come (the clock was set back) is set anew, or it would stay for as long.
fn retired(draft: &Draft<'_>, id: MemberId) -> MemberInfo {
    let member = &draft.state.members[&id];
    let info = member.info;
    let service = draft.state.services.get(&ServiceId(info.service));
    let is_unusable = service.is_some_and(|service| service.is_translated() != member.identity().is_translated);
    let closing = if is_unusable { UNUSABLE } else { 0 };
    let retired_at = if info.retired_at == 0 || info.retired_at > draft.now_unix_s { draft.now_unix_s.max(1) } else { info.retired_at };
    MemberInfo { weight: 0, state: info.state | MemberWord::NO_NEW | closing, retired_at, ..info }
}

/// Whether a member may take at least what it took: every state flag forbids something.
fn is_no_less(draft: &Draft<'_>, id: MemberId, info: &MemberInfo) -> bool {
    draft.state.members.get(&id).is_none_or(|member| info.state & !member.state == 0)
}

fn write_member(draft: &mut Draft<'_>, id: MemberId, info: MemberInfo) {
    if draft.state.members.get(&id).is_none_or(|member| !member.is_as(&info)) {
        draft.push(Op::WriteMember { id, info });
    }
}

/// None without a next hop, or with one that does not fit: packets to the member are then dropped and counted.
fn header_of(draft: &Draft<'_>, key: &ServiceKey, server: &Endpoint, member: &DesiredMember, planes: Option<PlaneRun>) -> Option<Header> {
    let hop = draft.desired.next_hops.get(&server.address)?;
    let target = Target {
        forward: member.forward,
        server: *server,
        vip: key.vip,
        tunnel_source: member.tunnel_source,
        gue_port: member.gue_port,
        planes,
    };
    header::build(&target, hop).ok()
}

fn set_header(draft: &mut Draft<'_>, id: MemberId, header: Option<Header>) {
    let header = header.map(Arc::new);
    if draft.state.members.get(&id).is_some_and(|member| member.header != header) {
        draft.push(Op::SetHeader { id, header });
    }
}

/// The flows of retired members still follow routes and neighbours.
fn reroute_retired(draft: &mut Draft<'_>) {
    let wanted: BTreeSet<MemberId> = wanted_members(draft).into_keys().collect();
    let at_rest = draft.state.members.iter().filter(|(_, member)| member.info.retired_at != 0).map(|(id, member)| (*id, member));
    let retired: BTreeMap<MemberId, &InstalledMember> =
        draft.members_at_work().chain(at_rest).filter(|(id, _)| !wanted.contains(id)).collect();
    let headers: Vec<(MemberId, Header)> = retired
        .into_iter()
        .filter_map(|(id, member)| {
            let hop = draft.desired.next_hops.get(&member.info.address.ip())?;
            Some((id, header::rerouted(member.header.as_deref()?, hop)))
        })
        .collect();
    headers.into_iter().for_each(|(id, header)| set_header(draft, id, Some(header)));
}

/// Rules that are new, then the record, then rules that are gone: so that no source is refused between a list and its successor.
pub(super) fn rules_and_record(draft: &mut Draft<'_>, id: ServiceId, key: &ServiceKey, wanted: &DesiredService) {
    for (&source, &rule) in &wanted.rules {
        if draft.state.rules.get(&(id, source)) != Some(&rule) {
            draft.push(Op::AddSourceRule { service: id, source, rule });
        }
    }
    let installed = draft.state.services[&id].record;
    let mut record = record(key, wanted, Kept::of(id, &installed));
    let mut holders = draft.holders.iter().map(|holder| &draft.state.members[holder]).filter(|member| member.info.service == id.0);
    if let Some(holder) = holders.next() {
        let nat = if holder.identity().is_translated { Service::NAT } else { 0 };
        record.flags = record.flags & !Service::NAT | nat;
    }
    if record != installed {
        draft.push(Op::WriteService { id, record });
    }
    let gone = draft.state.rules.keys().filter(|(service, source)| *service == id && !wanted.rules.contains_key(source));
    let gone: Vec<_> = gone.map(|(_, source)| *source).collect();
    gone.into_iter().for_each(|source| draft.push(Op::RemoveSourceRule { service: id, source }));
}
