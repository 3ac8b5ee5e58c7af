//! Reads `[node]` and `[limits]`.

use std::{
    collections::BTreeSet,
    net::IpAddr,
    ops::RangeInclusive,
    path::{Path, PathBuf},
};

use toml::Spanned;

use super::{
    diagnostic::Span,
    model::{AddressPolicy, Limits, Node, XdpMode},
    reader::{Item, Key, Table, or, read_all},
    report::{Report, Reported},
    value::{self, ValueError},
};

/// The seed of a node that is given none.
const DEFAULT_SLOT_SEED: &str = "weir";

/// Where a BPF file system is mounted, or that is within: nobody's own.
const BPF_MOUNTS: [&str; 2] = ["/", "/sys/fs/bpf"];

const XDP_MODES: &[(&str, XdpMode)] = &[("auto", XdpMode::Auto), ("native", XdpMode::Native), ("generic", XdpMode::Generic)];
const ADDRESS_POLICIES: &[(&str, AddressPolicy)] = &[("add", AddressPolicy::Add), ("leave", AddressPolicy::Leave)];

/// `[node]` with what the lints ask of it.
#[derive(Debug)]
pub(super) struct NodeSection {
    pub(super) header: Span,
    pub(super) has_own_seed: bool,
    pub(super) model: Result<Node, Reported>,
}

/// `[limits]` with what the checks ask of it.
#[derive(Debug)]
pub(super) struct LimitsSection {
    /// Where `services`, `members` and `nat_planes` are set, if they are.
    pub(super) services: Option<Span>,
    pub(super) members: Option<Span>,
    pub(super) nat_planes: Option<Span>,
    pub(super) model: Result<Limits, Reported>,
}

const PIN_DIR: &str = "/sys/fs/bpf/weir";
const STATE_DIR: &str = "/run/weir";

/// The node of a file that says nothing of it: no interfaces, and the directories that are taken where none are named.
#[must_use]
pub fn unconfigured_node(host_name: &str) -> Node {
    Node {
        name: host_name.to_owned(),
        interfaces: Vec::new(),
        xdp: XdpMode::Auto,
        slot_seed: DEFAULT_SLOT_SEED.to_owned(),
        pin_dir: PIN_DIR.into(),
        state_dir: STATE_DIR.into(),
        addresses: AddressPolicy::Add,
        tunnel_source4: None,
        tunnel_source6: None,
    }
}

pub(super) fn read_node(mut table: Table<'_>, host_name: &str, report: &mut Report) -> NodeSection {
    let slot_seed = table.optional("slot_seed", report, |item, report| item.parsed(value::not_empty, report));
    let has_own_seed = !matches!(slot_seed, Ok(None));
    let header = table.span.clone();
    NodeSection { header, has_own_seed, model: read_node_model(table, slot_seed, host_name, report) }
}

fn read_node_model(mut table: Table<'_>, slot_seed: Key<String>, host_name: &str, report: &mut Report) -> Result<Node, Reported> {
    let name = table.optional("name", report, |item, report| item.parsed(value::not_empty, report));
    let interfaces =
        table.required("interfaces", "name the network interfaces that packets come in by: [\"eth0\"]", report, read_interfaces);
    let xdp = table.optional("xdp", report, |item, report| item.word(XDP_MODES, report));
    let pin_dir = table.optional("pin_dir", report, read_pin_dir);
    let state_dir = table.optional("state_dir", report, read_path);
    let addresses = table.optional("addresses", report, |item, report| item.word(ADDRESS_POLICIES, report));
    let tunnel_source4 = table.optional("tunnel_source4", report, |item, report| read_source(item, IpAddr::is_ipv4, report));
    let tunnel_source6 = table.optional("tunnel_source6", report, |item, report| read_source(item, IpAddr::is_ipv6, report));
    table.finish(report);
    Ok(Node {
        name: or(name, host_name.to_owned())?,
        interfaces: interfaces?.into_inner(),
        xdp: or(xdp, XdpMode::Auto)?,
        slot_seed: or(slot_seed, DEFAULT_SLOT_SEED.to_owned())?,
        pin_dir: or(pin_dir, PathBuf::from(PIN_DIR))?,
        state_dir: or(state_dir, PathBuf::from(STATE_DIR))?,
        addresses: or(addresses, AddressPolicy::Add)?,
        tunnel_source4: tunnel_source4?.map(Spanned::into_inner),
        tunnel_source6: tunnel_source6?.map(Spanned::into_inner),
    })
}

