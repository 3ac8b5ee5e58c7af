//! Three nodes share an address.

use std::time::{Duration, Instant};

use weir_tests::{
    lab::{Family, Weir, wait_until},
    vrrp::{Cluster, active, await_state, backup, kill_all, router, turns},
};

const SOON: Duration = Duration::from_secs(20);
const FAST: &str = "interval = \"100ms\"";

fn became_active(weir: &Weir<'_>) -> u64 {
    router(weir).unwrap()["became_active"].as_u64().unwrap()
}

/// One after the other goes, in each of the ways in which nodes go, and comes back.
fn goes_round(family: Family, more: &str) {
    let cluster = Cluster::of(3).unwrap();
    let first = active(&cluster, 0, &cluster.config(family, 254, more)).unwrap();
    let mut second = backup(&cluster, 1, &cluster.config(family, 220, more)).unwrap();
    let third = backup(&cluster, 2, &cluster.config(family, 150, more)).unwrap();
    let probe = cluster.probe(family).unwrap();
    std::thread::sleep(Duration::from_millis(300));
    // The first loses its carrier: the next of two takes over, and the other does not stir.
    cluster.lab.set_carrier(0, false).unwrap();
    await_state(&second, "active").unwrap();
    assert_eq!((router(&third).unwrap()["state"].as_str(), became_active(&third)), (Some("backup"), 0));
    // The second's processes are killed: the last one takes over.
    kill_all(&mut second).unwrap();
    await_state(&third, "active").unwrap();
    wait_until("one holder", SOON, || cluster.holders(family) == [2]).unwrap();
    // Both come back, the lower first.
    second.run().unwrap();
    await_state(&second, "active").unwrap();
    cluster.lab.set_carrier(0, true).unwrap();
    await_state(&first, "active").unwrap();
    await_state(&second, "backup").unwrap();
    await_state(&third, "backup").unwrap();
    // Each of those that wait knows the others, and who is active.
    wait_until("all to be known", SOON, || {
        [&second, &third].iter().all(|weir| router(weir).unwrap()["active"].as_str() == router(&first).unwrap()["source"].as_str())
    })
    .unwrap();
    // A yield: the next takes over; when it yields too, the last.
    assert!(first.operate(&["vrrp", "yield"]).unwrap().status.success());
    await_state(&second, "active").unwrap();
    assert!(second.operate(&["vrrp", "yield"]).unwrap().status.success());
    await_state(&third, "active").unwrap();
    wait_until("one holder", SOON, || cluster.holders(family) == [2]).unwrap();
    let report = probe.end().unwrap();
    eprintln!("three nodes, {family:?} {more:?}: {report:?}");
    assert_eq!(turns(&report), ["node1", "node2", "node3", "node2", "node1", "node2", "node3"]);
    // The carrier costs the active-down interval; all else nothing, or what a busy machine delays.
    assert!(report.longest_gap_ms < 345.0 && report.lost - report.longest_row <= 5, "{report:?}");
}

#[test]
fn of_three_nodes_the_next_takes_over_and_the_last_stays_as_it_is() {
    goes_round(Family::V4, FAST);
    goes_round(Family::V6, FAST);
}

#[test]
fn of_three_unicast_peers_the_next_takes_over_and_the_last_stays_as_it_is() {
    // All have the same list.
    goes_round(Family::V4, &format!("{FAST}\npeers = [\"10.1.0.1\", \"10.1.0.2\", \"10.1.0.3\"]"));
}

#[test]
fn of_equal_priorities_the_greater_address_wins_and_those_who_do_not_preempt_leave_it_where_it_is() {
    let cluster = Cluster::of(3).unwrap();
    let config = cluster.config(Family::V4, 100, &format!("{FAST}\npreempt = false"));
    let nodes: Vec<Weir<'_>> = (0..3).map(|node| cluster.start(node, &config).unwrap()).collect();
    // They start one after the other; whoever is active then stays.
    wait_until("one holder", SOON, || cluster.holders(Family::V4).len() == 1).unwrap();
    let holder = cluster.holders(Family::V4)[0];
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(cluster.holders(Family::V4), [holder]);
    // It goes: of the two others the one of the greater address has it, by the skew of its timer or by its address.
    assert!(nodes[holder].operate(&["vrrp", "yield"]).unwrap().status.success());
    let next = if holder == 2 { 1 } else { 2 };
    await_state(&nodes[next], "active").unwrap();
    wait_until("one holder", SOON, || cluster.holders(Family::V4) == [next]).unwrap();
}

#[test]
fn an_owner_takes_its_addresses_whatever_others_say_and_a_delayed_start_claims_nothing_meanwhile() {
    let cluster = Cluster::of(3).unwrap();
    let second = active(&cluster, 1, &cluster.config(Family::V4, 254, FAST)).unwrap();
    // An owner does not listen first.
    let owner = active(&cluster, 0, &cluster.config(Family::V4, 255, &format!("{FAST}\npreempt = false"))).unwrap();
    await_state(&second, "backup").unwrap();
    wait_until("one holder", SOON, || cluster.holders(Family::V4) == [0]).unwrap();
    drop(owner);
    await_state(&second, "active").unwrap();
    let began = Instant::now();
    let _third = active(&cluster, 2, &cluster.config(Family::V4, 255, &format!("{FAST}\nstart_delay = \"3s\""))).unwrap();
    assert!(began.elapsed() > Duration::from_secs(3), "{:?}", began.elapsed());
    await_state(&second, "backup").unwrap();
}
