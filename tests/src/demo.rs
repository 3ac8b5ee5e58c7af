//! `scripts/demo`: Weir's main job, shown in a lab.

mod clients;
mod failover;
mod fixture;

use std::{
    io::Write,
    net::{Ipv4Addr, SocketAddr},
    thread,
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};

pub use self::fixture::Fixture;

use self::clients::{Clients, Seen};
use crate::lab::{Host, Nginx, Shape, TcpLoad, TcpServer, Topology, UdpServer, Weir, wait_until};

const WEB: u16 = 80;
const ECHO: u16 = 7000;
const DATAGRAMS: u16 = 7001;
const CONNECTIONS: usize = 200;
const INTERVAL: Duration = Duration::from_millis(100);
const AT_MOST: Duration = Duration::from_secs(3600);
const SOON: Duration = Duration::from_secs(20);
/// How long the clients are watched at each step.
const STEP: Duration = Duration::from_secs(3);
const ALL: [&str; 3] = ["s1", "s2", "s3"];

/// Shows the clients' view of a server that dies and is taken out, of a daemon that is killed, and of a node that dies. An error if they see what they should not.
pub fn run(out: &mut impl Write) -> anyhow::Result<()> {
    one_node(out)?;
    failover::run(out)
}

fn one_node(out: &mut impl Write) -> anyhow::Result<()> {
    writeln!(out, "lab: a client, a node that runs Weir, three servers, on two networks")?;
    let lab = Topology::builder(Shape::TwoArmed).servers(3).build()?;
    let mut servers = lab.servers.iter().enumerate().map(serve_all).collect::<anyhow::Result<Vec<_>>>()?;
    let text = whole_configuration(&lab);
    writeln!(out, "\nweir.toml:\n{text}")?;
    let mut weir = Weir::start(lab.node(), &text)?;
    let client = &lab.client().namespace;
    let vip = |port| SocketAddr::new(lab.vip4().into(), port);
    let connections = TcpLoad::start(client, vip(ECHO), CONNECTIONS, INTERVAL, AT_MOST)?;
    connections.wait_opened()?;

    let clients = Clients::new();
    thread::scope(|scope| {
        scope.spawn(|| client.enter(|| clients.ask_http(vip(WEB))));
        scope.spawn(|| client.enter(|| clients.ask_udp(vip(DATAGRAMS))));
        let shown = Show { out, lab: &lab, clients: &clients, connections: &connections }.steps(&mut weir, &mut servers, &text);
        clients.end();
        shown
    })?;
    let report = connections.finish()?;
    writeln!(out, "\nof {CONNECTIONS} connections {} broke: those of s2, whose process was killed", report.broken.len())?;
    writeln!(out, "{} messages came back right, the slowest in {} ms", report.messages, report.longest_answer.as_millis())?;
    ensure!(report.opened == CONNECTIONS, "connections were refused: {:?}", report.refused);
    Ok(())
}

/// The demo's steps.
struct Show<'a, W> {
    out: &'a mut W,
    lab: &'a Topology,
    clients: &'a Clients,
    connections: &'a TcpLoad,
}

