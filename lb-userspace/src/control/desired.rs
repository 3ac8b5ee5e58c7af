//! What the maps should hold: every service, its members and their planes, from a configuration and what this host knows of its network.
//!
//! It names everything by addresses and ports; the numbers that the maps use are the planner's.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    ops::RangeInclusive,
    sync::Arc,
};

use ipnet::IpNet;
use lb_common::maps::{ForwardKind, SOURCE_ALLOW, SOURCE_DENY, Service, SourceRule};

use super::{
    Endpoint, ServiceKey,
    header::NextHop,
    installed::Identity,
    number,
    op::PlaneSpec,
    standing::{Standing, View, standings},
};
use crate::{
    balance::digest,
    config::model::{Balance, Bind, Config, Forward, Listener, Node, Pool, Protocol, Rate, Server, UdpFlows},
};

/// What this host knows of its network.
#[derive(Clone, PartialEq, Debug)]
pub struct Host {
    /// By server address: how packets reach it. A server that is missing is unresolved. Retired servers belong here too.
    pub next_hops: Arc<BTreeMap<IpAddr, NextHop>>,
    /// Addresses that the host itself opens connections from; not those that exist for SNAT only.
    pub own_addresses: BTreeSet<IpAddr>,
    /// The ports that the host's own connections use (`net.ipv4.ip_local_port_range`).
    pub ephemeral_ports: RangeInclusive<u16>,
}

/// What the maps should hold.
#[derive(Clone, PartialEq, Debug)]
pub struct Desired {
    /// Every service. Shared with the states before and after, so that two of them can be compared at little cost.
    pub services: BTreeMap<ServiceKey, Arc<DesiredService>>,
    /// By server address, as the host has them.
    pub next_hops: Arc<BTreeMap<IpAddr, NextHop>>,
}

/// What a service should be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DesiredService {
    /// Number of slots, a power of two.
    pub slots: u32,
    /// Key of the hash that chooses a slot.
    pub slot_key: u64,
    /// Seconds without a packet after which a flow is forgotten.
    pub idle_s: u32,
    /// A union of the `Service` flags.
    pub flags: u32,
    /// Microseconds between two new connections of a source; 0 without a limit.
    pub rate_interval_us: u32,
    /// Microseconds by which a source may run ahead.
    pub rate_tolerance_us: u32,
    /// What becomes of sources under each prefix.
    pub rules: BTreeMap<IpNet, SourceRule>,
    /// Its servers.
    pub members: BTreeMap<Endpoint, DesiredMember>,
}

impl DesiredService {
    /// Its members as the maps tell them apart.
    pub(super) fn identities(&self) -> impl Iterator<Item = (Identity, &DesiredMember)> {
        self.members.iter().map(|(endpoint, member)| (member.identity(endpoint), member))
    }

    /// Whether one of its members is this one.
    pub(super) fn has(&self, identity: &Identity) -> bool {
        self.members.get(&identity.endpoint).is_some_and(|member| member.identity(&identity.endpoint) == *identity)
    }
}

/// What a member should be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DesiredMember {
    /// Its weight.
    pub weight: u16,
    /// What its slots are apportioned by.
    pub share: u16,
    /// A union of the `MemberWord` states.
    pub state: u8,
    /// How packets reach it.
    pub forward: ForwardKind,
    /// UDP port of GUE, else 0.
    pub gue_port: u16,
    /// The outer source address, if the configuration gives one.
    pub tunnel_source: Option<IpAddr>,
    /// For NAT and a known next hop: a plane for each SNAT address, in order. Else empty.
    pub planes: Vec<PlaneSpec>,
}

impl Desired {
    /// The state that `config` asks for on `host`, with what is known of servers beside it.
    pub fn from_config(config: &Config, view: &View, host: &Host) -> Self {
        let services = services_of(config, |_| true, view, host).collect();
        Self { services, next_hops: Arc::clone(&host.next_hops) }
    }

