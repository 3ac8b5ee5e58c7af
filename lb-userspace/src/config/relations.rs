//! What sections of a file require of each other. Called for a text without syntax errors, on everything that could be read.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use super::{
    Document,
    diagnostic::Span,
    listener::ListenerSection,
    model::{Bind, Limits, Probe, Protocol, Question, Via},
    pool::{ForwardWord, PoolSection},
    reader::suggestion,
    report::Report,
    server::{NamedSection, ServerSection},
};

/// Of so many unknown pools it is said which one may be meant.
const MOST_SUGGESTIONS: usize = 20;

pub(super) fn check(document: &Document, report: &mut Report) {
    check_duplicate_binds(document, report);
    check_sources(document, report);
    check_pools(document, report);
    super::vrrp_relations::check(document, report);
    if !exceeds_limits(document, report) {
        check_pairs(document, report);
        check_planes(document, report);
    }
}

/// The later one in the text is at fault.
fn check_duplicate_binds(document: &Document, report: &mut Report) {
    let mut binds: Vec<_> =
        document.listeners.iter().flat_map(|(name, listener)| listener.binds.iter().map(move |bind| (bind, name))).collect();
    binds.sort_by_key(|(bind, _)| bind.span().start);
    let mut known: BTreeMap<Bind, &str> = BTreeMap::new();
    for (bind, name) in binds {
        match known.get(bind.get_ref()) {
            None => _ = known.insert(*bind.get_ref(), name),
            Some(first) => {
                let by = if first == name { "this listener".to_owned() } else { format!("listener `{first}`") };
                report.error(bind.span(), format!("{} is bound by {by} already", bind.get_ref()));
            }
        }
    }
}

/// One prefix cannot be let in and refused.
fn check_sources(document: &Document, report: &mut Report) {
    for listener in document.listeners.values() {
        let allowed: BTreeSet<_> = listener.allow.iter().map(|network| *network.get_ref()).collect();
        for network in listener.deny.iter().filter(|network| allowed.contains(network.get_ref())) {
            report.error(network.span(), format!("{} is both in `allow` and in `deny`", network.get_ref()));
        }
    }
}

fn check_pools(document: &Document, report: &mut Report) {
    let vips: BTreeSet<IpAddr> = document.listeners.values().flat_map(|l| &l.binds).map(|bind| bind.get_ref().address).collect();
    let names: Vec<&str> = document.pools.keys().map(String::as_str).collect();
    let mut suggestions = MOST_SUGGESTIONS;
    for pool in document.listeners.values().filter_map(|listener| listener.pool.as_ref()) {
        if !document.pools.contains_key(pool.get_ref()) {
            let message = format!("there is no pool `{}`", pool.get_ref().escape_debug());
            // Each looks at all names.
            if suggestions == 0 {
                report.error(pool.span(), message);
                continue;
            }
            suggestions -= 1;
            report.error_hint(pool.span(), message, suggestion(pool.get_ref(), &names));
        }
    }
    for pool in document.pools.values() {
        check_servers(pool, &vips, report);
        check_names(pool, report);
        check_snat(pool, report);
    }
    let mut binds: BTreeMap<&str, Vec<Bind>> = BTreeMap::new();
    for listener in document.listeners.values() {
        if let Some(pool) = &listener.pool {
            binds.entry(pool.get_ref()).or_default().extend(listener.binds.iter().map(|bind| *bind.get_ref()));
        }
    }
    for (name, pool) in &document.pools {
        check_checks(pool, binds.get(name.as_str()).map_or(&[], Vec::as_slice), report);
    }
}

/// A check needs a port: its own, the server's, or that of a bind.
fn check_checks(pool: &PoolSection, binds: &[Bind], report: &mut Report) {
    let Ok(model) = &pool.model else { return };
    if model.check.as_ref().is_some_and(|check| matches!(check.probe, Probe::Command { .. }) && check.via == Via::Datapath) {
        report.error_hint(pool.header.clone(), "a command asks the server itself, by whatever way it takes", "leave out check.via");
    }
    let Some(check) = model.check.as_ref().filter(|check| !matches!(check.probe, Probe::Command { .. })) else { return };
    if check.via == Via::Datapath {
        check_ways(pool, binds, report);
    }
    // A pool that no listener uses, as one of blue and green, is checked once one does.
    if binds.is_empty() {
        return;
    }
    let ports: Vec<_> = binds.iter().filter_map(|bind| Some((bind.protocol, bind.port?))).collect();
    for (server, section) in &pool.servers {
        if check.port_for(&section.server, ports.iter().copied()).is_none() {
            let message = format!("nobody says by which port `{server}` is checked");
            report.error_hint(section.address.clone(), message, "give check.port, or the server a port");
        }
    }
    for (server, section) in &pool.names {
        let has_port = section.named.port.is_some() || matches!(section.named.question, Question::Service(_));
        if !has_port && check.port.is_none() && ports.is_empty() {
            let message = format!("nobody says by which port `{server}` is checked");
            report.error_hint(section.name.clone(), message, "give check.port, or the server a port");
        }
    }
}

