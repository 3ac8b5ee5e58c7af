//! What goes wrong between virtual routers is seen on the node where it goes wrong.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use rustix::process::Signal;
use weir_tests::{
    lab::{Family, Folder, SmallDisk, Weir, wait_until},
    operator::{done, refused},
    vrrp::{Cluster, active, await_state, backup, kill_all, router, signal, speaker, speakers, view},
};

const SOON: Duration = Duration::from_secs(20);
const FAST: &str = "interval = \"100ms\"";

fn problems(weir: &Weir<'_>) -> String {
    weir.status().map(|status| status["problems"].to_string()).unwrap_or_default()
}

fn events(weir: &Weir<'_>) -> String {
    weir.operate(&["events"]).map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default()
}

#[test]
fn a_speaker_whose_state_directory_was_removed_makes_room_for_the_next_one() {
    let cluster = Cluster::of(2).unwrap();
    let mut first = active(&cluster, 0, &cluster.config(Family::V4, 150, FAST)).unwrap();
    let second = backup(&cluster, 1, &cluster.config(Family::V4, 100, FAST)).unwrap();
    let state = first.config().with_file_name("state");
    let probe = cluster.probe(Family::V4).unwrap();
    first.kill_9().unwrap();
    fs::remove_dir_all(&state).unwrap();
    first.run().unwrap();
    await_state(&first, "active").unwrap();
    wait_until("one speaker", SOON, || speakers(&first).unwrap().len() <= 2).unwrap();
    let report = probe.end().unwrap();
    eprintln!("the state directory removed: {report:?}");
    assert!(report.lost <= 2, "{report:?}");
    // It does as it is told, for nobody else speaks for this node.
    assert!(first.operate(&["vrrp", "yield"]).unwrap().status.success());
    await_state(&second, "active").unwrap();
    await_state(&first, "backup").unwrap();
    wait_until("one holder", SOON, || cluster.holders(Family::V4) == [1]).unwrap();
    first.terminate().unwrap();
    wait_until("no speaker", SOON, || speakers(&first).is_ok_and(|found| found.is_empty())).unwrap();
}

#[test]
fn adverts_that_count_for_nothing_are_told_in_status_and_events_until_they_end() {
    let cluster = Cluster::of(2).unwrap();
    let config = |priority, password: &str| {
        cluster.config(Family::V4, priority, &format!("version = 2\ninterval = \"1s\"\npassword = \"{password}\""))
    };
    let first = active(&cluster, 0, &config(150, "s3cret")).unwrap();
    // It does not believe the first, and becomes active as well: both say why.
    let second = active(&cluster, 1, &config(100, "other")).unwrap();
    for weir in [&first, &second] {
        wait_until("status to tell it", SOON, || problems(weir).contains("count for nothing: its password is wrong")).unwrap();
        let told = weir.operate(&["vrrp"]).unwrap();
        assert!(String::from_utf8_lossy(&told.stdout).contains("! adverts of 10.1.0."), "{told:?}");
        assert!(events(weir).contains("its adverts count for nothing: its password is wrong"), "{}", events(weir));
    }
    second.write_config(&config(100, "s3cret")).unwrap();
    await_state(&second, "backup").unwrap();
    wait_until("it to be over", SOON, || !problems(&first).contains("count for nothing")).unwrap();
    assert!(events(&first).contains("its password is wrong, which is over"), "{}", events(&first));
}

