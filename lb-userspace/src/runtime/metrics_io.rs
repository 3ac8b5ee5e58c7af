//! Answers a scrape: what the daemon knows is taken at once; the maps are read by another thread, so that no packet's next hop waits for it.
#![allow(clippy::disallowed_methods, reason = "has a thread read the maps")]

use std::sync::Arc;

use tokio::{sync::oneshot, task::spawn_blocking};

use super::{
    daemon_io::{Daemon, unix_ms},
    metrics::{self, Facts},
    report::{Report, in_words},
    status::{Status, gather},
};
use crate::{
    admin::api::{Refusal, StatusView},
    config::model::Pool,
    control::standing::{ServerName, standings},
    dataplane::{Access, PinDir, Tables},
};

type Answer = Result<serde_json::Value, Refusal>;

impl Daemon {
    /// Answers with the metrics. The thread ends by itself, after one reading.
    pub(super) async fn handle_scrape(&mut self, reply: oneshot::Sender<Answer>) {
        let facts = self.facts().await;
        let pins = PinDir::at(&self.config.node.pin_dir);
        spawn_blocking(move || {
            // Who asked may have gone.
            let _ = reply.send(metrics_text(&pins, &facts));
        });
    }

    /// Answers with the node as it is, as [`Self::handle_scrape`]. Rates are those since the counters of the record.
    pub(super) fn handle_look(&mut self, reply: oneshot::Sender<Answer>) {
        self.follow_standings();
        let report = self.report.clone();
        let pins = PinDir::at(&self.config.node.pin_dir);
        spawn_blocking(move || {
            // Who asked may have gone.
            let _ = reply.send(status_view(&pins, &report));
        });
    }

    async fn facts(&mut self) -> Facts {
        self.follow_standings();
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

fn status_view(pins: &PinDir, report: &Report) -> Answer {
    let status = gathered(pins, report, unix_ms())?;
    let refused = |error: serde_json::Error| Refusal::text(error.to_string());
    let view = StatusView { healthy: status.is_healthy(), status: serde_json::to_value(&status).map_err(refused)? };
    serde_json::to_value(view).map_err(refused)
}

fn gathered(pins: &PinDir, report: &Report, now_ms: u64) -> Result<Status, Refusal> {
    let tables = Tables::open(pins, Access::ReadOnly).map_err(|error| Refusal::text(in_words(&error)))?;
    gather(&tables, pins, report, Some(report.pid), now_ms).map_err(|error| Refusal::text(format!("{error:#}")))
}

fn metrics_text(pins: &PinDir, facts: &Facts) -> Answer {
    let status = gathered(pins, &facts.report, facts.report.read_at_ms)?;
    metrics::text(&status, facts).map(serde_json::Value::String).map_err(|error| Refusal::text(error.to_string()))
}
