//! Which member every slot has: tables of the desired shares, computed only where they are not known to be in the maps.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use lb_common::words::{MemberId, MemberWord, ServiceId};

use super::Draft;
use crate::{
    balance::maglev::{self, Share},
    control::{
        Endpoint, ServiceKey,
        desired::{Desired, DesiredService},
        installed::{Identity, Installed, InstalledMember},
        op::Op,
    },
};

pub(super) fn slots(draft: &mut Draft<'_>, id: ServiceId, service: &DesiredService, tables: &mut Tables) {
    let wanted = wanted(draft, id, service);
    let installed = &draft.state.services[&id];
    if installed.shares.as_deref() == Some(&wanted.members[..]) {
        return;
    }
    let current = wanted.slots(installed.current.len(), tables);
    if installed.shares.is_some() || installed.current != current {
        draft.push(Op::SetSlots { service: id, shares: wanted.members, current });
    }
}

/// The members that the service's slots are for: those that it should have as far as there is room for them, or else those that hold them.
fn wanted(draft: &Draft<'_>, id: ServiceId, service: &DesiredService) -> Wanted {
    match draft.held.get(&id) {
        Some(holders) => holders.iter().map(|&(server, id, weight)| (Share { server, weight }, (id, weight))).collect(),
        None => Wanted::new(service, |identity| serving(draft, id, identity)),
    }
}

/// The number of a member that may take flows.
fn serving(draft: &Draft<'_>, service: ServiceId, identity: Identity) -> Option<MemberId> {
    draft.members.get(&(service, identity)).copied().filter(|id| !draft.waiting.contains(id))
}

/// Finds the services whose slots stay with those that hold them, because none of those that should take flows has room.
pub(super) fn find_holders(draft: &mut Draft<'_>) {
    for (id, _, service) in draft.at_work() {
        let is_anyone_up = service.members.values().any(|member| member.weight > 0);
        let mut shares = service.identities().filter(|(_, member)| member.share > 0);
        if is_anyone_up && !shares.any(|(identity, _)| serving(draft, id, identity).is_some()) {
            let holders = holders(draft, id, service);
            draft.holders.extend(holders.iter().map(|(_, id, _)| *id));
            draft.held.insert(id, holders);
        }
    }
}

/// The members that the configuration drops and that serve as long as nobody else has room. If all that it drops do and they are several, the
/// last one goes: room comes from nowhere else where every service waits for it.
fn holders(draft: &Draft<'_>, id: ServiceId, service: &DesiredService) -> Vec<(Endpoint, MemberId, u16)> {
    let named: BTreeSet<MemberId> = draft.state.services[&id].current.iter().copied().flatten().collect();
    let members = draft.state.members.iter().filter(|(_, member)| member.info.service == id.0);
    let dropped: Vec<_> = members.filter(|(_, member)| !service.has(&member.identity())).collect();
    let takes = |number: &MemberId, member: &InstalledMember| {
        named.contains(number) && member.info.weight > 0 && member.info.state & MemberWord::NO_NEW == 0
    };
    let serving = dropped.iter().filter(|(number, member)| takes(number, member));
    let mut holders: Vec<_> = serving.map(|(number, member)| (member.endpoint(), **number, member.info.weight)).collect();
    holders.sort_unstable();
    if holders.len() == dropped.len() && holders.len() > 1 {
        holders.pop();
    }
    holders
}

/// Notes for services read back from the maps that their slots are what `desired` gives, where they are. Without it every plan would
/// compute their tables again to find no difference.
pub fn recognise(installed: &mut Installed, desired: &Desired) {
    let members: BTreeMap<(ServiceId, Identity), MemberId> =
        installed.members.iter().map(|(id, member)| ((ServiceId(member.info.service), member.identity()), *id)).collect();
    let mut tables = Tables::default();
    for (id, service) in installed.services.iter_mut().filter(|(_, service)| service.shares.is_none()) {
        let Some(key) = ServiceKey::of(&service.record).filter(|key| desired.services.contains_key(key)) else {
            continue;
        };
        let wanted = Wanted::new(&desired.services[&key], |identity| members.get(&(*id, identity)).copied());
        if wanted.slots(service.current.len(), &mut tables) == service.current {
            service.shares = Some(wanted.members);
        }
    }
}

/// The services that keep another number of slots, or another slot key, than the configuration gives them: both stay for a service's life,
/// or its flows would be lost.
pub fn held_back(installed: &Installed, desired: &Desired) -> Vec<ServiceKey> {
    let services = installed.services.values().filter_map(|service| Some((ServiceKey::of(&service.record)?, &service.record)));
    services
        .filter(|(key, record)| desired.services.get(key).is_some_and(|s| s.slots - 1 != record.slot_mask || s.slot_key != record.slot_key))
        .map(|(key, _)| key)
        .collect()
}

/// The members that a service's slots are for.
struct Wanted {
    shares: Vec<Share>,
    members: Vec<(MemberId, u16)>,
}

impl Wanted {
    fn new(service: &DesiredService, id: impl Fn(Identity) -> Option<MemberId>) -> Self {
        let members = service.identities().filter(|(_, member)| member.share > 0);
        let share = |server, weight| Share { server, weight };
        members.filter_map(|(identity, member)| Some((share(identity.endpoint, member.share), (id(identity)?, member.share)))).collect()
    }

    fn slots(&self, slots: usize, tables: &mut Tables) -> Arc<[Option<MemberId>]> {
        if self.shares.is_empty() {
            return std::iter::repeat_n(None, slots).collect();
        }
        let table = tables.table(slots, &self.shares);
        table.iter().map(|&index| Some(self.members[usize::from(index)].0)).collect()
    }
}

impl FromIterator<(Share, (MemberId, u16))> for Wanted {
    fn from_iter<I: IntoIterator<Item = (Share, (MemberId, u16))>>(members: I) -> Self {
        let (shares, members) = members.into_iter().unzip();
        Self { shares, members }
    }
}

/// Tables of one plan: services of one pool have the same.
#[derive(Default)]
pub(super) struct Tables(BTreeMap<(usize, Vec<Share>), Vec<u16>>);

impl Tables {
    fn table(&mut self, slots: usize, shares: &[Share]) -> &[u16] {
        self.0.entry((slots, shares.to_vec())).or_insert_with(|| maglev::table(slots as u32, shares))
    }
}
