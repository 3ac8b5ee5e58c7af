//! The demo's clients: HTTP and UDP, each question from a port of its own, so that every one is a new flow; and what they saw.

use std::{
    collections::BTreeMap,
    fmt,
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use crate::peer::{
    message::Message,
    udp::{self, Answer},
};

/// Between two questions of one client.
const PAUSE: Duration = Duration::from_millis(10);
/// No answer within it counts as a failure: shorter than the kernel's first retry of a SYN, so that no loss is hidden.
pub(super) const PATIENCE: Duration = Duration::from_millis(900);
/// UDP questions go round these: a port that the kernel chose might still be remembered as a flow of a server that is down.
const FIRST_PORT: u16 = 10_000;
const PORTS: u64 = 20_000;

/// What became of the questions of one kind.
#[derive(Clone, Default, Debug)]
pub(super) struct Seen {
    /// Right answers by server.
    pub(super) by_server: BTreeMap<String, usize>,
    /// Questions without a right answer.
    pub(super) failed: usize,
    /// The longest time without any right answer.
    pub(super) longest_gap: Duration,
}

impl Seen {
    /// Whether all questions were answered, by exactly these servers.
    pub(super) fn is_answered_by(&self, servers: &[&str]) -> bool {
        self.failed == 0 && self.by_server.keys().eq(servers)
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let answered: usize = self.by_server.values().sum();
        write!(out, "{answered:>4} ok, {:>3} failed, longest gap {:>3} ms; by server:", self.failed, self.longest_gap.as_millis())?;
        self.by_server.iter().try_for_each(|(server, count)| write!(out, " {server} {count}"))
    }
}

/// Questions of one kind under way.
struct Tally {
    seen: Seen,
    answered_at: Instant,
}

impl Tally {
    fn new() -> Self {
        Self { seen: Seen::default(), answered_at: Instant::now() }
    }

    fn note(&mut self, answer: io::Result<String>) {
        let Ok(server) = answer else {
            self.seen.failed += 1;
            return;
        };
        *self.seen.by_server.entry(server).or_default() += 1;
        self.seen.longest_gap = self.seen.longest_gap.max(self.answered_at.elapsed());
        self.answered_at = Instant::now();
    }

    /// What was seen since the last call.
    fn take(&mut self) -> Seen {
        let mut seen = std::mem::take(&mut self.seen);
        seen.longest_gap = seen.longest_gap.max(self.answered_at.elapsed());
        seen
    }
}

/// Clients under way.
pub(super) struct Clients {
    http: Mutex<Tally>,
    udp: Mutex<Tally>,
    is_over: AtomicBool,
}

impl Clients {
    /// None has asked yet.
    pub(super) fn new() -> Self {
        Self { http: Mutex::new(Tally::new()), udp: Mutex::new(Tally::new()), is_over: AtomicBool::new(false) }
    }

    /// Asks for the page at `to` until the end.
    pub(super) fn ask_http(&self, to: SocketAddr) {
        self.ask(&self.http, |_| http(to));
    }

    /// Sends datagrams to `to` until the end.
    pub(super) fn ask_udp(&self, to: SocketAddr) {
        self.ask(&self.udp, |number| datagram(to, number));
    }

    /// Ends all.
    pub(super) fn end(&self) {
        self.is_over.store(true, Ordering::Relaxed);
    }

    /// What HTTP and UDP clients saw since the last call.
    pub(super) fn seen(&self) -> (Seen, Seen) {
        let take = |tally: &Mutex<Tally>| tally.lock().unwrap_or_else(PoisonError::into_inner).take();
        (take(&self.http), take(&self.udp))
    }

    fn ask(&self, tally: &Mutex<Tally>, question: impl Fn(u64) -> io::Result<String>) {
        for number in 0.. {
            if self.is_over.load(Ordering::Relaxed) {
                return;
            }
            let answer = question(number);
            tally.lock().unwrap_or_else(PoisonError::into_inner).note(answer);
            thread::sleep(PAUSE);
        }
    }
}

fn http(to: SocketAddr) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&to, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    match text.split_once("\r\n\r\n") {
        Some((head, body)) if head.contains(" 200 ") => Ok(body.trim().to_owned()),
        Some(_) | None => Err(io::Error::other("not the page")),
    }
}

fn datagram(to: SocketAddr, number: u64) -> io::Result<String> {
    let port = FIRST_PORT + u16::try_from(number % PORTS).expect("less than 20 000");
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port))?;
    socket.connect(to)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    match udp::ask(&socket, &Message::filled(0, number, 64))? {
        Answer::Right(server) => Ok(server),
        Answer::Changed => Err(io::Error::other("changed bytes")),
    }
}
