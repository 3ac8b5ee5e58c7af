//! The daemon under test, in a node's namespace.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    time::Duration,
};

use anyhow::{Context as _, bail};
use rustix::process::Signal;

use super::{BpfFolder, Folder, Host, Namespace, Process, copy_program, wait_until};

const READY_WITHIN: Duration = Duration::from_secs(30);
const STOPS_WITHIN: Duration = Duration::from_secs(30);

/// A `weir run`. On drop it is killed, and `weir stop` removes what it left in the kernel.
#[derive(Debug)]
pub struct Weir<'a> {
    namespace: &'a Namespace,
    binary: PathBuf,
    head: String,
    process: Option<Process>,
    pins: BpfFolder,
    folder: Folder,
    /// A file of the folder, or a directory.
    config: &'static str,
}

impl<'a> Weir<'a> {
    /// Starts the binary that `WEIR_BIN` names, with `interfaces`, `pin_dir` and `state_dir` of `[node]` given and `rest` behind them
    /// (so that `rest` may begin with more keys of `[node]`), and waits until it is ready.
    pub fn start(node: &'a Host, rest: &str) -> anyhow::Result<Self> {
        let mut weir = Self::prepare(node, rest)?;
        weir.run()?;
        Ok(weir)
    }

    /// Writes the configuration without starting anything.
    pub fn prepare(node: &'a Host, rest: &str) -> anyhow::Result<Self> {
        let binary = env::var_os("WEIR_BIN").context("WEIR_BIN does not name the weir binary\nhint: run `cargo xtask test`")?;
        let folder = Folder::new("weir")?;
        let pins = BpfFolder::new("test")?;
        let head = format!(
            "[node]\ninterfaces = {:?}\npin_dir = {:?}\nstate_dir = {:?}\n",
            node.interfaces,
            pins.path(),
            folder.path().join("state")
        );
        let weir = Self { namespace: &node.namespace, binary: binary.into(), head, process: None, pins, folder, config: "weir.toml" };
        weir.write_config(rest)?;
        Ok(weir)
    }

    /// As [`Self::prepare`], with a directory as the configuration. Its `00-node.toml` has the keys of `[node]` that are given, and what stands behind them
    /// in `node`.
    pub fn prepare_directory(host: &'a Host, node: &str) -> anyhow::Result<Self> {
        let mut weir = Self::prepare(host, "")?;
        fs::remove_file(weir.config()).context("failed to remove weir.toml")?;
        weir.config = "conf.d";
        fs::create_dir(weir.config()).context("failed to make conf.d")?;
        fs::write(weir.config().join("00-node.toml"), format!("{}{node}", weir.head)).context("failed to write 00-node.toml")?;
        Ok(weir)
    }

    /// The configuration: a file, or a directory.
    pub fn config(&self) -> PathBuf {
        self.folder.path().join(self.config)
    }

    /// Replaces what stands behind the given keys of `[node]` in the configuration file.
    pub fn write_config(&self, rest: &str) -> anyhow::Result<()> {
        fs::write(self.config(), format!("{}{rest}", self.head)).context("failed to write weir.toml")
    }

    /// As [`Self::write_config`], by a new file that takes the old one's name.
    pub fn replace_config(&self, rest: &str) -> anyhow::Result<()> {
        let fresh = self.config().with_extension("new");
        fs::write(&fresh, format!("{}{rest}", self.head)).context("failed to write weir.new")?;
        fs::rename(&fresh, self.config()).context("failed to rename weir.new")
    }

    /// Starts `weir run` and waits until it is ready.
    pub fn run(&mut self) -> anyhow::Result<()> {
        self.spawn()?;
        let mut ended = false;
        let ready = wait_until("weir to be ready", READY_WITHIN, || {
            ended = !self.is_running();
            ended || self.is_ready() && self.is_in_charge()
        });
        match (ready, ended) {
            (Ok(()), false) => Ok(()),
            (Ok(()), true) => bail!("weir run ended; it said: {}", self.stderr()),
            (Err(timeout), _) => Err(timeout).with_context(|| format!("weir run said: {}", self.stderr())),
        }
    }

    /// Starts `weir run`, ready or not.
    pub fn spawn(&mut self) -> anyhow::Result<()> {
        let command = self.command(&["run"]);
        self.process = Some(self.namespace.spawn("weir-run", command)?);
        Ok(())
    }

