//! Two nodes share an address: who has it, and what a client that asks each millisecond notices of every hand-over.

use std::time::Duration;

use rustix::process::Signal;
use weir_tests::{
    lab::{Family, wait_until},
    vrrp::{Cluster, active, await_state, backup, kill_all, router, signal, speaker, turns, view},
};

const SOON: Duration = Duration::from_secs(20);
const FAST: &str = "interval = \"100ms\"";

#[test]
fn the_node_of_higher_priority_has_the_address_and_a_yield_costs_nothing() {
    for family in Family::ALL {
        let cluster = Cluster::of(2).unwrap();
        let first = active(&cluster, 0, &cluster.config(family, 150, FAST)).unwrap();
        let second = backup(&cluster, 1, &cluster.config(family, 100, FAST)).unwrap();
        assert_eq!(cluster.holders(family), [0]);

        let probe = cluster.probe(family).unwrap();
        std::thread::sleep(Duration::from_millis(300));
        let said = first.operate(&["vrrp", "yield"]).unwrap();
        assert!(said.status.success(), "{said:?}");
        // It waits for the hand-over.
        assert_eq!(router(&first).unwrap()["state"], "backup", "{said:?}");
        let told = String::from_utf8_lossy(&said.stdout).into_owned();
        assert_eq!(told, format!("www: not active here any more: {} is\n", router(&second).unwrap()["source"].as_str().unwrap()));
        await_state(&second, "active").unwrap();
        wait_until("one holder", SOON, || cluster.holders(family) == [1]).unwrap();
        let report = probe.end().unwrap();
        eprintln!("yield, {family:?}: {report:?}");
        assert!(report.lost <= 1, "{report:?}");
        assert_eq!(turns(&report), ["node1", "node2"]);
        assert_eq!(router(&first).unwrap()["is_on_hold"], true);

        let probe = cluster.probe(family).unwrap();
        let said = first.operate(&["vrrp", "ready", "www"]).unwrap();
        assert!(said.status.success(), "{said:?}");
        await_state(&first, "active").unwrap();
        await_state(&second, "backup").unwrap();
        let report = probe.end().unwrap();
        eprintln!("preempting return, {family:?}: {report:?}");
        assert!(report.lost <= 1, "{report:?}");
        assert_eq!(turns(&report), ["node2", "node1"]);
    }
}

#[test]
fn a_yield_that_nobody_follows_is_told_and_leaves_the_address() {
    let cluster = Cluster::of(2).unwrap();
    let first = active(&cluster, 0, &cluster.config(Family::V4, 150, FAST)).unwrap();
    let said = || {
        let said = first.operate(&["vrrp", "yield", "www"]).unwrap();
        (said.status.code(), String::from_utf8_lossy(&said.stdout).into_owned())
    };
    assert_eq!(said(), (Some(1), "www: active here: nobody took over\n".to_owned()));
    assert_eq!((cluster.holders(Family::V4), router(&first).unwrap()["is_on_hold"].as_bool()), (vec![0], Some(false)));

    // The one that is there by then follows; who was not active has nothing to hand over.
    let second = backup(&cluster, 1, &cluster.config(Family::V4, 100, FAST)).unwrap();
    assert_eq!(said().0, Some(0));
    await_state(&second, "active").unwrap();
    assert_eq!(said(), (Some(0), "www: was not active here, 10.1.0.2 is; it leaves others alone\n".to_owned()));
}

#[test]
fn a_daemon_that_is_ended_hands_over_and_preempts_when_it_is_back() {
    let cluster = Cluster::of(2).unwrap();
    let mut first = active(&cluster, 0, &cluster.config(Family::V4, 150, FAST)).unwrap();
    let second = backup(&cluster, 1, &cluster.config(Family::V4, 100, FAST)).unwrap();
    let probe = cluster.probe(Family::V4).unwrap();
    std::thread::sleep(Duration::from_millis(300));
    first.terminate().unwrap();
    await_state(&second, "active").unwrap();
    assert_eq!(cluster.holders(Family::V4), [1]);
    first.run().unwrap();
    await_state(&first, "active").unwrap();
    await_state(&second, "backup").unwrap();
    let report = probe.end().unwrap();
    eprintln!("SIGTERM and return: {report:?}");
    assert!(report.lost <= 2, "{report:?}");
    assert_eq!(turns(&report), ["node1", "node2", "node1"]);
}

