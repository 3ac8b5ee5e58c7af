//! An L4 listener in front of a NAT pool, end to end.

use std::{net::SocketAddr, time::Duration};

use weir_tests::{
    demo,
    lab::{Shape, TcpLoad, TcpServer, Topology, Weir, http_tally, wait_until},
};

const WEB: &str = r#"
[listener.web]
mode = "l4"
bind = ["10.1.0.100:80"]
pool = "web"

[pool.web]
forward = "nat"
servers.s1 = "10.2.0.11:80"
servers.s2 = "10.2.0.12:80"
"#;

#[test]
fn requests_to_the_vip_are_shared_by_the_servers() {
    let lab = Topology::builder(Shape::TwoArmed).build().unwrap();
    let _servers: Vec<_> = lab.servers.iter().enumerate().map(|server| demo::serve(server).unwrap()).collect();
    let _weir = Weir::start(lab.node(), WEB).unwrap();
    let tally = http_tally(&lab.client().namespace, "http://10.1.0.100/", 40).unwrap();
    assert_eq!(tally.keys().collect::<Vec<_>>(), ["s1", "s2"]);
}

#[test]
fn requests_are_served_while_the_daemon_is_dead() {
    let lab = Topology::builder(Shape::TwoArmed).build().unwrap();
    let _servers: Vec<_> = lab.servers.iter().enumerate().map(|server| demo::serve(server).unwrap()).collect();
    let mut weir = Weir::start(lab.node(), WEB).unwrap();
    weir.kill_9().unwrap();
    assert_eq!(http_tally(&lab.client().namespace, "http://10.1.0.100/", 10).unwrap().values().sum::<usize>(), 10);
    weir.run().unwrap();
    assert_eq!(http_tally(&lab.client().namespace, "http://10.1.0.100/", 10).unwrap().values().sum::<usize>(), 10);
}

/// The listener's pool, and how that forwards; the other pool has another server.
fn echo(lab: &Topology, pool: &str, forward: &str) -> String {
    format!(
        "[listener.echo]\nmode = \"l4\"\nbind = \"{}:7000\"\npool = \"{pool}\"\nslots = 256\n[pool.first]\nforward = \"{forward}\"\n\
         servers.s1 = \"{}\"\n[pool.second]\nforward = \"dsr\"\nservers.s2 = \"{}\"\n",
        lab.vip4(),
        lab.servers[0].v4,
        lab.servers[1].v4
    )
}

/// Turns from one file to the next under load: all connections are reset, by Weir, and new ones are served.
fn connections_are_reset(lab: &Topology, files: [(&str, &str); 2], counted: &str) {
    let servers = lab.servers.iter().enumerate();
    let _servers: Vec<_> =
        servers.map(|(index, host)| TcpServer::start(&host.namespace, &format!("s{}", index + 1), 7000).unwrap()).collect();
    for server in &lab.servers {
        server.hold_vips(lab.vip4(), lab.vip6()).unwrap();
    }
    let [before, after] = files.map(|(pool, forward)| echo(lab, pool, forward));
    let weir = Weir::start(lab.node(), &before).unwrap();
    let vip = SocketAddr::new(lab.vip4().into(), 7000);
    let open = |count, time| TcpLoad::start(&lab.client().namespace, vip, count, Duration::from_millis(200), time).unwrap();
    let load = open(30, Duration::from_secs(60));
    load.wait_opened().unwrap();
    weir.write_config(&after).unwrap();
    wait_until("all connections to be reset", Duration::from_secs(10), || load.broken().len() == 30).unwrap();
    assert!(load.broken().iter().all(|broken| broken.contains("reset by peer")), "{:?}", load.broken());
    let status = weir.status().unwrap();
    let drops = &status["services"][0]["drops"];
    assert!(drops[counted].as_u64() >= Some(30), "{drops}");
    assert!(open(30, Duration::from_millis(1)).report().unwrap().is_flawless(30));
}

#[test]
fn connections_are_reset_when_their_server_is_no_longer_reached_by_nat() {
    let lab = Topology::builder(Shape::OneArmed).build().unwrap();
    connections_are_reset(&lab, [("first", "nat"), ("first", "dsr")], "server-down");
}

#[test]
fn connections_are_reset_when_their_server_is_reached_by_nat() {
    let lab = Topology::builder(Shape::OneArmed).build().unwrap();
    connections_are_reset(&lab, [("first", "dsr"), ("first", "nat")], "nat-no-flow");
}

#[test]
fn connections_are_reset_when_a_pool_without_nat_takes_over() {
    let lab = Topology::builder(Shape::OneArmed).build().unwrap();
    connections_are_reset(&lab, [("first", "nat"), ("second", "nat")], "server-down");
}
