//! Sync groups, keys, and nodes whose files differ.

use std::time::Duration;

use rustix::process::Signal;
use weir_tests::{
    lab::{Family, Weir, wait_until},
    vrrp::{Cluster, active, await_state, backup, router, signal, speaker, view},
};

const SOON: Duration = Duration::from_secs(20);
const FAST: &str = "interval = \"100ms\"";
const KEYS: &str = "interval = \"100ms\"\nkeys = { 1 = \"0123456789abcdef0123456789abcdef\" }";

/// The states of a node's routers, by name.
fn states(weir: &Weir<'_>) -> Vec<String> {
    let routers = view(weir).unwrap_or_default()["routers"].as_array().cloned().unwrap_or_default();
    routers.iter().map(|router| router["state"].as_str().unwrap_or_default().to_owned()).collect()
}

fn await_states(weir: &Weir<'_>, wanted: [&str; 2]) {
    let mut last = Vec::new();
    let reached = wait_until("routers of a group", SOON, || {
        last = states(weir);
        last == wanted
    });
    assert!(reached.is_ok(), "{last:?}, not {wanted:?}: {}", weir.stderr());
}

#[test]
fn routers_of_a_group_go_together() {
    let cluster = Cluster::of(2).unwrap();
    let config = |priority: u8, track: &str| {
        let four = cluster.config(Family::V4, priority, &format!("{FAST}\ngroup = \"all\""));
        let vip6 = cluster.vip(Family::V6);
        format!(
            "{four}[vrrp.www6]\ninterface = \"eth0\"\nrouter_id = 7\npriority = {priority}\naddresses = [\"{vip6}/64\"]\n{FAST}\ngroup = \"all\"\n{track}\n"
        )
    };
    let folder = weir_tests::lab::Folder::new("group").unwrap();
    let file = folder.path().join("serve");
    std::fs::write(&file, "").unwrap();
    let first = cluster.start(0, &config(150, &format!("track = [{{ file = {file:?} }}]"))).unwrap();
    let second = cluster.start(1, &config(100, "")).unwrap();
    await_states(&first, ["active", "active"]);
    await_states(&second, ["backup", "backup"]);
    // One yields: both go.
    assert!(first.operate(&["vrrp", "yield", "www6"]).unwrap().status.success());
    await_states(&second, ["active", "active"]);
    await_states(&first, ["backup", "backup"]);
    assert!(first.operate(&["vrrp", "ready"]).unwrap().status.success());
    await_states(&first, ["active", "active"]);
    // One has a fault: both have.
    std::fs::remove_file(&file).unwrap();
    await_states(&second, ["active", "active"]);
    await_states(&first, ["fault", "fault"]);
    // Who has handed over answers for a moment more.
    wait_until("one holder", SOON, || (cluster.holders(Family::V4), cluster.holders(Family::V6)) == (vec![1], vec![1])).unwrap();
    let refused = first.operate(&["vrrp", "yield", "wwww"]).unwrap();
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("did you mean"), "{refused:?}");
}

#[test]
fn adverts_without_the_key_count_for_nothing() {
    let cluster = Cluster::of(2).unwrap();
    let mut first = active(&cluster, 0, &cluster.config(Family::V4, 150, KEYS)).unwrap();
    let second = backup(&cluster, 1, &cluster.config(Family::V4, 100, KEYS)).unwrap();
    assert_eq!(router(&second).unwrap()["refused"], serde_json::json!({}));
    // A node with another key is not believed, and takes nothing away.
    let probe = cluster.probe(Family::V4).unwrap();
    let stranger = KEYS.replace("0123456789abcdef0", "x123456789abcdef0");
    second.write_config(&cluster.config(Family::V4, 200, &stranger)).unwrap();
    let is_told = |weir: &Weir<'_>| router(weir).unwrap_or_default()["refused"]["its MAC is wrong"].as_u64().is_some();
    wait_until("refusals", SOON, || is_told(&first) && is_told(&second)).unwrap();
    assert_eq!(router(&first).unwrap()["state"], "active");
    // Back again it is heard at once.
    second.write_config(&cluster.config(Family::V4, 100, KEYS)).unwrap();
    await_state(&second, "backup").unwrap();
    wait_until("one holder", SOON, || cluster.holders(Family::V4) == [0]).unwrap();
    drop(probe.end().unwrap());
    // What was heard is known to the next process: a recording is not new to it.
    let numbers = |weir: &Weir<'_>| -> serde_json::Value {
        let record = std::fs::read(weir.config().with_file_name("state").join("state.json")).unwrap();
        serde_json::from_slice::<serde_json::Value>(&record).unwrap()["vrrp_numbers"]["www"].clone()
    };
    first.terminate().unwrap();
    let kept = numbers(&first);
    assert_eq!(kept["heard"][0]["source"], cluster.lab.nodes[1].v4.to_string(), "{kept:#}");
    first.run().unwrap();
    await_state(&first, "active").unwrap();
    let is_later = || router(&first).unwrap_or_default()["memory"]["epoch"].as_u64() > kept["epoch"].as_u64();
    wait_until("a later epoch", SOON, is_later).unwrap();
}

