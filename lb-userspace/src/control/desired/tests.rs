use std::time::Duration;

use super::*;
use lb_common::words::MemberWord;

use crate::config::model::{AddressPolicy, Bind, Limits, OnDown, ServerState, XdpMode};

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn server(address: &str) -> Server {
    Server { address: ip(address), port: None, weight: 10, backup: false, state: ServerState::Ready }
}

fn pool(servers: &[Server]) -> Pool {
    let servers = servers.iter().enumerate().map(|(i, server)| (format!("s{i}"), *server)).collect();
    Pool {
        forward: Forward::Dsr,
        balance: Balance::Tuple,
        on_down: OnDown::Keep,
        check: None,
        slow_start: Duration::ZERO,
        panic_threshold_pct: 0,
        passive_hints: true,
        names: BTreeMap::new(),
        servers,
    }
}

fn listener(binds: &[(&str, Option<u16>, Protocol)]) -> Listener {
    let binds = binds.iter().map(|&(address, port, protocol)| Bind { address: ip(address), port, protocol }).collect();
    Listener {
        binds,
        set_aside: None,
        pool: "p".into(),
        allow: Vec::new(),
        deny: Vec::new(),
        conn_rate: None,
        slots: 256,
        tcp_idle: Duration::from_secs(300),
        udp_idle: Duration::from_secs(30),
        udp: UdpFlows::Tracked,
    }
}

fn config(listener: Listener, pool: Pool) -> Config {
    let node = Node {
        name: "n".into(),
        interfaces: vec!["eth0".into()],
        xdp: XdpMode::Auto,
        slot_seed: "seed".into(),
        pin_dir: "/p".into(),
        state_dir: "/s".into(),
        addresses: AddressPolicy::Leave,
        tunnel_source4: Some(ip("172.16.0.1")),
        tunnel_source6: None,
    };
    Config {
        node,
        admin: crate::config::model::Admin::default(),
        dns: crate::config::model::Dns::default(),
        limits: Limits::default(),
        listeners: [("l".into(), listener)].into(),
        vrrp: BTreeMap::new(),
        pools: [("p".into(), pool.into())].into(),
    }
}

fn host() -> Host {
    let hop = |source: &str| NextHop { ifindex: 1, vlan: None, source_mac: [1; 6], target_mac: [2; 6], mtu: 1500, source: ip(source) };
    Host {
        next_hops: [(ip("10.0.0.1"), hop("10.0.0.250")), (ip("10.0.0.2"), hop("10.0.0.250"))]
            .into_iter()
            .collect::<BTreeMap<_, _>>()
            .into(),
        own_addresses: [ip("10.0.0.250")].into(),
        ephemeral_ports: 32_768..=60_999,
    }
}

fn only_service(config: &Config) -> DesiredService {
    let desired = Desired::from_config(config, &View::default(), &host());
    assert_eq!(desired.services.len(), 1);
    desired.services.into_values().next().unwrap().as_ref().clone()
}

const WEB: &[(&str, Option<u16>, Protocol)] = &[("192.0.2.1", Some(80), Protocol::Tcp)];

/// Weight and state of servers s0, s1 .. at 10.0.0.1, 10.0.0.2 ...
fn standing(edit: impl FnOnce(&mut [Server; 3], &mut OnDown)) -> [(u16, u8); 3] {
    let mut servers = [server("10.0.0.1"), server("10.0.0.2"), server("10.0.0.3")];
    servers[2].backup = true;
    let mut on_down = OnDown::Keep;
    edit(&mut servers, &mut on_down);
    let service = only_service(&config(listener(WEB), Pool { on_down, ..pool(&servers) }));
    let members: Vec<_> = service.members.values().map(|member| (member.weight, member.state)).collect();
    members.try_into().unwrap()
}

const NO_NEW: u8 = MemberWord::NO_NEW;
const DOWN: u8 = MemberWord::NO_NEW | MemberWord::DOWN;

