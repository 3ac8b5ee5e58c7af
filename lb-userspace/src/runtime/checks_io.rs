//! The thread of the checks: a loop of its own, so that neither a large plan delays a check, nor many checks a packet's next hop.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "starts a thread")]

use std::{collections::BTreeSet, io, time::Duration};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::{
    runtime::LocalOptions,
    sync::{mpsc, oneshot},
    time::timeout,
};

use crate::{
    control::standing::ServerName,
    dataplane::Witness,
    health::{
        book::Wanted,
        driver::{self, Command, Snapshot, Told},
    },
};

/// Commands and changes that may wait.
const QUEUE: usize = 1024;

/// How long the daemon waits for what the checks know.
const PATIENCE: Duration = Duration::from_millis(500);

/// The daemon's end of the checks. They end when it is dropped.
pub(super) struct Checks {
    commands: mpsc::Sender<Command>,
    news: mpsc::Receiver<Told>,
}

impl Checks {
    /// Starts the thread. `seed` spreads the checks.
    pub(super) fn start(seed: u64) -> io::Result<Self> {
        allow_descriptors();
        let (commands, obeyed) = mpsc::channel(QUEUE);
        let (told, news) = mpsc::channel(QUEUE);
        let (report, started) = std::sync::mpsc::channel();
        let run = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build_local(LocalOptions::default());
            let runtime = runtime.map_err(|error| report.send(Err(error)));
            if let Ok(runtime) = runtime {
                let _ = report.send(Ok(()));
                // A task of its own: to wake what block_on waits for takes a system call. It ends only with its receiver: a panic there is told there.
                let _ = runtime.block_on(runtime.spawn_local(driver::run(seed, obeyed, told)));
            }
        };
        std::thread::Builder::new().name("weir-checks".into()).spawn(run)?;
        started.recv().unwrap_or_else(|_| Err(io::Error::other("the thread of the checks ended")))?;
        Ok(Self { commands, news })
    }

    /// Checks these servers from now on.
    pub(super) async fn set(&self, servers: Wanted) {
        // It ends only with its receiver: a panic there is told there.
        let _ = self.commands.send(Command::Set { servers }).await;
    }

    /// What is known of every server; nothing if the checks have too much to do to say it in time. They may wait for the daemon to take their
    /// changes, so that it may not wait for them.
    pub(super) async fn known(&self) -> Snapshot {
        let (reply, answer) = oneshot::channel();
        if self.commands.try_send(Command::Tell(reply)).is_err() {
            return Snapshot::new();
        }
        match timeout(PATIENCE, answer).await {
            Ok(Ok(known)) => known,
            Ok(Err(_)) | Err(_) => Snapshot::new(),
        }
    }

    /// Has the checks told who sees them take the data path's way, or why they cannot.
    pub(super) async fn set_witness(&self, witness: Result<Witness, String>) {
        let _ = self.commands.send(Command::Witness(witness)).await;
    }

    /// Something speaks against a server: it is checked at once, if it is checked.
    pub(super) async fn hint(&self, server: ServerName) {
        let _ = self.commands.send(Command::Hint(server)).await;
    }

    /// These servers, and no others, are unsure whatever their checks say.
    pub(super) async fn doubt(&self, servers: BTreeSet<ServerName>) {
        let _ = self.commands.send(Command::Doubt(servers)).await;
    }

    /// What they tell next; nothing ever again once the thread is gone.
    pub(super) async fn news(&mut self) -> Told {
        match self.news.recv().await {
            Some(news) => news,
            None => std::future::pending().await,
        }
    }
}

/// Lets the process have as many descriptors as it may: each check under way takes one. Without them checks are not made, which is told.
fn allow_descriptors() {
    let limit = getrlimit(Resource::Nofile);
    // It goes on with what it has.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}
