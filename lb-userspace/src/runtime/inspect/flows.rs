//! Who is connected where.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
};

use lb_common::{
    maps::NatFlow,
    nat::{PortState, PortWord},
    words::{MemberId, ServiceId},
};

use super::{InspectError, status::names};
use crate::{
    admin::{
        answer::{FlowView, FlowsView},
        api::FlowsQuestion,
    },
    config,
    dataplane::{self, PinDir, Tables},
    runtime::{
        readback,
        report::{Report, ServiceName},
    },
};

pub(super) fn flows(tables: &Tables, pins: &PinDir, report: &Report, question: &FlowsQuestion) -> Result<FlowsView, InspectError> {
    let pattern = question.servers.as_deref().map(|text| pattern_of(text, report)).transpose()?;
    let now = dataplane::moment(pins)?.tick;
    let installed = tables.services().map_err(InspectError::read)?;
    let names = names(&installed, report);
    let vips: BTreeMap<u16, _> = installed.iter().map(|(id, record)| (id.0, (record.vip.ip(), record.protocol))).collect();
    let name_of = |service: u16, address: IpAddr, port: u16| {
        let name = names.get(&ServiceId(service))?;
        let (server, ..) = name.servers.iter().find(|(_, ip, own)| *ip == address && (*own == port || *own == 0))?;
        Some(format!("{}/{server}", name.pool))
    };
    let fits = |server: &str| pattern.as_ref().is_none_or(|pattern| pattern.matches(server));
    let mut flows = FlowsView::default();
    readback::each_nat_flow(tables, now, |word, flow| {
        let client = flow.client.ip();
        if question.client.is_some_and(|wanted| wanted != client) {
            return;
        }
        let server = name_of(flow.service, flow.server.ip(), u16::from_be(flow.server_port)).unwrap_or_default();
        if !fits(&server) {
            return;
        }
        flows.translated_total += 1;
        if flows.translated.len() < question.limit
            && let Some(&(vip, protocol)) = vips.get(&flow.service)
            && let Ok(plane) = tables.nat_planes.record(u32::from(flow.plane))
        {
            let from = SocketAddr::new(plane.snat.ip(), u16::from_be(flow.snat_port));
            flows.translated.push(translated(word, flow, server, vip, protocol, from, word.idle(now)));
        }
    })
    .map_err(InspectError::read)?;
    if question.client.is_none() {
        let members: BTreeMap<MemberId, _> =
            tables.members().map_err(InspectError::read)?.into_iter().map(|member| (member.id, member.info)).collect();
        for (member, count) in tables.flows_by_member(now).map_err(InspectError::read)? {
            let info = members.get(&member);
            let server = info.and_then(|info| name_of(info.service, info.address.ip(), info.port)).unwrap_or_default();
            if fits(&server) {
                *flows.remembered.entry(server).or_default() += u64::from(count);
            }
        }
    }
    Ok(flows)
}

/// The pattern, if it fits a server that is known by name.
fn pattern_of(text: &str, report: &Report) -> Result<glob::Pattern, InspectError> {
    let pattern = glob::Pattern::new(text).map_err(|error| InspectError::Question(format!("{text:?} is no pattern: {error}")))?;
    let of_service =
        |service: &ServiceName| service.servers.iter().map(|(name, ..)| format!("{}/{name}", service.pool)).collect::<Vec<_>>();
    let known: BTreeSet<String> =
        report.services.iter().flat_map(of_service).chain(report.standings.keys().map(ToString::to_string)).collect();
    if known.iter().any(|name| pattern.matches(name)) {
        return Ok(pattern);
    }
    let hint = config::alike(text, &known.iter().map(String::as_str).collect::<Vec<_>>());
    Err(InspectError::NoSuch { kind: "server", name: text.to_owned(), hint })
}

fn translated(word: PortWord, flow: &NatFlow, server: String, vip: IpAddr, protocol: u8, from: SocketAddr, idle_s: u32) -> FlowView {
    FlowView {
        protocol: if protocol == 6 { "tcp" } else { "udp" }.into(),
        client: SocketAddr::new(flow.client.ip(), u16::from_be(flow.client_port)),
        vip: SocketAddr::new(vip, u16::from_be(flow.vip_port)),
        server,
        to: SocketAddr::new(flow.server.ip(), u16::from_be(flow.server_port)),
        from,
        state: state_word(word.state()).into(),
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
