//! Views of a running node: the status of its parts, again and again; its maps; the API's document; what is counted.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use weir_tests::{
    lab::{Nginx, Shape, Topology, Weir, http_tally, wait_until},
    operator::{done, json, refused, said},
};

const SOON: Duration = Duration::from_secs(20);
const PORT: u16 = 8080;

struct Fixture {
    lab: Topology,
    servers: Vec<Option<Nginx>>,
}

impl Fixture {
    fn new() -> Self {
        let lab = Topology::builder(Shape::TwoArmed).servers(2).build().unwrap();
        let servers = (0..2).map(|index| Some(Self::serve(&lab, index))).collect();
        Self { lab, servers }
    }

    fn serve(lab: &Topology, index: usize) -> Nginx {
        Nginx::start(&lab.servers[index].namespace, &format!("s{}", index + 1), PORT).unwrap()
    }

    fn config(&self) -> String {
        format!(
            "\n[listener.web]\nmode = \"l4\"\nbind = \"{}:{PORT}\"\npool = \"blue\"\nslots = 4096\ndeny = \"203.0.113.0/24\"\n\n[pool.blue]\n\
             check = {{ tcp = true, interval = \"200ms\", fall = 2 }}\nservers.s1 = \"{}\"\nservers.s2 = {{ address = \"{}\", weight = 3 }}\n",
            self.lab.vip4(),
            self.lab.servers[0].v4,
            self.lab.servers[1].v4
        )
    }

    fn request(&self, times: usize) {
        let address = format!("http://{}:{PORT}/", self.lab.vip4());
        http_tally(&self.lab.client().namespace, address, times).unwrap();
    }
}

/// `weir status --watch`, in the node's namespace.
fn watch(fixture: &Fixture, weir: &Weir<'_>, arguments: &[&str]) -> std::process::Child {
    let mut command: Command = fixture.lab.node().namespace.command(std::env::var_os("WEIR_BIN").unwrap());
    command.args(["status", "--config"]).arg(weir.config()).args(arguments);
    command.stdout(Stdio::piped()).spawn().unwrap()
}

