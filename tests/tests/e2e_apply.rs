//! Configurations of a running daemon: applied, compared, guarded, taken back, and what becomes of files that cannot be read.

use std::{
    fs,
    time::{Duration, Instant},
};

use weir_tests::{
    lab::{Weir, wait_until},
    operator::{done, json, refused, said, servers},
    web::{PORT, Web},
};

const SOON: Duration = Duration::from_secs(20);

#[test]
fn configurations_are_applied_compared_and_taken_back() {
    let fixture = Web::new();
    let mut weir = Weir::start(fixture.lab.node(), &fixture.blue_and_green("")).unwrap();
    let only = |server: usize| {
        let text = fs::read_to_string(weir.config()).unwrap();
        let path = weir.config().with_file_name(format!("only{server}.toml"));
        let other = format!("servers.s{} =", 3 - server);
        fs::write(&path, text.lines().filter(|line| !line.starts_with(&other)).map(|line| format!("{line}\n")).collect::<String>())
            .unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (only1, only2) = (only(1), only(2));

    let diff = json(&weir, &["diff", &only1]);
    let service = &diff["difference"]["services"][0];
    assert_eq!((&service["change"], &service["slots_moved"]), (&"changed".into(), &0.5.into()), "{diff:#}");
    assert!(done(&weir, &["diff", &only1]).contains("50.0% of its slots move"));
    assert!(done(&weir, &["diff"]).contains("no service changes"));
    assert_eq!(fixture.served(), ["s1", "s2"], "a look changes nothing");

    assert!(done(&weir, &["apply", &only1]).contains("configuration 2 is in force"));
    assert_eq!(fixture.served(), ["s1"]);
    // The file says what it said: a restart, and a touch, leave what was applied.
    weir.crash_and_restart().unwrap();
    let text = fs::read_to_string(weir.config()).unwrap();
    fs::write(weir.config(), &text).unwrap();
    std::thread::sleep(Duration::from_millis(1500));
    assert_eq!(fixture.served(), ["s1"]);

    assert!(done(&weir, &["status"]).contains("* configuration 2 ("), "it is said that the file is not in force");
    done(&weir, &["rollback"]);
    assert_eq!(fixture.served(), ["s1", "s2"]);
    refused(&weir, &["rollback"], "no earlier configuration");
    let (code, text) = said(&weir.operate(&["rollback", "77"]).unwrap());
    assert!(code == Some(1) && text.starts_with("error: configuration 77 is not kept, only 1 (in force), 2\nhint: "), "{text}");
    assert_eq!(json(&weir, &["rollback", "2"]), serde_json::json!({ "generation": 2 }));
    assert_eq!(fixture.served(), ["s1"]);

    done(&weir, &["apply", &only2, "--confirm", "10s"]);
    let applied = Instant::now();
    assert_eq!(fixture.served(), ["s2"]);
    wait_until("it to be taken back", SOON, || fixture.served() == ["s1"]).unwrap();
    assert!(applied.elapsed() >= Duration::from_secs(8), "{:?}", applied.elapsed());
    refused(&weir, &["confirm"], "no configuration waits");
    done(&weir, &["apply", &only2, "--confirm", "3s"]);
    done(&weir, &["confirm"]);
    std::thread::sleep(Duration::from_secs(4));
    assert_eq!(fixture.served(), ["s2"]);

    let broken = weir.config().with_file_name("broken.toml");
    fs::write(&broken, text.replace("mode = \"l4\"", "mode = \"l5\"")).unwrap();
    refused(&weir, &["apply", broken.to_str().unwrap()], "broken.toml:");
    refused(&weir, &["diff", broken.to_str().unwrap()], "broken.toml:");
    assert_eq!(said(&weir.operate(&["apply", "/nowhere.toml"]).unwrap()).0, Some(2));
    assert_eq!(fixture.served(), ["s2"]);
    let history = json(&weir, &["history"]);
    assert_eq!(history["entries"].as_array().unwrap().iter().filter(|entry| entry["in_force"] == true).count(), 1, "{history:#}");
    let events = done(&weir, &["events"]);
    for words in ["configuration 2 is in force", "nobody confirmed", "root: weir apply", "was refused"] {
        assert!(events.contains(words), "no {words:?} in {events}");
    }
}

#[test]
fn a_configuration_whose_servers_go_down_is_taken_back_before_its_time() {
    let fixture = Web::new();
    let weir = Weir::start(fixture.lab.node(), &fixture.blue_and_green("")).unwrap();
    let text = fs::read_to_string(weir.config()).unwrap();
    let ruin = weir.config().with_file_name("ruin.toml");
    let check = "[pool.blue]\ncheck = { tcp = true, port = 9, interval = \"200ms\", fall = 2 }\n";
    fs::write(&ruin, text.replace("[pool.blue]\n", check)).unwrap();
    done(&weir, &["apply", ruin.to_str().unwrap(), "--confirm", "10m"]);
    wait_until("it to be taken back", SOON, || done(&weir, &["events"]).contains("all servers of pool blue are down")).unwrap();
    assert_eq!(fixture.served(), ["s1", "s2"]);
}

#[test]
fn who_is_known_to_be_down_or_not_known_at_all_gets_no_listener() {
    let fixture = Web::new();
    fixture.stop_server(2);
    let check = |text: String, port: &str| {
        let check = format!("check = {{ tcp = true, interval = \"200ms\", fall = 2{port} }}\n");
        text.replace("[pool.blue]\n", &format!("[pool.blue]\n{check}")).replace("[pool.green]\n", &format!("[pool.green]\n{check}"))
    };
    let weir = Weir::start(fixture.lab.node(), &check(fixture.blue_and_green(""), "")).unwrap();
    let detail = |name: &str| json(&weir, &["status", name])["servers"][0]["detail"].clone();
    wait_until("s1 to be checked", SOON, || detail("blue/s1")["probe"]["last_good"] == true).unwrap();
    // Nobody knows at which port it would serve.
    assert!(detail("green/s3")["unchecked"].as_str().unwrap().contains("no listener uses its pool"), "{:#}", detail("green/s3"));
    refused(&weir, &["switch", "web", "green"], "green/s3 has not been checked");
    assert_eq!(fixture.served(), ["s1", "s2"]);

    // One that no listener uses is known to be down before it is used.
    let text = fs::read_to_string(weir.config()).unwrap();
    let file = weir.config().with_file_name("other.toml");
    weir.write_config(&check(fixture.blue_and_green(""), &format!(", port = {PORT}"))).unwrap();
    wait_until("green to be found down", SOON, || servers(&weir)["green/s3"]["why"] == "unhealthy").unwrap();
    fs::write(&file, fs::read_to_string(weir.config()).unwrap().replace("pool = \"blue\"", "pool = \"green\"")).unwrap();
    let path = file.to_str().unwrap();
    assert!(done(&weir, &["diff", path]).contains("listener web has nobody who takes new flows then"));
    refused(&weir, &["apply", path, "--confirm", "10m"], "all servers of pool green are down under the later one");
    assert_eq!(fixture.served(), ["s1", "s2"]);
    refused(&weir, &["confirm"], "no configuration waits");
    refused(&weir, &["switch", "web", "green"], "");

    // The colour that was left goes on being checked, so that the way back is known.
    fs::write(&file, &text).unwrap();
    weir.write_config(&check(fixture.blue_and_green(""), "")).unwrap();
    wait_until("the file to be taken", SOON, || detail("green/s3")["unchecked"].is_string()).unwrap();
    fixture.start_server(2);
    done(&weir, &["switch", "web", "green", "--force"]);
    assert_eq!(fixture.served(), ["s3"]);
    wait_until("s1 to be checked", SOON, || detail("blue/s1")["probe"]["last_good"] == true).unwrap();
    done(&weir, &["switch", "web"]);
    assert_eq!(fixture.served(), ["s1", "s2"]);

    // What is known goes with the address, in `diff` as when it is applied.
    fixture.stop_server(1);
    wait_until("s2 to be down", SOON, || servers(&weir)["blue/s2"]["why"] == "unhealthy").unwrap();
    let [s1, s2] = [0, 1].map(|index: usize| fixture.lab.servers[index].v4.to_string());
    let swapped = fs::read_to_string(weir.config()).unwrap().replace(&s1, "?").replace(&s2, &s1).replace('?', &s2);
    fs::write(&file, swapped).unwrap();
    let told = json(&weir, &["diff", path]);
    assert_eq!(told["operations"], 0, "{told:#}");
    assert!(done(&weir, &["apply", path]).contains("configuration"));
    assert_eq!(fixture.served(), ["s1"]);
}

#[test]
fn a_file_that_breaks_while_the_daemon_is_away_leaves_what_was_in_force() {
    let fixture = Web::new();
    let mut weir = Weir::start(fixture.lab.node(), &fixture.blue_and_green("")).unwrap();
    weir.kill_9().unwrap();
    weir.write_config("nonsense").unwrap();
    weir.run().unwrap();
    assert_eq!(fixture.served(), ["s1", "s2"]);
    assert!(done_or_unhealthy(&weir).contains("configuration not taken"));
    weir.write_config(&fixture.blue_and_green("")).unwrap();
    wait_until("the file to be taken", SOON, || !done_or_unhealthy(&weir).contains("configuration not taken")).unwrap();
    weir.kill_9().unwrap();
    assert_eq!(said(&weir.operate(&["stop"]).unwrap()).0, Some(0));
    weir.write_config("nonsense").unwrap();
    assert_eq!(weir.run_refused().unwrap().0, 1, "nothing is loaded that it could go on with");
}

fn done_or_unhealthy(weir: &Weir<'_>) -> String {
    said(&weir.operate(&["status"]).unwrap()).1
}

#[test]
fn a_guard_outlives_repetition_and_leads_back_to_what_was_confirmed() {
    let fixture = Web::new();
    let weir = Weir::start(fixture.lab.node(), &fixture.blue_and_green("")).unwrap();
    let confirmed = json(&weir, &["history"])["entries"].as_array().unwrap().last().unwrap()["generation"].clone();
    let other = |weight: u8| {
        let path = weir.config().with_extension(format!("{weight}.toml"));
        let text = fs::read_to_string(weir.config()).unwrap();
        let heavier = format!("servers.s2 = {{ weight = {weight}, address = ");
        fs::write(&path, text.replacen("servers.s2 = ", &heavier, 1).replacen("\n[pool.green]", " }\n[pool.green]", 1)).unwrap();
        path.display().to_string()
    };
    let in_force = || {
        let history = json(&weir, &["history"]);
        history["entries"].as_array().unwrap().iter().find(|entry| entry["in_force"] == true).unwrap()["generation"].clone()
    };
    done(&weir, &["apply", &other(3), "--confirm", "3s"]);
    done(&weir, &["apply", &other(4), "--confirm", "3s"]);
    done(&weir, &["apply", &other(4), "--confirm", "3s"]);
    assert_ne!(in_force(), confirmed);
    wait_until("what was confirmed to be in force", SOON, || in_force() == confirmed).unwrap();
    // Its own file, taken by the daemon before it is told to guard it.
    fs::copy(other(5), weir.config()).unwrap();
    wait_until("the file to be taken", SOON, || in_force() != confirmed).unwrap();
    done(&weir, &["apply", "--confirm", "2s"]);
    wait_until("what was before to be in force", SOON, || in_force() == confirmed).unwrap();
    refused(&weir, &["confirm"], "no configuration waits");
}

#[test]
fn a_pipe_in_the_files_place_is_refused_and_holds_up_nothing() {
    let fixture = Web::new();
    let weir = Weir::start(fixture.lab.node(), &fixture.blue_and_green("")).unwrap();
    fixture.lab.node().namespace.run("mkfifo", &[&weir.config().with_extension("pipe").display().to_string()]).unwrap();
    fs::rename(weir.config(), weir.config().with_extension("kept")).unwrap();
    fs::rename(weir.config().with_extension("pipe"), weir.config()).unwrap();
    wait_until("the log to say so", SOON, || weir.stderr().contains("it is no regular file")).unwrap();
    fs::rename(weir.config().with_extension("kept"), weir.config()).unwrap();
    done(&weir, &["drain", "blue/s1"]);
    assert_eq!(fixture.served(), ["s2"]);
    // What is no server of a file is none of a command.
    for (name, address, why) in [("blue/a b", "10.2.0.50", "no name"), ("blue/x*", "10.2.0.50", "no name")] {
        refused(&weir, &["server", "add", name, address], why);
    }
    // What is said of a server that has gone can be taken back.
    let text = fs::read_to_string(weir.config()).unwrap();
    let s1 = text.lines().find(|line| line.starts_with("servers.s1")).unwrap().to_owned() + "\n";
    fs::write(weir.config(), text.replacen(&s1, "", 1)).unwrap();
    wait_until("s1 to be gone", SOON, || !servers(&weir).contains_key("blue/s1")).unwrap();
    done(&weir, &["ready", "blue/s1"]);
    fs::write(weir.config(), text).unwrap();
    wait_until("s1 to be back", SOON, || servers(&weir).contains_key("blue/s1")).unwrap();
    assert_eq!(fixture.served(), ["s1", "s2"]);
}
