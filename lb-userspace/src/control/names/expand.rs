//! The servers that names stand for, as a configuration has them: each address is a server of its own, called `SERVER@ADDRESS`.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use super::{Found, Names};
use crate::{
    config::model::{Config, NamedServer, Server},
    control::overrides::unfit,
};

/// The configuration with the servers that the names are known to stand for, and what of them cannot be used, a line each.
pub fn expand(written: &Config, names: &Names) -> (Config, Vec<String>) {
    let mut config = written.clone();
    let mut troubles = Vec::new();
    for (pool_name, pool, families) in written.named_pools() {
        for (entry, named) in &pool.names {
            // What is of no use to this pool may be of use to another that asks the same.
            let fits = |found: &Found| if found.address.is_ipv4() { families.v4 } else { families.v6 };
            for found in names.found(&named.question).filter(fits) {
                let (name, server) = (name_of(entry, &found), server_of(named, &found));
                if let Err(why) = add(&mut config, pool_name, &name, server) {
                    troubles.push(format!("{pool_name}/{name} is left out: {why}"));
                }
            }
        }
    }
    (config, troubles)
}

/// The names of the DNS in a configuration of which nothing is known yet.
pub fn unknown(written: &Config, names: &Names) -> BTreeSet<String> {
    let questions = written.questions().into_keys();
    questions.filter(|question| names.found(question).next().is_none()).map(|question| question.to_string()).collect()
}

/// The entry of the configuration that a server stands for an address of, and the name that is asked for; none for a server that the configuration has itself.
pub fn entry_of<'c>(written: &'c Config, pool: &str, server: &str) -> Option<(&'c str, &'c NamedServer)> {
    let (entry, _) = server.split_once('@')?;
    let pool = written.pools.get(pool).filter(|pool| !pool.servers.contains_key(server))?;
    pool.names.get_key_value(entry).map(|(entry, named)| (entry.as_str(), named))
}

fn name_of(entry: &str, found: &Found) -> String {
    match found.port {
        Some(port) => format!("{entry}@{}", SocketAddr::new(found.address, port)),
        None => format!("{entry}@{}", found.address),
    }
}

fn server_of(named: &NamedServer, found: &Found) -> Server {
    Server {
        address: found.address,
        port: named.port.or(found.port),
        weight: named.weight.or(found.weight).unwrap_or(1),
        backup: named.backup || found.backup,
        state: named.state,
    }
}

/// Adds a server to a pool, or says why it cannot be one of it.
pub(super) fn add(config: &mut Config, pool_name: &str, name: &str, server: Server) -> Result<(), String> {
    let Some(pool) = config.pools.get(pool_name) else { return Ok(()) };
    if let Some(why) = unusable(server.address) {
        return Err(why.into());
    }
    if let Some((other, _)) = pool.servers.iter().find(|(_, other)| (other.address, other.port) == (server.address, server.port)) {
        return Err(format!("{other} has its address and port"));
    }
    let Server { address, port, .. } = server;
    if let Some(why) = unfit(config, pool_name, pool, (address, port)) {
        return Err(why.into());
    }
    if let Some(pool) = config.pools.get_mut(pool_name) {
        Arc::make_mut(pool).servers.insert(name.to_owned(), server);
    }
    Ok(())
}

/// Whoever answers for a name must not have packets sent to where no server can be.
fn unusable(address: IpAddr) -> Option<&'static str> {
    let is_broadcast = matches!(address, IpAddr::V4(v4) if v4.is_broadcast());
    let is_mapped = matches!(address, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some());
    let is_none = address.is_unspecified() || address.is_loopback() || address.is_multicast() || is_broadcast || is_mapped;
    is_none.then_some("no server can have this address")
}

#[cfg(test)]
mod tests;
