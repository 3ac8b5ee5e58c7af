//! `weir-peer` in namespaces: servers that echo, clients that check, and the flood.

use std::{
    env, fs,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, bail};
use serde::de::DeserializeOwned;

use super::{Folder, Namespace, Process, wait_until};
use crate::peer::{BROKEN, GREETED, OPENED, bulk, crowd, flood, tcp, udp};

/// How much longer than its run a peer may take to end.
const GRACE: Duration = Duration::from_secs(30);

/// A TCP echo server that names itself and refuses changed bytes.
#[derive(Debug)]
pub struct TcpServer {
    /// The running peer.
    pub process: Process,
}

impl TcpServer {
    /// Starts one on `port` of every address and waits until it listens.
    pub fn start(namespace: &Namespace, name: &str, port: u16) -> anyhow::Result<Self> {
        let mut command = peer(namespace)?;
        command.args(["tcp-serve", "--name", name, "--listen", &format!("[::]:{port}")]);
        let process = namespace.spawn(&format!("tcp-{name}"), command)?;
        namespace.wait_listening(port, Duration::from_secs(5)).with_context(|| format!("weir-peer said: {}", process.stderr()))?;
        Ok(Self { process })
    }
}

/// A UDP echo server that names itself.
#[derive(Debug)]
pub struct UdpServer {
    /// The running peer.
    pub process: Process,
}

impl UdpServer {
    /// Starts one at `listen` and waits until it is bound.
    pub fn start(namespace: &Namespace, name: &str, listen: SocketAddr) -> anyhow::Result<Self> {
        Self::start_at(namespace, name, &[listen])
    }

    /// Starts one at several addresses and waits until it is bound. It answers from the address that was asked, unless that is a wildcard.
    pub fn start_at(namespace: &Namespace, name: &str, listen: &[SocketAddr]) -> anyhow::Result<Self> {
        let mut command = peer(namespace)?;
        command.args(["udp-serve", "--name", name]);
        for address in listen {
            command.args(["--listen", &address.to_string()]);
        }
        let process = namespace.spawn(&format!("udp-{name}"), command)?;
        wait_until("a UDP server", Duration::from_secs(5), || process.stderr().contains(udp::BOUND))
            .with_context(|| format!("weir-peer said: {}", process.stderr()))?;
        Ok(Self { process })
    }
}

/// A name server that answers as a file says.
#[derive(Debug)]
pub struct DnsServer {
    /// The running peer.
    pub process: Process,
    folder: Folder,
}

impl DnsServer {
    /// Starts one at `listen`, with lines as those of [`crate::peer::dns`], and waits until it is bound.
    pub fn start(namespace: &Namespace, listen: SocketAddr, zone: &str) -> anyhow::Result<Self> {
        let folder = Folder::new("dns")?;
        fs::write(folder.path().join("zone"), zone).context("failed to write a zone")?;
        let mut command = peer(namespace)?;
        command.args(["dns-serve", "--listen", &listen.to_string(), "--zone"]).arg(folder.path().join("zone"));
        let process = namespace.spawn("dns", command)?;
        wait_until("a name server", Duration::from_secs(5), || process.stderr().contains(udp::BOUND))
            .with_context(|| format!("weir-peer said: {}", process.stderr()))?;
        Ok(Self { process, folder })
    }

    /// Has it answer otherwise from now on.
    pub fn say(&self, zone: &str) -> anyhow::Result<()> {
        let fresh = self.folder.path().join("fresh");
        fs::write(&fresh, zone).context("failed to write a zone")?;
        fs::rename(&fresh, self.folder.path().join("zone")).context("failed to replace the zone")
    }
}

/// A server for [`Crowd`]: several processes, since each may have only so many descriptors open.
#[derive(Debug)]
pub struct CrowdServer {
    _processes: Vec<Process>,
}

impl CrowdServer {
    /// Starts `processes` on `port` of every address and waits until one listens.
    pub fn start(namespace: &Namespace, port: u16, processes: usize) -> anyhow::Result<Self> {
        let start = || {
            let mut command = peer(namespace)?;
            command.args(["crowd-serve", "--listen", &format!("[::]:{port}")]);
            namespace.spawn("crowd-serve", command)
        };
        let processes = (0..processes).map(|_| start()).collect::<anyhow::Result<Vec<_>>>()?;
        for process in &processes {
            namespace.wait_listening(port, Duration::from_secs(5)).with_context(|| format!("weir-peer said: {}", process.stderr()))?;
        }
        Ok(Self { _processes: processes })
    }
}

/// Very many connections, all open at once, of a process for each source address.
#[derive(Debug)]
pub struct Crowd {
    processes: Vec<Process>,
    end: End,
}

impl Crowd {
    const FIRST_PORT: u16 = 1024;
    const FIRST_FURTHER_PORT: u16 = 40_000;

