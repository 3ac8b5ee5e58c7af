//! The socket that the daemon connects to. Nothing here waits: who does not read is cut off.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "owns a socket and its file")]

use std::{
    fs,
    io::{self, Read as _, Write as _},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::{
            fs::PermissionsExt as _,
            net::{UnixListener, UnixStream},
        },
    },
    path::{Path, PathBuf},
    time::Duration,
};

use super::order::{Said, Told};

/// Ten thousand addresses take 2 MiB.
const MOST_BYTES: usize = 16 << 20;

/// Another speaker's end is waited for so often, a millisecond each time.
const TRIALS: u32 = 50;

/// The listening socket and the daemon's connection.
#[derive(Debug)]
pub(super) struct Control {
    path: PathBuf,
    listener: UnixListener,
    daemon: Option<Connection>,
    is_anothers: bool,
}

#[derive(Debug)]
struct Connection {
    stream: UnixStream,
    read: Vec<u8>,
    unwritten: Vec<u8>,
}

/// What came.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Came {
    /// A daemon connected.
    Daemon,
    /// It says something.
    Told(Told),
}

impl Control {
    /// Listens, unless another speaker does. Who has the place (`place_io`) waits for one that is ending: its files are closed one after the other.
    pub(super) fn listen(path: &Path) -> io::Result<Self> {
        let mut trials = 0;
        while UnixStream::connect(path).is_ok() {
            if trials == TRIALS {
                return Err(io::Error::new(io::ErrorKind::AddrInUse, "another speaker is there"));
            }
            trials += 1;
            std::thread::sleep(Duration::from_millis(1));
        }
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        Ok(Self { path: path.to_owned(), listener: bind(path)?, daemon: None, is_anothers: false })
    }

    /// The socket of that name is another speaker's: it stays.
    pub(super) fn leave_name(&mut self) {
        self.is_anothers = true;
    }

    /// Listens again where somebody removed the socket: the next daemon would start another speaker.
    pub(super) fn mend(&mut self) {
        if !self.path.exists()
            && let Ok(listener) = bind(&self.path)
        {
            self.listener = listener;
        }
    }

    /// What readiness means news.
    pub(super) fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        std::iter::once(self.listener.as_fd()).chain(self.daemon.iter().map(|daemon| daemon.stream.as_fd()))
    }

    /// Takes what waits. The last daemon that connected is the one.
    pub(super) fn came(&mut self) -> Vec<Came> {
        let mut came = Vec::new();
        while let Ok((stream, _)) = self.listener.accept() {
            if stream.set_nonblocking(true).is_ok() {
                self.daemon = Some(Connection { stream, read: Vec::new(), unwritten: Vec::new() });
                came.push(Came::Daemon);
            }
        }
        if let Some(daemon) = &mut self.daemon {
            let is_open = daemon.fill();
            while let Some(told) = daemon.next() {
                came.push(Came::Told(told));
            }
            if !is_open {
                self.daemon = None;
            }
        }
        came
    }

    /// Tells the daemon, if one is there.
    pub(super) fn say(&mut self, said: &Said) {
        let Some(daemon) = &mut self.daemon else { return };
        let Ok(line) = serde_json::to_vec(said) else { return };
        daemon.unwritten.extend(line);
        daemon.unwritten.push(b'\n');
        self.flush();
    }

    /// Writes what waits to be written.
    pub(super) fn flush(&mut self) {
        if self.daemon.as_mut().is_some_and(|daemon| !daemon.flush()) {
            self.daemon = None;
        }
    }
}

fn bind(path: &Path) -> io::Result<UnixListener> {
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

impl Drop for Control {
    fn drop(&mut self) {
        // Another one may have taken its place already; then it is gone for it, and it makes another.
        if !self.is_anothers {
            let _ = fs::remove_file(&self.path);
        }
    }
}

impl Connection {
    /// Whether it is open still.
    fn fill(&mut self) -> bool {
        let mut part = [0; 64 * 1024];
        loop {
            match self.stream.read(&mut part) {
                Ok(0) => return false,
                Ok(length) => self.read.extend_from_slice(&part[..length]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
            if self.read.len() > MOST_BYTES {
                return false;
            }
        }
    }

    fn next(&mut self) -> Option<Told> {
        loop {
            let end = self.read.iter().position(|byte| *byte == b'\n')?;
            let line: Vec<u8> = self.read.drain(..=end).collect();
            if let Ok(told) = serde_json::from_slice(&line) {
                return Some(told);
            }
        }
    }

    fn flush(&mut self) -> bool {
        while !self.unwritten.is_empty() {
            match self.stream.write(&self.unwritten) {
                Ok(0) => return false,
                Ok(length) => drop(self.unwritten.drain(..length)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return self.unwritten.len() <= MOST_BYTES,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
        true
    }
}
