//! A node as it is: what the data plane does, from its maps, and what the daemon says of itself, from its record. Works without a daemon.

use std::{collections::BTreeMap, net::IpAddr};

use lb_common::words::{MemberId, MemberWord, ServiceId, SlotState, SlotWord};

use super::problems::{Process, problems};
use crate::{
    admin::node::{DETACHED, Daemon, Interface, Member, Nat, Plane, RESOLVED, Service, Slots, Status},
    control::standing::{ServerName, Why},
    dataplane::{self, LinkState, PinDir, Tables},
    runtime::{
        readback,
        report::{Report, ServiceName, Trouble},
        report_io,
    },
    speaker::order::RouterView,
};

/// Bytes to a translated flow: its record, its port word, and its part of the directory.
const NAT_FLOW_BYTES: u64 = 64 + 8 + 16;

/// Reads the maps, and what the daemon says of itself. `daemon` is its process, `now_ms` the time in milliseconds of the Unix epoch.
///
/// # Errors
/// What the kernel refuses.
pub(super) fn gather(tables: &Tables, pins: &PinDir, report: &Report, daemon: Option<u32>, now_ms: u64) -> anyhow::Result<Status> {
    let running = daemon.is_some();
    let now = dataplane::moment(pins)?.tick;
    let flows = tables.flows_by_member(now)?;
    let nat_flows = readback::nat_flows(tables, now)?;
    let installed = tables.services()?;
    let names = names(&installed, report);
    let mut members: BTreeMap<ServiceId, Vec<Member>> = BTreeMap::new();
    for record in tables.members()? {
        let id = ServiceId(record.info.service);
        let name = names.get(&id).copied();
        let traffic = tables.traffic(record.id)?;
        let member = Member {
            id: record.id.number(),
            server: name.map_or_else(String::new, |name| server_name(name, record.info.address.ip(), record.info.port)),
            address: record.info.address.ip(),
            port: record.info.port,
            forward: forward_word(record.info.forward).into(),
            weight: record.info.weight,
            state: state_word(record.word, record.info.retired_at).into(),
            why: name.and_then(|name| why(report, name, record.info.address.ip(), record.info.port)),
            next_hop: next_hop_word(report, record.word, record.info.address.ip()),
            slots: 0,
            packets: traffic.packets,
            bytes: traffic.bytes,
            packets_per_second: running.then(|| rate(report, record.id, traffic.packets, now_ms)).flatten(),
            flows: flows.get(&record.id).copied().unwrap_or(0) + nat_flows.connected.get(&record.id).copied().unwrap_or(0),
        };
        members.entry(id).or_default().push(member);
    }
    let mut services = Vec::new();
    for (id, record) in installed {
        let name = names.get(&id).copied();
        let words = tables.slots(id).unwrap_or_default();
        let mut of_service = members.remove(&id).unwrap_or_default();
        let named = slots_by_member(&words);
        for member in &mut of_service {
            member.slots = named.get(&member.id).copied().unwrap_or(0);
        }
        services.push(Service {
            id: id.0,
            leaving: name.is_none() && !report.services.is_empty(),
            listener: name.map_or_else(String::new, |name| name.listener.clone()),
            pool: name.map_or_else(String::new, |name| name.pool.clone()),
            vip: record.vip.ip(),
            port: record.port,
            protocol: protocol_word(record.protocol).into(),
            slots: count_slots(&words),
            members: of_service,
            drops: tables.drops(id)?.into_iter().map(|(reason, count)| (reason.word().into(), count)).collect(),
            notes: tables.notes(id)?.into_iter().map(|(note, count)| (note.word().into(), count)).collect(),
        });
    }
    let elsewhere = report_io::is_elsewhere(report);
    let links = if elsewhere { dataplane::attached_elsewhere(pins)? } else { dataplane::attached(pins)? };
    let interfaces = interfaces(report, links);
    let usage = tables.nat_usage()?;
    let nat = Nat {
        free_chunks: usage.free_chunks,
        planes: usage
            .planes
            .iter()
            .map(|plane| Plane {
                snat: plane.snat.ip(),
                server: plane.server.ip(),
                port: plane.server_port,
                protocol: protocol_word(plane.protocol).into(),
                flows: nat_flows.connected_by_plane.get(&plane.index).copied().unwrap_or(0),
                taken: nat_flows.by_plane.get(&plane.index).copied().unwrap_or(0),
                given: plane.chunks_used * 256,
                most: u64::from(plane.chunks) * 256,
                memory_bytes: plane.chunks_used * 256 * NAT_FLOW_BYTES,
            })
            .collect(),
    };
    let process = match (running, report_io::is_running(report)) {
        (true, true) => Process::Runs,
        (true, false) => Process::RunsUnrecorded,
        (false, _) => Process::Gone,
    };
    let mut problems = problems(report, &interfaces, &services, &nat, process);
    problems.extend((process == Process::Runs).then(|| silence(report, now_ms)).flatten());
    problems.extend(elsewhere.then(|| in_another_namespace(report, running)));
    let is_there = |name: &ServiceName| {
        services.iter().any(|one| one.vip == name.vip && one.port == name.port && one.protocol == protocol_word(name.protocol))
    };
    let all_attached = !interfaces.is_empty() && interfaces.iter().all(|interface| interface.attached);
    Ok(Status {
        node: report.node.clone(),
        ready: all_attached
            && can_forward(report, &services, running)
            && report.started_at != 0
            && report.apply_error.is_none()
            && report.services.iter().all(is_there),
        daemon: Daemon {
            running,
            pid: daemon.unwrap_or(0),
            recorded: report_io::is_running(report),
            version: report.version.clone(),
            started_at: report.started_at,
            origin: report.origin.clone(),
            config_taken_at: report.config_taken_at,
            config_errors: report.config_errors.clone(),
            config_warnings: report.config_warnings.clone(),
        },
        elsewhere,
        interfaces,
        checks: report.health.clone(),
        memory_bytes: tables.memory_bytes()?,
        services,
        drops: tables.drops(ServiceId::NONE)?.into_iter().map(|(reason, count)| (reason.word().into(), count)).collect(),
        notes: tables.notes(ServiceId::NONE)?.into_iter().map(|(note, count)| (note.word().into(), count)).collect(),
        nat,
        problems,
        vrrp: report.vrrp.clone(),
        notices: report
            .config_notes
            .iter()
            .cloned()
            .chain(report.overrides.iter().map(|line| format!("by the operator: {line}")))
            .chain(holds(&report.vrrp))
            .collect(),
    })
}

