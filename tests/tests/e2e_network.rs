//! What becomes of the node when its network changes under it, and that status tells.

use std::{fs, time::Duration};

use weir_tests::{
    demo::Fixture,
    lab::{Weir, wait_until},
};

const SOON: Duration = Duration::from_secs(20);

fn add_veth(fixture: &Fixture, name: &str, peer: &str) {
    fixture.node(&format!("link add {name} type veth peer name {peer}"));
    fixture.node(&format!("link set {name} up"));
    fixture.node(&format!("link set {peer} up"));
}

fn edit(weir: &Weir<'_>, from: &str, to: &str) {
    let text = fs::read_to_string(weir.config()).unwrap();
    assert!(text.contains(from), "{from} is not in {text}");
    fs::write(weir.config(), text.replace(from, to)).unwrap();
}

fn problems(weir: &Weir<'_>) -> String {
    weir.status().unwrap()["problems"].to_string()
}

fn expect_problem(weir: &Weir<'_>, words: &str) {
    let told = wait_until("the problem to be told", SOON, || problems(weir).contains(words));
    told.unwrap_or_else(|timeout| panic!("{timeout}: {words}: {} {}", problems(weir), weir.stderr()));
}

fn expect_ready(weir: &Weir<'_>, ready: bool) {
    let told = wait_until("readiness to change", SOON, || weir.is_ready() == ready);
    told.unwrap_or_else(|timeout| panic!("{timeout}: {} {}", problems(weir), weir.stderr()));
}

#[test]
fn an_interface_that_has_gone_hinders_no_edit_and_no_restart_and_is_taken_when_it_is_back() {
    let fixture = Fixture::new();
    add_veth(&fixture, "eth2", "eth3");
    let mut weir = Weir::prepare(fixture.lab.node(), &fixture.good()).unwrap();
    edit(&weir, "\"eth1\"", "\"eth1\", \"eth2\"");
    weir.run().unwrap();
    fixture.node("link del eth2");
    expect_problem(&weir, "interface eth2 does not exist");
    // Needs another program.
    edit(&weir, "[listener.web]", "[listener.web]\ndeny = \"203.0.113.0/24\"");
    let taken = || weir.stderr().matches("the configuration is taken").count() == 1;
    wait_until("the edit to be taken", SOON, taken).unwrap_or_else(|timeout| panic!("{timeout}: {}", weir.stderr()));
    assert_eq!(weir.status().unwrap()["daemon"]["config_errors"].as_array().unwrap().len(), 0);

    weir.terminate().unwrap();
    let output = weir.operate(&["status"]).unwrap();
    assert!(String::from_utf8_lossy(&output.stdout).contains("eth2"), "{output:?}");
    weir.spawn().unwrap();
    let runs = || weir.status().is_ok_and(|status| status["daemon"]["running"] == true);
    wait_until("the daemon to run again", SOON, runs).unwrap_or_else(|timeout| panic!("{timeout}: {}", weir.stderr()));
    expect_problem(&weir, "interface eth2 does not exist");
    assert!(!weir.is_ready());

    add_veth(&fixture, "eth2", "eth3");
    expect_ready(&weir, true);
    assert!(fixture.node("-d link show eth2").contains("prog/xdp"));
    assert!(!problems(&weir).contains("eth2"), "{}", problems(&weir));
}

#[test]
fn status_is_not_ready_while_an_interface_is_down_or_no_server_can_be_reached() {
    let fixture = Fixture::new();
    let weir = Weir::start(fixture.lab.node(), &fixture.good()).unwrap();
    fixture.node("link set eth0 down");
    expect_ready(&weir, false);
    expect_problem(&weir, "interface eth0 is down");
    fixture.node("link set eth0 up");
    expect_ready(&weir, true);
    assert!(!problems(&weir).contains("eth0"), "{}", problems(&weir));
}

#[test]
fn status_is_not_ready_before_a_server_can_be_reached() {
    let fixture = Fixture::new();
    let servers = |state: &str| {
        for server in &fixture.lab.servers {
            server.namespace.ip(&format!("link set eth0 {state}")).unwrap();
        }
    };
    servers("down");
    let mut weir = Weir::prepare(fixture.lab.node(), &fixture.good()).unwrap();
    weir.spawn().unwrap();
    expect_problem(&weir, "no server can be reached");
    assert!(!weir.is_ready());
    servers("up");
    expect_ready(&weir, true);
}

#[test]
fn a_server_whose_answers_meet_no_program_is_told() {
    let fixture = Fixture::new();
    let mut weir = Weir::prepare(fixture.lab.node(), &fixture.good()).unwrap();
    edit(&weir, "\"eth0\", \"eth1\"", "\"eth0\"");
    weir.spawn().unwrap();
    wait_until("the daemon to run", SOON, || weir.status().is_ok_and(|status| status["daemon"]["running"] == true)).unwrap();
    expect_problem(&weir, "its answers come by interface eth1, which node.interfaces does not name");
    assert!(!weir.is_ready());
    edit(&weir, "\"eth0\"", "\"eth0\", \"eth1\"");
    expect_ready(&weir, true);
    assert!(!problems(&weir).contains("eth1"), "{}", problems(&weir));
}

#[test]
fn a_file_refused_for_a_missing_interface_is_taken_when_the_interface_appears() {
    let fixture = Fixture::new();
    let weir = Weir::start(fixture.lab.node(), &fixture.good()).unwrap();
    edit(&weir, "\"eth1\"", "\"eth1\", \"dm0\"");
    expect_problem(&weir, "configuration not taken: interface dm0 does not exist");
    add_veth(&fixture, "dm0", "dm1");
    wait_until("dm0 to be taken", SOON, || weir.pin_dir().join("link-dm0").exists()).unwrap();
    wait_until("nothing to be wrong", SOON, || !problems(&weir).contains("dm0")).unwrap();
    // What the text itself forbids no interface mends.
    let text = fs::read_to_string(weir.config()).unwrap();
    fs::write(weir.config(), format!("{text}\nwieght = 3\n")).unwrap();
    expect_problem(&weir, "configuration not taken");
    let refusals = || weir.stderr().matches("the configuration in force stays").count();
    let before = refusals();
    add_veth(&fixture, "dm2", "dm3");
    fixture.node("link del dm0");
    expect_problem(&weir, "dm0 does not exist");
    assert_eq!(refusals(), before, "{}", weir.stderr());
}
