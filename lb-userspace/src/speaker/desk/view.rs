//! Routers as they are shown.

use std::{net::IpAddr, time::Instant};

use super::{Desk, Moment, why_down};
use crate::{
    speaker::{
        defence::mac_words,
        member::{Member, conflict_words, word},
        order::{AddressOrder, PeerView, RouterView, TrackOrder, TrackView},
    },
    vrrp::{
        machine::{Conflict, FaultCause, Peer, Reason, Router, State},
        terms::Priority,
    },
};

impl Desk {
    /// Every router as it is.
    pub(in crate::speaker) fn view(&self, at: Moment) -> Vec<RouterView> {
        self.members.iter().map(|(name, member)| self.view_of(name, member, at)).collect()
    }

    fn view_of(&self, name: &str, member: &Member, at: Moment) -> RouterView {
        let order = &member.order;
        let since_ms = |since: Instant| at.wall.saturating_sub(at.now.saturating_duration_since(since)).as_millis() as u64;
        let track = |track: &TrackOrder| {
            let down = why_down(track, &self.links, &self.data_plane);
            TrackView { name: track.name.clone(), is_up: down.is_none(), weight: track.weight, why: down }
        };
        let stray = |one: &AddressOrder| {
            // An owner's own is the virtual address while it is active.
            let serves = order.priority == Priority::OWNER.number()
                && member.router.as_ref().is_none_or(|router| router.held().contains(&one.address));
            let owner = self.owner_of(one.address).filter(|_| !serves)?;
            Some(format!("{} is {owner}'s own: it stays there while another node is active", one.address))
        };
        let mut view = RouterView {
            state: "fault".into(),
            since_ms: since_ms(member.lacks_since),
            why: member.lacks.clone().unwrap_or_default(),
            virtual_mac: member.virtual_mac().map(mac_words),
            tracks: order.tracks.iter().map(track).collect(),
            memory: member.memory(),
            refused: member.refused.iter().map(|(refusal, refused)| (refusal.to_string(), refused.count)).collect(),
            refusing: member.refusing(at.now),
            claims: member.defence.views(at.now),
            strays: order.addresses.iter().filter_map(stray).chain(member.speaks_to_nobody()).collect(),
            faults: member.lacks.iter().cloned().collect(),
            ..RouterView::of(name, order)
        };
        let Some(router) = &member.router else { return view };
        for one in &mut view.addresses {
            one.is_held = router.held().contains(&one.address);
            one.holder = holder(router, one.address, at.now);
        }
        let ((since, reason), tally) = (router.since(), router.tally());
        view.state = word(router.state()).to_owned();
        view.since_ms = since_ms(since);
        view.why = match (reason, router.state(), router.active_router()) {
            // It has followed this one for long.
            (Reason::Started, State::Backup, Some(active)) => format!("{active} is active"),
            _ => reason.to_string(),
        };
        if let Some(told) = member.going_on() {
            (view.since_ms, view.why) = (told.since_ms, told.why.clone());
        } else {
            view.why.extend(router.forbearance(at.now).into_iter().map(|why| format!("; {why}")));
        }
        let of_track = |track: &TrackView| Some(format!("{}: {}", track.name, track.why.as_ref().filter(|_| track.weight.is_none())?));
        let down: Vec<String> = view.tracks.iter().filter_map(of_track).collect();
        let is_told = |cause: &FaultCause| matches!(cause, FaultCause::Source | FaultCause::Driver) && member.lacks.is_some();
        let words = |cause: &FaultCause| {
            if *cause == FaultCause::Tracked && !down.is_empty() { down.join(", ") } else { cause.to_string() }
        };
        view.faults.extend(router.faults().iter().filter(|cause| !is_told(cause)).map(words));
        view.is_on_hold = router.is_on_hold(at.now);
        view.priority = router.priority().number();
        view.interval_ms = router.settings().interval.duration().as_millis() as u64;
        view.source = Some(router.settings().primary);
        view.active = active(router, at.now);
        (view.sent, view.heard, view.became_active) = (tally.sent, tally.heard, tally.became_active);
        view.peers = router
            .peers()
            .map(|(address, peer)| PeerView {
                address: *address,
                priority: peer.priority.number(),
                interval_ms: peer.interval.duration().as_millis() as u64,
                heard_ms_ago: at.now.saturating_duration_since(peer.heard_at).as_millis() as u64,
                adverts: peer.adverts,
                addresses: peer.addresses.as_slice().to_vec(),
                conflicts: peer
                    .conflicts
                    .iter()
                    .filter(|conflict| is_still(router, peer, **conflict))
                    .map(|conflict| conflict_words(router, *address, *conflict))
                    .collect(),
            })
            .collect();
        view
    }
}

/// Who is active, as far as is known. One with a fault waits for nobody's silence: a peer counts there for as long as the slowest backup would wait.
fn active(router: &Router, now: Instant) -> Option<IpAddr> {
    let active = router.active_router()?;
    let is_heard = |peer: &Peer| now.saturating_duration_since(peer.heard_at) <= 4 * peer.interval.duration();
    let is_known = router.state() != State::Fault || router.peers().any(|(address, peer)| *address == active && is_heard(peer));
    is_known.then_some(active)
}

/// Who has an address, as far as is known: an active router names those that it has.
fn holder(router: &Router, address: IpAddr, now: Instant) -> Option<IpAddr> {
    if router.held().contains(&address) {
        return Some(router.settings().primary);
    }
    let active = active(router, now)?;
    router.peers().find(|(peer, _)| **peer == active).filter(|(_, peer)| peer.addresses.contains(&address)).map(|_| active)
}

/// What differs may be the same again since the last advert.
fn is_still(router: &Router, peer: &Peer, conflict: Conflict) -> bool {
    match conflict {
        Conflict::Addresses => peer.addresses != *router.addresses(),
        Conflict::Interval => peer.interval != router.settings().interval,
        Conflict::Owner | Conflict::SameAddress | Conflict::Beside | Conflict::DoesNotHear => true,
    }
}
