//! Servers that answer no connection of clients, as translation sees it: a hint that they should be checked, and never more. Pure.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use crate::{control::standing::ServerName, dataplane::Seen};

/// Connections that are unanswered at once, from which on it is no client's fault.
const ENOUGH: u32 = 3;
/// A server that has answered anybody so lately is not silent.
const LATELY: Duration = Duration::from_millis(1500);
/// Without unanswered connections for so long, nothing is known any more.
const FORGOTTEN: Duration = Duration::from_secs(5);
/// A server that stays silent is checked so often.
const AGAIN: Duration = Duration::from_secs(5);

/// A server has become silent, or still is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hint {
    /// Which.
    pub server: ServerName,
    /// How many connections it had not answered at the last look.
    pub unanswered: u32,
    /// For how long it has answered none.
    pub within: Duration,
    /// Whether it was not silent before.
    pub is_new: bool,
}

/// What is known of the servers that clients connect to.
#[derive(Debug, Default)]
pub struct Silences {
    servers: BTreeMap<ServerName, Quiet>,
}

#[derive(Debug, Default)]
struct Quiet {
    answered: Option<Instant>,
    unanswered: Option<(Instant, u32)>,
    /// When the first of them was seen.
    since: Option<Instant>,
    hinted: Option<Instant>,
}

/// What is seen unanswered has been for a second: from one look to the next.
const UNSEEN: Duration = Duration::from_secs(1);

impl Silences {
    /// What was seen since the last look, of the servers that are looked at. Gives those that should be checked.
    pub fn handle_look(&mut self, seen: &BTreeMap<ServerName, Seen>, now: Instant) -> Vec<Hint> {
        let mut hints = Vec::new();
        for (server, seen) in seen {
            let quiet = self.servers.entry(server.clone()).or_default();
            if seen.answered > 0 {
                *quiet = Quiet { answered: Some(now), ..Quiet::default() };
                continue;
            }
            if seen.unanswered == 0 {
                continue;
            }
            quiet.unanswered = Some((now, seen.unanswered));
            let since = *quiet.since.get_or_insert(now);
            let has_answered = quiet.answered.is_some_and(|at| now - at < LATELY);
            let is_told = quiet.hinted.is_some_and(|at| now - at < AGAIN);
            if seen.unanswered >= ENOUGH && !has_answered && !is_told {
                let is_new = quiet.hinted.replace(now).is_none();
                hints.push(Hint { server: server.clone(), unanswered: seen.unanswered, within: now - since + UNSEEN, is_new });
            }
        }
        let is_fresh = |at: Option<Instant>| at.is_some_and(|at| now - at < FORGOTTEN);
        self.servers.retain(|_, quiet| is_fresh(quiet.answered) || is_fresh(quiet.unanswered.map(|(at, _)| at)));
        hints
    }

    /// The servers that are silent, how many connections they had not answered when any was last seen, and for how long they had answered none then.
    pub fn silent(&self) -> impl Iterator<Item = (&ServerName, u32, Duration)> {
        let silent = self.servers.iter().filter(|(_, quiet)| quiet.hinted.is_some());
        silent.filter_map(|(name, quiet)| {
            let (at, unanswered) = quiet.unanswered?;
            Some((name, unanswered, at - quiet.since? + UNSEEN))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOOK: Duration = Duration::from_secs(1);

    struct World {
        silences: Silences,
        now: Instant,
    }

    impl World {
        /// A second later: whether the server is hinted at.
        fn look(&mut self, unanswered: u32, answered: u32) -> Option<bool> {
            self.now += LOOK;
            let seen = [(server(), Seen { unanswered, answered })].into();
            let hints = self.silences.handle_look(&seen, self.now);
            hints.first().map(|hint| hint.is_new)
        }

        fn silent(&self) -> Option<u32> {
            self.silences.silent().next().map(|(_, unanswered, _)| unanswered)
        }
    }

    #[expect(clippy::disallowed_methods, reason = "an instant to begin with")]
    fn world() -> World {
        World { silences: Silences::default(), now: Instant::now() }
    }

    fn server() -> ServerName {
        ServerName::new("p", "a")
    }

    #[test]
    fn several_unanswered_connections_are_a_hint_and_a_few_are_none() {
        let mut world = world();
        assert_eq!((world.look(2, 0), world.silent()), (None, None));
        assert_eq!((world.look(3, 0), world.silent()), (Some(true), Some(3)));
        assert_eq!((world.look(4, 0), world.silent()), (None, Some(4)), "told once");
        assert_eq!(world.silences.silent().next().map(|(.., within)| within.as_secs()), Some(3), "of the look with two, too");
    }

    #[test]
    fn who_answers_anybody_is_not_silent() {
        let mut world = world();
        assert_eq!(world.look(50, 1), None);
        assert_eq!(world.look(50, 0), None, "it answered a moment ago");
        assert_eq!(world.look(50, 0), Some(true));
        assert_eq!((world.look(50, 1), world.silent()), (None, None));
    }

    #[test]
    fn who_stays_silent_is_hinted_at_again_and_forgotten_when_nobody_comes() {
        let mut world = world();
        let hints: Vec<_> = (0..11).map(|_| world.look(3, 0)).collect();
        let told: Vec<_> = hints.iter().enumerate().filter_map(|(at, hint)| Some((at, (*hint)?))).collect();
        assert_eq!(told, [(0, true), (5, false), (10, false)]);
        (0..4).for_each(|_| assert_eq!(world.look(0, 0), None));
        assert_eq!(world.silent(), Some(3));
        world.look(0, 0);
        assert_eq!((world.silent(), world.silences.servers.len()), (None, 0));
    }
}
