//! What the operator's commands say and do beside a daemon that runs, or one that they do not find.

use std::{fs, time::Duration};

use weir_tests::{
    demo,
    lab::{Shape, Topology, Weir, wait_until},
    operator::said,
};

const SOON: Duration = Duration::from_secs(20);

fn lab() -> Topology {
    Topology::builder(Shape::TwoArmed).build().unwrap()
}

#[test]
fn stop_with_a_file_that_was_never_loaded_leaves_the_addresses_of_the_node_that_runs() {
    let lab = lab();
    let weir = Weir::start(lab.node(), &demo::configuration(&lab)).unwrap();
    let other = Weir::prepare(lab.node(), &demo::configuration(&lab)).unwrap();
    let shown = || lab.node().namespace.ip("addr show").unwrap() + &lab.node().namespace.ip("neigh show").unwrap();
    let before = shown();
    assert!(before.contains("10.1.0.100/32") && before.contains("managed"), "{before}");
    let (code, text) = said(&other.operate(&["stop"]).unwrap());
    assert!(code == Some(0) && text.contains("nothing was loaded"), "{code:?} {text}");
    let after = shown();
    assert!(after.contains("10.1.0.100/32") && after.contains("managed"), "{after}");
    assert!(weir.is_ready());
    // What nobody uses goes, whoever left it.
    let node = &lab.node().namespace;
    weir.signal(rustix::process::Signal::KILL).unwrap();
    fs::remove_dir_all(weir.pin_dir()).unwrap();
    wait_until("the program to go", SOON, || !node.ip("-d link show").unwrap().contains("prog/xdp")).unwrap();
    assert_eq!(said(&other.operate(&["stop"]).unwrap()).0, Some(0));
    assert!(!node.ip("addr show").unwrap().contains("10.1.0.100/32"), "the VIP is left");
}

#[test]
fn a_daemon_that_mounts_the_bpf_file_system_itself_says_that_nobody_else_sees_it() {
    let lab = lab();
    let weir = Weir::prepare(lab.node(), &demo::configuration(&lab)).unwrap();
    let alone = |command: &str| {
        let mut alone = lab.node().namespace.command("unshare");
        alone.args(["--mount", "--propagation", "private", "sh", "-c", "umount -l /sys/fs/bpf; exec \"$@\"", "sh"]);
        alone.arg(std::env::var_os("WEIR_BIN").unwrap()).arg(command).arg("--config").arg(weir.config());
        alone
    };
    let (code, text) = said(&alone("doctor").output().unwrap());
    assert!(code == Some(0) && text.contains("no BPF file system is mounted"), "{text}");
    let (_, text) = said(&weir.operate(&["doctor"]).unwrap());
    assert!(text.contains("in a BPF file system"), "{text}");
    let mut daemon = lab.node().namespace.spawn("weir-alone", alone("run")).unwrap();
    let is_told = || daemon.stderr().contains("mounted one, in its own mount namespace");
    wait_until("the mount to be told", SOON, is_told).unwrap_or_else(|timeout| panic!("{timeout}: {}", daemon.stderr()));
    let told = || said(&weir.operate(&["status"]).unwrap()).1;
    wait_until("status to tell it", SOON, || told().contains("nsenter --net=")).unwrap_or_else(|timeout| panic!("{timeout}: {}", told()));
    daemon.kill().unwrap();
}

#[test]
fn doctor_names_limits_that_a_start_would_refuse() {
    let lab = lab();
    let good = demo::configuration(&lab);
    let weir = Weir::start(lab.node(), &good).unwrap();
    let (code, text) = said(&weir.operate(&["doctor"]).unwrap());
    assert!(code == Some(0) && text.contains("a start goes on with it"), "{text}");
    weir.write_config(&format!("[limits]\nmembers = 100\n{good}")).unwrap();
    let (code, text) = said(&weir.operate(&["doctor"]).unwrap());
    assert!(code == Some(1) && text.contains("other limits") && text.contains("hint: a start is refused: weir stop"), "{text}");
}

#[test]
fn doctor_names_the_first_error_of_a_broken_file() {
    let lab = lab();
    let weir = Weir::prepare(lab.node(), "wieght = 3\nheight = 4\n").unwrap();
    let (code, text) = said(&weir.operate(&["doctor"]).unwrap());
    assert!(code == Some(1) && text.contains("weir.toml:5:1") && text.contains("errors, the first: "), "{text}");
    assert!(text.contains("hint: weir check"), "{text}");
}

#[test]
fn explain_takes_an_arrow_and_its_own_words() {
    let lab = lab();
    let weir = Weir::start(lab.node(), &demo::configuration(&lab)).unwrap();
    for words in [
        &["192.0.2.7:1234", "->", "10.1.0.100:80"][..],
        &["tcp", "192.0.2.7:1234", "→", "10.1.0.100:80"],
        &["tcp 192.0.2.7:1234 → 10.1.0.100:80"],
    ] {
        let (code, text) = said(&weir.operate(&[&["explain", "-o", "json"], words].concat()).unwrap());
        assert!(code == Some(0) && text.contains("tcp 192.0.2.7:1234 → 10.1.0.100:80"), "{words:?} {text}");
    }
}

#[test]
fn without_the_file_status_and_stop_say_how_to_name_it() {
    let lab = lab();
    let weir = Weir::prepare(lab.node(), "").unwrap();
    fs::remove_file(weir.config()).unwrap();
    for command in ["status", "stop"] {
        let (code, text) = said(&weir.operate(&[command]).unwrap());
        assert!(code == Some(2) && text.contains("hint: --config names"), "{command} {text}");
    }
}

#[test]
fn where_the_usual_file_has_gone_the_usual_directories_tell_what_runs() {
    let lab = lab();
    let weir = Weir::prepare(lab.node(), &demo::configuration(&lab)).unwrap();
    let text = fs::read_to_string(weir.config()).unwrap();
    let usual: Vec<&str> = text.lines().filter(|line| !line.starts_with("pin_dir") && !line.starts_with("state_dir")).collect();
    fs::write(weir.config(), usual.join("\n")).unwrap();
    let script =
        "umount -l /sys/fs/bpf; mount -t bpf bpf /sys/fs/bpf; mount -t tmpfs none /run; [ ! -e /etc/weir ] || mount -t tmpfs none /etc/weir
        \"$1\" run --config \"$2\" & until \"$1\" status --config \"$2\" > /dev/null 2>&1; do sleep 0.1; done
        \"$1\" status; echo status: $?; \"$1\" stop; echo stop: $?; \"$1\" status; echo then: $?";
    let mut alone = lab.node().namespace.command("unshare");
    alone.args(["--mount", "--propagation", "private", "timeout", "30", "sh", "-c", script, "sh"]);
    let (_, text) = said(&alone.arg(std::env::var_os("WEIR_BIN").unwrap()).arg(weir.config()).output().unwrap());
    assert!(text.contains("status: 0") && text.contains("detached from eth0, eth1\nstop: 0"), "{text}");
    assert!(text.contains("then: 2") && text.contains("hint: --config names"), "{text}");
}
