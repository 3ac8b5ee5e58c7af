//! Passive hints: who answers no client is checked at once.
#![allow(clippy::disallowed_methods, reason = "reads the clock for the daemon")]

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use tracing::warn;

use super::{
    daemon_io::Daemon,
    report::{Silence, in_words},
};
use crate::{
    config::model::Forward,
    control::{event::What, standing::ServerName},
    dataplane::{Openings, Seen},
    health::silence::{Hint, Silences},
};

/// What the daemon keeps of it.
#[derive(Debug, Default)]
pub(super) struct Looks {
    openings: Openings,
    silences: Silences,
}

impl Daemon {
    /// Each second: looks at what becomes of the connections that clients open.
    pub(super) async fn look_for_silence(&mut self) {
        let is_hinted =
            |pool: &str| self.config.pools.get(pool).is_some_and(|pool| pool.passive_hints && matches!(pool.forward, Forward::Nat { .. }));
        if !self.config.listeners.values().any(|listener| is_hinted(&listener.pool)) {
            self.looks = Looks::default();
            if !std::mem::take(&mut self.report.silences).is_empty() {
                self.checks.doubt(BTreeSet::new()).await;
            }
            return;
        }
        let seen = self.dataplane.tick().map_err(|error| in_words(&error));
        let seen = seen.and_then(|now| self.looks.openings.look(self.dataplane.tables(), now).map_err(|error| in_words(&error)));
        let by_member = match seen {
            Ok(seen) => seen,
            Err(error) => return warn!(error, "what becomes of new connections is not seen"),
        };
        let mut by_server: BTreeMap<ServerName, Seen> = BTreeMap::new();
        if !by_member.is_empty() {
            let names = self.servers_of_members();
            for (member, seen) in by_member {
                let Some(name) = names.get(&member).filter(|name| is_hinted(&name.pool) && self.is_thought_up(name)) else { continue };
                let sum = by_server.entry(name.clone()).or_default();
                *sum = Seen { unanswered: sum.unanswered + seen.unanswered, answered: sum.answered + seen.answered };
            }
        }
        for Hint { server, unanswered, within, is_new } in self.looks.silences.handle_look(&by_server, Instant::now()) {
            self.checks.hint(server.clone()).await;
            if is_new {
                let within_s = within.as_secs();
                warn!(%server, unanswered, within_s, "the server answers no new connection");
                self.tell(What::ServerSilent { server, unanswered, within_s });
            }
        }
        let silent = self.looks.silences.silent().filter(|(server, ..)| self.is_thought_up(server));
        let silence = |unanswered, within: Duration| Silence { unanswered, within_s: within.as_secs() };
        let silences: BTreeMap<ServerName, Silence> =
            silent.map(|(server, unanswered, within)| (server.clone(), silence(unanswered, within))).collect();
        if !silences.keys().eq(self.report.silences.keys()) {
            self.checks.doubt(silences.keys().cloned().collect()).await;
        }
        self.report.silences = silences;
    }

    /// Of one that is down it is known already.
    fn is_thought_up(&self, server: &ServerName) -> bool {
        self.book.entries().get(server).is_none_or(|entry| entry.is_up)
    }
}
