//! UDP: a server that sends datagrams back with its name behind them, and flows that notice a lost answer or another server.

use std::{
    collections::BTreeMap,
    io,
    net::{SocketAddr, UdpSocket},
    path::Path,
    thread,
    time::{Duration, Instant},
};

use rustix::net::sockopt::set_socket_recv_buffer_size_force;
use serde::{Deserialize, Serialize};

use super::{message::Message, spawn};

/// An answer that takes longer counts as lost.
const PATIENCE: Duration = Duration::from_secs(1);
const MAX_DATAGRAM_BYTES: usize = 64 << 10;
/// Of a server's queue: all flows of a load may ask at once.
const QUEUE_BYTES: usize = 8 << 20;
/// What a server writes to standard error once it is bound.
pub const BOUND: &str = "bound";

/// What a load does.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// The server's address.
    pub to: SocketAddr,
    /// Sockets, each with a port of its own.
    pub flows: usize,
    /// Between two datagrams of one flow.
    pub interval: Duration,
    /// Of a datagram's payload.
    pub payload_bytes: usize,
    /// How long datagrams are sent.
    pub time: Duration,
}

/// What became of the datagrams.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct Report {
    /// Datagrams sent.
    pub sent: u64,
    /// Answered right.
    pub answered: u64,
    /// Answered with other bytes.
    pub changed: u64,
    /// Not answered within a second, or refused.
    pub lost: u64,
    /// Changes of the server within a flow.
    pub moved: Vec<Move>,
    /// Flows by the name of their first server.
    pub by_server: BTreeMap<String, usize>,
}

/// A flow that went to another server.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Move {
    /// Which flow, from 0.
    pub flow: usize,
    /// Who had answered.
    pub from: String,
    /// Who answered then.
    pub to: String,
}

/// Serves until the process ends; says [`BOUND`] once it does. Each socket answers from its own address.
pub fn serve(name: &str, listen: &[SocketAddr]) -> io::Result<()> {
    let sockets = listen.iter().map(UdpSocket::bind).collect::<io::Result<Vec<_>>>()?;
    sockets.iter().try_for_each(|socket| set_socket_recv_buffer_size_force(socket, QUEUE_BYTES))?;
    eprintln!("{BOUND}");
    thread::scope(|scope| {
        let threads: Vec<_> = sockets.into_iter().map(|socket| spawn(scope, move || echo(name, &socket))).collect::<io::Result<_>>()?;
        threads.into_iter().try_for_each(|thread| thread.join().expect("a server's thread does not panic"))
    })
}

fn echo(name: &str, socket: &UdpSocket) -> io::Result<()> {
    let mut buffer = vec![0; MAX_DATAGRAM_BYTES];
    loop {
        let (length, from) = socket.recv_from(&mut buffer)?;
        let answer = [&buffer[..length], name.as_bytes()].concat();
        // A client that is gone shows as an error of a later call; the others are still to be served.
        if let Err(error) = socket.send_to(&answer, from) {
            eprintln!("{from}: {error}");
        }
    }
}

/// Sends on all flows and tells what came back. Ends early once the file `until` exists.
pub fn load(plan: Plan, until: Option<&Path>) -> io::Result<Report> {
    let flows = thread::scope(|scope| -> io::Result<Vec<_>> {
        let threads: Vec<_> = (0..plan.flows).map(|flow| spawn(scope, move || run_flow(plan, flow, until))).collect::<io::Result<_>>()?;
        threads.into_iter().map(|thread| thread.join().expect("a flow's thread does not panic")).collect()
    })?;
    Ok(flows.into_iter().fold(Report::default(), Report::with))
}

impl Report {
    fn with(mut self, flow: Self) -> Self {
        self.sent += flow.sent;
        self.answered += flow.answered;
        self.changed += flow.changed;
        self.lost += flow.lost;
        self.moved.extend(flow.moved);
        for (server, count) in flow.by_server {
            *self.by_server.entry(server).or_default() += count;
        }
        self
    }
}

fn run_flow(plan: Plan, flow: usize, until: Option<&Path>) -> io::Result<Report> {
    let any: SocketAddr = if plan.to.is_ipv4() { ([0; 4], 0).into() } else { ([0u16; 8], 0).into() };
    let socket = UdpSocket::bind(any)?;
    socket.connect(plan.to)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let end = Instant::now() + plan.time;
    let (mut report, mut server) = (Report::default(), None);
    while Instant::now() < end && !until.is_some_and(Path::exists) {
        let start = Instant::now();
        let message = Message::filled(flow as u64, report.sent, plan.payload_bytes);
        report.sent += 1;
        match ask(&socket, &message) {
            Ok(Answer::Right(name)) => {
                report.answered += 1;
                report.note_server(flow, &mut server, name);
            }
            Ok(Answer::Changed) => report.changed += 1,
            Err(_lost_or_refused) => report.lost += 1,
        }
        thread::sleep(plan.interval.saturating_sub(start.elapsed()));
    }
    Ok(report)
}

impl Report {
    fn note_server(&mut self, flow: usize, server: &mut Option<String>, name: String) {
        match server.as_ref() {
            None => *self.by_server.entry(name.clone()).or_default() += 1,
            Some(before) if *before != name => self.moved.push(Move { flow, from: before.clone(), to: name.clone() }),
            Some(_same) => {}
        }
        *server = Some(name);
    }
}

/// What came back.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    /// With the server's name.
    Right(String),
    /// Other bytes, or other bytes than were due.
    Changed,
}

/// Sends a message from a connected socket and waits for its answer as long as the socket's own patience. Late answers to earlier questions
/// are passed over.
pub fn ask(socket: &UdpSocket, message: &Message) -> io::Result<Answer> {
    socket.send(&message.encode())?;
    let mut buffer = vec![0; MAX_DATAGRAM_BYTES];
    loop {
        let length = socket.recv(&mut buffer)?;
        match Message::decode(&buffer[..length]) {
            Ok((answer, name)) if answer == *message => return Ok(Answer::Right(String::from_utf8_lossy(name).into_owned())),
            Ok((answer, _)) if answer.number < message.number => {}
            Ok(_) | Err(_) => return Ok(Answer::Changed),
        }
    }
}
