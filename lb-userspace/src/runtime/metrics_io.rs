//! Answers a scrape: what the daemon knows is taken at once; the maps are read by another thread, so that no packet's next hop waits for it.
#![allow(clippy::disallowed_methods, reason = "has a thread read the maps")]

use std::sync::Arc;

use tokio::{sync::oneshot, task::spawn_blocking};

use super::{
    admin_io::Answer,
    daemon_io::{Daemon, unix_ms},
    inspect::Inspector,
    metrics::{self, Facts},
};
use crate::{
    admin::answer::Refusal,
    config::model::Pool,
    control::standing::{ServerName, standings},
    dataplane::PinDir,
};

impl Daemon {
    /// Answers with the metrics. The thread ends by itself, after one reading.
    pub(super) async fn handle_scrape(&mut self, reply: oneshot::Sender<Answer>) {
        let facts = self.facts().await;
        let inspector = Inspector::new(PinDir::at(&self.config.node.pin_dir), facts.report.clone(), Some(facts.report.pid));
        spawn_blocking(move || {
            // Who asked may have gone.
            let _ = reply.send(metrics_text(&inspector, &facts));
        });
    }

    async fn facts(&mut self) -> Facts {
        self.follow_report();
        let checked = self.checks.known().await;
        let view = self.view();
        let of_pool = |(pool, section): (&String, &Arc<Pool>)| -> Vec<(ServerName, u16)> {
            let names = section.servers.keys().map(|server| ServerName::new(pool, server));
            names.zip(standings(pool, section, &view)).map(|(name, standing)| (name, standing.weight)).collect()
        };
        let weights = self.config.pools.iter().flat_map(of_pool).collect();
        let checks = checked.into_iter().map(|(name, one)| (name, (one.known.tally, one.known.last.map(|(_, took)| took)))).collect();
        let mut report = self.report.clone();
        report.read_at_ms = unix_ms();
        Facts { report, tallies: self.tallies.clone(), is_unconfirmed: self.history.confirm_until_ms.is_some(), weights, checks }
    }
}

fn metrics_text(inspector: &Inspector, facts: &Facts) -> Answer {
    let status = inspector.status(facts.report.read_at_ms)?;
    metrics::text(&status, facts).map(serde_json::Value::String).map_err(|error| Refusal::text(error.to_string()))
}
