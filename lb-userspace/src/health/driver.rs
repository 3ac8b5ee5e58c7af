//! Makes the checks that the monitor asks for, each a task of its own, and tells the daemon what became of its servers.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "owns the timers and tasks of the checks")]

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    net::SocketAddr,
    rc::Rc,
    time::{Duration, Instant},
};

use tokio::{
    sync::{mpsc, oneshot},
    task::JoinSet,
    time::{sleep_until, timeout},
};

use super::{
    book::Wanted,
    monitor::{Checked, Monitor, Note, Output, Presumption},
    outcome::{Failure, Outcome, Sign},
    probe::{self, Kit, Progress},
    target::Target,
};
use crate::{control::standing::ServerName, dataplane::Witness};

/// Checks under way at the same time; more wait for their turn.
const MOST_AT_ONCE: usize = 8192;

/// Checks that are due within so long of each other begin together: what wakes the thread costs as much as a check does.
const TOGETHER: Duration = Duration::from_millis(4);

/// What the daemon asks of the checks.
#[derive(Debug)]
pub enum Command {
    /// These servers are checked from now on, and no other.
    Set {
        /// What each is asked, how often, and what it is taken for if it is new.
        servers: Wanted,
    },
    /// Something speaks against a server: it is checked at once.
    Hint(ServerName),
    /// Of these servers something is noticed that speaks against them, and of no others.
    Doubt(BTreeSet<ServerName>),
    /// Who sees probes take the data path's way, or why they cannot.
    Witness(Result<Witness, String>),
    /// What is known of every server now.
    Tell(oneshot::Sender<Snapshot>),
}

/// What is known of every server at a time.
pub type Snapshot = BTreeMap<ServerName, Checked>;

/// A server went up or down.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Changed {
    /// Which.
    pub server: ServerName,
    /// Whether it is up.
    pub is_up: bool,
    /// Why it is down, or was until now.
    pub cause: Option<Failure>,
    /// Results in a row that led to it.
    pub results: u16,
}

/// What the checks tell of a server.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum News {
    /// It went up or down.
    Changed(Changed),
    /// It stays up or down, and something else is known of it.
    Noted(ServerName, Note),
}

/// News, and of which server as flows are sent to it: the configuration may call another one so by the time they are heard.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Told {
    /// As [`Target::seat`].
    pub seat: SocketAddr,
    /// What.
    pub news: News,
}

/// Runs checks until the daemon is gone. For a [`tokio::runtime::LocalRuntime`]. `seed` spreads them.
pub async fn run(seed: u64, mut commands: mpsc::Receiver<Command>, news: mpsc::Sender<Told>) {
    let mut checks = Checks::new(seed);
    let mut began = Instant::now();
    loop {
        for one in checks.proceed() {
            if news.send(one).await.is_err() {
                return;
            }
        }
        let due = checks.monitor.poll_timeout().map(|due| due.max(began + TOGETHER).into());
        // Every arm is cancel safe: commands and results stay where they are.
        tokio::select! {
            command = commands.recv() => match command {
                Some(command) => checks.obey(command),
                None => return,
            },
            Some(done) = checks.running.join_next() => checks.take_all(done),
            () = at(due) => {
                began = Instant::now();
                checks.monitor.handle_timeout(began);
            }
        }
    }
}

async fn at(due: Option<tokio::time::Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => std::future::pending().await,
    }
}

/// A check that has ended.
struct Done {
    server: Rc<ServerName>,
    number: u64,
    outcome: Outcome,
}

struct Checks {
    monitor: Monitor,
    targets: HashMap<ServerName, Rc<Target>>,
    kit: Rc<Kit>,
    running: JoinSet<Done>,
    waiting: VecDeque<(Rc<ServerName>, u64)>,
}

