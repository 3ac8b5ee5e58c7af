//! The operator's commands against a running daemon: what they say is in force at once, outlives the daemon, and breaks nobody's connection.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    os::unix::{
        fs::{FileTypeExt as _, PermissionsExt as _},
        net::UnixStream,
    },
    time::{Duration, Instant},
};

use serde_json::Value;
use weir_tests::{
    lab::{Shape, TcpLoad, TcpServer, Topology, Weir, copy_program, wait_until},
    operator::{done, json, refused, said, servers},
    web::{PORT, Web},
};

const SOON: Duration = Duration::from_secs(20);

#[test]
fn states_and_weights_are_in_force_at_once_and_outlive_the_daemon() {
    let fixture = Web::new();
    let mut weir = Weir::start(fixture.lab.node(), &fixture.blue_and_green("")).unwrap();
    assert_eq!(fixture.served(), ["s1", "s2"]);
    let socket = weir.config().with_file_name("state").join("admin.sock");
    let about = fs::metadata(&socket).unwrap();
    assert!(about.file_type().is_socket());
    assert_eq!(about.permissions().mode() & 0o777, 0o660);

    done(&weir, &["drain", "blue/s1"]);
    assert_eq!(fixture.served(), ["s2"]);
    refused(&weir, &["maint", "blue/s2"], "--force");
    refused(&weir, &["drain", "blue/*"], "pool blue");
    refused(&weir, &["drain", "blue/s9"], "no server is");
    refused(&weir, &["drain", "blue"], "POOL/SERVER");
    assert_eq!(fixture.served(), ["s2"]);
    assert_eq!(servers(&weir)["blue/s1"]["why"], "drained-by-operator");
    let shown = done(&weir, &["status"]);
    assert!(shown.contains("* by the operator: blue/s1 is drained") && shown.contains("drained-by-operator"), "{shown}");

    weir.crash_and_restart().unwrap();
    assert_eq!(fixture.served(), ["s2"]);
    assert!(socket.exists());
    done(&weir, &["ready", "blue/s1"]);
    assert_eq!(fixture.served(), ["s1", "s2"]);
    assert_eq!(servers(&weir)["blue/s1"]["override"], Value::Null);

    let weighed = done(&weir, &["weight", "blue/s?", "30"]);
    assert!(weighed.contains("weight 30"), "{weighed}");
    done(&weir, &["weight", "blue/s1", "10"]);
    let status = weir.status().unwrap();
    let slots: Vec<u64> =
        status["services"][0]["members"].as_array().unwrap().iter().map(|member| member["slots"].as_u64().unwrap()).collect();
    assert!(slots.contains(&1024) && slots.contains(&3072), "{slots:?}");
    refused(&weir, &["weight", "blue/*", "0"], "--force");
    done(&weir, &["weight", "blue/*", "0", "--force"]);
    done(&weir, &["weight", "blue/*", "default"]);
    assert_eq!(servers(&weir)["blue/s1"]["weight"], 1);

    // A new file leaves what the operator says as it is.
    done(&weir, &["maint", "blue/s2"]);
    weir.write_config(&fixture.blue_and_green("servers.s4 = { address = \"10.2.0.99\", state = \"down\" }\n")).unwrap();
    wait_until("the file to be taken", SOON, || servers(&weir).contains_key("green/s4")).unwrap();
    assert_eq!(servers(&weir)["blue/s2"]["why"], "maintenance");
    assert_eq!(fixture.served(), ["s1"]);
    weir.terminate().unwrap();
    assert!(!socket.exists(), "the socket goes with the daemon");
    refused(&weir, &["ready", "blue/s2"], "no daemon listens");
}

