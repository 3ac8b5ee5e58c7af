//! What happened: changes of servers, of the configuration and of what the operator says. Kept in memory, the latest ones, and told to whoever follows.

use std::{collections::VecDeque, net::IpAddr};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::standing::ServerName;

/// How many are kept.
pub const MOST: usize = 1000;

/// One thing that happened.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Event {
    /// Counts from 1 since the daemon's start.
    pub number: u64,
    /// Milliseconds of the Unix epoch.
    pub at_ms: u64,
    /// What happened.
    #[serde(flatten)]
    pub what: What,
}

/// What happened.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum What {
    /// The daemon took charge of the data plane.
    Started {
        /// Whether the data plane was there: `adopted` or `fresh`.
        origin: String,
    },
    /// A server's checks succeed again.
    ServerUp {
        /// Which.
        server: ServerName,
        /// What was wrong until then.
        cause: Option<String>,
        /// Results in a row that led to it.
        results: u16,
    },
    /// A server's checks fail.
    ServerDown {
        /// Which.
        server: ServerName,
        /// What is wrong.
        cause: Option<String>,
        /// Results in a row that led to it.
        results: u16,
    },
    /// This machine cannot make a server's checks: the server stays what it is.
    CheckNotMade {
        /// Whose.
        server: ServerName,
        /// Why.
        cause: String,
    },
    /// A server's checks are made again.
    CheckMade {
        /// Whose.
        server: ServerName,
    },
    /// A server answers no connection of clients, and is checked at once.
    ServerSilent {
        /// Which.
        server: ServerName,
        /// How many connections it has not answered.
        unanswered: u32,
        /// Within how many seconds it has answered none.
        within_s: u64,
    },
    /// A configuration is in force.
    Applied {
        /// Its number in the history.
        generation: u64,
        /// Who or what had it applied.
        by: String,
        /// Operations on the maps.
        operations: usize,
    },
    /// A configuration was refused; the one in force stays.
    Refused {
        /// Who or what wanted it.
        by: String,
        /// What is wrong with it.
        errors: Vec<String>,
    },
    /// The operator said something.
    Operated {
        /// Who.
        by: String,
        /// What, as a command.
        command: String,
    },
    /// The DNS has another answer for a name of the configuration.
    NameChanged {
        /// The name.
        name: String,
        /// Addresses that came, each a server of its own.
        #[schema(value_type = Vec<String>, example = json!(["192.0.2.10"]))]
        came: Vec<IpAddr>,
        /// Addresses that went.
        #[schema(value_type = Vec<String>, example = json!(["192.0.2.10"]))]
        went: Vec<IpAddr>,
    },
    /// The DNS does not tell of a name; its servers stay.
    NameFailed {
        /// The name.
        name: String,
        /// Why.
        cause: String,
    },
    /// An earlier configuration is in force again, because nobody confirmed the later one or its servers went down.
    RolledBack {
        /// The number of the one in force.
        generation: u64,
        /// Why.
        why: String,
    },
    /// A configuration that waited to be confirmed waits no more: another one is in its place.
    NotAwaited {
        /// The number of the one that waited.
        generation: u64,
        /// The one that would have followed.
        otherwise: u64,
        /// Who or what had the other one applied.
        by: String,
    },
    /// A virtual router's state is another.
    Vrrp {
        /// Which.
        router: String,
        /// Before.
        from: String,
        /// After: `stopped`, `fault`, `backup`, `held-over`, `active` or `yielding`.
        to: String,
        /// Why.
        why: String,
    },
    /// Another node's virtual router is not as it should be, or is again.
    VrrpConflict {
        /// Which router.
        router: String,
        /// The other node, if it is known by an address of its own.
        #[schema(value_type = Option<String>)]
        peer: Option<IpAddr>,
        /// What is wrong.
        what: String,
        /// Whether it is over.
        is_over: bool,
    },
    /// Another process speaks for virtual routers: the one before was killed, or is of another program.
    VrrpSpeaker {
        /// It.
        pid: u32,
        /// The one before.
        before: u32,
    },
    /// The program that is told of a virtual router's changes failed.
    VrrpNotify {
        /// Which router.
        router: String,
        /// What it did.
        what: String,
    },
    /// Something that was kept is lost.
    Lost {
        /// What, and why.
        cause: String,
    },
    /// Events that are not told: nobody asked for them while they were kept. Its number is that of the last of them.
    Missed {
        /// How many.
        count: u64,
    },
}

/// The latest events.
#[derive(Clone, Debug, Default)]
pub struct Events {
    kept: VecDeque<Event>,
    numbers: u64,
}

impl Events {
    /// Keeps what happened; gives it with its number.
    pub fn add(&mut self, what: What, at_ms: u64) -> Event {
        self.numbers += 1;
        let event = Event { number: self.numbers, at_ms, what };
        if self.kept.len() == MOST {
            self.kept.pop_front();
        }
        self.kept.push_back(event.clone());
        event
    }

    /// The events after `number`, the oldest first, and before them how many of those are not kept; all that are kept for 0.
    pub fn since(&self, number: u64) -> impl Iterator<Item = Event> {
        let missed = self.kept.front().filter(|_| number > 0).and_then(|first| Self::missed(number, first));
        missed.into_iter().chain(self.kept.iter().filter(move |event| event.number > number).cloned())
    }

    /// What stands between the event of the number `told` and `next`: how many are missing, if any are.
    #[must_use]
    pub fn missed(told: u64, next: &Event) -> Option<Event> {
        let count = next.number.saturating_sub(told).saturating_sub(1);
        (count > 0).then(|| Event { number: next.number - 1, at_ms: next.at_ms, what: What::Missed { count } })
    }
}

#[cfg(test)]
mod tests {
    use super::{Event, Events, MOST, What};

    #[test]
    fn the_latest_are_kept_and_numbered() {
        let mut events = Events::default();
        for _ in 0..MOST + 5 {
            events.add(What::Started { origin: "fresh".into() }, 7);
        }
        assert_eq!(events.since(0).map(|event| event.number).collect::<Vec<_>>(), (6..=1005).collect::<Vec<_>>());
        assert_eq!(events.since(1003).count(), 2);
        assert_eq!(events.since(1005).count(), 0);
    }

    #[test]
    fn who_asks_too_late_is_told_how_many_are_lost() {
        let mut events = Events::default();
        for _ in 0..MOST + 5 {
            events.add(What::Started { origin: "fresh".into() }, 7);
        }
        let told: Vec<Event> = events.since(2).collect();
        assert_eq!((told[0].number, &told[0].what, told[1].number), (5, &What::Missed { count: 3 }, 6));
        assert_eq!(events.since(5).next().unwrap().number, 6);
        let next = Event { number: 9, ..told[1].clone() };
        assert_eq!(Events::missed(8, &next), None);
        assert_eq!(Events::missed(5, &next).unwrap().what, What::Missed { count: 3 });
    }

    #[test]
    fn an_event_is_one_object() {
        let event =
            Events::default().add(What::ServerDown { server: "web/a".parse().unwrap(), cause: Some("L4 refused".into()), results: 3 }, 9);
        let json = serde_json::to_string(&event).unwrap();
        assert_eq!(json, r#"{"number":1,"at_ms":9,"kind":"server-down","server":"web/a","cause":"L4 refused","results":3}"#);
    }
}
