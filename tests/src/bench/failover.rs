//! Hand-overs of a virtual address: what a client that asks each millisecond notices, Weir beside keepalived, in the same lab with the same timers.

use std::{io::Write, net::SocketAddr, thread::sleep, time::Duration};

use anyhow::Context as _;

use crate::{
    lab::{Family, ServerSetup, TcpLoad, TcpServer, Weir, wait_until},
    peer::probe::ProbeReport,
    vrrp::{Cluster, Keepalived, await_state, kill_all},
};

const INTERVALS_MS: [u64; 2] = [100, 10];
const DEATHS: u64 = 10;
const CONNECTIONS: usize = 50;
const SOON: Duration = Duration::from_secs(20);
/// After so long a node that has an address still has it for good.
const FOR_GOOD: Duration = Duration::from_secs(5);
/// The backup's is that of the aim.
const PRIORITIES: [u8; 2] = [254, 250];

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Product {
    Weir,
    Keepalived,
}

enum Node<'a> {
    Weir(Box<Weir<'a>>),
    Keepalived(Keepalived),
}

impl<'a> Node<'a> {
    fn start(cluster: &'a Cluster, product: Product, node: usize, interval_ms: u64) -> anyhow::Result<Self> {
        let priority = PRIORITIES[node];
        match product {
            Product::Weir => {
                let config = cluster.config(Family::V4, priority, &format!("interval = \"{interval_ms}ms\""));
                let weir = cluster.start(node, &config)?;
                await_state(&weir, if node == 0 { "active" } else { "backup" })?;
                Ok(Self::Weir(Box::new(weir)))
            }
            Product::Keepalived => {
                let (seconds, vip) = (interval_ms as f64 / 1000.0, cluster.vip(Family::V4));
                let instance = format!(
                    "  state BACKUP\n  version 3\n  advert_int {seconds}\n  priority {priority}\n  virtual_ipaddress {{\n    {vip}/24\n  }}"
                );
                Ok(Self::Keepalived(Keepalived::start(&cluster.lab.nodes[node], &instance)?))
            }
        }
    }

    fn terminate(&mut self) -> anyhow::Result<()> {
        match self {
            Self::Weir(weir) => weir.terminate(),
            Self::Keepalived(keepalived) => keepalived.terminate(),
        }
    }

    /// Every process of it.
    fn kill_9(&mut self) -> anyhow::Result<()> {
        match self {
            Self::Weir(weir) => kill_all(weir),
            Self::Keepalived(keepalived) => keepalived.kill_9(),
        }
    }
}

/// What a client noticed of a product.
struct Noticed {
    planned: ProbeReport,
    preempted: ProbeReport,
    worst_death_ms: f64,
    killed: ProbeReport,
    holders_for_good: usize,
}

/// Measures both and prints a table.
///
/// # Errors
/// If the lab, or one of the products, does not work.
pub fn run(out: &mut impl Write) -> anyhow::Result<()> {
    for interval_ms in INTERVALS_MS {
        let weir = measure(Product::Weir, interval_ms).context("Weir")?;
        let keepalived = measure(Product::Keepalived, interval_ms).context("keepalived")?;
        writeln!(out, "adverts of {interval_ms} ms, backup priority {}{:>18}{:>26}", PRIORITIES[1], "Weir", "keepalived")?;
        let lost = |report: &ProbeReport| format!("{} lost, gap {:.0} ms", report.lost, report.longest_gap_ms);
        let mut row = |what: &str, of: &dyn Fn(&Noticed) -> String| writeln!(out, "{what:<38}{:>22}{:>26}", of(&weir), of(&keepalived));
        row("ended politely", &|noticed| lost(&noticed.planned))?;
        row("preempting return", &|noticed| lost(&noticed.preempted))?;
        row(&format!("node death, worst of {DEATHS}"), &|noticed| format!("{:.0} ms", noticed.worst_death_ms))?;
        row("kill -9 of all processes", &|noticed| lost(&noticed.killed))?;
        row("  nodes with the address 5 s later", &|noticed| noticed.holders_for_good.to_string())?;
        writeln!(out)?;
    }
    writeln!(out, "{CONNECTIONS} connections through Weir, a yield under load")?;
    for forward in ["dsr", "ipip", "nat"] {
        let broken = broken(forward).with_context(|| format!("connections of {forward}"))?;
        writeln!(out, "{forward:<38}{:>22}", format!("{broken} broken"))?;
    }
    Ok(())
}

