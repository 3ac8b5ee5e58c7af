//! What other processes do with the speaker of a node: look at it, and have it end.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "owns a connection, and waits for the end of a process")]

use std::{
    fs,
    io::{self, BufRead as _, Read as _, Write as _},
    os::unix::{fs::MetadataExt as _, net::UnixStream},
    path::Path,
    time::{Duration, Instant},
};

use super::{
    SOCKET,
    macvlan_io::sweep,
    order::{RouterView, Said, Told},
};

/// A speaker that is asked how its routers are says so within this time.
const LOOKS_WITHIN: Duration = Duration::from_secs(1);
/// Routers hand over within this time, or are halted.
const ENDS_WITHIN: Duration = Duration::from_secs(8);
/// One that says nothing for so long hangs: it tells how everything is each second.
const SILENT_FOR: Duration = Duration::from_secs(3);
/// The heir of one that was killed listens within this time.
const INHERITS_WITHIN: Duration = Duration::from_millis(200);

/// Which program this is: a daemon of another one has the speaker replaced.
pub fn build() -> String {
    let program = fs::metadata("/proc/self/exe");
    let file = program.map(|file| format!("{}.{}.{}", file.len(), file.mtime(), file.mtime_nsec())).unwrap_or_default();
    format!("{} {file}", env!("CARGO_PKG_VERSION"))
}

/// Has the speaker of a node, if there is one, hand over and end, within a bound; removes what one left that was killed.
pub fn end(state_dir: &Path) {
    let socket = state_dir.join(SOCKET);
    end_speaker(&socket);
    let _nothing_may_be_there = sweep(&socket);
}

/// What a speaker says of its routers, with its process. It takes who asks for its daemon: only for those whom none answered; one that hangs
/// connects again.
pub fn look(state_dir: &Path) -> Option<(u32, Vec<RouterView>)> {
    let speaker = UnixStream::connect(state_dir.join(SOCKET)).ok()?;
    speaker.set_read_timeout(Some(LOOKS_WITHIN)).ok()?;
    let mut pid = None;
    for line in io::BufReader::new(speaker).lines() {
        match (serde_json::from_str(&line.ok()?), pid) {
            (Ok(Said::Hello(hello)), _) => pid = Some(hello.pid),
            (Ok(Said::View(views)), Some(pid)) => return Some((pid, views)),
            _ => {}
        }
    }
    None
}

/// Has the speaker that listens there, if one does, hand over and end, and kills one that hangs: its heir then ends likewise.
pub fn end_speaker(socket: &Path) {
    for _ in 0..2 {
        let Ok(mut speaker) = UnixStream::connect(socket) else { return };
        if [Told::Stop, Told::Halt].iter().any(|told| has_ended(&mut speaker, told)) {
            return;
        }
        let pid = rustix::net::sockopt::socket_peercred(&speaker).ok().map(|credentials| credentials.pid);
        // What is gone already need not be.
        let _ = pid.map(|pid| rustix::process::kill_process(pid, rustix::process::Signal::KILL));
        std::thread::sleep(INHERITS_WITHIN);
    }
}

/// Tells a speaker something, and says whether it ended, or nobody listened.
fn has_ended(speaker: &mut UnixStream, told: &Told) -> bool {
    let line = serde_json::to_string(told).map(|line| line + "\n").unwrap_or_default();
    if speaker.write_all(line.as_bytes()).is_err() || speaker.set_read_timeout(Some(Duration::from_millis(100))).is_err() {
        return true;
    }
    let (began, mut heard_at, mut said) = (Instant::now(), Instant::now(), [0; 4096]);
    while began.elapsed() < ENDS_WITHIN && heard_at.elapsed() < SILENT_FOR {
        match speaker.read(&mut said) {
            Ok(0) => return true,
            Ok(_) => heard_at = Instant::now(),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
            Err(_) => return true,
        }
    }
    false
}
