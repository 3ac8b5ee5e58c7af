//! Somebody says on the link that a node's virtual address is his: clients find back at once, and it is told.

use std::{
    fs,
    net::IpAddr,
    sync::{PoisonError, RwLock},
    time::Duration,
};

use rustix::process::{Pid, Signal};
use weir_tests::{
    lab::{Family, Weir, wait_until, without_pauses},
    peer::claim::{claim, count_arp, octets},
    vrrp::{Cluster, active, await_state, backup, router, signal, speaker, speakers, turns, view},
};

const SOON: Duration = Duration::from_secs(20);
const FAST: &str = "interval = \"100ms\"";
/// What is heard sooner after a node became active may be of the one before.
const SETTLED: Duration = Duration::from_millis(1200);

/// Whoever counts lost probes is not beside the flood, which takes both CPUs.
static FLOODED: RwLock<()> = RwLock::new(());

fn problems(weir: &Weir<'_>) -> String {
    weir.status().map(|status| status["problems"].to_string()).unwrap_or_default()
}

fn said(weir: &Weir<'_>, command: &str) -> String {
    weir.operate(&[command]).map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default()
}

/// The server says that the address is at its own interface.
fn server_claims(cluster: &Cluster, family: Family) -> String {
    let server = &cluster.lab.servers[0];
    let mac = server.mac("eth0").unwrap();
    server.namespace.enter(|| claim("eth0", cluster.vip(family), octets(&mac), 1, Duration::from_secs(1))).unwrap();
    mac.trim().to_owned()
}

/// What the client knows of the virtual address.
fn neighbour(cluster: &Cluster, family: Family) -> String {
    cluster.lab.client().namespace.ip(&format!("neigh show {} dev eth0", cluster.vip(family))).unwrap()
}

/// What a process has used of CPUs, in hundredths of a second (proc(5): fields 14 and 15 of `stat`).
fn cpu_ticks(pid: Pid) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).unwrap();
    let fields = stat.rsplit(')').next().unwrap().split_whitespace().skip(11).take(2);
    fields.map(|field| field.parse::<u64>().unwrap()).sum()
}

#[test]
fn a_host_that_claims_the_address_is_answered_at_once_and_told_until_it_is_silent() {
    claims_are_answered("");
}

#[test]
fn so_is_one_that_claims_the_address_of_a_virtual_mac() {
    claims_are_answered("virtual_mac = true");
}

fn claims_are_answered(more: &str) {
    let _others_may_run = FLOODED.read().unwrap_or_else(PoisonError::into_inner);
    for family in Family::ALL {
        let cluster = Cluster::of(2).unwrap();
        let config = |priority| cluster.config(family, priority, &format!("{FAST}\n{more}"));
        let first = active(&cluster, 0, &config(150)).unwrap();
        let second = backup(&cluster, 1, &config(100)).unwrap();
        std::thread::sleep(SETTLED);
        let probe = cluster.probe(family).unwrap();
        std::thread::sleep(Duration::from_millis(300));
        let before = neighbour(&cluster, family);
        let mac = server_claims(&cluster, family);
        std::thread::sleep(Duration::from_millis(300));
        assert!(!neighbour(&cluster, family).contains(&mac), "{}, before {before}", neighbour(&cluster, family));
        let report = probe.end().unwrap();
        eprintln!("claimed once, {family:?} {more}: {report:?}");
        // Some are lost: the client believed it.
        assert!((1..=20).contains(&report.lost), "{report:?}");
        assert_eq!(turns(&report), ["node1"]);

        let words = format!("{mac} claims {} too", cluster.vip(family));
        wait_until("status to tell it", Duration::from_secs(3), || problems(&first).contains(&words)).unwrap();
        assert!(problems(&first).contains(&format!("virtual router www: {words}")), "{}", problems(&first));
        assert!(said(&first, "vrrp").contains(&format!("! {words}; heard ")), "{}", said(&first, "vrrp"));
        assert!(said(&first, "events").contains(&format!("virtual router www: {words}\n")), "{}", said(&first, "events"));
        wait_until("it to be over", SOON, || !problems(&first).contains("claims")).unwrap();
        assert!(said(&first, "events").contains(&format!("{words}, which is over")), "{}", said(&first, "events"));
        // The other one has nothing to defend.
        assert!(!said(&second, "events").contains("claims"), "{}", said(&second, "events"));
        assert_eq!(router(&first).unwrap()["became_active"], 1);
    }
}

#[test]
fn hand_overs_are_no_conflict() {
    let _others_may_run = FLOODED.read().unwrap_or_else(PoisonError::into_inner);
    for family in Family::ALL {
        let cluster = Cluster::of(2).unwrap();
        let mut first = active(&cluster, 0, &cluster.config(family, 150, FAST)).unwrap();
        let second = backup(&cluster, 1, &cluster.config(family, 100, FAST)).unwrap();
        let probe = cluster.probe(family).unwrap();
        for _ in 0..3 {
            std::thread::sleep(SETTLED);
            assert!(first.operate(&["vrrp", "yield"]).unwrap().status.success());
            await_state(&second, "active").unwrap();
            await_state(&first, "backup").unwrap();
            std::thread::sleep(SETTLED);
            assert!(first.operate(&["vrrp", "ready"]).unwrap().status.success());
            await_state(&first, "active").unwrap();
            await_state(&second, "backup").unwrap();
        }
        first.terminate().unwrap();
        await_state(&second, "active").unwrap();
        std::thread::sleep(SETTLED);
        first.run().unwrap();
        await_state(&first, "active").unwrap();
        await_state(&second, "backup").unwrap();
        std::thread::sleep(SETTLED);
        let report = probe.end().unwrap();
        eprintln!("four hand-overs and four returns, {family:?}: {report:?}");
        assert!(report.lost <= 4, "{report:?}");
        for weir in [&first, &second] {
            assert!(!said(weir, "events").contains("claims"), "{}", said(weir, "events"));
            assert!(!problems(weir).contains("claims"), "{}", problems(weir));
        }
    }
}

