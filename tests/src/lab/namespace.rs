//! A network namespace of our own.

use std::{
    ffi::OsStr,
    fs, panic,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Duration,
};

use anyhow::Context as _;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::{
    Process, output_of,
    scratch::{NETNS_FOLDER, processes_in, remove_namespace, unique_name},
    wait_until,
};

/// A network namespace with its loopback up. On drop its processes are killed and it is deleted, with the interfaces in it.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    path: PathBuf,
}

impl Namespace {
    /// Makes one; `role` ends its name.
    pub fn new(role: &str) -> anyhow::Result<Self> {
        let name = unique_name(role);
        output_of(Command::new("ip").args(["netns", "add", &name]))?;
        let namespace = Self { path: Path::new(NETNS_FOLDER).join(&name), name };
        // Duplicate address detection would keep every IPv6 address unusable for its first seconds.
        for scope in ["all", "default"] {
            namespace.set(&format!("net/ipv6/conf/{scope}/accept_dad"), "0")?;
            namespace.set(&format!("net/ipv6/conf/{scope}/accept_ra"), "0")?;
        }
        namespace.ip("link set lo up")?;
        Ok(namespace)
    }

    /// Its name, as `ip netns` lists it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file that stands for it.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A command that will run inside. Mounts stay as they are, so the BPF file system is visible.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.path.display())).arg("--").arg(program);
        command
    }

    /// Runs a command inside to its end; gives its standard output.
    pub fn run(&self, program: &str, arguments: &[&str]) -> anyhow::Result<String> {
        output_of(self.command(program).args(arguments))
    }

    /// Runs `ip` inside with arguments separated by spaces.
    pub fn ip(&self, arguments: &str) -> anyhow::Result<String> {
        output_of(Command::new("ip").args(["-n", &self.name]).args(arguments.split_whitespace()))
    }

    /// Starts a command made by `command` (hence running inside) that is killed when the result is dropped.
    pub fn spawn(&self, role: &str, command: Command) -> anyhow::Result<Process> {
        Process::start(role, command)
    }

    /// Runs `work` on a thread inside. Sockets made there stay inside. A panic of `work` goes on here.
    ///
    /// # Panics
    /// If the namespace cannot be entered.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let inside = || {
            let file = fs::File::open(&self.path).expect("a namespace's file exists as long as the namespace");
            move_into_link_name_space(std::os::fd::AsFd::as_fd(&file), Some(LinkNameSpaceType::Network))
                .expect("root may enter a namespace");
            work()
        };
        thread::scope(|scope| scope.spawn(inside).join()).unwrap_or_else(|payload| panic::resume_unwind(payload))
    }

    /// Writes a setting under `/proc/sys`, such as `net/ipv4/ip_forward`.
    pub fn set(&self, setting: &str, value: &str) -> anyhow::Result<()> {
        self.enter(|| fs::write(Path::new("/proc/sys").join(setting), value)).with_context(|| format!("failed to set {setting} to {value}"))
    }

    /// Whether a TCP socket listens on `port`.
    pub fn is_listening(&self, port: u16) -> bool {
        self.has_socket("tcp", "0A", port)
    }

    /// Whether an unconnected UDP socket is bound to `port`.
    pub fn is_bound_udp(&self, port: u16) -> bool {
        self.has_socket("udp", "07", port)
    }

    /// Waits until somebody listens on a TCP port.
    pub fn wait_listening(&self, port: u16, deadline: Duration) -> anyhow::Result<()> {
        Ok(wait_until(&format!("a listener on port {port}"), deadline, || self.is_listening(port))?)
    }

    /// How many processes are inside.
    pub fn process_count(&self) -> usize {
        processes_in(&self.path).unwrap_or_default().len()
    }

    /// Looks through `/proc/net/{tcp,tcp6,..}` of a thread inside: `sl local_address rem_address st ..`, numbers in hexadecimal.
    fn has_socket(&self, protocol: &str, state: &str, port: u16) -> bool {
        let suffix = format!(":{port:04X}");
        let tables = self.enter(|| ["", "6"].map(|family| fs::read_to_string(format!("/proc/thread-self/net/{protocol}{family}"))));
        tables.into_iter().flatten().any(|table| {
            table.lines().any(|line| {
                let mut columns = line.split_whitespace().skip(1);
                columns.next().is_some_and(|local| local.ends_with(&suffix)) && columns.nth(1) == Some(state)
            })
        })
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        remove_namespace(&self.name);
    }
}
