//! Pins that somebody removes while the daemon runs, some or all, and what else may have changed by then.

use std::{fs, net::SocketAddr, time::Duration};

use weir_tests::{
    demo::Fixture,
    lab::{TcpLoad, Weir, wait_until},
};

const SOON: Duration = Duration::from_secs(20);

fn assert_forwards(fixture: &Fixture) {
    let tally = fixture.tally();
    assert_eq!(tally.len(), 2, "{tally:?}");
}

fn edit(weir: &Weir<'_>, change: impl FnOnce(String) -> String) {
    let text = fs::read_to_string(weir.config()).unwrap();
    fs::write(weir.config(), change(text)).unwrap();
}

fn problems(weir: &Weir<'_>) -> String {
    weir.status().map_or_else(|_| String::new(), |status| status["problems"].to_string())
}

fn await_ready(weir: &mut Weir<'_>, log: &str) {
    let is_mended = |weir: &mut Weir<'_>| weir.stderr().contains(log) && weir.is_ready();
    let mended = wait_until("the pins to be mended", SOON, || !weir.is_running() || is_mended(weir));
    assert!(mended.is_ok() && weir.is_running(), "{mended:?} {} {}", weir.stderr(), problems(weir));
}

#[test]
fn an_interface_that_has_gone_does_not_keep_removed_pins_from_being_made_anew() {
    let fixture = Fixture::new();
    let node = &fixture.lab.node().namespace;
    node.ip("link add dm0 type veth peer name dm1").unwrap();
    let mut weir = fixture.start();
    edit(&weir, |text| text.replace("\"eth1\"", "\"eth1\", \"dm0\""));
    wait_until("dm0 to be taken", SOON, || weir.pin_dir().join("link-dm0").exists()).unwrap();
    node.ip("link del dm0").unwrap();
    wait_until("the loss to be told", SOON, || problems(&weir).contains("dm0 does not exist")).unwrap();
    fs::remove_dir_all(weir.pin_dir()).unwrap();
    wait_until("all to be loaded anew", SOON, || weir.stderr().matches("the data plane forwards").count() == 2).unwrap();
    wait_until("dm0 to be missed", SOON, || problems(&weir).contains("dm0 does not exist")).unwrap();
    assert!(weir.is_running(), "{}", weir.stderr());
    assert_forwards(&fixture);
    node.ip("link add dm0 type veth peer name dm1").unwrap();
    wait_until("dm0 to be taken again", SOON, || weir.pin_dir().join("link-dm0").exists()).unwrap();
}

#[test]
fn what_keeps_the_pins_from_being_made_anew_is_told_and_tried_again() {
    let fixture = Fixture::new();
    let mut weir = fixture.start();
    let pin_dir = weir.pin_dir().to_owned();
    fs::remove_dir_all(&pin_dir).unwrap();
    std::os::unix::fs::symlink("/nowhere", &pin_dir).unwrap();
    wait_until("the failure to be told", SOON, || weir.stderr().contains("it is tried again each second")).unwrap();
    let output = weir.operate(&["status"]).unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(1) && said.contains("has no data plane, and tries again each second"), "{said}");
    fs::remove_file(&pin_dir).unwrap();
    await_ready(&mut weir, "somebody removed the pins");
    assert_forwards(&fixture);
    fs::remove_dir_all(&pin_dir).unwrap();
    std::os::unix::fs::symlink("/nowhere", &pin_dir).unwrap();
    wait_until("the loss to be noticed", SOON, || weir.stderr().matches("somebody removed the pins").count() == 2).unwrap();
    weir.terminate().unwrap();
    fs::remove_file(&pin_dir).unwrap();
}

#[test]
fn pins_that_are_removed_again_and_again_while_they_are_made_do_not_end_the_daemon() {
    let fixture = Fixture::new();
    let mut weir = fixture.start();
    let began = std::time::Instant::now();
    while began.elapsed() < Duration::from_secs(5) {
        let _ = fs::remove_dir_all(weir.pin_dir());
        std::thread::yield_now();
    }
    await_ready(&mut weir, "it is tried again each second");
    assert_forwards(&fixture);
}

#[test]
fn the_pin_of_a_map_that_nothing_uses_is_made_again_and_connections_go_on() {
    let fixture = Fixture::new();
    let mut weir = fixture.start();
    fs::remove_file(weir.pin_dir().join("RATES")).unwrap();
    await_ready(&mut weir, "pins of maps that nothing uses were missing");
    assert!(!weir.stderr().contains("somebody removed the pins"), "the flows are lost: {}", weir.stderr());
    // The feature that comes with an edit uses it.
    edit(&weir, |text| text.replace("pool = \"web\"", "pool = \"web\"\nconn_rate = \"1000/10s\""));
    wait_until("the edit to be taken", SOON, || weir.stderr().contains("the configuration is taken")).unwrap();
    assert_forwards(&fixture);
}

