//! The operator's commands against a running daemon: what they say is in force at once, outlives the daemon, and breaks nobody's connection.

use std::{
    collections::BTreeMap,
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    ops::Deref,
    os::unix::{
        fs::{FileTypeExt as _, PermissionsExt as _},
        net::UnixStream,
    },
    time::{Duration, Instant},
};

use serde_json::Value;
use weir_tests::{
    lab::{Shape, TcpLoad, TcpServer, Topology, Weir, copy_program, wait_until},
    operator::{done, json, refused, said},
    web::{PORT, Web},
};

const SOON: Duration = Duration::from_secs(20);

struct Fixture(Web);

impl Deref for Fixture {
    type Target = Web;

    fn deref(&self) -> &Web {
        &self.0
    }
}

impl Fixture {
    fn new() -> Self {
        Self(Web::new())
    }

    /// Servers s1 and s2 in pool `blue`, s3 in pool `green`; `more` at the end.
    fn config(&self, more: &str) -> String {
        let [s1, s2, s3] = [0, 1, 2].map(|index: usize| self.lab.servers[index].v4);
        format!(
            "\n[listener.web]\nmode = \"l4\"\nbind = \"{}:{PORT}\"\npool = \"blue\"\nslots = 4096\n\n[pool.blue]\nservers.s1 = \"{s1}\"\nservers.s2 = \"{s2}\"\n[pool.green]\nservers.s3 = \"{s3}\"\n{more}",
            self.lab.vip4()
        )
    }
}

fn servers(weir: &Weir<'_>) -> BTreeMap<String, Value> {
    let servers = json(weir, &["server", "list"]);
    servers.as_array().unwrap().iter().map(|server| (server["server"].as_str().unwrap().to_owned(), server.clone())).collect()
}

#[test]
fn states_and_weights_are_in_force_at_once_and_outlive_the_daemon() {
    let fixture = Fixture::new();
    let mut weir = Weir::start(fixture.lab.node(), &fixture.config("")).unwrap();
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
    weir.write_config(&fixture.config("servers.s4 = { address = \"10.2.0.99\", state = \"down\" }\n")).unwrap();
    wait_until("the file to be taken", SOON, || servers(&weir).contains_key("green/s4")).unwrap();
    assert_eq!(servers(&weir)["blue/s2"]["why"], "maintenance");
    assert_eq!(fixture.served(), ["s1"]);
    weir.terminate().unwrap();
    assert!(!socket.exists(), "the socket goes with the daemon");
    refused(&weir, &["ready", "blue/s2"], "no daemon listens");
}

