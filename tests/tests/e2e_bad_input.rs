//! What the operator may do wrong: every refusal says why and what to do, and leaves nothing behind or everything as it was.

use std::{fs, path::Path, time::Duration};

use aya::maps::{Array, MapData};
use weir_tests::{
    demo::Fixture,
    lab::{Verdict, Weir, XdpVerdict, copy_program, output_of, wait_until},
    operator::said,
};

const SOON: Duration = Duration::from_secs(20);

/// No program, no pin, no address, no neighbour that is kept resolved; what is known of them the host may use until it ages.
fn assert_untouched(fixture: &Fixture, weir: &Weir<'_>) {
    let node = &fixture.lab.node().namespace;
    assert!(!weir.pin_dir().exists(), "pins are left");
    assert!(!node.ip("-d link show").unwrap().contains("prog/xdp"), "a program is left");
    assert!(!node.ip("addr show").unwrap().contains(&format!("{}/32", fixture.lab.vip4())), "the VIP is left");
    let neighbours = node.ip("neigh show").unwrap();
    assert!(!neighbours.contains("managed"), "neighbour entries are left: {neighbours}");
}

fn edit(weir: &Weir<'_>, change: impl FnOnce(String) -> String) {
    let text = fs::read_to_string(weir.config()).unwrap();
    fs::write(weir.config(), change(text)).unwrap();
}

