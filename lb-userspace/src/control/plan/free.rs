//! Frees what nothing names any more.

use std::collections::{BTreeMap, BTreeSet};

use lb_common::{
    maps::Service,
    words::{MemberId, ServiceId},
};

use super::{Draft, Freeable};
use crate::control::{ServiceKey, installed::InstalledMember, op::Op};

pub(super) fn free_due(draft: &mut Draft<'_>, freeable: &Freeable) {
    let mut members_of: BTreeMap<ServiceId, Vec<MemberId>> = draft.state.services.keys().map(|id| (*id, Vec::new())).collect();
    members_of.extend(draft.numbers_by_service());
    let published = draft.state.published_services();
    for (service, members) in members_of {
        if !draft.state.services.contains_key(&service) {
            // Left behind by a plan that was cut short after their service was freed.
            free_all(draft, members.into_iter().filter(|id| freeable.members.contains(id)));
        } else if published.contains(&service) {
            free_members(draft, service, &members, freeable);
        } else {
            free_with_members(draft, service, &members, freeable);
        }
    }
    free_planes(draft, freeable);
}

fn free_members(draft: &mut Draft<'_>, service: ServiceId, members: &[MemberId], freeable: &Freeable) {
    let due: Vec<MemberId> = members.iter().copied().filter(|id| is_due(draft, service, *id, freeable)).collect();
    if due.is_empty() {
        return;
    }
    let named: BTreeSet<MemberId> = draft.state.services[&service].current.iter().copied().flatten().collect();
    free_all(draft, due.into_iter().filter(|id| !named.contains(id)));
}

/// A service that nobody can reach goes whole: with some of its members freed, its slots would name them should it come back.
fn free_with_members(draft: &mut Draft<'_>, service: ServiceId, members: &[MemberId], freeable: &Freeable) {
    let installed = &draft.state.services[&service];
    let is_desired = ServiceKey::of(&installed.record).is_some_and(|key| draft.desired.services.contains_key(&key));
    if is_desired || !members.iter().all(|id| is_due(draft, service, *id, freeable)) {
        return;
    }
    let (first_page, pages) = (installed.record.slot_page, installed.pages());
    let rules: Vec<_> = draft.state.rules.keys().filter(|(id, _)| *id == service).map(|(_, source)| *source).collect();
    for source in rules {
        draft.push(Op::RemoveSourceRule { service, source });
    }
    draft.push(Op::FreeService { id: service, first_page, pages });
    draft.services.retain(|_, id| *id != service);
    free_all(draft, members.iter().copied());
}

fn free_all(draft: &mut Draft<'_>, members: impl Iterator<Item = MemberId>) {
    members.for_each(|id| draft.push(Op::FreeMember { id }));
}

/// Whether the member is retired, not named again, and a full idle timeout has passed: clocks of whole seconds must differ by more than it.
fn is_due(draft: &Draft<'_>, service: ServiceId, id: MemberId, freeable: &Freeable) -> bool {
    let (service, member) = (&draft.state.services[&service], &draft.state.members[&id]);
    let retired_at = member.info.retired_at;
    let waited_s = draft.now_unix_s.saturating_sub(retired_at);
    retired_at != 0
        && waited_s > u64::from(service.record.idle_s)
        && freeable.members.contains(&id)
        && !is_named(draft, member, &service.record)
}

fn is_named(draft: &Draft<'_>, member: &InstalledMember, record: &Service) -> bool {
    let service = ServiceKey::of(record).and_then(|key| draft.desired.services.get(&key));
    service.is_some_and(|service| service.has(&member.identity()))
}

fn free_planes(draft: &mut Draft<'_>, freeable: &Freeable) {
    let headers = draft.state.members.values().filter_map(|member| member.header.as_deref());
    let named: BTreeSet<u16> = headers.flat_map(|header| header.nat_plane..header.nat_plane + header.nat_planes).collect();
    let free: Vec<u16> =
        draft.state.planes.keys().copied().filter(|index| freeable.planes.contains(index) && !named.contains(index)).collect();
    free.into_iter().for_each(|index| draft.push(Op::FreePlane { index }));
}
