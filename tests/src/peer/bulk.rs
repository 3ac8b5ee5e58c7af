//! One TCP connection that carries much: the echo server of [`super::tcp`] sends all of it back, and every byte of it is checked.

use std::{
    io::{self, Write as _},
    net::{SocketAddr, TcpStream},
    thread,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use super::{
    PATIENCE,
    message::{Broken, HEADER_BYTES, Message},
};

const MESSAGE_BYTES: usize = 1 << 20;

/// What was carried, each way.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Report {
    /// Who sent it back.
    pub server: String,
    /// Bytes that came back right, headers of messages included.
    pub bytes: u64,
    /// From the greeting to the last byte.
    pub time: Duration,
}

/// Sends `megabytes` messages of 1 MiB while reading them back. Any lost, changed or misplaced byte, or ten silent seconds, is an error.
pub fn run(to: SocketAddr, megabytes: u64) -> io::Result<Report> {
    let mut stream = TcpStream::connect_timeout(&to, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let greeting = Message::read(&mut stream).map_err(io::Error::other)?;
    let (start, connection) = (Instant::now(), u64::from(std::process::id()));
    let payload = Message::filled(connection, 0, MESSAGE_BYTES - HEADER_BYTES).payload;
    let message = |number| Message { connection, number, payload: payload.clone() };
    thread::scope(|scope| -> io::Result<()> {
        let mut sender = stream.try_clone()?;
        let sent = scope.spawn(move || (0..megabytes).try_for_each(|number| sender.write_all(&message(number).encode())));
        for number in 0..megabytes {
            let answer = Message::read(&mut stream).and_then(|answer| answer.expect(connection, number));
            let answer = answer.map_err(|broken| io::Error::other(format!("after {number} MiB: {broken}")))?;
            if answer.payload != payload {
                return Err(io::Error::other(Broken::Changed));
            }
        }
        sent.join().expect("the sender does not panic")
    })?;
    let server = String::from_utf8_lossy(&greeting.payload).into_owned();
    Ok(Report { server, bytes: megabytes * MESSAGE_BYTES as u64, time: start.elapsed() })
}