/// What the services in force call their servers.
fn server_names(weir: &Weir<'_>) -> Vec<String> {
    let status = weir.status().unwrap();
    let members = status["services"].as_array().unwrap().iter().flat_map(|service| service["members"].as_array().unwrap());
    members.map(|member| member["server"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_broken_file_is_refused_at_start_with_every_error_and_its_place() {
    let fixture = Fixture::new();
    let weir = Weir::prepare(fixture.lab.node(), &fixture.good()).unwrap();
    edit(&weir, |text| {
        format!("{text}\nservers.s9 = \"10.2.0.300\"\n[listener.two]\nmode = \"l5\"\n[listener.three]\nbind = [\"10.1.0.100:80\"\n")
    });
    let lines = fs::read_to_string(weir.config()).unwrap().lines().count();
    let (code, text) = weir.run_refused().unwrap();
    assert_eq!(code, 1, "{text}");
    for line in [lines, lines - 2, lines - 4] {
        assert!(text.contains(&format!("weir.toml:{line}:")), "no error at line {line}: {text}");
    }
    assert_untouched(&fixture, &weir);
}

#[test]
fn a_missing_file_is_a_wrong_use() {
    let fixture = Fixture::new();
    let weir = Weir::prepare(fixture.lab.node(), "").unwrap();
    fs::remove_file(weir.config()).unwrap();
    let (code, text) = weir.run_refused().unwrap();
    assert_eq!(code, 2, "{text}");
    assert!(text.contains("weir.toml"), "{text}");
    assert_untouched(&fixture, &weir);
}

#[test]
fn a_running_daemon_keeps_its_configuration_while_the_file_is_broken_or_gone() {
    let fixture = Fixture::new();
    let weir = Weir::start(fixture.lab.node(), &fixture.good()).unwrap();
    let errors = || weir.status().unwrap()["daemon"]["config_errors"].as_array().map_or(0, Vec::len);
    weir.write_config(&format!("{}\nwieght = 3\n[pool.web]\n", fixture.good())).unwrap();
    wait_until("the errors to be reported", SOON, || errors() > 0).unwrap();
    assert!(weir.stderr().contains("weir.toml:"), "{}", weir.stderr());
    assert_eq!(weir.operate(&["status"]).unwrap().status.code(), Some(1));
    assert_eq!(fixture.tally().len(), 2);
    fs::rename(weir.config(), weir.config().with_extension("away")).unwrap();
    wait_until("the loss to be noticed", SOON, || weir.stderr().contains("failed to read")).unwrap();
    let (code, text) = said(&weir.operate(&["status"]).unwrap());
    assert!(code == Some(1) && text.contains("failed to read"), "{code:?} {text}");
    assert_eq!(fixture.tally().len(), 2);
    weir.replace_config(&fixture.good()).unwrap();
    wait_until("the errors to be gone", SOON, || errors() == 0).unwrap();
    assert_eq!(weir.operate(&["status"]).unwrap().status.code(), Some(0));
    // An interface that does not exist refuses the whole edit.
    edit(&weir, |text| text.replace("\"eth1\"", "\"eth1\", \"eth7\"").replace("servers.s2", "servers.s3"));
    wait_until("the interface to be missed", SOON, || weir.stderr().contains("eth7 does not exist")).unwrap();
    assert_eq!(weir.status().unwrap()["interfaces"].as_array().unwrap().len(), 2);
    assert_eq!(server_names(&weir), ["s1", "s2", "s1", "s2"], "nothing of the edit is in force");
    assert_eq!(weir.operate(&["status"]).unwrap().status.code(), Some(1), "an edit that is refused is told");
    assert_eq!(fixture.tally().keys().collect::<Vec<_>>(), ["s1", "s2"]);
}

#[test]
fn an_unknown_interface_and_a_taken_one_are_named_and_nothing_is_loaded() {
    let fixture = Fixture::new();
    let weir = Weir::prepare(fixture.lab.node(), &fixture.good()).unwrap();
    edit(&weir, |text| text.replace("\"eth1\"", "\"eth7\""));
    let (code, text) = weir.run_refused().unwrap();
    assert!(code == 1 && text.contains("interface eth7 does not exist") && text.contains("hint:"), "{code} {text}");
    assert_untouched(&fixture, &weir);
    weir.write_config(&fixture.good()).unwrap();
    let taken = XdpVerdict::attach(&fixture.lab.node().namespace, "eth1", Verdict::Pass).unwrap();
    let (code, text) = weir.run_refused().unwrap();
    assert!(code == 1 && text.contains("eth1 has an XDP program of somebody else") && text.contains("hint:"), "{code} {text}");
    let (code, text) = said(&weir.operate(&["doctor"]).unwrap());
    assert!(code == Some(1) && text.contains("it has an XDP program of somebody else"), "{code:?} {text}");
    drop(taken);
    wait_until("the other program to go", SOON, || !fixture.lab.node().namespace.ip("-d link show").unwrap().contains("prog/xdp")).unwrap();
    assert_untouched(&fixture, &weir);
}

#[test]
fn an_edit_that_names_a_taken_interface_leaves_the_running_daemon_as_it_was() {
    let fixture = Fixture::new();
    let node = &fixture.lab.node().namespace;
    node.ip("link add eth2 type veth peer name eth3").unwrap();
    for end in ["eth2", "eth3"] {
        node.ip(&format!("link set {end} up")).unwrap();
    }
    let taken = XdpVerdict::attach(node, "eth2", Verdict::Pass).unwrap();
    let weir = Weir::start(fixture.lab.node(), &fixture.good()).unwrap();
    edit(&weir, |text| text.replace("\"eth1\"", "\"eth1\", \"eth2\"").replace("servers.s2", "servers.s3"));
    let problems = || weir.status().unwrap()["problems"].to_string();
    let is_told = || weir.stderr().contains("eth2 has an XDP program of somebody else");
    let told = wait_until("the taken interface to be told", SOON, is_told);
    told.unwrap_or_else(|timeout| panic!("{timeout}: {} {}", weir.stderr(), problems()));
    assert!(weir.stderr().contains("see ip link show eth2"), "{}", weir.stderr());
    wait_until("status to tell it", SOON, || problems().contains("eth2")).unwrap_or_else(|timeout| panic!("{timeout}: {}", problems()));
    assert_eq!(weir.operate(&["status"]).unwrap().status.code(), Some(1));
    assert_eq!(weir.status().unwrap()["interfaces"].as_array().unwrap().len(), 2);
    assert_eq!(server_names(&weir), ["s1", "s2", "s1", "s2"], "nothing of the edit is in force");
    assert!(!weir.pin_dir().join("link-eth2").exists(), "a link to the taken interface is left");
    assert_eq!(fixture.tally().keys().collect::<Vec<_>>(), ["s1", "s2"]);
    // Once the other program has gone, the next look at the file takes the interface.
    drop(taken);
    wait_until("the other program to go", SOON, || !node.ip("-d link show eth2").unwrap().contains("prog/xdp")).unwrap();
    weir.signal(rustix::process::Signal::HUP).unwrap();
    let attached = || weir.status().unwrap()["interfaces"].as_array().map_or(0, Vec::len);
    wait_until("eth2 to be taken", SOON, || attached() == 3)
        .unwrap_or_else(|timeout| panic!("{timeout}: {} {}", weir.stderr(), problems()));
    wait_until("nothing to be wrong", SOON, || !problems().contains("eth2")).unwrap();
}

#[test]
fn a_pin_directory_that_cannot_hold_pins_is_refused_before_anything_is_loaded() {
    let fixture = Fixture::new();
    let weir = Weir::prepare(fixture.lab.node(), &fixture.good()).unwrap();
    let own = weir.pin_dir().to_path_buf();
    for pin_dir in [weir.config().with_file_name("pins"), "/proc/weir-pins".into()] {
        weir.write_config(&fixture.good()).unwrap();
        edit(&weir, |text| text.replace(&format!("pin_dir = {own:?}"), &format!("pin_dir = {pin_dir:?}")));
        let (code, text) = weir.run_refused().unwrap();
        assert!(code == 1 && text.contains(&pin_dir.display().to_string()) && text.contains("hint:"), "{code} {text}");
        assert!(!pin_dir.exists(), "{pin_dir:?} is left");
        assert_untouched(&fixture, &weir);
    }
}

#[test]
fn without_a_bpf_file_system_the_cure_is_named() {
    let fixture = Fixture::new();
    let weir = Weir::prepare(fixture.lab.node(), &fixture.good()).unwrap();
    // In mount namespaces of their own: an ordinary folder that is not empty, which Weir does not mount over, and one that cannot be written.
    let run_after = |mounting: &str| {
        let mut command = fixture.lab.node().namespace.command("unshare");
        command.args(["--mount", "--propagation", "private", "timeout", "20", "sh", "-c", &format!("{mounting} && exec \"$@\""), "sh"]);
        command.arg(std::env::var_os("WEIR_BIN").unwrap()).arg("run").arg("--config").arg(weir.config());
        said(&command.output().unwrap())
    };
    let (code, text) = run_after("mount -t tmpfs none /sys/fs/bpf && touch /sys/fs/bpf/file");
    assert!(code == Some(1) && text.contains("is not in a BPF file system") && text.contains("hint: mount one: mount -t bpf"), "{text}");
    assert_untouched(&fixture, &weir);
    let (code, text) = run_after("mount -t bpf -o ro bpf /sys/fs/bpf");
    assert!(code == Some(1) && text.contains("failed to use the pin directory") && text.contains("Read-only"), "{code:?} {text}");
    assert_untouched(&fixture, &weir);
}

#[test]
fn an_interface_without_native_xdp_is_taken_in_generic_mode_and_status_says_so() {
    let fixture = Fixture::new();
    let node = &fixture.lab.node().namespace;
    // A bridge has no native mode. A veth of any MTU has: its limit is above 65 535 bytes for a program that takes fragments.
    node.ip("link add eth2 type bridge").unwrap();
    node.ip("link add eth3 mtu 65535 type veth peer name eth4").unwrap();
    ["eth2", "eth3", "eth4"].iter().for_each(|name| drop(node.ip(&format!("link set {name} up")).unwrap()));
    let mut weir = Weir::prepare(fixture.lab.node(), &fixture.good()).unwrap();
    edit(&weir, |text| text.replace("\"eth1\"", "\"eth1\", \"eth2\", \"eth3\"").replace("pin_dir", "xdp = \"native\"\npin_dir"));
    let (code, text) = weir.run_refused().unwrap();
    assert!(code == 1 && text.contains("eth2") && text.contains("hint: node.xdp = \"generic\""), "{code} {text}");
    assert_untouched(&fixture, &weir);

    edit(&weir, |text| text.replace("\"native\"", "\"auto\""));
    weir.run().unwrap();
    assert!(weir.stderr().contains("generic mode"), "{}", weir.stderr());
    let status = weir.status().unwrap();
    let modes = status["interfaces"].as_array().unwrap().iter().map(|one| (one["name"].as_str().unwrap(), one["mode"].as_str().unwrap()));
    assert_eq!(modes.collect::<Vec<_>>(), [("eth0", "native"), ("eth1", "native"), ("eth2", "generic"), ("eth3", "native")]);
    let told = said(&weir.operate(&["status"]).unwrap()).1;
    assert!(told.lines().any(|line| line.contains("eth2") && line.contains("generic")), "{told}");
    assert_eq!(fixture.tally().len(), 2);
}

#[test]
fn without_privileges_the_cure_is_named() {
    let fixture = Fixture::new();
    let weir = Weir::prepare(fixture.lab.node(), &fixture.good()).unwrap();
    let copy = weir.config().with_file_name("weir-copy");
    copy_program(std::env::var_os("WEIR_BIN").unwrap(), &copy).unwrap();
    let state = weir.config().with_file_name("state");
    fs::create_dir(&state).unwrap();
    for may_write_state in [false, true] {
        if may_write_state {
            output_of(std::process::Command::new("chmod").arg("777").arg(&state)).unwrap();
        }
        let mut command = fixture.lab.node().namespace.command("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all"]).arg(&copy).arg("run").arg("--config");
        let (code, text) = said(&command.arg(weir.config()).output().unwrap());
        assert!(code == Some(1) && text.contains("hint: run as root"), "{code:?} {text}");
    }
    assert_untouched(&fixture, &weir);
}

/// `weir COMMAND` as root with these capabilities alone.
fn with_capabilities(fixture: &Fixture, weir: &Weir<'_>, names: &[&str], command: &str) -> std::process::Command {
    let set = names.iter().fold("-all".to_owned(), |set, name| format!("{set},+{name}"));
    let mut setpriv = fixture.lab.node().namespace.command("setpriv");
    setpriv.args(["--bounding-set", &set]).arg(std::env::var_os("WEIR_BIN").unwrap()).arg(command).arg("--config").arg(weir.config());
    setpriv
}

const CAPABILITIES: [&str; 5] = ["bpf", "net_admin", "perfmon", "sys_admin", "net_raw"];

#[test]
fn each_missing_capability_is_named_and_nothing_is_loaded() {
    let fixture = Fixture::new();
    let weir = Weir::prepare(fixture.lab.node(), &fixture.good()).unwrap();
    let without = |missing: &[&str]| CAPABILITIES.into_iter().filter(|name| !missing.contains(name)).collect::<Vec<_>>();
    for (missing, named) in [
        (vec!["net_admin"], "CAP_NET_ADMIN missing"),
        (vec!["sys_admin"], "CAP_SYS_ADMIN missing"),
        // What CAP_SYS_ADMIN includes is missing with it only.
        (vec!["sys_admin", "perfmon"], "CAP_PERFMON, CAP_SYS_ADMIN missing"),
        (vec!["sys_admin", "bpf"], "CAP_BPF, CAP_SYS_ADMIN missing"),
    ] {
        let (code, text) = said(&with_capabilities(&fixture, &weir, &without(&missing), "run").output().unwrap());
        assert!(code == Some(1) && text.contains(named) && text.contains("hint: run as root"), "{missing:?} {code:?} {text}");
        assert_untouched(&fixture, &weir);
        let (code, text) = said(&with_capabilities(&fixture, &weir, &without(&missing), "doctor").output().unwrap());
        assert!(code == Some(1) && text.contains(named) && text.contains("CAP_NET_RAW"), "{missing:?} {code:?} {text}");
    }
    let (code, text) = said(&with_capabilities(&fixture, &weir, &CAPABILITIES, "doctor").output().unwrap());
    assert!(code == Some(0) && text.contains("sufficient"), "{text}");
}

#[test]
fn what_virtual_routers_need_is_examined() {
    let fixture = Fixture::new();
    let routers = "[vrrp.a]\ninterface = \"eth0\"\nrouter_id = 7\naddresses = [\"10.9.0.1\"]\n[vrrp.b]\ninterface = \"eth7\"\nrouter_id = 8\n\
                   addresses = [\"10.9.0.2\"]\n[vrrp.c]\ninterface = \"eth0\"\nrouter_id = 9\naddresses = [\"10.9.0.3\"]\nsource = \"10.9.9.9\"\n";
    let weir = Weir::prepare(fixture.lab.node(), &format!("{}{routers}", fixture.good())).unwrap();
    let (code, text) = said(&weir.operate(&["doctor"]).unwrap());
    assert_eq!(code, Some(1), "{text}");
    for wanted in ["ok   vrrp scheduling", "ok   vrrp a", "there is no interface eth7", "eth0 has not 10.9.9.9 to speak from"] {
        assert!(text.contains(wanted), "{wanted}: {text}");
    }
    let (_, text) = said(&with_capabilities(&fixture, &weir, &CAPABILITIES, "doctor").output().unwrap());
    for wanted in ["BAD  vrrp scheduling", "real-time scheduling is refused", "memory is not locked", "CAP_SYS_NICE and CAP_IPC_LOCK"] {
        assert!(text.contains(wanted), "{wanted}: {text}");
    }
}

#[test]
fn without_raw_sockets_the_daemon_runs_and_says_what_it_forgoes() {
    let fixture = Fixture::new();
    let weir = Weir::prepare(fixture.lab.node(), &fixture.good()).unwrap();
    let command = with_capabilities(&fixture, &weir, &CAPABILITIES[..4], "run");
    let mut daemon = fixture.lab.node().namespace.spawn("weir-without-raw", command).unwrap();
    wait_until("the data plane to be ready", SOON, || !daemon.is_running() || weir.is_ready()).unwrap();
    assert!(daemon.is_running(), "{}", daemon.stderr());
    wait_until("both servers to answer", SOON, || fixture.tally().len() == 2).unwrap();
    let problems = weir.status().unwrap()["problems"].to_string();
    assert!(problems.contains("path MTUs of tunnels are not learned") && problems.contains("CAP_NET_RAW"), "{problems}");
}

#[test]
fn a_state_directory_that_cannot_be_written_is_refused_before_anything_is_loaded() {
    let fixture = Fixture::new();
    let weir = Weir::prepare(fixture.lab.node(), &fixture.good()).unwrap();
    for state_dir in [weir.config().join("below"), "/proc/weir-state".into()] {
        weir.write_config(&fixture.good()).unwrap();
        let own = weir.config().with_file_name("state");
        edit(&weir, |text| text.replace(&format!("{own:?}"), &format!("{state_dir:?}")));
        let (code, text) = weir.run_refused().unwrap();
        assert!(code == 1 && text.contains(&state_dir.display().to_string()) && text.contains("node.state_dir"), "{code} {text}");
        assert_untouched(&fixture, &weir);
    }
}

#[test]
fn a_data_plane_of_another_layout_goes_on_and_stop_is_the_way_out() {
    let fixture = Fixture::new();
    let mut weir = Weir::start(fixture.lab.node(), &fixture.good()).unwrap();
    weir.terminate().unwrap();
    forge_abi(&weir.pin_dir().join("abi"));
    let (code, text) = weir.run_refused().unwrap();
    assert!(code == 1 && text.contains("of layout 65535") && text.contains("hint: weir stop"), "{code} {text}");
    assert_eq!(fixture.tally().len(), 2, "the old one forwards");
    let (code, text) = said(&weir.operate(&["status"]).unwrap());
    assert!(code == Some(1) && text.contains("of layout 65535"), "{code:?} {text}");
    assert_eq!(said(&weir.operate(&["stop"]).unwrap()).0, Some(0));
    assert_untouched(&fixture, &weir);
    weir.run().unwrap();
    assert_eq!(fixture.tally().len(), 2);
}

/// A record like the one of a Weir to come.
fn forge_abi(pin: &Path) {
    let mut record = [0_u8; 56];
    record[..4].copy_from_slice(&65_535_u32.to_ne_bytes());
    fs::remove_file(pin).unwrap();
    let mut array: Array<MapData, [u8; 56]> = Array::create(1, 0).unwrap();
    array.set(0, record, 0).unwrap();
    array.pin(pin).unwrap();
}

#[test]
fn other_limits_wait_for_a_stop() {
    let fixture = Fixture::new();
    let mut weir = Weir::start(fixture.lab.node(), &fixture.good()).unwrap();
    let other = format!("[limits]\nmembers = 100\n{}", fixture.good());
    let problems = || weir.status().unwrap()["problems"].to_string();
    weir.write_config(&other).unwrap();
    wait_until("the limits to be held back", SOON, || problems().contains("limits differs")).unwrap();
    assert!(problems().contains("weir stop"));
    weir.write_config(&fixture.good()).unwrap();
    wait_until("nothing to be held back", SOON, || !problems().contains("limits")).unwrap();
    weir.write_config(&other).unwrap();
    weir.terminate().unwrap();
    let (code, text) = weir.run_refused().unwrap();
    assert!(code == 1 && text.contains("other limits") && text.contains("weir stop"), "{code} {text}");
    assert_eq!(fixture.tally().len(), 2);
    assert_eq!(said(&weir.operate(&["stop"]).unwrap()).0, Some(0));
    weir.run().unwrap();
    assert_eq!(fixture.tally().len(), 2);
}

#[test]
fn a_second_daemon_is_refused_and_the_first_goes_on() {
    let fixture = Fixture::new();
    let mut weir = Weir::start(fixture.lab.node(), &fixture.good()).unwrap();
    let pid = weir.status().unwrap()["daemon"]["pid"].clone();
    let (code, text) = weir.run_refused().unwrap();
    assert!(code == 1 && text.contains("another weir process, ") && text.contains(" holds ") && text.contains("hint:"), "{code} {text}");
    assert!(weir.is_running());
    assert_eq!(weir.status().unwrap()["daemon"]["pid"], pid);
    assert_eq!(fixture.tally().len(), 2);
}

#[test]
fn pins_that_somebody_removed_are_made_anew() {
    let fixture = Fixture::new();
    let mut weir = Weir::start(fixture.lab.node(), &fixture.good()).unwrap();
    let pid = weir.status().unwrap()["daemon"]["pid"].clone();
    let pin_dir = weir.pin_dir().to_owned();
    fs::remove_dir_all(&pin_dir).unwrap();
    wait_until("the data plane to be there again", SOON, || weir.is_ready()).unwrap();
    assert!(weir.is_running() && weir.stderr().contains("somebody removed the pins"), "{}", weir.stderr());
    assert_eq!(weir.status().unwrap()["daemon"]["pid"], pid);
    assert_eq!(fixture.tally().len(), 2);
    // What the new pins hold outlives the daemon like what the first did.
    weir.kill_9().unwrap();
    assert_eq!(fixture.tally().len(), 2);
}

#[test]
fn stop_removes_everything_whatever_is_there() {
    let fixture = Fixture::new();
    let mut weir = Weir::prepare(fixture.lab.node(), &fixture.good()).unwrap();
    let stop = |weir: &Weir<'_>, what: &str| {
        let (code, text) = said(&weir.operate(&["stop"]).unwrap());
        assert_eq!(code, Some(0), "{text}");
        assert!(text.contains(what) && !text.contains("warning"), "{text}");
        assert_untouched(&fixture, weir);
    };
    stop(&weir, "nothing was loaded");
    weir.run().unwrap();
    stop(&weir, "detached from eth0, eth1");
    // It can do nothing any more once its memory is gone, which is a moment before its parent may collect it.
    wait_until("the daemon to be collected", SOON, || !weir.is_running()).unwrap();
    stop(&weir, "nothing was loaded");
    weir.run().unwrap();
    weir.terminate().unwrap();
    assert_eq!(fixture.tally().len(), 2);
    stop(&weir, "detached from eth0, eth1");
    weir.run().unwrap();
    weir.kill_9().unwrap();
    stop(&weir, "detached from eth0, eth1");
    // Without the daemon's record the marks tell what is Weir's.
    weir.run().unwrap();
    weir.kill_9().unwrap();
    fs::remove_dir_all(weir.config().with_file_name("state")).unwrap();
    stop(&weir, "detached from eth0, eth1");
    weir.run().unwrap();
    assert_eq!(fixture.tally().len(), 2);
}

#[test]
fn vips_come_and_go_with_their_listeners() {
    let fixture = Fixture::new();
    let node = &fixture.lab.node().namespace;
    let mut weir = Weir::start(fixture.lab.node(), &fixture.good()).unwrap();
    let other = fixture.good().replace("10.1.0.100", "10.1.0.101")
        + "\n[listener.six]\nmode = \"l4\"\nbind = \"[fd00:1::100]:80\"\npool = \"six\"\n[pool.six]\nservers.s1 = \"[fd00:2::11]:80\"\n";
    let has = |address: &str| node.ip("addr show dev eth0").unwrap().contains(address);
    assert!(has("10.1.0.100/32"));
    weir.kill_9().unwrap();
    weir.write_config(&other).unwrap();
    weir.run().unwrap();
    wait_until("the VIPs to change", SOON, || !has("10.1.0.100/32") && has("10.1.0.101/32") && has("fd00:1::100/128")).unwrap();
    node.ip("addr del 10.1.0.101/32 dev eth0").unwrap();
    wait_until("the VIP to be back", SOON, || has("10.1.0.101/32")).unwrap();
    weir.write_config(&fixture.good()).unwrap();
    wait_until("the VIPs to change back", SOON, || has("10.1.0.100/32") && !has("10.1.0.101/32") && !has("fd00:1::100/128")).unwrap();
    assert_eq!(fixture.tally().len(), 2);
    // An interface that is dropped from the file is let go, and taken again.
    edit(&weir, |text| text.replace("\"eth0\", \"eth1\"", "\"eth0\""));
    let attached = || weir.status().unwrap()["interfaces"].as_array().map_or(0, Vec::len);
    wait_until("eth1 to be let go", SOON, || attached() == 1).unwrap();
    weir.write_config(&fixture.good()).unwrap();
    wait_until("eth1 to be taken", SOON, || attached() == 2).unwrap();
    assert_eq!(fixture.tally().len(), 2);
}

#[test]
fn status_from_another_network_namespace_says_so_and_calls_no_interface_gone() {
    let fixture = Fixture::new();
    let mut weir = Weir::start(fixture.lab.node(), &fixture.good()).unwrap();
    assert_eq!(weir.status().unwrap()["elsewhere"], false);
    let asked = said(
        &std::process::Command::new(std::env::var("WEIR_BIN").unwrap()).args(["status", "--config"]).arg(weir.config()).output().unwrap(),
    );
    assert!(asked.0 == Some(0) && asked.1.contains("native  yes"), "the daemon tells: {asked:?}");
    weir.kill_9().unwrap();
    let binary = std::env::var("WEIR_BIN").unwrap();
    let mut command = std::process::Command::new(binary);
    let (code, text) = said(&command.args(["status", "--config"]).arg(weir.config()).output().unwrap());
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("another network namespace"), "{text}");
    assert!(!text.contains("gone"), "{text}");
}