#[test]
fn a_server_a_pool_and_a_listener_are_told_in_detail() {
    let mut fixture = Fixture::new();
    let mut weir = Weir::start(fixture.lab.node(), &fixture.config()).unwrap();
    let server = |weir: &Weir<'_>, name: &str| json(weir, &["status", name])["servers"][0].clone();
    wait_until("s1 to be checked", SOON, || server(&weir, "blue/s1")["detail"]["probe"]["last_good"] == true).unwrap();
    fixture.request(20);

    let s2 = server(&weir, "blue/s2");
    let (detail, member) = (&s2["detail"], &s2["members"][0]);
    assert_eq!((&s2["why"], &detail["configured_weight"], &detail["weight"]), (&"up".into(), &3.into(), &3.into()), "{s2:#}");
    assert_eq!((&member["slots"], &member["slots_total"], &member["next_hop"]), (&3072.into(), &4096.into(), &"resolved".into()));
    assert!(member["packets"].as_u64() > Some(0) && member["bytes"].as_u64() > member["packets"].as_u64(), "{member:#}");
    let probe = &detail["probe"];
    assert_eq!((&probe["kind"], &probe["target"]), (&"tcp".into(), &format!("{}:{PORT}", fixture.lab.servers[1].v4).into()));
    // interval + (fall - 1) x max(interval_unsure, timeout) + timeout
    assert_eq!((&probe["interval_ms"], &probe["detection_ms"]), (&200.into(), &400.into()));
    assert!(probe["passed"].as_u64() > Some(0) && probe["failed"] == 0, "{probe:#}");
    assert_eq!(s2["transitions"].as_array().unwrap().len(), 1, "it is what it was: {s2:#}");

    let of_pool = done(&weir, &["status", "blue"]);
    for words in [
        "web  10.",
        "blue/s1",
        "blue/s2",
        "slots 4096",
        "3 effective, configured 3",
        "check    tcp to",
        "next in",
        "history",
        "3072 of 4096",
    ] {
        assert!(of_pool.contains(words), "no {words:?} in {of_pool}");
    }
    assert_eq!(json(&weir, &["status", "web"])["servers"].as_array().unwrap().len(), 2);
    assert_eq!(json(&weir, &["status", "*/s?"])["servers"].as_array().unwrap().len(), 2);
    assert!(done(&weir, &["status", "web", "-o", "table"]).contains("pool blue"));
    assert!(done(&weir, &["status", "web", "-o", "text"]).contains("pool blue"));
    refused(&weir, &["status", "bleu"], "did you mean `blue`?");
    refused(&weir, &["status", "blue/s3"], "did you mean `blue/s1`?");
    refused(&weir, &["drain", "blue/s3"], "did you mean `blue/s1`?");
    refused(&weir, &["switch", "wep", "blue"], "did you mean `web`?");

    // What happens to it is told with its cause, and outlives the daemon.
    fixture.servers[0] = None;
    wait_until("s1 to be down", SOON, || server(&weir, "blue/s1")["why"] == "unhealthy").unwrap();
    refused(&weir, &["status", "blue/s1"], "up → unhealthy: L4");
    let probe = server(&weir, "blue/s1")["detail"]["probe"].clone();
    assert!(probe["last_good"] == false && probe["last_failure"].as_str().unwrap().contains("refused"), "{probe:#}");
    fixture.servers[0] = Some(Fixture::serve(&fixture.lab, 0));
    wait_until("s1 to be up", SOON, || server(&weir, "blue/s1")["why"] == "up").unwrap();
    done(&weir, &["drain", "blue/s1"]);
    done(&weir, &["weight", "blue/s2", "7"]);
    let course = |weir: &Weir<'_>| -> Vec<String> {
        let s1 = server(weir, "blue/s1");
        s1["transitions"].as_array().unwrap().iter().map(|change| change["is"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(course(&weir), ["up", "unhealthy", "up", "drained-by-operator"]);
    assert!(done(&weir, &["status", "blue/s2"]).contains("7 effective, configured 3, the operator says 7"));
    weir.crash_and_restart().unwrap();
    assert_eq!(course(&weir), ["up", "unhealthy", "up", "drained-by-operator"]);
    weir.terminate().unwrap();
    let output = weir.operate(&["status", "blue/s1"]).unwrap();
    let (code, text) = said(&output);
    assert!(code == Some(1) && text.contains("daemon not running") && text.contains("drained-by-operator"), "{text}");
}

#[test]
fn a_status_is_watched_until_it_is_interrupted_or_nobody_reads() {
    let fixture = Fixture::new();
    let weir = Weir::start(fixture.lab.node(), &fixture.config()).unwrap();
    let mut watched = watch(&fixture, &weir, &["web", "--watch", "0.3", "-o", "json"]);
    let mut lines = BufReader::new(watched.stdout.take().unwrap()).lines();
    let mut next = || -> Value { serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap() };
    assert_eq!(next()["services"][0]["listener"], "web");
    fixture.request(200);
    let began = Instant::now();
    let rate = |document: &Value| -> f64 {
        document["services"][0]["members"].as_array().unwrap().iter().filter_map(|member| member["packets_per_second"].as_f64()).sum()
    };
    while rate(&next()) <= 0.0 {
        assert!(began.elapsed() < SOON, "no rate");
    }
    let pid = Pid::from_raw(i32::try_from(watched.id()).unwrap()).unwrap();
    kill_process(pid, Signal::INT).unwrap();
    assert_eq!(watched.wait().unwrap().code(), Some(0));

    // Blocks one after the other where there is no terminal.
    let mut watched = watch(&fixture, &weir, &["--watch=0.2"]);
    let mut lines = BufReader::new(watched.stdout.take().unwrap()).lines();
    let mut blocks = 0;
    while blocks < 2 {
        let line = lines.next().unwrap().unwrap();
        assert!(!line.contains('\x1b'), "{line:?}");
        blocks += usize::from(line.starts_with("node "));
    }
    drop(lines);
    let mut code = None;
    wait_until("it to end with its reader", SOON, || {
        code = watched.try_wait().unwrap().map(|status| status.code());
        code.is_some()
    })
    .unwrap();
    assert_eq!(code, Some(Some(0)));
    let (code, text) = said(&weir.operate(&["status", "--watch", "web"]).unwrap());
    assert!(code == Some(2) && text.contains("comes before --watch"), "{text}");
}

#[test]
fn maps_are_shown_as_they_are_without_a_daemon_too() {
    let fixture = Fixture::new();
    let mut weir = Weir::start(fixture.lab.node(), &fixture.config()).unwrap();
    fixture.request(20);
    let vip = fixture.lab.vip4().to_string();
    let maps = json(&weir, &["bpf"]);
    let listed = |name: &str| maps.as_array().unwrap().iter().find(|map| map["name"] == name).unwrap().clone();
    let services = listed("SERVICES");
    assert_eq!((&services["used"], &services["max"], &services["kind"]), (&1.into(), &257.into(), &"array".into()));
    assert!(maps.as_array().unwrap().iter().all(|map| map["bytes"].is_u64()), "{maps:#}");
    assert!(listed("NAT_FLOWS")["used"].as_u64() >= Some(20));
    let entries = |weir: &Weir<'_>, map: &str| json(weir, &["bpf", map])["entries"].as_array().unwrap().clone();
    let service = &entries(&weir, "services")[0];
    assert_eq!((&service["vip"], &service["port"], &service["slots"]), (&vip.clone().into(), &PORT.into(), &4096.into()));
    let runs = json(&weir, &["bpf", "SLOT_PAGES", "-n", "5000"])["entries"].clone();
    let slots = |run: &Value| run["to"].as_u64().unwrap() + 1 - run["from"].as_u64().unwrap();
    assert_eq!(runs.as_array().unwrap().iter().map(slots).sum::<u64>(), 4096);
    let mut weights: Vec<u64> = entries(&weir, "MEMBER_INFO").iter().map(|member| member["weight"].as_u64().unwrap()).collect();
    weights.sort_unstable();
    assert_eq!(weights, [1, 3]);
    assert!(entries(&weir, "VIPS").iter().any(|one| one["address"] == *vip));
    let rule = &entries(&weir, "SOURCES4")[0];
    assert_eq!((&rule["source"], &rule["rule"]), (&"203.0.113.0/24".into(), &"deny".into()));
    assert!(entries(&weir, "NAT_PLANES").iter().any(|plane| plane["server"] == fixture.lab.servers[0].v4.to_string()));
    assert!(entries(&weir, "NOTES").iter().any(|note| note["what"] == "nat-opened"));
    let sent: u64 = entries(&weir, "MEMBER_STATS").iter().map(|member| member["packets"].as_u64().unwrap()).sum();
    assert!(sent > 40, "{sent}");
    let settings = entries(&weir, "settings");
    let setting = |name: &str| settings.iter().find(|row| row["setting"] == name).unwrap()["value"].clone();
    assert!(setting("features").as_str().unwrap().contains("nat source-rules"), "{settings:?}");
    assert!(setting("lines of FLOWS").as_u64().unwrap().is_power_of_two());
    // Every map can be shown, in both ways.
    for map in maps.as_array().unwrap() {
        let name = map["name"].as_str().unwrap();
        done(&weir, &["bpf", name, "-n", "3"]);
        done(&weir, &["bpf", name, "-n", "3", "--raw"]);
    }
    let raw = json(&weir, &["bpf", "SERVICES", "--raw"]);
    assert_eq!(raw["entries"][0]["hex"].as_str().unwrap().len(), 2 * 64);
    assert!(done(&weir, &["bpf", "NAT_FLOWS", "-n", "2"]).contains("--limit shows more than 2"));
    refused(&weir, &["bpf", "SERVICE"], "did you mean `SERVICES`?");
    weir.terminate().unwrap();
    assert!(done(&weir, &["bpf", "SERVICES"]).contains(&vip));
}

#[test]
fn what_shows_the_node_asks_the_daemon_and_does_without_one_that_is_gone_or_hangs() {
    let fixture = Fixture::new();
    let mut weir = Weir::start(fixture.lab.node(), &fixture.config()).unwrap();
    fixture.request(20);
    let to = format!("{}:{PORT}", fixture.lab.vip4());
    // Which port a translated flow would get depends on the moment.
    let but_its_port = |mut told: Value| {
        told["nat_flow"].take();
        told
    };
    let explained = |weir: &Weir<'_>| but_its_port(json(weir, &["explain", "192.0.2.7:1", &to]));
    let shown = |weir: &Weir<'_>| {
        let services = json(weir, &["bpf", "SERVICES"]);
        (explained(weir), services, json(weir, &["flows"])["translated_total"].clone())
    };
    let by_daemon = shown(&weir);
    let ask = |path: &str, body: &str| curl(&weir, &["-X", "POST", "-d", body], path);
    let (status, body) = ask("/v1/explain", &format!("{{\"source\": \"192.0.2.7:1\", \"destination\": \"{to}\"}}"));
    assert_eq!((status.as_str(), but_its_port(serde_json::from_str(&body).unwrap())), ("200", by_daemon.0.clone()));
    let part: Value = serde_json::from_str(&ask("/v1/status/part", "{\"target\": \"blue\"}").1).unwrap();
    assert_eq!((part["of_services"].clone(), part["servers"].as_array().unwrap().len()), (true.into(), 2), "{part:#}");
    for (path, body, told) in [
        ("/v1/flows", "{\"limit\": 10001}", "at most 10000 entries"),
        ("/v1/flows", "{\"servers\": \"[\"}", "is no pattern"),
        ("/v1/maps/entries", "{\"map\": \"SERVICE\"}", "did you mean"),
        ("/v1/status/part", "{\"target\": \"bleu\"}", "did you mean"),
        ("/v1/flows", "[]", "no JSON object"),
        ("/v1/explain", "{\"source\": \"192.0.2.7:1\", \"destination\": \"[2001:db8::1]:1\"}", "different families"),
    ] {
        let (status, body) = ask(path, body);
        let expected = if told.starts_with("no JSON") { "400" } else { "409" };
        assert!(status == expected && body.contains(told), "{path}: {status} {body}");
    }
    refused(&weir, &["status", "bleu", "--watch"], "did you mean");
    assert_eq!(json(&weir, &["bpf", "SERVICES", "-n", "10001"]), by_daemon.1, "read from the maps, past the daemon");

    weir.signal(Signal::STOP).unwrap();
    let begun = Instant::now();
    assert_eq!(explained(&weir), by_daemon.0);
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    let (code, text) = said(&weir.operate(&["status"]).unwrap());
    assert!(code == Some(1) && text.contains("does not answer") && !text.starts_with("ready"), "{code:?} {text}");
    weir.signal(Signal::CONT).unwrap();
    weir.kill_9().unwrap();
    assert_eq!(shown(&weir), by_daemon);
    let (code, text) = said(&weir.operate(&["status", "blue"]).unwrap());
    assert!(code == Some(1) && text.contains("daemon not running") && text.contains("blue/s2"), "{code:?} {text}");
}

/// What the admin socket answers: the status, and the body.
fn curl(weir: &Weir<'_>, arguments: &[&str], path: &str) -> (String, String) {
    let socket = weir.config().with_file_name("state").join("admin.sock");
    let mut command = Command::new("curl");
    command.args(["-s", "-w", "\n%{http_code}", "--unix-socket"]).arg(socket).args(arguments).arg(format!("http://weir{path}"));
    let output = command.output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let (body, status) = text.rsplit_once('\n').unwrap();
    (status.to_owned(), body.to_owned())
}

fn judged(mut judge: Command, text: &str) -> (Option<i32>, String) {
    let mut process = judge.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("scripts/setup installs it");
    process.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    said(&process.wait_with_output().unwrap())
}

#[test]
fn the_api_is_as_its_document_says() {
    let fixture = Fixture::new();
    let weir = Weir::start(fixture.lab.node(), &fixture.config()).unwrap();
    let (status, served) = curl(&weir, &[], "/v1/openapi.json");
    assert_eq!(status, "200");
    let printed = Command::new(std::env::var_os("WEIR_BIN").unwrap()).arg("api").output().unwrap().stdout;
    let document: Value = serde_json::from_slice(&printed).unwrap();
    assert_eq!(serde_json::from_str::<Value>(&served).unwrap(), document);
    let mut answers = 0;
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let body: &[&str] = if method == "post" { &["-X", "POST", "-d", "{"] } else { &[] };
            let (status, text) = curl(&weir, body, path);
            let documented = &operation["responses"][&status];
            assert!(documented.is_object(), "{method} {path}: {status} {text}");
            // `confirm` has no body that could be wrong, and nothing waits for it.
            let expected = if method == "get" {
                "200"
            } else if path == "/v1/confirm" {
                "409"
            } else {
                "400"
            };
            assert_eq!(status, expected, "{method} {path}: {text}");
            answers += 1;
        }
    }
    assert_eq!(answers, 32);
    // What is answered has the fields of its schema, and no other.
    let fields = |schema: &str| -> Vec<String> {
        document["components"]["schemas"][schema]["properties"].as_object().unwrap().keys().cloned().collect()
    };
    let servers: Value = serde_json::from_str(&curl(&weir, &[], "/v1/servers").1).unwrap();
    assert_eq!(servers[0].as_object().unwrap().keys().cloned().collect::<Vec<_>>(), fields("ServerView"));
    let history: Value = serde_json::from_str(&curl(&weir, &[], "/v1/history").1).unwrap();
    assert_eq!(history["entries"][0].as_object().unwrap().keys().cloned().collect::<Vec<_>>(), fields("HistoryEntry"));

    let file = weir.config().with_file_name("openapi.json");
    fs::write(&file, &printed).unwrap();
    let python = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/python/bin/python");
    let output = Command::new(python).args(["-m", "openapi_spec_validator"]).arg(&file).output();
    let (code, text) = said(&output.expect("scripts/setup installs openapi-spec-validator"));
    assert_eq!(code, Some(0), "{text}");
}

