//! A virtual router with its keys, and what it is told. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::{Duration, Instant},
};

use super::{
    defence::Defence,
    desk::{Doing, LinkState, Moment},
    order::{AddressOrder, Changed, Conflicting, HeardNumber, Memory, PreemptOrder, RefusedView, Resume, RouterOrder, Said, ToldState},
};
use crate::vrrp::{
    addresses::{AddressList, virtual_mac},
    auth::{Epoch, Heard, Key, KeyId, Keys, Opener, Sealer, is_sealed},
    machine::{Conflict, FaultCause, Link, Output, Reason, Router, State},
    packet::{self, Authentication, ChecksumForm, Ends, HOP_LIMIT, Received},
    refusal::Refusal,
    settings::{Announcing, Claims, Identity, Preempt, Reach, Settings},
    terms::{Family, Interval, Priority, RouterId, Version},
    timing,
    track::Standing,
};

#[derive(Debug)]
pub(super) struct Member {
    pub(super) order: RouterOrder,
    /// None while the interface has no address to speak from.
    pub(super) router: Option<Router>,
    pub(super) lacks: Option<String>,
    pub(super) lacks_since: Instant,
    sealer: Option<Sealer>,
    opener: Option<Opener>,
    /// That of its adverts with a MAC.
    epoch: Epoch,
    pub(super) refused: BTreeMap<Refusal, Refused>,
    pub(super) defence: Defence,
    /// The checksum of who was heard last: who takes one form only sends that.
    heard_form: Option<ChecksumForm>,
    /// It ends, and goes then.
    pub(super) is_leaving: bool,
    /// The process before told of the same state.
    pub(super) goes_on: Option<GoesOn>,
}

/// A state that began in another process.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct GoesOn {
    pub(super) told: ToldState,
    /// When it began in this one.
    pub(super) since: Instant,
}

/// Adverts that counted for nothing, for one reason.
#[derive(Clone, Copy, Debug)]
pub(super) struct Refused {
    pub(super) count: u64,
    source: IpAddr,
    last_at: Instant,
    /// Whether the daemon knows.
    is_told: bool,
}

/// So long after the last one the daemon is told that adverts of a kind come no longer.
const REFUSED_FOR: Duration = Duration::from_secs(10);
/// So many kinds are told at a time: of other routers' numbers alone there are 255.
const MOST_REFUSALS_TOLD: usize = 8;
/// Addresses that are named of those by which two routers differ.
const MOST_NAMED: usize = 8;

impl Member {
    /// `memory` is of an earlier router of the name; without one that of an earlier speaker counts.
    pub(super) fn new(order: RouterOrder, memory: Option<Memory>, at: Moment) -> Self {
        let keys = ring(&order);
        let memory = memory.or_else(|| order.resume.as_ref().map(|resume| resume.memory.clone())).unwrap_or_default();
        let epoch = Epoch::after(memory.epoch.map(Epoch::new), at.wall);
        let heard = memory.heard.into_iter().map(|HeardNumber { source, key, epoch, number }| Heard {
            source,
            key: KeyId::new(key),
            epoch: Epoch::new(epoch),
            number,
        });
        let mut opener = keys.clone().map(Opener::new);
        if let Some(opener) = &mut opener {
            opener.restore(heard);
        }
        Self {
            sealer: keys.map(|keys| Sealer::new(keys, epoch)),
            opener,
            epoch,
            order,
            router: None,
            lacks: None,
            lacks_since: at.now,
            refused: BTreeMap::new(),
            defence: Defence::default(),
            heard_form: None,
            is_leaving: false,
            goes_on: None,
        }
    }

    /// What the next router of this name has to know of numbers; none without keys.
    pub(super) fn memory(&self) -> Option<Memory> {
        let number = |Heard { source, key, epoch, number }| HeardNumber { source, key: key.number(), epoch: epoch.number(), number };
        let heard = self.opener.as_ref()?.heard().map(number).collect();
        Some(Memory { epoch: Some(self.epoch.number()), heard })
    }

    pub(super) fn family(&self) -> Option<Family> {
        self.order.addresses.first().map(|first| Family::of(first.address))
    }

    /// The link-layer address of its own, if it is to have one.
    pub(super) fn virtual_mac(&self) -> Option<[u8; 6]> {
        self.order.virtual_mac.as_ref().and_then(|_| Some(virtual_mac(RouterId::new(self.order.router_id)?, self.family()?)))
    }

    /// When something is due.
    pub(super) fn poll_timeouts(&self) -> impl Iterator<Item = Instant> {
        self.router.as_ref().and_then(Router::poll_timeout).into_iter().chain(self.defence.poll_timeout())
    }