impl Checks {
    fn new(seed: u64) -> Self {
        Self {
            monitor: Monitor::new(seed),
            targets: HashMap::new(),
            kit: Rc::new(Kit::new()),
            running: JoinSet::new(),
            waiting: VecDeque::new(),
        }
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Set { servers } => self.set(servers),
            Command::Witness(witness) => self.kit = Rc::new(Kit::new().with_witness(witness)),
            Command::Hint(server) => self.monitor.handle_hint(&server, Instant::now()),
            Command::Doubt(servers) => self.monitor.handle_doubts(&servers, Instant::now()),
            // Who asked may be gone.
            Command::Tell(reply) => drop(reply.send(self.monitor.checked().map(|(name, checked)| (name.clone(), checked)).collect())),
        }
    }

    fn set(&mut self, servers: Wanted) {
        let now = Instant::now();
        // Of another server of that name nothing is known but what is presumed.
        let is_another =
            |(name, known): &(&ServerName, &Rc<Target>)| servers.get(*name).is_some_and(|(target, ..)| target.seat != known.seat);
        let others: Vec<ServerName> = self.targets.iter().filter(is_another).map(|(name, _)| name.clone()).collect();
        for name in others {
            self.targets.remove(&name);
            self.monitor.forget(&name);
        }
        let paces = servers.iter().map(|(name, (_, pace, _))| (name.clone(), *pace)).collect();
        self.monitor.set(&paces, |name| servers.get(name).map_or(Presumption::Up, |(.., presumption)| *presumption), now);
        let mut targets = HashMap::new();
        for (name, (target, ..)) in servers {
            match self.targets.remove(&name) {
                Some(known) if *known == target => _ = targets.insert(name, known),
                earlier => {
                    if earlier.is_some() {
                        self.monitor.restart(&name, now);
                    }
                    targets.insert(name, Rc::new(target));
                }
            }
        }
        self.targets = targets;
    }

    /// Takes this one and all others that have ended.
    fn take_all(&mut self, done: Result<Done, tokio::task::JoinError>) {
        let mut next = Some(done);
        while let Some(done) = next {
            self.take(done);
            next = self.running.try_join_next();
        }
    }

    fn take(&mut self, done: Result<Done, tokio::task::JoinError>) {
        match done {
            Ok(Done { server, number, outcome }) => self.monitor.handle_outcome(&server, number, &outcome, Instant::now()),
            Err(error) => tracing::error!(%error, "a check ended without a result"),
        }
    }

    /// Starts what is due; gives what is to be told.
    fn proceed(&mut self) -> Vec<Told> {
        let mut news = Vec::new();
        while let Some(output) = self.monitor.poll_output() {
            match output {
                Output::Check { server, number } => self.waiting.push_back((server, number)),
                Output::Changed { server, is_up, cause, results } => {
                    news.extend(self.told(&server.clone(), News::Changed(Changed { server, is_up, cause, results })));
                }
                Output::Noted { server, note } => news.extend(self.told(&server.clone(), News::Noted(server, note))),
            }
        }
        while self.running.len() < MOST_AT_ONCE
            && let Some((server, number)) = self.waiting.pop_front()
        {
            self.start(server, number);
        }
        news
    }

    fn told(&self, server: &ServerName, news: News) -> Option<Told> {
        Some(Told { seat: self.targets.get(server)?.seat, news })
    }

    fn start(&mut self, server: Rc<ServerName>, number: u64) {
        let Some(target) = self.targets.get(server.as_ref()).map(Rc::clone) else { return };
        let kit = Rc::clone(&self.kit);
        self.running.spawn_local(async move {
            let started = Instant::now();
            let probed = check(&target, &kit).await;
            Done { server, number, outcome: Outcome::of(probed, started.elapsed()) }
        });
    }
}

/// By what a server is well, or what is wrong with it.
async fn check(target: &Target, kit: &Kit) -> Result<Sign, Failure> {
    let progress = Progress::new();
    match timeout(target.timeout.max(Duration::from_millis(1)), probe::run(target, kit, &progress)).await {
        Ok(probed) => probed,
        Err(_) => Err(progress.timeout(target)),
    }
}