#[test]
fn the_other_node_takes_over_from_one_that_dies() {
    let cluster = Cluster::of(2).unwrap();
    let mut first = active(&cluster, 0, &cluster.config(Family::V4, 254, FAST)).unwrap();
    let second = backup(&cluster, 1, &cluster.config(Family::V4, 250, FAST)).unwrap();
    let probe = cluster.probe(Family::V4).unwrap();
    std::thread::sleep(Duration::from_millis(300));
    kill_all(&mut first).unwrap();
    await_state(&second, "active").unwrap();
    // What the dead one left goes by itself.
    wait_until("one holder", SOON, || cluster.holders(Family::V4) == [1]).unwrap();
    let report = probe.end().unwrap();
    eprintln!("kill -9 of both processes: {report:?}");
    // The address stays until the other takes it: nobody notices.
    assert!(report.lost <= 1, "{report:?}");
    assert_eq!(turns(&report), ["node1", "node2"]);
}

#[test]
fn a_daemon_that_dies_takes_nothing_along() {
    let cluster = Cluster::of(2).unwrap();
    let mut first = active(&cluster, 0, &cluster.config(Family::V4, 150, FAST)).unwrap();
    let second = backup(&cluster, 1, &cluster.config(Family::V4, 100, FAST)).unwrap();
    let probe = cluster.probe(Family::V4).unwrap();
    let before = speaker(&first).unwrap();
    first.kill_9().unwrap();
    // Longer than the other waits, and than a lease.
    std::thread::sleep(Duration::from_secs(4));
    first.run().unwrap();
    await_state(&first, "active").unwrap();
    assert_eq!(speaker(&first).unwrap(), before);
    // The speaker alone dies: another one goes on at once.
    signal(before, Signal::KILL).unwrap();
    wait_until("another speaker", SOON, || speaker(&first).is_ok_and(|pid| pid != before)).unwrap();
    await_state(&first, "active").unwrap();
    let report = probe.end().unwrap();
    eprintln!("kill -9 of the daemon, then of the speaker: {report:?}");
    assert!(report.lost <= 1, "{report:?}");
    assert_eq!(turns(&report), ["node1"]);
    assert_eq!(router(&second).unwrap()["became_active"], 0);
}

#[test]
fn a_lost_carrier_and_its_return_leave_no_black_hole() {
    let cluster = Cluster::of(2).unwrap();
    let first = active(&cluster, 0, &cluster.config(Family::V4, 150, FAST)).unwrap();
    let second = backup(&cluster, 1, &cluster.config(Family::V4, 100, FAST)).unwrap();
    let probe = cluster.probe(Family::V4).unwrap();
    std::thread::sleep(Duration::from_millis(300));
    cluster.lab.set_carrier(0, false).unwrap();
    await_state(&first, "fault").unwrap();
    await_state(&second, "active").unwrap();
    cluster.lab.set_carrier(0, true).unwrap();
    await_state(&first, "active").unwrap();
    await_state(&second, "backup").unwrap();
    let report = probe.end().unwrap();
    eprintln!("carrier lost and back: {report:?}");
    // The active-down interval at 100 ms and priority 100: 361 ms.
    assert!(report.longest_gap_ms < 420.0, "{report:?}");
    assert_eq!(turns(&report), ["node1", "node2", "node1"]);
}

#[test]
fn a_speaker_that_was_stopped_notices_it_and_its_address_goes() {
    let cluster = Cluster::of(2).unwrap();
    let first = active(&cluster, 0, &cluster.config(Family::V4, 150, FAST)).unwrap();
    let second = backup(&cluster, 1, &cluster.config(Family::V4, 100, FAST)).unwrap();
    let probe = cluster.probe(Family::V4).unwrap();
    let pid = speaker(&first).unwrap();
    signal(pid, Signal::STOP).unwrap();
    await_state(&second, "active").unwrap();
    wait_until("the address to go", SOON, || cluster.holders(Family::V4) == [1]).unwrap();
    signal(pid, Signal::CONT).unwrap();
    await_state(&first, "active").unwrap();
    await_state(&second, "backup").unwrap();
    let report = probe.end().unwrap();
    eprintln!("stopped and woken: {report:?}");
    assert!(report.lost <= 2, "{report:?}");
    assert_eq!(turns(&report), ["node1", "node2", "node1"]);
    let events = first.operate(&["events"]).unwrap();
    assert!(String::from_utf8_lossy(&events.stdout).contains("woke too late to go on"), "{events:?}");
}

#[test]
fn an_address_that_somebody_removes_is_put_back_and_an_owners_own_is_left_alone() {
    let cluster = Cluster::of(2).unwrap();
    let first = active(&cluster, 0, &cluster.config(Family::V4, 150, FAST)).unwrap();
    let node = &cluster.lab.nodes[0].namespace;
    node.ip(&format!("addr del {}/24 dev eth0", cluster.vip(Family::V4))).unwrap();
    wait_until("the address to be put back", Duration::from_secs(5), || cluster.holders(Family::V4) == [0]).unwrap();
    drop(first);
    wait_until("no holder", SOON, || cluster.holders(Family::V4).is_empty()).unwrap();
    node.ip(&format!("addr add {}/24 dev eth0", cluster.vip(Family::V4))).unwrap();
    let mut first = active(&cluster, 0, &cluster.config(Family::V4, 255, FAST)).unwrap();
    first.terminate().unwrap();
    assert_eq!(cluster.holders(Family::V4), [0]);
}