    pub(super) fn follow_keys(&mut self, wanted: &RouterOrder) {
        if (&wanted.keys, wanted.key) == (&self.order.keys, self.order.key) {
            return;
        }
        // Keys come or go with a restart of the router: see `is_same_router`.
        if let (Some(keys), Some(sealer), Some(opener)) = (ring(wanted), &mut self.sealer, &mut self.opener) {
            sealer.set_keys(keys.clone());
            opener.set_keys(keys);
        }
    }

    /// The address that adverts come from.
    pub(super) fn primary(&self, link: Option<&LinkState>) -> Option<IpAddr> {
        let link = link?;
        if let Some(source) = self.order.source {
            return link.own.contains(&source).then_some(source);
        }
        // RFC 9568 s5.1.2.1: from the link-local address, unless the peers are elsewhere. While it is still tentative there is none.
        let wants_local = self.order.peers.iter().next().is_none_or(is_link_local);
        let is_wrong_scope = |address: &IpAddr| address.is_ipv6() && is_link_local(address) != wants_local;
        // An owner has its addresses for itself, beside the one that adverts come from if there is another one.
        let is_virtual = |address: &IpAddr| self.order.addresses.iter().any(|own| own.address == *address);
        let is_usable =
            |address: &IpAddr| self.family() == Some(Family::of(*address)) && !(self.order.peers.is_empty() && is_wrong_scope(address));
        let of_family = link.own.iter().filter(|address| is_usable(address));
        of_family.min_by_key(|address| (is_wrong_scope(address), is_virtual(address))).copied()
    }

    /// Both nodes have the same list, from which each leaves itself out: nothing may be left.
    pub(super) fn speaks_to_nobody(&self) -> Option<String> {
        let is_own = |peer: &IpAddr| self.router.as_ref().is_some_and(|router| router.settings().primary == *peer);
        let is_alone = !self.order.peers.is_empty() && self.order.peers.iter().all(is_own);
        is_alone.then(|| "peers names this node alone: no other one hears it".into())
    }

    /// Why there is none.
    pub(super) fn lacks_source(&self, link: Option<&LinkState>) -> String {
        match (link, self.order.source) {
            (None, _) => "is not there".into(),
            (Some(_), Some(source)) => format!("has not the address {source}, the source of its adverts"),
            (Some(_), None) if self.family() == Some(Family::V6) && self.order.peers.is_empty() => {
                "has no link-local address to speak from".into()
            }
            (Some(_), None) => "has no address to speak from".into(),
        }
    }

    fn authentication(&self) -> Authentication {
        self.order.password.map_or(Authentication::None, Authentication::Password)
    }

    pub(super) fn settings(&self, primary: IpAddr, claims: Claims, at: Moment) -> Option<Settings> {
        let order = &self.order;
        let ms = Duration::from_millis;
        let peers: BTreeSet<IpAddr> = order.peers.iter().copied().filter(|peer| *peer != primary).collect();
        let is_resuming = self.router.is_none() && self.resumes(at);
        Some(Settings {
            primary,
            interval: Interval::new(ms(order.interval_ms), version(order)).ok()?,
            reach: if order.peers.is_empty() { Reach::Multicast } else { Reach::Unicast(peers) },
            preempt: match order.preempt {
                PreemptOrder::AtOnce => Preempt::AtOnce,
                PreemptOrder::Never => Preempt::Never,
                PreemptOrder::AfterMs(delay) => Preempt::After(ms(delay)),
            },
            start_delay: if is_resuming { Duration::ZERO } else { ms(order.start_delay_ms) },
            yield_hold: order.yield_hold_ms.map(ms),
            announcing: Announcing {
                again_after: order.announce_again_ms.map(ms),
                every: order.announce_every_ms.map(ms),
                least_gap: ms(order.announce_gap_ms),
            },
            claims,
        })
    }

    /// Whether nobody can have taken over since an earlier speaker ended.
    fn resumes(&self, at: Moment) -> bool {
        let until_ms = self.order.resume.as_ref().and_then(|resume: &Resume| resume.active_until_ms);
        until_ms.is_some_and(|until_ms| at.boot < Duration::from_millis(until_ms))
    }

    /// The addresses that an earlier process left.
    pub(super) fn held_before(&self, links: &BTreeMap<String, LinkState>) -> Vec<IpAddr> {
        let is_there = |one: &&AddressOrder| links.get(&one.device).is_some_and(|link| link.marked.contains(&one.address));
        self.order.addresses.iter().filter(is_there).map(|one| one.address).collect()
    }

