//! When the link is told again where the addresses are.

use std::time::Instant;

use crate::vrrp::settings::Announcing;

/// Announcements against contradictions that need not wait for each other.
const AT_ONCE: u32 = 4;

/// The times of announcements while a router is active.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Announcer {
    /// When the announcements against contradictions are paid for, each at the price of one gap.
    paid_at: Option<Instant>,
    /// When the one comes that a contradiction has to wait for.
    owed: Option<Instant>,
    again: Option<Instant>,
    refresh: Option<Instant>,
}

impl Announcer {
    /// The addresses came, or the link did: they are announced with this call, and once more later.
    pub(super) fn begin(&mut self, how: Announcing, now: Instant) {
        self.again = how.again_after.map(|after| now + after);
        self.owed = None;
        self.done(how, now);
    }

    /// Other times are chosen: the next refresh counts from now on.
    pub(super) fn follow(&mut self, how: Announcing, now: Instant) {
        self.done(how, now);
    }

    /// Nothing is announced any more.
    pub(super) fn end(&mut self) {
        *self = Self::default();
    }

    /// The link may have been told otherwise. Whether it is time to announce with this call; otherwise that comes later.
    ///
    /// A take-over that goes wrong contradicts two or three times within milliseconds, and whoever contradicts last has the link: so not the
    /// first announcement alone comes at once, but the first few.
    pub(super) fn contradicted(&mut self, how: Announcing, now: Instant) -> bool {
        let paid_at = self.paid_at.map_or(now, |paid_at| paid_at.max(now));
        let credit = how.least_gap * (AT_ONCE - 1);
        if paid_at <= now + credit {
            self.pay(how, now);
            self.owed = None;
            self.done(how, now);
            return true;
        }
        self.owed = Some(paid_at - credit);
        false
    }

    /// Whether it is time to announce with this call.
    pub(super) fn handle_timeout(&mut self, how: Announcing, now: Instant) -> bool {
        let is_due = self.poll_timeout().is_some_and(|at| at <= now);
        if is_due {
            self.again = self.again.filter(|again| *again > now);
            if self.owed.take_if(|owed| *owed <= now).is_some() {
                self.pay(how, now);
            }
            self.done(how, now);
        }
        is_due
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.again.into_iter().chain(self.owed).chain(self.refresh).min()
    }

    fn pay(&mut self, how: Announcing, now: Instant) {
        self.paid_at = Some(self.paid_at.map_or(now, |paid_at| paid_at.max(now)) + how.least_gap);
    }

    fn done(&mut self, how: Announcing, now: Instant) {
        self.refresh = how.every.filter(|every| !every.is_zero()).map(|every| now + every);
    }
}
