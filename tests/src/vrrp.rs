//! Nodes that share addresses by VRRP, and a client that asks each millisecond who answers.

use std::{
    env, fs,
    net::{IpAddr, SocketAddr},
    process::Command,
    time::Duration,
};

use anyhow::Context as _;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::{
    lab::{Family, Folder, Host, Process, Shape, Topology, Weir, copy_program, wait_until},
    peer::probe::{ANSWERED, BOUND, ProbeReport},
};

const PORT: u16 = 7000;
const SOON: Duration = Duration::from_secs(20);

/// Nodes and a client on one link. The nodes answer questions at the virtual addresses while they have them.
pub struct Cluster {
    /// The machines.
    pub lab: Topology,
    _answering: Vec<Process>,
}

impl Cluster {
    /// Makes it, of so many nodes.
    pub fn of(nodes: u8) -> anyhow::Result<Self> {
        let lab = Topology::builder(Shape::OneArmed).nodes(nodes).servers(1).build()?;
        let mut answering = Vec::new();
        for (index, node) in lab.nodes.iter().enumerate() {
            // A node that lost the address would pass questions on to the other, and nobody would notice the loss.
            node.namespace.set("net/ipv4/ip_forward", "0")?;
            node.namespace.set("net/ipv6/conf/all/forwarding", "0")?;
            node.namespace.set("net/ipv4/ip_nonlocal_bind", "1")?;
            node.namespace.set("net/ipv6/ip_nonlocal_bind", "1")?;
            for family in Family::ALL {
                answering.push(answer(node, &name(index), lab.vip(family, 100))?);
            }
        }
        Ok(Self { lab, _answering: answering })
    }

    /// The virtual address.
    pub fn vip(&self, family: Family) -> IpAddr {
        self.lab.vip(family, 100)
    }

    /// The configuration of a node whose virtual router `www` has this priority, with more keys.
    pub fn config(&self, family: Family, priority: u8, more: &str) -> String {
        let vip = self.vip(family);
        let (bind, prefix_len) = if vip.is_ipv4() { (format!("{vip}:80"), 24) } else { (format!("[{vip}]:80"), 64) };
        let server = self.lab.servers[0].address(family);
        format!(
            "slot_seed = \"s\"\n[listener.web]\nmode = \"l4\"\nbind = \"{bind}\"\npool = \"web\"\n[pool.web]\nforward = \"dsr\"\n\
             servers.a = \"{server}\"\n[vrrp.www]\ninterface = \"eth0\"\nrouter_id = 7\npriority = {priority}\n\
             addresses = [\"{vip}/{prefix_len}\"]\n{more}\n"
        )
    }

    /// Starts a node.
    pub fn start(&self, node: usize, config: &str) -> anyhow::Result<Weir<'_>> {
        Weir::start(&self.lab.nodes[node], config)
    }

    /// Begins to ask each millisecond; somebody has answered.
    pub fn probe(&self, family: Family) -> anyhow::Result<Probe> {
        let folder = Folder::new("probe")?;
        let mut command = peer(self.lab.client())?;
        let to = SocketAddr::new(self.vip(family), PORT).to_string();
        command.args(["probe", "--to", &to, "--interval", "1ms", "--until"]).arg(folder.path().join("end"));
        let process = self.lab.client().namespace.spawn("probe", command)?;
        let answered = wait_until("an answer", SOON, || process.stderr().contains(ANSWERED));
        answered.with_context(|| format!("it said: {}", process.stderr()))?;
        Ok(Probe { process, folder })
    }

    /// Nodes that have the address.
    pub fn holders(&self, family: Family) -> Vec<usize> {
        let vip = self.vip(family).to_string();
        let has = |node: &&Host| node.namespace.ip("-o addr show").is_ok_and(|text| text.contains(&format!(" {vip}/")));
        self.lab.nodes.iter().enumerate().filter(|(_, node)| has(node)).map(|(index, _)| index).collect()
    }
}

/// A router that has been started.
pub fn active<'a>(cluster: &'a Cluster, node: usize, config: &str) -> anyhow::Result<Weir<'a>> {
    started(cluster, node, config, "active")
}

/// The same, of one that waits for another.
pub fn backup<'a>(cluster: &'a Cluster, node: usize, config: &str) -> anyhow::Result<Weir<'a>> {
    started(cluster, node, config, "backup")
}

fn started<'a>(cluster: &'a Cluster, node: usize, config: &str, state: &str) -> anyhow::Result<Weir<'a>> {
    let weir = cluster.start(node, config)?;
    await_state(&weir, state)?;
    Ok(weir)
}

/// Who answered a probe, in turn.
pub fn turns(report: &ProbeReport) -> Vec<&str> {
    report.changes.iter().map(|(_, name)| name.as_str()).collect()
}

/// What a node's answers are signed with.
pub fn name(node: usize) -> String {
    format!("node{}", node + 1)
}

fn peer(host: &Host) -> anyhow::Result<Command> {
    let binary = env::var_os("WEIR_PEER").context("WEIR_PEER does not name the weir-peer binary\nhint: run `cargo xtask test`")?;
    // A client that waits for a processor would count what it did not send in time, a server what it did not answer.
    let mut command = host.namespace.command("chrt");
    command.args(["--fifo", "1"]).arg(binary);
    Ok(command)
}