    /// Starts opening `connections` from each address.
    pub fn start(namespace: &Namespace, to: SocketAddr, from: &[IpAddr], connections: usize) -> anyhow::Result<Self> {
        Self::begin(namespace, to, from, connections, &[])
    }

    /// As [`Self::start`]; the connections are asked all the while, and each may take `patience` to open and to answer.
    pub fn start_asking(
        namespace: &Namespace,
        to: SocketAddr,
        from: &[IpAddr],
        connections: usize,
        patience: Duration,
    ) -> anyhow::Result<Self> {
        Self::begin(namespace, to, from, connections, &["--keeps-asking", "--patience", &milliseconds(patience)])
    }

    fn begin(namespace: &Namespace, to: SocketAddr, from: &[IpAddr], connections: usize, rest: &[&str]) -> anyhow::Result<Self> {
        let end = End(Folder::new("end")?);
        let (connections, port) = (connections.to_string(), Self::FIRST_PORT.to_string());
        let rest = [&["--connections", &connections, "--first-port", &port], rest].concat();
        let start = |from: &IpAddr| Self::spawn(namespace, &end, to, *from, &rest);
        let processes = from.iter().map(start).collect::<anyhow::Result<_>>()?;
        Ok(Self { processes, end })
    }

    fn spawn(namespace: &Namespace, end: &End, to: SocketAddr, from: IpAddr, rest: &[&str]) -> anyhow::Result<Process> {
        let mut command = peer(namespace)?;
        command.args(["crowd", "--to", &to.to_string(), "--from", &from.to_string()]).args(rest).arg("--until").arg(end.file());
        namespace.spawn("crowd", command)
    }

    /// Waits until every connection has been opened or has failed to.
    pub fn wait_opened(&mut self, deadline: Duration) -> anyhow::Result<()> {
        let processes = &mut self.processes;
        let mut are_done = || processes.iter_mut().all(|process| process.stderr().contains(OPENED) || !process.is_running());
        let tried = wait_until("the crowd to open", deadline, &mut are_done);
        tried.with_context(|| format!("weir-peer said: {}", processes.iter().map(Process::stderr).collect::<String>()))
    }

    /// Begins so many more from `from`, without waiting for them to open.
    pub fn begin_more(&mut self, namespace: &Namespace, to: SocketAddr, from: IpAddr, count: usize) -> anyhow::Result<()> {
        let (count, port) = (count.to_string(), Self::FIRST_FURTHER_PORT.to_string());
        let rest = ["--connections", "0", "--more", &count, "--first-port", &port];
        self.processes.push(Self::spawn(namespace, &self.end, to, from, &rest)?);
        Ok(())
    }

    /// Asks every open connection once more, and waits for their end: the sum of all.
    pub fn report(mut self) -> anyhow::Result<crowd::Report> {
        self.end.come()?;
        let mut sum = crowd::Report::default();
        for process in &mut self.processes {
            let part: crowd::Report = report(process, Duration::ZERO)?;
            sum.opened += part.opened;
            sum.refused += part.refused;
            sum.broken += part.broken;
            sum.answers += part.answers;
            sum.why.extend(part.why);
            sum.opening = sum.opening.max(part.opening);
        }
        Ok(sum)
    }
}

/// Sends `megabytes` MiB over one connection to an echo server and reads them back; an error unless every byte comes back right within `deadline`.
pub fn tcp_bulk(namespace: &Namespace, to: SocketAddr, megabytes: u64, deadline: Duration) -> anyhow::Result<bulk::Report> {
    let mut command = peer(namespace)?;
    command.args(["tcp-bulk", "--to", &to.to_string(), "--megabytes", &megabytes.to_string()]);
    let mut process = namespace.spawn("tcp-bulk", command)?;
    let status = process.wait(deadline).with_context(|| format!("{megabytes} MiB to {to} and back"))?;
    if !status.success() {
        bail!("weir-peer failed ({status}): {}", process.stderr());
    }
    serde_json::from_str(&process.stdout()).with_context(|| format!("weir-peer printed no report: {}", process.stdout()))
}

/// The file whose appearance ends a load.
#[derive(Debug)]
struct End(Folder);

impl End {
    fn new(command: &mut Command) -> anyhow::Result<Self> {
        let end = Self(Folder::new("end")?);
        command.arg("--until").arg(end.file());
        Ok(end)
    }

    fn file(&self) -> PathBuf {
        self.0.path().join("now")
    }

    fn come(&self) -> anyhow::Result<()> {
        fs::write(self.file(), []).context("failed to end a load")
    }
}

/// Connections under way.
#[derive(Debug)]
pub struct TcpLoad {
    process: Process,
    time: Duration,
    end: End,
}