#[test]
fn servers_come_and_go_and_listeners_switch_pools() {
    let fixture = Fixture::new();
    let mut weir = Weir::start(fixture.lab.node(), &fixture.config("")).unwrap();
    let s3 = fixture.lab.servers[2].v4.to_string();
    done(&weir, &["server", "add", "blue/s3", &s3, "--weight", "2"]);
    assert_eq!(fixture.served(), ["s1", "s2", "s3"]);
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
fn configurations_are_applied_compared_and_taken_back() {
    let fixture = Fixture::new();
    let mut weir = Weir::start(fixture.lab.node(), &fixture.config("")).unwrap();
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

    done(&weir, &["apply", &only2, "--confirm", "3s"]);
    let applied = Instant::now();
    assert_eq!(fixture.served(), ["s2"]);
    wait_until("it to be taken back", SOON, || fixture.served() == ["s1"]).unwrap();
    assert!(applied.elapsed() >= Duration::from_secs(2), "{:?}", applied.elapsed());
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
    let fixture = Fixture::new();
    let weir = Weir::start(fixture.lab.node(), &fixture.config("")).unwrap();
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
    let fixture = Fixture::new();
    fixture.stop_server(2);
    let check = |text: String, port: &str| {
        let check = format!("check = {{ tcp = true, interval = \"200ms\", fall = 2{port} }}\n");
        text.replace("[pool.blue]\n", &format!("[pool.blue]\n{check}")).replace("[pool.green]\n", &format!("[pool.green]\n{check}"))
    };
    let weir = Weir::start(fixture.lab.node(), &check(fixture.config(""), "")).unwrap();
    let detail = |name: &str| json(&weir, &["status", name])["servers"][0]["detail"].clone();
    wait_until("s1 to be checked", SOON, || detail("blue/s1")["probe"]["last_good"] == true).unwrap();
    // Nobody knows at which port it would serve.
    assert!(detail("green/s3")["unchecked"].as_str().unwrap().contains("no listener uses its pool"), "{:#}", detail("green/s3"));
    refused(&weir, &["switch", "web", "green"], "green/s3 has not been checked");
    assert_eq!(fixture.served(), ["s1", "s2"]);

    // One that no listener uses is known to be down before it is used.
    let text = fs::read_to_string(weir.config()).unwrap();
    let file = weir.config().with_file_name("other.toml");
    weir.write_config(&check(fixture.config(""), &format!(", port = {PORT}"))).unwrap();
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
    weir.write_config(&check(fixture.config(""), "")).unwrap();
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
    let fixture = Fixture::new();
    let mut weir = Weir::prepare(fixture.lab.node(), &fixture.config("[admin]\ngroup = \"games\"\nusers = [\"nosuchuser\"]\n")).unwrap();
    weir.run().unwrap();
    let is_told = || done(&weir, &["status"]).contains("there is no user \"nosuchuser\"");
    wait_until("it to be said, and the packets go on", SOON, is_told).unwrap();
    done(&weir, &["drain", "blue/s1"]);
    done(&weir, &["ready", "blue/s1"]);
    weir.write_config(&fixture.config("[admin]\ngroup = \"games\"\nusers = [\"daemon\"]\n")).unwrap();
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
    let fixture = Fixture::new();
    let weir = Weir::start(fixture.lab.node(), &fixture.config("")).unwrap();
    let s3 = fixture.lab.servers[2].v4.to_string();
    done(&weir, &["weight", "blue/s1", "7"]);
    done(&weir, &["server", "remove", "blue/s2"]);
    assert_eq!(fixture.served(), ["s1"]);
    done(&weir, &["clear", "blue/*"]);
    assert_eq!(fixture.served(), ["s1", "s2"]);
    refused(&weir, &["clear", "red/*"], "no server is");

    // A pool of another mode: what ends is said; a server that only NAT reaches keeps it from being used.
    let direct = format!("[pool.direct]\nforward = \"dsr\"\nservers.s3 = \"{s3}\"\n");
    weir.write_config(&fixture.config(&direct)).unwrap();
    done(&weir, &["apply"]);
    done(&weir, &["server", "add", "direct/s9", "10.2.0.99:9999"]);
    refused(&weir, &["switch", "web", "direct"], "direct/s9 does not fit");
    done(&weir, &["server", "remove", "direct/s9"]);
    refused(&weir, &["switch", "web", "direct"], "live connections would end");
    let switched = done(&weir, &["switch", "web", "direct", "--force"]);
    assert!(switched.contains("! the connections of") && switched.contains("end: no other mode"), "{switched}");

    // The file has neither pool nor listener any more.
    done(&weir, &["server", "add", "blue/s3", &s3]);
    let renamed = fixture.config("").replace("listener.web", "listener.other").replace("servers.s1 =", "servers.s4 =");
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
fn connection_rates_are_changed_and_forgotten_while_packets_flow() {
    let fixture = Fixture::new();
    let mut weir = Weir::start(fixture.lab.node(), &fixture.config("")).unwrap();
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
    let fixture = Fixture::new();
    let weir = Weir::start(fixture.lab.node(), &fixture.config("")).unwrap();
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
    let fixture = Fixture::new();
    let weir = Weir::start(fixture.lab.node(), &fixture.config("")).unwrap();
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
    let fixture = Fixture::new();
    let mut weir = Weir::start(fixture.lab.node(), &fixture.config("")).unwrap();
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

#[test]
fn a_file_that_breaks_while_the_daemon_is_away_leaves_what_was_in_force() {
    let fixture = Fixture::new();
    let mut weir = Weir::start(fixture.lab.node(), &fixture.config("")).unwrap();
    weir.kill_9().unwrap();
    weir.write_config("nonsense").unwrap();
    weir.run().unwrap();
    assert_eq!(fixture.served(), ["s1", "s2"]);
    assert!(done_or_unhealthy(&weir).contains("configuration not taken"));
    weir.write_config(&fixture.config("")).unwrap();
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
    let fixture = Fixture::new();
    let weir = Weir::start(fixture.lab.node(), &fixture.config("")).unwrap();
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
    let fixture = Fixture::new();
    let weir = Weir::start(fixture.lab.node(), &fixture.config("")).unwrap();
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
