//! Events: told to whoever follows over ends and starts of the daemon, with the number of those that are lost.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    os::unix::net::UnixStream,
    path::PathBuf,
    time::Duration,
};

use serde_json::Value;
use weir_tests::{
    lab::{Process, Shape, Topology, Weir, wait_until},
    operator::{done, said},
};

const SOON: Duration = Duration::from_secs(20);

fn lab() -> Topology {
    Topology::builder(Shape::TwoArmed).servers(2).build().unwrap()
}

fn config(lab: &Topology) -> String {
    let [s1, s2] = [0, 1].map(|index: usize| lab.servers[index].v4);
    format!(
        "\n[listener.web]\nmode = \"l4\"\nbind = \"{}:80\"\npool = \"web\"\nslots = 4096\n[pool.web]\nservers.s1 = \"{s1}\"\nservers.s2 = \"{s2}\"\n",
        lab.vip4()
    )
}

fn socket(weir: &Weir<'_>) -> PathBuf {
    weir.config().with_file_name("state").join("admin.sock")
}

fn await_words(what: &str, words: &str, told: impl Fn() -> String) {
    wait_until(what, SOON, || told().contains(words)).unwrap_or_else(|error| panic!("{error}: no {words:?} in {}", told()));
}

#[test]
fn followers_go_on_over_an_end_of_the_daemon() {
    let lab = lab();
    let mut weir = Weir::start(lab.node(), &config(&lab)).unwrap();
    let mut command = lab.node().namespace.command(std::env::var_os("WEIR_BIN").unwrap());
    command.args(["events", "--follow", "--config"]).arg(weir.config());
    let follower: Process = lab.node().namespace.spawn("events", command).unwrap();
    await_words("the past", "the daemon took charge", || follower.stdout());
    done(&weir, &["drain", "web/s1"]);
    await_words("what happens", "root: weir drain web/s1", || follower.stdout());

    // The socket alone is made anew: the same daemon, and nothing is told twice.
    fs::remove_file(socket(&weir)).unwrap();
    await_words("a new connection", "the daemon answers again", || follower.stderr());
    done(&weir, &["ready", "web/s1"]);
    await_words("what happens after it", "root: weir ready web/s1", || follower.stdout());
    assert_eq!(follower.stdout().matches("weir drain").count(), 1, "{}", follower.stdout());

    weir.terminate().unwrap();
    await_words("the end", "the daemon does not answer any more: waiting for it", || follower.stderr());
    weir.run().unwrap();
    await_words("the start", "the daemon was started again: its events count from 1", || follower.stderr());
    done(&weir, &["drain", "web/s2"]);
    await_words("the next daemon's events", "root: weir drain web/s2", || follower.stdout());
    let told = follower.stdout();
    assert_eq!((told.matches("took charge").count(), told.matches("weir ready").count()), (2, 1), "{told}");

    // Without one there is nobody to wait for.
    weir.terminate().unwrap();
    let (code, text) = said(&weir.operate(&["events", "--follow"]).unwrap());
    assert!(code == Some(1) && text.contains("no daemon listens"), "{code:?} {text}");
}

#[test]
fn who_reads_too_slowly_is_told_how_many_events_are_lost() {
    let lab = lab();
    let weir = Weir::start(lab.node(), &config(&lab)).unwrap();
    let mut slow = UnixStream::connect(socket(&weir)).unwrap();
    slow.set_read_timeout(Some(SOON)).unwrap();
    slow.write_all(b"GET /v1/events?follow=true HTTP/1.1\r\nhost: weir\r\n\r\n").unwrap();
    let mut first = [0; 64];
    slow.read_exact(&mut first).unwrap();

    // Configurations with many errors are events of some size.
    let text: String = (0..60).map(|number| format!("unknown{number} = 1\n")).collect();
    let body = serde_json::json!({ "text": text }).to_string();
    let mut other = BufReader::new(UnixStream::connect(socket(&weir)).unwrap());
    for _ in 0..2600 {
        let head = format!("POST /v1/apply HTTP/1.1\r\nhost: weir\r\ncontent-length: {}\r\n\r\n", body.len());
        other.get_mut().write_all((head + &body).as_bytes()).unwrap();
        let mut bytes = 0;
        loop {
            let mut line = String::new();
            other.read_line(&mut line).unwrap();
            if let Some(length) = line.strip_prefix("content-length: ") {
                bytes = length.trim().parse().unwrap();
            }
            if line.trim().is_empty() {
                break;
            }
        }
        other.read_exact(&mut vec![0; bytes]).unwrap();
    }
    done(&weir, &["drain", "web/s1"]);

    let mut events: Vec<Value> = Vec::new();
    for line in BufReader::new(slow).lines() {
        let line = line.unwrap();
        if line.starts_with('{') {
            events.push(serde_json::from_str(&line).unwrap());
        }
        if line.contains("drain web/s1") {
            break;
        }
    }
    let missed: Vec<&Value> = events.iter().filter(|event| event["kind"] == "missed").collect();
    assert!(!missed.is_empty() && missed.iter().all(|event| event["count"].as_u64().unwrap() > 0), "{}", events.len());
    let mut last = 0;
    for event in &events {
        let number = event["number"].as_u64().unwrap();
        let lost = if event["kind"] == "missed" { event["count"].as_u64().unwrap() } else { 1 };
        assert_eq!(number, last + lost, "after {last}: {event}");
        last = number;
    }
    // Who asks for what is not kept any more is told so, too.
    assert!(done(&weir, &["events", "--since", "1"]).lines().next().unwrap().contains("events are lost"));
    let latest = done(&weir, &["events", "--since", &(last - 1).to_string()]);
    assert_eq!((latest.lines().count(), latest.contains("weir drain web/s1")), (1, true), "{latest}");
}
