//! `scripts/demo`: Weir's main job, shown in a lab.

use std::{io::Write, net::SocketAddr, time::Duration};

use anyhow::bail;

use crate::lab::{Host, Nginx, Shape, TcpLoad, TcpServer, Topology, Weir, http_tally};

const WEB: u16 = 80;
const ECHO: u16 = 7000;
const REQUESTS: usize = 30;
const CONNECTIONS: usize = 200;
const INTERVAL: Duration = Duration::from_millis(100);
const TIME: Duration = Duration::from_secs(5);

/// Builds the lab, balances HTTP requests in it, and kills the daemon under open connections.
pub fn run(out: &mut impl Write) -> anyhow::Result<()> {
    writeln!(out, "lab: a client, a node, three servers, on two networks")?;
    let lab = Topology::builder(Shape::TwoArmed).servers(3).build()?;
    let _servers = lab.servers.iter().enumerate().map(serve).collect::<anyhow::Result<Vec<_>>>()?;
    let configuration = configuration(&lab);
    writeln!(out, "\nweir.toml:\n{configuration}")?;
    let mut weir = Weir::start(lab.node(), &configuration)?;

    let tally = http_tally(&lab.client().namespace, format!("http://{}/", lab.vip4()), REQUESTS)?;
    writeln!(out, "{REQUESTS} requests to http://{}/ were answered by {tally:?}", lab.vip4())?;

    writeln!(out, "\n{CONNECTIONS} connections for {} s; the daemon is killed and started again meanwhile", TIME.as_secs())?;
    let vip = SocketAddr::new(lab.vip4().into(), ECHO);
    let load = TcpLoad::start(&lab.client().namespace, vip, CONNECTIONS, INTERVAL, TIME)?;
    load.wait_opened()?;
    weir.crash_and_restart()?;
    let report = load.report()?;
    writeln!(out, "{} opened, {} broken, {} messages came back right", report.opened, report.broken.len(), report.messages)?;
    writeln!(out, "longest answer {} ms; connections by server {:?}", report.longest_answer.as_millis(), report.by_server)?;
    if tally.len() != lab.servers.len() || !report.is_flawless(CONNECTIONS) {
        bail!("the demo did not show what it should: {:?} {:?}", report.refused, report.broken);
    }
    writeln!(out, "\nevery server took its share and no connection was lost")?;
    Ok(())
}

/// nginx and an echo server on one machine.
pub fn serve((index, host): (usize, &Host)) -> anyhow::Result<(Nginx, TcpServer)> {
    let name = format!("s{}", index + 1);
    Ok((Nginx::start(&host.namespace, &name, WEB)?, TcpServer::start(&host.namespace, &name, ECHO)?))
}

/// What follows `[node]` in a configuration for this lab.
pub fn configuration(lab: &Topology) -> String {
    let mut text = String::new();
    for (name, port) in [("web", WEB), ("echo", ECHO)] {
        text += &format!("\n[listener.{name}]\nmode = \"l4\"\nbind = [\"{}:{port}\"]\npool = \"{name}\"\n", lab.vip4());
        text += &format!("\n[pool.{name}]\nforward = \"nat\"\n");
        for (index, server) in lab.servers.iter().enumerate() {
            text += &format!("servers.s{} = \"{}:{port}\"\n", index + 1, server.v4);
        }
    }
    text
}
