//! The plan: operations that lead from what the maps hold to what they should hold, make before break.
//!
//! Order: free what is due · records of new services · planes and their SNAT addresses · members, headers · of each service slots, source rules,
//! changed record, members that take less or have to go · publish · unpublish · members of unpublished services. After any prefix of it no
//! reachable slot names a member that is not written, and planning again leads to the same end.
//!
//! What a full table has no room for is left out and named, and holds up nothing else. Of many servers each service gets some first. A service
//! none of whose servers has room yet goes on with those that the configuration drops; one of several goes at once, to make room.
//!
//! A server that the configuration drops is *retired*: its slots go to others, its record stays. It is freed one idle timeout later, when
//! nothing names it; named again before that, it is the same member. A dropped service is unpublished, its members retire, and all go
//! together.
//!
//! A service that turns to NAT or from it has other members than before, for the same servers too. Its packets cannot follow the earlier ones'
//! flows, so those are closing: TCP is reset, UDP goes to another member.

mod free;
mod make;
mod place;
mod publish;
mod scope;
mod tables;
mod unplaced;

use std::collections::{BTreeMap, BTreeSet};

use lb_common::words::{MemberId, ServiceId};

use super::{
    Endpoint, ServiceKey,
    desired::{Desired, DesiredService},
    installed::{Identity, Installed, InstalledMember},
    op::Op,
};

use scope::Scope;
pub use tables::{held_back, recognise};
pub use unplaced::{Table, Unplaced, in_words};

/// What the data plane has found out of use: a retired member or plane goes only if it is among these.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Freeable {
    /// Members that no cached or translated flow that still lives names, and no slot of a published service as its default.
    pub members: BTreeSet<MemberId>,
    /// Planes without a translated flow that still lives.
    pub planes: BTreeSet<u16>,
}

/// What is to be done, and what has to wait.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Plan {
    /// The operations, in order; none when nothing differs.
    pub ops: Vec<Op>,
    /// What a full table has no room for. It follows once dropped ones are freed, one idle timeout after their last packet.
    pub unplaced: Vec<Unplaced>,
}

/// What leads from `installed` to `desired`, as [`plan_from`] finds it.
pub fn plan(desired: &Desired, installed: &Installed, now_unix_s: u64, freeable: &Freeable, incarnation: &mut dyn FnMut() -> u64) -> Plan {
    plan_from(installed.clone(), desired, now_unix_s, freeable, incarnation).0
}

/// What leads from `installed` to `desired`, as [`change_from`] finds it.
#[cfg(test)]
pub fn change(before: &Desired, desired: &Desired, installed: &Installed, now_unix_s: u64, incarnation: &mut dyn FnMut() -> u64) -> Plan {
    change_from(installed.clone(), before, desired, now_unix_s, incarnation).0
}

/// What leads from `installed` to `desired`, and what the maps hold afterwards. `now_unix_s` is in seconds of the Unix epoch. `incarnation` gives a random number that it never
/// gave before, one for each new service.
pub fn plan_from(
    installed: Installed,
    desired: &Desired,
    now_unix_s: u64,
    freeable: &Freeable,
    incarnation: &mut dyn FnMut() -> u64,
) -> (Plan, Installed) {
    let mut draft = Draft::new(desired, installed, now_unix_s, Scope::All);
    free::free_due(&mut draft, freeable);
    make(draft, incarnation)
}

/// Like [`plan_from`], where the maps have followed `before` already, nothing had to wait, and nothing is due to be freed: only what differs is looked at.
pub fn change_from(
    installed: Installed,
    before: &Desired,
    desired: &Desired,
    now_unix_s: u64,
    incarnation: &mut dyn FnMut() -> u64,
) -> (Plan, Installed) {
    match Scope::between(before, desired) {
        Scope::All => plan_from(installed, desired, now_unix_s, &Freeable::default(), incarnation),
        scope @ Scope::Only(_) => make(Draft::new(desired, installed, now_unix_s, scope), incarnation),
    }
}