#[test]
fn servers_come_and_go_and_listeners_switch_pools() {
    let fixture = Web::new();
    let mut weir = Weir::start(fixture.lab.node(), &fixture.blue_and_green("")).unwrap();
    let s3 = fixture.lab.servers[2].v4.to_string();
    done(&weir, &["server", "add", "blue/s3", &s3, "--weight", "2"]);
    assert_eq!(fixture.served_of(3), ["s1", "s2", "s3"]);
    assert_eq!(servers(&weir)["blue/s3"]["added"], true);
    refused(&weir, &["server", "add", "blue/again", &s3], "address");
    refused(&weir, &["server", "add", "red/s3", &s3], "no pool");
    refused(&weir, &["server", "add", "blue/v6", "2001:db8::7"], "family");
    done(&weir, &["server", "remove", "blue/s1"]);
    assert_eq!(fixture.served(), ["s2", "s3"]);
    weir.crash_and_restart().unwrap();
    assert_eq!(fixture.served(), ["s2", "s3"]);
    done(&weir, &["server", "remove", "blue/s3"]);
    refused(&weir, &["server", "remove", "blue/s2"], "last server");
    assert_eq!(fixture.served(), ["s2"]);

    let switched = json(&weir, &["switch", "web", "green"]);
    assert_eq!((&switched["listener"], &switched["was"], &switched["pool"]), (&"web".into(), &"blue".into(), &"green".into()));
    assert_eq!(switched["servers"][0]["server"], "green/s3");
    assert_eq!(fixture.served(), ["s3"]);
    assert!(done(&weir, &["switch", "web", "green"]).starts_with("listener web uses pool green, as before\n"));
    refused(&weir, &["switch", "web", "red"], "no pool");
    let completed = |words: &[&str]| {
        let mut command = fixture.lab.node().namespace.command(std::env::var_os("WEIR_BIN").unwrap());
        command.env("COMPLETE", "bash").env("_CLAP_IFS", "\n").env("_CLAP_COMPLETE_INDEX", words.len().to_string());
        command.env("WEIR_CONFIG", weir.config()).args(["--", "weir"]).args(words);
        said(&command.output().unwrap()).1
    };
    assert_eq!(completed(&["drain", "gr"]), "green/s3");
    assert_eq!(completed(&["switch", "web", "bl"]), "blue");
    assert!(completed(&["switch", ""]).starts_with("web\n"));
    assert_eq!(completed(&["bpf", "serv"]), "SERVICES");
    assert_eq!(completed(&["flows", "gr"]), "green/s3");
    let pages = weir.config().with_file_name("some").join("man");
    let mut command = fixture.lab.node().namespace.command(std::env::var_os("WEIR_BIN").unwrap());
    assert_eq!(said(&command.arg("man").arg(&pages).output().unwrap()), (Some(0), String::new()));
    assert!(fs::read_to_string(pages.join("weir-drain.1")).unwrap().contains("deadline"));
    done(&weir, &["switch", "web"]);
    assert_eq!(fixture.served(), ["s2"]);
    done(&weir, &["drain", "green/*", "--force"]);
    refused(&weir, &["switch", "web", "green"], "listener web");
    assert_eq!(fixture.served(), ["s2"]);
}

#[test]
fn a_drain_waits_for_the_flows_and_ends_in_maintenance() {
    let lab = Topology::builder(Shape::TwoArmed).servers(2).build().unwrap();
    let _servers: Vec<TcpServer> = lab
        .servers
        .iter()
        .enumerate()
        .map(|(index, host)| TcpServer::start(&host.namespace, &format!("s{}", index + 1), PORT).unwrap())
        .collect();
    let text = format!(
        "\n[listener.echo]\nmode = \"l4\"\nbind = \"{}:{PORT}\"\npool = \"echo\"\ntimeout = {{ tcp = \"3s\" }}\n[pool.echo]\nservers.s1 = \"{}\"\nservers.s2 = \"{}\"\n",
        lab.vip4(),
        lab.servers[0].v4,
        lab.servers[1].v4
    );
    let weir = Weir::start(lab.node(), &text).unwrap();
    let to = SocketAddr::new(lab.vip4().into(), PORT);
    let load = TcpLoad::start(&lab.client().namespace, to, 60, Duration::from_millis(100), Duration::from_secs(6)).unwrap();
    load.wait_opened().unwrap();
    let flows = |name: &str| servers(&weir)[name]["flows"].as_u64().unwrap();
    let (first, second) = (flows("echo/s1"), flows("echo/s2"));
    assert!(first + second == 60 && first > 10 && second > 10, "{first} {second}");

    let of_first = json(&weir, &["flows", "echo/s1"]);
    assert_eq!(of_first["translated_total"], first, "{of_first:#}");
    let one = &of_first["translated"][0];
    assert_eq!((&one["state"], &one["server"], &one["vip"]), (&"established".into(), &"echo/s1".into(), &to.to_string().into()));
    assert_eq!(json(&weir, &["flows", "--client", "192.0.2.99"])["translated_total"], 0);
    assert!(done(&weir, &["flows", "-n", "3"]).contains("and 57 more"));
    refused(&weir, &["flows", "echo/s7"], "no server is \"echo/s7\"");

    let began = Instant::now();
    let waited = done(&weir, &["drain", "echo/s1", "--wait", "--deadline", "40s"]);
    assert!(waited.contains(&format!("{first} flows left")) && waited.contains("0 flows left"), "{waited}");
    assert!(waited.contains("maintenance"), "{waited}");
    assert!((Duration::from_secs(2)..Duration::from_secs(30)).contains(&began.elapsed()), "{:?}", began.elapsed());
    let report = load.report().unwrap();
    assert_eq!(report.broken.len(), 0, "{report:?}");

    // Who does not end is not waited for longer than the operator wants.
    done(&weir, &["ready", "echo/s1"]);
    let load = TcpLoad::start(&lab.client().namespace, to, 60, Duration::from_millis(100), Duration::from_secs(20)).unwrap();
    load.wait_opened().unwrap();
    let (code, waited) = said(&weir.operate(&["drain", "echo/s2", "--wait", "--deadline", "2s"]).unwrap());
    assert!(code == Some(1) && waited.contains("the deadline is over with"), "{code:?} {waited}");
    let report = load.finish().unwrap();
    assert_eq!(report.broken.len(), 0, "{report:?}");
}

