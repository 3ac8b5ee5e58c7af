//! The daemon's end of the speaker: starts it, tells it what is to be, and starts it again when it dies.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "owns a socket, a process and deadlines")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use rustix::process::{Signal, kill_process};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    process::{Child, Command},
    sync::{mpsc, oneshot},
    task::{JoinHandle, spawn_blocking},
    time::{Instant, MissedTickBehavior, interval, sleep, sleep_until, timeout},
};

use super::report::VrrpKept;
use crate::speaker::{
    SOCKET,
    clock_io::boot_time,
    order::{Hello, Order, Resume, RouterView, Said, Told},
    visit_io::{build, end_speaker},
};

/// Messages that may wait.
const QUEUE: usize = 256;
/// A speaker that dies again and again is started so often.
const PACE: Duration = Duration::from_secs(1);
/// One that was started is ready within this time: it locks all of its program in memory.
const READY_WITHIN: Duration = Duration::from_secs(10);
/// The heir of one that was killed listens within this time.
const INHERITS_WITHIN: Duration = Duration::from_millis(20);
/// And listens within this time.
const LISTENS_WITHIN: Duration = Duration::from_secs(3);
/// One that is told to end at once does so within this time.
const ANSWERS_WITHIN: Duration = Duration::from_secs(1);
/// One that says nothing for so long hangs: it speaks each second, at a real-time priority, and its addresses are gone by then.
const SILENT_FOR: Duration = Duration::from_secs(3);
/// So many seconds in a row, for this process may have been stopped itself.
const SILENT_SECONDS: u32 = 4;
/// One that hangs is killed so often before this is given up.
const KILLS: u32 = 3;
/// Routers hand over within this time, or are halted.
const HANDS_OVER_WITHIN: Duration = Duration::from_secs(8);

/// What the daemon hears.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum News {
    /// The speaker says something.
    Said(Said),
    /// There is none, and why.
    Gone(String),
}

enum Ask {
    Order(Order),
    Tell(Told),
    /// All hand over, and the process ends.
    End(oneshot::Sender<()>),
}

/// The speaker of a node.
pub(super) struct Speaking {
    asks: mpsc::Sender<Ask>,
    news: mpsc::Receiver<News>,
    task: JoinHandle<()>,
}

impl Speaking {
    /// Of the node with this state directory. There is a process once there is an order with a router.
    /// `kept` is what the last daemon kept. Its speaker may be gone for long: nothing else of it counts.
    pub(super) fn start(state_dir: &Path, kept: &VrrpKept) -> Self {
        let VrrpKept { vrrp_numbers: numbers, vrrp_holds: holds, vrrp_states: _ } = kept;
        let names: BTreeSet<&String> = numbers.keys().chain(holds).collect();
        let resume = |router: &String| Resume {
            active_until_ms: None,
            is_on_hold: holds.contains(router),
            memory: numbers.get(router).cloned().unwrap_or_default(),
            told: None,
        };
        let (asks, asked) = mpsc::channel(QUEUE);
        let (tell, news) = mpsc::channel(QUEUE);
        let keeper = Keeper {
            socket: state_dir.join(SOCKET),
            tell,
            order: None,
            last: BTreeMap::new(),
            resumes: names.into_iter().map(|router| (router.clone(), resume(router))).collect(),
            started: None,
            child: None,
            awaits_heir_until: None,
        };
        let task = tokio::spawn(keeper.keep(asked));
        Self { asks, news, task }
    }

    /// What is to be.
    pub(super) async fn order(&self, order: Order) {
        let _ = self.asks.send(Ask::Order(order)).await;
    }

    /// Something else.
    pub(super) async fn tell(&self, told: Told) {
        let _ = self.asks.send(Ask::Tell(told)).await;
    }

    /// What the speaker says. Cancel safe.
    pub(super) async fn news(&mut self) -> News {
        match self.news.recv().await {
            Some(news) => news,
            None => std::future::pending().await,
        }
    }

    /// Has all routers hand over, and the process end. What is given says when it has.
    pub(super) async fn end(&self) -> oneshot::Receiver<()> {
        let (done, ended) = oneshot::channel();
        let _ = self.asks.send(Ask::End(done)).await;
        ended
    }

    /// What it says until it has ended.
    pub(super) async fn news_until(&mut self, ended: &mut oneshot::Receiver<()>) -> Option<News> {
        // Cancel safe: both are channels.
        tokio::select! {
            biased;
            Some(news) = self.news.recv() => Some(news),
            _ = ended => None,
        }
    }
}

