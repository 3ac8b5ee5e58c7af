//! What the DNS says of the names in the configuration: when each is asked again, and what is known meanwhile. Pure: `now` is an argument, lookups are
//! the driver's.
//!
//! ```text
//!            answer: due when its TTL ends, within [ttl_min, ttl_max]
//!   asked ──┤
//!            failure: what is known stays; due after 1 s, 2 s, 4 s … 60 s
//! ```

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use crate::config::model::{Dns, Families, Question};

pub mod expand;
pub mod hold;
pub mod recall;

/// The first failure is followed by another try after this.
const FIRST_RETRY: Duration = Duration::from_secs(1);
/// And none later than this after the one before.
const LAST_RETRY: Duration = Duration::from_secs(60);
/// Names that are asked at once.
const MOST_ASKED: usize = 128;
/// Of these, names that have not been answered, last or ever: the other places are those of the names that are.
const MOST_DOUBTED: usize = 64;
/// Addresses that are taken of one answer, the least first.
pub const MOST_FOUND: usize = 64;

/// A server of an answer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct Found {
    /// Its address.
    pub address: IpAddr,
    /// Its port, of an SRV record.
    #[serde(default)]
    pub port: Option<u16>,
    /// Its weight, 1 to 1 000, of an SRV record.
    #[serde(default)]
    pub weight: Option<u16>,
    /// Others are preferred, by their SRV records.
    #[serde(default)]
    pub backup: bool,
}

/// What came of a lookup.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answer {
    /// At least one.
    pub found: BTreeSet<Found>,
    /// For how long it is good.
    pub ttl: Duration,
}

/// What an answer changed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// Nothing.
    Same,
    /// What is known.
    Changed {
        /// Addresses that are new.
        came: Vec<IpAddr>,
        /// Addresses that are no longer there.
        went: Vec<IpAddr>,
    },
    /// It failed, which is to be told: for the first time, or for another reason.
    Failed(String),
}

/// What is kept of a name for the next daemon.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Kept {
    /// What was asked.
    pub question: Question,
    /// The last good answer.
    pub found: BTreeSet<Found>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Name {
    families: Families,
    /// The last good answer; empty if there was none.
    found: BTreeSet<Found>,
    /// When it is to be asked; none: it is being asked.
    due: Option<Instant>,
    /// Failures in a row.
    failures: u32,
    /// The reason of the last one.
    trouble: Option<String>,
}

impl Name {
    /// Whether it may well get no answer, and take the whole time to find out.
    fn is_doubted(&self) -> bool {
        self.trouble.is_some() || self.found.is_empty()
    }
}

/// All names.
#[derive(Debug, Default)]
pub struct Names {
    names: BTreeMap<Question, Name>,
    /// What an earlier daemon knew, of names that were not wanted yet.
    kept: BTreeMap<Question, BTreeSet<Found>>,
}

impl Names {
    /// With what an earlier daemon knew.
    pub fn new(kept: Vec<Kept>) -> Self {
        Self { names: BTreeMap::new(), kept: kept.into_iter().map(|Kept { question, found }| (question, found)).collect() }
    }

    /// An earlier daemon knew this, too, of names of which it has kept nothing.
    pub fn recall(&mut self, known: Vec<Kept>) {
        for Kept { question, found } in known {
            self.kept.entry(question).or_insert(found);
        }
    }

    /// These are wanted too. Gives those of which nothing is known and that have never been asked.
    pub fn want(&mut self, questions: &BTreeMap<Question, Families>, now: Instant) -> BTreeSet<Question> {
        let mut unknown = BTreeSet::new();
        for (question, families) in questions {
            match self.names.get_mut(question) {
                Some(name) if name.families == *families => {}
                Some(name) => {
                    name.families = *families;
                    name.due = Some(now);
                }
                None => {
                    let found = self.kept.get(question).cloned().unwrap_or_default();
                    if found.is_empty() {
                        unknown.insert(question.clone());
                    }
                    let name = Name { families: *families, found, due: Some(now), failures: 0, trouble: None };
                    self.names.insert(question.clone(), name);
                }
            }
        }
        unknown
    }

