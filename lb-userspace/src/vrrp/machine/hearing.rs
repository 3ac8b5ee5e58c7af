//! What a router does when it hears an advert (RFC 9568 s6.4.2 and s6.4.3).

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use super::{
    Output, Reason, Router,
    announcer::Contradiction,
    peers::{Change, Compared},
    roles::Role,
};
use crate::vrrp::{
    packet::Advert,
    refusal::Refusal,
    settings::{Preempt, Reach},
    terms::{AdvertPriority, Interval, Priority},
    timing::{active_down, skew},
};

/// Immediate answers in an interval: two routers that each believe to have precedence do not answer each other without end.
const MOST_ANSWERS: u32 = 10;

impl Router {
    /// Takes an advert that [`crate::vrrp::packet::decode`] read.
    ///
    /// # Errors
    /// Why it counts for nothing.
    pub fn handle_advert(&mut self, source: IpAddr, advert: &Advert, now: Instant) -> Result<(), Refusal> {
        self.handle_lateness(now);
        self.check(source, advert, now)?;
        self.tally.heard += 1;
        self.note(source, advert, now);
        match (&self.role, advert.priority) {
            (Role::Initialize | Role::Fault, _) | (Role::Yielding(_), AdvertPriority::Resigns) => {}
            (Role::Backup(_), AdvertPriority::Resigns) => self.hear_resignation(now),
            (Role::Backup(_), AdvertPriority::Holds(priority)) => self.hear_active(source, priority, advert.interval, now),
            (Role::Active { .. }, AdvertPriority::Resigns) => self.assert_itself(now),
            (Role::Active { .. }, AdvertPriority::Holds(priority)) => self.hear_rival(source, priority, advert.interval, now),
            (Role::Yielding(yielding), AdvertPriority::Holds(_)) => {
                let then = yielding.then;
                self.step_down(then, Reason::HandedOver(source), now);
                self.follow(advert.interval, now);
            }
        }
        self.note_active(source, advert.priority);
        Ok(())
    }

    fn check(&mut self, source: IpAddr, advert: &Advert, now: Instant) -> Result<(), Refusal> {
        if self.role == Role::Initialize {
            return Err(Refusal::NotRunning);
        }
        if advert.router != self.identity.router {
            return Err(Refusal::OtherRouter);
        }
        if advert.version != self.identity.version {
            return Err(Refusal::Version);
        }
        if source == self.settings.primary {
            let changes = self.peers.hear_same_address(source, advert, now);
            self.tell_conflicts(changes);
            return Err(Refusal::OwnAddress);
        }
        if !self.is_possible(source, advert.priority) {
            return Err(Refusal::Source);
        }
        if self.settings.hears(source) { Ok(()) } else { Err(Refusal::NotAPeer) }
    }

    /// Whether a router can speak from there: its primary address, of IPv6 a link-local one (RFC 9568 s5.1.1.1, s5.1.2.1; peers are where they were
    /// configured). A virtual address is that of its owner alone.
    fn is_possible(&self, source: IpAddr, priority: AdvertPriority) -> bool {
        let is_its_own = match priority {
            AdvertPriority::Holds(priority) => priority.is_owner(),
            AdvertPriority::Resigns => true,
        };
        let is_hosts = match source {
            IpAddr::V4(source) => !source.is_unspecified() && !source.is_multicast() && !source.is_broadcast() && !source.is_loopback(),
            IpAddr::V6(source) => source.is_unicast_link_local() || self.settings.reach != Reach::Multicast,
        };
        is_hosts && (is_its_own || !self.addresses.contains(&source))
    }

    /// Remembers who it is, and what is wrong with it.
    fn note(&mut self, source: IpAddr, advert: &Advert, now: Instant) {
        self.expire_conflicts(now);
        let has_precedence = match (&self.role, advert.priority) {
            (Role::Active { .. }, AdvertPriority::Holds(priority)) => self.precedence_of(source, priority).is_none(),
            (Role::Initialize | Role::Fault | Role::Backup(_) | Role::Active { .. } | Role::Yielding(_), _) => false,
        };
        let is_owner = self.priority.is_owner();
        let with = Compared { addresses: &self.addresses, interval: self.settings.interval, is_owner, has_precedence };
        let changes = self.peers.hear(source, advert, with, now);
        self.tell_conflicts(changes);
    }

    fn note_active(&mut self, source: IpAddr, priority: AdvertPriority) {
        self.following = match (&self.role, priority) {
            (Role::Active { .. } | Role::Yielding(_) | Role::Initialize, _) => None,
            (Role::Fault | Role::Backup(_), AdvertPriority::Holds(_)) => Some(source),
            (Role::Fault | Role::Backup(_), AdvertPriority::Resigns) => self.following.filter(|following| *following != source),
        };
    }

