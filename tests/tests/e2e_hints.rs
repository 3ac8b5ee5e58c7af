//! Passive hints: a server that answers no client is checked at once, long before its next check would come.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use socket2::{Domain, Socket, Type};
use weir_tests::lab::{Shape, TcpServer, Topology, Weir, wait_until};

const SOON: Duration = Duration::from_secs(20);
const PORT: u16 = 7000;

/// Two pools behind one VIP: p is checked every twenty seconds, q not at all.
fn configuration(lab: &Topology, more: &str) -> String {
    let (vip, server) = (lab.vip4(), lab.servers[0].v4);
    let second = lab.servers[1].v4;
    format!(
        "\n[defaults]\nmode = \"l4\"\nslots = 1024\n{more}\n[listener.p]\nbind = \"{vip}:{PORT}\"\npool = \"p\"\n[listener.q]\nbind = \"{vip}:{}\"\npool = \"q\"\n\
         [pool.p]\ncheck = {{ tcp = true, interval = \"20s\", interval_unsure = \"500ms\", timeout = \"400ms\", fall = 3 }}\nservers.a = \"{server}\"\nservers.b = \"{second}\"\n\
         [pool.q]\nservers.c = \"{server}:{PORT}\"\n",
        PORT + 1
    )
}

/// Connections that a client has begun to open.
fn begin(lab: &Topology, port: u16, count: usize) -> Vec<Socket> {
    let to = SocketAddr::new(lab.vip4().into(), port);
    lab.client().namespace.enter(|| {
        let open = || {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            socket.set_nonblocking(true).unwrap();
            let _under_way = socket.connect(&to.into());
            socket
        };
        (0..count).map(|_| open()).collect()
    })
}

fn blackhole(lab: &Topology) {
    let rules = format!("add table ip t; add chain ip t c {{ type filter hook input priority 0; }}; add rule ip t c tcp dport {PORT} drop");
    lab.servers[0].namespace.run("nft", &[&rules]).unwrap();
}

fn problems(weir: &Weir<'_>) -> String {
    weir.status().unwrap()["problems"].to_string()
}

#[test]
fn a_server_that_answers_no_client_is_found_before_its_next_check() {
    let lab = Topology::builder(Shape::TwoArmed).servers(2).build().unwrap();
    let _servers: Vec<_> = lab.servers.iter().map(|host| TcpServer::start(&host.namespace, "s", PORT).unwrap()).collect();
    let weir = Weir::start(lab.node(), &configuration(&lab, "")).unwrap();
    let is_up = |server: &str| weir.status().unwrap()["checks"][format!("p/{server}")]["is_up"] == true;
    // Every server has been checked.
    std::thread::sleep(Duration::from_millis(1500));
    assert!(is_up("a") && is_up("b") && problems(&weir) == "[]", "{}", problems(&weir));

    let answered = begin(&lab, PORT, 40);
    std::thread::sleep(Duration::from_millis(2500));
    assert_eq!(problems(&weir), "[]", "who answers is not spoken of");
    drop(answered);

    blackhole(&lab);
    let died = Instant::now();
    let _hopeful = (begin(&lab, PORT, 40), begin(&lab, PORT + 1, 10));
    wait_until("a to be down", SOON, || !is_up("a")).unwrap_or_else(|timeout| panic!("{timeout} {}", weir.stderr()));
    let took = died.elapsed();
    assert!(took < Duration::from_secs(12), "{took:?}: a check comes every 20 s, and three of them decide");
    assert!(is_up("b"));
    let events = String::from_utf8(weir.operate(&["events"]).unwrap().stdout).unwrap();
    let at = |words: &str| events.find(words).unwrap_or_else(|| panic!("{words}: {events}"));
    assert!(at("p/a has answered none of ") < at("p/a is down after 3 results"), "{events}");
    assert!(
        problems(&weir).contains("server q/c has answered none of 10 SYNs within the last "),
        "a pool without a check shows it: {}",
        problems(&weir)
    );
    assert!(!events.contains("p/b has answered"), "{events}");
    wait_until("a to be said to be down alone", SOON, || !problems(&weir).contains("p/a has answered none")).unwrap();
    assert!(problems(&weir).contains("server p/a is down"), "{}", problems(&weir));

    lab.servers[0].namespace.run("nft", &["flush ruleset"]).unwrap();
    drop(_hopeful);
    let _well = begin(&lab, PORT + 1, 3);
    wait_until("nobody to be silent", SOON, || !problems(&weir).contains("has answered none")).unwrap();
}

#[test]
fn hints_can_be_switched_off() {
    let lab = Topology::builder(Shape::TwoArmed).servers(2).build().unwrap();
    let _servers: Vec<_> = lab.servers.iter().map(|host| TcpServer::start(&host.namespace, "s", PORT).unwrap()).collect();
    let weir = Weir::start(lab.node(), &configuration(&lab, "passive_hints = false")).unwrap();
    std::thread::sleep(Duration::from_millis(1500));
    blackhole(&lab);
    let _hopeful = (begin(&lab, PORT, 40), begin(&lab, PORT + 1, 10));
    std::thread::sleep(Duration::from_secs(5));
    assert_eq!(problems(&weir), "[]");
}
