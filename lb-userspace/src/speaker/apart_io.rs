//! Keeps a long system call off the processor where this node's speaker of VRRP runs.
//!
//! A kernel that is not built to preempt itself (PREEMPT_NONE, PREEMPT_VOLUNTARY) leaves a processor to others when the call is over, or where the call
//! offers it. Patching a program of 20 000 instructions (linux v6.18 kernel/bpf/verifier.c, `do_misc_fixups`) offers nothing for 28 ms, and adverts that
//! come each 10 ms are missed after 30: of 30 daemons that started on an active node 7 had another node take over.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "looks at processes, and moves this thread")]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use super::NAME;

/// The real-time policy that a speaker asks for (linux include/uapi/linux/sched.h).
const SCHED_FIFO: usize = 1;

/// While it lives this thread is on processors where no speaker ran last, if it may use such.
#[derive(Debug)]
pub struct Apart {
    before: Option<CpuSet>,
}

impl Apart {
    /// Moves it, as far as that is permitted.
    #[must_use = "it ends with this"]
    pub fn begin() -> Self {
        Self { before: move_apart(&speakers_processors()) }
    }
}

impl Drop for Apart {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            let _stays_apart = sched_setaffinity(None, before);
        }
    }
}

/// What this thread might use before; none if it stays where it is.
fn move_apart(taken: &BTreeSet<usize>) -> Option<CpuSet> {
    let before = sched_getaffinity(None).ok().filter(|_| !taken.is_empty())?;
    let mut apart = before;
    taken.iter().filter(|processor| **processor < CpuSet::MAX_CPU).for_each(|processor| apart.unset(*processor));
    (apart.count() > 0 && sched_setaffinity(None, &apart).is_ok()).then_some(before)
}

/// Where speakers of this network namespace ran last. Those that cannot be read count for nothing.
fn speakers_processors() -> BTreeSet<usize> {
    let network = |process: &Path| fs::read_link(process.join("ns/net")).ok();
    let ours = network(Path::new("/proc/self"));
    let processes = fs::read_dir("/proc").into_iter().flatten().filter_map(Result::ok).map(|entry| entry.path());
    let speaks = |process: &PathBuf| {
        let processor = speakers_processor(&fs::read_to_string(process.join("stat")).ok()?)?;
        (network(process) == ours).then_some(processor)
    };
    processes.filter_map(|process| speaks(&process)).collect()
}

/// Of a line of `/proc/PID/stat` (proc_pid_stat(5)); none unless it is a speaker's that has real-time scheduling.
fn speakers_processor(stat: &str) -> Option<usize> {
    let (name, after_name) = stat.split_once('(')?.1.rsplit_once(')')?;
    let fields: Vec<&str> = after_name.split_whitespace().collect();
    // Fields are counted from 1, and the first here is field 3.
    let field = |number: usize| fields.get(number - 3)?.parse::<usize>().ok();
    (NAME.to_str() == Ok(name) && field(41)? == SCHED_FIFO).then(|| field(39))?
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &str = "812 (vrrp-speaker) S 1 812 812 0 -1 4194560 901 0 3 0 11 22 0 0 -51 0 1 0 5127 90112 3011 18446744073709551615 1 2 3 4 5 0 \
                        16387 4096 16384 0 0 0 17 3 50 1 0 0 0 6 7 8 9 10 11 12 0";

    #[test]
    fn a_speaker_is_found_where_it_ran() {
        assert_eq!(speakers_processor(STAT), Some(3));
        assert_eq!(speakers_processor(&STAT.replace("17 3 50 1", "17 3 0 0")), None, "an urgency that is refused");
        assert_eq!(speakers_processor(&STAT.replace("vrrp-speaker", "vrrp-heir")), None, "an heir");
        assert_eq!(speakers_processor(&STAT.replace("vrrp-speaker", "a) S (vrrp-speaker")), None, "another program");
        assert_eq!(speakers_processor("812 (vrrp-speaker"), None);
    }

    #[test]
    fn a_thread_leaves_processors_that_are_taken_and_comes_back() {
        let before = sched_getaffinity(None).unwrap();
        let mine: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|processor| before.is_set(*processor)).collect();
        assert!(mine.len() > 1, "this needs two processors");
        let apart = Apart { before: move_apart(&[mine[0]].into()) };
        let meanwhile = sched_getaffinity(None).unwrap();
        assert!(!meanwhile.is_set(mine[0]) && meanwhile.count() == before.count() - 1);
        drop(apart);
        assert_eq!(sched_getaffinity(None).unwrap(), before);
        // Where all are taken it stays.
        assert_eq!(move_apart(&mine.into_iter().collect()), None);
        assert_eq!(sched_getaffinity(None).unwrap(), before);
    }
}
