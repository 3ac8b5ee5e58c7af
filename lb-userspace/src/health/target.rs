//! What exactly is asked of which address: from the configuration. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use lb_common::maps::ForwardKind;

use crate::{
    config::model::{Check, CheckTls, Config, Forward, Node, Pace, Pool, Probe, Protocol, Server, Via},
    control::standing::ServerName,
};

/// VIPs of a pool that a check through the data path asks, one after the other: the first ones of the servers' family.
pub const MOST_PATHS: usize = 8;

/// One server and what it is asked.
#[derive(Clone, PartialEq, Debug)]
pub struct Target {
    /// The server as flows are sent to it, its port 0 if it has none of its own: what checks find is known of this, whatever it is called.
    pub seat: SocketAddr,
    /// Where the question goes.
    pub address: IpAddr,
    /// Its port; 0 for a command that is told none.
    pub port: u16,
    /// The way.
    pub route: Route,
    /// What is asked.
    pub probe: Probe,
    /// TLS around it.
    pub tls: Option<CheckTls>,
    /// The whole time that it may take.
    pub timeout: Duration,
}

/// The way of a question to its server.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Route {
    /// To the server's own address.
    Direct,
    /// The same, from this address of the host: as translated packets come.
    From(IpAddr),
    /// To these VIPs in turn, as the data path sends to them. All have to answer.
    Datapath(Vec<Path>),
}

/// A way through the data path.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Path {
    /// The VIP.
    pub vip: IpAddr,
    /// The port that clients use.
    pub port: u16,
    /// How packets reach the server.
    pub forward: ForwardKind,
    /// UDP port of GUE; 0 without it.
    pub gue_port: u16,
    /// Source of the outer header; none: the probe's own.
    pub tunnel_source: Option<IpAddr>,
    /// By which sockets name this way, see [`lb_common::ways`]; 0 until it has a number.
    pub mark: u32,
}

impl Path {
    /// `forward` as the configuration has it.
    pub const fn mode(&self) -> &'static str {
        match self.forward {
            ForwardKind::Nat => "nat",
            ForwardKind::Dsr => "dsr",
            ForwardKind::Ipip4 | ForwardKind::Ipip6 => "ipip",
            ForwardKind::Gue4 | ForwardKind::Gue6 => "gue",
        }
    }
}

/// The targets of every pool that is checked, and their pace. Servers of a pool that no listener uses are checked as well, if their port is known, as it is
/// while the operator has its listener use another pool, and the way is direct.
pub fn targets(config: &Config) -> BTreeMap<ServerName, (Target, Pace)> {
    let mut targets = BTreeMap::new();
    let by_pool = config.binds_by_pool();
    for (name, pool) in &config.pools {
        let Some(check) = &pool.check else { continue };
        let used = by_pool.get(name.as_str()).into_iter().flatten();
        let set_aside =
            config.listeners.values().filter(|listener| listener.set_aside.as_ref() == Some(name)).flat_map(|listener| &listener.binds);
        let binds = used.chain(set_aside).map(|bind| (bind.protocol, bind.port, bind.address)).collect();
        for (server_name, server) in &pool.servers {
            if let Some(target) = target(&config.node, pool, check, server, &binds) {
                targets.insert(ServerName::new(name, server_name), (target, check.pace));
            }
        }
    }
    targets
}

/// Where a pool's servers could be asked: each bind, of TCP first.
type Binds = BTreeSet<(Protocol, Option<u16>, IpAddr)>;

fn target(node: &Node, pool: &Pool, check: &Check, server: &Server, binds: &Binds) -> Option<Target> {
    let is_command = matches!(check.probe, Probe::Command { .. });
    let ports = binds.iter().filter_map(|&(protocol, port, _)| Some((protocol, port?)));
    let port = check.port_for(server, ports).or(is_command.then_some(0))?;
    let (route, port) = match (check.via, &pool.forward) {
        (Via::Direct, _) => (Route::Direct, port),
        (Via::Datapath, Forward::Nat { snat }) => (from_snat(snat, server), port),
        (Via::Datapath, Forward::Dsr | Forward::Ipip | Forward::Gue { .. }) => {
            let paths = paths(node, &pool.forward, check, server, binds);
            let first = paths.first()?.port;
            (Route::Datapath(paths), first)
        }
    };
    let (probe, tls, timeout) = (check.probe.clone(), check.tls.clone(), check.pace.timeout);
    Some(Target { seat: seat(server), address: server.address, port, route, probe, tls, timeout })
}

/// As [`Target::seat`].
pub const fn seat(server: &Server) -> SocketAddr {
    let port = match server.port {
        Some(port) => port,
        None => 0,
    };
    SocketAddr::new(server.address, port)
}

fn from_snat(snat: &[IpAddr], server: &Server) -> Route {
    snat.iter().find(|snat| snat.is_ipv4() == server.address.is_ipv4()).map_or(Route::Direct, |&snat| Route::From(snat))
}

/// A way by each VIP of the server's family, to the port of its first bind that suits the probe.
fn paths(node: &Node, forward: &Forward, check: &Check, server: &Server, binds: &Binds) -> Vec<Path> {
    let is_v4 = server.address.is_ipv4();
    let (forward, gue_port) = match (forward, is_v4) {
        (Forward::Nat { .. }, _) => (ForwardKind::Nat, 0),
        (Forward::Dsr, _) => (ForwardKind::Dsr, 0),
        (Forward::Ipip, true) => (ForwardKind::Ipip4, 0),
        (Forward::Ipip, false) => (ForwardKind::Ipip6, 0),
        (Forward::Gue { port }, true) => (ForwardKind::Gue4, *port),
        (Forward::Gue { port }, false) => (ForwardKind::Gue6, *port),
    };
    let tunnel_source = if is_v4 { node.tunnel_source4 } else { node.tunnel_source6 };
    let tunnel_source = tunnel_source.filter(|_| forward.overhead() > 0);
    let wanted = if matches!(check.probe, Probe::Udp { .. }) { Protocol::Udp } else { Protocol::Tcp };
    let mut ports: BTreeMap<IpAddr, u16> = BTreeMap::new();
    let suiting = binds.iter().filter(|(protocol, ..)| *protocol == wanted);
    for &(_, port, vip) in suiting.chain(binds).filter(|(.., vip)| vip.is_ipv4() == is_v4) {
        if let Some(port) = check.port.or(port) {
            ports.entry(vip).or_insert(port);
        }
    }
    let path = |(vip, port)| Path { vip, port, forward, gue_port, tunnel_source, mark: 0 };
    ports.into_iter().take(MOST_PATHS).map(path).collect()
}

#[cfg(test)]
mod tests;