/// A probe is an ordinary connection to the server's own address, and stays of that family on its way.
fn check_ways(pool: &PoolSection, binds: &[Bind], report: &mut Report) {
    if pool.forward == Some(ForwardWord::Nat) {
        return;
    }
    for (server, section) in &pool.servers {
        let is_v4 = section.server.address.is_ipv4();
        if !binds.is_empty() && binds.iter().all(|bind| bind.address.is_ipv4() != is_v4) {
            let message = format!(
                "`{server}` is reached by {}, and no VIP of its pool is: it cannot be checked through the data path",
                family(is_v4)
            );
            report.error_hint(section.address.clone(), message, "check.via = \"direct\", or a VIP of the servers' family");
        }
    }
}

fn check_servers(pool: &PoolSection, vips: &BTreeSet<IpAddr>, report: &mut Report) {
    let mut endpoints = BTreeMap::new();
    for (name, ServerSection { address: span, server, .. }) in &pool.servers {
        if vips.contains(&server.address) {
            let hint = "give the address that the server has for itself";
            report.error_hint(span.clone(), format!("{} is a VIP: what is sent there comes back to this node", server.address), hint);
        }
        if let Some(first) = endpoints.insert((server.address, server.port), name) {
            report.error_hint(
                span.clone(),
                format!("server `{first}` has this address and port already"),
                "a larger share is a larger `weight`",
            );
        }
    }
}

/// The same answer twice would be the same servers twice.
fn check_names(pool: &PoolSection, report: &mut Report) {
    let mut known = BTreeMap::new();
    for (name, NamedSection { name: span, named, .. }) in &pool.names {
        if let Some(first) = known.insert((&named.question, named.port), name) {
            report.error(span.clone(), format!("server `{first}` is looked up by this name already"));
        }
    }
}

/// Servers are reached from an address of their own family; without any `snat` the node's own will do.
fn check_snat(pool: &PoolSection, report: &mut Report) {
    let Some(first) = pool.snat.first() else { return };
    let servers: BTreeSet<IpAddr> = pool.servers.values().map(|section| section.server.address).collect();
    for address in &pool.snat {
        if servers.contains(address.get_ref()) {
            report.error(address.span(), format!("{} is a server of this pool", address.get_ref()));
        }
    }
    for is_v4 in [true, false] {
        let lacks = !pool.snat.iter().any(|address| address.get_ref().is_ipv4() == is_v4);
        if lacks && let Some((name, _)) = pool.servers.iter().find(|(_, section)| section.server.address.is_ipv4() == is_v4) {
            let family = family(is_v4);
            report.error(first.span(), format!("`snat` has no {family} address, and server `{name}` is reached by {family}"));
        }
    }
}

/// Whether there are more services or members than the tables have room for: then what follows would take long, and help little.
fn exceeds_limits(document: &Document, report: &mut Report) -> bool {
    let limits = document.limits.model.unwrap_or_default();
    let limits_are_known = document.limits.model.is_ok();
    let last = document.listeners.values().map(|listener| &listener.header).max_by_key(|header| header.start).cloned().unwrap_or(0..0);
    let services: usize = document.listeners.values().map(|listener| listener.binds.len()).sum();
    let members = member_count(document);
    let mut exceeds = |what, count: usize, limit: u32, span: &Option<Span>| {
        let is_more = count > limit as usize;
        if is_more && limits_are_known {
            let message = format!("{count} {what} are configured, and limits.{what} is {limit}");
            report.error_hint(span.clone().unwrap_or(last.clone()), message, format!("raise it in [limits] to {count} or more"));
        }
        is_more
    };
    let too_many_services = exceeds("services", services, limits.services, &document.limits.services);
    let too_many_members = exceeds("members", members, limits.members, &document.limits.members);
    too_many_services || too_many_members
}

fn check_pairs(document: &Document, report: &mut Report) {
    for (name, listener) in &document.listeners {
        let Some(pool) = pool_of(document, listener) else { continue };
        check_slots(listener, pool, report);
        match pool.forward {
            Some(ForwardWord::Nat) => check_families(name, listener, pool, "nat", report),
            Some(ForwardWord::Dsr) => {
                check_families(name, listener, pool, "dsr", report);
                check_ports(name, listener, pool, "dsr", report);
            }
            Some(ForwardWord::Ipip) => check_ports(name, listener, pool, "ipip", report),
            Some(ForwardWord::Gue) => check_ports(name, listener, pool, "gue", report),
            None => {}
        }
    }
}

