//! Virtual routers whose link-layer address or interface becomes another, and nodes that heard nothing of each other and meet again.

use std::{thread::sleep, time::Duration};

use weir_tests::{
    lab::{Family, Host, Weir, wait_until},
    vrrp::{Cluster, active, await_state, backup, router},
};

const SOON: Duration = Duration::from_secs(20);
const FAST: &str = "interval = \"100ms\"";

#[test]
fn another_link_layer_address_is_told_the_link_at_once() {
    for family in Family::ALL {
        let cluster = Cluster::of(2).unwrap();
        let first = active(&cluster, 0, &cluster.config(family, 150, FAST)).unwrap();
        let second = backup(&cluster, 1, &cluster.config(family, 100, FAST)).unwrap();
        let probe = cluster.probe(family).unwrap();
        sleep(Duration::from_millis(300));
        cluster.lab.nodes[0].namespace.ip("link set dev eth0 address 02:00:00:00:aa:01").unwrap();
        sleep(Duration::from_secs(1));
        let report = probe.end().unwrap();
        eprintln!("another link-layer address, {family:?}: {report:?}");
        assert!(report.lost <= 50, "{report:?}");
        assert_eq!(
            ["active", "backup"],
            [&first, &second].map(|weir| router(weir).unwrap()["state"].as_str().unwrap().to_owned()).each_ref().map(String::as_str)
        );
    }
}

#[test]
fn an_active_router_that_gets_another_interface_hands_over_first() {
    let cluster = Cluster::of(2).unwrap();
    let node = &cluster.lab.nodes[0].namespace;
    node.ip("link add link eth0 name other0 type macvlan mode bridge").unwrap();
    node.ip("addr add 10.1.0.201/24 dev other0").unwrap();
    node.ip("link set other0 up").unwrap();
    let config = cluster.config(Family::V4, 150, FAST);
    let first = active(&cluster, 0, &config).unwrap();
    let second = backup(&cluster, 1, &cluster.config(Family::V4, 100, FAST)).unwrap();
    let speaks_on = |weir: &Weir<'_>, interface: &str| router(weir).is_ok_and(|router| router["interface"] == interface);

    let probe = cluster.probe(Family::V4).unwrap();
    sleep(Duration::from_millis(300));
    for (config, interface) in [(config.replace("interface = \"eth0\"", "interface = \"other0\""), "other0"), (config, "eth0")] {
        first.write_config(&config).unwrap();
        wait_until("the other interface", SOON, || speaks_on(&first, interface)).unwrap();
        // It has handed over, listened, and preempted.
        await_state(&first, "active").unwrap();
        await_state(&second, "backup").unwrap();
    }
    wait_until("one holder", SOON, || cluster.holders(Family::V4) == [0]).unwrap();
    let report = probe.end().unwrap();
    eprintln!("another interface and back: {report:?}");
    assert!(report.lost <= 4, "{report:?}");
}

fn hears(node: &Host, does: bool) {
    let rules = if does {
        "delete table inet deaf"
    } else {
        "table inet deaf { chain in { type filter hook input priority 0; ip protocol 112 drop; }; }"
    };
    node.namespace.run("nft", &[rules]).unwrap();
}

#[test]
fn nodes_that_meet_again_leave_the_link_with_the_one_that_stays() {
    let cluster = Cluster::of(2).unwrap();
    let first = active(&cluster, 0, &cluster.config(Family::V4, 150, FAST)).unwrap();
    let second = backup(&cluster, 1, &cluster.config(Family::V4, 100, FAST)).unwrap();
    let mut lost = Vec::new();
    for _ in 0..6 {
        let probe = cluster.probe(Family::V4).unwrap();
        // Neither hears the other's adverts: both are active, and each tells the link so.
        cluster.lab.nodes.iter().for_each(|node| hears(node, false));
        await_state(&second, "active").unwrap();
        sleep(Duration::from_millis(1200));
        cluster.lab.nodes.iter().for_each(|node| hears(node, true));
        await_state(&second, "backup").unwrap();
        sleep(Duration::from_millis(800));
        lost.push(probe.end().unwrap().lost);
        assert_eq!((router(&first).unwrap()["state"].as_str(), cluster.holders(Family::V4)), (Some("active"), vec![0]));
    }
    eprintln!("nodes that meet again: {lost:?}");
    assert!(lost.iter().all(|lost| *lost <= 20), "{lost:?}");
}