#[test]
fn a_weight_moves_the_whole_group() {
    let cluster = Cluster::of(2).unwrap();
    let folder = Folder::new("weights").unwrap();
    let file = folder.path().join("serve");
    fs::write(&file, "").unwrap();
    let config = |priority: u8, track: &str| {
        let four = cluster.config(Family::V4, priority, &format!("{FAST}\ngroup = \"all\"\n{track}"));
        let vip6 = cluster.vip(Family::V6);
        format!(
            "{four}[vrrp.www6]\ninterface = \"eth0\"\nrouter_id = 7\npriority = {priority}\naddresses = [\"{vip6}/64\"]\n{FAST}\ngroup = \"all\"\n"
        )
    };
    let first = active(&cluster, 0, &config(150, &format!("track = [{{ file = {file:?}, weight = -100 }}]"))).unwrap();
    let _second = backup(&cluster, 1, &config(100, "")).unwrap();
    let holders = || (cluster.holders(Family::V4), cluster.holders(Family::V6));
    wait_until("the first to have both", SOON, || holders() == (vec![0], vec![0])).unwrap();
    fs::remove_file(&file).unwrap();
    wait_until("the second to have both", SOON, || holders() == (vec![1], vec![1])).unwrap();
    assert_eq!(view(&first).unwrap()["routers"][1]["priority"], 50);
    fs::write(&file, "").unwrap();
    wait_until("the first to have both again", SOON, || holders() == (vec![0], vec![0])).unwrap();
}

#[test]
fn an_address_that_somebody_gave_the_host_and_one_that_nobody_has_are_told() {
    let cluster = Cluster::of(2).unwrap();
    let config = cluster.config(Family::V4, 150, FAST);
    let first = active(&cluster, 0, &config).unwrap();
    let second = backup(&cluster, 1, &cluster.config(Family::V4, 100, FAST)).unwrap();
    let node = &cluster.lab.nodes[1].namespace;
    node.ip(&format!("addr add {}/24 dev eth0", cluster.vip(Family::V4))).unwrap();
    wait_until("status to tell it", SOON, || problems(&second).contains("10.1.0.100 is eth0's own")).unwrap();
    node.ip(&format!("addr del {}/24 dev eth0", cluster.vip(Family::V4))).unwrap();
    wait_until("it to be over", SOON, || !problems(&second).contains("eth0's own")).unwrap();
    // The active node has another address instead: nobody has the first.
    first.write_config(&config.replace("[\"10.1.0.100/24\"]", "[\"10.1.0.102/24\"]")).unwrap();
    let told = || String::from_utf8_lossy(&second.operate(&["vrrp"]).unwrap().stdout).into_owned();
    wait_until("the difference", SOON, || told().contains("10.1.0.100/24 on eth0: nobody that is known")).unwrap();
    assert!(told().contains("it has other addresses: only there 10.1.0.102; only here 10.1.0.100"), "{}", told());
}

#[test]
fn a_program_that_hangs_delays_no_other_router_and_is_killed_with_its_children() {
    let cluster = Cluster::of(1).unwrap();
    let folder = Folder::new("hang").unwrap();
    let told = folder.path().join("told");
    let child = folder.path().join("child");
    let hangs = format!("notify = [\"/bin/sh\", \"-c\", \"sleep 1000 & echo $! > {}; wait\"]", child.display());
    let writes = format!("notify = [\"/bin/sh\", \"-c\", \"echo $WEIR_VRRP_STATE >> {}\"]", told.display());
    let config = format!(
        "{}[vrrp.other]\ninterface = \"eth0\"\nrouter_id = 8\naddresses = [\"10.1.0.101/24\"]\n{FAST}\n{writes}\n",
        cluster.config(Family::V4, 150, &format!("{FAST}\n{hangs}"))
    );
    let began = Instant::now();
    let weir = active(&cluster, 0, &config).unwrap();
    wait_until("the other's program", SOON, || fs::read_to_string(&told).is_ok_and(|text| text.lines().count() == 2)).unwrap();
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    let pid: i32 = fs::read_to_string(&child).unwrap().trim().parse().unwrap();
    let is_there = || Path::new(&format!("/proc/{pid}")).exists();
    assert!(is_there());
    wait_until("its end", Duration::from_secs(40), || events(&weir).contains("has not ended within 30s: it is killed")).unwrap();
    wait_until("the end of what it started", SOON, || !is_there()).unwrap();
}

