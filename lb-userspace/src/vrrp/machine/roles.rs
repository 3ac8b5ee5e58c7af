//! What a router does when it becomes backup, active, yielding or faulty.

use std::{
    collections::BTreeSet,
    net::IpAddr,
    time::{Duration, Instant},
};

use super::{Output, Reason, Router, State, Transition};
use crate::vrrp::{
    settings::Claims,
    terms::AdvertPriority,
    timing::{active_down, yields_for},
};

/// A state with its timers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Role {
    Initialize,
    Fault,
    /// Also of held-over addresses.
    Backup(Backup),
    Active {
        advert_at: Instant,
    },
    Yielding(Yielding),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Backup {
    /// `Active_Down_Timer`.
    pub(super) down_at: Instant,
    /// Why it will have run out.
    pub(super) silence: Reason,
    /// The sync group has been asked.
    pub(super) is_claiming: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Yielding {
    pub(super) advert_at: Instant,
    pub(super) until: Instant,
    pub(super) then: Then,
}

/// Adverts that say a longer interval still come in the old rhythm: backups wait three of the old one, and all but the last may be lost.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Easing {
    pub(super) interval: Duration,
    pub(super) left: u8,
}

const EASED_ADVERTS: u8 = 3;

/// What follows if nobody takes over; if somebody does, stopping stops, and all others become backup. With a fault that follows, unless it stops.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Then {
    /// It ends.
    Stop,
    /// It stays active.
    Stay,
    /// It becomes backup.
    Listen,
}

impl Role {
    pub(super) fn state(&self, held: &BTreeSet<IpAddr>) -> State {
        match self {
            Self::Initialize => State::Initialize,
            Self::Fault => State::Fault,
            Self::Backup(_) if held.is_empty() => State::Backup,
            Self::Backup(_) => State::HeldOver,
            Self::Active { .. } => State::Active,
            Self::Yielding(_) => State::Yielding,
        }
    }
}

impl Router {
    /// Begins to take part (RFC 9568 s6.4.1): an owner at once, if nothing delays it.
    pub(super) fn begin(&mut self, reason: Reason, now: Instant) {
        self.active_interval = self.settings.interval.duration();
        self.preempts_from = None;
        if !self.priority.is_owner() {
            return self.enter(self.backup(self.active_down(), now), reason, now);
        }
        if self.settings.claims == Claims::Alone && self.claims_from.is_none_or(|from| from <= now) {
            return self.become_active(Reason::Owner, now);
        }
        self.enter(self.backup(Duration::ZERO, now), reason, now);
    }

    /// Gives up what it has and listens for a whole active-down interval.
    pub(super) fn listen(&mut self, reason: Reason, now: Instant) {
        self.active_interval = self.settings.interval.duration();
        self.leave(self.backup(self.active_down(), now), reason, now);
    }

    /// As backup, listens for a whole active-down interval from now on.
    pub(super) fn listen_on(&mut self, now: Instant) {
        self.role = self.backup(self.active_down(), now);
    }

    /// The active router was silent long enough.
    pub(super) fn claim(&mut self, now: Instant) {
        let active_down = self.active_down();
        let Role::Backup(backup) = &mut self.role else { return };
        let reason = backup.silence;
        match self.settings.claims {
            Claims::Alone => self.become_active(reason, now),
            // Not granted in time: another member of the group has its reasons, and a peer may have the addresses.
            Claims::WithGroup if backup.is_claiming && !self.held.is_empty() => self.listen(Reason::Group, now),
            Claims::WithGroup => {
                backup.down_at = now + active_down;
                backup.is_claiming = true;
            }
        }
    }

    /// Takes the addresses, tells the link, then the others.
    pub(super) fn become_active(&mut self, reason: Reason, now: Instant) {
        let missing: Vec<IpAddr> = self.addresses.as_slice().iter().filter(|address| !self.held.contains(address)).copied().collect();
        let from = self.state();
        if !missing.is_empty() {
            self.held.extend(missing.iter().copied());
            self.outputs.push_back(Output::AddAddresses(missing));
        }
        self.preempts_from = None;
        self.following = None;
        self.answered_at = None;
        self.tally.became_active += 1;
        self.announce(now);
        self.role = Role::Active { advert_at: now };
        self.advertise(now);
        self.tell(from, reason, now);
    }

    /// Says that another one shall take the addresses.
    pub(super) fn become_yielding(&mut self, then: Then, reason: Reason, now: Instant) {
        let interval = self.settings.interval.duration();
        let until = now + yields_for(self.identity.version, interval);
        self.send(AdvertPriority::Resigns);
        self.enter(Role::Yielding(Yielding { advert_at: now + interval, until, then }), reason, now);
    }

    pub(super) fn resign_again(&mut self, now: Instant) {
        let interval = self.settings.interval.duration();
        if let Role::Yielding(yielding) = &mut self.role {
            yielding.advert_at = next(yielding.advert_at, interval, now);
            self.send(AdvertPriority::Resigns);
        }
    }

    pub(super) fn nobody_took_over(&mut self, now: Instant) {
        let Role::Yielding(yielding) = self.role else { return };
        match yielding.then {
            Then::Stay if self.faults.is_empty() => {
                self.hold = None;
                self.become_active(Reason::NobodyTookOver, now);
            }
            Then::Stop | Then::Listen | Then::Stay => self.step_down(yielding.then, Reason::NobodyTookOver, now),
        }
    }

