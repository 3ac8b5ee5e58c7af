//! `weir flows`: who is connected where.

use std::{
    collections::BTreeMap,
    io::{self, Write},
    net::{IpAddr, SocketAddr},
    path::Path,
};

use clap::Args;
use lb_common::{
    maps::NatFlow,
    nat::{PortState, PortWord},
    words::{MemberId, ServiceId},
};
use serde::Serialize;

use super::{Exit, Format, operate::json, place_io::Place, render::table, tell};
use crate::{
    config,
    dataplane::{self, Access, Tables},
    runtime::{
        readback,
        report::{Report, ServiceName},
        status::names,
    },
};

/// `weir flows`.
#[derive(Args, Debug)]
pub struct FlowsArgs {
    /// Only those of servers that this fits: POOL/SERVER; `*` and `?` stand for any letters.
    #[arg(value_name = "POOL/SERVER", value_parser = glob::Pattern::new)]
    servers: Option<glob::Pattern>,
    /// Only those of this client.
    #[arg(long, value_name = "IP")]
    client: Option<IpAddr>,
    /// So many at most.
    #[arg(long, short = 'n', default_value_t = 100)]
    limit: usize,
}

/// What `-o json` prints.
#[derive(Serialize, Debug)]
struct Flows {
    /// Translated flows, as many as were asked for.
    translated: Vec<Flow>,
    /// How many there are.
    translated_total: usize,
    /// Flows of other modes by server: of these the tables know no more than a fingerprint.
    remembered: BTreeMap<String, u64>,
}

#[derive(Serialize, Debug)]
struct Flow {
    protocol: &'static str,
    client: SocketAddr,
    vip: SocketAddr,
    /// `POOL/SERVER`; empty if nobody calls it so any more.
    server: String,
    /// Where packets are sent.
    to: SocketAddr,
    /// What the server sees.
    from: SocketAddr,
    state: &'static str,
    idle_s: u32,
}

/// Performs `weir flows`. Works without a daemon.
///
/// # Errors
/// Those of writing.
pub fn flows(config: &Path, arguments: &FlowsArgs, format: Format, out: &mut impl Write, err: &mut impl Write) -> io::Result<Exit> {
    let place = match Place::of(config) {
        Ok(place) => place,
        Err(error) => return tell(err, &error, Exit::Usage),
    };
    let tables = match Tables::open(&place.pins, Access::ReadOnly) {
        Ok(tables) => tables,
        Err(error) => return tell(err, &error, Exit::Refused),
    };
    let report = place.report.unwrap_or_default();
    if let Some(pattern) = &arguments.servers
        && let Err(hint) = fits_any(pattern, &report)
    {
        writeln!(err, "error: no server is {:?}\nhint: {hint}", pattern.as_str())?;
        return Ok(Exit::Refused);
    }
    let flows = match gather(&tables, &place.pins, &report, arguments) {
        Ok(flows) => flows,
        Err(error) => {
            writeln!(err, "error: {error:#}")?;
            return Ok(Exit::Refused);
        }
    };
    match format {
        Format::Json => json(&flows, out)?,
        Format::Text => show(&flows, out)?,
    }
    Ok(Exit::Fine)
}

/// Whether it fits a server that is known by name; or what is known.
fn fits_any(pattern: &glob::Pattern, report: &Report) -> Result<(), String> {
    let servers = |service: &ServiceName| service.servers.iter().map(|(name, ..)| format!("{}/{name}", service.pool)).collect::<Vec<_>>();
    let known: Vec<String> = report.services.iter().flat_map(servers).collect();
    if known.iter().any(|name| pattern.matches(name)) {
        return Ok(());
    }
    Err(config::alike(pattern.as_str(), &known.iter().map(String::as_str).collect::<Vec<_>>()))
}

