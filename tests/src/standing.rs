//! `cargo xtask lab`: a lab that stays while one tries things in it. A process in the background holds it, and removes it when told to.

use std::{
    env, fs,
    io::{BufRead as _, BufReader, Read as _, Write},
    os::unix::{
        net::{UnixListener, UnixStream},
        process::CommandExt as _,
    },
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, bail};

use crate::{
    demo,
    lab::{Nginx, Shape, TcpServer, Topology, wait_until},
};

/// Whoever writes `DOWN` to it ends the lab.
const SOCKET: &str = "/run/weir-lab.sock";
const DOWN: &[u8] = b"down";
const READY: &str = "cargo xtask lab down";

/// Starts the holder and passes on what it says until the lab stands.
pub fn up(out: &mut impl Write) -> anyhow::Result<()> {
    if UnixStream::connect(SOCKET).is_ok() {
        bail!("a lab stands already\nhint: {READY}");
    }
    let program = env::current_exe().context("failed to find this program's file")?;
    let mut holder = Command::new(program);
    holder.arg("hold").stdin(Stdio::null()).stdout(Stdio::piped()).process_group(0);
    let mut holder = holder.spawn().context("failed to start the lab's holder")?;
    for line in BufReader::new(holder.stdout.take().context("the holder's output is piped")?).lines() {
        let line = line.context("failed to read the holder's output")?;
        writeln!(out, "{line}")?;
        if line.contains(READY) {
            return Ok(());
        }
    }
    bail!("the lab could not be built")
}

/// Has the lab removed, and waits until it is.
pub fn down() -> anyhow::Result<()> {
    let mut holder = UnixStream::connect(SOCKET).context("no lab is standing")?;
    holder.write_all(DOWN).context("failed to reach the lab's holder")?;
    drop(holder);
    Ok(wait_until("the lab to be removed", Duration::from_secs(20), || !Path::new(SOCKET).exists())?)
}

/// Builds the lab, says how to use it, and removes it once asked to.
pub fn hold(out: &mut impl Write) -> anyhow::Result<()> {
    drop(fs::remove_file(SOCKET));
    let listener = UnixListener::bind(SOCKET).with_context(|| format!("failed to listen on {SOCKET}"))?;
    let held = stand(out).and_then(|lab| {
        wait_for_down(&listener).context("failed to wait for the lab's end")?;
        drop(lab);
        Ok(())
    });
    drop(fs::remove_file(SOCKET));
    held
}

fn wait_for_down(listener: &UnixListener) -> std::io::Result<()> {
    let mut word = Vec::new();
    while word != DOWN {
        word.clear();
        listener.accept()?.0.take(DOWN.len() as u64).read_to_end(&mut word)?;
    }
    Ok(())
}

struct Standing {
    _servers: Vec<(Nginx, TcpServer)>,
    _lab: Topology,
}

fn stand(out: &mut impl Write) -> anyhow::Result<Standing> {
    let lab = Topology::builder(Shape::TwoArmed).servers(3).build()?;
    let servers = lab.servers.iter().enumerate().map(demo::serve).collect::<anyhow::Result<Vec<_>>>()?;
    writeln!(out, "{:<12} {:<28} ADDRESSES", "MACHINE", "NAMESPACE")?;
    for (role, hosts) in [("client", &lab.clients), ("node", &lab.nodes), ("server", &lab.servers)] {
        for host in hosts {
            writeln!(out, "{role:<12} {:<28} {} {}", host.namespace.name(), host.v4, host.v6)?;
        }
    }
    writeln!(out, "\n# what a weir.toml for it has after its [node]\n{}", demo::configuration(&lab))?;
    writeln!(out, "a shell on the node:  nsenter --net={} bash", lab.node().namespace.path().display())?;
    writeln!(
        out,
        "a request:            nsenter --net={} curl --silent http://{}/",
        lab.client().namespace.path().display(),
        lab.servers[0].v4
    )?;
    writeln!(out, "to remove it:         {READY}")?;
    Ok(Standing { _servers: servers, _lab: lab })
}
