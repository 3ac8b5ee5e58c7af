//! More TCP connections than there can be threads: a server of one thread, and a client that opens them one after another and keeps them all.

use std::{
    io::{self, Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    path::PathBuf,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use serde::{Deserialize, Serialize};
use socket2::{Domain, Socket, Type};

const BACKLOG: i32 = 4096;
const EVENTS_AT_ONCE: usize = 256;
const THREADS: usize = 16;
/// How many failures are told in words.
const REASONS: usize = 10;
const LOOKS_EVERY: Duration = Duration::from_millis(20);

/// What a crowd does.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The server's address.
    pub to: SocketAddr,
    /// Source addresses, at least one, each for an equal part of the connections.
    pub from: Vec<IpAddr>,
    /// Connections, all open at once.
    pub connections: usize,
    /// Connections that are then begun and not waited for.
    pub more: usize,
    /// The source port of the first; the others follow.
    pub first_port: u16,
    /// The file whose appearance ends the wait before each is asked again.
    pub until: PathBuf,
    /// Whether they are asked all the while too, one after another and again from the first.
    pub keeps_asking: bool,
    /// How long a connection may take to open or to answer.
    pub patience: Duration,
}

/// What became of it.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct Report {
    /// Connections that opened and answered.
    pub opened: usize,
    /// Connections that did not.
    pub refused: usize,
    /// Of the opened, those that did not answer right once more.
    pub broken: usize,
    /// Answers that came right after the one of the opening.
    pub answers: usize,
    /// How long opening took.
    pub opening: Duration,
    /// Why the first few were refused or broke.
    pub why: Vec<String>,
}

/// Reasons as they come.
type Reasons = Mutex<Vec<String>>;

/// Sends back every byte of every connection until the process ends. Several may serve one address and share its connections.
///
/// # Errors
/// Also when there are no more descriptors: a silent server would be taken for a lost connection.
pub fn serve(listen: SocketAddr) -> io::Result<()> {
    let socket = Socket::new(Domain::for_address(listen), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.bind(&listen.into())?;
    socket.listen(BACKLOG)?;
    let listener = TcpListener::from(socket);
    listener.set_nonblocking(true)?;
    let poll = epoll::create(CreateFlags::CLOEXEC)?;
    epoll::add(&poll, &listener, EventData::new_u64(u64::MAX), EventFlags::IN)?;
    let (mut streams, mut events, mut buffer) = (Vec::new(), Vec::with_capacity(EVENTS_AT_ONCE), [0; 4096]);
    loop {
        events.clear();
        epoll::wait(&poll, rustix::buffer::spare_capacity(&mut events), None)?;
        for event in &events {
            if event.data.u64() == u64::MAX {
                loop {
                    let stream = match listener.accept() {
                        Ok((stream, _)) => stream,
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                        Err(error) => return Err(error),
                    };
                    stream.set_nonblocking(true)?;
                    epoll::add(&poll, &stream, EventData::new_u64(streams.len() as u64), EventFlags::IN)?;
                    streams.push(Some(stream));
                }
                continue;
            }
            let Some(place) = usize::try_from(event.data.u64()).ok().and_then(|index| streams.get_mut(index)) else { continue };
            let is_over = place.as_mut().is_some_and(|stream| !send_back(stream, &mut buffer));
            if is_over {
                *place = None;
            }
        }
    }
}

/// False once the connection is over.
fn send_back(stream: &mut TcpStream, buffer: &mut [u8]) -> bool {
    match stream.read(buffer) {
        Ok(0) => false,
        Ok(length) => stream.write_all(&buffer[..length]).is_ok(),
        Err(error) => error.kind() == io::ErrorKind::WouldBlock,
    }
}

/// Opens all connections, says [`super::OPENED`], waits or keeps asking, and asks each once more.
pub fn run(plan: &Plan) -> io::Result<Report> {
    let start = Instant::now();
    let mut streams: Vec<(usize, Option<TcpStream>)> = (0..plan.connections).map(|number| (number, None)).collect();
    let why = Mutex::new(Vec::new());
    // One that does not open keeps its thread for seconds, so there are several.
    side_by_side(&mut streams, |(number, stream)| {
        *stream = open(plan, *number).inspect_err(|error| note(&why, *number, error)).ok();
    });
    streams.retain(|(_, stream)| stream.is_some());
    let mut report = Report { opened: streams.len(), opening: start.elapsed(), ..Report::default() };
    report.refused = plan.connections - report.opened;
    let _begun: Vec<Socket> = (0..plan.more).map(|number| begin(plan, plan.connections + number)).collect::<io::Result<_>>()?;
    eprintln!("{}", super::OPENED);
    while !plan.until.exists() {
        if plan.keeps_asking {
            ask_all(&mut streams, &mut report, &why, || plan.until.exists());
        }
        std::thread::sleep(LOOKS_EVERY);
    }
    ask_all(&mut streams, &mut report, &why, || false);
    report.why = why.into_inner().unwrap_or_default();
    Ok(report)
}

/// Asks each connection that lives, until `is_over`. One that fails is closed, so that it is counted once.
fn ask_all(streams: &mut [(usize, Option<TcpStream>)], report: &mut Report, why: &Reasons, is_over: impl Fn() -> bool + Sync) {
    let (answers, broken) = (AtomicUsize::new(0), AtomicUsize::new(0));
    side_by_side(streams, |(number, place)| {
        let Some(stream) = place.as_mut().filter(|_| !is_over()) else { return };
        match ask(stream, *number) {
            Ok(()) => answers.fetch_add(1, Ordering::Relaxed),
            Err(error) => {
                note(why, *number, &error);
                *place = None;
                broken.fetch_add(1, Ordering::Relaxed)
            }
        };
    });
    report.answers += answers.into_inner();
    report.broken += broken.into_inner();
}

fn note(why: &Reasons, number: usize, error: &io::Error) {
    let mut why = why.lock().unwrap_or_else(PoisonError::into_inner);
    if why.len() < REASONS {
        why.push(format!("connection {number}: {error}"));
    }
}

fn side_by_side<T: Send>(items: &mut [T], work: impl Fn(&mut T) + Sync) {
    let share = items.len().div_ceil(THREADS).max(1);
    std::thread::scope(|scope| {
        for part in items.chunks_mut(share) {
            scope.spawn(|| part.iter_mut().for_each(&work));
        }
    });
}

fn open(plan: &Plan, number: usize) -> io::Result<TcpStream> {
    let socket = socket(plan, number)?;
    socket.connect_timeout(&plan.to.into(), plan.patience)?;
    let mut stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(plan.patience))?;
    ask(&mut stream, number)?;
    Ok(stream)
}

fn begin(plan: &Plan, number: usize) -> io::Result<Socket> {
    let socket = socket(plan, number)?;
    socket.set_nonblocking(true)?;
    match socket.connect(&plan.to.into()) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => Err(error),
        Ok(()) | Err(_) => Ok(socket),
    }
}

/// A socket with a source port of its own.
fn socket(plan: &Plan, number: usize) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(plan.to), Type::STREAM, None)?;
    let port = u16::try_from(usize::from(plan.first_port) + number / plan.from.len()).map_err(io::Error::other)?;
    socket.bind(&SocketAddr::new(plan.from[number % plan.from.len()], port).into())?;
    Ok(socket)
}

fn ask(stream: &mut TcpStream, number: usize) -> io::Result<()> {
    let question = (number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes();
    stream.write_all(&question)?;
    let mut answer = [0; 8];
    stream.read_exact(&mut answer)?;
    if answer == question { Ok(()) } else { Err(io::ErrorKind::InvalidData.into()) }
}
