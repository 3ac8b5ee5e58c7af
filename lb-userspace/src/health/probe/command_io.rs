//! Runs a program that asks in its own way.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "owns the process, and the time that its last words may take")]

use std::{
    io,
    os::{fd::OwnedFd, unix::process::ExitStatusExt as _},
    pin::pin,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use futures_util::future::join;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, Interest, unix::AsyncFd},
    process::Command,
    time::timeout,
};

use super::{Progress, fault, quote::first_line};
use crate::health::{
    outcome::{Failure, Layer},
    target::Target,
};

/// Where programs are found if this process has no PATH.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// How much of each output is kept; the rest is read and forgotten.
const KEPT_BYTES: usize = 4096;
/// How long outputs are read after the program's end: another process may hold them open.
const LAST_WORDS: Duration = Duration::from_millis(50);

/// Runs the program, and judges its exit status. What it leaves behind of its process group is killed when it has ended, and all of it when the future is
/// dropped.
pub(super) async fn run(target: &Target, argv: &[String], progress: &Progress) -> Result<(), Failure> {
    let Some((program, arguments)) = argv.split_first() else { return Err(Failure::new(Layer::Local, "no program is named")) };
    progress.at(Layer::L7, "the program does not end");
    let mut child = Command::new(program)
        .args(arguments)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_else(|| PATH.into()))
        .env("WEIR_SERVER_ADDRESS", target.address.to_string())
        .env("WEIR_SERVER_PORT", target.port.to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| fault::local(format!("failed to start {program}"), &error))?;
    let leader = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
    let group = Group(leader);
    let end = End::of(leader).map_err(|error| fault::local(format!("failed to watch {program}"), &error))?;
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let outputs = join(keep_first(child.stdout.take(), &mut out), keep_first(child.stderr.take(), &mut err));
    let status = {
        let mut outputs = pin!(outputs);
        let mut is_read = false;
        loop {
            // Waiting is cancel safe: it takes nothing. The other future is kept.
            tokio::select! {
                ended = end.come() => break ended,
                _ = &mut outputs, if !is_read => is_read = true,
            }
        }
        .map_err(|error| fault::local(format!("failed to wait for {program}"), &error))?;
        // Its leader has ended and is not reaped, so that its number is nobody else's.
        drop(group);
        if !is_read {
            let _ = timeout(LAST_WORDS, &mut outputs).await;
        }
        child.wait().await.map_err(|error| fault::local(format!("failed to wait for {program}"), &error))?
    };
    judge(status, &err, &out)
}

/// A process group that is killed when this is dropped.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

/// The end of a process, which stays to be reaped. A pidfd is readable from then on: pidfd_open(2).
struct End(AsyncFd<OwnedFd>);

impl End {
    /// That of a child that is not reaped.
    #[expect(deprecated, reason = "an owned descriptor stays open, and what stands in for it is unsafe to call")]
    fn of(process: Option<Pid>) -> io::Result<Self> {
        let process = process.ok_or(io::ErrorKind::NotFound)?;
        AsyncFd::with_interest(pidfd_open(process, PidfdFlags::NONBLOCK)?, Interest::READABLE).map(Self)
    }

    /// Returns once it has come.
    async fn come(&self) -> io::Result<()> {
        self.0.readable().await.map(drop)
    }
}

/// Reads to the end, so that the program is never held up, and keeps the first bytes.
async fn keep_first(output: Option<impl AsyncRead + Unpin>, kept: &mut Vec<u8>) {
    let Some(mut output) = output else { return };
    let mut piece = [0; 1024];
    while let Ok(length @ 1..) = output.read(&mut piece).await {
        kept.extend_from_slice(&piece[..length.min(KEPT_BYTES - kept.len())]);
    }
}

fn judge(status: ExitStatus, err: &[u8], out: &[u8]) -> Result<(), Failure> {
    if status.success() {
        return Ok(());
    }
    let end = match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => format!("killed by signal {signal}"),
        (None, None) => "ended without a status".to_owned(),
    };
    let words = [err, out].map(first_line).into_iter().find(|line| !line.is_empty());
    Err(Failure::new(Layer::L7, words.map_or(end.clone(), |words| format!("{end}: {words}"))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(raw: i32, err: &[u8], out: &[u8]) -> String {
        judge(ExitStatus::from_raw(raw), err, out).unwrap_err().text
    }

    #[test]
    fn an_exit_status_is_told_with_the_first_words() {
        assert_eq!(judge(ExitStatus::from_raw(0), b"noise", b""), Ok(()));
        assert_eq!(text(3 << 8, b"disk full\nmore", b"out"), "exit status 3: disk full");
        assert_eq!(text(1 << 8, b"\n", b"out"), "exit status 1: out");
        assert_eq!(text(2 << 8, b"", b""), "exit status 2");
        assert_eq!(text(9, b"", b""), "killed by signal 9");
    }
}