#[test]
fn a_backup_waits_while_a_primary_is_not_down() {
    assert_eq!(standing(|_, _| ()), [(10, 0), (10, 0), (0, NO_NEW)]);
    assert_eq!(standing(|s, _| s[0].state = ServerState::Down), [(0, DOWN), (10, 0), (0, NO_NEW)]);
}

#[test]
fn a_drained_primary_is_not_down() {
    let drained = standing(|s, _| {
        s[0].state = ServerState::Down;
        s[1].state = ServerState::Drain;
    });
    assert_eq!(drained, [(0, DOWN), (0, NO_NEW), (0, NO_NEW)]);
    let without_weight = standing(|s, _| {
        s[0].state = ServerState::Down;
        s[1].weight = 0;
    });
    assert_eq!(without_weight, [(0, DOWN), (0, NO_NEW), (0, NO_NEW)]);
}

#[test]
fn a_backup_serves_while_every_primary_is_down() {
    let all_primaries_down = |s: &mut [Server; 3], _: &mut OnDown| {
        s[0].state = ServerState::Down;
        s[1].state = ServerState::Down;
    };
    assert_eq!(standing(all_primaries_down), [(0, DOWN), (0, DOWN), (10, 0)]);
}

#[test]
fn down_servers_close_their_flows_if_the_pool_says_so() {
    let closing = standing(|s, on_down| {
        *on_down = OnDown::CloseSessions;
        s[0].state = ServerState::Down;
    });
    assert_eq!(closing[0], (0, DOWN | MemberWord::CLOSING));
}

#[test]
fn every_bind_is_a_service_with_the_idle_timeout_of_its_protocol() {
    let mut listener =
        listener(&[("192.0.2.1", Some(53), Protocol::Tcp), ("192.0.2.1", Some(53), Protocol::Udp), ("2001:db8::1", None, Protocol::Tcp)]);
    listener.udp = UdpFlows::Stateless;
    let desired = Desired::from_config(&config(listener, pool(&[server("10.0.0.1")])), &View::default(), &host());
    let seen: Vec<_> = desired.services.iter().map(|(key, s)| (key.vip, key.port, key.protocol, s.idle_s, s.flags)).collect();
    assert_eq!(
        seen,
        [
            (ip("192.0.2.1"), 53, Protocol::Tcp, 300, 0),
            (ip("192.0.2.1"), 53, Protocol::Udp, 30, Service::STATELESS),
            (ip("2001:db8::1"), 0, Protocol::Tcp, 300, 0),
        ]
    );
    let keys: BTreeSet<u64> = desired.services.values().map(|service| service.slot_key).collect();
    assert_eq!(keys.len(), 3);
}

/// The figure is the contract between nodes.
#[test]
fn slot_keys_depend_on_the_seed_and_never_change_between_versions() {
    let key = ServiceKey { vip: ip("192.0.2.1"), port: 80, protocol: Protocol::Tcp };
    assert_eq!(slot_key("seed", key), 4_775_854_408_663_381_894);
    assert_ne!(slot_key("seed", key), slot_key("sees", key));
}

#[test]
fn source_rules_are_those_of_the_vips_family() {
    let mut listener = listener(WEB);
    listener.allow = vec!["10.1.2.3/8".parse().unwrap(), "2001:db8::/32".parse().unwrap()];
    listener.deny = vec!["10.9.0.0/16".parse().unwrap(), "10.0.0.0/8".parse().unwrap()];
    let service = only_service(&config(listener, pool(&[server("10.0.0.1")])));
    assert_eq!(service.rules, [("10.0.0.0/8".parse().unwrap(), SOURCE_DENY), ("10.9.0.0/16".parse().unwrap(), SOURCE_DENY)].into());
    assert_eq!(service.flags, Service::SOURCE_RULES | Service::DENY_OTHERS);
}

#[test]
fn denying_some_lets_the_others_in() {
    let mut listener = listener(WEB);
    listener.deny = vec!["10.9.0.0/16".parse().unwrap()];
    assert_eq!(only_service(&config(listener, pool(&[server("10.0.0.1")]))).flags, Service::SOURCE_RULES);
}