#[test]
fn what_is_watched_moves_the_address_and_programs_are_told_in_order() {
    let cluster = Cluster::of(2).unwrap();
    let folder = weir_tests::lab::Folder::new("vrrp").unwrap();
    let (file, told) = (folder.path().join("serve"), folder.path().join("told"));
    std::fs::write(&file, "").unwrap();
    let notify = format!("notify = [\"/bin/sh\", \"-c\", \"echo $WEIR_VRRP_STATE: $WEIR_VRRP_REASON >> {}\"]", told.display());
    let track = format!("track = [{{ file = {file:?}, weight = -100 }}, {{ data_plane = true }}]\n{notify}\n{FAST}");
    let first = active(&cluster, 0, &cluster.config(Family::V4, 150, &track)).unwrap();
    let second = backup(&cluster, 1, &cluster.config(Family::V4, 100, FAST)).unwrap();
    std::fs::remove_file(&file).unwrap();
    await_state(&second, "active").unwrap();
    await_state(&first, "backup").unwrap();
    assert_eq!(router(&first).unwrap()["priority"], 50);
    std::fs::write(&file, "").unwrap();
    await_state(&first, "active").unwrap();
    let heard = || std::fs::read_to_string(&told).unwrap_or_default();
    wait_until("the program to be told", SOON, || heard().lines().count() >= 4).unwrap();
    let states: Vec<String> = heard().lines().map(|line| line.split(':').next().unwrap_or_default().to_owned()).collect();
    assert_eq!(states, ["backup", "active", "backup", "active"], "{}", heard());
    assert!(view(&first).unwrap()["trouble"].is_null());
}

#[test]
fn a_node_that_dies_and_comes_back_at_once_leaves_one_holder() {
    let cluster = Cluster::of(2).unwrap();
    let mut first = active(&cluster, 0, &cluster.config(Family::V4, 150, FAST)).unwrap();
    let second = backup(&cluster, 1, &cluster.config(Family::V4, 100, FAST)).unwrap();
    let probe = cluster.probe(Family::V4).unwrap();
    kill_all(&mut first).unwrap();
    first.run().unwrap();
    await_state(&first, "active").unwrap();
    await_state(&second, "backup").unwrap();
    wait_until("one holder", SOON, || cluster.holders(Family::V4) == [0]).unwrap();
    let report = probe.end().unwrap();
    eprintln!("kill -9 of both processes, and start again: {report:?}");
    // A death may cost three adverts and a skew; the address that stays for its lease bridges nearly all of that.
    assert!(report.lost <= 30, "{report:?}");
}

#[test]
fn the_speaker_is_urgent_and_hands_over_when_it_is_told_to_end() {
    let cluster = Cluster::of(2).unwrap();
    let first = active(&cluster, 0, &cluster.config(Family::V4, 150, FAST)).unwrap();
    let second = backup(&cluster, 1, &cluster.config(Family::V4, 100, FAST)).unwrap();
    let pid = speaker(&first).unwrap();
    let proc = |file: &str| std::fs::read_to_string(format!("/proc/{}/{file}", pid.as_raw_nonzero())).unwrap();
    // proc(5): the scheduling policy is the 39th field behind the name; 1 is SCHED_FIFO.
    let stat = proc("stat");
    assert_eq!(stat.rsplit(')').next().unwrap().split_whitespace().nth(38), Some("1"), "{stat}");
    let locked_kb =
        |status: &str| status.lines().find_map(|line| line.strip_prefix("VmLck:")?.trim().split(' ').next()?.parse::<u64>().ok());
    let locked_kb = locked_kb(&proc("status")).unwrap();
    eprintln!("the speaker has {locked_kb} kB locked");
    assert!((1000..400_000).contains(&locked_kb), "{}", proc("status"));
    let metrics = first.operate(&["metrics"]).unwrap();
    let metrics = String::from_utf8_lossy(&metrics.stdout).into_owned();
    assert!(metrics.contains("weir_vrrp_state{router=\"www\",state=\"active\"} 1"), "{metrics}");
    let probe = cluster.probe(Family::V4).unwrap();
    std::thread::sleep(Duration::from_millis(300));
    signal(pid, Signal::TERM).unwrap();
    wait_until("another speaker", SOON, || speaker(&first).is_ok_and(|other| other != pid)).unwrap();
    await_state(&first, "active").unwrap();
    await_state(&second, "backup").unwrap();
    let report = probe.end().unwrap();
    eprintln!("SIGTERM of the speaker: {report:?}");
    assert!(report.lost <= 2, "{report:?}");
    assert_eq!(turns(&report), ["node1", "node2", "node1"]);
}
