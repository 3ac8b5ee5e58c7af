//! How large every map is, from the configured limits and the features in use. Pure.
//!
//! The maps of a feature that is off have one entry: the loaded program has no access to them left, so that turning the feature on may replace
//! them (see [`super::load`]).

use std::net::IpAddr;

use lb_common::{
    maps::{
        CHUNKS_PER_PLANE, Header, Line, MemberInfo, NatFlow, NatPlane, OwnMacs, PORTS_PER_CHUNK, Service, Settings, Tally, Traffic, Vip,
        VirtualMacs, WORDS_PER_LINE, WORDS_PER_SLOT_PAGE,
    },
    reason::{Drop, Note},
};

use super::abi::Keys;
use crate::config::model::{Config, Forward, Limits};

/// A union of the [`Settings`] features: what the configuration uses.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Features(pub u32);

impl Features {
    /// What this configuration uses: of its pools, those that a listener sends to.
    pub fn of(config: &Config) -> Self {
        let features = config.listeners.values().map(|listener| {
            let forward = config.pools.get(&listener.pool).map_or(0, |pool| of_forward(&pool.forward));
            let rules = if listener.allow.is_empty() && listener.deny.is_empty() { 0 } else { Settings::SOURCE_RULES };
            let rate = if listener.conn_rate.is_some() { Settings::RATE } else { 0 };
            let ipv6 = if listener.binds.iter().any(|bind| bind.address.is_ipv6()) { Settings::IPV6 } else { 0 };
            forward | rules | rate | ipv6
        });
        Self(features.fold(0, |all, one| all | one))
    }

    /// Whether every feature of `feature` is in use.
    pub const fn has(self, feature: u32) -> bool {
        self.0 & feature == feature
    }
}

fn of_forward(forward: &Forward) -> u32 {
    match forward {
        Forward::Nat { snat } if snat.iter().any(IpAddr::is_ipv6) => Settings::NAT | Settings::IPV6,
        Forward::Nat { .. } => Settings::NAT,
        Forward::Dsr => Settings::DSR,
        Forward::Ipip => Settings::IPIP,
        Forward::Gue { .. } => Settings::GUE,
    }
}

/// What a map is to the kernel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MapKind {
    /// An array that the daemon maps into its memory.
    Mapped,
    /// An array of such arrays.
    Pages,
    /// An array with a value for each CPU.
    PerCpu,
    /// A longest-prefix trie, whose entries are allocated as they come.
    Trie,
    /// A map of interfaces.
    Interfaces,
    /// A ring buffer; its entries are bytes.
    Ring,
}

/// One map's name and size.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MapSize {
    /// Its name in the object and in the pin directory.
    pub name: &'static str,
    /// What it is.
    pub kind: MapKind,
    /// Number of entries.
    pub entries: u32,
    /// Size of one entry's value.
    pub entry_bytes: u32,
    /// The feature without which nothing uses it; 0 for none.
    pub feature: u32,
}

/// What memory depends on beside limits and features.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Machine {
    /// Possible CPUs.
    pub cpus: u32,
    /// Slot pages in use: a service's slots over [`SLOTS_PER_PAGE`], rounded up.
    pub slot_pages: u32,
}

const PAGE_BYTES: u64 = 4096;
const WORD_BYTES: u32 = 8;
const LINE_BYTES: u32 = size_of::<Line>() as u32;
/// Room for drop samples.
const SAMPLE_RING_BYTES: u32 = 256 << 10;
/// Interfaces that packets may leave by.
pub const MAX_INTERFACES: u32 = 64;
/// Source rules of one address family.
pub const MAX_SOURCE_RULES: u32 = 16_384;
/// The words before the entries in `NAT_FREE`: head and tail.
pub(crate) const FREE_RING_HEAD: u32 = 2;

/// The number of NAT chunks for these limits.
pub(crate) const fn nat_chunks(limits: &Limits) -> u32 {
    let chunks = limits.nat_flows.div_ceil(PORTS_PER_CHUNK);
    if chunks == 0 { 1 } else { chunks }
}

/// Lines for `count` keyed entries, a quarter full at most.
const fn keyed_lines(count: u32) -> u32 {
    let lines = (count.saturating_mul(4)).next_power_of_two();
    if lines < 1024 { 1024 } else { lines }
}

/// Lines for `count` words in a cache that may be full; a power of two.
const fn cache_lines(count: u32) -> u32 {
    count.div_ceil(WORDS_PER_LINE as u32).next_power_of_two()
}

