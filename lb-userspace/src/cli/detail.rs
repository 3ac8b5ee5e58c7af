//! `weir status POOL`, `POOL/SERVER`, `LISTENER`: a part of a node with everything that is known of it.

use std::{
    borrow::Cow,
    collections::BTreeSet,
    io::{self, Write},
    net::{IpAddr, SocketAddr},
    path::Path,
    time::Duration,
};

use serde::Serialize;

use super::{
    apply::time,
    operate::asked,
    render::{self, table},
};
use crate::{
    admin::api::{ProbeView, Request, ServerDetail},
    config,
    control::{
        course::Transition,
        standing::{ServerName, Why},
    },
    health::book::Entry,
    runtime::{
        report::Report,
        status::{Member, RESOLVED, Service, Status},
    },
};

/// What `-o json` prints.
#[derive(Serialize, Debug)]
pub(super) struct Part {
    /// The node's name.
    node: String,
    /// Whether a daemon runs.
    running: bool,
    /// Why more is not known of servers, though one runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    not_told: Option<String>,
    /// The services that are meant, or that the servers belong to.
    services: Vec<Service>,
    /// The servers.
    servers: Vec<ServerPart>,
    /// Whether services were asked for, and not single servers.
    #[serde(skip)]
    is_of_services: bool,
}

/// A server.
#[derive(Serialize, Debug)]
struct ServerPart {
    server: ServerName,
    /// Why it takes new flows, or does not.
    why: Option<Why>,
    /// Milliseconds of the Unix epoch since when it is so.
    since_ms: Option<u64>,
    /// Whether it is up, and since when, by its checks.
    check: Option<Entry>,
    /// The last changes of what it is, the oldest first.
    transitions: Vec<Transition>,
    /// What only a daemon that runs can tell.
    detail: Option<ServerDetail>,
    /// What it is to each of its services.
    members: Vec<Placement>,
}

/// A server in one of its services.
#[derive(Serialize, Debug)]
struct Placement {
    listener: String,
    vip: IpAddr,
    service_port: u16,
    protocol: Cow<'static, str>,
    /// All slots of the service.
    slots_total: u32,
    #[serde(flatten)]
    member: Member,
}

