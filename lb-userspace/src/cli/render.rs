//! Tables for people, from the structures that `-o json` prints.

use std::io::{self, Write};

use crate::admin::node::{Member, Plane, Service, Status};

/// So many problems are shown; more of them are of one kind, most likely.
const MOST_PROBLEMS: usize = 30;

/// Writes rows under headers, each column as wide as it has to be.
///
/// # Errors
///
/// Those of writing.
pub(super) fn table(headers: &[&str], rows: &[Vec<String>], out: &mut impl Write) -> io::Result<()> {
    let widths: Vec<usize> = headers
        .iter()
        .enumerate()
        .map(|(column, header)| {
            rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0).max(header.len())
        })
        .collect();
    let mut line = |cells: &mut dyn Iterator<Item = &str>| {
        let text: Vec<String> = cells.zip(&widths).map(|(cell, &width)| format!("{cell:<width$}")).collect();
        writeln!(out, "{}", text.join("  ").trim_end())
    };
    line(&mut headers.iter().copied())?;
    rows.iter().try_for_each(|row| line(&mut row.iter().map(String::as_str)))
}

/// Writes a status for people.
///
/// # Errors
///
/// Those of writing.
pub(super) fn status(status: &Status, out: &mut impl Write) -> io::Result<()> {
    let daemon = if status.daemon.running { format!("running (pid {})", status.daemon.pid) } else { "not running".into() };
    writeln!(out, "node {}   {}   daemon {daemon}", status.node, if status.ready { "ready" } else { "NOT READY" })?;
    writeln!(out, "memory {:.1} MiB", status.memory_bytes as f64 / f64::from(1 << 20))?;
    for problem in status.problems.iter().take(MOST_PROBLEMS) {
        writeln!(out, "! {problem}")?;
    }
    if status.problems.len() > MOST_PROBLEMS {
        writeln!(out, "! and {} more: weir status -o json has all", status.problems.len() - MOST_PROBLEMS)?;
    }
    for notice in &status.notices {
        writeln!(out, "* {notice}")?;
    }
    writeln!(out)?;
    let interfaces: Vec<Vec<String>> = status
        .interfaces
        .iter()
        .map(|one| vec![one.name.clone(), one.mode.clone(), if one.attached { "yes" } else { "no" }.into()])
        .collect();
    table(&["INTERFACE", "XDP", "ATTACHED"], &interfaces, out)?;
    if !status.vrrp.is_empty() {
        writeln!(out)?;
        super::vrrp::summary(&status.vrrp, out)?;
    }
    for one in &status.services {
        writeln!(out)?;
        service(one, out)?;
    }
    if !status.nat.planes.is_empty() {
        writeln!(out)?;
        planes(&status.nat.planes, out)?;
        writeln!(out, "{} flows of memory free", status.nat.free_chunks * 256)?;
    }
    let other: Vec<Vec<String>> = counts(&status.drops, &status.notes);
    if !other.is_empty() {
        writeln!(out)?;
        table(&["OF NO SERVICE", "PACKETS"], &other, out)?;
    }
    Ok(())
}

pub(super) fn service(service: &Service, out: &mut impl Write) -> io::Result<()> {
    let port = if service.port == 0 { "*".into() } else { service.port.to_string() };
    let vip = if service.vip.is_ipv6() { format!("[{}]", service.vip) } else { service.vip.to_string() };
    if service.leaving {
        writeln!(out, "{vip}:{port}/{}  no listener has it any more: it stays until no flow is left", service.protocol)?;
    } else {
        writeln!(out, "{}  {vip}:{port}/{}  pool {}", service.listener, service.protocol, service.pool)?;
    }
    let slots = service.slots;
    writeln!(out, "  slots {}: {} clean, {} learning, {} settled", slots.total, slots.clean, slots.learning, slots.settled)?;
    let rows: Vec<Vec<String>> = service
        .members
        .iter()
        .map(|member| {
            vec![
                format!("  {}", member.server),
                member.address.to_string(),
                if member.port == 0 { "-".into() } else { member.port.to_string() },
                member.forward.clone().into_owned(),
                state(member),
                member.weight.to_string(),
                format!("{:.1}%", 100.0 * f64::from(member.slots) / f64::from(slots.total.max(1))),
                member.flows.to_string(),
                member.packets.to_string(),
                member.bytes.to_string(),
                member.packets_per_second.map_or_else(|| "-".into(), |rate| format!("{rate:.0}")),
                member.next_hop.clone(),
            ]
        })
        .collect();
    let headers = ["  SERVER", "ADDRESS", "PORT", "FORWARD", "STATE", "WEIGHT", "SHARE", "FLOWS", "PACKETS", "BYTES", "PPS", "NEXT HOP"];
    table(&headers, &rows, out)?;
    let other = counts(&service.drops, &service.notes);
    if other.is_empty() { Ok(()) } else { table(&["  EVENT", "PACKETS"], &other, out) }
}

/// Why it takes flows or does not, where that is known and not a matter of its past.
fn state(member: &Member) -> String {
    let word = member.why.filter(|_| member.state != "retired").and_then(|why| serde_json::to_value(why).ok());
    word.and_then(|word| word.as_str().map(str::to_owned)).unwrap_or_else(|| member.state.clone().into_owned())
}

pub(super) fn counts(
    drops: &std::collections::BTreeMap<std::borrow::Cow<'static, str>, u64>,
    notes: &std::collections::BTreeMap<std::borrow::Cow<'static, str>, u64>,
) -> Vec<Vec<String>> {
    let drops = drops.iter().map(|(reason, count)| vec![format!("  dropped: {reason}"), count.to_string()]);
    drops.chain(notes.iter().map(|(note, count)| vec![format!("  {note}"), count.to_string()])).collect()
}

fn planes(planes: &[Plane], out: &mut impl Write) -> io::Result<()> {
    let rows: Vec<Vec<String>> = planes
        .iter()
        .map(|plane| {
            vec![
                plane.snat.to_string(),
                plane.server.to_string(),
                if plane.port == 0 { "*".into() } else { plane.port.to_string() },
                plane.protocol.clone().into_owned(),
                plane.flows.to_string(),
                plane.taken.to_string(),
                plane.given.to_string(),
                plane.most.to_string(),
                format!("{:.2}", plane.memory_bytes as f64 / f64::from(1 << 20)),
            ]
        })
        .collect();
    table(&["NAT FROM", "TO", "PORT", "PROTOCOL", "FLOWS", "TAKEN", "GIVEN", "MOST", "MIB"], &rows, out)
}
