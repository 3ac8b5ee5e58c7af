//! What can be asked of a router.

use std::{collections::BTreeSet, net::IpAddr, time::Instant};

use super::{FaultCause, Hold, Peer, Reason, Router, State, Tally, roles::Role};
use crate::vrrp::{
    addresses::AddressList,
    settings::{Identity, Preempt, Settings},
    terms::Priority,
};

impl Router {
    /// Its state.
    #[must_use]
    pub fn state(&self) -> State {
        self.role.state(&self.held)
    }

    /// Since when, and why.
    #[must_use]
    pub const fn since(&self) -> (Instant, Reason) {
        (self.since, self.reason)
    }

    /// What it is.
    #[must_use]
    pub const fn identity(&self) -> Identity {
        self.identity
    }

    /// What was chosen for it.
    #[must_use]
    pub const fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Its priority at the moment.
    #[must_use]
    pub const fn priority(&self) -> Priority {
        self.priority
    }

    /// Its addresses, whoever has them.
    #[must_use]
    pub const fn addresses(&self) -> &AddressList {
        &self.addresses
    }

    /// Which of them this node has.
    #[must_use]
    pub const fn held(&self) -> &BTreeSet<IpAddr> {
        &self.held
    }

    /// Everything that makes it unable to serve.
    #[must_use]
    pub const fn faults(&self) -> &BTreeSet<FaultCause> {
        &self.faults
    }

    /// Whether it leaves routers of lower priority alone because it yielded.
    #[must_use]
    pub fn is_on_hold(&self, now: Instant) -> bool {
        match self.hold {
            None => false,
            Some(Hold::UntilReady) => true,
            Some(Hold::Until(until)) => now < until,
        }
    }

    /// Why it waits though it has precedence, or nobody is active; none where it does not, or because it yielded.
    #[must_use]
    pub fn forbearance(&self, now: Instant) -> Option<String> {
        let Role::Backup(_) = self.role else { return None };
        let left = |until: Instant| until.saturating_duration_since(now).as_secs() + 1;
        if let Some(from) = self.claims_from.filter(|from| *from > now) {
            return Some(format!("start_delay is over in {} s", left(from)));
        }
        let active = self.following.and_then(|active| self.peers().find(|(peer, _)| **peer == active))?.1;
        if self.is_on_hold(now) || active.priority.number() >= self.priority.number() {
            return None;
        }
        match (self.settings.preempt, self.preempts_from) {
            (Preempt::Never, _) => Some("preempt = false leaves it alone".into()),
            (Preempt::After(_), Some(from)) if from > now => Some(format!("preempt_delay is over in {} s", left(from))),
            (Preempt::AtOnce | Preempt::After(_), _) => None,
        }
    }

    /// Who is active as far as this router knows: itself, or a peer that it heard.
    #[must_use]
    pub const fn active_router(&self) -> Option<IpAddr> {
        match &self.role {
            Role::Initialize => None,
            Role::Fault | Role::Backup(_) => self.following,
            Role::Active { .. } | Role::Yielding(_) => Some(self.settings.primary),
        }
    }

    /// Whether it waits for its sync group ([`Self::handle_grant`]).
    #[must_use]
    pub const fn is_claiming(&self) -> bool {
        matches!(&self.role, Role::Backup(backup) if backup.is_claiming)
    }

    /// The routers that have been heard, at most [`MOST_REMEMBERED`].
    pub fn peers(&self) -> impl Iterator<Item = (&IpAddr, &Peer)> {
        self.peers.iter()
    }

    /// What has been counted.
    #[must_use]
    pub const fn tally(&self) -> Tally {
        self.tally
    }
}
