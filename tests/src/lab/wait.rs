//! Waiting for a condition. Tests never sleep for a fixed time: they name what they wait for.

use std::{
    thread,
    time::{Duration, Instant},
};

const POLL: Duration = Duration::from_millis(10);

/// The condition did not come true in time.
#[derive(Debug, thiserror::Error)]
#[error("waited {} ms in vain for {what}", .waited.as_millis())]
pub struct Timeout {
    what: String,
    waited: Duration,
}

/// Asks `condition` every 10 ms until it holds; an error that names `what` once `deadline` has passed.
pub fn wait_until(what: &str, deadline: Duration, mut condition: impl FnMut() -> bool) -> Result<(), Timeout> {
    let start = Instant::now();
    while !condition() {
        if start.elapsed() >= deadline {
            return Err(Timeout { what: what.to_owned(), waited: start.elapsed() });
        }
        thread::sleep(POLL);
    }
    Ok(())
}
