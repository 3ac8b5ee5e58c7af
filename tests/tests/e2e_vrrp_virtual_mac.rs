//! A virtual router with a link-layer address of its own: what neighbours know of it outlives every hand-over.

use std::{net::SocketAddr, time::Duration};

use weir_tests::{
    lab::{Family, TcpLoad, TcpServer, wait_until},
    vrrp::{Cluster, active, await_state, backup, kill_all, router, turns},
};

const SOON: Duration = Duration::from_secs(20);
const FAST: &str = "interval = \"100ms\"\nvirtual_mac = true";

/// What the client knows of the virtual address.
fn neighbour(cluster: &Cluster, family: Family) -> String {
    cluster.lab.client().namespace.ip(&format!("neigh show {} dev eth0", cluster.vip(family))).unwrap()
}

/// A node's macvlan; empty: it has none.
fn macvlan(cluster: &Cluster, node: usize, family: Family) -> String {
    let name = if family == Family::V4 { "vrrp4-7" } else { "vrrp6-7" };
    cluster.lab.nodes[node].namespace.ip(&format!("-o link show dev {name}")).unwrap_or_default()
}

#[test]
fn neighbours_keep_the_address_that_they_know_over_every_hand_over() {
    for (family, mac) in [(Family::V4, "00:00:5e:00:01:07"), (Family::V6, "00:00:5e:00:02:07")] {
        let cluster = Cluster::of(2).unwrap();
        let mut first = active(&cluster, 0, &cluster.config(family, 254, FAST)).unwrap();
        let second = backup(&cluster, 1, &cluster.config(family, 250, FAST)).unwrap();
        assert_eq!(router(&first).unwrap()["virtual_mac"], mac);
        let probe = cluster.probe(family).unwrap();
        std::thread::sleep(Duration::from_millis(300));
        assert!(neighbour(&cluster, family).contains(mac), "{}", neighbour(&cluster, family));
        // One that waits has its interface ready, and turned off.
        assert!(macvlan(&cluster, 0, family).contains(",UP"), "{}", macvlan(&cluster, 0, family));
        assert!(macvlan(&cluster, 1, family).contains(mac) && !macvlan(&cluster, 1, family).contains(",UP"));
        assert!(first.operate(&["vrrp", "yield"]).unwrap().status.success());
        await_state(&second, "active").unwrap();
        await_state(&first, "backup").unwrap();
        wait_until("one holder", SOON, || cluster.holders(family) == [1]).unwrap();
        assert!(neighbour(&cluster, family).contains(mac), "{}", neighbour(&cluster, family));
        assert!(first.operate(&["vrrp", "ready"]).unwrap().status.success());
        await_state(&first, "active").unwrap();
        await_state(&second, "backup").unwrap();
        let report = probe.end().unwrap();
        eprintln!("yield and return, {family:?}: {report:?}");
        assert!(report.lost <= 2, "{report:?}");
        assert_eq!(turns(&report), ["node1", "node2", "node1"]);

        let probe = cluster.probe(family).unwrap();
        std::thread::sleep(Duration::from_millis(300));
        cluster.lab.set_carrier(0, false).unwrap();
        await_state(&second, "active").unwrap();
        cluster.lab.set_carrier(0, true).unwrap();
        await_state(&first, "active").unwrap();
        let report = probe.end().unwrap();
        eprintln!("carrier lost and back, {family:?}: {report:?}");
        assert!(report.longest_gap_ms < 400.0, "{report:?}");
        assert_eq!(turns(&report), ["node1", "node2", "node1"]);

        // What a process that was killed left is found by the next one.
        kill_all(&mut first).unwrap();
        await_state(&second, "active").unwrap();
        wait_until("one holder", SOON, || cluster.holders(family) == [1]).unwrap();
        first.run().unwrap();
        await_state(&first, "active").unwrap();
        assert!(neighbour(&cluster, family).contains(mac), "{}", neighbour(&cluster, family));
        first.terminate().unwrap();
        assert_eq!(macvlan(&cluster, 0, family), "");
    }
}

#[test]
fn connections_go_on_by_the_fast_path_of_whichever_node_is_active() {
    let cluster = Cluster::of(2).unwrap();
    let server = &cluster.lab.servers[0];
    server.hold(cluster.vip(Family::V4)).unwrap();
    let _serving = TcpServer::start(&server.namespace, "a", 80).unwrap();
    let first = active(&cluster, 0, &cluster.config(Family::V4, 254, FAST)).unwrap();
    let second = backup(&cluster, 1, &cluster.config(Family::V4, 250, FAST)).unwrap();
    let to = SocketAddr::new(cluster.vip(Family::V4), 80);
    let load = TcpLoad::start(&cluster.lab.client().namespace, to, 50, Duration::from_millis(50), Duration::from_secs(60)).unwrap();
    load.wait_opened().unwrap();
    for _ in 0..3 {
        assert!(first.operate(&["vrrp", "yield"]).unwrap().status.success());
        await_state(&second, "active").unwrap();
        std::thread::sleep(Duration::from_millis(300));
        assert!(first.operate(&["vrrp", "ready"]).unwrap().status.success());
        await_state(&first, "active").unwrap();
        std::thread::sleep(Duration::from_millis(300));
    }
    let packets = |weir: &weir_tests::lab::Weir<'_>| {
        let status = weir.status().unwrap();
        status["services"][0]["members"][0]["packets"].as_u64().unwrap()
    };
    let of_each = (packets(&first), packets(&second));
    eprintln!("packets of each node: {of_each:?}");
    assert!(of_each.0 > 100 && of_each.1 > 100, "{of_each:?}");
    let report = load.finish().unwrap();
    assert_eq!((report.opened, report.refused.len(), report.broken.len()), (50, 0, 0), "{report:?}");
}

#[test]
fn an_interface_that_has_the_name_already_is_a_fault_and_told() {
    let cluster = Cluster::of(1).unwrap();
    let node = &cluster.lab.nodes[0].namespace;
    node.ip("link add vrrp4-7 type veth peer name other").unwrap();
    let weir = cluster.start(0, &cluster.config(Family::V4, 150, FAST)).unwrap();
    await_state(&weir, "fault").unwrap();
    let why = router(&weir).unwrap()["faults"].to_string();
    assert!(why.contains("another interface has its name"), "{why}");
    assert_eq!(cluster.holders(Family::V4), [0_usize; 0]);
    // Another name is another interface.
    weir.write_config(&cluster.config(Family::V4, 150, "interval = \"100ms\"\nvirtual_mac = \"vip7\"")).unwrap();
    await_state(&weir, "active").unwrap();
    assert!(node.ip("-o addr show dev vip7").unwrap().contains("10.1.0.100/24"));
    // And without: it goes.
    weir.write_config(&cluster.config(Family::V4, 150, "interval = \"100ms\"")).unwrap();
    wait_until("the macvlan to go", SOON, || node.ip("-o link show dev vip7").is_err()).unwrap();
    let has_address = || node.ip("-o addr show dev eth0").is_ok_and(|text| text.contains("10.1.0.100/24"));
    wait_until("the address to be the interface's", SOON, has_address).unwrap();
}