    pub(super) fn begin(&mut self, settings: Settings, standing: Standing, has_carrier: bool, held: &[IpAddr], at: Moment) {
        let (Some(id), Some(list)) = (RouterId::new(self.order.router_id), list(&self.order)) else { return };
        let identity = Identity { router: id, version: version(&self.order) };
        let base = Priority::new(self.order.priority).unwrap_or(Priority::LOWEST);
        let (priority, is_faulty) = match standing {
            Standing::Fit(priority) => (priority, false),
            Standing::Faulty => (base, true),
        };
        let interval = settings.interval.duration();
        let is_resuming = self.resumes(at) && held.len() == self.order.addresses.len() && has_carrier && !is_faulty;
        let mut router = match Router::new(identity, settings, priority, list, at.now) {
            Ok(router) => router,
            Err(error) => {
                (self.lacks, self.lacks_since) = (Some(error.to_string()), at.now);
                return;
            }
        };
        self.lacks = None;
        if is_faulty {
            router.handle_fault(FaultCause::Tracked, at.now);
        }
        if !has_carrier {
            router.handle_link(Link::Down, at.now);
        }
        // The process before has listened, too.
        let began = at.now.checked_sub(timing::active_down(identity.version, priority, interval)).filter(|_| is_resuming);
        router.handle_start(held, began.unwrap_or(at.now));
        let resume = self.order.resume.take().unwrap_or_default();
        if resume.is_on_hold {
            router.handle_yield(at.now);
        }
        router.handle_timeout(at.now);
        self.goes_on = resume.told.filter(|told| told.state == word(router.state())).map(|told| GoesOn { told, since: router.since().0 });
        self.router = Some(router);
    }

    pub(super) fn adapt(&mut self, settings: Settings, standing: Standing, has_carrier: bool, now: Instant) {
        let addresses = list(&self.order);
        let Some(router) = &mut self.router else { return };
        let mut result = Ok(());
        if *router.settings() != settings {
            result = router.handle_settings(settings, now);
        }
        if let Some(addresses) = addresses.filter(|addresses| addresses != router.addresses()) {
            result = result.and(router.handle_addresses(addresses, now));
        }
        self.lacks = result.err().map(|error| error.to_string()).or(self.lacks.take().filter(|_| {
            // What the kernel refused is told until it takes it.
            router.faults().contains(&FaultCause::Driver)
        }));
        router.handle_fault_over(FaultCause::Source, now);
        match standing {
            Standing::Fit(priority) => {
                router.handle_priority(priority, now);
                router.handle_fault_over(FaultCause::Tracked, now);
            }
            Standing::Faulty => router.handle_fault(FaultCause::Tracked, now),
        }
        let is_down = router.faults().contains(&FaultCause::Link);
        match has_carrier {
            true if is_down => router.handle_link(Link::Up, now),
            false if !is_down => router.handle_link(Link::Down, now),
            true | false => {}
        }
    }

    pub(super) fn hear(&mut self, received: &Received<'_>, now: Instant) -> Result<(), Refusal> {
        let authentication = self.authentication();
        if self.opener.is_none() && is_sealed(received.payload) {
            return Err(Refusal::Sealed);
        }
        let opened = match &mut self.opener {
            Some(opener) => opener.open(received)?,
            None => Received { ..*received },
        };
        // Peers that are no neighbours, or send like any other packet, are taken for neighbours as far as was chosen.
        let is_near = opened.hop_limit >= self.order.min_hop_limit;
        let opened = Received { hop_limit: if is_near { HOP_LIMIT } else { opened.hop_limit }, ..opened };
        let advert = packet::decode(&opened, version(&self.order), authentication)?;
        self.heard_form = packet::checksum_form_of(&opened).or(self.heard_form);
        match &mut self.router {
            Some(router) => router.handle_advert(received.ends.source, &advert, now),
            None => Ok(()),
        }
    }

    /// Counts an advert that counts for nothing. The first of a kind is told: whoever sends it may be active, too.
    pub(super) fn refuse(&mut self, name: &str, source: IpAddr, refusal: Refusal, now: Instant) -> Option<Doing> {
        let is_told = |(refusal, refused): &(&Refusal, &Refused)| refused.is_told && concerns(**refusal);
        let has_room = self.refused.iter().filter(is_told).count() < MOST_REFUSALS_TOLD;
        let refused = self.refused.entry(refusal).or_insert(Refused { count: 0, source, last_at: now, is_told: false });
        (refused.count, refused.source, refused.last_at) = (refused.count + 1, source, now);
        let is_news = !refused.is_told && has_room && concerns(refusal);
        refused.is_told |= has_room;
        is_news.then(|| self.conflict(name, source, &refusal_words(refusal), false))
    }

