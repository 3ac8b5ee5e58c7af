//! The demo's second part: two nodes share a VIP, one is told to yield, comes back, and dies.

use std::{io::Write, net::SocketAddr, thread::sleep, time::Duration};

use anyhow::ensure;

use crate::{
    lab::{Family, TcpLoad, TcpServer},
    peer::probe::ProbeReport,
    vrrp::{Cluster, Probe, await_state, name},
};

const CONNECTIONS: usize = 100;
const INTERVAL: Duration = Duration::from_millis(50);
const AT_MOST: Duration = Duration::from_secs(3600);
/// The client is watched so long before and after a hand-over.
const STEP: Duration = Duration::from_millis(500);
const ADVERTS: &str = "interval = \"100ms\"";
/// Three adverts of 100 ms and the skew of priority 250 (RFC 9568 s6.1): 302 ms, and what a busy machine adds.
const DEATH_AT_MOST_MS: f64 = 500.0;
/// The listener of [`Cluster`].
const PORT: u16 = 80;

/// Shows what a client notices of hand-overs between two nodes. An error if it notices more than it should.
pub(super) fn run(out: &mut impl Write) -> anyhow::Result<()> {
    writeln!(
        out,
        "\n\nlab: a client, two nodes that share a VIP by VRRP (adverts each 100 ms), a server, on one network; forward = \"dsr\""
    )?;
    let cluster = Cluster::of(2)?;
    let server = &cluster.lab.servers[0];
    server.hold(cluster.vip(Family::V4))?;
    let _serving = TcpServer::start(&server.namespace, "s1", PORT)?;
    let first = cluster.start(0, &cluster.config(Family::V4, 254, ADVERTS))?;
    let second = cluster.start(1, &cluster.config(Family::V4, 250, ADVERTS))?;
    await_state(&first, "active")?;
    await_state(&second, "backup")?;
    let to = SocketAddr::new(cluster.vip(Family::V4), PORT);
    let load = TcpLoad::start(&cluster.lab.client().namespace, to, CONNECTIONS, INTERVAL, AT_MOST)?;
    load.wait_opened()?;
    writeln!(out, "the client has {CONNECTIONS} connections, and asks the VIP each millisecond who answers")?;

    let probe = begin(&cluster)?;
    ensure!(first.operate(&["vrrp", "yield"])?.status.success(), "the first node does not yield");
    await_state(&second, "active")?;
    tell(out, "\n1. weir vrrp yield on node1", &end(probe)?, |report| report.lost <= 1)?;

    let probe = begin(&cluster)?;
    ensure!(first.operate(&["vrrp", "ready"])?.status.success(), "the first node is not ready");
    await_state(&first, "active")?;
    tell(out, "2. weir vrrp ready on node1, which preempts", &end(probe)?, |report| report.lost <= 1)?;

    let probe = begin(&cluster)?;
    // The power fails: nothing more comes from there, nor gets there.
    cluster.lab.set_carrier(0, false)?;
    await_state(&second, "active")?;
    tell(out, "3. node1 dies", &end(probe)?, |report| report.longest_gap_ms <= DEATH_AT_MOST_MS)?;

    let report = load.finish()?;
    writeln!(out, "   of {CONNECTIONS} connections {} broke: both nodes choose servers by the same table", report.broken.len())?;
    ensure!(report.opened == CONNECTIONS && report.broken.is_empty(), "connections broke: {:?} {:?}", report.refused, report.broken);
    let shown = second.operate(&["vrrp"])?;
    writeln!(out, "\n{}$ weir vrrp\n{}", name(1), String::from_utf8_lossy(&shown.stdout).trim_end())?;
    Ok(())
}

fn begin(cluster: &Cluster) -> anyhow::Result<Probe> {
    let probe = cluster.probe(Family::V4)?;
    sleep(STEP);
    Ok(probe)
}

fn end(probe: Probe) -> anyhow::Result<ProbeReport> {
    sleep(STEP);
    probe.end()
}

fn tell(out: &mut impl Write, step: &str, report: &ProbeReport, is_right: impl Fn(&ProbeReport) -> bool) -> anyhow::Result<()> {
    let holders: Vec<&str> = report.changes.iter().map(|(_, name)| name.as_str()).collect();
    writeln!(
        out,
        "{step}\n   {} of {} questions lost, {:.1} ms at the longest without an answer; answered by {}",
        report.lost,
        report.asked,
        report.longest_gap_ms,
        holders.join(", then ")
    )?;
    ensure!(holders.len() == 2 && is_right(report), "that is not what was to be seen: {report:?}");
    Ok(())
}
