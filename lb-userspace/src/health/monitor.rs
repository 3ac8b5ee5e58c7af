//! When each server is checked, and when the results make it go up or down. Pure.
//!
//! ```text
//!               fall bad results in a row
//!   ┌── up ───────────────────────────────→ down ──┐
//!   │    ↑                                    │    │
//!   └ ok │        rise good results in a row  │ bad┘
//!        └────────────────────────────────────┘
//! ```
//!
//! A result that contradicts the state makes it *unsure*: the next check comes after `interval_unsure`. A server that has never been checked is what it is
//! taken for, and its first result decides alone. One that an earlier process knew, or that is asked something else than before, is unsure only.
//!
//! Checks are spread: the first of a server comes at a random point of its interval (at most a second), the others keep that rhythm.
#![allow(
    clippy::disallowed_types,
    reason = "servers are looked up thousands of times a second, and nothing follows from the order of the map"
)]

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    rc::Rc,
    time::{Duration, Instant},
};

use super::outcome::{Failure, Outcome, Sign};
use crate::{balance::digest, config::model::Pace, control::standing::ServerName};

/// The longest wait before a server's first check.
const FIRST_WITHIN: Duration = Duration::from_secs(1);

/// So long after a bad result silence proves nothing: of a closed port a host tells once a second (linux v6.18 net/ipv4/icmp.c `icmp_ratelimit`, after a
/// burst of six), whatever number of checks and clients ask it.
const REFUSALS_ARE_RARE: Duration = Duration::from_secs(10);

/// What a server is taken for before its first result.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Presumption {
    /// Up: nobody has checked it, and nothing speaks against it.
    Up,
    /// Down: nobody has checked it, and its pool can do without it until then.
    Down,
    /// Up, as it was when it was last known.
    KnownUp,
    /// Down, as it was when it was last known.
    KnownDown,
}

impl Presumption {
    /// Whether it is taken for up.
    pub const fn is_up(self) -> bool {
        matches!(self, Self::Up | Self::KnownUp)
    }

    /// Whether checks have found it so.
    pub const fn is_known(self) -> bool {
        matches!(self, Self::KnownUp | Self::KnownDown)
    }
}

/// What has to be done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Output {
    /// A check has to be made; its result comes to [`Monitor::handle_outcome`] with the number.
    Check {
        /// Of whom.
        server: Rc<ServerName>,
        /// Which it is.
        number: u64,
    },
    /// A server went up or down.
    Changed {
        /// Which.
        server: ServerName,
        /// Whether it is up.
        is_up: bool,
        /// Why it is down, or was until now.
        cause: Option<Failure>,
        /// Results in a row that led to it.
        results: u16,
    },
    /// Something else is known of a server, which stays up or down.
    Noted {
        /// Which.
        server: ServerName,
        /// What.
        note: Note,
    },
}

/// What becomes known of a server that stays up or down.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Note {
    /// Its first result: it is up, as it was taken for.
    FoundUp,
    /// Its first result: it is down, as it was taken for.
    FoundDown(Failure),
    /// It is down for another reason than before.
    Cause(Failure),
    /// Its checks cannot be made, or not for another reason than before.
    NotMade(Failure),
    /// They are made again.
    Made,
}

/// What is known of a server.
#[derive(Clone, PartialEq, Debug)]
pub struct Known {
    /// Whether it is up.
    pub is_up: bool,
    /// Whether the last result contradicts that, or there is none yet.
    pub is_unsure: bool,
    /// When it became what it is.
    pub since: Instant,
    /// The last bad result.
    pub failure: Option<Failure>,
    /// The last result: when it came, and how long the check took.
    pub last: Option<(Instant, Duration)>,
    /// Results in a row that contradict the state.
    pub contradicting: u16,
    /// What its checks came to so far.
    pub tally: Tally,
}

/// What checks came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Tally {
    /// Good results.
    pub passed: u64,
    /// Bad ones.
    pub failed: u64,
    /// Checks that this machine could not make.
    pub not_made: u64,
}

/// A server that is checked.
#[derive(Clone, PartialEq, Debug)]
pub struct Checked {
    /// What is known of it.
    pub known: Known,
    /// When it is checked.
    pub pace: Pace,
    /// When the next check begins; none while one is under way.
    pub next: Option<Instant>,
}

/// All checks of a node.
#[derive(Debug)]
pub struct Monitor {
    seed: u64,
    entries: HashMap<Rc<ServerName>, Entry>,
    due: Due,
    outputs: VecDeque<Output>,
    numbers: u64,
}

/// When the next checks begin.
type Due = BTreeSet<(Instant, Rc<ServerName>)>;

#[derive(Debug)]
struct Entry {
    name: Rc<ServerName>,
    pace: Pace,
    known: Known,
    /// The check that is under way, and since when.
    running: Option<(u64, Instant)>,
    /// When the next begins, if none is under way.
    next: Instant,
    /// Somebody noticed something: the next check comes at once.
    is_hinted: bool,
    /// And notices it still.
    is_doubted: bool,
    /// A result has said whether it is up, here or in an earlier process.
    is_found: bool,
    /// Why it is down, as it was told.
    told: Option<String>,
    /// When a result was bad last.
    bad_at: Option<Instant>,
    /// Why the last check could not be made.
    not_made: Option<String>,
}

