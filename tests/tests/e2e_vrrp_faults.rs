//! Virtual routers whose processes hang, whose interfaces come and go, and whose files change under them.

use std::{
    fs,
    time::{Duration, Instant},
};

use rustix::process::Signal;
use weir_tests::{
    lab::{Family, Folder, Weir, wait_until},
    vrrp::{Cluster, active, await_state, backup, kill_all, router, signal, speaker, speakers, turns, view},
};

const SOON: Duration = Duration::from_secs(20);
const FAST: &str = "interval = \"100ms\"";

fn said(weir: &Weir<'_>, command: &[&str]) -> String {
    let output = weir.operate(command).unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn a_speaker_that_hangs_is_told_and_another_one_speaks_soon() {
    let cluster = Cluster::of(2).unwrap();
    let first = active(&cluster, 0, &cluster.config(Family::V4, 150, FAST)).unwrap();
    let second = backup(&cluster, 1, &cluster.config(Family::V4, 100, FAST)).unwrap();
    wait_until("an heir", SOON, || speakers(&first).is_ok_and(|found| found.len() == 2)).unwrap();
    let probe = cluster.probe(Family::V4).unwrap();
    let hanging = speaker(&first).unwrap();
    signal(hanging, Signal::STOP).unwrap();
    await_state(&second, "active").unwrap();
    // It is killed, its heir listens before it claims anything, and preempts.
    wait_until("another speaker", SOON, || speaker(&first).is_ok_and(|pid| pid != hanging)).unwrap();
    assert!(!speakers(&first).unwrap().contains(&hanging));
    await_state(&first, "active").unwrap();
    await_state(&second, "backup").unwrap();
    let report = probe.end().unwrap();
    eprintln!("a speaker that hangs: {report:?}");
    assert!(report.lost <= 2, "{report:?}");
    let events = said(&first, &["events"]);
    assert!(events.contains("speaks for virtual routers"), "{events}");
    wait_until("one holder", SOON, || cluster.holders(Family::V4) == [0]).unwrap();
}

#[test]
fn a_daemon_that_finds_a_hanging_speaker_replaces_it_and_ends_with_it() {
    let cluster = Cluster::of(1).unwrap();
    let mut weir = active(&cluster, 0, &cluster.config(Family::V4, 150, FAST)).unwrap();
    wait_until("an heir", SOON, || speakers(&weir).is_ok_and(|found| found.len() == 2)).unwrap();
    let hanging = speaker(&weir).unwrap();
    signal(hanging, Signal::STOP).unwrap();
    weir.kill_9().unwrap();
    weir.run().unwrap();
    wait_until("another speaker", SOON, || speaker(&weir).is_ok_and(|pid| pid != hanging)).unwrap();
    await_state(&weir, "active").unwrap();
    wait_until("a speaker and its heir, and no others", SOON, || speakers(&weir).is_ok_and(|found| found.len() == 2)).unwrap();
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(speakers(&weir).unwrap().len(), 2);

    // A daemon that ends waits for none that hangs, and leaves none.
    signal(speaker(&weir).unwrap(), Signal::STOP).unwrap();
    let began = Instant::now();
    weir.terminate().unwrap();
    assert!(began.elapsed() < Duration::from_secs(12), "{:?}", began.elapsed());
    wait_until("no speaker", SOON, || speakers(&weir).is_ok_and(|found| found.is_empty())).unwrap();

    // Nor does `weir stop` without a daemon.
    weir.run().unwrap();
    await_state(&weir, "active").unwrap();
    wait_until("an heir", SOON, || speakers(&weir).is_ok_and(|found| found.len() == 2)).unwrap();
    signal(speaker(&weir).unwrap(), Signal::STOP).unwrap();
    weir.kill_9().unwrap();
    let stopped = weir.operate(&["stop"]).unwrap();
    assert!(stopped.status.success(), "{stopped:?}");
    assert_eq!(speakers(&weir).unwrap(), []);
}

#[test]
fn an_interface_that_forgets_its_groups_hears_again_within_seconds() {
    let cluster = Cluster::of(2).unwrap();
    let first = active(&cluster, 0, &cluster.config(Family::V6, 150, FAST)).unwrap();
    let second = backup(&cluster, 1, &cluster.config(Family::V6, 100, FAST)).unwrap();
    let node = &cluster.lab.nodes[1].namespace;
    // IPv6 does without an interface whose MTU is below 1280 (RFC 8200 s5), and forgets the groups that sockets joined there.
    node.ip("link set eth0 mtu 1000").unwrap();
    wait_until("a fault", SOON, || router(&second).is_ok_and(|router| router["state"] == "fault")).unwrap();
    node.ip("link set eth0 mtu 1500").unwrap();
    await_state(&second, "backup").unwrap();
    wait_until("the active one to be heard", SOON, || router(&second).is_ok_and(|router| router["active"].is_string())).unwrap();
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(cluster.holders(Family::V6), [0]);
    assert_eq!(router(&second).unwrap()["state"], "backup");
    drop(first);
    await_state(&second, "active").unwrap();
}

#[test]
fn a_macvlan_whose_name_becomes_free_is_used_at_once() {
    let cluster = Cluster::of(1).unwrap();
    let node = &cluster.lab.nodes[0].namespace;
    node.ip("link add vrrp4-7 type veth peer name other").unwrap();
    let weir = cluster.start(0, &cluster.config(Family::V4, 150, &format!("{FAST}\nvirtual_mac = true"))).unwrap();
    await_state(&weir, "fault").unwrap();
    let codes = || ["status", "vrrp"].map(|command| weir.operate(&[command]).unwrap().status.code());
    assert_eq!(codes(), [Some(1), Some(1)]);
    node.ip("link del vrrp4-7").unwrap();
    let began = Instant::now();
    await_state(&weir, "active").unwrap();
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    wait_until("the node to be well", SOON, || codes() == [Some(0), Some(0)]).unwrap_or_else(|_| panic!("{}", said(&weir, &["status"])));
}

#[test]
fn a_router_that_nobody_speaks_for_is_shown_and_is_not_well() {
    let cluster = Cluster::of(1).unwrap();
    let mut weir = Weir::prepare(&cluster.lab.nodes[0], &cluster.config(Family::V4, 150, FAST)).unwrap();
    // Nobody can listen there.
    let place = weir.config().with_file_name("state").join("vrrp.sock");
    fs::create_dir_all(&place).unwrap();
    weir.run().unwrap();
    await_state(&weir, "unknown").unwrap();
    let told = weir.operate(&["status"]).unwrap();
    let text = String::from_utf8_lossy(&told.stdout);
    assert!(told.status.code() == Some(1) && text.contains("! nobody speaks vrrp: ") && text.contains("www             unknown"), "{text}");
    assert!(said(&weir, &["vrrp"]).contains("10.1.0.100/24 on eth0: nobody that is known"), "{}", said(&weir, &["vrrp"]));
    fs::remove_dir(&place).unwrap();
    await_state(&weir, "active").unwrap();
}

#[test]
fn a_router_that_the_file_forgets_is_in_no_view_and_one_that_becomes_another_resigns_first() {
    let cluster = Cluster::of(2).unwrap();
    let first = active(&cluster, 0, &cluster.config(Family::V4, 150, FAST)).unwrap();
    let second = backup(&cluster, 1, &cluster.config(Family::V4, 100, FAST)).unwrap();
    let probe = cluster.probe(Family::V4).unwrap();
    std::thread::sleep(Duration::from_millis(200));
    // Of the other family: another router.
    first.write_config(&cluster.config(Family::V6, 150, FAST)).unwrap();
    await_state(&second, "active").unwrap();
    let report = probe.end().unwrap();
    eprintln!("of another family: {report:?}");
    assert!(report.lost <= 100, "{report:?}");
    let why = router(&second).unwrap()["why"].to_string();
    assert!(why.contains("resigned") || why.contains("handed over"), "{why}");

    let config = cluster.config(Family::V4, 100, FAST);
    let without = config.split("[vrrp.www]").next().unwrap();
    second.write_config(without).unwrap();
    wait_until("no router", SOON, || view(&second).is_ok_and(|view| view["routers"].as_array().is_some_and(Vec::is_empty))).unwrap();
    wait_until("no speaker", SOON, || speakers(&second).is_ok_and(|found| found.is_empty())).unwrap();
    assert_eq!(view(&second).unwrap()["routers"].as_array().unwrap().len(), 0);
    assert!(!said(&second, &["metrics"]).contains("weir_vrrp_state{"));
}

#[test]
fn that_a_node_is_ready_again_is_known_though_everything_is_killed_at_once() {
    let cluster = Cluster::of(2).unwrap();
    let mut first = active(&cluster, 0, &cluster.config(Family::V4, 150, FAST)).unwrap();
    let second = backup(&cluster, 1, &cluster.config(Family::V4, 100, FAST)).unwrap();
    assert!(first.operate(&["vrrp", "yield"]).unwrap().status.success());
    await_state(&second, "active").unwrap();
    let record = || fs::read_to_string(first.config().with_file_name("state").join("state.json")).unwrap_or_default();
    wait_until("the record of it", SOON, || record().contains("\"vrrp_holds\":[\"www\"]")).unwrap();
    assert!(first.operate(&["vrrp", "ready"]).unwrap().status.success());
    kill_all(&mut first).unwrap();
    first.run().unwrap();
    await_state(&first, "active").unwrap();
    assert_eq!(router(&first).unwrap()["is_on_hold"], false);
}

#[test]
fn what_hundreds_of_routers_do_is_seen_within_a_second() {
    const ROUTERS: usize = 200;
    let cluster = Cluster::of(2).unwrap();
    let config = |priority: u8| {
        let router = |number: usize| {
            format!(
                "[vrrp.r{number}]\ninterface = \"eth0\"\nrouter_id = {number}\npriority = {priority}\naddresses = [\"10.1.7.{number}/32\"]\n{FAST}\n"
            )
        };
        let base = cluster.config(Family::V4, priority, FAST);
        let (listener, _) = base.split_once("[vrrp.www]").unwrap();
        listener.to_owned() + &(1..=ROUTERS).map(router).collect::<String>()
    };
    let count = |weir: &Weir<'_>, state: &str| {
        let routers = view(weir).unwrap_or_default()["routers"].as_array().cloned().unwrap_or_default();
        routers.iter().filter(|router| router["state"] == state).count()
    };
    let has = |node: usize| {
        let addresses = cluster.lab.nodes[node].namespace.ip("-o -4 addr show dev eth0").unwrap();
        addresses.matches(" 10.1.7.").count()
    };
    let first = cluster.start(0, &config(150)).unwrap();
    wait_until("all to be active", SOON, || count(&first, "active") == ROUTERS).unwrap();
    let second = cluster.start(1, &config(100)).unwrap();
    wait_until("all to wait", SOON, || count(&second, "backup") == ROUTERS).unwrap();
    for (command, from, to) in [("yield", 0, 1), ("ready", 1, 0)] {
        assert!(first.operate(&["vrrp", command]).unwrap().status.success());
        wait_until("all to move", SOON, || has(to) == ROUTERS && has(from) == 0).unwrap();
        let began = Instant::now();
        let nodes = [&first, &second];
        let is_seen = || count(nodes[to], "active") == ROUTERS && count(nodes[from], "backup") == ROUTERS;
        wait_until("all to be seen", SOON, is_seen).unwrap();
        eprintln!("{command}: seen {:?} after the addresses moved", began.elapsed());
        assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    }
}

