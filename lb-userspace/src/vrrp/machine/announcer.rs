//! When the link is told again where the addresses are.

use std::time::Instant;

use crate::vrrp::settings::Announcing;

/// The times of announcements while a router is active.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Announcer {
    last: Option<Instant>,
    again: Option<Instant>,
    refresh: Option<Instant>,
}

impl Announcer {
    /// The addresses came, or the link did: they are announced with this call, and once more later.
    pub(super) fn begin(&mut self, how: Announcing, now: Instant) {
        self.again = how.again_after.map(|after| now + after);
        self.done(how, now);
    }

    /// Nothing is announced any more.
    pub(super) fn end(&mut self) {
        *self = Self::default();
    }

    /// Somebody may have been told otherwise. Whether it is time to announce with this call; otherwise that comes later.
    pub(super) fn contradicted(&mut self, how: Announcing, now: Instant) -> bool {
        let from = self.last.map_or(now, |last| last + how.least_gap);
        if from <= now {
            self.done(how, now);
            return true;
        }
        self.again = Some(self.again.map_or(from, |again| again.min(from)));
        false
    }

    /// Whether it is time to announce with this call.
    pub(super) fn handle_timeout(&mut self, how: Announcing, now: Instant) -> bool {
        let is_due = self.poll_timeout().is_some_and(|at| at <= now);
        if is_due {
            self.again = self.again.filter(|again| *again > now);
            self.done(how, now);
        }
        is_due
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.again.into_iter().chain(self.refresh).min()
    }

    fn done(&mut self, how: Announcing, now: Instant) {
        self.last = Some(now);
        self.refresh = how.every.filter(|every| !every.is_zero()).map(|every| now + every);
    }
}
