//! The routers whose adverts are heard, and what is wrong with them.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::{Duration, Instant},
};

use super::output::Conflict;
use crate::vrrp::{
    addresses::AddressList,
    packet::Advert,
    terms::{AdvertPriority, Interval},
};

/// Peers that are remembered; then the one of which fewest adverts came is forgotten.
pub const MOST_REMEMBERED: usize = 64;

/// A peer that said no more than so is forgotten after a while: it was a stray, or forged.
const FEW_ADVERTS: u64 = 3;
const FORGOTTEN_AFTER: Duration = Duration::from_secs(60);

/// Of so many peers conflicts are told: anybody can forge more.
const MOST_TOLD: usize = 4;
/// A conflict is told to be over when the peer's adverts have not shown it for so long, or three of its intervals: one that comes and goes is told once.
const TOLD_FOR: Duration = Duration::from_secs(10);

/// So many adverts in a row without precedence mean that a peer does not step down.
const ADVERTS_WITHOUT_HEARING: u8 = 4;

/// What is known of a router that has been active.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Peer {
    /// Its priority in its last advert.
    pub priority: AdvertPriority,
    /// Its interval.
    pub interval: Interval,
    /// Its addresses.
    pub addresses: AddressList,
    /// When the last advert came.
    pub heard_at: Instant,
    /// How many came.
    pub adverts: u64,
    /// What was wrong with it in its last advert, of what was told.
    pub conflicts: BTreeSet<Conflict>,
    /// What was told, and when it was so last.
    told: BTreeMap<Conflict, Instant>,
    /// Adverts in a row that this router's precedence should have ended.
    unheeded: u8,
    /// Adverts in a row while another one was active as well.
    beside: u8,
}

/// How a peer's advert compares with this router.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Compared<'a> {
    pub(super) addresses: &'a AddressList,
    pub(super) interval: Interval,
    pub(super) is_owner: bool,
    /// This router is active and has precedence.
    pub(super) has_precedence: bool,
}

/// A conflict that began or ended.
pub(super) type Change = (IpAddr, Conflict, bool);

#[derive(Clone, Debug, Default)]
pub(super) struct Peers {
    known: BTreeMap<IpAddr, Peer>,
}

impl Peers {
    pub(super) fn iter(&self) -> impl Iterator<Item = (&IpAddr, &Peer)> {
        self.known.iter()
    }

    /// Takes an advert; what conflicts began or ended.
    pub(super) fn hear(&mut self, source: IpAddr, advert: &Advert, with: Compared<'_>, now: Instant) -> Vec<Change> {
        let is_active = |peer: &Peer| {
            matches!(peer.priority, AdvertPriority::Holds(_)) && now.saturating_duration_since(peer.heard_at) < 2 * peer.interval.duration()
        };
        let is_beside = matches!(advert.priority, AdvertPriority::Holds(_))
            && self.known.iter().any(|(other, peer)| *other != source && is_active(peer));
        let has_room = self.has_room(source);
        let peer = self.peer(source, advert, now);
        peer.beside = if is_beside { peer.beside.saturating_add(1) } else { 0 };
        peer.adverts += 1;
        (peer.priority, peer.interval, peer.heard_at) = (advert.priority, advert.interval, now);
        if peer.addresses != advert.addresses {
            peer.addresses = advert.addresses.clone();
        }
        peer.unheeded = if with.has_precedence { peer.unheeded.saturating_add(1) } else { 0 };
        let is_owner = matches!(advert.priority, AdvertPriority::Holds(priority) if priority.is_owner());
        let wrong = [
            (Conflict::Addresses, !advert.addresses.is_same_set(with.addresses)),
            (Conflict::Interval, advert.interval != with.interval),
            (Conflict::Owner, is_owner && with.is_owner),
            (Conflict::SameAddress, false),
            (Conflict::Beside, peer.beside >= ADVERTS_WITHOUT_HEARING),
            (Conflict::DoesNotHear, peer.unheeded >= ADVERTS_WITHOUT_HEARING),
        ];
        wrong
            .into_iter()
            .filter(|(_, is_so)| has_room || !is_so)
            .filter_map(|(conflict, is_so)| peer.set(source, conflict, is_so, now))
            .collect()
    }

    /// Notes an advert from this router's own address.
    pub(super) fn hear_same_address(&mut self, source: IpAddr, advert: &Advert, now: Instant) -> Vec<Change> {
        let has_room = self.has_room(source);
        let peer = self.peer(source, advert, now);
        peer.heard_at = now;
        if has_room { peer.set(source, Conflict::SameAddress, true, now).into_iter().collect() } else { Vec::new() }
    }

    /// Whether conflicts with this one may be told.
    fn has_room(&self, source: IpAddr) -> bool {
        self.known.iter().filter(|(other, peer)| **other != source && !peer.told.is_empty()).count() < MOST_TOLD
    }

    /// Ends the conflicts that have not been seen for a while; forgets peers that were heard hardly ever.
    pub(super) fn expire(&mut self, now: Instant) -> Vec<Change> {
        let mut over = Vec::new();
        for (source, peer) in &mut self.known {
            let lasts = TOLD_FOR.max(3 * peer.interval.duration());
            if now.saturating_duration_since(peer.heard_at) > lasts {
                (peer.unheeded, peer.beside) = (0, 0);
                peer.conflicts.clear();
            }
            let ended = peer.told.extract_if(.., |_, seen_at| now.saturating_duration_since(*seen_at) > lasts);
            over.extend(ended.map(|(conflict, _)| (*source, conflict, false)));
        }
        self.known.retain(|_, peer| {
            peer.adverts > FEW_ADVERTS || !peer.told.is_empty() || now.saturating_duration_since(peer.heard_at) <= FORGOTTEN_AFTER
        });
        over
    }

    fn peer(&mut self, source: IpAddr, advert: &Advert, now: Instant) -> &mut Peer {
        if self.known.len() >= MOST_REMEMBERED && !self.known.contains_key(&source) {
            // A flood of forged sources must not push out those that are there.
            let least =
                self.known.iter().min_by_key(|(_, peer)| (!peer.told.is_empty(), peer.adverts, peer.heard_at)).map(|(source, _)| *source);
            least.and_then(|least| self.known.remove(&least));
        }
        self.known.entry(source).or_insert_with(|| Peer {
            priority: advert.priority,
            interval: advert.interval,
            addresses: advert.addresses.clone(),
            heard_at: now,
            adverts: 0,
            conflicts: BTreeSet::new(),
            told: BTreeMap::new(),
            unheeded: 0,
            beside: 0,
        })
    }
}

impl Peer {
    fn set(&mut self, source: IpAddr, conflict: Conflict, is_so: bool, now: Instant) -> Option<Change> {
        if !is_so {
            self.conflicts.remove(&conflict);
            return None;
        }
        self.conflicts.insert(conflict);
        let is_news = self.told.insert(conflict, now).is_none();
        is_news.then_some((source, conflict, true))
    }
}
