//! The programs that virtual routers watch and tell.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "runs programs and waits for them")]

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    process::Stdio,
    time::{Duration, Instant},
};

use tokio::{
    process::Command,
    sync::mpsc,
    task::JoinHandle,
    time::{sleep_until, timeout},
};
use tracing::warn;

use crate::config::model::TrackedCommand;

/// A program that is told of a change ends within this time, or is killed: the next change waits.
const TOLD_WITHIN: Duration = Duration::from_secs(30);
/// Changes that wait for their programs.
const QUEUE: usize = 256;
/// Where programs are found if this process has no PATH.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Whether a program succeeds.
type Outcome = (TrackedCommand, bool);

/// The programs that are watched.
pub(super) struct Watching {
    tasks: BTreeMap<TrackedCommand, JoinHandle<()>>,
    known: BTreeMap<TrackedCommand, bool>,
    results: (mpsc::Sender<Outcome>, mpsc::Receiver<Outcome>),
    began: Instant,
}

impl Default for Watching {
    fn default() -> Self {
        Self { tasks: BTreeMap::new(), known: BTreeMap::new(), results: mpsc::channel(QUEUE), began: Instant::now() }
    }
}

impl Watching {
    /// Watches these, and no others.
    pub(super) fn set(&mut self, wanted: &BTreeSet<&TrackedCommand>) {
        self.tasks.retain(|command, task| {
            let is_wanted = wanted.contains(command);
            if !is_wanted {
                task.abort();
            }
            is_wanted
        });
        self.known.retain(|command, _| wanted.contains(command));
        for &command in wanted {
            if !self.tasks.contains_key(command) {
                self.began = Instant::now();
                self.tasks.insert(command.clone(), tokio::spawn(watch(command.clone(), self.results.0.clone())));
            }
        }
    }

    /// Whether one succeeds.
    pub(super) fn succeeds(&self, command: &TrackedCommand) -> bool {
        self.known.get(command).copied().unwrap_or(false)
    }

    /// Whether all have told something, or had the time to.
    pub(super) fn is_ready(&self) -> bool {
        let longest = self.tasks.keys().map(|command| command.timeout).max().unwrap_or_default();
        self.tasks.keys().all(|command| self.known.contains_key(command)) || self.began.elapsed() > longest + Duration::from_millis(100)
    }

    /// Waits until one tells something else than before. Cancel safe.
    pub(super) async fn changed(&mut self) {
        loop {
            let Some((command, is_up)) = self.results.1.recv().await else { return std::future::pending().await };
            if self.tasks.contains_key(&command) && self.known.insert(command, is_up) != Some(is_up) {
                return;
            }
        }
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.tasks.values().for_each(JoinHandle::abort);
    }
}

async fn watch(command: TrackedCommand, results: mpsc::Sender<Outcome>) {
    let mut state = None;
    let (mut in_a_row, mut last) = (0, None);
    let mut next = tokio::time::Instant::now();
    loop {
        let succeeded = run(&command.argv, &[], command.timeout).await.is_ok();
        in_a_row = if last == Some(succeeded) { in_a_row + 1 } else { 1 };
        last = Some(succeeded);
        let needed = if succeeded { command.rise } else { command.fall };
        if state != Some(succeeded) && (state.is_none() || in_a_row >= u32::from(needed)) {
            state = Some(succeeded);
            if results.send((command.clone(), succeeded)).await.is_err() {
                return;
            }
        }
        next = (next + command.interval).max(tokio::time::Instant::now());
        sleep_until(next).await;
    }
}

/// Runs a program to its end.
async fn run(argv: &[String], environment: &[(String, String)], within: Duration) -> Result<(), String> {
    let Some((program, arguments)) = argv.split_first() else { return Ok(()) };
    let mut child = Command::new(program)
        .args(arguments)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_else(|| PATH.into()))
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| format!("failed to start {program}: {error}"))?;
    match timeout(within, child.wait()).await {
        Ok(Ok(status)) if status.success() => Ok(()),
        Ok(Ok(status)) => Err(format!("{program} ended with {status}")),
        Ok(Err(error)) => Err(format!("failed to wait for {program}: {error}")),
        Err(_) => Err(format!("{program} has not ended within {within:?}")),
    }
}

/// The programs that are told, one after the other.
pub(super) struct Telling {
    queue: mpsc::Sender<Notice>,
}

/// What a program is told.
pub(super) struct Notice {
    /// The program and its arguments.
    pub(super) argv: Vec<String>,
    /// What it finds in its environment.
    pub(super) environment: Vec<(String, String)>,
}

impl Telling {
    pub(super) fn start() -> Self {
        let (queue, mut notices) = mpsc::channel::<Notice>(QUEUE);
        // It ends with its queue: what waits is told still.
        tokio::spawn(async move {
            while let Some(Notice { argv, environment }) = notices.recv().await {
                if let Err(error) = run(&argv, &environment, TOLD_WITHIN).await {
                    warn!(error, "the program that is told of vrrp failed");
                }
            }
        });
        Self { queue }
    }

    pub(super) fn tell(&self, notice: Notice) {
        if self.queue.try_send(notice).is_err() {
            warn!("the programs that are told of vrrp are too slow: a change is not told");
        }
    }

    /// Waits until all that was to be told is, within a bound.
    pub(super) async fn finish(self) {
        let Self { queue } = self;
        let _ = timeout(TOLD_WITHIN, queue.reserve_many(QUEUE)).await;
    }
}

/// Whether a file is there.
pub(super) fn is_there(path: &Path) -> bool {
    path.exists()
}