impl TcpLoad {
    /// Starts `connections` to `to` that exchange a checked message every `interval`, for `time`.
    pub fn start(namespace: &Namespace, to: SocketAddr, connections: usize, interval: Duration, time: Duration) -> anyhow::Result<Self> {
        let mut command = peer(namespace)?;
        command.args(["tcp-load", "--to", &to.to_string(), "--connections", &connections.to_string()]);
        command.args(["--interval", &milliseconds(interval), "--for", &milliseconds(time)]);
        let end = End::new(&mut command)?;
        Ok(Self { process: namespace.spawn("tcp-load", command)?, time, end })
    }

    /// Waits until every connection has been opened or has failed to.
    pub fn wait_opened(&self) -> anyhow::Result<()> {
        wait_until("the connections to open", GRACE, || self.process.stderr().contains(OPENED))
            .with_context(|| format!("weir-peer said: {}", self.process.stderr()))
    }

    /// Waits for its end.
    pub fn report(mut self) -> anyhow::Result<tcp::Report> {
        report(&mut self.process, self.time)
    }

    /// Connections that `server` has greeted so far.
    pub fn greeted_by(&self, server: &str) -> usize {
        let line = format!("{GREETED}{server}");
        self.process.stderr().lines().filter(|one| **one == line).count()
    }

    /// Connections that have broken so far, in words.
    pub fn broken(&self) -> Vec<String> {
        self.process.stderr().lines().filter(|line| line.starts_with(BROKEN)).map(str::to_owned).collect()
    }

    /// Ends it before its time. An error if it has ended by itself.
    pub fn finish(mut self) -> anyhow::Result<tcp::Report> {
        if !self.process.is_running() {
            bail!("the load ended before it was told to; it said: {}", self.process.stderr());
        }
        self.end.come()?;
        report(&mut self.process, Duration::ZERO)
    }
}

/// UDP flows under way.
#[derive(Debug)]
pub struct UdpLoad {
    process: Process,
    time: Duration,
    end: End,
}

impl UdpLoad {
    /// Starts `flows` to `to` that ask every `interval`, for `time`.
    pub fn start(namespace: &Namespace, to: SocketAddr, flows: usize, interval: Duration, time: Duration) -> anyhow::Result<Self> {
        let mut command = peer(namespace)?;
        command.args(["udp-load", "--to", &to.to_string(), "--flows", &flows.to_string()]);
        command.args(["--interval", &milliseconds(interval), "--for", &milliseconds(time)]);
        let end = End::new(&mut command)?;
        Ok(Self { process: namespace.spawn("udp-load", command)?, time, end })
    }

    /// Waits for its end.
    pub fn report(mut self) -> anyhow::Result<udp::Report> {
        report(&mut self.process, self.time)
    }

    /// Ends it before its time. An error if it has ended by itself.
    pub fn finish(mut self) -> anyhow::Result<udp::Report> {
        if !self.process.is_running() {
            bail!("the load ended before it was told to; it said: {}", self.process.stderr());
        }
        self.end.come()?;
        report(&mut self.process, Duration::ZERO)
    }
}

/// Forged TCP segments from made-up sources.
#[derive(Debug)]
pub struct Flood {
    process: Process,
    time: Duration,
}

impl Flood {
    /// Starts sending to `to`, by way of the link-layer address `mac` on the client's `eth0`, `rate` segments a second for `time`.
    pub fn start(namespace: &Namespace, to: SocketAddr, mac: &str, mode: flood::Mode, rate: u32, time: Duration) -> anyhow::Result<Self> {
        let mut command = peer(namespace)?;
        command.args(["syn-flood", "--interface", "eth0", "--to", &to.to_string(), "--mac", mac, "--mode", mode.as_str()]);
        command.args(["--rate", &rate.to_string(), "--for", &milliseconds(time)]);
        Ok(Self { process: namespace.spawn("flood", command)?, time })
    }

    /// Waits for its end.
    pub fn report(mut self) -> anyhow::Result<flood::Report> {
        report(&mut self.process, self.time)
    }
}

fn report<T: DeserializeOwned>(process: &mut Process, time: Duration) -> anyhow::Result<T> {
    let status = process.wait(time + GRACE)?;
    if !status.success() {
        bail!("weir-peer failed ({status}): {}", process.stderr());
    }
    serde_json::from_str(&process.stdout()).with_context(|| format!("weir-peer printed no report: {}", process.stdout()))
}

fn peer(namespace: &Namespace) -> anyhow::Result<Command> {
    Ok(namespace.command(peer_binary()?))
}

/// `WEIR_PEER`, or the binary that cargo built beside the running test.
fn peer_binary() -> anyhow::Result<PathBuf> {
    if let Some(path) = env::var_os("WEIR_PEER") {
        return Ok(path.into());
    }
    let program = env::current_exe().context("failed to find this program's file")?;
    let found = program.ancestors().skip(1).take(2).map(|folder| folder.join("weir-peer")).find(|path| path.exists());
    found.context("failed to find weir-peer\nhint: run `cargo xtask test`, or set WEIR_PEER to its path")
}

fn milliseconds(time: Duration) -> String {
    format!("{}ms", time.as_millis())
}
