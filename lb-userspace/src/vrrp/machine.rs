//! One virtual router on one interface: who has the addresses (RFC 9568 s6). Pure.
//!
//! ```text
//!                      ┌──────────────── fault ────────────────┐
//!               start  │           silence, or resigned        │
//!   Initialize ──────→ Backup ────────────────────────────→ Active ←───┐
//!       ↑  │             ↑ ↑ precedence of another, or late ───┘ │     │ nobody took over
//!       │  │ start, with │ └─────────── another is active ─────┐ │     │
//!       │  └ addresses → HeldOver ── silence ──→ Active        │ ↓     │
//!       └──────────────── handed over, when stopped ───────── Yielding ┘
//! ```
//!
//! **Make before break.** A router that yields says priority 0 in every interval and keeps the addresses until another one adverts, which it
//! does when it has them; only then are they removed. It announces nothing meanwhile, for that would draw the link back. Whoever becomes
//! active adds the addresses, announces them, and adverts, in this order: the former one gives them up because of that advert, when the
//! link already knows the new place, so that no moment is without a holder. A fault that leaves it its link ([`FaultCause::Tracked`],
//! [`FaultCause::Group`]) is handed over likewise, and comes to pass when another one has the addresses, or nobody took them in time.
//!
//! **Lateness.** An active router whose advert is later than any backup waits has been suspended. It does not serve on: it becomes backup
//! without a word, and listens for a whole active-down interval. A backup that wakes so late has heard nothing because it slept: it listens
//! anew as well.
//!
//! **Restart.** Addresses that an earlier process left are kept while nobody else is heard ([`State::HeldOver`]).
//!
//! **Black holes.** Two nodes that both had the addresses have both told the link so, or answered for them, and who heard whom first decides
//! whether the one that stays knows. So a router that gives way to another adverts once more: with its own priority if it was active, with the
//! lowest if it held addresses over. Neither takes precedence, and the other one answers such adverts by announcing the addresses again.
//!
//! Two things differ from the RFCs so that editing one node does not make two active: other addresses, and in version 2 another interval, are
//! [`Conflict`]s and no reason to drop an advert (RFC 3768 s7.1 drops the latter); the interval is adopted in both versions.

mod announcer;
mod hearing;
mod output;
mod peers;
mod roles;
mod view;

use std::{
    collections::{BTreeSet, VecDeque},
    net::IpAddr,
    time::{Duration, Instant},
};

use self::{
    announcer::Announcer,
    peers::Peers,
    roles::{Easing, Role},
};
pub use self::{
    output::{Conflict, FaultCause, Output, Reason, State, Transition},
    peers::{MOST_REMEMBERED, Peer},
};
use super::{
    addresses::AddressList,
    settings::{Identity, Settings, SetupError},
    terms::{AdvertPriority, Priority},
    timing,
};

/// Whether a link carries frames.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Link {
    /// It does, or does again.
    Up,
    /// It does not.
    Down,
}

/// What has been counted since the router was made.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Tally {
    /// Adverts that went out, one for each destination.
    pub sent: u64,
    /// Adverts that were taken.
    pub heard: u64,
    /// How often it became active.
    pub became_active: u64,
}

/// After a router yielded it does not preempt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Hold {
    Until(Instant),
    UntilReady,
}

/// A virtual router.
#[derive(Debug)]
pub struct Router {
    identity: Identity,
    settings: Settings,
    priority: Priority,
    addresses: AddressList,
    /// What this node has of them.
    held: BTreeSet<IpAddr>,
    faults: BTreeSet<FaultCause>,
    role: Role,
    since: Instant,
    reason: Reason,
    /// The active router's interval (`Active_Adver_Interval`).
    active_interval: Duration,
    /// Nothing is claimed before.
    claims_from: Option<Instant>,
    /// A router of lower priority is left alone until then.
    preempts_from: Option<Instant>,
    hold: Option<Hold>,
    easing: Option<Easing>,
    /// Who was heard as active last.
    following: Option<IpAddr>,
    announcer: Announcer,
    answered_at: Option<Instant>,
    peers: Peers,
    tally: Tally,
    outputs: VecDeque<Output>,
}

impl Router {
    /// A router that has not been started.
    ///
    /// # Errors
    /// If the settings and the addresses do not fit together.
    pub fn new(
        identity: Identity,
        settings: Settings,
        priority: Priority,
        addresses: AddressList,
        now: Instant,
    ) -> Result<Self, SetupError> {
        settings.check(identity, &addresses)?;
        let faults = addresses.is_empty().then_some(FaultCause::NoAddresses).into_iter().collect();
        let active_interval = settings.interval.duration();
        Ok(Self {
            identity,
            settings,
            priority,
            addresses,
            held: BTreeSet::new(),
            faults,
            role: Role::Initialize,
            since: now,
            reason: Reason::Stopped,
            active_interval,
            claims_from: None,
            preempts_from: None,
            hold: None,
            easing: None,
            following: None,
            announcer: Announcer::default(),
            answered_at: None,
            peers: Peers::default(),
            tally: Tally::default(),
            outputs: VecDeque::new(),
        })
    }

