//! When the link is told again where the addresses are.

use std::time::{Duration, Instant};

use crate::vrrp::settings::Announcing;

/// Who told the link that the addresses are elsewhere.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Contradiction {
    /// Another router, which adverts. Each time that two that do not hear each other meet, some adverts go to and fro.
    Advert,
    /// A host that says no adverts, and may go on for ever.
    Claim,
}

impl Contradiction {
    /// Announcements that need not wait for each other.
    const fn at_once(self) -> u32 {
        match self {
            Self::Advert => 16,
            Self::Claim => 4,
        }
    }
}

/// The times of announcements while a router is active.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Announcer {
    /// Apart from each other: what was said against the one must not silence what has to be said against the other.
    adverts: Budget,
    claims: Budget,
    again: Option<Instant>,
    refresh: Option<Instant>,
}

/// Announcements against contradictions of one kind.
#[derive(Clone, Copy, Debug, Default)]
struct Budget {
    /// When they are paid for, each at the price of one gap.
    paid_at: Option<Instant>,
    /// When the one comes that a contradiction has to wait for.
    owed: Option<Instant>,
}

impl Budget {
    /// Whether one can be paid for now; otherwise it is owed.
    fn takes(&mut self, what: Contradiction, gap: Duration, now: Instant) -> bool {
        let paid_at = self.paid_at.map_or(now, |paid_at| paid_at.max(now));
        let credit = gap * (what.at_once() - 1);
        if paid_at <= now + credit {
            self.pay(gap, now);
            return true;
        }
        self.owed = Some(paid_at - credit);
        false
    }

    fn pay(&mut self, gap: Duration, now: Instant) {
        self.paid_at = Some(self.paid_at.map_or(now, |paid_at| paid_at.max(now)) + gap);
        self.owed = None;
    }
}

impl Announcer {
    /// The addresses came, or the link did: they are announced with this call, and once more later.
    pub(super) fn begin(&mut self, how: Announcing, now: Instant) {
        self.again = how.again_after.map(|after| now + after);
        (self.adverts.owed, self.claims.owed) = (None, None);
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
    pub(super) fn contradicted(&mut self, what: Contradiction, how: Announcing, now: Instant) -> bool {
        let budget = match what {
            Contradiction::Advert => &mut self.adverts,
            Contradiction::Claim => &mut self.claims,
        };
        let is_time = budget.takes(what, how.least_gap, now);
        if is_time {
            self.done(how, now);
        }
        is_time
    }

    /// Whether it is time to announce with this call.
    pub(super) fn handle_timeout(&mut self, how: Announcing, now: Instant) -> bool {
        let is_due = self.poll_timeout().is_some_and(|at| at <= now);
        if is_due {
            self.again = self.again.filter(|again| *again > now);
            for budget in [&mut self.adverts, &mut self.claims] {
                if budget.owed.is_some_and(|owed| owed <= now) {
                    budget.pay(how.least_gap, now);
                }
            }
            self.done(how, now);
        }
        is_due
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.again.into_iter().chain(self.adverts.owed).chain(self.claims.owed).chain(self.refresh).min()
    }

    fn done(&mut self, how: Announcing, now: Instant) {
        self.refresh = how.every.filter(|every| !every.is_zero()).map(|every| now + every);
    }
}
