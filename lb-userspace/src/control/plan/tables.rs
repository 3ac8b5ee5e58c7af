//! Which member every slot has: tables of the desired shares, computed only where they are not known to be in the maps.

use std::{collections::BTreeMap, sync::Arc};

use lb_common::words::{MemberId, ServiceId};

use super::Draft;
use crate::{
    balance::maglev::{self, Share},
    control::{Endpoint, ServiceKey, desired::Desired, installed::Installed, op::Op},
};

pub(super) fn slots(draft: &mut Draft<'_>) {
    let mut tables = Tables::default();
    for key in draft.desired.services.keys() {
        let id = draft.services[key];
        let wanted = Wanted::new(draft.desired, key, |endpoint| draft.members.get(&(id, *endpoint)).copied());
        let installed = &draft.state.services[&id];
        if installed.shares.as_deref() == Some(&wanted.members[..]) {
            continue;
        }
        let current = wanted.slots(installed.current.len(), &mut tables);
        if installed.shares.is_some() || installed.current != current {
            draft.push(Op::SetSlots { service: id, shares: wanted.members, current });
        }
    }
}

/// Notes for services read back from the maps that their slots are what `desired` gives, where they are. Without it every plan would
/// compute their tables again to find no difference.
pub fn recognise(installed: &mut Installed, desired: &Desired) {
    let members: BTreeMap<(ServiceId, Endpoint), MemberId> =
        installed.members.iter().map(|(id, member)| ((ServiceId(member.info.service), member.endpoint()), *id)).collect();
    let mut tables = Tables::default();
    for (id, service) in installed.services.iter_mut().filter(|(_, service)| service.shares.is_none()) {
        let Some(key) = ServiceKey::of(&service.record).filter(|key| desired.services.contains_key(key)) else {
            continue;
        };
        let wanted = Wanted::new(desired, &key, |endpoint| members.get(&(*id, *endpoint)).copied());
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
    fn new(desired: &Desired, key: &ServiceKey, id: impl Fn(&Endpoint) -> Option<MemberId>) -> Self {
        let members = desired.services[key].members.iter().filter(|(_, member)| member.weight > 0);
        let known = members
            .filter_map(|(endpoint, member)| Some((Share { server: *endpoint, weight: member.weight }, (id(endpoint)?, member.weight))));
        let (shares, members) = known.unzip();
        Self { shares, members }
    }

    fn slots(&self, slots: usize, tables: &mut Tables) -> Arc<[Option<MemberId>]> {
        if self.shares.is_empty() {
            return std::iter::repeat_n(None, slots).collect();
        }
        let table = tables.table(slots, &self.shares);
        table.iter().map(|&index| Some(self.members[usize::from(index)].0)).collect()
    }
}

/// Tables of one plan: services of one pool have the same.
#[derive(Default)]
struct Tables(BTreeMap<(usize, Vec<Share>), Vec<u16>>);

impl Tables {
    fn table(&mut self, slots: usize, shares: &[Share]) -> &[u16] {
        self.0.entry((slots, shares.to_vec())).or_insert_with(|| maglev::table(slots as u32, shares))
    }
}
