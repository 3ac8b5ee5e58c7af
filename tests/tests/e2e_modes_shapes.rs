//! Networks that are not the plain ones: servers behind a gateway, a node whose VIPs lie on a bridge's port, generic XDP.

use std::time::Duration;

use weir_tests::{
    lab::{Far, Shape, TcpLoad, Topology, UdpLoad, Weir, http_servers, http_tally, tcp_bulk, wait_until},
    modes::{self, ECHO, Mode, WEB},
};

const LIMIT: Duration = Duration::from_secs(20);

/// HTTP, UDP and 8 MiB of TCP each way, through every mode.
fn all_is_carried(lab: &Topology, weir: &Weir<'_>, modes: &[Mode], servers: &[&str]) {
    let client = &lab.client().namespace;
    for (index, mode) in modes.iter().enumerate() {
        let (web, echo) = (modes::vip(lab, modes, index, WEB), modes::vip(lab, modes, index, ECHO));
        let tally = http_servers(client, format!("http://{web}/"), servers.len()).unwrap_or_else(|error| panic!("{mode}: {error:#}"));
        assert_eq!(tally.keys().collect::<Vec<_>>(), servers, "{mode}");
        let udp = UdpLoad::start(client, echo, 10, Duration::from_millis(20), Duration::from_millis(100)).unwrap().report().unwrap();
        assert_eq!((udp.lost, udp.changed, udp.moved.len()), (0, 0, 0), "{mode}: {udp:?}: {:#}", weir.status().unwrap());
        tcp_bulk(client, echo, 8, LIMIT).unwrap_or_else(|error| panic!("{mode}: {error:#}"));
    }
}

/// How `weir status` shows the interfaces.
fn attached(weir: &Weir<'_>) -> Vec<(String, String)> {
    let status = weir.status().unwrap();
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    status["interfaces"].as_array().unwrap().iter().map(|one| (text(&one["name"]), text(&one["mode"]))).collect()
}

fn servers_behind_a_gateway(modes: &[Mode]) {
    let lab = Topology::builder(Shape::TwoArmed).servers(1).build().unwrap();
    let far = Far::behind(&lab.servers[0], 20, 1500).unwrap();
    far.route_on(lab.node(), &lab.servers[0]).unwrap();
    let _servers = modes::serve_by([&far.host], &lab, modes).unwrap();
    let weir = Weir::start(lab.node(), &modes::configuration_by(&[&far.host], &lab, modes)).unwrap();
    all_is_carried(&lab, &weir, modes, &["s1"]);
}

#[test]
fn servers_behind_a_gateway_are_reached_by_nat() {
    servers_behind_a_gateway(&Mode::PLAIN[..2]);
}

#[test]
fn servers_behind_a_gateway_are_reached_by_ipip() {
    servers_behind_a_gateway(Mode::IPIP);
}

/// The kernel's own offloads have to end where frames are handled one by one: a redirected super-packet is lost.
fn without_super_packets(lab: &Topology) {
    for host in lab.clients.iter().chain(&lab.servers) {
        host.namespace.run("ethtool", &["-K", "eth0", "tx", "off", "tso", "off", "gso", "off"]).unwrap();
    }
    for host in &lab.nodes {
        for interface in host.interfaces {
            host.namespace.run("ethtool", &["-K", interface, "gro", "off", "tso", "off", "gso", "off"]).unwrap();
        }
    }
}

#[test]
fn nat_and_dsr_work_in_generic_mode() {
    let lab = Topology::builder(Shape::TwoArmed).build().unwrap();
    without_super_packets(&lab);
    let _servers = modes::serve(&lab, Mode::PLAIN).unwrap();
    let configuration = format!("xdp = \"generic\"\n{}", modes::configuration(&lab, Mode::PLAIN));
    let weir = Weir::start(lab.node(), &configuration).unwrap();
    assert_eq!(attached(&weir), [("eth0", "generic"), ("eth1", "generic")].map(|(name, mode)| (name.to_owned(), mode.to_owned())));
    all_is_carried(&lab, &weir, Mode::PLAIN, &["s1", "s2"]);
}

/// The node's address moves to a bridge over its first interface; the program stays on the interface.
#[test]
fn vips_of_a_bridge_are_served_on_its_port() {
    let lab = Topology::builder(Shape::TwoArmed).build().unwrap();
    let node = &lab.node().namespace;
    node.ip("link add br0 type bridge stp_state 0 forward_delay 0 mcast_snooping 0").unwrap();
    node.ip("link set br0 up").unwrap();
    // The bridge speaks with the port's own link-layer address.
    node.ip(&format!("link set br0 address {}", lab.node().mac("eth0").unwrap())).unwrap();
    node.ip("addr flush dev eth0").unwrap();
    node.ip("link set eth0 master br0").unwrap();
    node.ip(&format!("addr add {}/24 dev br0", lab.node().v4)).unwrap();
    node.ip(&format!("addr add {}/64 dev br0 nodad", lab.node().v6)).unwrap();
    let _servers = modes::serve(&lab, Mode::PLAIN).unwrap();
    // VIPs on the port would not be answered for: the bridge has the network.
    for (index, _) in Mode::PLAIN.iter().enumerate() {
        let vip = modes::vip(&lab, Mode::PLAIN, index, 0).ip();
        node.ip(&format!("addr add {vip}{} dev br0", if vip.is_ipv4() { "/32" } else { "/128 nodad preferred_lft 0" })).unwrap();
    }
    let weir = Weir::start(lab.node(), &modes::configuration(&lab, Mode::PLAIN)).unwrap();
    assert_eq!(attached(&weir), [("eth0", "native"), ("eth1", "native")].map(|(name, mode)| (name.to_owned(), mode.to_owned())));
    all_is_carried(&lab, &weir, Mode::PLAIN, &["s1", "s2"]);
}

#[test]
fn the_nodes_link_layer_address_may_change_while_it_runs() {
    let lab = Topology::builder(Shape::TwoArmed).servers(1).build().unwrap();
    let _servers = modes::serve(&lab, &Mode::PLAIN[..1]).unwrap();
    let weir = Weir::start(lab.node(), &modes::configuration(&lab, &Mode::PLAIN[..1])).unwrap();
    all_is_carried(&lab, &weir, &Mode::PLAIN[..1], &["s1"]);
    let echo = modes::vip(&lab, &Mode::PLAIN[..1], 0, ECHO);
    let load = TcpLoad::start(&lab.client().namespace, echo, 40, Duration::from_millis(50), Duration::from_secs(30)).unwrap();
    load.wait_opened().unwrap();
    lab.node().namespace.run("ip", &["link", "set", "eth0", "address", "02:00:00:12:34:56"]).unwrap();
    // Clients hear of it a moment later than the daemon.
    std::thread::sleep(Duration::from_millis(100));
    lab.client().namespace.run("ip", &["neigh", "flush", "dev", "eth0"]).unwrap();
    let web = modes::vip(&lab, &Mode::PLAIN[..1], 0, WEB);
    let answers = || http_tally(&lab.client().namespace, format!("http://{web}/"), 1).is_ok();
    wait_until("the node to answer by its new address", LIMIT, answers).unwrap();
    std::thread::sleep(Duration::from_secs(1));
    let report = load.finish().unwrap();
    assert!(report.broken.is_empty() && report.longest_answer < Duration::from_secs(2), "{report:?}");
    all_is_carried(&lab, &weir, &Mode::PLAIN[..1], &["s1"]);
}
