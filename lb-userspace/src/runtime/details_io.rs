//! Everything that the daemon knows of each server: what others see, its checks, and how it came to be what it is.
#![allow(clippy::disallowed_methods, reason = "reads the clock, to tell when checks were and will be")]

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    time::{Duration, Instant},
};

use super::daemon_io::{Daemon, unix_ms};
use crate::{
    admin::api::{ProbeView, Refusal, ServerDetail},
    config::model::{Pace, ServerState},
    control::standing::ServerName,
    health::{
        monitor::Checked,
        outcome::Layer,
        target::{Route, Target, targets},
    },
};

/// A moment on both clocks.
#[derive(Clone, Copy, Debug)]
struct Now {
    instant: Instant,
    unix_ms: u64,
}

impl Now {
    /// Milliseconds of the Unix epoch.
    fn unix_ms_of(self, at: Instant) -> u64 {
        match at.checked_duration_since(self.instant) {
            Some(ahead) => self.unix_ms + millis(ahead),
            None => self.unix_ms.saturating_sub(millis(self.instant.duration_since(at))),
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl Daemon {
    /// Every server with all that is known of it.
    pub(super) async fn details(&mut self) -> Result<Vec<ServerDetail>, Refusal> {
        self.follow_standings();
        let checked = self.checks.known().await;
        let now = Now { instant: Instant::now(), unix_ms: unix_ms() };
        let targets: BTreeMap<ServerName, (Target, Pace)> = targets(&self.config);
        let detail = |view: crate::admin::api::ServerView| {
            let name = &view.server;
            let probe = targets.get(name).zip(checked.get(name)).map(|((target, _), checked)| probe_view(target, checked, now));
            let state = self.configured.server(&name.pool, &name.server).map(|server| state_word(server.state).to_owned());
            let has_check = self.config.pools.get(&name.pool).is_some_and(|pool| pool.check.is_some());
            let unchecked = (has_check && !targets.contains_key(name))
                .then(|| "no listener uses its pool, and neither it nor its check has a port of its own".to_owned());
            ServerDetail { configured_state: state, probe, unchecked, transitions: self.report.courses.of(name).to_vec(), view }
        };
        Ok(self.servers_as_they_are()?.into_iter().map(detail).collect())
    }
}

const fn state_word(state: ServerState) -> &'static str {
    match state {
        ServerState::Ready => "ready",
        ServerState::Drain => "drain",
        ServerState::Down => "down",
    }
}

fn probe_view(target: &Target, Checked { known, pace, next }: &Checked, now: Now) -> ProbeView {
    let address = match &target.route {
        Route::Direct => SocketAddr::new(target.address, target.port).to_string(),
        Route::From(own) => format!("{} from {own}", SocketAddr::new(target.address, target.port)),
        Route::Datapath(paths) => {
            let vips: Vec<String> = paths.iter().map(|path| SocketAddr::new(path.vip, path.port).to_string()).collect();
            format!("{} by the VIP {}", target.address, vips.join(", "))
        }
    };
    let is_local = known.failure.as_ref().is_some_and(|failure| failure.layer == Layer::Local);
    ProbeView {
        kind: target.probe.word().into(),
        target: address,
        is_up: known.is_up,
        is_unsure: known.is_unsure,
        // A result that contradicts the state is unsure, but for the one that has just changed it.
        last_good: known.last.map(|_| known.is_up == (known.contradicting == 0)),
        last_failure: known.failure.as_ref().map(ToString::to_string).filter(|_| !known.is_up || known.contradicting > 0 || is_local),
        last_at_ms: known.last.map(|(at, _)| now.unix_ms_of(at)),
        last_took_ms: known.last.map(|(_, took)| took.as_secs_f64() * 1000.0),
        next_at_ms: next.map(|at| now.unix_ms_of(at)),
        contradicting: known.contradicting,
        rise: pace.rise,
        fall: pace.fall,
        interval_ms: millis(pace.interval),
        timeout_ms: millis(pace.timeout),
        detection_ms: millis(pace.detection()),
        passed: known.tally.passed,
        failed: known.tally.failed,
        not_made: known.tally.not_made,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_before_and_after_are_told_on_the_other_clock() {
        let now = Now { instant: Instant::now(), unix_ms: 1_000_000 };
        assert_eq!(now.unix_ms_of(now.instant + Duration::from_millis(1500)), 1_001_500);
        assert_eq!(now.unix_ms_of(now.instant - Duration::from_millis(20)), 999_980);
    }
}
