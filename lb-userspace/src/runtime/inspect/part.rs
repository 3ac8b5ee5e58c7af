//! Servers, pools and listeners with all that is known of them.

use std::collections::BTreeSet;

use super::InspectError;
use crate::{
    admin::{
        answer::ServerDetail,
        node::{Part, Placement, ServerPart, Service, Status},
    },
    config,
    control::standing::ServerName,
    runtime::report::Report,
};

/// What a target means.
#[derive(PartialEq, Eq, Debug)]
struct Selected {
    servers: BTreeSet<ServerName>,
    /// Pools and listeners that are meant as a whole.
    pools: BTreeSet<String>,
    listeners: BTreeSet<String>,
}

/// What `target` means, of these servers and these pairs of listener and pool.
fn select<'n>(
    target: &str,
    servers: impl Iterator<Item = &'n ServerName> + Clone,
    listeners: &[(&str, &str)],
) -> Result<Selected, InspectError> {
    let names: Vec<String> = servers.clone().map(ToString::to_string).collect();
    let known_pools: BTreeSet<&str> =
        servers.clone().map(|name| name.pool.as_str()).chain(listeners.iter().map(|(_, pool)| *pool)).collect();
    let known_listeners: BTreeSet<&str> = listeners.iter().map(|(listener, _)| *listener).collect();
    let none = || {
        let known: Vec<&str> = if target.contains('/') {
            names.iter().map(String::as_str).collect()
        } else {
            known_pools.iter().chain(&known_listeners).copied().collect::<BTreeSet<_>>().into_iter().collect()
        };
        InspectError::NoSuch { kind: "pool, server or listener", name: target.to_owned(), hint: config::alike(target, &known) }
    };
    let mut selected = Selected { servers: BTreeSet::new(), pools: BTreeSet::new(), listeners: BTreeSet::new() };
    if let Some((pool, server)) = target.split_once('/') {
        let (Ok(pool), Ok(server)) = (glob::Pattern::new(pool), glob::Pattern::new(server)) else { return Err(none()) };
        selected.servers = servers.filter(|name| pool.matches(&name.pool) && server.matches(&name.server)).cloned().collect();
        return if selected.servers.is_empty() { Err(none()) } else { Ok(selected) };
    }
    let Ok(pattern) = glob::Pattern::new(target) else { return Err(none()) };
    let owned = |names: &BTreeSet<&str>| names.iter().filter(|name| pattern.matches(name)).map(|name| (*name).to_owned()).collect();
    (selected.pools, selected.listeners) = (owned(&known_pools), owned(&known_listeners));
    if selected.pools.is_empty() && selected.listeners.is_empty() {
        return Err(none());
    }
    let meant = |pool: &str| {
        selected.pools.contains(pool) || listeners.iter().any(|(listener, of)| *of == pool && selected.listeners.contains(*listener))
    };
    selected.servers = servers.filter(|name| meant(&name.pool)).cloned().collect();
    Ok(selected)
}

pub(super) fn part(
    target: &str,
    status: Status,
    report: &Report,
    mut details: Vec<ServerDetail>,
    not_told: Option<String>,
) -> Result<Part, InspectError> {
    let listeners: Vec<(&str, &str)> = report.services.iter().map(|service| (service.listener.as_str(), service.pool.as_str())).collect();
    let selected = select(target, report.standings.keys(), &listeners)?;
    let mut services = status.services;
    let servers = selected
        .servers
        .iter()
        .map(|name| {
            let detail = details.iter().position(|detail| detail.view.server == *name).map(|found| details.swap_remove(found));
            let transitions = report.courses.of(name).to_vec();
            ServerPart {
                why: report.standings.get(name).copied(),
                since_ms: transitions.last().map(|last| last.at_ms),
                check: report.health.get(name).cloned(),
                transitions,
                detail,
                members: placements(name, &services),
                server: name.clone(),
            }
        })
        .collect();
    let of_services = !selected.pools.is_empty() || !selected.listeners.is_empty();
    services.retain(|service| {
        selected.pools.contains(&service.pool)
            || selected.listeners.contains(&service.listener)
            || selected.servers.iter().any(|name| !of_services && name.pool == service.pool)
    });
    Ok(Part { node: status.node, running: status.daemon.running, not_told, of_services, services, servers })
}

fn placements(name: &ServerName, services: &[Service]) -> Vec<Placement> {
    let of_pool = services.iter().filter(|service| service.pool == name.pool);
    of_pool
        .flat_map(|service| {
            service.members.iter().filter(|member| member.server == name.server).map(|member| Placement {
                listener: service.listener.clone(),
                vip: service.vip,
                service_port: service.port,
                protocol: service.protocol.clone(),
                slots_total: service.slots.total,
                member: member.clone(),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Vec<ServerName> {
        ["blue/s1", "blue/s2", "green/s1", "web/s1"].map(|name| name.parse().unwrap()).to_vec()
    }

    fn chosen(target: &str) -> Result<Vec<String>, String> {
        let listeners = [("web", "blue"), ("mail", "green")];
        let selected = select(target, names().iter(), &listeners).map_err(|error| error.to_string())?;
        Ok(selected.servers.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn a_target_is_a_server_a_pool_or_a_listener_or_a_pattern_of_them() {
        assert_eq!(chosen("blue/s1").unwrap(), ["blue/s1"]);
        assert_eq!(chosen("*/s1").unwrap(), ["blue/s1", "green/s1", "web/s1"]);
        assert_eq!(chosen("green").unwrap(), ["green/s1"]);
        assert_eq!(chosen("mail").unwrap(), ["green/s1"]);
        assert_eq!(chosen("web").unwrap(), ["blue/s1", "blue/s2", "web/s1"], "a pool, and a listener of the same name");
        assert_eq!(chosen("??*e*").unwrap().len(), 3);
    }

    #[test]
    fn what_is_not_there_is_told_with_what_is_like_it() {
        let refused = |target| chosen(target).unwrap_err();
        assert_eq!(refused("bleu"), "no pool, server or listener is \"bleu\"\nhint: did you mean `blue`?");
        assert_eq!(refused("blue/s3"), "no pool, server or listener is \"blue/s3\"\nhint: did you mean `blue/s1`?");
        assert!(refused("nothing/here").contains("hint: there are `blue/s1`"), "{}", refused("nothing/here"));
        assert!(refused("[").contains("hint: "));
    }
}
