//! TCP: a server that names itself and echoes, and many connections that check every answer.

use std::{
    collections::BTreeMap,
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};
use socket2::{Domain, Socket, Type};

use super::{
    BROKEN, GREETED, OPENED, PATIENCE, STACK_BYTES,
    message::{Broken, Message},
    spawn,
};

/// With the standard library's 128, a load that opens its connections at once overflows the queue, and retries by the kernel take seconds.
const BACKLOG: i32 = 4096;
/// Between two looks for the file that ends a load.
const LOOK: Duration = Duration::from_millis(50);

/// What a load does.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// The server's address.
    pub to: SocketAddr,
    /// Held open at once.
    pub connections: usize,
    /// Between two messages of one connection.
    pub interval: Duration,
    /// Of a message's payload.
    pub payload_bytes: usize,
    /// How long messages are exchanged.
    pub time: Duration,
}

/// What became of the connections.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct Report {
    /// Connections that were opened and greeted.
    pub opened: usize,
    /// Connections that were not.
    pub refused: Vec<Failure>,
    /// Connections that were opened and did not live to the end.
    pub broken: Vec<Failure>,
    /// Messages that came back right.
    pub messages: u64,
    /// The longest that any answer took.
    pub longest_answer: Duration,
    /// The longest between two messages of one connection: on a busy machine, more than was asked for.
    pub longest_pause: Duration,
    /// Opened connections by the name of their server.
    pub by_server: BTreeMap<String, usize>,
}

/// A connection that failed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Failure {
    /// Its local address, if it got one.
    pub from: Option<SocketAddr>,
    /// Who had greeted it.
    pub server: Option<String>,
    /// Messages that had come back right.
    pub messages: u64,
    /// Why.
    pub reason: String,
}

/// Serves until the process ends: greets with its name, then sends every message back.
pub fn serve(name: &str, listen: SocketAddr) -> io::Result<()> {
    let socket = Socket::new(Domain::for_address(listen), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&listen.into())?;
    socket.listen(BACKLOG)?;
    for stream in TcpListener::from(socket).incoming() {
        let (stream, name) = (stream?, name.to_owned());
        thread::Builder::new().stack_size(STACK_BYTES).spawn(move || {
            let from = stream.peer_addr();
            match echo(stream, &name) {
                Ok(()) | Err(Broken::Closed) => {}
                Err(broken) => eprintln!("{from:?}: {broken}"),
            }
        })?;
    }
    Ok(())
}

fn echo(mut stream: TcpStream, name: &str) -> Result<(), Broken> {
    stream.set_nodelay(true)?;
    stream.write_all(&Message { connection: 0, number: 0, payload: name.into() }.encode())?;
    for number in 0.. {
        let message = Message::read(&mut stream)?;
        let connection = message.connection;
        stream.write_all(&message.expect(connection, number)?.encode())?;
    }
    Ok(())
}

/// Opens all connections, exchanges messages on each, and tells what became of them. Ends early once the file `until` exists.
pub fn load(plan: Plan, until: Option<&Path>) -> io::Result<Report> {
    let (tried, over) = (AtomicUsize::new(0), AtomicBool::new(false));
    let outcomes = thread::scope(|scope| -> io::Result<Vec<_>> {
        let progress = Progress { tried: &tried, over: &over };
        let threads: Vec<_> =
            (0..plan.connections).map(|index| spawn(scope, move || Connection::live(plan, index, progress))).collect::<io::Result<_>>()?;
        while let Some(file) = until.filter(|_| threads.iter().any(|thread| !thread.is_finished())) {
            if file.exists() {
                over.store(true, Ordering::Relaxed);
                break;
            }
            thread::sleep(LOOK);
        }
        Ok(threads.into_iter().map(|thread| thread.join().expect("a connection's thread does not panic")).collect())
    })?;
    Ok(outcomes.into_iter().fold(Report::default(), Report::with))
}