    /// The same, where of all that this state was made from nothing differs but what is known of the servers of `pools`: of others `view` need not know.
    #[must_use]
    pub fn with_pools(&self, pools: &BTreeSet<String>, config: &Config, view: &View, host: &Host) -> Self {
        let mut services = self.services.clone();
        services.extend(services_of(config, |pool| pools.contains(pool), view, host));
        Self { services, next_hops: Arc::clone(&self.next_hops) }
    }
}

/// The services of the pools that are `concerned`.
fn services_of(
    config: &Config,
    concerned: impl Fn(&str) -> bool,
    view: &View,
    host: &Host,
) -> impl Iterator<Item = (ServiceKey, Arc<DesiredService>)> {
    let mut known: BTreeMap<&str, Vec<Standing>> = BTreeMap::new();
    let listeners = config.listeners.values().filter(move |listener| concerned(&listener.pool));
    let used = listeners.filter_map(|listener| Some((listener, config.pools.get(&listener.pool)?)));
    used.flat_map(move |(listener, pool)| {
        let standings = known.entry(&listener.pool).or_insert_with(|| standings(&listener.pool, pool, view));
        let service = |bind: &Bind| {
            let key = ServiceKey { vip: bind.address, port: bind.port.unwrap_or(0), protocol: bind.protocol };
            (key, Arc::new(DesiredService::new(key, listener, pool, standings, &config.node, host)))
        };
        listener.binds.iter().map(service).collect::<Vec<_>>()
    })
}

impl DesiredService {
    fn new(key: ServiceKey, listener: &Listener, pool: &Pool, standings: &[Standing], node: &Node, host: &Host) -> Self {
        let idle = match key.protocol {
            Protocol::Tcp => listener.tcp_idle,
            Protocol::Udp => listener.udp_idle,
        };
        let (rate_interval_us, rate_tolerance_us) = listener.conn_rate.map_or((0, 0), gcra);
        let members = pool
            .servers
            .values()
            .zip(standings)
            .map(|(server, standing)| {
                let endpoint = Endpoint { address: server.address, port: server.port.unwrap_or(0) };
                (endpoint, DesiredMember::new(key, server, standing, &pool.forward, node, host))
            })
            .collect();
        Self {
            slots: listener.slots,
            slot_key: slot_key(&node.slot_seed, key),
            idle_s: u32::try_from(idle.as_secs()).unwrap_or(u32::MAX),
            flags: flags(key.protocol, listener, pool),
            rate_interval_us,
            rate_tolerance_us,
            rules: source_rules(key.vip, listener),
            members,
        }
    }
}

impl DesiredMember {
    fn identity(&self, endpoint: &Endpoint) -> Identity {
        Identity { endpoint: *endpoint, is_translated: self.forward == ForwardKind::Nat }
    }

    fn new(key: ServiceKey, server: &Server, standing: &Standing, forward: &Forward, node: &Node, host: &Host) -> Self {
        let Standing { weight, share, state, .. } = *standing;
        let (kind, gue_port) = match (forward, server.address) {
            (Forward::Nat { .. }, _) => (ForwardKind::Nat, 0),
            (Forward::Dsr, _) => (ForwardKind::Dsr, 0),
            (Forward::Ipip, IpAddr::V4(_)) => (ForwardKind::Ipip4, 0),
            (Forward::Ipip, IpAddr::V6(_)) => (ForwardKind::Ipip6, 0),
            (Forward::Gue { port }, IpAddr::V4(_)) => (ForwardKind::Gue4, *port),
            (Forward::Gue { port }, IpAddr::V6(_)) => (ForwardKind::Gue6, *port),
        };
        let tunnel_source = match server.address {
            _ if kind.overhead() == 0 => None,
            IpAddr::V4(_) => node.tunnel_source4,
            IpAddr::V6(_) => node.tunnel_source6,
        };
        let planes = match forward {
            Forward::Nat { snat } => planes(key, server, snat, host),
            Forward::Dsr | Forward::Ipip | Forward::Gue { .. } => Vec::new(),
        };
        Self { weight, share, state, forward: kind, gue_port, tunnel_source, planes }
    }
}

/// The key of the hash that chooses slots: the digest of `node.slot_seed`.
#[must_use]
pub fn node_slot_key(seed: &str) -> u64 {
    digest::bytes(seed.as_bytes(), 0)
}

