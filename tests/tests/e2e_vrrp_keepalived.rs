//! A Weir node and Debian's keepalived share an address, each in both roles.

use std::time::Duration;

use rustix::process::Signal;
use weir_tests::{
    lab::{Family, wait_until},
    vrrp::{Cluster, Keepalived, active, await_state, router},
};

const SOON: Duration = Duration::from_secs(20);

/// What both sides are told.
struct Case {
    name: &'static str,
    family: Family,
    weir: &'static str,
    keepalived: &'static str,
}

const CASES: [Case; 7] = [
    Case { name: "version 3", family: Family::V4, weir: "interval = \"100ms\"", keepalived: "  version 3\n  advert_int 0.1" },
    Case {
        name: "version 3, pseudo-header",
        family: Family::V4,
        weir: "interval = \"100ms\"\nchecksum = \"pseudo-header\"",
        keepalived: "  version 3\n  advert_int 0.1",
    },
    Case { name: "version 3, IPv6", family: Family::V6, weir: "interval = \"100ms\"", keepalived: "  version 3\n  advert_int 0.1" },
    Case {
        name: "version 3, unicast",
        family: Family::V4,
        weir: "interval = \"100ms\"\npeers = [\"10.1.0.1\", \"10.1.0.2\"]",
        keepalived: "  version 3\n  advert_int 0.1\n  unicast_src_ip 10.1.0.2\n  unicast_peer {\n    10.1.0.1\n  }",
    },
    Case {
        name: "version 3, unicast, IPv6",
        family: Family::V6,
        weir: "interval = \"100ms\"\npeers = [\"fd00:1::1\", \"fd00:1::2\"]",
        keepalived: "  version 3\n  advert_int 0.1\n  unicast_src_ip fd00:1::2\n  unicast_peer {\n    fd00:1::1\n  }",
    },
    Case {
        name: "version 2, password",
        family: Family::V4,
        weir: "version = 2\ninterval = \"1s\"\npassword = \"s3cret\"",
        keepalived: "  version 2\n  advert_int 1\n  authentication {\n    auth_type PASS\n    auth_pass s3cret\n  }",
    },
    Case { name: "version 2", family: Family::V4, weir: "version = 2\ninterval = \"1s\"", keepalived: "  version 2\n  advert_int 1" },
];

fn instance(cluster: &Cluster, case: &Case, priority: u8) -> String {
    let vip = cluster.vip(case.family);
    let prefix_len = if vip.is_ipv4() { 24 } else { 64 };
    format!("  state BACKUP\n  priority {priority}\n{}\n  virtual_ipaddress {{\n    {vip}/{prefix_len}\n  }}", case.keepalived)
}

fn check(case: &Case) {
    let cluster = Cluster::of(2).unwrap();
    // Weir is the better one, and yields to keepalived, which takes over.
    let weir = active(&cluster, 0, &cluster.config(case.family, 150, case.weir)).unwrap();
    let mut keepalived = Keepalived::start(&cluster.lab.nodes[1], &instance(&cluster, case, 100)).unwrap();
    wait_until("keepalived to be backup", SOON, || keepalived.process.stderr().contains("BACKUP STATE")).unwrap();
    // It hears Weir: it does not take over.
    std::thread::sleep(Duration::from_secs(4));
    assert_eq!(cluster.holders(case.family), [0], "{}: {}", case.name, keepalived.process.stderr());
    let probe = cluster.probe(case.family).unwrap();
    assert!(weir.operate(&["vrrp", "yield"]).unwrap().status.success());
    await_state(&weir, "backup").unwrap();
    wait_until("keepalived to have it", SOON, || cluster.holders(case.family) == [1]).unwrap();
    let peer = router(&weir).unwrap()["peers"][0].clone();
    assert_eq!((peer["priority"].as_u64(), &peer["conflicts"]), (Some(100), &serde_json::json!([])), "{}: {peer}", case.name);
    // It ends politely: Weir takes over.
    assert!(weir.operate(&["vrrp", "ready"]).unwrap().status.success());
    keepalived.terminate().unwrap();
    await_state(&weir, "active").unwrap();
    let report = probe.end().unwrap();
    eprintln!("{}: yield to keepalived, return: {report:?}", case.name);

    // Keepalived is the better one, and preempts.
    let keepalived = Keepalived::start(&cluster.lab.nodes[1], &instance(&cluster, case, 200)).unwrap();
    await_state(&weir, "backup").unwrap();
    wait_until("keepalived to have it", SOON, || cluster.holders(case.family) == [1]).unwrap();
    keepalived.process.signal(Signal::KILL).unwrap();
    await_state(&weir, "active").unwrap();
    let view = router(&weir).unwrap();
    assert_eq!(view["refused"], serde_json::json!({}), "{}: {view}", case.name);
    drop(keepalived);
}

fn check_each(version: &str) {
    for case in CASES.iter().filter(|case| case.name.starts_with(version)) {
        eprintln!("{}", case.name);
        check(case);
    }
}

#[test]
fn weir_and_keepalived_understand_each_other_in_both_roles_in_version_3() {
    check_each("version 3");
}

#[test]
fn weir_and_keepalived_understand_each_other_in_both_roles_in_version_2() {
    check_each("version 2");
}