#[test]
fn a_fault_that_leaves_the_link_alone_costs_nothing_and_is_one_without_another_node() {
    let cluster = Cluster::of(2).unwrap();
    let folder = Folder::new("vrrp").unwrap();
    let (file, command) = (folder.path().join("serve"), folder.path().join("no-such-program"));
    fs::write(&file, "").unwrap();
    let track = format!("track = [{{ file = {file:?} }}]\n{FAST}");
    let first = active(&cluster, 0, &cluster.config(Family::V4, 150, &track)).unwrap();
    let mut second = backup(&cluster, 1, &cluster.config(Family::V4, 100, FAST)).unwrap();
    let probe = cluster.probe(Family::V4).unwrap();
    std::thread::sleep(Duration::from_millis(200));
    fs::remove_file(&file).unwrap();
    await_state(&first, "fault").unwrap();
    await_state(&second, "active").unwrap();
    assert_eq!(router(&first).unwrap()["faults"][0], format!("file {}: it is not there", file.display()));
    fs::write(&file, "").unwrap();
    await_state(&first, "active").unwrap();
    let report = probe.end().unwrap();
    eprintln!("a tracked file: {report:?}");
    assert!(report.lost <= 2, "{report:?}");
    assert_eq!(turns(&report), ["node1", "node2", "node1"]);

    second.terminate().unwrap();
    first.write_config(&cluster.config(Family::V4, 150, &format!("track = [{{ command = [{command:?}] }}]\n{FAST}"))).unwrap();
    await_state(&first, "fault").unwrap();
    assert_eq!(cluster.holders(Family::V4), [0_usize; 0]);
    let faults = router(&first).unwrap()["faults"].to_string();
    assert!(faults.contains("failed to start") && faults.contains("no-such-program"), "{faults}");
}