    /// Which refusals are over.
    pub(super) fn accept(&mut self, name: &str, now: Instant) -> Vec<Doing> {
        let is_over = |refused: &&mut Refused| refused.is_told && now.saturating_duration_since(refused.last_at) > REFUSED_FOR;
        let mut over = Vec::new();
        for (refusal, refused) in &mut self.refused {
            if let Some(refused) = Some(refused).filter(is_over) {
                refused.is_told = false;
                over.push((*refusal, refused.source));
            }
        }
        over.into_iter()
            .filter(|(refusal, _)| concerns(*refusal))
            .map(|(refusal, source)| self.conflict(name, source, &refusal_words(refusal), true))
            .collect()
    }

    /// Those that go on.
    pub(super) fn refusing(&self, now: Instant) -> Vec<RefusedView> {
        let view = |(refusal, refused): (&Refusal, &Refused)| RefusedView {
            source: refused.source,
            why: refusal.to_string(),
            heard_ms_ago: now.saturating_duration_since(refused.last_at).as_millis() as u64,
        };
        self.refused.iter().filter(|(refusal, refused)| refused.is_told && concerns(**refusal)).map(view).collect()
    }

    /// Those of the router's addresses, as the kernel gets them.
    pub(super) fn among(&self, addresses: impl IntoIterator<Item = IpAddr>) -> Vec<AddressOrder> {
        let of = |address: IpAddr| self.order.addresses.iter().find(|one| one.address == address).cloned();
        // One that the order names no longer is removed wherever it is: see `Leases::take`.
        let stray = |address| AddressOrder { address, prefix_len: 0, device: self.order.interface.clone(), label: None };
        addresses.into_iter().map(|address| of(address).unwrap_or_else(|| stray(address))).collect()
    }

    /// Whether it is in the state that the process before told of.
    pub(super) fn going_on(&self) -> Option<&ToldState> {
        let router = self.router.as_ref()?;
        let is_it = |goes_on: &&GoesOn| goes_on.since == router.since().0 && goes_on.told.state == word(router.state());
        self.goes_on.as_ref().filter(is_it).map(|goes_on| &goes_on.told)
    }

    /// What it has and what is to be in another place, or of another prefix or label. An interface has an address but once; another one has it before the
    /// first gives it up.
    pub(super) fn moving(&self, name: &str, wanted: &RouterOrder) -> Vec<Doing> {
        let Some(held) = self.router.as_ref().map(Router::held) else { return Vec::new() };
        let before = |to: &AddressOrder| self.order.addresses.iter().find(|from| from.address == to.address && *from != to);
        let moved =
            wanted.addresses.iter().filter(|to| held.contains(&to.address)).filter_map(|to| Some((before(to)?.clone(), to.clone())));
        let (here, elsewhere): (Vec<_>, Vec<_>) = moved.partition(|(from, to)| from.device == to.device);
        let mut doings = Vec::new();
        for (moves, is_here) in [(here, true), (elsewhere, false)] {
            let (from, to): (Vec<_>, Vec<_>) = moves.into_iter().unzip();
            if from.is_empty() {
                continue;
            }
            let remove = [Doing::Remove { addresses: from, is_handed_over: false }];
            let add = [Doing::Add { router: name.to_owned(), addresses: to.clone() }, Doing::Announce { addresses: to }];
            if is_here {
                doings.extend(remove.into_iter().chain(add));
            } else {
                doings.extend(add.into_iter().chain(remove));
            }
        }
        doings
    }

    pub(super) fn doing(&mut self, name: &str, output: Output) -> Doing {
        match output {
            Output::Send { advert, to } => {
                let source = self.router.as_ref().map_or(to, |router| router.settings().primary);
                let ends = Ends { source, destination: to };
                let chosen = self.order.has_pseudo_header.map(|has| if has { ChecksumForm::PseudoHeader } else { ChecksumForm::Message });
                let form = chosen.or(self.heard_form).unwrap_or(ChecksumForm::Message);
                let message = advert.encode(ends, form, self.authentication());
                let payload = match &mut self.sealer {
                    Some(sealer) => sealer.seal(message, ends),
                    None => message,
                };
                // One that hands over must not draw frames here any more that go to the other already.
                let is_active = self.router.as_ref().is_some_and(|router| router.state() == State::Active);
                let mac = self.virtual_mac().filter(|_| is_active && to.is_multicast());
                Doing::Transmit { interface: self.order.interface.clone(), mac, ends, payload }
            }
            Output::AddAddresses(addresses) => Doing::Add { router: name.to_owned(), addresses: self.among(addresses) },
            Output::RemoveAddresses(addresses) => {
                let reason = self.router.as_ref().map(|router| router.since().1);
                Doing::Remove { addresses: self.among(addresses), is_handed_over: reason.is_some_and(is_handed_over) }
            }
            Output::Announce(addresses) => Doing::Announce { addresses: self.among(addresses) },
            Output::Transition(transition) => {
                let priority = self.router.as_ref().map_or(self.order.priority, |router| router.priority().number());
                Doing::Say(Said::Changed(Changed {
                    router: name.to_owned(),
                    from: word(transition.from).into(),
                    to: word(transition.to).into(),
                    reason: self.lacks.clone().unwrap_or_else(|| transition.reason.to_string()),
                    priority,
                }))
            }
            Output::Conflict(peer, what) => {
                let words = self.router.as_ref().map_or_else(|| what.to_string(), |router| conflict_words(router, peer, what));
                self.conflict(name, peer, &words, false)
            }
            Output::ConflictOver(peer, what) => self.conflict(name, peer, &what.to_string(), true),
        }
    }

