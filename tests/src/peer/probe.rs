//! Questions at a steady pace, and how long there was no answer.

use std::{
    io,
    net::{SocketAddr, UdpSocket},
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use rustix::net::sockopt::set_socket_recv_buffer_size_force;
use serde::{Deserialize, Serialize};

/// What a server writes to standard error once it is bound.
pub const BOUND: &str = "bound";

/// What a client writes to standard error once somebody has answered.
pub const ANSWERED: &str = "answered";

/// Of a socket's queue: a process that a busy machine keeps waiting loses no question.
const QUEUE_BYTES: usize = 4 << 20;
/// An answer may be so late.
const LAST_ANSWERS: Duration = Duration::from_millis(500);
const LONGEST_NAME: usize = 64;

/// Who is asked, and how often.
#[derive(Clone, Copy, Debug)]
pub struct Plan<'a> {
    /// The server.
    pub to: SocketAddr,
    /// Between two questions.
    pub interval: Duration,
    /// Its appearance ends them.
    pub until: &'a Path,
}

/// What became of the questions.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ProbeReport {
    /// Questions.
    pub asked: u64,
    /// Those that nobody answered.
    pub lost: u64,
    /// The longest row of questions that nobody answered.
    pub longest_row: u64,
    /// The longest time between two answered questions with a lost one between them, in milliseconds.
    pub longest_gap_ms: f64,
    /// Each row of questions that nobody answered: the number of the first, and how many.
    pub rows: Vec<(u64, u64)>,
    /// Each change of who answers, with the question's number.
    pub changes: Vec<(u64, String)>,
}

/// Echoes each question with a name behind it.
pub fn serve(name: &str, listen: SocketAddr) -> anyhow::Result<()> {
    let socket = UdpSocket::bind(listen).with_context(|| format!("failed to bind {listen}"))?;
    set_socket_recv_buffer_size_force(&socket, QUEUE_BYTES).context("failed to set a socket up")?;
    eprintln!("{BOUND}");
    let mut buffer = [0; 8 + LONGEST_NAME];
    loop {
        // An answer that cannot be sent is one that is lost.
        let Ok((length, from)) = socket.recv_from(&mut buffer[..8]) else { continue };
        let answer = [&buffer[..length], name.as_bytes()].concat();
        drop(socket.send_to(&answer, from));
    }
}

/// Asks until the file appears.
pub fn run(plan: Plan<'_>) -> anyhow::Result<ProbeReport> {
    let any: SocketAddr = if plan.to.is_ipv4() { ([0; 4], 0).into() } else { ([0_u16; 8], 0).into() };
    let socket = UdpSocket::bind(any).context("failed to bind")?;
    socket.connect(plan.to).context("failed to connect")?;
    socket.set_nonblocking(true).context("failed to set a socket up")?;
    set_socket_recv_buffer_size_force(&socket, QUEUE_BYTES).context("failed to set a socket up")?;
    let mut is_answered = false;
    let mut answers: Vec<Option<String>> = Vec::new();
    let mut sent_at = Vec::new();
    let start = Instant::now();
    while !(answers.len().is_multiple_of(16) && plan.until.exists()) {
        let number = answers.len() as u64;
        sent_at.push(start.elapsed());
        answers.push(None);
        // Nobody there, or nothing to send by: a lost question.
        drop(socket.send(&number.to_be_bytes()));
        let next = start + plan.interval * u32::try_from(answers.len()).context("asked too long")?;
        take(&socket, &mut answers);
        if !is_answered && answers.iter().any(Option::is_some) {
            is_answered = true;
            eprintln!("{ANSWERED}");
        }
        thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    let end = Instant::now() + LAST_ANSWERS;
    while Instant::now() < end && answers.iter().any(Option::is_none) {
        take(&socket, &mut answers);
        thread::sleep(Duration::from_millis(1));
    }
    Ok(report(&answers, &sent_at))
}

fn take(socket: &UdpSocket, answers: &mut [Option<String>]) {
    let mut buffer = [0; 8 + LONGEST_NAME];
    loop {
        match socket.recv(&mut buffer) {
            Ok(length) => {
                let Some((number, name)) = buffer[..length].split_first_chunk() else { continue };
                if let Some(answer) = answers.get_mut(u64::from_be_bytes(*number) as usize) {
                    *answer = Some(String::from_utf8_lossy(name).into_owned());
                }
            }
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
            Err(_) => return,
        }
    }
}

fn report(answers: &[Option<String>], sent_at: &[Duration]) -> ProbeReport {
    let mut report = ProbeReport { asked: answers.len() as u64, ..ProbeReport::default() };
    let (mut row, mut last_at, mut last) = (0, None, None);
    for (number, (answer, at)) in answers.iter().zip(sent_at).enumerate() {
        let Some(name) = answer else {
            report.lost += 1;
            row += 1;
            match report.rows.last_mut() {
                Some((_, count)) if row > 1 => *count = row,
                _ => report.rows.push((number as u64, row)),
            }
            report.longest_row = report.longest_row.max(row);
            continue;
        };
        // The time between two answers in turn is the client's own.
        if let (Some(before), 1..) = (last_at.replace(*at), std::mem::take(&mut row)) {
            report.longest_gap_ms = report.longest_gap_ms.max((*at - before).as_secs_f64() * 1000.0);
        }
        if last.replace(name) != Some(name) {
            report.changes.push((number as u64, name.clone()));
        }
    }
    report
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_and_changes_are_told() {
        let answers = [Some("a"), None, None, Some("b"), Some("b"), Some("b"), None].map(|name| name.map(str::to_owned));
        let at: Vec<Duration> = [0, 1, 2, 3, 4, 9, 10].map(Duration::from_millis).into();
        let report = report(&answers, &at);
        assert_eq!((report.asked, report.lost, report.longest_row), (7, 3, 2));
        assert_eq!(report.rows, [(1, 2), (6, 1)]);
        assert!((report.longest_gap_ms - 3.0).abs() < 0.001);
        assert_eq!(report.changes, [(0, "a".to_owned()), (3, "b".to_owned())]);
    }
}