#[test]
fn directories_that_the_file_names_otherwise_orphan_nothing() {
    for key in ["pin_dir", "state_dir"] {
        let fixture = Fixture::new();
        let mut weir = Weir::start(fixture.lab.node(), &fixture.good()).unwrap();
        let own = if key == "pin_dir" { weir.pin_dir().to_path_buf() } else { weir.config().with_file_name("state") };
        let other = own.with_file_name(format!("weir-{}-0-other", std::process::id()));
        edit(&weir, |text| text.replace(&format!("{key} = {own:?}"), &format!("{key} = {other:?}")));
        let told = || weir.status().is_ok_and(|status| status["problems"].to_string().contains(&format!("node.{key} differs")));
        wait_until("the edit to be told", SOON, told).unwrap_or_else(|timeout| panic!("{key}: {timeout}: {}", weir.stderr()));
        assert!(weir.status().unwrap()["problems"].to_string().contains(&own.display().to_string()), "{key}");
        if key == "pin_dir" {
            weir.terminate().unwrap();
            let (code, text) = weir.run_refused().unwrap();
            assert!(code == 1 && text.contains(&own.display().to_string()) && text.contains("hint: weir stop"), "{code} {text}");
        }
        let (code, text) = said(&weir.operate(&["stop"]).unwrap());
        assert!(code == Some(0) && text.contains("detached from eth0, eth1") && text.contains(&format!("node.{key} names")), "{text}");
        wait_until("the daemon to end", SOON, || !weir.is_running()).unwrap();
        assert_untouched(&fixture, &weir);
        assert!(!own.join("state.json").exists() && !other.exists(), "{key}");
    }
}

