//! The lab itself, without Weir: what it joins is joined, its peers notice what they should, and it leaves nothing behind.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Duration,
};

use weir_tests::{
    lab::{
        BpfFolder, Cable, End, Flood, Folder, Host, Iperf, Namespace, Nginx, Shape, TcpLoad, TcpServer, Topology, UdpLoad, UdpServer,
        Verdict, XdpVerdict, http_get, wait_until,
    },
    peer::flood::{self, Mode},
};

const SOON: Duration = Duration::from_secs(5);

fn reach(from: &Host, to: impl Into<IpAddr>) {
    let to = to.into().to_string();
    // A machine that is there refuses a connection to a port where nobody listens.
    let probe = || {
        let address = SocketAddr::new(to.parse().unwrap(), 9);
        from.namespace.enter(|| TcpStream::connect_timeout(&address, Duration::from_millis(500)))
    };
    let is_refused = || probe().is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused);
    wait_until(&format!("an answer from {to}"), SOON, is_refused).unwrap();
}

#[test]
fn every_machine_reaches_every_other_in_every_shape() {
    for shape in [Shape::OneArmed, Shape::TwoArmed, Shape::Routed] {
        let lab = Topology::builder(shape).clients(2).build().unwrap();
        let hosts: Vec<&Host> = lab.clients.iter().chain(&lab.nodes).chain(&lab.servers).collect();
        for from in &hosts {
            for to in hosts.iter().filter(|to| to.v4 != from.v4) {
                reach(from, to.v4);
                reach(from, to.v6);
            }
        }
    }
}

#[test]
fn two_nodes_stand_beside_each_other() {
    let lab = Topology::builder(Shape::TwoArmed).nodes(2).build().unwrap();
    reach(&lab.nodes[0], lab.nodes[1].v4);
    reach(lab.client(), lab.nodes[1].v6);
}

#[test]
fn nginx_answers_with_its_name_and_streams() {
    let lab = Topology::builder(Shape::TwoArmed).build().unwrap();
    let _nginx = Nginx::start(&lab.servers[0].namespace, "s1", 80).unwrap();
    let client = &lab.client().namespace;
    assert_eq!(http_get(client, format!("http://{}/", lab.servers[0].v4)).unwrap(), "s1\n");
    assert_eq!(http_get(client, format!("http://[{}]/", lab.servers[0].v6)).unwrap(), "s1\n");
    let url = format!("http://{}/big", lab.servers[0].v4);
    let bytes = client.run("curl", &["--silent", "--range", "0-9999999", "--output", "/dev/null", "--write-out", "%{size_download}", &url]);
    assert_eq!(bytes.unwrap(), "10000000");
}

#[test]
fn iperf_measures_through_the_node() {
    let lab = Topology::builder(Shape::TwoArmed).build().unwrap();
    let _iperf = Iperf::start(&lab.servers[0].namespace).unwrap();
    let rate = Iperf::measure(&lab.client().namespace, lab.servers[0].v4.into(), Duration::from_secs(1)).unwrap();
    assert!(rate > 1e6, "{rate} bit/s");
}

#[test]
fn frames_above_the_mtu_of_the_servers_network_do_not_pass() {
    let lab = Topology::builder(Shape::TwoArmed).mtu(3000).server_mtu(1500).build().unwrap();
    assert!(lab.client().namespace.ip("link show eth0").unwrap().contains("mtu 3000"));
    assert!(lab.servers[0].namespace.ip("link show eth0").unwrap().contains("mtu 1500"));
}

#[test]
fn connections_to_a_sound_server_are_flawless() {
    let lab = Topology::builder(Shape::TwoArmed).build().unwrap();
    let _server = TcpServer::start(&lab.servers[0].namespace, "s1", 7000).unwrap();
    let to = SocketAddr::new(lab.servers[0].v6.into(), 7000);
    let load = TcpLoad::start(&lab.client().namespace, to, 100, Duration::from_millis(50), Duration::from_secs(1)).unwrap();
    load.wait_opened().unwrap();
    let report = load.report().unwrap();
    assert!(report.is_flawless(100), "{report:?}");
    assert_eq!(report.by_server, [("s1".to_owned(), 100)].into());
    assert!(report.messages >= 500, "{report:?}");
}

#[test]
fn two_thousand_connections_are_held_at_once() {
    let lab = Topology::builder(Shape::TwoArmed).build().unwrap();
    let _server = TcpServer::start(&lab.servers[0].namespace, "s1", 7000).unwrap();
    let to = SocketAddr::new(lab.servers[0].v4.into(), 7000);
    let load = TcpLoad::start(&lab.client().namespace, to, 2000, Duration::from_secs(1), Duration::from_secs(4)).unwrap();
    load.wait_opened().unwrap();
    let report = load.report().unwrap();
    assert!(report.is_flawless(2000), "{report:?}");
}