#[test]
fn a_rate_lets_its_count_come_at_once() {
    let rate = |count, per| gcra(Rate { count, per });
    assert_eq!(rate(100, Duration::from_secs(10)), (100_000, 9_900_000));
    assert_eq!(rate(1, Duration::from_secs(1)), (1_000_000, 0));
    assert_eq!(rate(u32::MAX, Duration::from_secs(1)), (1, 999_999));
    assert_eq!(rate(1, Duration::from_secs(7200)), (u32::MAX, 0));
}

#[test]
fn flags_follow_pool_and_listener() {
    let mut listener = listener(WEB);
    listener.conn_rate = Some(Rate { count: 10, per: Duration::from_secs(1) });
    listener.udp = UdpFlows::Stateless;
    let pool = Pool { balance: Balance::Source, forward: Forward::Nat { snat: Vec::new() }, ..pool(&[server("10.0.0.1")]) };
    assert_eq!(only_service(&config(listener, pool)).flags, Service::BY_SOURCE | Service::RATE | Service::NAT);
}

fn nat_planes(snat: &[&str], server: Server) -> Vec<PlaneSpec> {
    let forward = Forward::Nat { snat: snat.iter().map(|text| ip(text)).collect() };
    let service = only_service(&config(listener(WEB), Pool { forward, ..pool(&[server]) }));
    service.members.into_values().next().unwrap().planes
}

fn plane(snat: &str, server_port: u16, low: (u8, u8), high: (u8, u8)) -> PlaneSpec {
    PlaneSpec { snat: ip(snat).into(), server: ip("10.0.0.1").into(), server_port, protocol: 6, low, high }
}

#[test]
fn a_dedicated_snat_address_has_all_ports_above_the_reserved() {
    let planes = nat_planes(&["10.0.0.9", "10.0.0.8", "2001:db8::8"], Server { port: Some(8080), ..server("10.0.0.1") });
    assert_eq!(planes, [plane("10.0.0.8", 8080, (4, 252), (0, 0)), plane("10.0.0.9", 8080, (4, 252), (0, 0))]);
}

#[test]
fn the_hosts_own_address_keeps_clear_of_its_ephemeral_ports() {
    assert_eq!(nat_planes(&[], server("10.0.0.1")), [plane("10.0.0.250", 80, (4, 124), (239, 17))]);
    for (ephemeral, ranges) in [
        (32_768..=60_999, ((4, 124), (239, 17))),
        (1024..=65_535, ((0, 0), (0, 0))),
        (33_000..=65_279, ((4, 124), (255, 1))),
        (33_023..=65_280, ((4, 124), (0, 0))),
        (0..=1, ((0, 0), (4, 252))),
    ] {
        assert_eq!(shared_ports(&ephemeral), ranges, "{ephemeral:?}");
    }
}

#[test]
fn a_server_without_a_next_hop_has_no_plane() {
    assert_eq!(nat_planes(&["10.0.0.9"], server("10.0.0.99")), []);
}

#[test]
fn a_tunnel_is_of_the_servers_family() {
    for (forward, address, expected) in [
        (Forward::Ipip, "10.0.0.1", (ForwardKind::Ipip4, 0, Some(ip("172.16.0.1")))),
        (Forward::Ipip, "2001:db8::2", (ForwardKind::Ipip6, 0, None)),
        (Forward::Gue { port: 6080 }, "10.0.0.1", (ForwardKind::Gue4, 6080, Some(ip("172.16.0.1")))),
        (Forward::Gue { port: 6080 }, "2001:db8::2", (ForwardKind::Gue6, 6080, None)),
        (Forward::Dsr, "10.0.0.1", (ForwardKind::Dsr, 0, None)),
    ] {
        let service = only_service(&config(listener(WEB), Pool { forward, ..pool(&[server(address)]) }));
        let member = service.members.values().next().unwrap();
        assert_eq!((member.forward, member.gue_port, member.tunnel_source), expected);
    }
}