#[test]
fn a_removed_link_is_made_again_and_quiet_connections_go_on() {
    let fixture = Fixture::new();
    let mut weir = fixture.start();
    let echo = SocketAddr::new(fixture.lab.vip4().into(), 7000);
    // What is sent meanwhile meets the host, which resets it.
    let quiet = TcpLoad::start(&fixture.lab.client().namespace, echo, 20, Duration::from_secs(6), Duration::from_secs(10)).unwrap();
    quiet.wait_opened().unwrap();
    // An acknowledgement may be as late (RFC 1122 s4.2.3.2).
    std::thread::sleep(Duration::from_millis(500));
    fs::remove_file(weir.pin_dir().join("link-eth0")).unwrap();
    await_ready(&mut weir, "somebody removed the pinned link");
    assert!(weir.pin_dir().join("link-eth0").exists());
    assert!(!weir.stderr().contains("somebody removed the pins:"), "the flows are lost: {}", weir.stderr());
    assert_forwards(&fixture);
    let report = quiet.report().unwrap();
    assert!(report.opened == 20 && report.broken.is_empty() && report.messages >= 40, "{report:?}");
}

#[test]
fn status_tells_an_interface_without_a_link() {
    let fixture = Fixture::new();
    let weir = fixture.start();
    weir.signal(rustix::process::Signal::STOP).unwrap();
    fs::remove_file(weir.pin_dir().join("link-eth0")).unwrap();
    let status = weir.status().unwrap();
    weir.signal(rustix::process::Signal::CONT).unwrap();
    assert_eq!(status["ready"], false);
    assert_eq!((&status["interfaces"][0]["name"], &status["interfaces"][0]["attached"]), (&"eth0".into(), &false.into()));
    assert!(status["problems"].to_string().contains("interface eth0 is not attached"), "{status:#}");
}

#[test]
fn any_other_pin_that_is_missing_has_all_loaded_anew() {
    let fixture = Fixture::new();
    let mut weir = fixture.start();
    for (round, pins) in [&["FLOWS", "NAT_FLOWS"][..], &["program"], &["abi"], &["clock", "link-eth1"]].into_iter().enumerate() {
        // Else it may look in between.
        weir.signal(rustix::process::Signal::STOP).unwrap();
        pins.iter().for_each(|pin| fs::remove_file(weir.pin_dir().join(pin)).unwrap());
        weir.signal(rustix::process::Signal::CONT).unwrap();
        let noticed = || weir.stderr().matches("somebody removed the pins").count() == round + 1;
        wait_until("the loss to be noticed", SOON, noticed).unwrap_or_else(|timeout| panic!("{timeout} {pins:?} {}", weir.stderr()));
        await_ready(&mut weir, "somebody removed the pins");
        assert!(pins.iter().all(|pin| weir.pin_dir().join(pin).exists()), "{pins:?}");
        assert_forwards(&fixture);
    }
    fs::remove_file(weir.pin_dir().join("state")).unwrap();
    wait_until("the record to be named again", SOON, || weir.pin_dir().join("state").is_symlink()).unwrap();
    assert_eq!(weir.stderr().matches("somebody removed the pins").count(), 4);
}

#[test]
fn what_is_wrong_with_the_file_is_still_told_after_loading_anew() {
    let fixture = Fixture::new();
    let mut weir = fixture.start();
    let good = fixture.good();
    weir.write_config(&format!("{good}\nwieght = 3\n")).unwrap();
    wait_until("the error to be told", SOON, || problems(&weir).contains("configuration not taken")).unwrap();
    fs::remove_dir_all(weir.pin_dir()).unwrap();
    await_ready(&mut weir, "somebody removed the pins");
    wait_until("the error to be told again", SOON, || problems(&weir).contains("configuration not taken")).unwrap();
    // What waited for a fresh start is taken by one.
    weir.write_config(&format!("[limits]\nmembers = 100\n{good}")).unwrap();
    wait_until("the limits to wait", SOON, || problems(&weir).contains("limits differs")).unwrap();
    fs::remove_dir_all(weir.pin_dir()).unwrap();
    wait_until("the limits to be taken", SOON, || weir.is_ready() && !problems(&weir).contains("limits")).unwrap();
    weir.terminate().unwrap();
    weir.run().unwrap();
    assert_forwards(&fixture);
}

#[test]
fn a_daemon_whose_pin_directory_another_one_has_ends() {
    let fixture = Fixture::new();
    let mut weir = fixture.start();
    weir.signal(rustix::process::Signal::STOP).unwrap();
    fs::remove_dir_all(weir.pin_dir()).unwrap();
    let mut command = fixture.lab.node().namespace.command(std::env::var_os("WEIR_BIN").unwrap());
    command.arg("run").arg("--config").arg(weir.config());
    let mut other = fixture.lab.node().namespace.spawn("weir-other", command).unwrap();
    wait_until("the other daemon to attach", SOON, || weir.pin_dir().join("link-eth1").exists()).unwrap();
    // The one that hangs has the admin socket still.
    let is_recorded = || weir.status().is_ok_and(|status| status["daemon"]["pid"] == other.id() && !status["services"][0].is_null());
    wait_until("the other daemon to have done its work", SOON, is_recorded).unwrap();
    weir.signal(rustix::process::Signal::CONT).unwrap();
    wait_until("the first daemon to end", SOON, || !weir.is_running()).unwrap_or_else(|timeout| panic!("{timeout}: {}", weir.stderr()));
    assert!(weir.stderr().contains("another weir process"), "{}", weir.stderr());
    assert!(other.is_running(), "{}", other.stderr());
    wait_until("the other daemon's record", SOON, || weir.status().is_ok_and(|status| status["daemon"]["pid"] == other.id())).unwrap();
    assert_forwards(&fixture);
}
