//! Open connections outlive every change: of the servers, of the configuration, of the daemon, of the binary.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use rustix::process::Signal;
use serde_json::Value;
use weir_tests::lab::{Host, Shape, TcpLoad, TcpServer, Topology, UdpLoad, UdpServer, Weir, wait_until};

const CONNECTIONS: usize = 2000;
const DATAGRAM_FLOWS: usize = 200;
/// Shorter than the listener's idle timeout of 5 s: a connection that speaks is never idle.
const INTERVAL: Duration = Duration::from_secs(1);
/// Longer than any test: a load is told when to end.
const AT_MOST: Duration = Duration::from_secs(600);
const SOON: Duration = Duration::from_secs(30);
const TCP: u16 = 7000;
const UDP: u16 = 7001;

#[test]
fn connections_through_nat_outlive_changes_of_servers_and_daemon() {
    let lab = Topology::builder(Shape::TwoArmed).servers(4).build().unwrap();
    outlive_every_change(&lab, "nat");
}

#[test]
fn connections_through_dsr_outlive_changes_of_servers_and_daemon() {
    let lab = Topology::builder(Shape::OneArmed).servers(4).build().unwrap();
    for server in &lab.servers {
        server.hold_vips(lab.vip4(), lab.vip6()).unwrap();
    }
    outlive_every_change(&lab, "dsr");
}

fn outlive_every_change(lab: &Topology, forward: &'static str) {
    let _servers: Vec<_> = lab.servers.iter().enumerate().map(|(index, host)| serve(lab, index, host, forward)).collect();
    let mut file = File::new(lab, forward);
    file.servers.retain(|name, _| *name != "s4");
    let mut weir = Weir::start(lab.node(), &file.text()).unwrap();
    let vip = |port| SocketAddr::new(lab.vip4().into(), port);
    let client = &lab.client().namespace;
    let load = TcpLoad::start(client, vip(TCP), CONNECTIONS, INTERVAL, AT_MOST).unwrap();
    load.wait_opened().unwrap();
    let datagrams = UdpLoad::start(client, vip(UDP), DATAGRAM_FLOWS, INTERVAL, AT_MOST).unwrap();
    let greeters = || new_connections(lab);
    assert_eq!(greeters().keys().collect::<Vec<_>>(), ["s1", "s2", "s3"]);

    // A server more; the daemon dies while slots learn.
    file.server("s4", "");
    weir.write_config(&file.text()).unwrap();
    until(&weir, "s4 to take its share", |now| now.member(&file, "s4")["slots"].as_u64() > Some(500));
    assert!(greeters().contains_key("s4"));
    weir.crash_and_restart().unwrap();
    assert_eq!(weir.status().unwrap()["daemon"]["origin"], "adopted");

    // Another weight; then slots settle, and those without older flows become clean.
    file.server("s1", "weight = 3");
    weir.replace_config(&file.text()).unwrap();
    until(&weir, "the weight of s1", |now| now.member(&file, "s1")["weight"] == 3);
    until(&weir, "slots to settle", |now| now.slots("learning") == 0 && now.slots("settled") > 0);
    until(&weir, "slots to become clean", |now| now.slots("learning") == 0 && now.slots("clean") > 0);

    // One drains, one is dropped from the file, and another binary takes over.
    file.server("s2", "state = \"drain\"");
    weir.write_config(&file.text()).unwrap();
    weir.signal(Signal::HUP).unwrap();
    until(&weir, "s2 to drain", |now| now.member(&file, "s2")["state"] == "drain" && now.member(&file, "s2")["slots"] == 0);
    assert!(!greeters().contains_key("s2"));
    file.drop_server("s3");
    weir.replace_config(&file.text()).unwrap();
    until(&weir, "s3 to retire", |now| now.member(&file, "s3")["state"] == "retired");
    assert_eq!(greeters().keys().collect::<Vec<_>>(), ["s1", "s4"]);
    weir.upgrade().unwrap();
    until(&weir, "slots to settle", |now| now.slots("learning") == 0);
    assert_eq!(weir.now().member(&file, "s3")["state"], "retired", "a server with flows keeps its record");

    // The dropped one comes back, the drained one has weight 0, then a share again; the last edit is made while no daemon runs.
    file.server("s3", "");
    file.server("s2", "weight = 0");
    weir.write_config(&file.text()).unwrap();
    until(&weir, "s3 to be back", |now| now.member(&file, "s3")["state"] == "ready" && now.member(&file, "s2")["weight"] == 0);
    weir.kill_9().unwrap();
    file.server("s2", "weight = 2");
    weir.write_config(&file.text()).unwrap();
    weir.run().unwrap();
    until(&weir, "s2 to take its share", |now| now.member(&file, "s2")["slots"].as_u64() > Some(500));

    // Datagrams cannot tell an old flow from a new one, and leave a server that is down: until here all stayed.
    let datagrams = datagrams.finish().unwrap();
    assert_eq!((datagrams.lost, datagrams.changed, datagrams.moved), (0, 0, vec![]));
    assert_eq!(datagrams.by_server.values().sum::<usize>(), DATAGRAM_FLOWS);

    // One is down: no new flows, and the old ones are kept.
    file.server("s1", "state = \"down\"");
    weir.write_config(&file.text()).unwrap();
    until(&weir, "s1 to be down", |now| now.member(&file, "s1")["state"] == "down");
    assert_eq!(greeters().keys().collect::<Vec<_>>(), ["s2", "s3", "s4"]);
    until(&weir, "slots to settle", |now| now.slots("learning") == 0);
    assert_eq!(load.broken(), Vec::<String>::new());

    // Where the pool says so, the sessions of a server that is down are closed; nobody else's.
    file.server("s1", "");
    file.server("s2", "state = \"down\"");
    file.on_down = "close-sessions";
    weir.write_config(&file.text()).unwrap();
    let closed = load.greeted_by("s2");
    wait_until("the sessions of s2 to be closed", SOON, || load.broken().len() >= closed).unwrap();
    until(&weir, "slots to settle", |now| now.slots("learning") == 0);
    let report = load.finish().unwrap();
    println!(
        "{forward}: {} messages, longest answer {:?}, longest pause {:?}",
        report.messages, report.longest_answer, report.longest_pause
    );
    assert_eq!((report.opened, report.refused.len(), report.broken.len()), (CONNECTIONS, 0, closed));
    for broken in &report.broken {
        assert_eq!(broken.server.as_deref(), Some("s2"));
        assert!(broken.reason.contains("reset by peer"), "{broken:?}");
    }
}

