//! The programs that virtual routers watch and tell.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "runs programs and waits for them")]

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    process::Stdio,
    time::{Duration, Instant},
};

use crate::config::model::TrackedCommand;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::{
    process::Command,
    sync::mpsc,
    task::JoinHandle,
    time::{sleep_until, timeout},
};

/// A program that is told of a change ends within this time, or is killed: the next change waits.
const TOLD_WITHIN: Duration = Duration::from_secs(30);
/// Changes that wait for their programs.
const QUEUE: usize = 256;
/// Where programs are found if this process has no PATH.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Whether a program succeeds, or why it does not.
type Outcome = (TrackedCommand, Result<(), String>);

/// The programs that are watched.
pub(super) struct Watching {
    tasks: BTreeMap<TrackedCommand, JoinHandle<()>>,
    known: BTreeMap<TrackedCommand, Result<(), String>>,
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

    /// Why one fails; none: it succeeds.
    pub(super) fn failure(&self, command: &TrackedCommand) -> Option<String> {
        self.known.get(command).map_or_else(|| Some("it has told nothing yet".into()), |outcome| outcome.clone().err())
    }

    /// Whether all have told something, or had the time to.
    pub(super) fn is_ready(&self) -> bool {
        let longest = self.tasks.keys().map(|command| command.timeout).max().unwrap_or_default();
        self.tasks.keys().all(|command| self.known.contains_key(command)) || self.began.elapsed() > longest + Duration::from_millis(100)
    }

    /// Waits until one tells something else than before. Cancel safe.
    pub(super) async fn changed(&mut self) {
        loop {
            let Some((command, outcome)) = self.results.1.recv().await else { return std::future::pending().await };
            if self.tasks.contains_key(&command) && self.known.insert(command, outcome.clone()) != Some(outcome) {
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
        let outcome = run(&command.argv, &[], command.timeout).await;
        let succeeded = outcome.is_ok();
        in_a_row = if last == Some(succeeded) { in_a_row + 1 } else { 1 };
        last = Some(succeeded);
        let needed = if succeeded { command.rise } else { command.fall };
        if state != Some(succeeded) && (state.is_none() || in_a_row >= u32::from(needed)) {
            state = Some(succeeded);
            if results.send((command.clone(), outcome)).await.is_err() {
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
    let mut group = Group(child.id());
    let ended = timeout(within, child.wait()).await;
    if ended.is_ok() {
        // Its number may be another's by now; and it may leave others behind on purpose.
        group.0 = None;
    }
    match ended {
        Ok(Ok(status)) if status.success() => Ok(()),
        Ok(Ok(status)) => Err(format!("{program} ended with {status}")),
        Ok(Err(error)) => Err(format!("failed to wait for {program}: {error}")),
        Err(_) => Err(format!("{program} has not ended within {within:?}: it is killed")),
    }
}

/// A running program with everything that it started: it is killed with this.
struct Group(Option<u32>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(leader) = self.0.and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw) {
            let _ended_already = kill_process_group(leader, Signal::KILL);
        }
    }
}

/// The programs that are told: of each router one after the other.
pub(super) struct Telling {
    queues: BTreeMap<String, mpsc::Sender<Notice>>,
    failures: (mpsc::Sender<Failure>, mpsc::Receiver<Failure>),
}

/// What a program is told.
pub(super) struct Notice {
    /// The program and its arguments.
    pub(super) argv: Vec<String>,
    /// What it finds in its environment.
    pub(super) environment: Vec<(String, String)>,
}

/// A program that did not do what it should.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Failure {
    /// Whose.
    pub(super) router: String,
    /// What it did.
    pub(super) what: String,
}

impl Default for Telling {
    fn default() -> Self {
        Self { queues: BTreeMap::new(), failures: mpsc::channel(QUEUE) }
    }
}

impl Telling {
    pub(super) fn tell(&mut self, router: &str, notice: Notice) {
        let failures = &self.failures.0;
        let queue = self.queues.entry(router.to_owned()).or_insert_with(|| queue(router.to_owned(), failures.clone()));
        if queue.try_send(notice).is_err() {
            let what = "the programs that are told of it are too slow: a change is not told".to_owned();
            let _enough_wait = failures.try_send(Failure { router: router.to_owned(), what });
        }
    }

    /// A program that failed. Cancel safe.
    pub(super) async fn failed(&mut self) -> Failure {
        match self.failures.1.recv().await {
            Some(failure) => failure,
            None => std::future::pending().await,
        }
    }

    /// Waits until all that was to be told is, within a bound.
    pub(super) async fn finish(&mut self) {
        let queues = std::mem::take(&mut self.queues);
        let all = async {
            for queue in queues.values() {
                let _ = queue.reserve_many(QUEUE).await;
            }
        };
        let _ = timeout(TOLD_WITHIN, all).await;
    }
}

/// Runs the programs of a router in turn. It ends with its queue: what waits is told still.
fn queue(router: String, failures: mpsc::Sender<Failure>) -> mpsc::Sender<Notice> {
    let (queue, mut notices) = mpsc::channel::<Notice>(QUEUE);
    tokio::spawn(async move {
        while let Some(Notice { argv, environment }) = notices.recv().await {
            if let Err(what) = run(&argv, &environment, TOLD_WITHIN).await {
                let _enough_wait = failures.try_send(Failure { router: router.clone(), what });
            }
        }
    });
    queue
}

/// Whether a file is there.
pub(super) fn is_there(path: &Path) -> bool {
    path.exists()
}
