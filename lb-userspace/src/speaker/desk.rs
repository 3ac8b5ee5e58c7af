//! Routers, sync groups, keys and what is watched: what has to be done on each event. Pure.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::IpAddr,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use super::{
    member::{Member, is_same_router},
    order::{AddressOrder, Memory, Order, RouterOrder, Said, TrackOrder, Watched},
};
use crate::vrrp::{
    group::{Group, MemberNumber},
    machine::{FaultCause, Link, Output, Router, State},
    packet::{self, Ends, Received},
    refusal::Refusal,
    settings::Claims,
    terms::{Family, Priority},
    track::{Condition, Effect, Weight, standing},
};

/// A link as the kernel tells it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct LinkState {
    pub(super) ifindex: u32,
    pub(super) has_carrier: bool,
    pub(super) mac: Option<[u8; 6]>,
    pub(super) has_xdp: bool,
    /// The administrator has it up.
    pub(super) is_up: bool,
    /// The link below a macvlan.
    pub(super) macvlan_on: Option<u32>,
    /// The host's own, in the kernel's order.
    pub(super) own: Vec<IpAddr>,
    /// Those with the mark of virtual routers.
    pub(super) marked: BTreeSet<IpAddr>,
}

/// The interface of a router that has a link-layer address of its own.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Macvlan {
    pub(super) router: String,
    pub(super) name: String,
    /// Upon which it is.
    pub(super) interface: String,
    pub(super) family: Family,
    pub(super) mac: [u8; 6],
    /// While the router has addresses.
    pub(super) is_up: bool,
}

/// What the driver has to do, in this order.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Doing {
    /// An advert goes out, from the link's address or from this one.
    Transmit { interface: String, mac: Option<[u8; 6]>, ends: Ends, payload: Vec<u8> },
    /// Addresses are taken.
    Add { router: String, addresses: Vec<AddressOrder> },
    /// Addresses are given up; in a moment is soon enough if another node has them already.
    Remove { addresses: Vec<AddressOrder>, is_handed_over: bool },
    /// The link is told where addresses are.
    Announce { addresses: Vec<AddressOrder> },
    /// The daemon is told.
    Say(Said),
}

/// The routers of this node.
#[derive(Debug, Default)]
pub(super) struct Desk {
    members: BTreeMap<String, Member>,
    groups: BTreeMap<String, Syncing>,
    links: BTreeMap<String, LinkState>,
    data_plane: Vec<String>,
    pin_dir: PathBuf,
    doings: VecDeque<Doing>,
    /// Routers that hand over before they become others, with what is kept of those that have.
    successions: BTreeMap<String, Option<Memory>>,
    is_order_wanted: bool,
}

#[derive(Debug)]
struct Syncing {
    names: Vec<String>,
    group: Group,
}

/// What the driver knows of time and of the process before.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    pub(super) now: Instant,
    /// `CLOCK_BOOTTIME`.
    pub(super) boot: Duration,
    /// Since the Unix epoch.
    pub(super) wall: Duration,
}

impl Desk {
    /// Whether there is no router any more.
    pub(super) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Everything as it is to be.
    pub(super) fn handle_order(&mut self, order: Order, at: Moment) {
        (self.data_plane, self.pin_dir) = (order.data_plane, order.pin_dir);
        let gone: Vec<String> = self.members.keys().filter(|name| !order.routers.contains_key(*name)).cloned().collect();
        for name in gone {
            self.leave(&name, at.now);
        }
        self.successions.retain(|name, _| order.routers.contains_key(name));
        let mut others = Vec::new();
        for (name, wanted) in order.routers {
            // Another number, or link, or family: another router.
            let is_another = self.members.get(&name).is_some_and(|member| !is_same_router(&member.order, &wanted) || member.is_leaving);
            if is_another {
                self.successions.insert(name.clone(), None);
                self.leave(&name, at.now);
                if self.members.contains_key(&name) {
                    // It has the addresses until another node has, and is asked for again when it has ended.
                    continue;
                }
            }
            let memory = self.successions.remove(&name).flatten();
            match self.members.get_mut(&name) {
                Some(member) => {
                    member.follow_keys(&wanted);
                    let wanted = RouterOrder { resume: None, ..wanted };
                    others.extend((member.order != wanted).then(|| name.clone()));
                    // Nobody else has those that it has: they move at once.
                    self.doings.extend(member.moving(&name, &wanted));
                    member.order = wanted;
                }
                None => _ = self.members.insert(name, Member::new(wanted, memory, at)),
            }
        }
        self.regroup();
        // What the kernel refused may have been what is otherwise now.
        for name in self.troubled().into_iter().filter(|name| others.contains(name)) {
            self.handle_trouble(&name, None, at.now);
        }
        let names: Vec<String> = self.members.keys().cloned().collect();
        for name in &names {
            self.follow(name, at);
        }
        // A group waits for all its members.
        for name in names {
            self.settle(&name, at.now);
        }
        self.is_order_wanted = self.successions.keys().any(|name| !self.members.contains_key(name));
    }

