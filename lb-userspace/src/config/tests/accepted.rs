use std::{net::IpAddr, path::PathBuf, time::Duration};

use super::{
    super::model::{
        AddressPolicy, Balance, Bind, Forward, Limits, Listener, Node, OnDown, Pool, Protocol, Rate, Server, ServerState, UdpFlows, XdpMode,
    },
    NODE, accepted,
};

const FULL: &str = include_str!("../../../../conf/l4-full.toml");

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn tcp(address: &str, port: u16) -> Bind {
    Bind { address: ip(address), port: Some(port), protocol: Protocol::Tcp }
}

#[test]
fn every_shipped_example_is_accepted_without_a_warning() {
    let examples = [
        include_str!("../../../../conf/l4-nat.toml"),
        include_str!("../../../../conf/l4-dsr.toml"),
        include_str!("../../../../conf/l4-ipip.toml"),
        include_str!("../../../../conf/l4-gue.toml"),
        include_str!("../../../../conf/l4-checks.toml"),
        include_str!("../../../../conf/vrrp.toml"),
        FULL,
    ];
    let services: Vec<usize> = examples.iter().map(|text| accepted(text).binds().count()).collect();
    assert_eq!(services, [3, 2, 2, 2, 3, 2, 5]);
}

#[test]
fn the_smallest_file_has_the_documented_defaults() {
    let config = accepted(
        "[node]\ninterfaces = 'eth0'\nslot_seed = 's'\n[listener.web]\nmode = 'l4'\nbind = '192.0.2.10:80'\npool = 'web'\n[pool.web]\nservers.a = '10.0.0.1'\n",
    );
    let node = Node {
        name: "host".to_owned(),
        interfaces: vec!["eth0".to_owned()],
        xdp: XdpMode::Auto,
        slot_seed: "s".to_owned(),
        pin_dir: PathBuf::from("/sys/fs/bpf/weir"),
        state_dir: PathBuf::from("/run/weir"),
        addresses: AddressPolicy::Add,
        tunnel_source4: None,
        tunnel_source6: None,
    };
    assert_eq!(config.node, node);
    assert_eq!(config.limits, Limits::default());
    let listener = Listener {
        binds: vec![tcp("192.0.2.10", 80)],
        pool: "web".to_owned(),
        set_aside: None,
        allow: vec![],
        deny: vec![],
        conn_rate: None,
        slots: 65_536,
        tcp_idle: Duration::from_secs(900),
        udp_idle: Duration::from_secs(30),
        udp: UdpFlows::Tracked,
    };
    assert_eq!(config.listeners["web"], listener);
    let server = Server { address: ip("10.0.0.1"), port: None, weight: 1, backup: false, state: ServerState::Ready };
    let pool = Pool {
        forward: Forward::Nat { snat: vec![] },
        balance: Balance::Tuple,
        on_down: OnDown::Keep,
        check: None,
        slow_start: Duration::ZERO,
        panic_threshold_pct: 0,
        passive_hints: true,
        names: [].into(),
        servers: [("a".to_owned(), server)].into(),
    };
    assert_eq!(*config.pools["web"], pool);
}

#[test]
fn a_listener_inherits_from_defaults_what_it_does_not_say() {
    let config = accepted(FULL);
    let web = &config.listeners["web"];
    assert_eq!(web.slots, 16_384);
    assert_eq!((web.tcp_idle, web.udp_idle), (Duration::from_secs(3600), Duration::from_secs(30)));
    assert_eq!(web.conn_rate, Some(Rate { count: 100, per: Duration::from_secs(10) }));
    let voice = &config.listeners["voice"];
    assert_eq!(voice.slots, 65_536);
    assert_eq!((voice.udp, voice.conn_rate), (UdpFlows::Stateless, None));
    assert_eq!(voice.deny, ["198.51.100.0/24".parse().unwrap()]);
    assert_eq!(voice.binds, [Bind { address: ip("192.0.2.20"), port: None, protocol: Protocol::Udp }]);
    assert_eq!(config.listeners["edge"].deny, []);
}

#[test]
fn a_server_inherits_from_its_pool_and_the_pool_from_defaults() {
    let text = format!(
        "{NODE}[defaults]\nmode = 'l4'\nbalance = 'source'\nserver = {{ weight = 7, port = 81 }}\n[listener.x]\nbind = '192.0.2.1:80'\npool = 'x'\n\
         [pool.x]\nserver.weight = 3\nservers.a = '10.0.0.1'\nservers.b = {{ address = '10.0.0.2:82', weight = 1 }}\nservers.c = {{ address = '10.0.0.3', port = 83 }}\n"
    );
    let pool = &accepted(&text).pools["x"];
    let servers: Vec<_> = pool.servers.values().map(|server| (server.weight, server.port)).collect();
    assert_eq!(servers, [(3, Some(81)), (1, Some(82)), (3, Some(83))]);
    assert_eq!(pool.balance, Balance::Source);
}

#[test]
fn default_snat_and_gue_port_serve_only_the_pools_that_have_use_for_them() {
    let text = format!(
        "{NODE}[defaults]\nmode = 'l4'\nsnat = '10.0.0.9'\ngue_port = 6090\n[listener.a]\nbind = '192.0.2.1:80'\npool = 'a'\n[pool.a]\nservers.a = '10.0.0.1'\n\
         [listener.b]\nbind = '192.0.2.1:81'\npool = 'b'\n[pool.b]\nforward = 'gue'\nservers.a = '10.0.0.1'\n\
         [listener.c]\nbind = '192.0.2.1:82'\npool = 'c'\n[pool.c]\nforward = 'dsr'\nservers.a = '10.0.0.1'\n"
    );
    let forwards: Vec<_> = accepted(&text).pools.into_values().map(|pool| pool.forward.clone()).collect();
    assert_eq!(forwards, [Forward::Nat { snat: vec![ip("10.0.0.9")] }, Forward::Gue { port: 6090 }, Forward::Dsr]);
}

#[test]
fn a_pool_may_serve_several_listeners() {
    let text = format!(
        "{NODE}[defaults]\nmode = 'l4'\n[listener.a]\nbind = '192.0.2.1:80'\npool = 'x'\n[listener.b]\nbind = '192.0.2.2:80'\npool = 'x'\n[pool.x]\nservers.a = '10.0.0.1'\n"
    );
    let config = accepted(&text);
    let binds: Vec<_> = config.binds().map(|(bind, listener, name)| (bind.to_string(), listener.pool.as_str(), name)).collect();
    assert_eq!(binds, [("192.0.2.1:80/tcp".to_owned(), "x", "a"), ("192.0.2.2:80/tcp".to_owned(), "x", "b")]);
}

#[test]
fn one_address_may_have_a_port_in_both_protocols_and_every_other_port() {
    let text = format!(
        "{NODE}[listener.a]\nmode = 'l4'\nbind = ['[2001:db8::1]:53', '[2001:db8::1]:53/udp', '[2001:db8::1]:*/udp']\npool = 'x'\n[pool.x]\nservers.a = '2001:db8::2'\n"
    );
    let binds: Vec<_> = accepted(&text).binds().map(|(bind, ..)| bind.to_string()).collect();
    assert_eq!(binds, ["[2001:db8::1]:53/tcp", "[2001:db8::1]:53/udp", "[2001:db8::1]:*/udp"]);
}