/// A node of which only the directories are known.
pub(super) fn directories(mut table: Table<'_>, host_name: &str, report: &mut Report) -> Node {
    let mut node = unconfigured_node(host_name);
    if let Ok(Some(pin_dir)) = table.optional("pin_dir", report, read_pin_dir) {
        node.pin_dir = pin_dir.into_inner();
    }
    if let Ok(Some(state_dir)) = table.optional("state_dir", report, read_path) {
        node.state_dir = state_dir.into_inner();
    }
    node
}

fn read_interfaces(item: &Item<'_>, report: &mut Report) -> Result<Vec<String>, Reported> {
    let names = read_all(&item.elements(report)?, report, |item, report| item.parsed(value::interface, report))?;
    if names.is_empty() {
        return Err(report.error(item.span.clone(), format!("`{}` is empty", item.path)));
    }
    let mut known = BTreeSet::new();
    for name in names.iter().filter(|name| !known.insert(name.get_ref().clone())) {
        report.error(name.span(), format!("interface `{}` is named twice", name.get_ref()));
    }
    Ok(names.into_iter().map(Spanned::into_inner).collect())
}

fn read_path(item: &Item<'_>, report: &mut Report) -> Result<PathBuf, Reported> {
    item.parsed(value::absolute_path, report)
}

/// A start may make and a stop remove it.
fn read_pin_dir(item: &Item<'_>, report: &mut Report) -> Result<PathBuf, Reported> {
    let path = read_path(item, report)?;
    if BPF_MOUNTS.iter().any(|mount| path.components().eq(Path::new(mount).components())) {
        let message = format!("`{}` must be a folder of its own, not {}", item.path, path.display());
        return Err(report.error_hint(item.span.clone(), message, format!("for example {}", path.join("weir").display())));
    }
    Ok(path)
}

fn read_source(item: &Item<'_>, is_family: fn(&IpAddr) -> bool, report: &mut Report) -> Result<IpAddr, Reported> {
    let address = item.parsed(value::unicast, report)?;
    if is_family(&address) { Ok(address) } else { Err(item.refused(&ValueError::Family(address), report)) }
}

pub(super) fn read_limits(mut table: Table<'_>, report: &mut Report) -> LimitsSection {
    let mut limit = |key, range: RangeInclusive<u32>| table.optional(key, report, |item, report| item.integer(range, report));
    let services = limit("services", 1..=4096);
    let members = limit("members", 1..=65_000);
    let flows = limit("flows", 1024..=1 << 22);
    let nat_flows = limit("nat_flows", 1024..=lb_common::fragments::MAX_NAT_FLOWS);
    let nat_planes = limit("nat_planes", 1..=65_000);
    let rate_sources = limit("rate_sources", 1024..=1 << 20);
    let fragments = limit("fragments", 64..=1 << 16);
    table.finish(report);
    let span = |key: &Key<u32>| key.as_ref().ok().and_then(Option::as_ref).map(Spanned::span);
    LimitsSection {
        services: span(&services),
        members: span(&members),
        nat_planes: span(&nat_planes),
        model: limits_model([services, members, flows, nat_flows, nat_planes, rate_sources, fragments]),
    }
}

fn limits_model([services, members, flows, nat_flows, nat_planes, rate_sources, fragments]: [Key<u32>; 7]) -> Result<Limits, Reported> {
    let default = Limits::default();
    Ok(Limits {
        services: or(services, default.services)?,
        members: or(members, default.members)?,
        flows: or(flows, default.flows)?,
        nat_flows: or(nat_flows, default.nat_flows)?,
        nat_planes: or(nat_planes, default.nat_planes)?,
        rate_sources: or(rate_sources, default.rate_sources)?,
        fragments: or(fragments, default.fragments)?,
    })
}