#[test]
fn connections_notice_that_their_server_dies() {
    let lab = Topology::builder(Shape::TwoArmed).build().unwrap();
    let mut server = TcpServer::start(&lab.servers[0].namespace, "s1", 7000).unwrap();
    let to = SocketAddr::new(lab.servers[0].v4.into(), 7000);
    let load = TcpLoad::start(&lab.client().namespace, to, 10, Duration::from_millis(50), Duration::from_secs(2)).unwrap();
    load.wait_opened().unwrap();
    server.process.kill().unwrap();
    let report = load.report().unwrap();
    assert_eq!((report.opened, report.broken.len()), (10, 10), "{report:?}");
    assert_eq!(report.broken[0].server.as_deref(), Some("s1"));
}

/// Passes one connection on, and changes one byte of what the server sends once 1 000 bytes have gone by.
fn corrupting_proxy(inside: &Namespace, server: SocketAddr) {
    let listener = inside.enter(|| TcpListener::bind("[::]:7001")).unwrap();
    let upstream = inside.enter(|| TcpStream::connect(server)).unwrap();
    thread::spawn(move || {
        let (mut client, mut server) = (listener.accept().unwrap().0, upstream);
        let (mut from_client, mut to_server) = (client.try_clone().unwrap(), server.try_clone().unwrap());
        thread::spawn(move || std::io::copy(&mut from_client, &mut to_server));
        let (mut seen, mut buffer) = (0, [0; 4096]);
        while let Ok(length @ 1..) = server.read(&mut buffer) {
            if seen < 1000 && seen + length >= 1000 {
                buffer[1000 - seen - 1] ^= 1;
            }
            seen += length;
            if client.write_all(&buffer[..length]).is_err() {
                break;
            }
        }
    });
}

#[test]
fn a_changed_byte_breaks_the_connection_that_carried_it() {
    let lab = Topology::builder(Shape::OneArmed).build().unwrap();
    let _server = TcpServer::start(&lab.servers[0].namespace, "s1", 7000).unwrap();
    corrupting_proxy(&lab.node().namespace, SocketAddr::new(lab.servers[0].v4.into(), 7000));
    let to = SocketAddr::new(lab.node().v4.into(), 7001);
    let load = TcpLoad::start(&lab.client().namespace, to, 1, Duration::from_millis(10), Duration::from_secs(2)).unwrap();
    let report = load.report().unwrap();
    assert_eq!(report.broken.len(), 1, "{report:?}");
    assert_eq!(report.broken[0].reason, "the bytes of a message were changed");
}

#[test]
fn udp_flows_are_answered_and_count_what_is_lost() {
    let lab = Topology::builder(Shape::TwoArmed).build().unwrap();
    let listen: SocketAddr = "[::]:5353".parse().unwrap();
    let _server = UdpServer::start(&lab.servers[0].namespace, "s1", listen).unwrap();
    let load = |server: &Host| {
        let to = SocketAddr::new(server.v4.into(), 5353);
        UdpLoad::start(&lab.client().namespace, to, 10, Duration::from_millis(50), Duration::from_secs(1)).unwrap().report().unwrap()
    };
    let answered = load(&lab.servers[0]);
    assert_eq!((answered.lost, answered.changed, answered.moved.len()), (0, 0, 0), "{answered:?}");
    assert_eq!(answered.by_server, [("s1".to_owned(), 10)].into());
    assert!(answered.answered >= 50, "{answered:?}");
    let refused = load(&lab.servers[1]);
    assert_eq!((refused.answered, refused.lost), (0, refused.sent), "{refused:?}");
}

/// TCP segments that the machine has received.
fn segments_in(host: &Host) -> u64 {
    let text = host.namespace.enter(|| fs::read_to_string("/proc/thread-self/net/snmp")).unwrap();
    let mut rows = text.lines().filter(|line| line.starts_with("Tcp:"));
    let (names, values) = (rows.next().unwrap(), rows.next().unwrap());
    let column = names.split(' ').position(|name| name == "InSegs").unwrap();
    values.split(' ').nth(column).unwrap().parse().unwrap()
}

