//! The admin socket under hostile clients: they are given up or turned away, what they hold is bounded, and others are answered meanwhile.

use std::{
    fs,
    io::{self, Read as _, Write as _},
    os::unix::{fs::PermissionsExt as _, net::UnixStream},
    path::{Path, PathBuf},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use rustix::{
    process::{Gid, Uid},
    thread::{set_thread_res_gid, set_thread_res_uid},
};
use serde_json::Value;
use weir_tests::{
    lab::{Shape, Topology, Weir, wait_until},
    operator::{done, json},
};

/// Longer than any of the socket's times.
const SOON: Duration = Duration::from_secs(40);
/// Groups and users that every Debian has.
const GAMES: (u32, u32) = (5, 60);
const MAN: u32 = 6;

fn lab() -> Topology {
    Topology::builder(Shape::TwoArmed).servers(2).build().unwrap()
}

fn start(lab: &Topology) -> Weir<'_> {
    let [s1, s2] = [0, 1].map(|index: usize| lab.servers[index].v4);
    let text = format!(
        "\n[admin]\ngroup = \"games\"\n[listener.web]\nmode = \"l4\"\nbind = \"{}:80\"\npool = \"web\"\nslots = 4096\n[pool.web]\nservers.s1 = \"{s1}\"\nservers.s2 = \"{s2}\"\n",
        lab.vip4()
    );
    let weir = Weir::start(lab.node(), &text).unwrap();
    for folder in [weir.config().parent().unwrap(), socket(&weir).parent().unwrap()] {
        fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).unwrap();
    }
    weir
}

fn socket(weir: &Weir<'_>) -> PathBuf {
    weir.config().with_file_name("state").join("admin.sock")
}

fn connect(socket: &Path) -> UnixStream {
    let stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    stream
}

/// What is answered to these bytes until the connection ends.
fn answer(socket: &Path, bytes: &[u8]) -> String {
    let mut stream = connect(socket);
    // It may close before all is read.
    let _ = stream.write_all(bytes);
    rest(&mut stream)
}

fn rest(stream: &mut UnixStream) -> String {
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Ok(_) => {}
        Err(error) => assert_ne!(error.kind(), io::ErrorKind::WouldBlock, "the connection stays open"),
    }
    String::from_utf8_lossy(&answer).into_owned()
}

/// The error of an answer with this status, which has to be a document.
fn error_of(answer: &str, status: &str) -> String {
    assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{status}: {answer}");
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.contains("content-type: application/json"), "{answer}");
    serde_json::from_str::<Value>(body).unwrap()["error"].as_str().unwrap().to_owned()
}

/// Does something as another user, on a thread of its own, since credentials belong to threads in the kernel.
fn by<T: Send>(uid: u32, work: impl FnOnce() -> T + Send) -> T {
    let as_user = || {
        let gid = Gid::from_raw(GAMES.1);
        set_thread_res_gid(None, gid, None).unwrap();
        set_thread_res_uid(None, Uid::from_raw(uid), None).unwrap();
        work()
    };
    thread::scope(|scope| scope.spawn(as_user).join().unwrap())
}