impl Monitor {
    /// Without servers. `seed` decides at which point of their intervals servers are checked.
    pub fn new(seed: u64) -> Self {
        Self { seed, entries: HashMap::new(), due: BTreeSet::new(), outputs: VecDeque::new(), numbers: 0 }
    }

    /// Checks these servers from now on, and no other. A server that is new is taken for what `presume` says.
    pub fn set(&mut self, servers: &BTreeMap<ServerName, Pace>, presume: impl Fn(&ServerName) -> Presumption, now: Instant) {
        let gone: Vec<_> = self.entries.keys().filter(|name| !servers.contains_key(name.as_ref())).cloned().collect();
        for name in gone {
            self.forget(&name);
        }
        for (name, &pace) in servers {
            match self.entries.get_mut(name) {
                Some(entry) if entry.pace == pace => {}
                Some(entry) => {
                    entry.pace = pace;
                    // No longer than a new server would wait.
                    let next = entry.next.min(now + pace.interval.min(FIRST_WITHIN));
                    self.plan(name, next);
                }
                None => {
                    let presumed = presume(name);
                    let (is_up, is_found) = (presumed.is_up(), presumed.is_known());
                    let known =
                        Known { is_up, is_unsure: true, since: now, failure: None, last: None, contradicting: 0, tally: Tally::default() };
                    let first = now + self.phase(name, pace.interval.min(FIRST_WITHIN));
                    // When it was found down is not known: it may have been a moment ago.
                    let bad_at = (presumed == Presumption::KnownDown).then_some(now);
                    let (running, is_hinted, is_doubted, told, not_made) = (None, false, false, None, None);
                    let name = Rc::new(name.clone());
                    self.due.insert((first, Rc::clone(&name)));
                    let entry = Entry {
                        name: Rc::clone(&name),
                        pace,
                        known,
                        running,
                        next: first,
                        is_hinted,
                        is_doubted,
                        is_found,
                        told,
                        bad_at,
                        not_made,
                    };
                    self.entries.insert(name, entry);
                }
            }
        }
    }

    /// Asks this server something else: what is under way counts for nothing; what is known of it holds until the results speak against it.
    pub fn restart(&mut self, name: &ServerName, now: Instant) {
        if let Some(entry) = self.entries.get_mut(name) {
            entry.running = None;
            entry.known.is_unsure = true;
            entry.known.last = None;
            entry.known.contradicting = 0;
            let first = now + self.phase(name, FIRST_WITHIN.min(self.entries[name].pace.interval));
            self.plan(name, first);
        }
    }

    /// Somebody noticed something about a server: it is checked at once, unless that is done already.
    pub fn handle_hint(&mut self, name: &ServerName, now: Instant) {
        if let Some(entry) = self.entries.get_mut(name) {
            entry.is_hinted = true;
            entry.known.is_unsure = true;
            if entry.running.is_none() {
                self.plan(name, now);
            }
        }
    }

    /// Of these servers something is noticed that speaks against them: they are unsure, whatever their checks say, and checked as often. Of no others.
    pub fn handle_doubts(&mut self, doubted: &BTreeSet<ServerName>, now: Instant) {
        let is_otherwise = |(name, entry): &(&Rc<ServerName>, &Entry)| entry.is_doubted != doubted.contains(name.as_ref());
        let changed: Vec<_> = self.entries.iter().filter(is_otherwise).map(|(name, _)| Rc::clone(name)).collect();
        for name in changed {
            let Some(entry) = self.entries.get_mut(&name) else { continue };
            entry.is_doubted = doubted.contains(name.as_ref());
            entry.known.is_unsure |= entry.is_doubted;
            if entry.is_doubted && entry.running.is_none() {
                let next = entry.next.min(now + entry.pace.interval_unsure);
                self.plan(&name, next);
            }
        }
    }

    /// A check came to its end. One that was not asked for, or whose server is checked otherwise by now, counts for nothing.
    pub fn handle_outcome(&mut self, name: &ServerName, number: u64, outcome: &Outcome, now: Instant) {
        let Some(entry) = self.entries.get_mut(name) else { return };
        let Some((running, started)) = entry.running else { return };
        if running != number {
            return;
        }
        entry.running = None;
        let is_made = !outcome.is_local() && entry.not_made.take().is_some();
        let said = entry.take(outcome, now);
        let output = |said| match said {
            Said::Changed { results } => {
                Output::Changed { server: name.clone(), is_up: entry.known.is_up, cause: entry.known.failure.clone(), results }
            }
            Said::Noted(note) => Output::Noted { server: name.clone(), note },
        };
        let made = is_made.then_some(Said::Noted(Note::Made));
        self.outputs.extend(made.into_iter().chain(said).map(output));
        let next = if entry.is_hinted { now } else { (started + entry.wait()).max(now) };
        entry.plan(next, &mut self.due);
    }