fn make(mut draft: Draft<'_>, incarnation: &mut dyn FnMut() -> u64) -> (Plan, Installed) {
    draft.know_members();
    make::services(&mut draft, incarnation);
    let planes = place::members(&mut draft);
    tables::find_holders(&mut draft);
    make::planes(&mut draft, &planes);
    publish::snat_addresses(&mut draft);
    make::members(&mut draft, &planes);
    let (wanted, mut numbers) = (make::wanted_members(&draft), draft.numbers_by_service());
    let mut tables = tables::Tables::default();
    for (id, key, service) in draft.at_work() {
        tables::slots(&mut draft, id, service, &mut tables);
        make::rules_and_record(&mut draft, id, key, service);
        make::lesser_members(&mut draft, numbers.remove(&id).unwrap_or_default(), &wanted);
    }
    publish::publish(&mut draft);
    publish::unpublish(&mut draft);
    make::lesser_members(&mut draft, numbers.into_values().flatten().collect(), &wanted);
    (Plan { ops: draft.ops, unplaced: draft.unplaced }, draft.state)
}

/// The plan while it is made: what the maps hold after the operations so far, and the numbers of what is desired.
struct Draft<'a> {
    desired: &'a Desired,
    now_unix_s: u64,
    scope: Scope,
    state: Installed,
    ops: Vec<Op>,
    unplaced: Vec<Unplaced>,
    services: BTreeMap<ServiceKey, ServiceId>,
    members: BTreeMap<(ServiceId, Identity), MemberId>,
    /// Members that take no flow yet: there is no room for their planes.
    waiting: BTreeSet<MemberId>,
    /// Members that the configuration drops and that go on serving, because there is no room for those that would take their place.
    holders: BTreeSet<MemberId>,
    /// The same by their service, each with its endpoint and weight.
    held: BTreeMap<ServiceId, Vec<(Endpoint, MemberId, u16)>>,
}

impl<'a> Draft<'a> {
    fn new(desired: &'a Desired, installed: Installed, now_unix_s: u64, scope: Scope) -> Self {
        let services = installed.services.iter().filter_map(|(id, service)| Some((ServiceKey::of(&service.record)?, *id))).collect();
        Self {
            desired,
            now_unix_s,
            scope,
            state: installed,
            ops: Vec::new(),
            unplaced: Vec::new(),
            services,
            members: BTreeMap::new(),
            waiting: BTreeSet::new(),
            holders: BTreeSet::new(),
            held: BTreeMap::new(),
        }
    }

    fn know_members(&mut self) {
        let service = |member: &InstalledMember| ServiceId(member.info.service);
        self.members = self.members_at_work().map(|(id, member)| ((service(member), member.identity()), id)).collect();
    }

    /// The desired services that have a number.
    fn placed(&self) -> Vec<(ServiceId, &'a ServiceKey, &'a DesiredService)> {
        self.desired.services.iter().filter_map(|(key, service)| Some((*self.services.get(key)?, key, service.as_ref()))).collect()
    }

    /// Those of them that are looked at.
    fn at_work(&self) -> Vec<(ServiceId, &'a ServiceKey, &'a DesiredService)> {
        self.placed().into_iter().filter(|(_, key, _)| self.scope.has(key)).collect()
    }

    /// The members of services that are looked at, and of those that are not desired.
    fn members_at_work(&self) -> impl Iterator<Item = (MemberId, &InstalledMember)> {
        let is_resting = |(key, _): &(&ServiceKey, &ServiceId)| !self.scope.has(key) && self.desired.services.contains_key(key);
        // By number: there are many members of few services.
        let mut resting = vec![false; usize::from(u16::MAX) + 1];
        self.services.iter().filter(is_resting).for_each(|(_, id)| resting[usize::from(id.0)] = true);
        let is_at_work = move |member: &InstalledMember| !resting[usize::from(member.info.service)];
        self.state.members.iter().filter(move |(_, member)| is_at_work(member)).map(|(id, member)| (*id, member))
    }

    /// The numbers of these members, by their service.
    fn numbers_by_service(&self) -> BTreeMap<ServiceId, Vec<MemberId>> {
        let mut numbers: BTreeMap<ServiceId, Vec<MemberId>> = BTreeMap::new();
        for (id, member) in self.members_at_work() {
            numbers.entry(ServiceId(member.info.service)).or_default().push(id);
        }
        numbers
    }

    fn push(&mut self, op: Op) {
        self.state.apply(&op);
        self.ops.push(op);
    }
}

#[cfg(test)]
mod tests;