#[test]
fn others_may_look_if_they_are_let_in_and_admins_may_operate() {
    let fixture = Web::new();
    let mut weir =
        Weir::prepare(fixture.lab.node(), &fixture.blue_and_green("[admin]\ngroup = \"games\"\nusers = [\"nosuchuser\"]\n")).unwrap();
    weir.run().unwrap();
    let is_told = || done(&weir, &["status"]).contains("there is no user \"nosuchuser\"");
    wait_until("it to be said, and the packets go on", SOON, is_told).unwrap();
    done(&weir, &["drain", "blue/s1"]);
    done(&weir, &["ready", "blue/s1"]);
    weir.write_config(&fixture.blue_and_green("[admin]\ngroup = \"games\"\nusers = [\"daemon\"]\n")).unwrap();
    let socket = weir.config().with_file_name("state").join("admin.sock");
    let is_said = || done(&weir, &["status"]).contains("only root can operate");
    wait_until("root to be alone no more", SOON, || !is_said()).unwrap();
    for folder in [weir.config().parent().unwrap(), socket.parent().unwrap()] {
        fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let copy = weir.config().with_file_name("weir-copy");
    copy_program(std::env::var_os("WEIR_BIN").unwrap(), &copy).unwrap();
    let by = |user: &str, arguments: &[&str]| {
        let mut command = fixture.lab.node().namespace.command("setpriv");
        command.args(["--reuid", user, "--regid", "games", "--clear-groups"]).arg(&copy).args(arguments).arg("--config").arg(weir.config());
        said(&command.output().unwrap())
    };
    let (code, text) = by("games", &["server", "list"]);
    assert!(code == Some(0) && text.contains("blue/s1"), "{code:?} {text}");
    let (code, text) = by("games", &["status"]);
    assert!(code == Some(0) && text.contains("blue") && text.contains("native"), "{code:?} {text}");
    let (code, text) = by("games", &["status", "blue"]);
    assert!(code == Some(0) && text.contains("blue/s1") && text.contains("effective"), "{code:?} {text}");
    let (code, text) = by("games", &["flows", "blue/*", "-o", "json"]);
    assert!(code == Some(0) && text.contains("\"translated_total\": "), "{code:?} {text}");
    let (code, text) = by("games", &["flows", "blue/s9"]);
    assert!(code == Some(1) && text.contains("no server is \"blue/s9\"") && text.contains("did you mean"), "{code:?} {text}");
    let (code, text) = by("games", &["explain", "192.0.2.7:1", &fixture.lab.vip4().to_string()]);
    assert!(code == Some(2) && text.contains("is no address and port"), "{code:?} {text}");
    let (code, text) = by("games", &["explain", "192.0.2.7:1", &format!("{}:{PORT}", fixture.lab.vip4())]);
    assert!(code == Some(0) && text.contains("it goes to s"), "{code:?} {text}");
    let (code, text) = by("games", &["bpf"]);
    assert!(code == Some(0) && text.contains("NAT_FLOWS"), "{code:?} {text}");
    let (code, text) = by("games", &["bpf", "services"]);
    assert!(code == Some(0) && text.contains(&fixture.lab.vip4().to_string()), "{code:?} {text}");
    let (code, text) = by("games", &["bpf", "services", "-n", "10001"]);
    assert!(code == Some(1) && text.contains("Permission denied"), "more than the daemon tells: {code:?} {text}");
    let (code, text) = by("games", &["drain", "blue/s1"]);
    assert!(code == Some(1) && text.contains("you may look, but change nothing"), "{code:?} {text}");
    let (code, text) = by("daemon", &["drain", "blue/s1"]);
    assert_eq!(code, Some(0), "{text}");
    assert!(done(&weir, &["events"]).contains("daemon: weir drain blue/s1"));
    // Programs run as root: the admin may not name others.
    let other = weir.config().with_file_name("other.toml");
    let text = fs::read_to_string(weir.config()).unwrap();
    fs::write(&other, text.replace("[pool.green]\n", "[pool.green]\ncheck.command = [\"/bin/true\", \"x\"]\n")).unwrap();
    fs::set_permissions(&other, fs::Permissions::from_mode(0o644)).unwrap();
    let (code, text) = by("daemon", &["apply", other.to_str().unwrap()]);
    assert!(code == Some(1) && text.contains("only root may have another program run as root: /bin/true x"), "{code:?} {text}");
    done(&weir, &["apply", other.to_str().unwrap()]);
    let (code, text) = by("daemon", &["apply", other.to_str().unwrap()]);
    assert!(code == Some(0), "of what is in force: {code:?} {text}");
    let mut command = fixture.lab.node().namespace.command("setpriv");
    command
        .args(["--reuid", "nobody", "--regid", "nogroup", "--clear-groups"])
        .arg(&copy)
        .args(["server", "list"])
        .arg("--config")
        .arg(weir.config());
    let (code, text) = said(&command.output().unwrap());
    assert!(code == Some(1) && text.contains("you may not use"), "{code:?} {text}");
    assert_eq!(fixture.served(), ["s2"]);
}

#[test]
fn what_is_cleared_is_the_configurations_again_and_what_has_no_effect_is_told() {
    let fixture = Web::new();
    let weir = Weir::start(fixture.lab.node(), &fixture.blue_and_green("")).unwrap();
    let s3 = fixture.lab.servers[2].v4.to_string();
    done(&weir, &["weight", "blue/s1", "7"]);
    done(&weir, &["server", "remove", "blue/s2"]);
    assert_eq!(fixture.served(), ["s1"]);
    done(&weir, &["clear", "blue/*"]);
    assert_eq!(fixture.served(), ["s1", "s2"]);
    refused(&weir, &["clear", "red/*"], "no server is");

    // A pool of another mode: what ends is said; a server that only NAT reaches keeps it from being used.
    let direct = format!("[pool.direct]\nforward = \"dsr\"\nservers.s3 = \"{s3}\"\n");
    weir.write_config(&fixture.blue_and_green(&direct)).unwrap();
    done(&weir, &["apply"]);
    done(&weir, &["server", "add", "direct/s9", "10.2.0.99:9999"]);
    refused(&weir, &["switch", "web", "direct"], "direct/s9 does not fit");
    done(&weir, &["server", "remove", "direct/s9"]);
    refused(&weir, &["switch", "web", "direct"], "live connections would end");
    let switched = done(&weir, &["switch", "web", "direct", "--force"]);
    assert!(switched.contains("! the connections of") && switched.contains("end: no other mode"), "{switched}");

    // The file has neither pool nor listener any more.
    done(&weir, &["server", "add", "blue/s3", &s3]);
    let renamed = fixture.blue_and_green("").replace("listener.web", "listener.other").replace("servers.s1 =", "servers.s4 =");
    weir.write_config(&renamed.replace("[pool.green]", &format!("servers.z = \"{s3}\"\n[pool.green]"))).unwrap();
    done(&weir, &["apply"]);
    let shown = done(&weir, &["status"]);
    assert!(shown.contains("there is no such listener; weir switch web clears it"), "{shown}");
    assert!(shown.contains("blue/z has its address; weir server remove blue/s3 clears it"), "{shown}");
    done(&weir, &["switch", "web"]);
    done(&weir, &["server", "remove", "blue/s3"]);
    assert!(!done(&weir, &["status"]).contains("by the operator"));
}

#[test]
fn what_was_said_is_shown_at_once_though_the_record_takes_long() {
    let fixture = Web::new();
    let server = |index| format!("servers.m{index} = \"10.3.{}.{}\"\n", index / 250, 1 + index % 250);
    let many: String = (0..10_000).map(server).collect();
    let weir = Weir::start(fixture.lab.node(), &fixture.blue_and_green(&format!("[pool.many]\n{many}"))).unwrap();
    let text = fs::read_to_string(weir.config()).unwrap();
    for round in 1..=5 {
        done(&weir, &["weight", "blue/s1", &round.to_string()]);
        let shown = done(&weir, &["status"]);
        assert!(shown.contains(&format!("blue/s1 is of weight {round}\n")), "{shown}");
        fs::write(weir.config(), format!("{text}# {round}\n")).unwrap();
        done(&weir, &["apply"]);
        let metrics = done(&weir, &["metrics"]);
        assert!(metrics.contains(&format!("weir_config_generation {}.0\n", round + 1)), "{metrics}");
    }
}

#[test]
fn connection_rates_are_changed_and_forgotten_while_packets_flow() {
    let fixture = Web::new();
    let mut weir = Weir::start(fixture.lab.node(), &fixture.blue_and_green("")).unwrap();
    let client = fixture.lab.client();
    let vip = SocketAddr::new(fixture.lab.vip4().into(), PORT);
    let connects = || client.namespace.enter(|| TcpStream::connect_timeout(&vip, Duration::from_millis(300)).is_ok());
    let source = client.v4.to_string();
    assert!(done(&weir, &["table", &source]).contains("no listener of its family has a conn_rate"));

    done(&weir, &["limit", "web", "2/10m"]);
    assert_eq!((connects(), connects(), connects()), (true, true, false));
    let view = || json(&weir, &["table", &source])["source"][0].clone();
    assert_eq!((&view()["left"], &view()["is_watched"]), (&0.into(), &true.into()));
    assert!(view()["wait_ms"].as_u64().is_some_and(|wait_ms| (200_000..=300_000).contains(&wait_ms)), "{}", view());
    let limits = json(&weir, &["limit", "web"]);
    assert!(limits[0]["refused"].as_u64().is_some_and(|refused| refused > 0) && limits[0]["override"] == true, "{limits}");
    refused(&weir, &["table", &source, "--clear", "--listener", "wep"], "no listener");
    done(&weir, &["table", &source, "--clear", "--listener", "web"]);
    assert_eq!((&view()["left"], &view()["is_watched"]), (&2.into(), &false.into()));
    assert_eq!((connects(), connects(), connects()), (true, true, false));
    done(&weir, &["table", "--clear", "--all"]);
    assert_eq!(json(&weir, &["table"])["watched"], 0);
    assert!(connects());

    // It outlives the daemon, and the file's own word comes back.
    weir.crash_and_restart().unwrap();
    assert!(done(&weir, &["status"]).contains("listener web has conn_rate 2/10m"));
    assert_eq!((connects(), connects()), (true, false));
    refused(&weir, &["limit", "web", "fast"], "100/10s");
    refused(&weir, &["limit", "wep", "off"], "did you mean");
    done(&weir, &["limit", "web", "default"]);
    assert!(connects() && connects() && connects());
}

#[test]
fn who_changes_the_socket_gets_its_answer() {
    let fixture = Web::new();
    let weir = Weir::start(fixture.lab.node(), &fixture.blue_and_green("")).unwrap();
    for group in ["games", "root", "games"] {
        let path = weir.config().with_file_name("other.toml");
        fs::write(&path, fs::read_to_string(weir.config()).unwrap() + &format!("[admin]\ngroup = \"{group}\"\n")).unwrap();
        let applied = done(&weir, &["apply", path.to_str().unwrap()]);
        assert!(applied.contains("is in force"), "{applied}");
        done(&weir, &["drain", "blue/s1"]);
        done(&weir, &["clear", "blue/s1"]);
    }
}

#[test]
fn the_socket_survives_what_is_thrown_at_it() {
    let fixture = Web::new();
    let weir = Weir::start(fixture.lab.node(), &fixture.blue_and_green("")).unwrap();
    let socket = weir.config().with_file_name("state").join("admin.sock");
    let ask = |bytes: &[u8]| {
        let mut stream = UnixStream::connect(&socket).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
        // It may close before all is read.
        let _ = stream.write_all(bytes);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    };
    let post = |path: &str, body: &str| {
        ask(format!("POST {path} HTTP/1.1\r\nhost: weir\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}", body.len()).as_bytes())
    };
    for (path, body, status) in [
        ("/v1/drain", "{", "400"),
        ("/v1/drain", "[]", "400"),
        ("/v1/drain", "{\"servers\": 7}", "400"),
        ("/v1/drain", "{\"servers\": \"blue/s1\", \"forces\": true}", "400"),
        ("/v1/drain", "{\"servers\": \"[[[/***\"}", "409"),
        ("/v1/weight", "{\"servers\": \"blue/s1\", \"weight\": 70000}", "400"),
        ("/v1/weight", "{\"servers\": \"blue/s1\", \"weight\": 1001}", "409"),
        ("/v1/servers/add", "{\"server\": \"blue\", \"address\": \"10.0.0.1\"}", "400"),
        ("/v1/apply", "{\"text\": \"\\u0000\"}", "409"),
        ("/v1/apply", "{\"text\": \"[node]\", \"confirm_s\": 0}", "409"),
        ("/v1/rollback", "{\"to\": 18446744073709551615}", "409"),
        ("/v1/nothing", "", "404"),
        ("/v1/servers", "", "405"),
    ] {
        let answer = post(path, body);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{path} {body}: {answer}");
    }
    let deep = format!("{{\"servers\": {}", "[".repeat(20_000));
    assert!(post("/v1/drain", &deep).starts_with("HTTP/1.1 400"));
    assert!(post("/v1/apply", &"x".repeat(21 << 20)).starts_with("HTTP/1.1 413"));
    ask(&[0xff; 4096]);
    ask(b"POST /v1/drain HTTP/1.1\r\ncontent-length: 99999999\r\n\r\n");
    // Connections that say nothing hold nobody up.
    let idle: Vec<UnixStream> = (0..60).map(|_| UnixStream::connect(&socket).unwrap()).collect();
    assert_eq!(servers(&weir).len(), 3);
    drop(idle);

    // Followers hear of what happens while they listen, and of what happened before.
    let mut follower = UnixStream::connect(&socket).unwrap();
    follower.write_all(b"GET /v1/events?follow=true HTTP/1.1\r\nhost: weir\r\n\r\n").unwrap();
    follower.set_read_timeout(Some(SOON)).unwrap();
    let mut heard = String::new();
    let mut hear = |word: &str| {
        while !heard.contains(word) {
            let mut some = [0; 4096];
            let count = follower.read(&mut some).unwrap();
            assert!(count > 0, "closed after {heard}");
            heard.push_str(&String::from_utf8_lossy(&some[..count]));
        }
    };
    hear("\"kind\":\"started\"");
    done(&weir, &["drain", "blue/s2"]);
    hear("drain blue/s2");
    assert_eq!(fixture.served(), ["s1"]);
}

#[test]
fn what_cannot_be_kept_is_not_done() {
    let fixture = Web::new();
    let mut weir = Weir::start(fixture.lab.node(), &fixture.blue_and_green("")).unwrap();
    let state = weir.config().with_file_name("state");
    // A directory that has the name of the file that would be written.
    fs::create_dir_all(state.join("overrides.json.new/full")).unwrap();
    refused(&weir, &["drain", "blue/s1"], "nothing has been changed");
    assert_eq!(fixture.served(), ["s1", "s2"]);
    fs::remove_dir_all(state.join("overrides.json.new")).unwrap();
    done(&weir, &["drain", "blue/s1"]);
    // Half a file, as a disk that broke leaves it: said, and as if nothing had been said.
    weir.kill_9().unwrap();
    fs::write(state.join("overrides.json"), "{\"servers\":").unwrap();
    weir.run().unwrap();
    assert!(weir.stderr().contains("what an earlier daemon kept cannot be had"), "{}", weir.stderr());
    assert_eq!(fixture.served(), ["s1", "s2"]);
}