    /// Starts. `held` are the addresses that an earlier process left on the interface: those that are this router's are kept until another
    /// router is heard, all others are removed.
    pub fn handle_start(&mut self, held: &[IpAddr], now: Instant) {
        if self.role != Role::Initialize {
            return;
        }
        let (ours, strays): (Vec<_>, Vec<_>) = held.iter().copied().partition(|address| self.addresses.contains(address));
        if !strays.is_empty() {
            self.outputs.push_back(Output::RemoveAddresses(strays));
        }
        self.held = ours.into_iter().collect();
        self.claims_from = (!self.settings.start_delay.is_zero()).then(|| now + self.settings.start_delay);
        match self.faults.first() {
            Some(cause) => self.become_faulty(*cause, now),
            None => self.begin(Reason::Started, now),
        }
    }

    /// Ends, with a hand-over if it is active: it has ended when its state is [`State::Initialize`].
    pub fn handle_stop(&mut self, now: Instant) {
        self.handle_lateness(now);
        match &mut self.role {
            Role::Initialize => {}
            Role::Fault | Role::Backup(_) => self.leave(Role::Initialize, Reason::Stopped, now),
            Role::Active { .. } => self.become_yielding(roles::Then::Stop, Reason::Stopped, now),
            Role::Yielding(yielding) => yielding.then = roles::Then::Stop,
        }
    }

    /// Ends at once: an active router resigns and gives up its addresses without waiting for anybody.
    pub fn handle_halt(&mut self, now: Instant) {
        self.handle_lateness(now);
        if self.role != Role::Initialize {
            self.resign();
            self.leave(Role::Initialize, Reason::Stopped, now);
        }
    }

    /// Hands over to another router, and leaves it alone for the time of the settings, or until it is ready. Active it stays if nobody takes over.
    pub fn handle_yield(&mut self, now: Instant) {
        self.handle_lateness(now);
        if self.role == Role::Initialize {
            return;
        }
        self.hold = Some(self.settings.yield_hold.map_or(Hold::UntilReady, |hold| Hold::Until(now + hold)));
        if matches!(self.role, Role::Active { .. }) {
            self.become_yielding(roles::Then::Stay, Reason::Yields, now);
        }
    }

    /// Takes back that it yielded.
    pub fn handle_ready(&mut self, now: Instant) {
        self.handle_lateness(now);
        self.hold = None;
        if self.faults.is_empty() && matches!(&self.role, Role::Yielding(yielding) if yielding.then == roles::Then::Stay) {
            self.become_active(Reason::Ready, now);
        }
    }

    /// The sync group grants its claim.
    pub fn handle_grant(&mut self, now: Instant) {
        self.handle_lateness(now);
        if let Role::Backup(backup) = &self.role
            && backup.is_claiming
        {
            let reason = backup.silence;
            self.become_active(reason, now);
        }
    }

    /// The sync group leaves: it hands over if it is active, and claims nothing for an active-down interval.
    pub fn handle_resign(&mut self, now: Instant) {
        self.handle_lateness(now);
        match &mut self.role {
            Role::Initialize | Role::Fault => {}
            Role::Backup(_) => self.listen_on(now),
            Role::Active { .. } => self.become_yielding(roles::Then::Listen, Reason::Group, now),
            Role::Yielding(yielding) if yielding.then == roles::Then::Stay => yielding.then = roles::Then::Listen,
            Role::Yielding(_) => {}
        }
    }

    /// The link went down or came up. Where others watch the link, only what comes up need be told: an active router then announces its
    /// addresses at once, for switches have forgotten them.
    pub fn handle_link(&mut self, link: Link, now: Instant) {
        match link {
            Link::Down => self.handle_fault(FaultCause::Link, now),
            Link::Up if self.faults.contains(&FaultCause::Link) => self.handle_fault_over(FaultCause::Link, now),
            Link::Up => {
                self.handle_lateness(now);
                if matches!(self.role, Role::Active { .. }) {
                    self.announce(now);
                    self.advertise(now);
                }
            }
        }
    }

    /// Somebody who says no adverts told the link that addresses of this router are elsewhere: an active one announces them again (RFC 5227 s2.4 (c): such
    /// an address is not given up), as often at most as against adverts.
    pub fn handle_claim(&mut self, now: Instant) {
        self.handle_lateness(now);
        if matches!(self.role, Role::Active { .. }) {
            self.contradict(announcer::Contradiction::Claim, now);
        }
    }

    /// Something makes it unable to serve.
    pub fn handle_fault(&mut self, cause: FaultCause, now: Instant) {
        self.handle_lateness(now);
        if !self.faults.insert(cause) {
            return;
        }
        match &self.role {
            Role::Initialize | Role::Fault => {}
            // Whoever asks is answered as well as may be until another one has the addresses.
            Role::Active { .. } if cause.leaves_link() => self.become_yielding(roles::Then::Stay, Reason::Fault(cause), now),
            Role::Yielding(_) if cause.leaves_link() => {}
            Role::Backup(_) | Role::Active { .. } | Role::Yielding(_) => {
                if cause != FaultCause::Link {
                    self.resign();
                }
                self.become_faulty(cause, now);
            }
        }
    }