impl<W: Write> Show<'_, W> {
    fn steps(&mut self, weir: &mut Weir<'_>, servers: &mut [Served], text: &str) -> anyhow::Result<()> {
        self.answered("1. three servers", &ALL)?;
        ensure!(self.connections.broken().is_empty(), "connections broke: {:?}", self.connections.broken());

        let dead = servers.get_mut(1).context("three servers were started")?;
        dead.kill()?;
        let (http, udp) = self.watch("2. the processes of s2 are killed; Weir is not told")?;
        ensure!(http.failed > 0 && udp.failed > 0, "the dead server was not missed");
        self.only_s2_broke()?;

        weir.write_config(&text.replace(&server(self.lab, 1), &down(self.lab, 1)))?;
        wait_until("s2 to be down", SOON, || is_in_state(weir, self.lab.servers[1].v4, "down"))?;
        // What was asked before is answered, or given up, before the clients are watched.
        thread::sleep(clients::PATIENCE * 2);
        self.clients.seen();
        self.answered("3. the operator writes state = \"down\" at s2", &["s1", "s3"])?;

        weir.kill_9()?;
        self.answered("4. the daemon is killed (kill -9); nobody runs", &["s1", "s3"])?;
        weir.run()?;
        let origin = weir.status()?["daemon"]["origin"].clone();
        ensure!(origin == "adopted", "the daemon did not take over what it found: {origin}");
        self.answered("5. the daemon runs again and has taken over what it found", &["s1", "s3"])?;

        *servers.get_mut(1).context("three servers were started")? = serve_all((1, &self.lab.servers[1]))?;
        weir.write_config(text)?;
        wait_until("s2 to be ready", SOON, || is_in_state(weir, self.lab.servers[1].v4, "ready"))?;
        self.answered("6. s2 is started and set ready", &ALL)?;
        self.only_s2_broke()?;
        let (source, vip) = (format!("{}:4000", self.lab.client().v4), format!("{}:{WEB}", self.lab.vip4()));
        self.operate(weir, &["status"])?;
        self.operate(weir, &["explain", &source, &vip])
    }

    /// Watches the clients for a while, and tells what they saw.
    fn watch(&mut self, step: &str) -> anyhow::Result<(Seen, Seen)> {
        thread::sleep(STEP);
        let (http, udp) = self.clients.seen();
        writeln!(self.out, "\n{step}\n   HTTP        {http}\n   UDP         {udp}")?;
        writeln!(
            self.out,
            "   connections {} open, {} broken",
            CONNECTIONS - self.connections.broken().len(),
            self.connections.broken().len()
        )?;
        Ok((http, udp))
    }

    /// As [`Self::watch`]; an error unless all was answered, by these servers.
    fn answered(&mut self, step: &str, by: &[&str]) -> anyhow::Result<()> {
        let (http, udp) = self.watch(step)?;
        ensure!(http.is_answered_by(by), "HTTP was to be answered by {by:?}, always");
        ensure!(udp.is_answered_by(by), "UDP was to be answered by {by:?}, always");
        Ok(())
    }

    fn only_s2_broke(&self) -> anyhow::Result<()> {
        let broken = self.connections.broken();
        let others: Vec<_> = broken.iter().filter(|line| !line.starts_with(&format!("{}s2 ", crate::peer::BROKEN))).collect();
        ensure!(others.is_empty(), "connections of other servers broke: {others:?}");
        ensure!(broken.len() == self.connections.greeted_by("s2"), "{} connections broke", broken.len());
        Ok(())
    }

    fn operate(&mut self, weir: &Weir<'_>, arguments: &[&str]) -> anyhow::Result<()> {
        let output = weir.operate(arguments)?;
        writeln!(self.out, "\n$ weir {}\n{}", arguments.join(" "), String::from_utf8_lossy(&output.stdout).trim_end())?;
        if !output.status.success() {
            bail!("weir {arguments:?} failed ({}): {}", output.status, String::from_utf8_lossy(&output.stderr));
        }
        Ok(())
    }
}

/// Whether every service says this state of a server.
fn is_in_state(weir: &Weir<'_>, server: Ipv4Addr, state: &str) -> bool {
    let status = weir.status().unwrap_or_default();
    let services = status["services"].as_array().into_iter().flatten();
    let members = services.flat_map(|service| service["members"].as_array().into_iter().flatten());
    let mut mine = members.filter(|member| member["address"] == server.to_string().as_str()).peekable();
    mine.peek().is_some() && mine.all(|member| member["state"] == state)
}

/// What runs on one of the demo's servers.
struct Served {
    nginx: Nginx,
    tcp: TcpServer,
    udp: UdpServer,
}

impl Served {
    fn kill(&mut self) -> anyhow::Result<()> {
        [self.nginx.process(), &mut self.tcp.process, &mut self.udp.process].into_iter().try_for_each(crate::lab::Process::kill)
    }
}

fn serve_all((index, host): (usize, &Host)) -> anyhow::Result<Served> {
    let (nginx, tcp) = serve((index, host))?;
    let udp = UdpServer::start(&host.namespace, &format!("s{}", index + 1), SocketAddr::new(host.v4.into(), DATAGRAMS))?;
    Ok(Served { nginx, tcp, udp })
}

/// nginx and an echo server on one machine.
pub fn serve((index, host): (usize, &Host)) -> anyhow::Result<(Nginx, TcpServer)> {
    let name = format!("s{}", index + 1);
    Ok((Nginx::start(&host.namespace, &name, WEB)?, TcpServer::start(&host.namespace, &name, ECHO)?))
}

/// The demo's file: one pool for everything, since the servers' ports are those of the listeners.
fn whole_configuration(lab: &Topology) -> String {
    let vip = lab.vip4();
    let mut text = format!(
        "slot_seed = \"of the demo\"\n\n[listener.all]\nmode = \"l4\"\nbind = [\"{vip}:{WEB}\", \"{vip}:{ECHO}\", \"{vip}:{DATAGRAMS}/udp\"]\n\
         pool = \"all\"\n\n[pool.all]\nforward = \"nat\"\n"
    );
    (0..lab.servers.len()).for_each(|index| text += &server(lab, index));
    text
}

fn server(lab: &Topology, index: usize) -> String {
    format!("servers.s{} = \"{}\"\n", index + 1, lab.servers[index].v4)
}

fn down(lab: &Topology, index: usize) -> String {
    format!("servers.s{} = {{ address = \"{}\", state = \"down\" }}\n", index + 1, lab.servers[index].v4)
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