#[test]
fn what_is_counted_is_as_prometheus_wants_it() {
    let mut fixture = Fixture::new();
    let weir = Weir::start(fixture.lab.node(), &fixture.config()).unwrap();
    fixture.request(20);
    let value = |name: &str| -> Option<f64> {
        let text = done(&weir, &["metrics"]);
        text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
    };
    assert_eq!(value("weir_server_state{pool=\"blue\",server=\"s2\",state=\"up\"}"), Some(1.0), "{}", done(&weir, &["metrics"]));
    assert_eq!(value("weir_server_weight{pool=\"blue\",server=\"s2\"}"), Some(3.0));
    assert_eq!(value("weir_server_slots{pool=\"blue\",server=\"s2\"}"), Some(3072.0));
    // Which server takes a connection depends on its port.
    let is_counted = || {
        fixture.request(1);
        value("weir_server_packets_total{pool=\"blue\",server=\"s1\"}") > Some(0.0)
    };
    wait_until("s1 to have had packets", SOON, is_counted).unwrap();
    assert!(value("weir_maps_memory_bytes") > Some(1e6));
    assert_eq!((value("weir_config_last_apply_success"), value("weir_config_unconfirmed")), (Some(1.0), Some(0.0)));
    let checks = "weir_server_checks_total{pool=\"blue\",server=\"s1\",result=\"passed\"}";
    wait_until("s1 to be checked", SOON, || value(checks) > Some(1.0)).unwrap();
    fixture.servers[0] = None;
    wait_until("s1 to be down", SOON, || value("weir_server_state{pool=\"blue\",server=\"s1\",state=\"unhealthy\"}") == Some(1.0)).unwrap();
    assert_eq!(value("weir_server_transitions_total{pool=\"blue\",server=\"s1\",to=\"down\"}"), Some(1.0));
    weir.write_config("\nnonsense = 7\n").unwrap();
    wait_until("the file to be refused", SOON, || value("weir_config_last_apply_success") == Some(0.0)).unwrap();
    assert!(value("weir_config_errors") >= Some(1.0));
    assert_eq!(value("weir_config_applies_total{result=\"refused\"}"), Some(1.0));

    let (status, served) = curl(&weir, &[], "/v1/metrics");
    assert_eq!(status, "200");
    let mut promtool = Command::new("promtool");
    promtool.args(["check", "metrics"]);
    assert_eq!(judged(promtool, &served), (Some(0), String::new()), "{served}");
}