    /// That no longer does.
    pub fn handle_fault_over(&mut self, cause: FaultCause, now: Instant) {
        self.handle_lateness(now);
        self.faults.remove(&cause);
        if self.role == Role::Fault && self.faults.is_empty() {
            self.begin(Reason::FaultOver, now);
        }
    }

    /// Its priority is another, as what it watches goes down and up. An active router says so at once.
    pub fn handle_priority(&mut self, priority: Priority, now: Instant) {
        self.handle_lateness(now);
        let is_changed = std::mem::replace(&mut self.priority, priority) != priority;
        if is_changed && matches!(self.role, Role::Active { .. }) {
            self.advertise(now);
        }
    }

    /// Its addresses are others: what holds them takes and gives up the difference.
    ///
    /// # Errors
    /// If they do not fit the settings; nothing changes.
    pub fn handle_addresses(&mut self, addresses: AddressList, now: Instant) -> Result<(), SetupError> {
        self.settings.check(self.identity, &addresses)?;
        self.handle_lateness(now);
        if addresses.is_empty() {
            self.handle_fault(FaultCause::NoAddresses, now);
            self.addresses = addresses;
            return Ok(());
        }
        let gone: Vec<IpAddr> = self.held.iter().filter(|address| !addresses.contains(address)).copied().collect();
        self.addresses = addresses;
        self.exchange(gone, now);
        self.handle_fault_over(FaultCause::NoAddresses, now);
        Ok(())
    }

    /// Its settings are others.
    ///
    /// # Errors
    /// If they do not fit the router's version or addresses; nothing changes.
    pub fn handle_settings(&mut self, settings: Settings, now: Instant) -> Result<(), SetupError> {
        settings.check(self.identity, &self.addresses)?;
        self.handle_lateness(now);
        let before = std::mem::replace(&mut self.settings, settings);
        if before.preempt != self.settings.preempt {
            self.preempts_from = None;
        }
        if before.announcing != self.settings.announcing && matches!(self.role, Role::Active { .. }) {
            self.announcer.follow(self.settings.announcing, now);
        }
        let is_said =
            before.interval != self.settings.interval || before.primary != self.settings.primary || before.reach != self.settings.reach;
        if is_said {
            self.adopt_own_interval(before.interval.duration(), now);
        }
        Ok(())
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.handle_lateness(now);
        self.expire_conflicts(now);
        match &self.role {
            Role::Initialize | Role::Fault => {}
            Role::Backup(backup) if backup.down_at <= now => self.claim(now),
            Role::Backup(_) => {}
            Role::Active { advert_at } => {
                if *advert_at <= now {
                    self.advertise(now);
                }
                if self.announcer.handle_timeout(self.settings.announcing, now) {
                    self.outputs.push_back(Output::Announce(self.addresses.as_slice().to_vec()));
                }
            }
            Role::Yielding(yielding) if yielding.until <= now => self.nobody_took_over(now),
            Role::Yielding(yielding) if yielding.advert_at <= now => self.resign_again(now),
            Role::Yielding(_) => {}
        }
    }

    /// When [`Self::handle_timeout`] has something to do.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        match &self.role {
            Role::Initialize | Role::Fault => None,
            Role::Backup(backup) => Some(backup.down_at),
            Role::Active { advert_at } => self.announcer.poll_timeout().into_iter().chain([*advert_at]).min(),
            Role::Yielding(yielding) => Some(yielding.advert_at.min(yielding.until)),
        }
    }

    /// What has to be done next.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Notices that it slept longer than any backup waits.
    fn handle_lateness(&mut self, now: Instant) {
        let is_late = |due: Instant, interval| due + timing::late_after(self.identity.version, interval) < now;
        let own = self.settings.interval.duration();
        match &self.role {
            Role::Initialize | Role::Fault => {}
            Role::Active { advert_at: due } if is_late(*due, own) => self.listen(Reason::Late, now),
            Role::Yielding(yielding) if is_late(yielding.advert_at, own) => {
                let then = yielding.then;
                self.step_down(then, Reason::Late, now);
            }
            Role::Backup(backup) if is_late(backup.down_at, self.active_interval) => {
                if self.held.is_empty() {
                    self.listen_on(now)
                } else {
                    self.listen(Reason::Late, now)
                }
            }
            Role::Backup(_) | Role::Active { .. } | Role::Yielding(_) => {}
        }
    }

    /// Sends an advert to every destination.
    fn send(&mut self, priority: AdvertPriority) {
        let advert = crate::vrrp::packet::Advert {
            version: self.identity.version,
            router: self.identity.router,
            priority,
            interval: self.settings.interval,
            addresses: self.addresses.clone(),
        };
        for to in self.settings.destinations() {
            self.tally.sent += 1;
            self.outputs.push_back(Output::Send { advert: advert.clone(), to });
        }
    }
}

#[cfg(test)]
mod tests;