/// What somebody may have forgotten to take back.
fn holds(routers: &[RouterView]) -> impl Iterator<Item = String> {
    let on_hold = routers.iter().filter(|router| router.is_on_hold);
    on_hold.map(|RouterView { router, .. }| {
        format!("virtual router {router} is on hold, as somebody had it yield: weir vrrp ready {router} ends that")
    })
}

/// Those with a link, and those of the configuration in force that have none.
fn interfaces(report: &Report, links: Vec<(String, LinkState)>) -> Vec<Interface> {
    let configured = report.interfaces.keys().chain(report.troubled_interfaces.keys());
    let mut states: BTreeMap<String, LinkState> = configured.map(|name| (name.clone(), LinkState::Missing)).collect();
    states.extend(links);
    let interface = |(name, state): (String, LinkState)| Interface {
        mode: match state {
            LinkState::Missing => DETACHED.into(),
            LinkState::Attached | LinkState::Gone => report.interfaces.get(&name).cloned().unwrap_or_else(|| "unknown".into()),
        },
        attached: state == LinkState::Attached,
        name,
    };
    states.into_iter().map(interface).collect()
}

/// Of a daemon that runs: links change, and nobody else tells.
pub(super) fn troubles(report: &Report, running: bool) -> BTreeMap<String, Trouble> {
    if running { report.troubled_interfaces.clone() } else { BTreeMap::new() }
}

/// Whether packets can come, and go to a server of at least one service.
fn can_forward(report: &Report, services: &[Service], running: bool) -> bool {
    let troubles = troubles(report, running);
    let has_carrier = troubles.is_empty() || report.interfaces.keys().any(|name| !troubles.contains_key(name));
    let all_there = troubles.values().all(|trouble| *trouble == Trouble::NoCarrier);
    has_carrier && all_there && (services.is_empty() || services.iter().any(|service| !service.is_unreachable()))
}

/// A daemon that runs writes its record each few seconds.
const SILENT_MS: u64 = 30_000;

