//! What exactly is asked of which address: from the configuration. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use crate::{
    config::model::{Check, CheckTls, Config, Pace, Probe, Protocol, Server, Via},
    control::standing::ServerName,
};

/// One server and what it is asked.
#[derive(Clone, PartialEq, Debug)]
pub struct Target {
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
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Route {
    /// To the server's own address.
    Direct,
    /// To this VIP and port, through the data path.
    Datapath {
        /// The VIP.
        vip: IpAddr,
        /// The port that clients use.
        port: u16,
    },
}

/// The targets of every pool that is checked, and their pace. Servers of a pool that no listener uses are checked as well, if their port is known.
pub fn targets(config: &Config) -> BTreeMap<ServerName, (Target, Pace)> {
    let mut targets = BTreeMap::new();
    for (name, pool) in &config.pools {
        let Some(check) = &pool.check else { continue };
        let binds = binds_of(config, name);
        for (server_name, server) in &pool.servers {
            if let Some(target) = target(check, server, &binds) {
                targets.insert(ServerName::new(name, server_name), (target, check.pace));
            }
        }
    }
    targets
}

/// The ports on which a pool's servers could be asked: that of each bind, of TCP first.
fn binds_of(config: &Config, pool: &str) -> BTreeSet<(Protocol, u16, IpAddr)> {
    let binds = config.binds().filter(|(_, listener, _)| listener.pool == pool);
    binds.filter_map(|(bind, ..)| Some((bind.protocol, bind.port?, bind.address))).collect()
}

fn target(check: &Check, server: &Server, binds: &BTreeSet<(Protocol, u16, IpAddr)>) -> Option<Target> {
    let is_command = matches!(check.probe, Probe::Command { .. });
    let ports = binds.iter().map(|&(protocol, port, _)| (protocol, port));
    let port = check.port_for(server, ports).or(is_command.then_some(0))?;
    let route = match check.via {
        Via::Direct => Route::Direct,
        Via::Datapath => binds.iter().next().map(|&(_, port, vip)| Route::Datapath { vip, port })?,
    };
    Some(Target { address: server.address, port, route, probe: check.probe.clone(), tls: check.tls.clone(), timeout: check.pace.timeout })
}