impl Drop for Speaking {
    fn drop(&mut self) {
        // The process goes on without a daemon.
        self.task.abort();
    }
}

/// Who speaks.
enum Found {
    /// This program, and how everything is.
    Fitting(Connection, Vec<News>),
    /// Another one.
    Foreign(Connection),
    /// A process that does not answer.
    Silent(Option<i32>),
}

/// How a speaker that was told to end did.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ended {
    Itself,
    Silent,
}

struct Connection {
    lines: Lines<BufReader<OwnedReadHalf>>,
    writer: OwnedWriteHalf,
}

struct Keeper {
    socket: PathBuf,
    tell: mpsc::Sender<News>,
    order: Option<Order>,
    /// What it said of its routers last.
    last: BTreeMap<String, RouterView>,
    /// What follows for the next speaker.
    resumes: BTreeMap<String, Resume>,
    /// When a process was started last.
    started: Option<Instant>,
    child: Option<Child>,
    /// A speaker has ended, and another one goes on in its place.
    awaits_heir_until: Option<Instant>,
}

impl Keeper {
    async fn keep(mut self, mut asked: mpsc::Receiver<Ask>) {
        loop {
            // Without routers there is no process, but one that an earlier daemon left is ended.
            while self.order.as_ref().is_none_or(|order| order.routers.is_empty() && !self.socket.exists()) {
                match asked.recv().await {
                    Some(Ask::Order(order)) => self.order = Some(order),
                    Some(Ask::Tell(_)) => {}
                    Some(Ask::End(done)) => {
                        let _ = done.send(());
                        return;
                    }
                    None => return,
                }
            }
            match self.connected().await {
                Ok(connection) => {
                    if self.serve(connection, &mut asked).await.is_none() {
                        return;
                    }
                }
                Err(error) => {
                    let _ = self.tell.send(News::Gone(format!("nobody speaks vrrp: {error}"))).await;
                    sleep(PACE).await;
                }
            }
        }
    }

    /// A connection to a speaker of this program; one is started if there is none, or one of another program.
    async fn connected(&mut self) -> io::Result<Connection> {
        let mut killed = 0;
        loop {
            let is_wanted = self.order.as_ref().is_some_and(|order| !order.routers.is_empty());
            match self.connect().await {
                Ok(Found::Fitting(connection, news)) => {
                    self.end_spare(connection.pid()).await;
                    for one in news {
                        let _ = self.tell.send(one).await;
                    }
                    return Ok(connection);
                }
                Ok(Found::Silent(pid)) if killed < KILLS => {
                    killed += 1;
                    let _ = self.tell.send(hanging(pid)).await;
                    self.kill(pid).await;
                }
                // Another one would wait for its place.
                Ok(Found::Silent(_)) => return Err(io::Error::new(io::ErrorKind::TimedOut, "the process hangs, and cannot be killed")),
                Ok(Found::Foreign(mut connection)) => {
                    // The next one is ready before this one leaves its addresses to it.
                    let child = if is_wanted { Some(self.prepare().await?) } else { None };
                    connection.say(if is_wanted { &Told::Release } else { &Told::Stop }).await?;
                    let gone = async {
                        while let Ok(Some(line)) = connection.lines.next_line().await {
                            if let Ok(Said::View(views)) = serde_json::from_str(&line) {
                                self.note(&views);
                            }
                        }
                    };
                    if timeout(HANDS_OVER_WITHIN, gone).await.is_err() {
                        self.kill(connection.pid()).await;
                    }
                    self.remember();
                    if let Some(child) = child {
                        self.await_listening(child).await?;
                    }
                }
                // The heir of one that was killed is about to listen.
                Err(_) if is_wanted && self.awaits_heir_until.is_some_and(|until| Instant::now() < until) => {
                    sleep(Duration::from_millis(1)).await;
                }
                Err(_) if is_wanted => {
                    let child = self.prepare().await?;
                    self.await_listening(child).await?;
                }
                Err(error) => {
                    // What listens no longer has left its file.
                    let _ = std::fs::remove_file(&self.socket);
                    return Err(error);
                }
            }
        }
    }

    async fn connect(&mut self) -> io::Result<Found> {
        let (reader, writer) = UnixStream::connect(&self.socket).await?.into_split();
        let mut connection = Connection { lines: BufReader::new(reader).lines(), writer };
        let Ok(greeted) = timeout(SILENT_FOR, self.greeted(&mut connection)).await else {
            return Ok(Found::Silent(connection.pid()));
        };
        let (hello, views) = greeted?;
        if hello.build != build() {
            return Ok(Found::Foreign(connection));
        }
        Ok(Found::Fitting(connection, vec![News::Said(Said::Hello(hello)), News::Said(Said::View(views))]))
    }

