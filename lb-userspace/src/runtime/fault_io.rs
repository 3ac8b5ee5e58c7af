//! A daemon that dies where somebody wants it to, to see what follows: `WEIR_DIES_AT=3 weir run …` ends as by `kill -9` before its operation 3 on the maps,
//! counted from 0.
#![allow(clippy::disallowed_methods, reason = "reads the environment and ends the process")]

use std::sync::LazyLock;

static DIES_AT: LazyLock<Option<usize>> = LazyLock::new(|| std::env::var("WEIR_DIES_AT").ok()?.parse().ok());

/// Ends this process if it is to die before the operation of this number.
pub(super) fn before_operation(number: usize) {
    if *DIES_AT == Some(number) {
        // Nothing follows, whether or not it succeeds.
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    }
}
