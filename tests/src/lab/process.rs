//! A child process: what it prints is kept in files, and it is killed by its id on drop.

use std::{
    ffi::OsStr,
    fs::{self, File},
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, kill_process};

use super::{Folder, wait_until};

/// Runs a command to its end and gives its standard output. An error that tells its standard error unless it succeeds.
pub fn output_of(command: &mut Command) -> anyhow::Result<String> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("failed to start {command:?}"))?;
    if !output.status.success() {
        bail!("{command:?} failed ({}): {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Copies a program that is to be run. Another process does it: if this one wrote the file, a child that another thread starts in that moment would hold it
/// open for writing until its own exec, and to run the copy would fail (ETXTBSY, execve(2)).
pub fn copy_program(from: impl AsRef<OsStr>, to: &Path) -> anyhow::Result<()> {
    output_of(Command::new("cp").arg("--").arg(from).arg(to)).map(drop)
}

/// A running child.
#[derive(Debug)]
pub struct Process {
    child: Child,
    folder: Folder,
}

impl Process {
    /// Starts `command` with its output going to files.
    pub fn start(role: &str, mut command: Command) -> anyhow::Result<Self> {
        let folder = Folder::new(role)?;
        let file = |name: &str| File::create(folder.path().join(name)).with_context(|| format!("failed to make the file {name} of {role}"));
        command.stdin(Stdio::null()).stdout(file("stdout")?).stderr(file("stderr")?);
        let child = command.spawn().with_context(|| format!("failed to start {:?}", command.get_program()))?;
        Ok(Self { child, folder })
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether it has not ended.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// What it wrote to standard output so far.
    pub fn stdout(&self) -> String {
        self.written(OsStr::new("stdout"))
    }

    /// What it wrote to standard error so far.
    pub fn stderr(&self) -> String {
        self.written(OsStr::new("stderr"))
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let pid = i32::try_from(self.id()).ok().and_then(Pid::from_raw).context("a child has a process id")?;
        kill_process(pid, signal).with_context(|| format!("failed to send {signal:?} to process {pid:?}"))
    }

    /// Kills it and waits for its end.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        self.child.kill().and_then(|()| self.child.wait()).map(drop).context("failed to kill a child")
    }

    /// Waits for its end.
    pub fn wait(&mut self, deadline: Duration) -> anyhow::Result<ExitStatus> {
        wait_until("the end of a process", deadline, || !self.is_running()).with_context(|| format!("it wrote: {}", self.stderr()))?;
        self.child.wait().context("failed to wait for a child")
    }

    fn written(&self, name: &OsStr) -> String {
        let bytes = fs::read(self.folder.path().join(name)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // A child that has been waited for is not signalled: its id may be another's.
        drop(self.kill());
    }
}