#[test]
fn a_flood_reaches_the_machine_that_it_is_aimed_at() {
    let lab = Topology::builder(Shape::OneArmed).build().unwrap();
    let target = &lab.servers[0];
    let mac = target.mac("eth0").unwrap();
    for to in [SocketAddr::new(target.v4.into(), 80), SocketAddr::new(target.v6.into(), 80)] {
        let before = segments_in(target);
        let flood = Flood::start(&lab.client().namespace, to, &mac, Mode::SynAck, 5000, Duration::from_millis(500)).unwrap();
        let report = flood.report().unwrap();
        assert!(report.sent >= 1000, "{report:?}");
        let arrived = || segments_in(target) - before >= report.sent;
        wait_until("the flood to arrive", SOON, arrived).unwrap();
    }
}

/// Frames that came in at an interface.
fn frames_in(namespace: &Namespace, interface: &str) -> u64 {
    let links: serde_json::Value = serde_json::from_str(&namespace.ip(&format!("-j -s link show {interface}")).unwrap()).unwrap();
    links[0]["stats64"]["rx"]["packets"].as_u64().unwrap()
}

#[test]
fn what_a_node_sends_back_from_xdp_arrives_at_the_other_end() {
    let (node, other) = (Namespace::new("node").unwrap(), Namespace::new("other").unwrap());
    let inside = End { namespace: &node, interface: "eth0", carries_xdp: true };
    let _cable = Cable::new(inside, End { namespace: &other, interface: "port0", carries_xdp: false }, 1500).unwrap();
    let _reflects = XdpVerdict::attach(&node, "eth0", Verdict::Reflect).unwrap();
    let before = frames_in(&other, "port0");
    let plan = flood::Plan {
        to: "10.9.9.9:80".parse().unwrap(),
        mac: [2; 6],
        interface: "port0".to_owned(),
        mode: Mode::Syn,
        rate: 10_000,
        time: Duration::from_millis(100),
    };
    let sent = other.enter(|| flood::run(&plan)).unwrap().sent;
    wait_until("the frames to come back", SOON, || frames_in(&other, "port0") - before >= sent).unwrap();
}

#[test]
fn a_partition_is_silent_and_ends_with_its_program() {
    let lab = Topology::builder(Shape::OneArmed).build().unwrap();
    let (client, server) = (lab.client(), &lab.servers[0]);
    reach(client, server.v4);
    let partition = XdpVerdict::attach(&server.namespace, "eth0", Verdict::Drop).unwrap();
    let address = SocketAddr::new(server.v4.into(), 9);
    let silence = client.namespace.enter(|| TcpStream::connect_timeout(&address, Duration::from_millis(300)));
    assert_eq!(silence.unwrap_err().kind(), std::io::ErrorKind::TimedOut);
    drop(partition);
    reach(client, server.v4);
}

#[test]
fn the_end_of_a_lab_leaves_nothing_even_after_a_panic() {
    let outcome = thread::spawn(|| {
        let lab = Topology::builder(Shape::TwoArmed).build().unwrap();
        let mut nginx = Nginx::start(&lab.servers[0].namespace, "s1", 80).unwrap();
        let folder = Folder::new("left").unwrap();
        let left = (nginx.process().id(), lab.servers[0].namespace.path().to_owned(), folder.path().to_owned());
        std::panic::panic_any(left);
    })
    .join();
    let (process, namespace, folder): (u32, PathBuf, PathBuf) = *outcome.unwrap_err().downcast().unwrap();
    assert!(!Path::new("/proc").join(process.to_string()).exists());
    assert!(!namespace.exists());
    assert!(!folder.exists());
}

#[test]
fn what_a_dead_process_left_is_removed_by_the_next() {
    let mut dead = Command::new("true").spawn().unwrap();
    dead.wait().unwrap();
    let left = format!("weir-{}-1-left", dead.id());
    let pins = BpfFolder::new("mounts-the-file-system").unwrap();
    let (pinned, folder) = (pins.path().with_file_name(&left), Path::new("/tmp").join(&left));
    assert!(Command::new("ip").args(["netns", "add", &left]).status().unwrap().success());
    fs::create_dir(&pinned).unwrap();
    fs::create_dir(&folder).unwrap();
    let mut sleeper = Command::new("ip").args(["netns", "exec", &left, "sleep", "1000"]).spawn().unwrap();
    let namespace = Path::new("/run/netns").join(&left);
    // Another process of the lab reaps when it makes its first name; this one has done so already.
    let other = Command::new(std::env::current_exe().unwrap()).args(["--exact", "two_nodes_stand_beside_each_other"]).output().unwrap();
    assert!(other.status.success());
    sleeper.wait().unwrap();
    assert!(!namespace.exists() && !pinned.exists() && !folder.exists());
}