    pub(super) fn conflict(&self, name: &str, peer: impl Into<Option<IpAddr>>, what: &str, is_over: bool) -> Doing {
        Doing::Say(Said::Conflict(Conflicting { router: name.to_owned(), peer: peer.into(), what: what.to_owned(), is_over }))
    }
}

/// Whether another node has the addresses, and has told the link.
fn is_handed_over(reason: Reason) -> bool {
    matches!(reason, Reason::HandedOver(_) | Reason::HigherPriority(_) | Reason::GreaterAddress(_))
}

/// Whether a refusal may mean that another node does not belong here, or that this one does not hear it. An advert with this node's own address is a
/// conflict of another kind.
fn concerns(refusal: Refusal) -> bool {
    !matches!(refusal, Refusal::NotRunning | Refusal::OwnAddress | Refusal::OtherRouter)
}

fn refusal_words(refusal: Refusal) -> String {
    format!("its adverts count for nothing: {refusal}")
}

/// A conflict, and which addresses it is about.
pub(super) fn conflict_words(router: &Router, peer: IpAddr, conflict: Conflict) -> String {
    let Some((_, peer)) = router.peers().find(|(address, _)| conflict == Conflict::Addresses && **address == peer) else {
        return conflict.to_string();
    };
    let (here, there) = (router.addresses(), &peer.addresses);
    let only = |of: &AddressList, other: &AddressList| {
        of.as_slice().iter().filter(|one| !other.contains(one)).map(ToString::to_string).collect::<Vec<_>>()
    };
    let sides = [("only there", only(there, here)), ("only here", only(here, there))];
    let sides: Vec<String> =
        sides.into_iter().filter(|(_, list)| !list.is_empty()).map(|(side, list)| format!("{side} {}", first_of(&list))).collect();
    format!("{conflict}: {}", sides.join("; "))
}

/// Some of them in words: an advert names up to 255.
fn first_of(addresses: &[String]) -> String {
    match addresses.split_at_checked(MOST_NAMED) {
        Some((first, rest)) if !rest.is_empty() => format!("{} and {} more", first.join(", "), rest.len()),
        Some(_) | None => addresses.join(", "),
    }
}

fn is_link_local(address: &IpAddr) -> bool {
    matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local())
}

/// As views call a state.
pub(super) fn word(state: State) -> &'static str {
    match state {
        State::Initialize => "stopped",
        State::Fault => "fault",
        State::Backup => "backup",
        State::HeldOver => "held-over",
        State::Active => "active",
        State::Yielding => "yielding",
    }
}

/// Whether a running router can become the other.
pub(super) fn is_same_router(one: &RouterOrder, other: &RouterOrder) -> bool {
    let family = |order: &RouterOrder| order.addresses.first().map(|first| Family::of(first.address));
    (&one.interface, one.router_id, one.version, family(one), one.keys.is_empty())
        == (&other.interface, other.router_id, other.version, family(other), other.keys.is_empty())
}

fn version(order: &RouterOrder) -> Version {
    if order.version == 2 { Version::V2 } else { Version::V3 }
}

fn list(order: &RouterOrder) -> Option<AddressList> {
    AddressList::new(&order.addresses.iter().map(|one| one.address).collect::<Vec<_>>()).ok()
}

fn ring(order: &RouterOrder) -> Option<Keys> {
    let keys: BTreeMap<KeyId, Key> =
        order.keys.iter().filter_map(|(id, secret)| Some((KeyId::new(*id), Key::new(secret.as_bytes()).ok()?))).collect();
    Keys::new(keys, KeyId::new(order.key)).ok()
}