fn check_slots(listener: &ListenerSection, pool: &PoolSection, report: &mut Report) {
    let Some(slots) = &listener.slots else { return };
    let weighted = pool.servers.values().filter(|section| section.server.weight > 0).count();
    if weighted > *slots.get_ref() as usize {
        let message = format!("{} slots are fewer than the {weighted} servers that share them", slots.get_ref());
        report.error_hint(slots.span(), message, "100 slots a server keep shares within a percent of their weights");
    }
}

fn check_families(name: &str, listener: &ListenerSection, pool: &PoolSection, mode: &str, report: &mut Report) {
    for section in pool.servers.values() {
        let is_v4 = section.server.address.is_ipv4();
        let Some(bind) = listener.binds.iter().find(|bind| bind.get_ref().address.is_ipv4() != is_v4) else { continue };
        let message = format!(
            "server {} is {}, and listener `{name}` binds {}: {mode} keeps the address family",
            section.server.address,
            family(is_v4),
            bind.get_ref().address
        );
        report.error_hint(section.address.clone(), message, "make a listener and a pool for each family, or forward by ipip or gue");
    }
}

fn check_ports(name: &str, listener: &ListenerSection, pool: &PoolSection, mode: &str, report: &mut Report) {
    let addressed = pool.servers.values().map(|section| (section.server.port, &section.port));
    let ports = addressed.chain(pool.names.values().map(|section| (section.named.port, &section.port)));
    for (port, span) in ports {
        let (Some(port), Some(span)) = (port, span) else { continue };
        let Some(bind) = listener.binds.iter().find(|bind| bind.get_ref().port != Some(port)) else { continue };
        let message = format!("port {port} differs from {} of listener `{name}`: {mode} does not rewrite ports", bind.get_ref());
        report.error_hint(span.clone(), message, "leave the server's port out, or forward by nat");
    }
}

/// A plane is a SNAT address (or the node's own), a server endpoint and a protocol.
type Plane = (Option<IpAddr>, IpAddr, Option<u16>, Protocol);

fn check_planes(document: &Document, report: &mut Report) {
    let Ok(Limits { nat_planes, .. }) = document.limits.model else { return };
    let mut planes: BTreeSet<Plane> = BTreeSet::new();
    for listener in document.listeners.values() {
        for plane in planes_for(document, listener) {
            planes.insert(plane);
            if planes.len() > nat_planes as usize {
                let span = document.limits.nat_planes.clone().unwrap_or(listener.header.clone());
                let message =
                    format!("limits.nat_planes is {nat_planes}, and more pairs of SNAT address and server endpoint are configured");
                report.error_hint(span, message, "raise `nat_planes` in [limits]");
                return;
            }
        }
    }
}

/// How many NAT planes the configuration asks for.
pub(super) fn plane_count(document: &Document) -> usize {
    document.listeners.values().flat_map(|listener| planes_for(document, listener)).collect::<BTreeSet<Plane>>().len()
}

/// How many members the configuration asks for: the servers of each bind.
pub(super) fn member_count(document: &Document) -> usize {
    let servers = |listener: &ListenerSection| pool_of(document, listener).map_or(0, |pool| pool.servers.len());
    document.listeners.values().map(|listener| listener.binds.len() * servers(listener)).sum()
}

fn planes_for<'d>(document: &'d Document, listener: &'d ListenerSection) -> impl Iterator<Item = Plane> + 'd {
    let pool = pool_of(document, listener).filter(|pool| pool.forward == Some(ForwardWord::Nat));
    pool.into_iter().flat_map(|pool| listener.binds.iter().flat_map(|bind| planes_of(bind.get_ref(), pool)))
}

fn planes_of(bind: &Bind, pool: &PoolSection) -> impl Iterator<Item = Plane> {
    pool.servers.values().map(|section| section.server).flat_map(move |server| {
        let fitting = pool.snat.iter().map(|snat| *snat.get_ref()).filter(move |snat| snat.is_ipv4() == server.address.is_ipv4());
        let own = pool.snat.is_empty().then_some(None);
        fitting.map(Some).chain(own).map(move |snat| (snat, server.address, server.port.or(bind.port), bind.protocol))
    })
}

fn pool_of<'d>(document: &'d Document, listener: &ListenerSection) -> Option<&'d PoolSection> {
    document.pools.get(listener.pool.as_ref()?.get_ref())
}

const fn family(is_v4: bool) -> &'static str {
    if is_v4 { "IPv4" } else { "IPv6" }
}
