//! What the operator is told agrees with what happens, and asking changes nothing.

use std::{
    net::{IpAddr, SocketAddr, TcpStream},
    time::Duration,
};

use serde_json::Value;
use weir_tests::{
    lab::{Host, Shape, Topology, Weir},
    modes::{self, ECHO, Mode},
    peer::{message::Message, udp},
};

const FLOWS: u16 = 50;
const PATIENCE: Duration = Duration::from_secs(5);

/// The name at the beginning of a told member: `s1 10.2.0.11`.
fn server_of(explanation: &Value) -> String {
    let member = explanation["member"].as_str().unwrap_or_else(|| panic!("{explanation:#}"));
    member.split(' ').next().unwrap_or_default().to_owned()
}

/// The same of a packet that is sent on.
fn server_sent_to(explanation: &Value) -> String {
    assert_eq!(explanation["decision"], "send", "{explanation:#}");
    server_of(explanation)
}

fn explain(weir: &Weir<'_>, from: SocketAddr, to: SocketAddr, rest: &[&str]) -> Value {
    let (from, to) = (from.to_string(), to.to_string());
    let output = weir.operate(&[&["explain", &from, &to, "-o", "json"], rest].concat()).unwrap();
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)))
}

/// The open connection and who greeted it.
fn connect(client: &Host, from: SocketAddr, to: SocketAddr) -> (TcpStream, String) {
    let mut stream = client.namespace.enter(|| {
        let socket = socket2::Socket::new(socket2::Domain::for_address(to), socket2::Type::STREAM, None).unwrap();
        // The port may have served a connection to another VIP.
        socket.set_reuse_address(true).unwrap();
        socket.bind(&from.into()).unwrap();
        socket.connect_timeout(&to.into(), PATIENCE).unwrap();
        TcpStream::from(socket)
    });
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let greeting = Message::read(&mut stream).unwrap();
    (stream, String::from_utf8(greeting.payload).unwrap())
}

fn ask_udp(client: &Host, from: SocketAddr, to: SocketAddr) -> String {
    client.namespace.enter(|| {
        let socket = std::net::UdpSocket::bind(from).unwrap();
        socket.connect(to).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        match udp::ask(&socket, &Message::filled(1, 1, 50)).unwrap() {
            udp::Answer::Right(name) => name,
            udp::Answer::Changed => panic!("changed bytes from {to}"),
        }
    })
}

/// All that a packet may change, and nothing that time may.
fn counts(weir: &Weir<'_>) -> Value {
    let status = weir.status().unwrap();
    let services = status["services"].as_array().unwrap().iter().map(|service| {
        let members = service["members"].as_array().unwrap().iter().map(|member| &member["packets"]).collect::<Vec<_>>();
        serde_json::json!([service["vip"], service["drops"], service["notes"], service["slots"], members])
    });
    serde_json::json!([services.collect::<Vec<_>>(), status["drops"], status["notes"], status["nat"]])
}

/// The counts once the acknowledgements that a client puts off (40 ms) are in them.
fn settled_counts(weir: &Weir<'_>) -> Value {
    let mut last = counts(weir);
    for _ in 0..20 {
        std::thread::sleep(Duration::from_millis(100));
        let now = counts(weir);
        if now == last {
            return now;
        }
        last = now;
    }
    panic!("packets are still counted: {last}");
}

/// Ports without an order, the same at every run.
fn port(number: u16) -> u16 {
    20_000 + number.wrapping_mul(40_503) % 40_000
}

#[test]
fn what_is_explained_is_what_happens() {
    let lab = Topology::builder(Shape::TwoArmed).servers(4).build().unwrap();
    let _servers = modes::serve(&lab, Mode::PLAIN).unwrap();
    let weir = Weir::start(lab.node(), &modes::configuration(&lab, Mode::PLAIN)).unwrap();
    let client = lab.client();
    for (index, mode) in Mode::PLAIN.iter().enumerate() {
        let vip = modes::vip(&lab, Mode::PLAIN, index, ECHO);
        for number in 0..FLOWS / 2 {
            let from = SocketAddr::new(client.address(mode.vip), port(number));
            let foretold = server_sent_to(&explain(&weir, from, vip, &[]));
            let (_stream, server) = connect(client, from, vip);
            assert_eq!(foretold, server, "{mode}: before tcp {from} was opened");
            assert_eq!(server_sent_to(&explain(&weir, from, vip, &["--kind", "ack"])), server, "{mode}: while tcp {from} was open");

            let foretold = server_sent_to(&explain(&weir, from, vip, &["--protocol", "udp"]));
            assert_eq!(foretold, ask_udp(client, from, vip), "{mode}: udp {from}");
        }
    }
}

/// In a minute two connections, from any port; more are dropped.
const RATE: &str = "conn_rate = \"2/1m\"\n";

#[test]
fn a_connection_above_the_rate_is_explained_as_dropped() {
    let lab = Topology::builder(Shape::TwoArmed).build().unwrap();
    let _servers = modes::serve(&lab, Mode::PLAIN).unwrap();
    let text = modes::configuration(&lab, Mode::PLAIN).replacen("[defaults]\n", &format!("[defaults]\n{RATE}"), 1);
    assert!(text.contains(RATE), "{text}");
    let weir = Weir::start(lab.node(), &text).unwrap();
    let client = lab.client();
    let vip = modes::vip(&lab, Mode::PLAIN, 0, ECHO);
    let from = |number| SocketAddr::new(client.v4.into(), port(number));
    for number in 0..2 {
        server_sent_to(&explain(&weir, from(number), vip, &[]));
        connect(client, from(number), vip);
    }
    let told = explain(&weir, from(2), vip, &[]);
    assert_eq!((&told["decision"], &told["drop_reason"]), (&"drop".into(), &"conn-rate".into()), "{told:#}");
    let dropped = || weir.status().unwrap()["services"].to_string().contains("\"conn-rate\":1");
    assert!(!dropped());
    client.namespace.enter(|| {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        assert!(socket.connect_timeout(&vip.into(), Duration::from_millis(100)).is_err(), "the rate was not kept");
    });
    assert!(dropped(), "what was foretold did not happen");
}