/// What the connections of a load have in common.
#[derive(Clone, Copy)]
struct Progress<'a> {
    /// Connections that have been opened or have failed to.
    tried: &'a AtomicUsize,
    /// Whether the load ends.
    over: &'a AtomicBool,
}

impl Report {
    /// True if every one of `connections` was opened and lived to the end.
    pub fn is_flawless(&self, connections: usize) -> bool {
        self.opened == connections && self.refused.is_empty() && self.broken.is_empty()
    }

    fn with(mut self, connection: Connection) -> Self {
        self.messages += connection.messages;
        self.longest_answer = self.longest_answer.max(connection.longest_answer);
        self.longest_pause = self.longest_pause.max(connection.longest_pause);
        let was_opened = connection.server.is_some();
        if let Some(server) = &connection.server {
            self.opened += 1;
            *self.by_server.entry(server.clone()).or_default() += 1;
        }
        if let Err(broken) = connection.outcome {
            let failures = if was_opened { &mut self.broken } else { &mut self.refused };
            let Connection { from, server, messages, .. } = connection;
            failures.push(Failure { from, server, messages, reason: broken.to_string() });
        }
        self
    }
}

/// When a connection closes.
struct Ending<'a> {
    end: Instant,
    over: &'a AtomicBool,
}

/// One connection's life.
struct Connection {
    from: Option<SocketAddr>,
    server: Option<String>,
    messages: u64,
    longest_answer: Duration,
    longest_pause: Duration,
    outcome: Result<(), Broken>,
}

impl Connection {
    fn live(plan: Plan, index: usize, progress: Progress<'_>) -> Self {
        let mut connection =
            Self { from: None, server: None, messages: 0, longest_answer: Duration::ZERO, longest_pause: Duration::ZERO, outcome: Ok(()) };
        let end = Instant::now() + plan.time;
        let opened = connection.open(plan.to);
        if let Some(server) = &connection.server {
            eprintln!("{GREETED}{server}");
        }
        if progress.tried.fetch_add(1, Ordering::Relaxed) + 1 == plan.connections {
            eprintln!("{OPENED}");
        }
        connection.outcome = opened.and_then(|stream| connection.exchange(stream, plan, index, Ending { end, over: progress.over }));
        if let (Some(server), Err(broken)) = (&connection.server, &connection.outcome) {
            eprintln!(
                "{BROKEN}{server} after {} messages: {broken}; its longest pause was {:?}",
                connection.messages, connection.longest_pause
            );
        }
        connection
    }

    fn open(&mut self, to: SocketAddr) -> Result<TcpStream, Broken> {
        let mut stream = TcpStream::connect_timeout(&to, PATIENCE)?;
        self.from = stream.local_addr().ok();
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let greeting = Message::read(&mut stream)?.expect(0, 0)?;
        self.server = Some(String::from_utf8_lossy(&greeting.payload).into_owned());
        Ok(stream)
    }

    fn exchange(&mut self, mut stream: TcpStream, plan: Plan, index: usize, ending: Ending<'_>) -> Result<(), Broken> {
        let identity = (u64::from(std::process::id()) << 32) | index as u64;
        let mut previous = Instant::now();
        loop {
            let sent = Instant::now();
            self.longest_pause = self.longest_pause.max(sent - previous);
            previous = sent;
            if sent >= ending.end || ending.over.load(Ordering::Relaxed) {
                return Ok(());
            }
            let question = Message::filled(identity, self.messages, plan.payload_bytes).encode();
            stream.write_all(&question)?;
            let mut answer = vec![0; question.len()];
            stream.read_exact(&mut answer)?;
            if answer != question {
                let (misplaced, _) = Message::decode(&answer)?;
                return misplaced.expect(identity, self.messages).and(Err(Broken::Changed));
            }
            self.messages += 1;
            self.longest_answer = self.longest_answer.max(sent.elapsed());
            thread::sleep(plan.interval.saturating_sub(sent.elapsed()));
        }
    }
}