fn resident_kib(weir: &Weir<'_>) -> u64 {
    let pid = weir.status().unwrap()["daemon"]["pid"].as_u64().unwrap();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn assert_answers(weir: &Weir<'_>) {
    let began = Instant::now();
    assert_eq!(json(weir, &["server", "list"]).as_array().unwrap().len(), 2);
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}

#[test]
fn every_refusal_is_a_document() {
    let lab = lab();
    let weir = start(&lab);
    let socket = socket(&weir);
    let head = "HTTP/1.1\r\nhost: weir\r\nconnection: close\r\n";
    for (request, body, status, words) in [
        ("DELETE /v1/servers", "\r\n", "405", "DELETE is not for /v1/servers"),
        ("GET /v1/drain", "\r\n", "405", "GET is not for /v1/drain"),
        ("GET /", "\r\n", "404", "nothing at this path"),
        ("GET /v1/../../etc", "\r\n", "404", "nothing at this path"),
        ("GET /v1/events?since=x", "\r\n", "400", "invalid digit"),
        ("GET /v1/events?follow=true&sinc=1", "\r\n", "400", "unknown field"),
        ("POST /v1/drain", "transfer-encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n", "400", "the request's body is broken"),
        ("POST /v1/drain", "transfer-encoding: chunked\r\n\r\nffffffffffffffffff\r\n", "400", "the request's body is broken"),
        ("POST /v1/drain", "content-length: 70000\r\n\r\n", "413", "larger than 65536 bytes"),
        ("POST /v1/apply", "content-length: 99999999999\r\n\r\n", "413", "larger than 20971520 bytes"),
        ("POST /v1/drain", "content-length: 1\r\n\r\n{", "400", "not understood"),
    ] {
        let error = error_of(&answer(&socket, format!("{request} {head}{body}").as_bytes()), status);
        assert!(error.contains(words), "{request}: {error}");
    }
    let refused = answer(&socket, format!("PUT /v1/servers {head}\r\n").as_bytes());
    assert!(refused.contains("allow: GET,HEAD"), "{refused}");
    // What is no HTTP, or too much of it, has a status and no words.
    assert!(answer(&socket, &[0xff; 4096]).starts_with("HTTP/1.1 400 "));
    for head in [format!("x: {}\r\n", "y".repeat(100_000)), "x: y\r\n".repeat(200)] {
        let refused = answer(&socket, format!("GET /v1/servers HTTP/1.1\r\nhost: weir\r\n{head}\r\n").as_bytes());
        assert!(refused.starts_with("HTTP/1.1 431 "), "{refused}");
    }
    // Requests that do not wait for answers are answered one after the other.
    let three = "GET /v1/overrides HTTP/1.1\r\nhost: weir\r\n\r\n".repeat(2)
        + "GET /v1/history HTTP/1.1\r\nhost: weir\r\nconnection: close\r\n\r\n";
    let answers = answer(&socket, three.as_bytes());
    assert_eq!(answers.matches("HTTP/1.1 200 OK").count(), 3, "{answers}");
    assert!(answers.find("switched") < answers.find("in_force"), "{answers}");
    assert_answers(&weir);
}

#[test]
fn slow_clients_are_given_up_while_others_are_answered() {
    let lab = lab();
    let weir = start(&lab);
    let socket = socket(&weir);
    thread::scope(|scope| {
        let trickle = |first: &'static [u8], drop: &'static [u8]| {
            let mut stream = connect(&socket);
            stream.write_all(first).unwrap();
            let mut other = stream.try_clone().unwrap();
            // Until the other end closes.
            scope.spawn(move || {
                while other.write_all(drop).is_ok() {
                    thread::sleep(Duration::from_millis(300));
                }
            });
            scope.spawn(move || rest(&mut stream))
        };
        let head = trickle(b"GET /v1/servers HTTP/1.1\r\n", b"x: y\r\n");
        let body = trickle(b"POST /v1/drain HTTP/1.1\r\nhost: weir\r\ncontent-length: 9999\r\n\r\n", b" ");
        let large = trickle(b"POST /v1/apply HTTP/1.1\r\nhost: weir\r\ntransfer-encoding: chunked\r\n\r\n", b"1\r\n \r\n");
        let mut idle = connect(&socket);
        idle.write_all(b"GET /v1/history HTTP/1.1\r\nhost: weir\r\n\r\n").unwrap();
        let idle = scope.spawn(move || rest(&mut idle));
        let mut silent = connect(&socket);
        let silent = scope.spawn(move || rest(&mut silent));
        assert_answers(&weir);
        assert!(!head.join().unwrap().contains("200 OK"));
        assert!(error_of(&body.join().unwrap(), "408").contains("within 10 s"));
        assert!(idle.join().unwrap().starts_with("HTTP/1.1 200"));
        assert_eq!(silent.join().unwrap(), "");
        assert!(error_of(&large.join().unwrap(), "408").contains("within 30 s"));
        assert_answers(&weir);
    });
}

#[test]
fn a_reader_takes_nobody_elses_place() {
    let lab = lab();
    let weir = start(&lab);
    let socket = socket(&weir);
    let before = resident_kib(&weir);
    // More than a user has: the others are told so.
    let crowd: Vec<UnixStream> = by(GAMES.0, || (0..60).map(|_| connect(&socket)).collect());
    assert_answers(&weir);
    let told = by(GAMES.0, || error_of(&answer(&socket, b"GET /v1/servers HTTP/1.1\r\nhost: weir\r\n\r\n"), "503"));
    assert!(told.contains("a user has 32"), "{told}");
    let others = by(MAN, || answer(&socket, b"GET /v1/servers HTTP/1.1\r\nhost: weir\r\nconnection: close\r\n\r\n"));
    assert!(others.starts_with("HTTP/1.1 200"), "{others}");
    drop(crowd);
    wait_until("places to be free", SOON, || {
        by(GAMES.0, || answer(&socket, b"GET /v1/servers HTTP/1.1\r\nhost: weir\r\nconnection: close\r\n\r\n")).starts_with("HTTP/1.1 200")
    })
    .unwrap();

    // What it may not send is not taken: the head decides.
    let began = Instant::now();
    let request = b"POST /v1/apply HTTP/1.1\r\nhost: weir\r\nexpect: 100-continue\r\ncontent-length: 20000000\r\n\r\n";
    let refused = by(GAMES.0, || answer(&socket, request));
    assert!(error_of(&refused, "403").contains("change nothing") && began.elapsed() < Duration::from_secs(2), "{refused}");

    // What it may send, configurations to compare, is held of two at once.
    let (stop, stopped) = mpsc::channel::<()>();
    thread::scope(|scope| {
        let (socket, stopped) = (&socket, stopped);
        scope.spawn(move || {
            let mut senders: Vec<UnixStream> = by(GAMES.0, || (0..30).map(|_| connect(socket)).collect());
            for sender in &mut senders {
                sender.set_nonblocking(true).unwrap();
                // One that finds all places taken is refused, and its connection closed.
                let _ = sender.write_all(b"POST /v1/diff HTTP/1.1\r\nhost: weir\r\ncontent-length: 20000000\r\n\r\n");
            }
            let part = vec![b' '; 64 << 10];
            while stopped.recv_timeout(Duration::from_millis(1)) == Err(mpsc::RecvTimeoutError::Timeout) {
                for sender in &mut senders {
                    let _ = sender.write(&part);
                }
            }
        });
        let mut most = 0;
        for _ in 0..20 {
            assert_answers(&weir);
            most = most.max(resident_kib(&weir));
            thread::sleep(Duration::from_millis(200));
        }
        drop(stop);
        assert!(most - before < 150 << 10, "{before} KiB became {most}");
    });
    done(&weir, &["drain", "web/s1"]);

    // Streams of events are fewer.
    let follow = b"GET /v1/events?follow=true HTTP/1.1\r\nhost: weir\r\n\r\n";
    let mut streams: Vec<UnixStream> = by(GAMES.0, || (0..9).map(|_| connect(&socket)).collect());
    let mut first_words = |index: usize| {
        let stream: &mut UnixStream = &mut streams[index];
        stream.write_all(follow).unwrap();
        let mut some = [0; 512];
        let count = stream.read(&mut some).unwrap();
        String::from_utf8_lossy(&some[..count]).into_owned()
    };
    assert!((0..8).all(|index| first_words(index).starts_with("HTTP/1.1 200")));
    assert!(first_words(8).starts_with("HTTP/1.1 503"));
    assert_answers(&weir);
}
