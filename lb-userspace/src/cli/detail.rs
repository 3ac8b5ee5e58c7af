//! `weir status POOL`, `POOL/SERVER`, `LISTENER`: a part of a node with everything that is known of it.

use std::{
    io::{self, Write},
    net::SocketAddr,
    time::Duration,
};

use super::{
    apply::time,
    render::{self, table},
};
use crate::{
    admin::{
        api::{ProbeView, ServerDetail},
        node::{Part, Placement, ServerPart},
    },
    control::standing::Why,
};

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
    if part.of_services {
        for service in &part.services {
            writeln!(out)?;
            render::service(service, out)?;
        }
    }
    for server in &part.servers {
        writeln!(out)?;
        show_server(server, now_ms, out)?;
    }
    if !part.of_services {
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
            None if detail.unchecked.is_some() => {
                writeln!(out, "  check    not made: {}", detail.unchecked.as_deref().unwrap_or_default())?;
            }
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
    use super::ago;

    #[test]
    fn times_are_told_as_people_do() {
        assert_eq!(ago(5000, 3500), "1.5 s ago");
        assert_eq!(ago(90_000_500, 500), "1day 1h ago");
        assert_eq!(ago(5, 9), "0.0 s ago");
    }
}