/// Connections that another node cannot go on with.
fn broken(forward: &str) -> anyhow::Result<usize> {
    let cluster = Cluster::of(2)?;
    let (server, vip) = (&cluster.lab.servers[0], cluster.vip(Family::V4));
    let _setup = match forward {
        "dsr" => server.hold(vip).map(|()| None)?,
        "ipip" => Some(ServerSetup::add(server, forward, &[vip])?),
        _ => None,
    };
    let _serving = TcpServer::start(&server.namespace, "a", 80)?;
    let start = |node: usize, state: &str| -> anyhow::Result<Weir<'_>> {
        let config = cluster.config(Family::V4, PRIORITIES[node], "interval = \"100ms\"");
        let weir = cluster.start(node, &config.replace("forward = \"dsr\"", &format!("forward = \"{forward}\"")))?;
        await_state(&weir, state)?;
        Ok(weir)
    };
    let (first, second) = (start(0, "active")?, start(1, "backup")?);
    let client = &cluster.lab.client().namespace;
    let load = TcpLoad::start(client, SocketAddr::new(vip, 80), CONNECTIONS, Duration::from_millis(50), SOON)?;
    load.wait_opened()?;
    first.operate(&["vrrp", "yield"])?;
    await_state(&second, "active")?;
    sleep(Duration::from_secs(2));
    // A load without connections ends by itself, so that it is not told to.
    Ok(load.broken().len())
}

fn measure(product: Product, interval_ms: u64) -> anyhow::Result<Noticed> {
    let cluster = Cluster::of(2)?;
    let has = |node: usize| wait_until("a node to have the address alone", SOON, || cluster.holders(Family::V4) == [node]);
    let mut first = Node::start(&cluster, product, 0, interval_ms)?;
    has(0)?;
    let second = Node::start(&cluster, product, 1, interval_ms)?;
    sleep(Duration::from_secs(2));
    has(0)?;

    let probe = begin(&cluster)?;
    first.terminate()?;
    has(1)?;
    let planned = probe.end()?;

    let probe = begin(&cluster)?;
    drop(first);
    let mut first = Node::start(&cluster, product, 0, interval_ms)?;
    has(0)?;
    let preempted = probe.end()?;

    let mut worst_death_ms: f64 = 0.0;
    for death in 0..DEATHS {
        let probe = begin(&cluster)?;
        sleep(Duration::from_millis(37 * death));
        cluster.lab.set_carrier(0, false)?;
        wait_until("the other node to have it", SOON, || cluster.holders(Family::V4).contains(&1))?;
        sleep(Duration::from_millis(100));
        worst_death_ms = worst_death_ms.max(probe.end()?.longest_gap_ms);
        cluster.lab.set_carrier(0, true)?;
        has(0)?;
        sleep(Duration::from_millis(500));
    }

    let probe = begin(&cluster)?;
    first.kill_9()?;
    wait_until("the other node to have it", SOON, || cluster.holders(Family::V4).contains(&1))?;
    sleep(FOR_GOOD);
    let holders_for_good = cluster.holders(Family::V4).len();
    let killed = probe.end()?;
    drop((first, second));
    Ok(Noticed { planned, preempted, worst_death_ms, killed, holders_for_good })
}

fn begin(cluster: &Cluster) -> anyhow::Result<crate::vrrp::Probe> {
    let probe = cluster.probe(Family::V4)?;
    sleep(Duration::from_millis(300));
    Ok(probe)
}
