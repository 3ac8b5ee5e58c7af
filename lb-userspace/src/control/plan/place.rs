//! Which members there is room for.

use std::collections::BTreeSet;

use lb_common::{address::Address, words::MemberId};

use super::{Draft, Table, Unplaced};
use crate::control::{
    Endpoint, ServiceKey,
    desired::{DesiredMember, DesiredService},
    installed::Identity,
    planes::PlaneNumbers,
};

/// Numbers the desired members that have none, and their planes: together, or a member would wait in the way of others. One that is known and
/// has planes goes on with those if there is no room for the wanted ones.
pub(super) fn members(draft: &mut Draft<'_>) -> PlaneNumbers {
    let mut planes = PlaneNumbers::of(&draft.state);
    let mut addresses = Addresses::of(draft);
    let mut by_turn: Vec<_> = draft
        .at_work()
        .into_iter()
        .flat_map(|(id, key, service)| turns(service).map(move |(turn, identity, member)| (turn, id, key, identity, member)))
        .collect();
    by_turn.sort_by_key(|&(turn, _, key, ..)| (turn, key));
    let missing = by_turn.iter().filter(|&&(_, id, _, identity, _)| !draft.members.contains_key(&(id, identity))).count();
    let mut free = draft.state.free_members().take(missing).collect::<Vec<_>>().into_iter();
    for (_, service, key, identity, member) in by_turn {
        let known = draft.members.get(&(service, identity)).copied();
        if known.is_none() && free.as_slice().is_empty() {
            draft.leave_out(key, &identity.endpoint, Table::Members);
            continue;
        }
        let has_planes = member.planes.is_empty() || has_planes(draft, &mut planes, &mut addresses, key, &identity.endpoint, member);
        match known {
            Some(id) if !has_planes && !draft.names_planes(id) => drop(draft.waiting.insert(id)),
            None if has_planes => drop(draft.members.insert((service, identity), free.next().expect("it is not empty"))),
            Some(_) | None => {}
        }
    }
    planes
}

fn has_planes(
    draft: &mut Draft<'_>,
    planes: &mut PlaneNumbers,
    addresses: &mut Addresses,
    key: &ServiceKey,
    endpoint: &Endpoint,
    member: &DesiredMember,
) -> bool {
    let full = if !addresses.have_room(member) {
        Table::Vips
    } else if !planes.place(&member.planes) {
        Table::Planes
    } else {
        addresses.take(member);
        return true;
    };
    draft.leave_out(key, endpoint, full);
    false
}

/// The members of a service, each with its turn: those that would take flows first.
fn turns(service: &DesiredService) -> impl Iterator<Item = (usize, Identity, &DesiredMember)> {
    let serving = service.identities().filter(|(_, member)| member.weight > 0);
    let others = service.identities().filter(|(_, member)| member.weight == 0);
    serving.chain(others).enumerate().map(|(turn, (identity, member))| (turn, identity, member))
}

/// Which addresses have a number, and how many more can.
struct Addresses {
    known: BTreeSet<Address>,
    capacity: usize,
}

impl Addresses {
    fn of(draft: &Draft<'_>) -> Self {
        let known = draft.state.vips.values().map(|vip| vip.address).collect();
        Self { known, capacity: usize::from(draft.state.capacity.vips) }
    }

    fn have_room(&self, member: &DesiredMember) -> bool {
        let new: BTreeSet<Address> = member.planes.iter().map(|plane| plane.snat).filter(|snat| !self.known.contains(snat)).collect();
        new.is_empty() || self.known.len() + new.len() <= self.capacity
    }

    fn take(&mut self, member: &DesiredMember) {
        self.known.extend(member.planes.iter().map(|plane| plane.snat));
    }
}

impl Draft<'_> {
    fn leave_out(&mut self, key: &ServiceKey, endpoint: &Endpoint, table: Table) {
        self.unplaced.push(Unplaced { service: *key, server: Some(*endpoint), table });
    }

    /// Whether the member's header names planes.
    fn names_planes(&self, id: MemberId) -> bool {
        self.state.members.get(&id).and_then(|member| member.header.as_deref()).is_some_and(|header| header.nat_planes > 0)
    }
}