fn serve(lab: &Topology, index: usize, host: &Host, forward: &str) -> (TcpServer, UdpServer) {
    let name = format!("s{}", index + 1);
    let address = if forward == "nat" { host.v4 } else { lab.vip4() };
    (
        TcpServer::start(&host.namespace, &name, TCP).unwrap(),
        UdpServer::start(&host.namespace, &name, SocketAddr::new(address.into(), UDP)).unwrap(),
    )
}

/// Whom new connections reach.
fn new_connections(lab: &Topology) -> BTreeMap<String, usize> {
    let vip = SocketAddr::new(lab.vip4().into(), TCP);
    let load = TcpLoad::start(&lab.client().namespace, vip, 60, INTERVAL, Duration::from_millis(1)).unwrap();
    let report = load.report().unwrap();
    assert!(report.is_flawless(60), "{report:?}");
    report.by_server
}

/// The configuration file as it is edited.
struct File {
    vip: String,
    forward: &'static str,
    on_down: &'static str,
    tcp_idle: &'static str,
    limits: &'static str,
    addresses: BTreeMap<&'static str, String>,
    servers: BTreeMap<&'static str, String>,
}

impl File {
    fn new(lab: &Topology, forward: &'static str) -> Self {
        let names = ["s1", "s2", "s3", "s4"];
        let addresses: BTreeMap<_, _> = names.into_iter().zip(lab.servers.iter().map(|host| host.v4.to_string())).collect();
        let servers = addresses.keys().map(|name| (*name, String::new())).collect();
        Self { vip: lab.vip4().to_string(), forward, on_down: "keep", tcp_idle: "5s", limits: "", addresses, servers }
    }

    /// Adds a server, or changes what is said of it.
    fn server(&mut self, name: &'static str, keys: &str) {
        self.servers.insert(name, keys.to_owned());
    }

    fn drop_server(&mut self, name: &'static str) {
        self.servers.remove(name);
    }

    fn text(&self) -> String {
        let Self { vip, forward, on_down, tcp_idle, limits, .. } = self;
        let mut text = format!(
            "{limits}\n[listener.echo]\nmode = \"l4\"\nbind = [\"{vip}:{TCP}\", \"{vip}:{UDP}/udp\"]\npool = \"echo\"\nslots = 4096\n\
             timeout = {{ tcp = \"{tcp_idle}\", udp = \"5s\" }}\n\n[pool.echo]\nforward = \"{forward}\"\non_down = \"{on_down}\"\n"
        );
        for (name, keys) in &self.servers {
            let address = &self.addresses[name];
            let comma = if keys.is_empty() { "" } else { ", " };
            text += &format!("servers.{name} = {{ address = \"{address}\"{comma}{keys} }}\n");
        }
        text
    }
}

/// What `weir status` says.
struct Now(Value);

impl Now {
    fn tcp(&self) -> &Value {
        self.0["services"].as_array().and_then(|all| all.iter().find(|one| one["protocol"] == "tcp")).unwrap_or(&Value::Null)
    }

    fn slots(&self, state: &str) -> u64 {
        self.tcp()["slots"][state].as_u64().unwrap_or(u64::MAX)
    }

    fn member(&self, file: &File, name: &str) -> &Value {
        let address = file.addresses[name].as_str();
        let members = self.tcp()["members"].as_array();
        members.and_then(|all| all.iter().find(|one| one["address"] == address)).unwrap_or(&Value::Null)
    }
}

trait Ask {
    fn now(&self) -> Now;
}

impl Ask for Weir<'_> {
    fn now(&self) -> Now {
        Now(self.status().unwrap())
    }
}

fn until(weir: &Weir<'_>, what: &str, mut holds: impl FnMut(&Now) -> bool) {
    let waited = wait_until(what, SOON, || holds(&weir.now()));
    waited.unwrap_or_else(|timeout| panic!("{timeout}; weir run said: {}\n{:#}", weir.stderr(), weir.now().0));
}