fn silence(report: &Report, now_ms: u64) -> Option<String> {
    let silent_s = now_ms.checked_sub(report.read_at_ms).filter(|silent| *silent > SILENT_MS)? / 1000;
    Some(format!(
        "the daemon wrote its record {silent_s} s ago, and what is told here of checks, errors and commands is as old: is node.state_dir full, or does \
         process {} hang?",
        report.pid
    ))
}

fn in_another_namespace(report: &Report, running: bool) -> String {
    let cure = if running { format!(": nsenter --net=/proc/{}/ns/net weir status tells", report.pid) } else { String::new() };
    format!("the interfaces are in another network namespace than this command, which does not see whether they have been renamed{cure}")
}

/// The names of the installed services.
pub(super) fn names<'r>(installed: &[(ServiceId, lb_common::maps::Service)], report: &'r Report) -> BTreeMap<ServiceId, &'r ServiceName> {
    let known: BTreeMap<(IpAddr, u16, u8), &ServiceName> =
        report.services.iter().map(|name| ((name.vip, name.port, name.protocol), name)).collect();
    let named = installed.iter().map(|(id, record)| (*id, known.get(&(record.vip.ip(), record.port, record.protocol))));
    named.filter_map(|(id, name)| Some((id, *name?))).collect()
}

fn why(report: &Report, name: &ServiceName, address: IpAddr, port: u16) -> Option<Why> {
    report.standings.get(&ServerName::new(&name.pool, server_name(name, address, port))).copied()
}

fn server_name(name: &ServiceName, address: IpAddr, port: u16) -> String {
    name.servers.iter().find(|(_, ip, known)| *ip == address && *known == port).map_or_else(String::new, |(name, ..)| name.clone())
}

fn rate(report: &Report, id: MemberId, packets: u64, now_ms: u64) -> Option<f64> {
    let (earlier, _) = report.packets.get(&id.number())?;
    let elapsed_ms = now_ms.checked_sub(report.read_at_ms).filter(|elapsed| *elapsed >= 20)?;
    Some(packets.saturating_sub(*earlier) as f64 * 1000.0 / elapsed_ms as f64)
}

/// Slots by the number of the member that new flows of theirs go to.
fn slots_by_member(words: &[SlotWord]) -> BTreeMap<u16, u32> {
    let mut named = BTreeMap::new();
    for member in words.iter().filter_map(|word| word.current()) {
        *named.entry(member.number()).or_insert(0) += 1;
    }
    named
}

fn count_slots(words: &[SlotWord]) -> Slots {
    let mut slots = Slots { total: words.len() as u32, ..Slots::default() };
    for word in words {
        match word.state() {
            SlotState::Clean => slots.clean += 1,
            SlotState::Learning { .. } => slots.learning += 1,
            SlotState::Settled => slots.settled += 1,
        }
    }
    slots
}

pub(super) fn state_word(word: MemberWord, retired_at: u64) -> &'static str {
    match () {
        () if retired_at != 0 => "retired",
        () if word.is(MemberWord::CLOSING) => "closing",
        () if word.is(MemberWord::DOWN) => "down",
        () if word.is(MemberWord::NO_NEW) => "drain",
        () => "ready",
    }
}

fn next_hop_word(report: &Report, word: MemberWord, address: IpAddr) -> String {
    if word.header() != 0 {
        return report.unanswered.get(&address).cloned().unwrap_or_else(|| RESOLVED.into());
    }
    report.unresolved.get(&address).cloned().unwrap_or_else(|| "unresolved".into())
}

pub(super) fn forward_word(kind: u8) -> &'static str {
    use lb_common::maps::ForwardKind;
    match ForwardKind::from_number(kind) {
        Some(ForwardKind::Nat) => "nat",
        Some(ForwardKind::Dsr) => "dsr",
        Some(ForwardKind::Ipip4 | ForwardKind::Ipip6) => "ipip",
        Some(ForwardKind::Gue4 | ForwardKind::Gue6) => "gue",
        None => "none",
    }
}

pub(super) fn protocol_word(protocol: u8) -> &'static str {
    if protocol == 6 { "tcp" } else { "udp" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hold_is_told_with_the_command_that_ends_it() {
        let router = |name: &str, is_on_hold| RouterView { router: name.into(), is_on_hold, ..RouterView::default() };
        let told: Vec<String> = holds(&[router("www", true), router("dns", false)]).collect();
        assert_eq!(told, ["virtual router www is on hold, as somebody had it yield: weir vrrp ready www ends that"]);
    }
}
