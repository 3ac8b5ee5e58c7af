//! Views of a running node: the status of its parts, again and again; its maps; the API's document; what is counted.

use std::{
    io::{BufRead as _, BufReader},
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use weir_tests::lab::{Nginx, Shape, Topology, Weir, http_tally, wait_until};

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

fn said(output: &Output) -> (Option<i32>, String) {
    (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr))
}

fn done(weir: &Weir<'_>, arguments: &[&str]) -> String {
    let (code, text) = said(&weir.operate(arguments).unwrap());
    assert_eq!(code, Some(0), "{arguments:?}: {text}\n{}", weir.stderr());
    text
}

fn refused(weir: &Weir<'_>, arguments: &[&str], words: &str) {
    let (code, text) = said(&weir.operate(arguments).unwrap());
    assert!(code == Some(1) && text.contains(words), "{arguments:?}: {code:?} {text}");
}

fn json(weir: &Weir<'_>, arguments: &[&str]) -> Value {
    let output = weir.operate(&[arguments, &["-o", "json"]].concat()).unwrap();
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{arguments:?}: {error} {:?}", said(&output)))
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