#[test]
fn explaining_changes_nothing() {
    let lab = Topology::builder(Shape::TwoArmed).build().unwrap();
    let _servers = modes::serve(&lab, Mode::PLAIN).unwrap();
    let weir = Weir::start(lab.node(), &modes::configuration(&lab, Mode::PLAIN)).unwrap();
    let client = lab.client();
    // Connections that end leave packets and ports to be swept up behind them.
    let mut streams = Vec::new();
    for (index, mode) in Mode::PLAIN.iter().enumerate() {
        let vip = modes::vip(&lab, Mode::PLAIN, index, ECHO);
        let from = SocketAddr::new(client.address(mode.vip), port(1));
        let (stream, server) = connect(client, from, vip);
        streams.push(stream);
        let before = settled_counts(&weir);
        for kind in ["syn", "ack", "fin", "rst"] {
            for number in 0..5 {
                explain(&weir, SocketAddr::new(from.ip(), port(number)), vip, &["--kind", kind]);
                explain(&weir, SocketAddr::new(from.ip(), port(number)), vip, &["--protocol", "udp"]);
            }
        }
        assert_eq!(counts(&weir), before, "{mode}");
        assert_eq!(server_of(&explain(&weir, from, vip, &["--kind", "ack"])), server, "{mode}");
    }
}

#[test]
fn what_no_service_takes_is_explained_as_the_hosts() {
    let lab = Topology::builder(Shape::TwoArmed).build().unwrap();
    let weir = Weir::start(lab.node(), &modes::configuration(&lab, Mode::PLAIN)).unwrap();
    let from = SocketAddr::new(lab.client().v4.into(), 1000);
    let told = explain(&weir, from, SocketAddr::new(lab.vip4().into(), 22), &[]);
    assert_eq!((told["decision"].as_str(), &told["service"]), (Some("pass"), &Value::Null), "{told:#}");
}

const SERVICES: u8 = 16;
const SERVERS: u8 = 20;

/// 16 services of 20 servers, of which hardly one exists.
fn many_services() -> String {
    let mut text = "slot_seed = \"modes\"\n[defaults]\nmode = \"l4\"\nforward = \"ipip\"\n".to_owned();
    for service in 0..SERVICES {
        text += &format!("[listener.l{service}]\nbind = \"10.1.0.{}:80\"\npool = \"p{service}\"\n[pool.p{service}]\n", 100 + service);
        for server in 0..SERVERS {
            text += &format!("servers.s{server} = \"10.2.{service}.{}\"\n", 11 + server);
        }
    }
    text
}

#[test]
fn the_defaults_take_less_than_64_mib_for_16_services_of_20_servers() {
    let lab = Topology::builder(Shape::TwoArmed).build().unwrap();
    let weir = Weir::start(lab.node(), &many_services()).unwrap();
    let status = weir.status().unwrap();
    assert_eq!(status["services"].as_array().unwrap().len(), usize::from(SERVICES));
    let memory = status["memory_bytes"].as_u64().unwrap();
    println!("{:.1} MiB", memory as f64 / f64::from(1 << 20));
    assert!(memory <= 64 << 20, "{memory} bytes");
}

#[test]
fn status_shows_interfaces_services_and_servers_as_text_and_as_json() {
    let lab = Topology::builder(Shape::TwoArmed).build().unwrap();
    let _servers = modes::serve(&lab, Mode::PLAIN).unwrap();
    let weir = Weir::start(lab.node(), &modes::configuration(&lab, Mode::PLAIN)).unwrap();
    let vip = modes::vip(&lab, Mode::PLAIN, 0, ECHO);
    let from = SocketAddr::new(lab.client().v4.into(), 3333);
    let (_stream, server) = connect(lab.client(), from, vip);

    let status = weir.status().unwrap();
    let modes_of: Vec<_> = status["interfaces"].as_array().unwrap().iter().map(|one| (&one["name"], &one["mode"])).collect();
    assert_eq!(modes_of, [(&"eth0".into(), &"native".into()), (&"eth1".into(), &Value::from("native"))]);
    let is_ours = |service: &&Value| service["vip"] == vip.ip().to_string() && service["port"] == ECHO && service["protocol"] == "tcp";
    let service = status["services"].as_array().unwrap().iter().find(is_ours).unwrap();
    let busy = service["members"].as_array().unwrap().iter().filter(|member| member["flows"] == 1).collect::<Vec<_>>();
    assert_eq!(busy.len(), 1, "{service:#}");
    assert_eq!((&busy[0]["server"], &busy[0]["state"]), (&server.into(), &"ready".into()));

    let text = String::from_utf8(weir.operate(&["status"]).unwrap().stdout).unwrap();
    let addresses: Vec<IpAddr> = vec![lab.servers[0].v4.into(), lab.servers[1].v6.into(), vip.ip()];
    for word in addresses.iter().map(IpAddr::to_string).chain(["native".to_owned(), "nat-4".to_owned()]) {
        assert!(text.contains(&word), "{word} is missing in\n{text}");
    }
}
