//! What becomes of connections through a virtual address when another node takes over.

use std::{net::SocketAddr, time::Duration};

use weir_tests::{
    lab::{Family, ServerSetup, TcpLoad, TcpServer, wait_until},
    vrrp::{Cluster, active, await_state, backup, kill_all},
};

const SOON: Duration = Duration::from_secs(20);
const FAST: &str = "interval = \"100ms\"";
const CONNECTIONS: usize = 50;

/// Three hand-overs under load: a yield, a preempting return, a death. Both nodes choose servers by the same table.
fn live_on(forward: &str, family: Family) {
    let cluster = Cluster::of(2).unwrap();
    let server = &cluster.lab.servers[0];
    let vip = cluster.vip(family);
    let _setup = if forward == "dsr" {
        server.hold(vip).unwrap();
        None
    } else {
        Some(ServerSetup::add(server, forward, &[vip]).unwrap())
    };
    let _serving = TcpServer::start(&server.namespace, "a", 80).unwrap();
    let config = |priority| cluster.config(family, priority, FAST).replace("forward = \"dsr\"", &format!("forward = \"{forward}\""));
    let mut first = active(&cluster, 0, &config(254)).unwrap();
    let second = backup(&cluster, 1, &config(250)).unwrap();
    let to = SocketAddr::new(vip, 80);
    let load =
        TcpLoad::start(&cluster.lab.client().namespace, to, CONNECTIONS, Duration::from_millis(50), Duration::from_secs(3600)).unwrap();
    load.wait_opened().unwrap();
    assert!(first.operate(&["vrrp", "yield"]).unwrap().status.success());
    await_state(&second, "active").unwrap();
    assert!(first.operate(&["vrrp", "ready"]).unwrap().status.success());
    await_state(&first, "active").unwrap();
    kill_all(&mut first).unwrap();
    await_state(&second, "active").unwrap();
    wait_until("one holder", SOON, || cluster.holders(family) == [1]).unwrap();
    let report = load.finish().unwrap();
    eprintln!("{CONNECTIONS} connections of {forward}, {family:?}, over three hand-overs: {report:?}");
    assert_eq!((report.opened, report.refused.len(), report.broken.len()), (CONNECTIONS, 0, 0), "{report:?}");
}

#[test]
fn connections_of_dsr_live_on_over_every_hand_over() {
    live_on("dsr", Family::V4);
    live_on("dsr", Family::V6);
}

#[test]
fn connections_of_ipip_live_on_over_every_hand_over() {
    live_on("ipip", Family::V4);
    live_on("ipip", Family::V6);
}

#[test]
fn connections_of_nat_are_reset_and_counted_for_nobody_else_knows_them() {
    let cluster = Cluster::of(2).unwrap();
    let _serving = TcpServer::start(&cluster.lab.servers[0].namespace, "a", 80).unwrap();
    let config = |priority| cluster.config(Family::V4, priority, FAST).replace("forward = \"dsr\"", "forward = \"nat\"");
    let first = active(&cluster, 0, &config(254)).unwrap();
    let second = backup(&cluster, 1, &config(250)).unwrap();
    let to = SocketAddr::new(cluster.vip(Family::V4), 80);
    let open =
        || TcpLoad::start(&cluster.lab.client().namespace, to, CONNECTIONS, Duration::from_millis(50), Duration::from_secs(3600)).unwrap();
    let load = open();
    load.wait_opened().unwrap();
    assert!(first.operate(&["vrrp", "yield"]).unwrap().status.success());
    await_state(&second, "active").unwrap();
    wait_until("all connections to be reset", SOON, || load.broken().len() == CONNECTIONS).unwrap();
    assert!(load.broken().iter().all(|broken| broken.contains("reset by peer")), "{:?}", load.broken());
    let drops = || second.status().unwrap()["services"][0]["drops"].clone();
    wait_until("them to be counted", SOON, || drops()["nat-no-flow"].as_u64().is_some_and(|count| count >= CONNECTIONS as u64)).unwrap();
    // New ones are served.
    let load = open();
    load.wait_opened().unwrap();
    let report = load.finish().unwrap();
    assert_eq!((report.opened, report.refused.len(), report.broken.len()), (CONNECTIONS, 0, 0), "{report:?}");
}
