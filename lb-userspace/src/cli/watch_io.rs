//! `--watch`: shows something again and again, until it is interrupted or nobody reads it any more.
#![allow(clippy::disallowed_methods, reason = "waits, and reads the clock")]

use std::{
    io,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::{
    runtime::Builder,
    signal::unix::{SignalKind, signal},
    time::sleep,
};

use super::Exit;

/// What a look came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Shown {
    /// The next one may show something else.
    Something,
    /// There is nothing to look at.
    Nothing(Exit),
}

/// Calls `show` each `interval`, with the time in milliseconds of the Unix epoch, until the process is interrupted or told to end. Where there is
/// nothing to look at it ends at once.
///
/// # Errors
/// Those of `show`, and of watching signals.
pub(super) fn each(interval: Duration, mut show: impl FnMut(u64) -> io::Result<Shown>) -> io::Result<Exit> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let (mut interrupt, mut terminate) =
        runtime.block_on(async { Ok::<_, io::Error>((signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)) })?;
    loop {
        // Outside of the runtime, which may not be in another one: what is shown may have to be asked for.
        if let Shown::Nothing(exit) = show(now_ms())? {
            return Ok(exit);
        }
        let is_over = runtime.block_on(async {
            // Every arm is cancel safe: signals stay pending.
            tokio::select! {
                _ = interrupt.recv() => true,
                _ = terminate.recv() => true,
                () = sleep(interval) => false,
            }
        });
        if is_over {
            return Ok(Exit::Fine);
        }
    }
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_millis() as u64)
}