#[test]
fn a_node_whose_data_plane_is_gone_gives_the_address_up_though_its_daemon_is_dead() {
    let cluster = Cluster::of(2).unwrap();
    let tracks = format!("{FAST}\ntrack = [{{ data_plane = true }}]");
    let mut first = active(&cluster, 0, &cluster.config(Family::V4, 150, &tracks)).unwrap();
    let second = backup(&cluster, 1, &cluster.config(Family::V4, 100, &tracks)).unwrap();
    first.kill_9().unwrap();
    // Its pin is all that keeps the program on the interface now.
    fs::remove_file(first.pin_dir().join("link-eth0")).unwrap();
    await_state(&second, "active").unwrap();
    wait_until("one holder", SOON, || cluster.holders(Family::V4) == [1]).unwrap();
    // The next daemon takes the interface, and the node its address.
    first.run().unwrap();
    await_state(&first, "active").unwrap();
    assert!(events(&second).contains("virtual router www is active"), "{}", events(&second));
}

#[test]
fn without_a_daemon_the_speaker_tells_how_its_routers_are_and_a_hold_outlives_everything() {
    let cluster = Cluster::of(2).unwrap();
    let mut first = active(&cluster, 0, &cluster.config(Family::V4, 150, FAST)).unwrap();
    let mut second = backup(&cluster, 1, &cluster.config(Family::V4, 100, FAST)).unwrap();
    first.kill_9().unwrap();
    // It loses the address meanwhile.
    second.write_config(&cluster.config(Family::V4, 200, FAST)).unwrap();
    await_state(&second, "active").unwrap();
    let said = |weir: &Weir<'_>, command: &str| {
        let output = weir.operate(&[command]).unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let told = said(&first, "vrrp");
    assert!(told.0 == Some(1) && told.1.contains("there is no daemon") && told.1.contains("10.1.0.2 has a higher priority"), "{told:?}");
    assert!(said(&first, "status").1.contains("10.1.0.2 has a higher priority"), "{:?}", said(&first, "status"));
    first.run().unwrap();
    assert!(second.operate(&["vrrp", "yield"]).unwrap().status.success());
    await_state(&first, "active").unwrap();
    await_state(&second, "backup").unwrap();
    // The next processes know what the operator said.
    wait_until("the record of it", SOON, || {
        fs::read_to_string(second.config().with_file_name("state").join("state.json"))
            .is_ok_and(|text| text.contains("\"vrrp_holds\":[\"www\"]"))
    })
    .unwrap();
    kill_all(&mut second).unwrap();
    let told = said(&second, "status").1;
    assert!(told.contains("! nobody speaks vrrp: leased addresses of virtual routers go within seconds"), "{told}");
    second.run().unwrap();
    await_state(&second, "backup").unwrap();
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!((cluster.holders(Family::V4), router(&second).unwrap()["is_on_hold"].as_bool()), (vec![0], Some(true)));
    // And who speaks is an event.
    assert!(second.operate(&["vrrp", "ready"]).unwrap().status.success());
    await_state(&second, "active").unwrap();
    wait_until("an heir", SOON, || speakers(&second).is_ok_and(|found| found.len() == 2)).unwrap();
    signal(speaker(&second).unwrap(), Signal::KILL).unwrap();
    wait_until("the event", SOON, || events(&second).contains("speaks for virtual routers")).unwrap();
}

