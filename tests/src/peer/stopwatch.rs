//! Whether the machine itself stood still: each processor is asked each millisecond.

use std::{
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

const TICK: Duration = Duration::from_millis(1);

/// How late the latest of all wake-ups was, until the file appears. To be run before all others (`chrt --fifo`): else it measures its own turn.
pub fn run(until: &Path) -> anyhow::Result<Duration> {
    let processors = sched_getaffinity(None).context("failed to read which processors there are")?;
    thread::scope(|scope| {
        let watch = |processor| scope.spawn(move || latest_on(processor, until));
        let watches: Vec<_> = (0..CpuSet::MAX_CPU).filter(|processor| processors.is_set(*processor)).map(watch).collect();
        let mut longest = Duration::ZERO;
        for watch in watches {
            longest = longest.max(watch.join().expect("a watch does not panic")?);
        }
        Ok(longest)
    })
}

fn latest_on(processor: usize, until: &Path) -> anyhow::Result<Duration> {
    let mut only = CpuSet::new();
    only.set(processor);
    sched_setaffinity(None, &only).with_context(|| format!("failed to stay on processor {processor}"))?;
    let mut latest = Duration::ZERO;
    while !until.exists() {
        for _ in 0..16 {
            let asleep = Instant::now();
            thread::sleep(TICK);
            latest = latest.max(asleep.elapsed().saturating_sub(TICK));
        }
    }
    Ok(latest)
}
