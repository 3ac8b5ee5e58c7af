//! Nodes that die: how long a client has no answer, at short intervals, and on a busy machine.

use std::{process::Command, time::Duration};

use weir_tests::{
    lab::{Family, Weir, wait_until},
    vrrp::{Cluster, await_state, router},
};

const SOON: Duration = Duration::from_secs(20);

/// Kills the first node so often, each time at another phase of its adverts: the longest time without an answer, in milliseconds.
fn worst_of_deaths(cluster: &Cluster, nodes: &[Weir<'_>; 2], deaths: u64) -> f64 {
    let [first, second] = nodes;
    let mut worst: f64 = 0.0;
    for death in 0..deaths {
        await_state(first, "active").unwrap();
        await_state(second, "backup").unwrap();
        let probe = cluster.probe(Family::V4).unwrap();
        std::thread::sleep(Duration::from_millis(200 + 37 * death));
        // The power fails: nothing more comes from there, nor gets there.
        cluster.lab.set_carrier(0, false).unwrap();
        await_state(second, "active").unwrap();
        let report = probe.end().unwrap();
        worst = worst.max(report.longest_gap_ms);
        cluster.lab.set_carrier(0, true).unwrap();
    }
    worst
}

fn nodes<'a>(cluster: &'a Cluster, interval: &str) -> [Weir<'a>; 2] {
    let more = format!("interval = \"{interval}\"");
    [254, 250]
        .map(|priority| (usize::from(priority == 250), priority))
        .map(|(node, priority)| cluster.start(node, &cluster.config(Family::V4, priority, &more)).unwrap())
}

#[test]
fn ten_deaths_at_ten_milliseconds_cost_no_more_than_three_adverts_and_a_skew() {
    let cluster = Cluster::of(2).unwrap();
    let worst = worst_of_deaths(&cluster, &nodes(&cluster, "10ms"), 10);
    eprintln!("worst of ten deaths at 10 ms: {worst:.1} ms");
    assert!(worst <= 45.0, "{worst} ms");
}

#[test]
fn ten_deaths_at_a_hundred_milliseconds_cost_no_more_than_three_adverts_and_a_skew() {
    let cluster = Cluster::of(2).unwrap();
    let worst = worst_of_deaths(&cluster, &nodes(&cluster, "100ms"), 10);
    eprintln!("worst of ten deaths at 100 ms: {worst:.1} ms");
    assert!(worst <= 320.0, "{worst} ms");
}

#[test]
fn sixteen_busy_loops_cause_no_failover_at_ten_milliseconds() {
    let cluster = Cluster::of(2).unwrap();
    let [first, second] = nodes(&cluster, "10ms");
    await_state(&first, "active").unwrap();
    await_state(&second, "backup").unwrap();
    let spin = || Command::new("/bin/sh").args(["-c", "while :; do :; done"]).spawn().unwrap();
    let mut loops: Vec<_> = (0..16).map(|_| spin()).collect();
    std::thread::sleep(Duration::from_secs(10));
    for one in &mut loops {
        one.kill().unwrap();
        one.wait().unwrap();
    }
    let became_active = |weir: &Weir<'_>| router(weir).unwrap_or_default()["became_active"].as_u64();
    wait_until("the nodes to tell", SOON, || became_active(&first).is_some() && became_active(&second).is_some()).unwrap();
    assert_eq!((became_active(&first), became_active(&second)), (Some(1), Some(0)), "{}", second.stderr());
}