#[test]
fn a_full_disk_refuses_a_yield_and_what_was_said_before_it_was_full_is_kept() {
    let cluster = Cluster::of(2).unwrap();
    let first = Weir::prepare(&cluster.lab.nodes[0], &cluster.config(Family::V4, 150, FAST)).unwrap();
    let state = first.config().with_file_name("state");
    // The daemon ends before its disk goes.
    let _disk = SmallDisk::at(&state).unwrap();
    let mut first = first;
    first.run().unwrap();
    await_state(&first, "active").unwrap();
    let second = backup(&cluster, 1, &cluster.config(Family::V4, 100, FAST)).unwrap();
    let is_on_hold = |first: &Weir<'_>| router(first).unwrap()["is_on_hold"].as_bool();

    let filler = state.join("filler");
    fs::write(&filler, vec![0; 1 << 20]).expect_err("it is full");
    let full = "state.json: No space left on device (os error 28)\nhint: nothing has been changed; weir stop hands over, too";
    refused(&first, &["vrrp", "yield"], full);
    assert_eq!((router(&first).unwrap()["state"].as_str(), is_on_hold(&first)), (Some("active"), Some(false)));
    fs::remove_file(&filler).unwrap();
    done(&first, &["vrrp", "yield"]);
    await_state(&second, "active").unwrap();
    // What the daemon said in time outlives all processes, and their orderly end.
    kill_all(&mut first).unwrap();
    first.run().unwrap();
    await_state(&first, "backup").unwrap();
    assert_eq!(is_on_hold(&first), Some(true));
    first.terminate().unwrap();
    first.run().unwrap();
    await_state(&first, "backup").unwrap();
    assert_eq!(is_on_hold(&first), Some(true));

    fs::write(&filler, vec![0; 1 << 20]).expect_err("it is full");
    refused(&first, &["vrrp", "ready"], "state.json: No space left on device (os error 28)\nhint: nothing has been changed\n");
    assert_eq!(is_on_hold(&first), Some(true));
    fs::remove_file(&filler).unwrap();
    done(&first, &["vrrp", "ready"]);
    await_state(&first, "active").unwrap();

    // Nobody takes over: the hold is over, and not left in the record.
    drop(second);
    refused(&first, &["vrrp", "yield"], "www: active here: ");
    wait_until("the record of it", SOON, || {
        fs::read_to_string(state.join("state.json")).is_ok_and(|text| text.contains("\"vrrp_holds\":[]"))
    })
    .unwrap();
    first.terminate().unwrap();
}

#[test]
fn what_became_of_a_router_while_no_daemon_listened_is_told_by_the_next_one() {
    let cluster = Cluster::of(2).unwrap();
    let folder = Folder::new("vrrp").unwrap();
    let told = folder.path().join("told");
    let notify = format!("notify = [\"/bin/sh\", \"-c\", \"echo $WEIR_VRRP_FROM $WEIR_VRRP_STATE >> {}\"]", told.display());
    let first = active(&cluster, 0, &cluster.config(Family::V4, 150, FAST)).unwrap();
    let mut second = backup(&cluster, 1, &cluster.config(Family::V4, 100, &format!("{FAST}\n{notify}"))).unwrap();
    let heard = || fs::read_to_string(&told).unwrap_or_default();
    let state = second.config().with_file_name("state");
    wait_until("the program to be told", SOON, || heard() == "stopped backup\n").unwrap();
    let await_kept = |word: &str| {
        let kept = format!(r#""vrrp_states":{{"www":"{word}"}}"#);
        wait_until("it to be kept", SOON, || fs::read_to_string(state.join("state.json")).is_ok_and(|text| text.contains(&kept))).unwrap();
    };
    await_kept("backup");
    second.kill_9().unwrap();
    assert!(first.operate(&["vrrp", "yield"]).unwrap().status.success());
    wait_until("the other node to hold the address", SOON, || cluster.holders(Family::V4) == [1]).unwrap();
    second.run().unwrap();
    await_state(&second, "active").unwrap();
    wait_until("the program to be told", SOON, || heard() == "stopped backup\nbackup active\n").unwrap_or_else(|_| panic!("{}", heard()));
    let told = events(&second);
    assert_eq!(told.lines().filter(|line| line.contains("while no daemon listened")).count(), 1, "{told}");

    // What did not change while there was none is not told again.
    await_kept("active");
    second.kill_9().unwrap();
    second.run().unwrap();
    await_state(&second, "active").unwrap();
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(heard(), "stopped backup\nbackup active\n");

    // What was not kept is told again, with the state that all begin in.
    second.kill_9().unwrap();
    fs::remove_file(state.join("state.json")).unwrap();
    second.run().unwrap();
    wait_until("the program to be told", SOON, || heard().ends_with("\nstopped active\n")).unwrap_or_else(|_| panic!("{}", heard()));
}