fn answer(node: &Host, name: &str, vip: IpAddr) -> anyhow::Result<Process> {
    let mut command = peer(node)?;
    command.args(["probe-serve", "--name", name, "--listen", &SocketAddr::new(vip, PORT).to_string()]);
    let process = node.namespace.spawn("answer", command)?;
    wait_until("a server", SOON, || process.stderr().contains(BOUND)).with_context(|| format!("it said: {}", process.stderr()))?;
    Ok(process)
}

/// Questions that are asked meanwhile.
#[derive(Debug)]
pub struct Probe {
    process: Process,
    folder: Folder,
}

impl Probe {
    /// Ends them, and gives what became of them.
    pub fn end(mut self) -> anyhow::Result<ProbeReport> {
        fs::write(self.folder.path().join("end"), "").context("failed to end a probe")?;
        self.process.wait(SOON)?;
        serde_json::from_str(&self.process.stdout()).with_context(|| format!("a probe said: {}", self.process.stderr()))
    }
}

/// A node's virtual router as `weir vrrp -o json` shows it.
pub fn router(weir: &Weir<'_>) -> anyhow::Result<Value> {
    Ok(view(weir)?["routers"][0].clone())
}

/// All of `weir vrrp -o json`.
pub fn view(weir: &Weir<'_>) -> anyhow::Result<Value> {
    let output = weir.operate(&["vrrp", "-o", "json"])?;
    serde_json::from_slice(&output.stdout).with_context(|| format!("weir vrrp said: {}", String::from_utf8_lossy(&output.stderr)))
}

/// Waits until a node's virtual router is in a state.
pub fn await_state(weir: &Weir<'_>, state: &str) -> anyhow::Result<()> {
    let mut last = Value::Null;
    let reached = wait_until(&format!("a virtual router to be {state}"), SOON, || {
        last = router(weir).unwrap_or_default();
        last["state"] == state
    });
    reached.with_context(|| format!("it is {last}; the daemon said: {}", weir.stderr()))
}

/// The process that speaks for a node.
pub fn speaker(weir: &Weir<'_>) -> anyhow::Result<Pid> {
    let pid = view(weir)?["speaker_pid"].as_i64().context("nobody speaks")?;
    i32::try_from(pid).ok().and_then(Pid::from_raw).context("a process has an id")
}

/// The processes that speak for a node: those that wait for the other's end first.
pub fn speakers(weir: &Weir<'_>) -> anyhow::Result<Vec<Pid>> {
    let socket = weir.config().with_file_name("state").join("vrrp.sock");
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").context("failed to read /proc")?.filter_map(Result::ok) {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw) else { continue };
        let command = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let arguments: Vec<&[u8]> = command.split(|byte| *byte == 0).collect();
        if arguments.contains(&&b"vrrp-speaker"[..]) && arguments.contains(&socket.as_os_str().as_encoded_bytes()) {
            found.push((!arguments.contains(&&b"--heir"[..]), pid));
        }
    }
    found.sort_by_key(|(speaks, _)| *speaks);
    Ok(found.into_iter().map(|(_, pid)| pid).collect())
}

/// Kills every process of a node.
pub fn kill_all(weir: &mut Weir<'_>) -> anyhow::Result<()> {
    weir.kill_9()?;
    speakers(weir)?.into_iter().try_for_each(|pid| signal(pid, Signal::KILL))
}

/// Sends a signal to a process that a test started.
pub fn signal(pid: Pid, signal: Signal) -> anyhow::Result<()> {
    kill_process(pid, signal).with_context(|| format!("failed to send {signal:?} to {pid:?}"))
}

/// Debian's keepalived, in a namespace.
#[derive(Debug)]
pub struct Keepalived {
    /// The running peer.
    pub process: Process,
    folder: Folder,
}

impl Keepalived {
    /// Starts one with the body of a `vrrp_instance` on `eth0`.
    pub fn start(host: &Host, instance: &str) -> anyhow::Result<Self> {
        let folder = Folder::new("keepalived")?;
        let path = |name: &str| folder.path().join(name);
        let text = format!(
            "global_defs {{\n  vrrp_garp_master_delay 1\n}}\nvrrp_instance www {{\n  interface eth0\n  virtual_router_id 7\n{instance}\n}}\n"
        );
        fs::write(path("keepalived.conf"), text).context("failed to write keepalived.conf")?;
        // Beside others of this machine each needs files of its own.
        let program = path("keepalived");
        copy_program("/usr/sbin/keepalived", &program)?;
        let mut command = host.namespace.command(&program);
        command.args(["-n", "-l", "-D", "-P", "-f"]).arg(path("keepalived.conf"));
        for (option, name) in [("-p", "p.pid"), ("-r", "r.pid"), ("-c", "c.pid"), ("-b", "b.pid")] {
            command.arg(option).arg(path(name));
        }
        let process = host.namespace.spawn("keepalived", command)?;
        Ok(Self { process, folder })
    }

    /// Kills all its processes.
    pub fn kill_9(&mut self) -> anyhow::Result<()> {
        let child = fs::read_to_string(self.folder.path().join("r.pid")).context("keepalived's child has no pid file")?;
        let child = child.trim().parse().ok().and_then(Pid::from_raw).context("a process has an id")?;
        self.process.kill()?;
        // It may end with its parent.
        let _gone_already = kill_process(child, Signal::KILL);
        Ok(())
    }

    /// Ends it politely.
    pub fn terminate(&mut self) -> anyhow::Result<()> {
        self.process.signal(Signal::TERM)?;
        self.process.wait(SOON).map(drop)
    }
}
