//! A virtual router with a link-layer address of its own: what neighbours know of it outlives every hand-over.

use std::{net::SocketAddr, thread, time::Duration};

use weir_tests::{
    lab::{Family, TcpLoad, TcpServer, Weir, wait_until},
    peer::claim::{hear, octets, solicit},
    vrrp::{Cluster, active, await_state, backup, kill_all, router, turns, view},
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
        thread::sleep(Duration::from_millis(300));
        assert!(neighbour(&cluster, family).contains(mac), "{}", neighbour(&cluster, family));
        // One that waits has its interface ready, and turned off.
        assert!(macvlan(&cluster, 0, family).contains(",UP"), "{}", macvlan(&cluster, 0, family));
        assert!(macvlan(&cluster, 1, family).contains(mac) && !macvlan(&cluster, 1, family).contains(",UP"));
        // A router of the link would give it an address, and a way to everywhere.
        let accepts = || cluster.lab.nodes[0].namespace.run("cat", &["/proc/sys/net/ipv6/conf/vrrp6-7/accept_ra"]).unwrap();
        assert!(family == Family::V4 || accepts().trim() == "0", "{}", accepts());
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
        thread::sleep(Duration::from_millis(300));
        cluster.lab.set_carrier(0, false).unwrap();
        await_state(&second, "active").unwrap();
        cluster.lab.set_carrier(0, true).unwrap();
        await_state(&first, "active").unwrap();
        let report = probe.end().unwrap();
        eprintln!("carrier lost and back, {family:?}: {report:?}");
        assert!(report.longest_gap_ms < 400.0, "{report:?}");
        assert_eq!(turns(&report), ["node1", "node2", "node1"]);

        // What a process that was killed left is found by the next one.
        let macs = |weir: &Weir<'_>| String::from_utf8_lossy(&weir.operate(&["bpf", "MACS"]).unwrap().stdout).into_owned();
        assert!(macs(&first).contains(mac) && macs(&first).contains("s more"), "{}", macs(&first));
        kill_all(&mut first).unwrap();
        await_state(&second, "active").unwrap();
        wait_until("one holder", SOON, || cluster.holders(family) == [1]).unwrap();
        wait_until("the program to leave its frames alone", SOON, || macs(&first).contains("these: no more")).unwrap();
        first.run().unwrap();
        await_state(&first, "active").unwrap();
        assert!(neighbour(&cluster, family).contains(mac), "{}", neighbour(&cluster, family));
        first.terminate().unwrap();
        assert_eq!(macvlan(&cluster, 0, family), "");
    }
}

/// Whether a frame is an advert with this priority.
fn is_advert_of(frame: &[u8], family: Family, priority: u8) -> bool {
    let (protocol, payload) = if family == Family::V4 { (23, 34) } else { (20, 54) };
    frame[protocol] == 112 && frame[payload + 2] == priority
}

#[test]
fn a_node_that_has_handed_over_answers_nobody_by_the_address_that_switches_know() {
    // It has the addresses for 50 ms more; who asks hears the other node.
    const MEANWHILE: Duration = Duration::from_millis(60);
    const TIME: Duration = Duration::from_millis(800);
    for (family, mac) in [(Family::V4, [0, 0, 0x5e, 0, 1, 7]), (Family::V6, [0, 0, 0x5e, 0, 2, 7])] {
        let cluster = Cluster::of(2).unwrap();
        let first = active(&cluster, 0, &cluster.config(family, 254, FAST)).unwrap();
        let second = backup(&cluster, 1, &cluster.config(family, 250, FAST)).unwrap();
        let (vip, server) = (cluster.vip(family), &cluster.lab.servers[0]);
        let asker = (server.address(family), octets(&server.mac("eth0").unwrap()));
        let (mut before, mut after) = (0, 0);
        for _ in 0..3 {
            assert!(first.operate(&["vrrp", "yield"]).unwrap().status.success());
            await_state(&second, "active").unwrap();
            await_state(&first, "backup").unwrap();
            let heard = thread::scope(|scope| {
                let ear = scope.spawn(|| cluster.lab.nodes[1].namespace.enter(|| hear("eth0", TIME, |frame| frame[6..12] == mac)).unwrap());
                let mouth = scope.spawn(|| server.namespace.enter(|| solicit("eth0", vip, asker, 1000, TIME)).unwrap());
                thread::sleep(TIME / 4);
                assert!(first.operate(&["vrrp", "ready"]).unwrap().status.success());
                mouth.join().unwrap();
                ear.join().unwrap()
            });
            await_state(&first, "active").unwrap();
            // What this one says leaves it; what the other one answers is not heard here.
            let (taken_over, _) = heard.iter().find(|(_, frame)| is_advert_of(frame, family, 254)).unwrap();
            let answers = heard.iter().filter(|(_, frame)| frame[..6] == asker.1).map(|(at, _)| at);
            for at in answers {
                before += u32::from(at < taken_over);
                after += u32::from(at > taken_over && *at < *taken_over + MEANWHILE);
            }
        }
        eprintln!("{family:?}: {before} answers before the other node's advert, {after} after it");
        assert!(before > 100 && after < 30, "{before}, {after}");
    }
}

