//! Who else claims the addresses of routers that are active here.

use std::{collections::BTreeMap, time::Instant};

use super::{Desk, Doing};
use crate::{
    speaker::{
        claim::{Claim, Watch},
        member::Member,
    },
    vrrp::{
        machine::{Router, State},
        terms::Family,
    },
};

impl Desk {
    /// What has to be listened for, on which link.
    pub(in crate::speaker) fn watches(&self) -> BTreeMap<(String, Family), Watch> {
        let mut watches: BTreeMap<(String, Family), Watch> = BTreeMap::new();
        for member in self.members.values().filter(|member| active_since(member).is_some()) {
            for address in &member.order.addresses {
                let Some(place) = self.heard_on(&address.device) else { continue };
                let Some(link) = self.links.get(place) else { continue };
                let watch = watches.entry((place.to_owned(), Family::of(address.address))).or_default();
                watch.ifindex = link.ifindex;
                watch.addresses.insert(address.address);
                watch.own.extend(link.mac);
                watch.own.extend(member.virtual_mac());
            }
        }
        watches
    }

    /// Others claim addresses: all that were heard in a round, which are answered together.
    pub(in crate::speaker) fn handle_claims(&mut self, claims: &[Claim], now: Instant) {
        for claim in claims.iter().filter(|claim| !self.is_own(claim.mac)).copied().collect::<Vec<_>>() {
            for member in self.members.values_mut() {
                let has_address = member.router.as_ref().is_some_and(|router| router.held().contains(&claim.address));
                if let Some(since) = active_since(member).filter(|_| has_address) {
                    member.defence.hear(claim.address, claim.mac, since, now);
                }
            }
        }
    }

    /// Announces what is still claimed.
    pub(super) fn defend(&mut self, now: Instant) {
        let due = self.members.iter_mut().filter_map(|(name, member)| member.defence.handle_timeout(now).then(|| name.clone()));
        for name in due.collect::<Vec<_>>() {
            self.with_router(&name, now, Router::handle_claim);
        }
    }

    /// Says which claims began, and which are over.
    pub(super) fn tell_claims(&mut self, now: Instant) {
        for (name, member) in &mut self.members {
            let news = member.defence.news(active_since(member), now);
            let tell = |(words, is_over): (String, bool)| -> Doing { member.conflict(name, None, &words, is_over) };
            self.doings.extend(news.into_iter().map(tell));
        }
    }

    /// The link that frames to a device come by first: below a macvlan.
    fn heard_on<'a>(&'a self, device: &'a str) -> Option<&'a str> {
        let Some(lower) = self.links.get(device)?.macvlan_on else { return Some(device) };
        self.links.iter().find(|(_, link)| link.ifindex == lower).map(|(name, _)| name.as_str())
    }

    /// Whether a link-layer address is of this node, on whichever link: two of its links may be on one switch.
    fn is_own(&self, mac: [u8; 6]) -> bool {
        self.links.values().any(|link| link.mac == Some(mac)) || self.members.values().any(|member| member.virtual_mac() == Some(mac))
    }
}

fn active_since(member: &Member) -> Option<Instant> {
    let router = member.router.as_ref().filter(|router| router.state() == State::Active)?;
    Some(router.since().0)
}