    /// Whether routers have ended that are to be others: the order is to come once more.
    pub(super) fn takes_order_again(&mut self) -> bool {
        std::mem::take(&mut self.is_order_wanted)
    }

    /// The kernel's links and addresses.
    pub(super) fn handle_links(&mut self, links: BTreeMap<String, LinkState>, at: Moment) {
        let before = std::mem::replace(&mut self.links, links);
        for name in self.members.keys().cloned().collect::<Vec<_>>() {
            self.follow(&name, at);
            if self.has_other_mac(&name, &before) {
                // Who knows the old one sends to nobody. Without a carrier it is told when that is back.
                self.with_router(&name, at.now, |router, now| {
                    if !router.faults().contains(&FaultCause::Link) {
                        router.handle_link(Link::Up, now);
                    }
                });
            }
        }
    }

    /// Whether a router's addresses have another link-layer address than before.
    fn has_other_mac(&self, name: &str, before: &BTreeMap<String, LinkState>) -> bool {
        let mac = |links: &BTreeMap<String, LinkState>, device: &str| links.get(device).and_then(|link| link.mac);
        let is_moved = |device: &str| mac(before, device).is_some_and(|was| mac(&self.links, device).is_some_and(|is| is != was));
        self.members.get(name).is_some_and(|member| member.order.addresses.iter().any(|one| is_moved(&one.device)))
    }

    /// A link's carrier, as a notification tells it: none is missed between two readings.
    pub(super) fn handle_carrier(&mut self, interface: &str, has_carrier: bool, at: Moment) {
        let Some(link) = self.links.get_mut(interface) else { return };
        if std::mem::replace(&mut link.has_carrier, has_carrier) != has_carrier {
            for name in self.members.keys().cloned().collect::<Vec<_>>() {
                self.follow(&name, at);
            }
        }
    }

    /// A packet of protocol 112.
    pub(super) fn handle_packet(&mut self, interface: &str, received: &Received<'_>, now: Instant) {
        let Some(id) = packet::router_of(received.payload) else { return };
        let is_meant = |member: &Member| {
            member.order.interface == interface
                && member.order.router_id == id.number()
                && member.family() == Some(Family::of(received.ends.source))
        };
        let Some(name) = self.members.iter().find(|(_, member)| is_meant(member)).map(|(name, _)| name.clone()) else {
            return self.handle_strangers(interface, received, Refusal::OtherNumber(id.number()), now);
        };
        if let Some(member) = self.members.get_mut(&name)
            && let Err(refusal) = member.hear(received, now)
        {
            let doing = member.refuse(&name, received.ends.source, refusal, now);
            self.doings.extend(doing);
        }
        self.settle(&name, now);
    }

    /// An advert of a router that is none of ours. One that names an address of ours is of a node whose file differs: both would hold the address.
    fn handle_strangers(&mut self, interface: &str, received: &Received<'_>, refusal: Refusal, now: Instant) {
        let Some(named) = packet::addresses_of(received) else { return };
        for (name, member) in &mut self.members {
            let is_near = received.hop_limit >= member.order.min_hop_limit;
            if member.order.interface == interface && is_near && member.order.addresses.iter().any(|one| named.contains(&one.address)) {
                let doing = member.refuse(name, received.ends.source, refusal, now);
                self.doings.extend(doing);
            }
        }
    }