    /// Starts a `weir run` that dies, as by `kill -9`, before its operation on the maps of this number, from 0; whether it came to that, or is ready instead.
    pub fn run_to_death(&mut self, operation: usize) -> anyhow::Result<bool> {
        let mut command = self.command(&["run"]);
        command.env("WEIR_DIES_AT", operation.to_string());
        self.process = Some(self.namespace.spawn("weir-dies", command)?);
        let mut has_died = false;
        let ended = wait_until("weir to die or to be ready", READY_WITHIN, || {
            has_died = !self.is_running();
            has_died || self.is_ready() && self.is_in_charge()
        });
        ended.with_context(|| format!("weir run said: {}", self.stderr()))?;
        Ok(has_died)
    }

    /// Starts a `weir run` that is expected to refuse: its exit code, and what it said. An error if it runs.
    pub fn run_refused(&self) -> anyhow::Result<(i32, String)> {
        let mut process = self.namespace.spawn("weir-refused", self.command(&["run"]))?;
        let status = process.wait(READY_WITHIN)?;
        Ok((status.code().context("weir run was killed")?, process.stderr()))
    }

    /// Where it pins.
    pub fn pin_dir(&self) -> &Path {
        self.pins.path()
    }

    /// Whether `weir status -o json` says `"ready": true`.
    pub fn is_ready(&self) -> bool {
        self.status().is_ok_and(|status| status["ready"] == true)
    }

    /// Whether the `weir run` that was started last has taken the data plane over.
    fn is_in_charge(&self) -> bool {
        let pid = self.process.as_ref().map(Process::id);
        let is_its =
            |status: serde_json::Value| status["daemon"]["pid"].as_u64() == pid.map(u64::from) && status["daemon"]["recorded"] == true;
        self.status().is_ok_and(is_its)
    }

    /// What `weir status -o json` prints, healthy or not.
    pub fn status(&self) -> anyhow::Result<serde_json::Value> {
        let output = self.operate(&["status", "-o", "json"])?;
        serde_json::from_slice(&output.stdout)
            .with_context(|| format!("weir status printed no JSON ({}): {}", output.status, String::from_utf8_lossy(&output.stderr)))
    }

    /// Runs an operator's command, such as `["status"]`, on this configuration to its end.
    pub fn operate(&self, arguments: &[&str]) -> anyhow::Result<Output> {
        self.command(arguments).output().with_context(|| format!("failed to start weir {arguments:?}"))
    }

    /// Whether `weir run` runs.
    pub fn is_running(&mut self) -> bool {
        self.process.as_mut().is_some_and(Process::is_running)
    }

    /// What `weir run` wrote to standard error.
    pub fn stderr(&self) -> String {
        self.process.as_ref().map(Process::stderr).unwrap_or_default()
    }

    /// Sends a signal to `weir run`.
    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        self.process.as_ref().context("weir was not started")?.signal(signal)
    }

    /// Ends the daemon politely, as `systemctl stop` does. What it pinned stays.
    pub fn terminate(&mut self) -> anyhow::Result<()> {
        let mut process = self.process.take().context("weir was not started")?;
        process.signal(Signal::TERM)?;
        let status = process.wait(STOPS_WITHIN)?;
        if !status.success() {
            bail!("weir run ended with {status}: {}", process.stderr());
        }
        Ok(())
    }

    /// Kills the daemon as a crash would.
    pub fn kill_9(&mut self) -> anyhow::Result<()> {
        self.process.take().context("weir was not started")?.kill()
    }

    /// Kills it and starts it again on what it left.
    pub fn crash_and_restart(&mut self) -> anyhow::Result<()> {
        self.kill_9()?;
        self.run()
    }

    /// Ends the daemon politely, then starts another binary, which takes over what the first left.
    pub fn upgrade(&mut self) -> anyhow::Result<()> {
        self.terminate()?;
        self.replace_binary()?;
        self.run()
    }

    /// Has another binary started from now on.
    pub fn replace_binary(&mut self) -> anyhow::Result<()> {
        let next = self.folder.path().join("weir-next");
        copy_program(&self.binary, &next)?;
        self.binary = next;
        Ok(())
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.namespace.command(Path::new(&self.binary));
        command.args(arguments).arg("--config").arg(self.config());
        command
    }
}

impl Drop for Weir<'_> {
    fn drop(&mut self) {
        drop(self.process.take());
        drop(self.operate(&["stop"]));
    }
}