#[test]
fn an_address_on_one_node_only_makes_no_two_of_them_active() {
    let cluster = Cluster::of(2).unwrap();
    let config = cluster.config(Family::V4, 150, FAST);
    let first = active(&cluster, 0, &config).unwrap();
    let second = backup(&cluster, 1, &cluster.config(Family::V4, 100, FAST)).unwrap();
    let probe = cluster.probe(Family::V4).unwrap();
    first.write_config(&config.replace("addresses = [\"10.1.0.100/24\"]", "addresses = [\"10.1.0.100/24\", \"10.1.0.101/24\"]")).unwrap();
    let conflicts = |weir: &Weir<'_>| router(weir).unwrap_or_default()["peers"][0]["conflicts"].to_string();
    wait_until("the difference to be told", SOON, || conflicts(&second).contains("other addresses")).unwrap();
    wait_until("status to tell it", SOON, || {
        second.status().is_ok_and(|status| status["problems"].to_string().contains("other addresses"))
    })
    .unwrap();
    wait_until("the new address", SOON, || {
        cluster.lab.nodes[0].namespace.ip("-o addr show dev eth0").is_ok_and(|text| text.contains("10.1.0.101/24"))
    })
    .unwrap();
    assert_eq!(router(&second).unwrap()["state"], "backup");
    let report = probe.end().unwrap();
    assert_eq!(report.lost, 0, "{report:?}");
    // And away again.
    first.write_config(&config).unwrap();
    wait_until("the address to go", SOON, || {
        cluster.lab.nodes[0].namespace.ip("-o addr show dev eth0").is_ok_and(|text| !text.contains("10.1.0.101/24"))
    })
    .unwrap();
    // Without the section nobody speaks any more.
    let without = config.split("[vrrp.www]").next().unwrap().to_owned();
    let pid = speaker(&second).unwrap();
    second.write_config(&without).unwrap();
    wait_until("the speaker to end", SOON, || {
        signal(pid, Signal::CONT).is_err() || view(&second).is_ok_and(|view| view["speaker_pid"].is_null())
    })
    .unwrap();
}

#[test]
fn addresses_have_their_prefix_device_and_label_and_change_them_in_place() {
    let cluster = Cluster::of(2).unwrap();
    let node = &cluster.lab.nodes[0].namespace;
    node.ip("link add side0 type veth peer name side1").unwrap();
    node.ip("link set side0 up").unwrap();
    node.ip("link set side1 up").unwrap();
    let config = |addresses: &str| {
        cluster.config(Family::V4, 150, FAST).replace("addresses = [\"10.1.0.100/24\"]", &format!("addresses = [{addresses}]"))
    };
    let first = "{ address = \"10.1.0.100/24\", label = \"eth0:vip\" }, { address = \"10.9.0.1/30\", device = \"side0\" }, \"10.1.0.101\"";
    let weir = active(&cluster, 0, &config(first)).unwrap();
    let has = |device: &str, wanted: &str| node.ip(&format!("-o addr show dev {device}")).is_ok_and(|text| text.contains(wanted));
    assert!(has("eth0", "10.1.0.100/24") && has("eth0", "eth0:vip") && has("eth0", "10.1.0.101/32") && has("side0", "10.9.0.1/30"));
    let other = "{ address = \"10.1.0.100/25\", label = \"eth0:new\" }, { address = \"10.9.0.1/29\", device = \"side1\" }";
    weir.write_config(&config(other)).unwrap();
    let is_so = || has("eth0", "10.1.0.100/25") && has("eth0", "eth0:new") && has("side1", "10.9.0.1/29");
    wait_until("the changes", SOON, || {
        is_so() && !has("eth0", "10.1.0.101") && !has("side0", "10.9.0.1") && !has("eth0", "/24 scope global secondary")
    })
    .unwrap();
    // It has been active throughout.
    assert_eq!((router(&weir).unwrap()["state"].as_str(), router(&weir).unwrap()["became_active"].as_u64()), (Some("active"), Some(1)));
}