fn gather(tables: &Tables, pins: &dataplane::PinDir, report: &Report, arguments: &FlowsArgs) -> anyhow::Result<Flows> {
    let now = dataplane::moment(pins)?.tick;
    let installed = tables.services()?;
    let names = names(&installed, report);
    let vips: BTreeMap<u16, _> = installed.iter().map(|(id, record)| (id.0, (record.vip.ip(), record.protocol))).collect();
    let name_of = |service: u16, address: IpAddr, port: u16| {
        let name = names.get(&ServiceId(service))?;
        let (server, ..) = name.servers.iter().find(|(_, ip, own)| *ip == address && (*own == port || *own == 0))?;
        Some(format!("{}/{server}", name.pool))
    };
    let fits = |server: &str| arguments.servers.as_ref().is_none_or(|pattern| pattern.matches(server));
    let mut flows = Flows { translated: Vec::new(), translated_total: 0, remembered: BTreeMap::new() };
    readback::each_nat_flow(tables, now, |word, flow| {
        let client = flow.client.ip();
        if arguments.client.is_some_and(|wanted| wanted != client) {
            return;
        }
        let server = name_of(flow.service, flow.server.ip(), u16::from_be(flow.server_port)).unwrap_or_default();
        if !fits(&server) {
            return;
        }
        flows.translated_total += 1;
        if flows.translated.len() < arguments.limit
            && let Some(&(vip, protocol)) = vips.get(&flow.service)
            && let Ok(plane) = tables.nat_planes.record(u32::from(flow.plane))
        {
            let from = SocketAddr::new(plane.snat.ip(), u16::from_be(flow.snat_port));
            flows.translated.push(translated(word, flow, server, vip, protocol, from, word.idle(now)));
        }
    })?;
    if arguments.client.is_none() {
        let members: BTreeMap<MemberId, _> = tables.members()?.into_iter().map(|member| (member.id, member.info)).collect();
        for (member, count) in tables.flows_by_member(now)? {
            let info = members.get(&member);
            let server = info.and_then(|info| name_of(info.service, info.address.ip(), info.port)).unwrap_or_default();
            if fits(&server) {
                *flows.remembered.entry(server).or_default() += u64::from(count);
            }
        }
    }
    Ok(flows)
}

fn translated(word: PortWord, flow: &NatFlow, server: String, vip: IpAddr, protocol: u8, from: SocketAddr, idle_s: u32) -> Flow {
    Flow {
        protocol: if protocol == 6 { "tcp" } else { "udp" },
        client: SocketAddr::new(flow.client.ip(), u16::from_be(flow.client_port)),
        vip: SocketAddr::new(vip, u16::from_be(flow.vip_port)),
        server,
        to: SocketAddr::new(flow.server.ip(), u16::from_be(flow.server_port)),
        from,
        state: state_word(word.state()),
        idle_s,
    }
}

const fn state_word(state: PortState) -> &'static str {
    match state {
        PortState::Free => "free",
        PortState::Claimed | PortState::Opening => "opening",
        PortState::Answered => "answered",
        PortState::Established => "established",
        PortState::ClientClosing => "client-closing",
        PortState::ServerClosing => "server-closing",
        PortState::Closed => "closed",
        PortState::Resting => "resting",
        PortState::Reset => "reset",
    }
}

fn show(flows: &Flows, out: &mut impl Write) -> io::Result<()> {
    let row = |flow: &Flow| {
        vec![
            flow.protocol.to_owned(),
            flow.client.to_string(),
            flow.vip.to_string(),
            flow.server.clone(),
            flow.to.to_string(),
            flow.from.to_string(),
            flow.state.to_owned(),
            format!("{} s", flow.idle_s),
        ]
    };
    let rows: Vec<Vec<String>> = flows.translated.iter().map(row).collect();
    if !rows.is_empty() {
        table(&["PROTOCOL", "CLIENT", "VIP", "SERVER", "SENT TO", "SEEN AS", "STATE", "IDLE"], &rows, out)?;
    }
    if flows.translated_total > rows.len() {
        writeln!(out, "and {} more: --limit shows them", flows.translated_total - rows.len())?;
    }
    let remembered: Vec<Vec<String>> = flows.remembered.iter().map(|(server, count)| vec![server.clone(), count.to_string()]).collect();
    if !remembered.is_empty() {
        table(&["SERVER", "REMEMBERED FLOWS"], &remembered, out)?;
    }
    if rows.is_empty() && remembered.is_empty() {
        writeln!(out, "no flow is remembered: new ones and those of clean slots go where the table says")?;
    }
    Ok(())
}