#[test]
fn a_virtual_mac_that_comes_or_goes_costs_nothing() {
    let without = FAST.replace("virtual_mac = true", "");
    for family in Family::ALL {
        let cluster = Cluster::of(2).unwrap();
        let first = active(&cluster, 0, &cluster.config(family, 150, FAST)).unwrap();
        let second = backup(&cluster, 1, &cluster.config(family, 100, FAST)).unwrap();
        let probe = cluster.probe(family).unwrap();
        for (more, is_there) in [(without.as_str(), false), (FAST, true), (&without, false)] {
            thread::sleep(Duration::from_millis(300));
            first.write_config(&cluster.config(family, 150, more)).unwrap();
            wait_until("the macvlan", SOON, || macvlan(&cluster, 0, family).is_empty() != is_there).unwrap();
        }
        thread::sleep(Duration::from_millis(300));
        let report = probe.end().unwrap();
        eprintln!("a virtual MAC gone, back and gone, {family:?}: {report:?}");
        assert!(report.lost <= 6, "{report:?}");
        assert_eq!((turns(&report), router(&second).unwrap()["state"].as_str()), (vec!["node1"], Some("backup")));
        assert_eq!(cluster.holders(family), [0]);
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
    let load = TcpLoad::start(&cluster.lab.client().namespace, to, 50, Duration::from_millis(50), Duration::from_secs(3600)).unwrap();
    load.wait_opened().unwrap();
    for _ in 0..3 {
        assert!(first.operate(&["vrrp", "yield"]).unwrap().status.success());
        await_state(&second, "active").unwrap();
        thread::sleep(Duration::from_millis(300));
        assert!(first.operate(&["vrrp", "ready"]).unwrap().status.success());
        await_state(&first, "active").unwrap();
        thread::sleep(Duration::from_millis(300));
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

#[test]
fn of_several_routers_each_answers_for_its_own_address_alone() {
    let cluster = Cluster::of(2).unwrap();
    let config = |priority: u8| {
        format!(
            "{}[vrrp.other]\ninterface = \"eth0\"\nrouter_id = 8\npriority = {priority}\naddresses = [\"10.1.0.101/24\"]\n{FAST}\n\
             [vrrp.six]\ninterface = \"eth0\"\nrouter_id = 7\npriority = {priority}\naddresses = [\"{}/64\"]\n{FAST}\n",
            cluster.config(Family::V4, priority, FAST),
            cluster.vip(Family::V6)
        )
    };
    let mut first = active(&cluster, 0, &config(254)).unwrap();
    let second = backup(&cluster, 1, &config(250)).unwrap();
    let are_active =
        |weir: &Weir<'_>| view(weir).is_ok_and(|view| view["routers"].as_array().unwrap().iter().all(|one| one["state"] == "active"));
    wait_until("three active routers", SOON, || are_active(&first)).unwrap();
    let own = cluster.lab.nodes[0].mac("eth0").unwrap();
    let client = &cluster.lab.client().namespace;
    for _ in 0..5 {
        client.ip("neigh flush dev eth0").unwrap();
        for (address, mac) in [("10.1.0.100", "00:00:5e:00:01:07"), ("10.1.0.101", "00:00:5e:00:01:08"), ("10.1.0.1", own.as_str())] {
            client.run("bash", &["-c", &format!("echo > /dev/udp/{address}/9")]).unwrap();
            let known = || client.ip(&format!("neigh show {address} dev eth0")).unwrap_or_default();
            wait_until("an answer", SOON, || known().contains("lladdr")).unwrap();
            // A second answer would come at once.
            thread::sleep(Duration::from_millis(20));
            assert!(known().contains(mac), "{address}: {}, not {mac}", known());
        }
    }
    // One that goes leaves the others alone.
    let probe = cluster.probe(Family::V4).unwrap();
    assert!(first.operate(&["vrrp", "yield", "other"]).unwrap().status.success());
    assert!(first.operate(&["vrrp", "yield", "six"]).unwrap().status.success());
    wait_until("two to be the other's", SOON, || {
        view(&second).is_ok_and(|view| view["routers"].as_array().unwrap().iter().filter(|one| one["state"] == "active").count() == 2)
    })
    .unwrap();
    thread::sleep(Duration::from_millis(300));
    let report = probe.end().unwrap();
    assert_eq!((report.lost, turns(&report)), (0, vec!["node1"]), "{report:?}");
    // What is left of processes that were killed goes when the node is stopped.
    kill_all(&mut first).unwrap();
    assert_ne!(macvlan(&cluster, 0, Family::V4), "");
    assert!(first.operate(&["stop"]).unwrap().status.success());
    assert_eq!((macvlan(&cluster, 0, Family::V4), macvlan(&cluster, 0, Family::V6)), (String::new(), String::new()));
}