#[test]
fn two_nodes_that_hear_no_adverts_of_each_other_tell_it_and_do_not_flood_the_link() {
    let _others_may_run = FLOODED.read().unwrap_or_else(PoisonError::into_inner);
    let cluster = Cluster::of(2).unwrap();
    let IpAddr::V4(vip) = cluster.vip(Family::V4) else { panic!("of IPv4") };
    // Each in a virtual router of its own.
    let config = |priority, id: &str| cluster.config(Family::V4, priority, FAST).replace("router_id = 7", id);
    let first = active(&cluster, 0, &config(150, "router_id = 7")).unwrap();
    std::thread::sleep(SETTLED);
    let client = &cluster.lab.client().namespace;
    let time = Duration::from_secs(6);
    let (second, heard) = std::thread::scope(|scope| {
        let ear = scope.spawn(|| client.enter(|| count_arp("eth0", vip.octets(), time)).unwrap());
        let second = active(&cluster, 1, &config(100, "router_id = 8")).unwrap();
        // It has settled too, when the server says that the address is its own.
        std::thread::sleep(SETTLED);
        server_claims(&cluster, Family::V4);
        (second, ear.join().unwrap())
    });
    let of = |node: usize| heard.iter().filter(|mac| **mac == octets(&cluster.lab.nodes[node].mac("eth0").unwrap())).count();
    eprintln!("frames in {time:?}: {} and {}", of(0), of(1));
    for (node, weir, other) in [(0, &first, 1), (1, &second, 0)] {
        // Four at once and one each second, of eight frames; the second node's take-over, and what it says again 5 s later, are eight each.
        assert!((8..=(4 + 7 + 2) * 8).contains(&of(node)), "{}", of(node));
        let words = format!("{} claims {vip} too", cluster.lab.nodes[other].mac("eth0").unwrap().trim());
        wait_until("it to be told", SOON, || problems(weir).contains(&words)).unwrap();
    }
}

#[test]
fn a_flood_of_claims_delays_no_advert() {
    let _alone = FLOODED.write().unwrap_or_else(PoisonError::into_inner);
    let became = without_pauses(Duration::from_millis(20), |stopwatch| {
        let cluster = Cluster::of(2).unwrap();
        let first = active(&cluster, 0, &cluster.config(Family::V4, 150, "interval = \"20ms\"")).unwrap();
        let second = backup(&cluster, 1, &cluster.config(Family::V4, 100, "interval = \"20ms\"")).unwrap();
        stopwatch.start();
        let server = &cluster.lab.servers[0];
        let mac = octets(&server.mac("eth0").unwrap());
        let used = || cpu_ticks(speaker(&first).unwrap());
        let before = used();
        let sent = server.namespace.enter(|| claim("eth0", cluster.vip(Family::V4), mac, 20_000, Duration::from_secs(4))).unwrap();
        eprintln!("{sent} claims in 4 s, the speaker ran for {} ms of it", (used() - before) * 10);
        assert!(sent > 20_000, "{sent}");
        // Half of a CPU, in a debug build.
        assert!(used() - before < 200, "{}", used() - before);
        assert_eq!(cluster.holders(Family::V4), [0]);
        (became_active(&first), became_active(&second))
    });
    assert_eq!(became, (vec![1], vec![0]));
}

#[test]
fn the_heir_need_not_wait_for_the_sockets_of_a_speaker_that_is_killed() {
    let _alone = FLOODED.write().unwrap_or_else(PoisonError::into_inner);
    let became = without_pauses(Duration::from_millis(10), |stopwatch| {
        let cluster = Cluster::of(2).unwrap();
        let config = |priority: u8| {
            format!(
                "{}[vrrp.www6]\ninterface = \"eth0\"\nrouter_id = 7\npriority = {priority}\naddresses = [\"{}/64\"]\ninterval = \"10ms\"\n",
                cluster.config(Family::V4, priority, "interval = \"10ms\""),
                cluster.vip(Family::V6)
            )
        };
        let first = active(&cluster, 0, &config(150)).unwrap();
        let second = backup(&cluster, 1, &config(100)).unwrap();
        stopwatch.start();
        for _ in 0..5 {
            wait_until("an heir", SOON, || speakers(&first).is_ok_and(|found| found.len() == 2)).unwrap();
            std::thread::sleep(SETTLED);
            let pid = speaker(&first).unwrap();
            signal(pid, Signal::KILL).unwrap();
            wait_until("another speaker", SOON, || speaker(&first).is_ok_and(|other| other != pid)).unwrap();
        }
        became_active(&second)
    });
    // Others take over after 36 ms.
    assert_eq!(became, [0, 0]);
}

/// How often each virtual router of a node became active.
fn became_active(weir: &Weir<'_>) -> Vec<u64> {
    view(weir).unwrap()["routers"].as_array().unwrap().iter().map(|router| router["became_active"].as_u64().unwrap()).collect()
}