/// What tells a service's slots from others': the digest of VIP, port and protocol under that of `node.slot_seed`.
fn slot_key(seed: &str, key: ServiceKey) -> u64 {
    let vip = match key.vip {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
        IpAddr::V6(v6) => v6.to_bits(),
    };
    let service = u64::from(key.port) << 8 | u64::from(number(key.protocol));
    digest::words([(vip >> 64) as u64, vip as u64, service], node_slot_key(seed))
}

fn flags(protocol: Protocol, listener: &Listener, pool: &Pool) -> u32 {
    [
        (Service::BY_SOURCE, pool.balance == Balance::Source),
        (Service::STATELESS, protocol == Protocol::Udp && listener.udp == UdpFlows::Stateless),
        (Service::SOURCE_RULES, !listener.allow.is_empty() || !listener.deny.is_empty()),
        (Service::DENY_OTHERS, !listener.allow.is_empty()),
        (Service::RATE, listener.conn_rate.is_some()),
        (Service::NAT, matches!(pool.forward, Forward::Nat { .. })),
    ]
    .into_iter()
    .filter(|&(_, is_set)| is_set)
    .fold(0, |flags, (flag, _)| flags | flag)
}

/// Interval and tolerance in microseconds of the generic cell rate algorithm (ITU-T I.371 annex A): with them `count` connections may come
/// at once.
fn gcra(rate: Rate) -> (u32, u32) {
    let per_us = rate.per.as_micros();
    let interval_us = (per_us / u128::from(rate.count.max(1))).max(1);
    let bounded = |us: u128| u32::try_from(us).unwrap_or(u32::MAX);
    (bounded(interval_us), bounded(per_us.saturating_sub(interval_us)))
}

/// The rules that clients of the VIP's family can meet. Of a prefix that is both allowed and denied, the refusal counts.
fn source_rules(vip: IpAddr, listener: &Listener) -> BTreeMap<IpNet, SourceRule> {
    let allow = listener.allow.iter().map(|net| (net, SOURCE_ALLOW));
    let deny = listener.deny.iter().map(|net| (net, SOURCE_DENY));
    allow.chain(deny).filter(|(net, _)| net.addr().is_ipv4() == vip.is_ipv4()).map(|(net, rule)| (net.trunc(), rule)).collect()
}

/// A plane for each SNAT address of the server's family; without any, for the address that the route to the server prefers.
fn planes(key: ServiceKey, server: &Server, snat: &[IpAddr], host: &Host) -> Vec<PlaneSpec> {
    let Some(hop) = host.next_hops.get(&server.address) else {
        return Vec::new();
    };
    let addresses = if snat.is_empty() { std::slice::from_ref(&hop.source) } else { snat };
    let addresses: BTreeSet<IpAddr> = addresses.iter().copied().filter(|ip| ip.is_ipv4() == server.address.is_ipv4()).collect();
    addresses
        .into_iter()
        .map(|snat| {
            let (low, high) = if host.own_addresses.contains(&snat) { shared_ports(&host.ephemeral_ports) } else { DEDICATED_PORTS };
            let server_port = server.port.unwrap_or(key.port);
            PlaneSpec { snat: snat.into(), server: server.address.into(), server_port, protocol: number(key.protocol), low, high }
        })
        .collect()
}

/// The first position whose ports are not reserved (below 1024).
const FIRST_POSITION: u8 = 4;

/// 64 512 ports in one range.
const DEDICATED_PORTS: ((u8, u8), (u8, u8)) = ((FIRST_POSITION, 252), (0, 0));

/// The positions wholly below and wholly above the host's own ports: of each range the first and how many.
fn shared_ports(ephemeral: &RangeInclusive<u16>) -> ((u8, u8), (u8, u8)) {
    let [before, last] = [ephemeral.start() / 256, ephemeral.end() / 256];
    let range = |first: u16, end: u16| {
        let first = first.max(u16::from(FIRST_POSITION));
        let count = end.saturating_sub(first);
        if count == 0 { (0, 0) } else { (first as u8, count as u8) }
    };
    (range(0, before), range(last + 1, 256))
}

#[cfg(test)]
mod tests;
