//! `weir drain --wait`: looks each second how many flows are left, and guesses how long they will take.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "waits")]

use std::{
    io::{self, Write},
    path::Path,
    thread::sleep,
    time::{Duration, Instant},
};

use super::operate::{OperateError, asked};
use crate::{
    admin::{
        api::{Request, ServerView},
        client_io::AskError,
    },
    control::standing::ServerName,
};

const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// A daemon that starts again is waited for so long.
const AWAY: Duration = Duration::from_secs(60);

/// How the waiting ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Waited {
    /// Nothing is left to wait for.
    Over,
    /// Flows were left at the deadline.
    Late,
}

/// Waits until these servers have no flows left, one of them is not configured any more, or `deadline` is over; says on `err` how many are left each time that the number changes.
pub(super) fn until_empty(
    config: &Path,
    names: &[ServerName],
    deadline: Option<Duration>,
    err: &mut impl Write,
) -> io::Result<Result<Waited, OperateError>> {
    let began = Instant::now();
    let mut first: Option<u64> = None;
    let (mut told, mut away) = (None, None);
    loop {
        let servers: Vec<ServerView> = match asked(config, &Request::Servers) {
            Ok(servers) => servers,
            // It may be starting again: flows go on without it.
            Err(error) if is_away(&error) && away.get_or_insert_with(Instant::now).elapsed() < AWAY => {
                if told.take().is_some() {
                    writeln!(err, "the daemon does not answer: it is waited for")?;
                }
                sleep(LOOK_INTERVAL);
                continue;
            }
            Err(error) => return Ok(Err(error)),
        };
        away = None;
        if names.iter().any(|name| !servers.iter().any(|server| server.server == *name)) {
            // Who asked tells it.
            return Ok(Ok(Waited::Over));
        }
        let left: u64 = servers.iter().filter(|server| names.contains(&server.server)).map(|server| server.flows).sum();
        let most = *first.get_or_insert(left);
        if told != Some(left) {
            writeln!(err, "{left} flows left{}", estimate(most, left, began.elapsed()))?;
            told = Some(left);
        }
        if left == 0 {
            return Ok(Ok(Waited::Over));
        }
        if deadline.is_some_and(|deadline| began.elapsed() >= deadline) {
            writeln!(err, "the deadline is over with {left} flows left")?;
            return Ok(Ok(Waited::Late));
        }
        sleep(LOOK_INTERVAL.min(deadline.map_or(LOOK_INTERVAL, |deadline| deadline.saturating_sub(began.elapsed()))));
    }
}

fn is_away(error: &OperateError) -> bool {
    match error {
        OperateError::Ask(error) => match error {
            AskError::NoDaemon { .. } | AskError::Broken(_) => true,
            AskError::Denied { .. } | AskError::Silent(_) | AskError::Unknown(_) | AskError::Refused(_) => false,
        },
        OperateError::Mute { .. } => true,
        OperateError::Place(_) | OperateError::Answer(_) => false,
    }
}

/// How long the rest takes if flows go on ending as fast as they did.
fn estimate(most: u64, left: u64, elapsed: Duration) -> String {
    let ended = most.saturating_sub(left);
    if ended == 0 || left == 0 {
        return String::new();
    }
    let seconds = elapsed.as_secs_f64() * left as f64 / ended as f64;
    format!(", about {} more if they go on ending as fast", humantime::format_duration(Duration::from_secs(seconds.ceil() as u64)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rest_takes_as_long_as_what_ended() {
        assert_eq!(estimate(100, 50, Duration::from_secs(30)), ", about 30s more if they go on ending as fast");
        assert_eq!(estimate(100, 100, Duration::from_secs(30)), "");
        assert_eq!(estimate(100, 0, Duration::from_secs(30)), "");
    }
}
