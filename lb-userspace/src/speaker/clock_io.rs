//! Time that goes on while the machine sleeps.
#![allow(clippy::disallowed_methods, reason = "reads the clocks")]

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

use super::desk::Moment;

/// Instants that follow `CLOCK_BOOTTIME`: those of the standard library stand still while the machine sleeps.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    base: Instant,
    boot: Duration,
}

impl Clock {
    pub(super) fn start() -> Self {
        Self { base: Instant::now(), boot: boot_time() }
    }

    pub(super) fn now(&self) -> Instant {
        self.base + boot_time().saturating_sub(self.boot)
    }

    pub(super) fn moment(&self) -> Moment {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Moment { now: self.now(), boot: boot_time(), wall }
    }
}

/// Since the machine's start, its sleep too.
pub fn boot_time() -> Duration {
    let time = clock_gettime(ClockId::Boottime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or_default(), u32::try_from(time.tv_nsec).unwrap_or_default())
}