    /// No others are wanted any more.
    pub fn want_only(&mut self, questions: &BTreeMap<Question, Families>) {
        self.names.retain(|question, _| questions.contains_key(question));
        self.kept.clear();
    }

    /// All are asked again at once, for others are to be asked: what is under way counts for nothing.
    pub fn ask_again(&mut self, now: Instant) {
        self.names.values_mut().for_each(|name| (name.due, name.failures) = (Some(now), 0));
    }

    /// Those whose lookup failed are asked again at once.
    pub fn ask_failing(&mut self, now: Instant) {
        let failing = self.names.values_mut().filter(|name| name.trouble.is_some() && name.due.is_some());
        failing.for_each(|name| (name.due, name.failures) = (Some(now), 0));
    }

    /// The last good answer; empty if there was none.
    pub fn found(&self, question: &Question) -> impl Iterator<Item = Found> + '_ {
        let kept = || self.kept.get(question);
        self.names.get(question).map(|name| &name.found).or_else(kept).into_iter().flatten().copied()
    }

    /// When a name is to be asked.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.next().map(|(_, due)| due)
    }

    /// Who waits longest, of those that have a place.
    fn next(&self) -> Option<(&Question, Instant)> {
        let asked = || self.names.values().filter(|name| name.due.is_none());
        if asked().count() >= MOST_ASKED {
            return None;
        }
        let has_place_for_doubted = asked().filter(|name| name.is_doubted()).count() < MOST_DOUBTED;
        let waiting = self.names.iter().filter(|(_, name)| has_place_for_doubted || !name.is_doubted());
        waiting.filter_map(|(question, name)| Some((question, name.due?))).min_by_key(|(_, due)| *due)
    }

    /// The next name that is to be asked now; it is being asked then.
    pub fn poll_question(&mut self, now: Instant) -> Option<(Question, Families)> {
        let (question, _) = self.next().filter(|(_, due)| *due <= now)?;
        let question = question.clone();
        let name = self.names.get_mut(&question)?;
        name.due = None;
        Some((question, name.families))
    }

    /// What came of asking. Who is not being asked any more, for it is to be asked otherwise, has no answer.
    pub fn handle_answer(&mut self, question: &Question, answer: Result<Answer, String>, dns: &Dns, now: Instant) -> Outcome {
        let Some(name) = self.names.get_mut(question).filter(|name| name.due.is_none()) else { return Outcome::Same };
        match answer {
            Ok(Answer { found, ttl }) => {
                name.due = Some(now + ttl.clamp(dns.ttl_min, dns.ttl_max));
                name.failures = 0;
                name.trouble = None;
                if name.found == found {
                    return Outcome::Same;
                }
                let before = std::mem::replace(&mut name.found, found);
                let [before, after] = [&before, &name.found].map(|found| found.iter().map(|found| found.address).collect::<BTreeSet<_>>());
                Outcome::Changed { came: after.difference(&before).copied().collect(), went: before.difference(&after).copied().collect() }
            }
            Err(trouble) => {
                let wait = FIRST_RETRY.saturating_mul(1 << name.failures.min(6)).min(LAST_RETRY);
                name.due = Some(now + wait);
                name.failures += 1;
                let is_known = name.trouble.as_ref() == Some(&trouble);
                name.trouble = Some(trouble.clone());
                if is_known { Outcome::Same } else { Outcome::Failed(trouble) }
            }
        }
    }

    /// What is known, for the next daemon.
    pub fn kept(&self) -> Vec<Kept> {
        let known = self.names.iter().filter(|(_, name)| !name.found.is_empty());
        known.map(|(question, name)| Kept { question: question.clone(), found: name.found.clone() }).collect()
    }

    /// What is wrong, a line for each name.
    pub fn troubles(&self) -> Vec<String> {
        let line = |(question, name): (&Question, &Name)| {
            let trouble = name.trouble.as_ref()?;
            let rest = match name.found.len() {
                0 => "it has no servers until then".to_owned(),
                count => format!("the last answer stays, with {count} servers"),
            };
            Some(format!("the lookup of {question} fails: {trouble}; it is tried again, {rest}"))
        };
        self.names.iter().filter_map(line).collect()
    }
}

#[cfg(test)]
mod tests;