    /// The first words, and how everything is.
    async fn greeted(&mut self, connection: &mut Connection) -> io::Result<(Hello, Vec<RouterView>)> {
        let mut hello = None;
        while let Some(line) = connection.lines.next_line().await? {
            match serde_json::from_str(&line) {
                Ok(Said::Hello(said)) => hello = Some(said),
                Ok(Said::View(views)) => {
                    self.note(&views);
                    if let Some(hello) = hello {
                        return Ok((hello, views));
                    }
                }
                Ok(Said::Changed(_) | Said::Conflict(_)) => {}
                // What an older one says otherwise is not needed.
                Err(_) if hello.is_some() => {
                    return hello.map(|hello| (hello, Vec::new())).ok_or_else(|| io::ErrorKind::InvalidData.into());
                }
                Err(_) => {}
            }
        }
        Err(io::ErrorKind::UnexpectedEof.into())
    }

    /// Keeps what it says of its routers.
    fn note(&mut self, views: &[RouterView]) {
        self.last = views.iter().map(|view| (view.router.clone(), view.clone())).collect();
    }

    /// It has ended: those that were active can go on if another process is there before others can have taken over. They wait three intervals from the last
    /// advert, which came at most one ago.
    fn remember(&mut self) {
        let now_ms = boot_time().as_millis() as u64;
        let resume = |view: &RouterView| Resume {
            active_until_ms: (view.state == "active").then(|| now_ms + 2 * view.interval_ms),
            is_on_hold: view.is_on_hold,
            memory: view.memory.clone().unwrap_or_default(),
            told: Some(view.told()),
        };
        self.resumes = std::mem::take(&mut self.last).into_iter().map(|(name, view)| (name, resume(&view))).collect();
    }

    /// Starts a process, and waits until it needs nothing but the place of the one before.
    async fn prepare(&mut self) -> io::Result<Child> {
        let now = Instant::now();
        if let Some(again) = self.started.map(|started| started + PACE).filter(|again| *again > now) {
            sleep_until(again).await;
        }
        self.started = Some(Instant::now());
        let log = File::create(self.socket.with_extension("log"))?;
        let mut child = Command::new("/proc/self/exe")
            .arg("vrrp-speaker")
            .arg(&self.socket)
            // It locks its memory: what the allocator reserves for a large heap would be filled.
            .env("MIMALLOC_ARENA_RESERVE", "16MiB")
            .env("MIMALLOC_ARENA_EAGER_COMMIT", "0")
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .kill_on_drop(false)
            .spawn()?;
        let Some(out) = child.stdout.take() else { return Err(io::ErrorKind::BrokenPipe.into()) };
        let ready = timeout(READY_WITHIN, BufReader::new(out).lines().next_line()).await;
        if matches!(ready, Ok(Ok(Some(_)))) {
            return Ok(child);
        }
        let _ = child.kill().await;
        Err(self.end_of(&mut child))
    }

    /// Waits until a process that was started listens.
    async fn await_listening(&mut self, mut child: Child) -> io::Result<()> {
        let until = Instant::now() + LISTENS_WITHIN;
        while UnixStream::connect(&self.socket).await.is_err() {
            if child.try_wait()?.is_some() {
                return Err(self.end_of(&mut child));
            }
            if Instant::now() > until {
                let _ = child.kill().await;
                return Err(io::ErrorKind::TimedOut.into());
            }
            sleep(Duration::from_millis(1)).await;
        }
        self.child = Some(child);
        Ok(())
    }

    /// A process that was started while another one had the place waits for that: it is not needed. Where the heir has it, the one before is gone.
    async fn end_spare(&mut self, speaks: Option<i32>) {
        let is_spare = |child: &Child| child.id() != speaks.and_then(|pid| u32::try_from(pid).ok());
        if let Some(mut child) = self.child.take_if(|child| is_spare(child)) {
            // What is gone already need not be killed.
            let _ = child.kill().await;
        }
    }

    /// Kills the process at the other end. It may be one that an earlier daemon started.
    async fn kill(&mut self, pid: Option<i32>) {
        // What is gone already need not be.
        let _ = pid.and_then(rustix::process::Pid::from_raw).map(|pid| kill_process(pid, Signal::KILL));
        if let Some(mut child) = self.child.take() {
            let _ = timeout(ANSWERS_WITHIN, child.wait()).await;
        }
        // Others have had the addresses for long: nobody goes on as active.
        self.last.clear();
        self.awaits_heir_until = Some(Instant::now() + INHERITS_WITHIN);
    }