    /// Starts what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        while self.poll_timeout().is_some_and(|at| at <= now)
            && let Some((at, name)) = self.due.pop_first()
        {
            let Some(entry) = self.entries.get_mut(&name) else { continue };
            self.numbers += 1;
            entry.running = Some((self.numbers, at.max(now.checked_sub(entry.pace.interval).unwrap_or(at))));
            entry.is_hinted = false;
            self.outputs.push_back(Output::Check { server: name, number: self.numbers });
        }
    }

    /// When [`Self::handle_timeout`] has something to do.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }

    /// What has to be done next.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Every server that is checked, in no order.
    pub fn checked(&self) -> impl Iterator<Item = (&ServerName, Checked)> {
        let checked =
            |entry: &Entry| Checked { known: entry.known.clone(), pace: entry.pace, next: entry.running.is_none().then_some(entry.next) };
        self.entries.iter().map(move |(name, entry)| (name.as_ref(), checked(entry)))
    }

    /// What is known of a server; none if it is not checked.
    pub fn of(&self, name: &ServerName) -> Option<&Known> {
        self.entries.get(name).map(|entry| &entry.known)
    }

    /// Does not check this server any more; nothing is known of it.
    pub fn forget(&mut self, name: &ServerName) {
        if let Some(entry) = self.entries.remove(name) {
            self.due.remove(&(entry.next, entry.name));
        }
    }

    /// Has the next check begin at `at`.
    fn plan(&mut self, name: &ServerName, at: Instant) {
        if let Some(entry) = self.entries.get_mut(name) {
            entry.plan(at, &mut self.due);
        }
    }

    /// A time shorter than `within` that is this server's.
    fn phase(&self, name: &ServerName, within: Duration) -> Duration {
        let point = digest::bytes(name.to_string().as_bytes(), self.seed);
        within.mul_f64((point >> 11) as f64 / (1_u64 << 53) as f64)
    }
}

/// What a result says.
enum Said {
    /// The server went up or down.
    Changed { results: u16 },
    /// It stays what it is.
    Noted(Note),
}

impl Entry {
    /// Has the next check begin at `at`.
    fn plan(&mut self, at: Instant, due: &mut Due) {
        due.remove(&(self.next, Rc::clone(&self.name)));
        self.next = at;
        if self.running.is_none() {
            due.insert((at, Rc::clone(&self.name)));
        }
    }

    /// Counts a result. A check that this machine could not make says nothing of the server, nor does silence soon after a bad result.
    fn take(&mut self, outcome: &Outcome, now: Instant) -> Option<Said> {
        let known = &mut self.known;
        if let Some(failure) = &outcome.failure {
            known.failure = Some(failure.clone());
            if outcome.is_local() {
                known.tally.not_made += 1;
                let is_told = self.not_made.as_ref() == Some(&failure.text);
                self.not_made = Some(failure.text.clone());
                return (!is_told).then(|| Said::Noted(Note::NotMade(failure.clone())));
            }
            known.tally.failed += 1;
            self.bad_at = Some(now);
        }
        known.last = Some((now, outcome.took));
        let is_silent = outcome.failure.is_none() && outcome.sign == Sign::Silence;
        if is_silent && self.bad_at.is_some_and(|at| now - at < REFUSALS_ARE_RARE) {
            return None;
        }
        known.tally.passed += u64::from(outcome.failure.is_none());
        let is_first = !std::mem::replace(&mut self.is_found, true);
        if outcome.failure.is_none() == known.is_up {
            known.contradicting = 0;
            known.is_unsure = self.is_doubted && known.is_up;
            return self.agree(outcome.failure.as_ref(), is_first).map(Said::Noted);
        }
        known.contradicting = known.contradicting.saturating_add(1);
        known.is_unsure = true;
        let needed = if known.is_up { self.pace.fall } else { self.pace.rise };
        if (!is_first || is_silent) && known.contradicting < needed {
            return None;
        }
        let results = known.contradicting;
        known.is_up = !known.is_up;
        known.is_unsure = false;
        known.contradicting = 0;
        known.since = now;
        self.told = outcome.failure.as_ref().map(|failure| failure.text.clone());
        Some(Said::Changed { results })
    }

    /// What a result tells that agrees with the state.
    fn agree(&mut self, failure: Option<&Failure>, is_first: bool) -> Option<Note> {
        let Some(failure) = failure else { return is_first.then_some(Note::FoundUp) };
        if self.told.as_ref() == Some(&failure.text) {
            return None;
        }
        self.told = Some(failure.text.clone());
        Some(if is_first { Note::FoundDown(failure.clone()) } else { Note::Cause(failure.clone()) })
    }

    /// From the start of the last check to that of the next.
    fn wait(&self) -> Duration {
        match (self.known.is_unsure, self.known.is_up) {
            (true, _) => self.pace.interval_unsure,
            (false, true) => self.pace.interval,
            (false, false) => self.pace.interval_down,
        }
    }
}

#[cfg(test)]
mod tests;