/// Nothing is called so.
#[derive(Debug, thiserror::Error)]
#[error("no pool, server or listener is {target:?}\nhint: {hint}")]
pub(super) struct NoTarget {
    target: String,
    hint: String,
}

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
) -> Result<Selected, NoTarget> {
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
        NoTarget { target: target.to_owned(), hint: config::alike(target, &known) }
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

/// The part of `status` that `target` names, with what the daemon that `config` describes tells of its servers.
///
/// # Errors
/// [`NoTarget`] if nothing is called so.
pub(super) fn part(config: &Path, target: &str, status: Status, report: &Report) -> Result<Part, NoTarget> {
    let listeners: Vec<(&str, &str)> = report.services.iter().map(|service| (service.listener.as_str(), service.pool.as_str())).collect();
    let selected = select(target, report.standings.keys(), &listeners)?;
    let (mut details, mut not_told) = (Vec::new(), None);
    if status.daemon.running {
        match asked::<Vec<ServerDetail>>(config, &Request::Details) {
            Ok(told) => details = told,
            Err(error) => not_told = Some(error.to_string().replace("\nhint: ", "; ")),
        }
    }
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
    let is_of_services = !selected.pools.is_empty() || !selected.listeners.is_empty();
    services.retain(|service| {
        selected.pools.contains(&service.pool)
            || selected.listeners.contains(&service.listener)
            || selected.servers.iter().any(|name| !is_of_services && name.pool == service.pool)
    });
    Ok(Part { node: status.node, running: status.daemon.running, not_told, services, servers, is_of_services })
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

impl Part {
    /// Whether nobody has to look after it: its servers pass their checks and can be reached, and a daemon runs.
    pub(super) fn is_healthy(&self) -> bool {
        let is_well = |server: &ServerPart| {
            server.why != Some(Why::Unhealthy) && server.members.iter().all(|one| one.member.slots == 0 || one.member.next_hop == RESOLVED)
        };
        self.running && self.servers.iter().all(is_well)
    }
}

/// Writes it for people. `now_ms` is the time in milliseconds of the Unix epoch.
pub(super) fn show(part: &Part, now_ms: u64, out: &mut impl Write) -> io::Result<()> {
    writeln!(
        out,
        "node {}   daemon {}",
        part.node,
        if part.running { "running" } else { "not running: checks and weights are not known" }
    )?;
    if let Some(why) = &part.not_told {
        writeln!(out, "! the daemon does not tell more: {why}")?;
    }
    if part.is_of_services {
        for service in &part.services {
            writeln!(out)?;
            render::service(service, out)?;
        }
    }
    for server in &part.servers {
        writeln!(out)?;
        show_server(server, now_ms, out)?;
    }
    if !part.is_of_services {
        for service in part.services.iter().filter(|service| !service.drops.is_empty() || !service.notes.is_empty()) {
            writeln!(out)?;
            writeln!(out, "of all packets of {}, {} port {} {}", service.listener, service.vip, service.port, service.protocol)?;
            table(&["  EVENT", "PACKETS"], &render::counts(&service.drops, &service.notes), out)?;
        }
    }
    Ok(())
}

fn show_server(server: &ServerPart, now_ms: u64, out: &mut impl Write) -> io::Result<()> {
    let detail = server.detail.as_ref();
    let address = detail.map(|detail| match detail.view.port {
        Some(port) => format!("  {}", SocketAddr::new(detail.view.address, port)),
        None => format!("  {}", detail.view.address),
    });
    writeln!(out, "{}{}", server.server, address.unwrap_or_default())?;
    let why = server.why.map_or("not known", Why::word);
    let last = server.transitions.last();
    let since = last.map(|last| format!(", since {} ({})", time(last.at_ms), ago(now_ms, last.at_ms)));
    let cause = last.and_then(|last| last.cause.as_ref()).map(|cause| format!(": {cause}"));
    writeln!(out, "  state    {why}{}{}", since.unwrap_or_default(), cause.unwrap_or_default())?;
    if let Some(detail) = detail {
        writeln!(out, "  weight   {}", weight(detail))?;
        if detail.view.backup {
            writeln!(out, "  backup   used only while no primary server is up")?;
        }
        writeln!(out, "  flows    {}", detail.view.flows)?;
        match &detail.probe {
            Some(probe) => show_probe(probe, now_ms, out)?,
            None if detail.view.check.is_some() => writeln!(out, "  check    not told in time")?,
            None => writeln!(out, "  check    none")?,
        }
    }
    for (index, change) in server.transitions.iter().enumerate().rev() {
        let was = change.was.map_or_else(String::new, |was| format!("{} → ", was.word()));
        let cause = change.cause.as_ref().map(|cause| format!(": {cause}")).unwrap_or_default();
        let label = if index + 1 == server.transitions.len() { "history" } else { "" };
        writeln!(out, "  {label:7}  {}  {was}{}{cause}", time(change.at_ms), change.is.word())?;
    }
    if server.members.is_empty() {
        return writeln!(out, "  no listener uses its pool");
    }
    let rows: Vec<Vec<String>> = server.members.iter().map(row).collect();
    table(&["  LISTENER", "SERVICE", "STATE", "WEIGHT", "SLOTS", "SHARE", "FLOWS", "PACKETS", "BYTES", "PPS", "NEXT HOP"], &rows, out)
}

fn row(one: &Placement) -> Vec<String> {
    let member = &one.member;
    let vip = if one.vip.is_ipv6() { format!("[{}]", one.vip) } else { one.vip.to_string() };
    let port = if one.service_port == 0 { "*".into() } else { one.service_port.to_string() };
    vec![
        format!("  {}", one.listener),
        format!("{vip}:{port}/{}", one.protocol),
        member.state.clone().into_owned(),
        member.weight.to_string(),
        format!("{} of {}", member.slots, one.slots_total),
        format!("{:.1}%", 100.0 * f64::from(member.slots) / f64::from(one.slots_total.max(1))),
        member.flows.to_string(),
        member.packets.to_string(),
        member.bytes.to_string(),
        member.packets_per_second.map_or_else(|| "-".into(), |rate| format!("{rate:.0}")),
        member.next_hop.clone(),
    ]
}

fn weight(detail: &ServerDetail) -> String {
    let view = &detail.view;
    let configured = view.configured_weight.map_or_else(|| "not in the configuration".to_owned(), |weight| format!("configured {weight}"));
    let said = view.said.and_then(|said| said.weight).map(|weight| format!(", the operator says {weight}"));
    let state = view.said.and_then(|said| said.state).map(|state| format!(", the operator says {}", format!("{state:?}").to_lowercase()));
    let added = if view.added { ", added by the operator" } else { "" };
    let of_file = detail.configured_state.as_deref().filter(|state| *state != "ready").map(|state| format!(", configured as {state}"));
    format!(
        "{} effective, {configured}{}{}{}{added}",
        view.weight,
        said.unwrap_or_default(),
        state.unwrap_or_default(),
        of_file.unwrap_or_default()
    )
}

fn show_probe(probe: &ProbeView, now_ms: u64, out: &mut impl Write) -> io::Result<()> {
    let ms = |ms: u64| humantime::format_duration(Duration::from_millis(ms));
    writeln!(
        out,
        "  check    {} to {} each {}, timeout {}; down within {} by {} bad results in a row, up by {} good ones",
        probe.kind,
        probe.target,
        ms(probe.interval_ms),
        ms(probe.timeout_ms),
        ms(probe.detection_ms),
        probe.fall,
        probe.rise
    )?;
    let last = match (probe.last_good, probe.last_at_ms) {
        (Some(good), Some(at)) => {
            let took = probe.last_took_ms.map(|took| format!(", took {took:.1} ms")).unwrap_or_default();
            format!("last {} {}{took}", if good { "good" } else { "bad" }, ago(now_ms, at))
        }
        (Some(_), None) | (None, Some(_) | None) => "not checked yet".to_owned(),
    };
    let failure = probe.last_failure.as_ref().map(|failure| format!(": {failure}")).unwrap_or_default();
    let next = match probe.next_at_ms {
        Some(at) => format!("next in {:.1} s", at.saturating_sub(now_ms) as f64 / 1000.0),
        None => "one is under way".to_owned(),
    };
    let unsure =
        if probe.contradicting > 0 { format!("; unsure, {} in a row against its state", probe.contradicting) } else { String::new() };
    writeln!(out, "           {last}{failure}; {next}; {} good, {} bad, {} not made{unsure}", probe.passed, probe.failed, probe.not_made)
}

/// How long ago, in words.
fn ago(now_ms: u64, at_ms: u64) -> String {
    let ms = now_ms.saturating_sub(at_ms);
    if ms < 10_000 {
        return format!("{:.1} s ago", ms as f64 / 1000.0);
    }
    format!("{} ago", humantime::format_duration(Duration::from_secs(ms / 1000)))
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

    #[test]
    fn times_are_told_as_people_do() {
        assert_eq!(ago(5000, 3500), "1.5 s ago");
        assert_eq!(ago(90_000_500, 500), "1day 1h ago");
        assert_eq!(ago(5, 9), "0.0 s ago");
    }
}