/// Every map's size, in the order of the table in [`lb_common::maps`].
pub fn map_sizes(limits: &Limits, features: Features) -> Vec<MapSize> {
    let Limits { services, members, flows, nat_planes, rate_sources, fragments, .. } = *limits;
    let chunks = nat_chunks(limits);
    let ports = chunks * PORTS_PER_CHUNK;
    let directory = cache_lines((u64::from(ports) * 8 / 5) as u32);
    let mapped = |name, entries, entry_bytes| MapSize { name, kind: MapKind::Mapped, entries, entry_bytes, feature: 0 };
    let only_with = |feature: u32, size: MapSize| {
        let entries = if features.has(feature) { size.entries } else { 1 };
        MapSize { entries, feature, ..size }
    };
    let nat = |name, entries, entry_bytes| only_with(Settings::NAT, mapped(name, entries, entry_bytes));
    let other = |name, kind, entries, entry_bytes| MapSize { name, kind, entries, entry_bytes, feature: 0 };
    vec![
        mapped("VIP_LINES", keyed_lines(services + nat_planes), LINE_BYTES),
        mapped("MACS", VirtualMacs::RECORDS, size_of::<OwnMacs>() as u32),
        mapped("VIPS", services + nat_planes + 1, size_of::<Vip>() as u32),
        mapped("PORT_LINES", keyed_lines(services), LINE_BYTES),
        mapped("SERVICES", services + 1, size_of::<Service>() as u32),
        other("SLOT_PAGES", MapKind::Pages, (services * 16).clamp(64, 65_536), 4),
        mapped("MEMBERS", members + 1, WORD_BYTES),
        mapped("MEMBER_INFO", members + 1, size_of::<MemberInfo>() as u32),
        mapped("HEADERS", 2 * members + 2, size_of::<Header>() as u32),
        other("INTERFACES", MapKind::Interfaces, MAX_INTERFACES, 8),
        other("LINKS", MapKind::Interfaces, MAX_INTERFACES, 8),
        mapped("FLOWS", cache_lines(flows), LINE_BYTES),
        mapped("FRAGMENTS", cache_lines(fragments), LINE_BYTES),
        only_with(Settings::RATE, mapped("RATES", cache_lines(rate_sources), LINE_BYTES)),
        other("SOURCES4", MapKind::Trie, MAX_SOURCE_RULES, 4),
        other("SOURCES6", MapKind::Trie, MAX_SOURCE_RULES, 4),
        nat("NAT_LINES", directory, LINE_BYTES),
        nat("NAT_PORTS", ports / WORDS_PER_LINE as u32, LINE_BYTES),
        nat("NAT_FLOWS", ports, size_of::<NatFlow>() as u32),
        nat("NAT_PLANES", nat_planes + 1, size_of::<NatPlane>() as u32),
        nat("NAT_CHUNKS", (nat_planes + 1) * CHUNKS_PER_PLANE, WORD_BYTES),
        nat("NAT_USED", nat_planes + 1, WORD_BYTES),
        nat("NAT_ENDPOINTS", keyed_lines(nat_planes), LINE_BYTES),
        nat("NAT_FREE", FREE_RING_HEAD + chunks.next_power_of_two(), WORD_BYTES),
        other("MEMBER_STATS", MapKind::PerCpu, members + 1, size_of::<Traffic>() as u32),
        other("DROPS", MapKind::PerCpu, (services + 1) * Drop::COUNT, size_of::<Tally>() as u32),
        other("NOTES", MapKind::PerCpu, (services + 1) * Note::COUNT, size_of::<Tally>() as u32),
        mapped("TOUCHES", services + 1, WORD_BYTES),
        other("SAMPLES", MapKind::Ring, SAMPLE_RING_BYTES, 0),
    ]
}

/// What a program must be told about maps of these sizes.
pub(crate) fn settings(sizes: &[MapSize], features: Features, hertz: u32, keys: Keys) -> Settings {
    let entries = |name| sizes.iter().find(|size| size.name == name).map_or(1, |size| size.entries);
    let mask = |name| entries(name) - 1;
    let (tick_factor, jiffy_us) = Settings::clock(hertz);
    Settings {
        features: features.0,
        tick_factor,
        jiffy_us,
        vip_mask: mask("VIP_LINES"),
        port_mask: mask("PORT_LINES"),
        flow_mask: mask("FLOWS"),
        fragment_mask: mask("FRAGMENTS"),
        rate_mask: mask("RATES"),
        nat_mask: mask("NAT_LINES"),
        endpoint_mask: mask("NAT_ENDPOINTS"),
        free_mask: entries("NAT_FREE").saturating_sub(FREE_RING_HEAD + 1),
        reserved: 0,
        table_key: keys.table,
        slot_key: keys.slot,
    }
}

/// Kernel memory, in bytes, that the data plane takes: all maps and the slot pages in use. Source rules come on top, about 64 bytes each.
pub fn memory_bytes(limits: &Limits, features: Features, machine: Machine) -> u64 {
    let maps: u64 = map_sizes(limits, features).iter().map(|size| map_bytes(size, machine.cpus)).sum();
    maps + u64::from(machine.slot_pages) * u64::from(WORDS_PER_SLOT_PAGE * WORD_BYTES)
}