    /// Does what is due.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        let is_due = |member: &Member| member.router.as_ref().and_then(Router::poll_timeout).is_some_and(|at| at <= now);
        let due: Vec<String> = self.members.iter().filter(|(_, member)| is_due(member)).map(|(name, _)| name.clone()).collect();
        for name in due {
            self.with_router(&name, now, Router::handle_timeout);
        }
        self.defend(now);
    }

    /// Says which refusals are over, and which claims of others go on: now and then.
    pub(super) fn handle_silence(&mut self, now: Instant) {
        let over = self.members.iter_mut().flat_map(|(name, member)| member.accept(name, now));
        self.doings.extend(over);
        self.tell_claims(now);
    }

    /// When [`Self::handle_timeout`] has something to do.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.members.values().flat_map(Member::poll_timeouts).min()
    }

    /// These hand over.
    pub(super) fn handle_yield(&mut self, names: &[String], now: Instant) {
        names.iter().for_each(|name| self.with_router(name, now, Router::handle_yield));
    }

    /// These may preempt again.
    pub(super) fn handle_ready(&mut self, names: &[String], now: Instant) {
        names.iter().for_each(|name| self.with_router(name, now, Router::handle_ready));
    }

    /// All hand over and end.
    pub(super) fn handle_stop(&mut self, now: Instant) {
        for name in self.members.keys().cloned().collect::<Vec<_>>() {
            self.leave(&name, now);
        }
    }

    /// All give up their addresses at once, and end.
    pub(super) fn handle_halt(&mut self, now: Instant) {
        for name in self.members.keys().cloned().collect::<Vec<_>>() {
            if let Some(member) = self.members.get_mut(&name) {
                member.is_leaving = true;
            }
            self.with_router(&name, now, Router::handle_halt);
            self.forget_ended(&name);
        }
    }

    /// Before another process goes on: those that are active say so once more.
    pub(super) fn handle_release(&mut self, now: Instant) {
        for name in self.members.keys().cloned().collect::<Vec<_>>() {
            self.with_router(&name, now, |router, now| router.handle_link(Link::Up, now));
        }
    }

    /// The kernel refused an address of a router, or takes it again.
    pub(super) fn handle_trouble(&mut self, name: &str, trouble: Option<String>, now: Instant) {
        let Some(member) = self.members.get_mut(name) else { return };
        let is_trouble = trouble.is_some();
        member.lacks = trouble;
        self.with_router(name, now, |router, now| {
            if is_trouble { router.handle_fault(FaultCause::Driver, now) } else { router.handle_fault_over(FaultCause::Driver, now) }
        });
    }

    /// Routers that the kernel refused something, which is tried again.
    pub(super) fn troubled(&self) -> Vec<String> {
        let is_troubled = |member: &Member| member.router.as_ref().is_some_and(|router| router.faults().contains(&FaultCause::Driver));
        self.members.iter().filter(|(_, member)| is_troubled(member)).map(|(name, _)| name.clone()).collect()
    }

    /// What has to be done next.
    pub(super) fn poll_doing(&mut self) -> Option<Doing> {
        self.doings.pop_front()
    }

    /// The addresses that this node is to have.
    pub(super) fn held(&self) -> Vec<AddressOrder> {
        let held = |member: &Member| member.router.as_ref().map(|router| member.among(router.held().iter().copied())).unwrap_or_default();
        self.members.values().flat_map(held).collect()
    }

    /// The macvlans that are to be.
    pub(super) fn macvlans(&self) -> Vec<Macvlan> {
        let macvlan = |(router, member): (&String, &Member)| {
            Some(Macvlan {
                router: router.clone(),
                name: member.order.virtual_mac.clone()?,
                interface: member.order.interface.clone(),
                family: member.family()?,
                mac: member.virtual_mac()?,
                is_up: member.router.as_ref().is_some_and(|router| !router.held().is_empty()),
            })
        };
        self.members.iter().filter_map(macvlan).collect()
    }

    /// Where the data plane's maps are.
    pub(super) fn pin_dir(&self) -> &Path {
        &self.pin_dir
    }

    /// Whether a router's state hangs on the data plane's.
    pub(super) fn watches_data_plane(&self) -> bool {
        self.members.values().flat_map(|member| &member.order.tracks).any(|track| track.how == Watched::DataPlane)
    }

    /// The link that has an address for itself, if one has.
    pub(super) fn owner_of(&self, address: IpAddr) -> Option<&str> {
        self.links.iter().find(|(_, link)| link.own.contains(&address)).map(|(name, _)| name.as_str())
    }

    /// Where routers speak, and in which family.
    pub(super) fn places(&self) -> BTreeSet<(String, Family)> {
        self.members.values().filter_map(|member| Some((member.order.interface.clone(), member.family()?))).collect()
    }

    pub(super) fn link(&self, name: &str) -> Option<&LinkState> {
        self.links.get(name)
    }

    fn leave(&mut self, name: &str, now: Instant) {
        if let Some(member) = self.members.get_mut(name) {
            member.is_leaving = true;
        }
        self.with_router(name, now, Router::handle_stop);
        self.forget_ended(name);
    }

    fn forget_ended(&mut self, name: &str) {
        let has_ended = |member: &Member| member.is_leaving && member.router.as_ref().is_none_or(|r| r.state() == State::Initialize);
        if self.members.get(name).is_some_and(has_ended) {
            let ended = self.members.remove(name);
            if let Some(kept) = self.successions.get_mut(name) {
                *kept = ended.and_then(|member| member.memory());
                self.is_order_wanted = true;
            }
            self.regroup();
        }
    }

    /// Has a router do something, and its group what follows.
    fn with_router(&mut self, name: &str, now: Instant, what: impl FnOnce(&mut Router, Instant)) {
        if let Some(router) = self.members.get_mut(name).and_then(|member| member.router.as_mut()) {
            what(router, now);
            self.settle(name, now);
        }
    }

    /// Takes a router's outputs, and has its group do what follows.
    fn settle(&mut self, name: &str, now: Instant) {
        self.take_outputs(name);
        let group = self.members.get(name).and_then(|member| member.order.group.clone());
        let Some(group) = group.filter(|group| self.groups.contains_key(group)) else { return self.forget_ended(name) };
        let mut changed = vec![name.to_owned()];
        while let Some(name) = changed.pop() {
            if let Some(syncing) = self.groups.get_mut(&group)
                && let Some(number) = syncing.names.iter().position(|other| *other == name)
                && let Some(router) = self.members.get(&name).and_then(|member| member.router.as_ref())
            {
                syncing.group.handle_member(MemberNumber(number), router);
            }
            while let Some((number, order)) = self.groups.get_mut(&group).and_then(|syncing| syncing.group.poll_output()) {
                let Some(name) = self.groups.get(&group).and_then(|syncing| syncing.names.get(number.0)).cloned() else { continue };
                if let Some(router) = self.members.get_mut(&name).and_then(|member| member.router.as_mut()) {
                    order.give(router, now);
                }
                self.take_outputs(&name);
                changed.push(name);
            }
        }
        self.forget_ended(name);
    }

    fn take_outputs(&mut self, name: &str) {
        let Some(member) = self.members.get_mut(name) else { return };
        let goes_on = member.going_on().is_some();
        while let Some(output) = member.router.as_mut().and_then(Router::poll_output) {
            if goes_on && matches!(output, Output::Transition(_)) {
                continue;
            }
            let doing = member.doing(name, output);
            self.doings.push_back(doing);
        }
    }

    /// Groups of more than one member, each told of the routers that it has.
    fn regroup(&mut self) {
        let mut names: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (name, member) in self.members.iter().filter(|(_, member)| !member.is_leaving) {
            member.order.group.iter().for_each(|group| names.entry(group.clone()).or_default().push(name.clone()));
        }
        names.retain(|_, names| names.len() > 1);
        let is_same = names.len() == self.groups.len()
            && names.iter().all(|(group, names)| self.groups.get(group).is_some_and(|syncing| syncing.names == *names));
        if is_same {
            return;
        }
        let made = names.into_iter().map(|(group, names)| (group, Syncing { group: Group::new(names.len()), names }));
        self.groups = made.collect();
    }

    /// What moves a router's priority, and what makes it faulty. Weights of a group's members count for each of them, for all go together: the same one
    /// counts once.
    fn tracks_of(&self, name: &str) -> Vec<TrackOrder> {
        let Some(member) = self.members.get(name) else { return Vec::new() };
        let mut tracks = member.order.tracks.clone();
        let syncing = member.order.group.as_ref().and_then(|group| self.groups.get(group));
        for other in syncing.into_iter().flat_map(|syncing| &syncing.names).filter_map(|other| self.members.get(other)) {
            let weights = other.order.tracks.iter().filter(|track| track.weight.is_some());
            let more: Vec<TrackOrder> = weights.filter(|track| !tracks.contains(track)).cloned().collect();
            tracks.extend(more);
        }
        tracks
    }

    /// Makes a router what its order, its links and what is watched say.
    fn follow(&mut self, name: &str, at: Moment) {
        let tracks = self.tracks_of(name);
        let Some(member) = self.members.get_mut(name).filter(|member| !member.is_leaving) else { return };
        let is_grouped = member.order.group.as_ref().is_some_and(|group| self.groups.contains_key(group));
        let claims = if is_grouped { Claims::WithGroup } else { Claims::Alone };
        let Some(base) = Priority::new(member.order.priority) else { return };
        let standing = standing(base, tracks.iter().map(|track| watched(track, &self.links, &self.data_plane)));
        let link = self.links.get(&member.order.interface);
        let has_carrier = link.is_some_and(|link| link.has_carrier);
        let Some(primary) = member.primary(link) else {
            let lacks = format!("interface {} {}", member.order.interface, member.lacks_source(link));
            if member.lacks.as_ref() != Some(&lacks) {
                (member.lacks, member.lacks_since) = (Some(lacks), at.now);
            }
            // It cannot speak, and must not hold what another node will take.
            return self.with_router(name, at.now, |router, now| router.handle_fault(FaultCause::Source, now));
        };
        let Some(settings) = member.settings(primary, claims, at) else { return };
        if member.router.is_none() {
            let held = member.held_before(&self.links);
            member.begin(settings, standing, has_carrier, &held, at);
        } else {
            member.adapt(settings, standing, has_carrier, at.now);
            // The group, or the member that had the fault, is not there any more.
            if let Some(router) = member.router.as_mut().filter(|_| !is_grouped) {
                router.handle_fault_over(FaultCause::Group, at.now);
            }
        }
        self.settle(name, at.now);
    }
}

fn watched(track: &TrackOrder, links: &BTreeMap<String, LinkState>, data_plane: &[String]) -> (Effect, Condition) {
    let effect = track.weight.and_then(|weight| Weight::new(weight).ok()).map_or(Effect::Fault, Effect::Weight);
    (effect, if why_down(track, links, data_plane).is_none() { Condition::Up } else { Condition::Down })
}

/// Why what is watched is down; none: it is not.
fn why_down(track: &TrackOrder, links: &BTreeMap<String, LinkState>, data_plane: &[String]) -> Option<String> {
    match &track.how {
        Watched::Interface(name) => match links.get(name) {
            None => Some("it is not there".into()),
            Some(link) => (!link.has_carrier).then(|| "it has no carrier, or is turned off".into()),
        },
        Watched::DataPlane => {
            let lacks = data_plane.iter().find(|name| !links.get(*name).is_some_and(|link| link.has_xdp))?;
            Some(format!("interface {lacks} has not our program"))
        }
        Watched::Up => None,
        Watched::Down(why) => Some(why.clone()),
    }
}

mod defending;
#[cfg(test)]
mod tests;
mod view;