#[test]
fn a_daemon_that_starts_with_another_state_directory_takes_the_addresses_over() {
    let fixture = Fixture::new();
    let mut weir = Weir::start(fixture.lab.node(), &fixture.good()).unwrap();
    let own = weir.config().with_file_name("state");
    let other = own.with_file_name("other");
    weir.terminate().unwrap();
    edit(&weir, |text| text.replace(&format!("state_dir = {own:?}"), &format!("state_dir = {other:?}")));
    weir.run().unwrap();
    assert!(other.join("state.json").exists() && !own.join("state.json").exists());
    assert_eq!(said(&weir.operate(&["stop"]).unwrap()).0, Some(0));
    assert_untouched(&fixture, &weir);
}

#[test]
fn a_daemon_without_a_record_is_known_by_its_lock() {
    let fixture = Fixture::new();
    let mut weir = Weir::start(fixture.lab.node(), &fixture.good()).unwrap();
    let pid = weir.status().unwrap()["daemon"]["pid"].clone();
    let record = weir.config().with_file_name("state").join("state.json");
    weir.signal(rustix::process::Signal::STOP).unwrap();
    fs::remove_file(&record).unwrap();
    let status = weir.status().unwrap();
    assert_eq!((&status["daemon"]["running"], &status["daemon"]["pid"]), (&true.into(), &pid));
    assert!(status["problems"].to_string().contains("left no record"), "{status:#}");
    weir.signal(rustix::process::Signal::CONT).unwrap();
    drop(fs::remove_file(&record));
    let (code, text) = said(&weir.operate(&["stop"]).unwrap());
    assert_eq!(code, Some(0), "{text}");
    wait_until("the daemon to be collected", SOON, || !weir.is_running()).unwrap();
    assert_untouched(&fixture, &weir);
}

#[test]
fn a_start_that_is_refused_leaves_no_state_directory() {
    let fixture = Fixture::new();
    let weir = Weir::prepare(fixture.lab.node(), &fixture.good()).unwrap();
    edit(&weir, |text| text.replace("\"eth1\"", "\"eth7\""));
    assert_eq!(weir.run_refused().unwrap().0, 1);
    assert!(!weir.config().with_file_name("state").exists());
}