fn map_bytes(size: &MapSize, cpus: u32) -> u64 {
    let values = u64::from(size.entries) * u64::from(size.entry_bytes.next_multiple_of(WORD_BYTES));
    match size.kind {
        MapKind::Mapped => values.next_multiple_of(PAGE_BYTES),
        MapKind::PerCpu => values * u64::from(cpus) + u64::from(size.entries * WORD_BYTES),
        MapKind::Pages | MapKind::Interfaces => u64::from(size.entries * WORD_BYTES),
        MapKind::Ring => u64::from(size.entries),
        MapKind::Trie => 0,
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, path::PathBuf, time::Duration};

    use super::*;
    use crate::config::model::{AddressPolicy, Balance, Bind, Listener, Node, OnDown, Pool, Protocol, UdpFlows, XdpMode};

    const MIB: u64 = 1 << 20;

    fn entries(limits: &Limits, features: Features, name: &str) -> u32 {
        map_sizes(limits, features).iter().find(|size| size.name == name).unwrap().entries
    }

    #[test]
    fn sixteen_services_with_default_limits_fit_into_64_mib() {
        let machine = Machine { cpus: 64, slot_pages: 16 * 16 };
        let bytes = memory_bytes(&Limits::default(), Features(Settings::DSR | Settings::IPV6), machine);
        assert!(bytes <= 64 * MIB, "{bytes}");
    }

    #[test]
    fn a_million_nat_flows_cost_89_mib() {
        let machine = Machine { cpus: 2, slot_pages: 0 };
        let limits = Limits { nat_flows: 1 << 20, ..Limits::default() };
        let with = memory_bytes(&limits, Features(Settings::NAT), machine);
        let without = memory_bytes(&limits, Features(0), machine);
        assert_eq!((with - without) / MIB, 89);
    }

    #[test]
    fn only_what_a_listener_uses_is_in_the_program() {
        let listener = |address: &str, pool: &str| Listener {
            binds: vec![Bind { address: address.parse().unwrap(), port: Some(80), protocol: Protocol::Tcp }],
            set_aside: None,
            pool: pool.to_owned(),
            allow: vec![],
            deny: vec!["10.0.0.0/8".parse().unwrap()],
            conn_rate: None,
            slots: 256,
            tcp_idle: Duration::from_secs(60),
            udp_idle: Duration::from_secs(30),
            udp: UdpFlows::Tracked,
        };
        let pool = |forward| Pool {
            forward,
            balance: Balance::Tuple,
            on_down: OnDown::Keep,
            check: None,
            slow_start: Duration::ZERO,
            panic_threshold_pct: 0,
            passive_hints: true,
            names: BTreeMap::new(),
            servers: BTreeMap::new(),
        };
        let node = Node {
            name: String::new(),
            interfaces: vec![],
            xdp: XdpMode::Auto,
            slot_seed: String::new(),
            pin_dir: PathBuf::new(),
            state_dir: PathBuf::new(),
            addresses: AddressPolicy::Leave,
            tunnel_source4: None,
            tunnel_source6: None,
        };
        let mut config = Config {
            dns: crate::config::model::Dns::default(),
            admin: crate::config::model::Admin::default(),
            node,
            limits: Limits::default(),
            listeners: BTreeMap::from([("web".to_owned(), listener("192.0.2.1", "a"))]),
            vrrp: BTreeMap::new(),
            pools: BTreeMap::from([
                ("a".to_owned(), pool(Forward::Dsr).into()),
                ("b".to_owned(), pool(Forward::Nat { snat: vec!["2001:db8::1".parse().unwrap()] }).into()),
            ]),
        };
        assert_eq!(Features::of(&config), Features(Settings::DSR | Settings::SOURCE_RULES));
        config.listeners.insert("mail".to_owned(), listener("192.0.2.2", "b"));
        let with_nat = Settings::DSR | Settings::SOURCE_RULES | Settings::NAT | Settings::IPV6;
        assert_eq!(Features::of(&config), Features(with_nat));
    }

    #[test]
    fn masks_are_powers_of_two_less_one_for_odd_limits() {
        let limits = Limits { services: 3, members: 7, flows: 1000, nat_flows: 1000, nat_planes: 5, rate_sources: 9, fragments: 17 };
        let features = Features(Settings::NAT | Settings::RATE);
        let settings = settings(&map_sizes(&limits, features), features, 250, Keys { table: 7, slot: 8 });
        for mask in [
            settings.vip_mask,
            settings.port_mask,
            settings.flow_mask,
            settings.fragment_mask,
            settings.rate_mask,
            settings.nat_mask,
            settings.endpoint_mask,
            settings.free_mask,
        ] {
            assert_eq!(mask & (mask + 1), 0, "{settings:?}");
        }
        assert_eq!((settings.flow_mask, settings.rate_mask, settings.fragment_mask, settings.free_mask), (127, 1, 3, 3));
    }

    #[test]
    fn the_maps_of_a_feature_that_is_off_have_one_entry() {
        let limits = Limits::default();
        for name in ["NAT_FLOWS", "NAT_FREE", "NAT_PLANES", "RATES"] {
            assert_eq!(entries(&limits, Features(0), name), 1, "{name}");
        }
        assert_eq!(entries(&limits, Features(Settings::NAT), "NAT_FREE"), 2 + 1024);
        assert_eq!(entries(&limits, Features(Settings::RATE), "RATES"), 8192);
    }

    #[test]
    fn the_nat_directory_is_at_most_65_percent_full() {
        let limits = Limits::default();
        let words = entries(&limits, Features(Settings::NAT), "NAT_LINES") * 8;
        assert!(limits.nat_flows * 100 <= words * 65);
    }
}
