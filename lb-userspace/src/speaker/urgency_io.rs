//! Real-time scheduling and locked memory (a busy machine delays adverts of 10 ms so long that others take over), and signals.
#![allow(unsafe_code, reason = "no crate of ours wraps these system calls")]

use std::{
    io,
    sync::atomic::{AtomicBool, Ordering},
};

/// Above everything that is not urgent, below the kernel's own threads.
const PRIORITY: i32 = 50;

/// Which memory is locked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Locking {
    /// All that there is: it is fetched at once, which takes a while.
    All,
    /// Whatever is used from now on.
    Used,
}

/// Has this process run before all others, and none of its memory paged out. What is not permitted is told.
pub(super) fn become_urgent(locking: Locking) -> Vec<String> {
    let parameters = libc::sched_param { sched_priority: PRIORITY };
    // SAFETY: the pointer is to a whole structure that outlives the call, which only reads it; 0 is this thread.
    let scheduled = unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK, &raw const parameters) };
    let scheduling = told(scheduled, "real-time scheduling is refused: on a busy machine others may take over");
    let flags = match locking {
        Locking::All => libc::MCL_CURRENT | libc::MCL_FUTURE,
        Locking::Used => libc::MCL_CURRENT | libc::MCL_FUTURE | libc::MCL_ONFAULT,
    };
    // SAFETY: the call takes no pointer.
    let locked = unsafe { libc::mlockall(flags) };
    let locking = told(locked, "memory is not locked: on a machine that pages others may take over");
    scheduling.into_iter().chain(locking).collect()
}

/// What [`become_urgent`] would have to do without: tried, and taken back.
pub(super) fn refusals() -> Vec<String> {
    let refused = become_urgent(Locking::Used);
    let parameters = libc::sched_param { sched_priority: 0 };
    // SAFETY: as above.
    let _was_not_urgent = unsafe { libc::sched_setscheduler(0, libc::SCHED_OTHER, &raw const parameters) };
    // SAFETY: the call takes no pointer.
    let _was_not_locked = unsafe { libc::munlockall() };
    refused
}

static IS_TERMINATED: AtomicBool = AtomicBool::new(false);

extern "C" fn note_termination(_signal: libc::c_int) {
    IS_TERMINATED.store(true, Ordering::Relaxed);
}

/// SIGTERM is noted; the signals of a terminal are the daemon's.
pub(super) fn catch_signals() {
    let handler = note_termination as extern "C" fn(libc::c_int) as *const () as libc::sighandler_t;
    // SAFETY: the handler does nothing but store to an atomic, which is safe in a signal's context.
    unsafe { libc::signal(libc::SIGTERM, handler) };
    for ignored in [libc::SIGINT, libc::SIGHUP, libc::SIGPIPE] {
        // SAFETY: no code of ours runs on an ignored signal.
        unsafe { libc::signal(ignored, libc::SIG_IGN) };
    }
}

/// Whether somebody told this process to end.
pub(super) fn is_terminated() -> bool {
    IS_TERMINATED.load(Ordering::Relaxed)
}

fn told(result: i32, what: &str) -> Option<String> {
    (result != 0).then(|| format!("{what}: {}", io::Error::last_os_error()))
}
