//! A daemon that dies where a test wants it to. Builds without debug assertions, such as releases, have none of it.
#![allow(clippy::disallowed_methods, reason = "reads the environment and ends the process")]

/// Ends this process as `kill -9` would before the operation on the maps whose number, counted from 0 since the start, `WEIR_DIES_AT` names.
#[cfg(debug_assertions)]
pub(super) fn before_operation(number: usize) {
    let is_named = |name: String| name.parse() == Ok(number);
    if std::env::var("WEIR_DIES_AT").is_ok_and(is_named) {
        // Nothing follows, whether or not it succeeds.
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    }
}

/// Nothing.
#[cfg(not(debug_assertions))]
pub(super) const fn before_operation(_number: usize) {}