    /// Ends yielding without the addresses.
    pub(super) fn step_down(&mut self, then: Then, reason: Reason, now: Instant) {
        match then {
            Then::Stop => self.leave(Role::Initialize, reason, now),
            Then::Stay | Then::Listen if self.faults.is_empty() => self.listen(reason, now),
            Then::Stay | Then::Listen => self.leave(Role::Fault, reason, now),
        }
    }

    /// A router that was told to stop ends instead.
    pub(super) fn become_faulty(&mut self, cause: super::FaultCause, now: Instant) {
        let is_stopping = matches!(&self.role, Role::Yielding(yielding) if yielding.then == Then::Stop);
        let role = if is_stopping { Role::Initialize } else { Role::Fault };
        self.leave(role, Reason::Fault(cause), now);
    }

    /// Gives up the addresses and takes another role.
    pub(super) fn leave(&mut self, role: Role, reason: Reason, now: Instant) {
        let from = self.state();
        self.announcer.end();
        self.easing = None;
        self.following = None;
        self.preempts_from = None;
        if !self.held.is_empty() {
            self.outputs.push_back(Output::RemoveAddresses(std::mem::take(&mut self.held).into_iter().collect()));
        }
        if role == Role::Initialize {
            self.hold = None;
        }
        self.role = role;
        self.tell(from, reason, now);
    }

    /// Says that it is active, and when it will again.
    pub(super) fn advertise(&mut self, now: Instant) {
        let interval = self.rhythm();
        if let Role::Active { advert_at } = &mut self.role {
            *advert_at = if *advert_at > now { now + interval } else { next(*advert_at, interval, now) };
            self.send(AdvertPriority::Holds(self.priority));
        }
    }

    /// The time to the next advert.
    fn rhythm(&mut self) -> Duration {
        let own = self.settings.interval.duration();
        match &mut self.easing {
            Some(easing) if easing.left > 0 => {
                easing.left -= 1;
                easing.interval.min(own)
            }
            Some(_) | None => own,
        }
    }

    /// If it has the addresses, says that it will not any longer.
    pub(super) fn resign(&mut self) {
        match &self.role {
            Role::Initialize | Role::Fault | Role::Backup(_) => {}
            Role::Active { .. } | Role::Yielding(_) => self.send(AdvertPriority::Resigns),
        }
    }

    pub(super) fn announce(&mut self, now: Instant) {
        self.announcer.begin(self.settings.announcing, now);
        self.outputs.push_back(Output::Announce(self.addresses.as_slice().to_vec()));
    }

    /// Takes and gives up addresses while it holds them.
    pub(super) fn exchange(&mut self, gone: Vec<IpAddr>, now: Instant) {
        let from = self.state();
        let mut is_changed = !gone.is_empty();
        if matches!(self.role, Role::Active { .. } | Role::Yielding(_)) {
            let new: Vec<IpAddr> = self.addresses.as_slice().iter().filter(|address| !self.held.contains(address)).copied().collect();
            if !new.is_empty() {
                is_changed = true;
                self.held.extend(new.iter().copied());
                self.outputs.extend([Output::AddAddresses(new.clone()), Output::Announce(new)]);
            }
        }
        if !gone.is_empty() {
            self.held.retain(|address| !gone.contains(address));
            self.outputs.push_back(Output::RemoveAddresses(gone));
        }
        if is_changed {
            self.advertise(now);
        }
        if from == State::HeldOver && self.held.is_empty() {
            self.tell(from, self.reason, now);
        }
    }

    /// Its own interval is another: what it waits for follows, unless it waits for the adverts of another router, which come as they come.
    pub(super) fn adopt_own_interval(&mut self, before: Duration, now: Instant) {
        let is_following = self.following.is_some();
        if !is_following {
            self.active_interval = self.settings.interval.duration();
        }
        let soonest = now + self.active_down();
        let interval = self.settings.interval.duration();
        match &mut self.role {
            Role::Initialize | Role::Fault => {}
            Role::Backup(_) if is_following => {}
            Role::Backup(backup) => backup.down_at = backup.down_at.min(soonest).max(self.claims_from.unwrap_or(now)),
            Role::Active { .. } => {
                self.easing = Some(Easing { interval: before, left: EASED_ADVERTS });
                self.advertise(now);
            }
            Role::Yielding(yielding) => {
                yielding.advert_at = yielding.advert_at.min(now + interval);
                yielding.until = yielding.until.min(now + yields_for(self.identity.version, interval));
            }
        }
    }

    /// A backup that claims after `wait`, but not before it may.
    pub(super) fn backup(&self, wait: Duration, now: Instant) -> Role {
        Role::Backup(Backup { down_at: self.not_before(now + wait), silence: Reason::Silence, is_claiming: false })
    }

    pub(super) fn not_before(&self, at: Instant) -> Instant {
        self.claims_from.map_or(at, |from| from.max(at))
    }

    /// `Active_Down_Interval`.
    pub(super) fn active_down(&self) -> Duration {
        active_down(self.identity.version, self.priority, self.active_interval)
    }

    fn enter(&mut self, role: Role, reason: Reason, now: Instant) {
        let from = self.state();
        self.role = role;
        self.tell(from, reason, now);
    }

    fn tell(&mut self, from: State, reason: Reason, now: Instant) {
        (self.since, self.reason) = (now, reason);
        self.outputs.push_back(Output::Transition(Transition { from, to: self.state(), reason }));
    }
}

/// The rhythm goes on, unless it is late.
fn next(due: Instant, interval: Duration, now: Instant) -> Instant {
    let next = due + interval;
    if next > now { next } else { now + interval }
}