    pub(super) fn expire_conflicts(&mut self, now: Instant) {
        let changes = self.peers.expire(now);
        self.tell_conflicts(changes);
    }

    fn tell_conflicts(&mut self, changes: Vec<Change>) {
        self.outputs.extend(
            changes.into_iter().map(
                |(peer, conflict, is_so)| {
                    if is_so { Output::Conflict(peer, conflict) } else { Output::ConflictOver(peer, conflict) }
                },
            ),
        );
    }

    /// A backup waits its skew only, so that the one of highest priority is first; those that yielded before come after all others.
    fn hear_resignation(&mut self, now: Instant) {
        let of = |priority| skew(self.identity.version, priority, self.active_interval);
        let courtesy = if self.is_on_hold(now) { of(Priority::LOWEST) } else { Duration::ZERO };
        let soon = self.not_before(now + courtesy + of(self.priority));
        if let Role::Backup(backup) = &mut self.role {
            backup.down_at = backup.down_at.min(soon);
            backup.silence = Reason::Resigned;
        }
    }

    fn hear_active(&mut self, source: IpAddr, priority: Priority, interval: Interval, now: Instant) {
        if !self.held.is_empty() {
            // Without precedence over anybody, so that the other one answers and announces itself.
            if priority > Priority::LOWEST {
                self.send(AdvertPriority::Holds(Priority::LOWEST));
            }
            self.listen(Reason::PeerActive(source), now);
        }
        if self.accepts(priority, now) {
            self.follow(interval, now);
            return;
        }
        // Whoever was followed before would have taken the place from this one, too: its interval, which may be long, counts no longer.
        let soon = self.not_before(now + active_down(self.identity.version, self.priority, interval.duration()));
        if let Role::Backup(backup) = &mut self.role {
            backup.down_at = backup.down_at.min(soon);
            backup.silence = Reason::Preempts;
        }
    }

    /// Whether another one stays active as far as this router is concerned.
    fn accepts(&mut self, priority: Priority, now: Instant) -> bool {
        if priority >= self.priority {
            self.preempts_from = None;
            return true;
        }
        if self.is_on_hold(now) {
            return true;
        }
        // RFC 9568 s6.1: whatever the setting.
        if self.priority.is_owner() {
            return false;
        }
        match self.settings.preempt {
            Preempt::AtOnce => false,
            Preempt::Never => true,
            Preempt::After(delay) => now < *self.preempts_from.get_or_insert(now + delay),
        }
    }

    /// Expects the next adverts of an active router.
    fn follow(&mut self, interval: Interval, now: Instant) {
        self.active_interval = interval.duration();
        if matches!(self.role, Role::Backup(_)) {
            self.role = self.backup(self.active_down(), now);
        }
    }

    /// An active router hears another one.
    fn hear_rival(&mut self, source: IpAddr, priority: Priority, interval: Interval, now: Instant) {
        match self.precedence_of(source, priority) {
            Some(reason) => {
                // Its last advert: the other one has to know that the link was told to look here.
                self.send(AdvertPriority::Holds(self.priority));
                self.listen(reason, now);
                self.follow(interval, now);
            }
            // Two owners would answer each other without end.
            None if priority.is_owner() => self.contradict(Contradiction::Advert, now),
            None => self.assert_itself(now),
        }
    }

    /// Another router had the addresses as well, and the link may look for them there.
    fn assert_itself(&mut self, now: Instant) {
        self.answer(now);
        self.contradict(Contradiction::Advert, now);
    }

    /// Announces the addresses against what others say of them.
    pub(super) fn contradict(&mut self, what: Contradiction, now: Instant) {
        if self.announcer.contradicted(what, self.settings.announcing, now) {
            self.outputs.push_back(Output::Announce(self.addresses.as_slice().to_vec()));
        }
    }

    /// Why another one shall be active rather than this router, if it shall. An owner stays (RFC 9568 s7.1).
    fn precedence_of(&self, source: IpAddr, priority: Priority) -> Option<Reason> {
        if self.priority.is_owner() {
            return None;
        }
        if priority > self.priority {
            return Some(Reason::HigherPriority(source));
        }
        (priority == self.priority && source > self.settings.primary).then_some(Reason::GreaterAddress(source))
    }

    /// Adverts at once, so that others, and bridges, know who is active.
    fn answer(&mut self, now: Instant) {
        let gap = self.settings.interval.duration() / MOST_ANSWERS;
        if self.answered_at.is_none_or(|at| at + gap <= now) {
            self.answered_at = Some(now);
            self.advertise(now);
        }
    }
}
