//! What happens within milliseconds: nodes that die, processes that are killed and replaced, at short intervals and on a busy machine.

use std::{
    process::Command,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rustix::process::Signal;
use weir_tests::{
    lab::{Family, Stopwatch, Weir, wait_until, without_pauses},
    peer::probe::ProbeReport,
    vrrp::{Cluster, active, await_state, backup, router, signal, speaker, speakers, turns},
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

/// Each has the machine to itself: what the others do would be measured too. A node that starts beside has a processor stand still.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The worst of ten deaths, in milliseconds, while no processor stands still for `pause`.
fn worst_of_ten(interval: &str, pause: Duration) -> f64 {
    let _alone = alone();
    let cluster = Cluster::of(2).unwrap();
    let nodes = nodes(&cluster, interval);
    let worst = without_pauses(pause, |stopwatch| {
        stopwatch.start();
        worst_of_deaths(&cluster, &nodes, 10)
    });
    eprintln!("worst of ten deaths at {interval}: {worst:.1} ms");
    worst
}

#[test]
fn ten_deaths_at_ten_milliseconds_cost_no_more_than_three_adverts_and_a_skew() {
    let worst = worst_of_ten("10ms", Duration::from_millis(10));
    assert!(worst <= 45.0, "{worst} ms");
}

#[test]
fn ten_deaths_at_a_hundred_milliseconds_cost_no_more_than_three_adverts_and_a_skew() {
    let worst = worst_of_ten("100ms", Duration::from_millis(15));
    assert!(worst <= 320.0, "{worst} ms");
}

#[test]
fn sixteen_busy_loops_cause_no_failover_at_ten_milliseconds() {
    let _alone = alone();
    let (became_active, said) = without_pauses(Duration::from_millis(10), |stopwatch| {
        let cluster = Cluster::of(2).unwrap();
        let [first, second] = nodes(&cluster, "10ms");
        await_state(&first, "active").unwrap();
        await_state(&second, "backup").unwrap();
        stopwatch.start();
        let spin = || Command::new("/bin/sh").args(["-c", "while :; do :; done"]).spawn().unwrap();
        let mut loops: Vec<_> = (0..16).map(|_| spin()).collect();
        std::thread::sleep(Duration::from_secs(10));
        for one in &mut loops {
            one.kill().unwrap();
            one.wait().unwrap();
        }
        let became_active = |weir: &Weir<'_>| router(weir).unwrap_or_default()["became_active"].as_u64();
        wait_until("the nodes to tell", SOON, || became_active(&first).is_some() && became_active(&second).is_some()).unwrap();
        ([became_active(&first), became_active(&second)], second.stderr())
    });
    assert_eq!(became_active, [Some(1), Some(0)], "{said}");
}

#[test]
fn a_node_whose_daemon_and_speaker_are_killed_goes_on_as_it_was() {
    let _alone = alone();
    for (interval, pause) in [("100ms", Duration::from_millis(100)), ("10ms", Duration::from_millis(10))] {
        let (report, others, away_ms) = without_pauses(pause, |stopwatch| killed_and_run_again(interval, stopwatch));
        eprintln!("kill -9 of the daemon and the speaker at {interval}: {report:?}");
        assert!(away_ms < 100, "it was never away: {away_ms}");
        assert!(report.lost <= 1, "{report:?}");
        assert_eq!((turns(&report), others), (vec!["node1"], Some(0)));
    }
}

/// What a client saw of the first node's daemon and speaker, how often the other became active, and by how much the time differs since the first is.
fn killed_and_run_again(interval: &str, stopwatch: &mut Stopwatch) -> (ProbeReport, Option<u64>, u64) {
    let cluster = Cluster::of(2).unwrap();
    let fast = format!("interval = \"{interval}\"");
    let mut first = active(&cluster, 0, &cluster.config(Family::V4, 150, &fast)).unwrap();
    let second = backup(&cluster, 1, &cluster.config(Family::V4, 100, &fast)).unwrap();
    wait_until("an heir", SOON, || speakers(&first).is_ok_and(|found| found.len() == 2)).unwrap();
    stopwatch.start();
    let probe = cluster.probe(Family::V4).unwrap();
    let pid = speaker(&first).unwrap();
    // The heir is told each second how everything is.
    std::thread::sleep(Duration::from_millis(1200));
    let since_ms = |weir: &Weir<'_>| router(weir).unwrap()["since_ms"].as_u64().unwrap();
    let before_ms = since_ms(&first);
    first.kill_9().unwrap();
    signal(pid, Signal::KILL).unwrap();
    // Longer than a lease.
    std::thread::sleep(Duration::from_secs(4));
    assert_eq!(cluster.holders(Family::V4), [0]);
    // The heir has one of its own.
    let found = speakers(&first).unwrap();
    assert_eq!((found.len(), found.contains(&pid)), (2, false));
    stopwatch.stop();
    first.run().unwrap();
    await_state(&first, "active").unwrap();
    assert!(found.contains(&speaker(&first).unwrap()));
    let away_ms = since_ms(&first).abs_diff(before_ms);
    let result = (probe.end().unwrap(), router(&second).unwrap()["became_active"].as_u64(), away_ms);
    first.terminate().unwrap();
    wait_until("no speaker", SOON, || speakers(&first).is_ok_and(|found| found.is_empty())).unwrap();
    result
}

#[test]
fn a_daemon_that_starts_delays_no_advert_of_ten_milliseconds() {
    let _alone = alone();
    let cluster = Cluster::of(2).unwrap();
    let config = |priority| cluster.config(Family::V4, priority, "interval = \"10ms\"");
    let mut first = active(&cluster, 0, &config(251)).unwrap();
    // It waits for 30.2 ms.
    let second = backup(&cluster, 1, &config(250)).unwrap();
    // One that starts may push a speaker to the processor that is kept.
    wait_until("both heirs", SOON, || [&first, &second].iter().all(|weir| speakers(weir).is_ok_and(|found| found.len() == 2))).unwrap();
    let probe = cluster.probe(Family::V4).unwrap();
    for _ in 0..12 {
        first.kill_9().unwrap();
        first.run().unwrap();
        await_state(&first, "active").unwrap();
    }
    let report = probe.end().unwrap();
    eprintln!("twelve starts of a daemon at 10 ms: {report:?}");
    assert_eq!((router(&second).unwrap()["became_active"].as_u64(), turns(&report)), (Some(0), vec!["node1"]), "{}", second.stderr());
    assert!(report.lost <= 1, "{report:?}");
}

#[test]
fn another_program_goes_on_where_the_first_was() {
    let _alone = alone();
    for interval in ["interval = \"100ms\"", "interval = \"10ms\""] {
        let cluster = Cluster::of(2).unwrap();
        let mut first = active(&cluster, 0, &cluster.config(Family::V4, 251, interval)).unwrap();
        let second = backup(&cluster, 1, &cluster.config(Family::V4, 250, interval)).unwrap();
        let probe = cluster.probe(Family::V4).unwrap();
        let before = speaker(&first).unwrap();
        first.kill_9().unwrap();
        first.replace_binary().unwrap();
        first.run().unwrap();
        wait_until("another speaker", SOON, || speaker(&first).is_ok_and(|pid| pid != before)).unwrap();
        await_state(&first, "active").unwrap();
        let report = probe.end().unwrap();
        eprintln!("another program, {interval}: {report:?}");
        assert!(report.lost <= 1, "{report:?}");
        assert_eq!(turns(&report), ["node1"]);
        assert_eq!(router(&second).unwrap()["became_active"], 0);
    }
}