    fn end_of(&self, child: &mut Child) -> io::Error {
        let status = child.try_wait().ok().flatten().map(|status| format!(" ({status})")).unwrap_or_default();
        let said = std::fs::read_to_string(self.socket.with_extension("log")).unwrap_or_default();
        io::Error::other(format!("the speaker ended{status}: {}", said.trim()))
    }

    /// Until it is gone; none once the daemon is.
    async fn serve(&mut self, mut connection: Connection, asked: &mut mpsc::Receiver<Ask>) -> Option<()> {
        let resumes = std::mem::take(&mut self.resumes);
        if let Some(order) = &self.order {
            let mut first = order.clone();
            for (name, router) in &mut first.routers {
                router.resume = resumes.get(name).cloned();
            }
            let told = if first.routers.is_empty() { Told::Stop } else { Told::Order(first) };
            let _ = connection.say(&told).await;
        }
        let mut silent_seconds = 0;
        let mut second = interval(Duration::from_secs(1));
        second.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            // Cancel safe: lines, channels and intervals keep what was not taken.
            tokio::select! {
                biased;
                line = connection.lines.next_line() => match line {
                    Ok(Some(line)) => {
                        silent_seconds = 0;
                        if let Ok(said) = serde_json::from_str(&line) {
                            if let Said::View(views) = &said {
                                self.note(views);
                            }
                            let _ = self.tell.send(News::Said(said)).await;
                        }
                    }
                    Ok(None) | Err(_) => {
                        self.remember();
                        self.awaits_heir_until = Some(Instant::now() + INHERITS_WITHIN);
                        if let Some(mut child) = self.child.take() {
                            let _ = timeout(ANSWERS_WITHIN, child.wait()).await;
                        }
                        let _ = self.tell.send(News::Gone("the process that speaks vrrp has ended".into())).await;
                        return Some(());
                    }
                },
                _ = second.tick() => {
                    silent_seconds += 1;
                    if silent_seconds > SILENT_SECONDS {
                        let pid = connection.pid();
                        let _ = self.tell.send(hanging(pid)).await;
                        self.kill(pid).await;
                        self.remember();
                        return Some(());
                    }
                }
                ask = asked.recv() => match ask? {
                    Ask::Order(order) => {
                        let told = if order.routers.is_empty() { Told::Stop } else { Told::Order(order.clone()) };
                        self.order = Some(order);
                        // One that is gone is noticed by its end.
                        let _ = connection.say(&told).await;
                    }
                    Ask::Tell(told) => drop(connection.say(&told).await),
                    Ask::End(done) => {
                        self.finish(connection).await;
                        let _ = done.send(());
                        return None;
                    }
                },
            }
        }
    }

    async fn finish(&mut self, mut connection: Connection) {
        for (told, within) in [(Told::Stop, HANDS_OVER_WITHIN), (Told::Halt, ANSWERS_WITHIN)] {
            let _ = connection.say(&told).await;
            match timeout(within, self.hear_out(&mut connection)).await {
                Ok(Ended::Itself) => return,
                Ok(Ended::Silent) => break,
                Err(_) => {}
            }
        }
        // It hangs: it is killed, and its heir ended.
        drop(connection);
        let socket = self.socket.clone();
        let _ = spawn_blocking(move || end_speaker(&socket)).await;
    }

    async fn hear_out(&mut self, connection: &mut Connection) -> Ended {
        loop {
            match timeout(SILENT_FOR, connection.lines.next_line()).await {
                Ok(Ok(Some(line))) => {
                    if let Ok(said) = serde_json::from_str(&line) {
                        let _ = self.tell.send(News::Said(said)).await;
                    }
                }
                Ok(Ok(None) | Err(_)) => return Ended::Itself,
                Err(_) => return Ended::Silent,
            }
        }
    }
}

fn hanging(pid: Option<i32>) -> News {
    let pid = pid.map(|pid| format!(", pid {pid},")).unwrap_or_default();
    News::Gone(format!("the process that speaks vrrp{pid} does not answer: it is killed"))
}

impl Connection {
    /// The process that listens.
    fn pid(&self) -> Option<i32> {
        self.writer.as_ref().peer_cred().ok()?.pid()
    }

    async fn say(&mut self, told: &Told) -> io::Result<()> {
        let mut line = serde_json::to_vec(told)?;
        line.push(b'\n');
        self.writer.write_all(&line).await
    }
}
