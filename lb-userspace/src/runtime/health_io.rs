//! What becomes of the checks' results: the maps follow, and the log tells why.
#![allow(clippy::disallowed_methods, reason = "reads the clock for the daemon")]

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Instant,
};

use tracing::{info, warn};

use super::daemon_io::{Daemon, unix_time};
use crate::{
    control::{
        event::What,
        standing::{AdminState, Override, ServerName},
    },
    health::{
        driver::{Changed, News, Told},
        monitor::Note,
    },
};

/// A configuration beside the one before.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Compared {
    /// Nothing differs.
    Same,
    /// Something does.
    Differs,
}

impl Daemon {
    /// Has the checks made that configuration and operator ask for, if they differ from those that are.
    pub(super) async fn set_checks(&mut self, config: Compared) {
        let is_maintained = |said: &Override| said.state == Some(AdminState::Maint);
        let maintained = self.overrides.servers.iter().filter(|(_, said)| is_maintained(said)).map(|(name, _)| name.clone()).collect();
        if config == Compared::Same && self.maintained.as_ref() == Some(&maintained) {
            return;
        }
        self.maintained = Some(maintained);
        let mut wanted = self.book.checks(&self.config, &self.overrides.servers);
        self.prepare_ways(&mut wanted).await;
        self.checks.set(wanted).await;
    }

    /// The checks tell something.
    pub(super) async fn handle_health(&mut self, Told { seat, news }: Told) {
        let (News::Changed(Changed { server, .. }) | News::Noted(server, _)) = &news;
        if !self.book.is_of(server, seat) {
            return;
        }
        match news {
            News::Changed(changed) => self.handle_changed(changed).await,
            News::Noted(server, note) => self.handle_noted(server, &note).await,
        }
        self.follow_vrrp().await;
    }

    /// The record follows within a second: there may be many of them.
    async fn handle_noted(&mut self, server: ServerName, note: &Note) {
        let was_made = self.book.entries().get(&server).is_some_and(|entry| entry.not_made.is_none());
        self.book.handle_noted(&server, note, unix_time().as_millis() as u64);
        match note {
            Note::FoundUp | Note::Cause(_) => {}
            Note::NotMade(why) if was_made => {
                warn!(%server, why = why.text, "checks of the server cannot be made: it stays what it is");
                self.tell(What::CheckNotMade { server, cause: why.text.clone() });
            }
            Note::NotMade(_) => {}
            Note::Made => {
                info!(%server, "checks of the server are made again");
                self.tell(What::CheckMade { server });
            }
            Note::FoundDown(cause) => {
                let cause = cause.to_string();
                warn!(%server, cause, "the server is down at its first check");
                let pool = server.pool.clone();
                self.tell(What::ServerDown { server, cause: Some(cause), results: 1 });
                self.go_back_from_ruin(&pool).await;
            }
        }
    }

    /// A server went up or down.
    async fn handle_changed(&mut self, changed: Changed) {
        let cause = changed.cause.as_ref().map(ToString::to_string).unwrap_or_default();
        if changed.is_up {
            info!(server = %changed.server, results = changed.results, "the server is up");
        } else {
            warn!(server = %changed.server, cause, results = changed.results, "the server is down");
        }
        self.book.handle_changed(&changed, &self.config, Instant::now(), unix_time().as_millis() as u64);
        self.converge_pools(&BTreeSet::from([changed.server.pool.clone()]));
        let (server, cause, results) = (changed.server.clone(), changed.cause.map(|cause| cause.to_string()), changed.results);
        self.tell(if changed.is_up { What::ServerUp { server, cause, results } } else { What::ServerDown { server, cause, results } });
        self.go_back_from_ruin(&changed.server.pool).await;
    }

    /// A configuration that waits to be confirmed is not, if all servers of a pool go down under it.
    async fn go_back_from_ruin(&mut self, pool: &str) {
        if self.history.confirm_until_ms.is_some() && self.ruined_pools().contains(pool) {
            self.go_back(self.history.otherwise, &format!("all servers of pool {pool} are down under the later one")).await;
        }
    }

    /// Pools that listeners use and whose servers have all been found down.
    pub(super) fn ruined_pools(&self) -> BTreeSet<String> {
        let used: BTreeSet<&String> = self.config.listeners.values().map(|listener| &listener.pool).collect();
        let mut ruined: BTreeMap<&String, bool> = BTreeMap::new();
        for (name, entry) in self.book.entries().iter().filter(|(name, _)| used.contains(&name.pool)) {
            *ruined.entry(&name.pool).or_insert(true) &= !entry.is_up && entry.is_checked;
        }
        ruined.into_iter().filter(|(_, is_ruined)| *is_ruined).map(|(pool, _)| pool.clone()).collect()
    }

    /// When a server that comes back gets more of its weight.
    pub(super) fn next_ramp_step(&self) -> Option<Instant> {
        self.book.poll_timeout(&self.config, Instant::now())
    }

    /// Servers that come back get more of their weight.
    pub(super) fn handle_ramp_step(&mut self) {
        let pools = self.book.ramping();
        self.book.handle_timeout(&self.config, Instant::now());
        self.converge_pools(&pools);
    }
}
