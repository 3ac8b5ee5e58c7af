//! Open connections outlive a flood of forged segments that a running daemon's program meets: on clean slots all of them, on learning slots nearly
//! all, while the slots change under the flood.

use std::{
    net::SocketAddr,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde_json::Value;
use weir_tests::{
    lab::{Crowd, CrowdServer, Flood, Shape, Topology, Weir, v4, wait_until},
    peer::{crowd::Report, flood::Mode},
};

const PORT: u16 = 7000;
const SLOTS: u64 = 4096;
/// Places for flows: more than the connections need, fewer than the flood asks for.
const PLACES: u32 = 131_072;
const CONNECTIONS: usize = 10_000;
/// More than the sender can do.
const RATE: u32 = 1_000_000;
const FLOOD: Duration = Duration::from_secs(15);
const FLOODED: u64 = 200_000;
/// The flood overflows queues on the way, and a segment that is lost thrice comes again after seconds.
const PATIENCE: Duration = Duration::from_secs(30);
const SOON: Duration = Duration::from_secs(30);

/// Two floods at once would leave each half of the machine.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Fixture {
    lab: Topology,
    _servers: Vec<CrowdServer>,
}

impl Fixture {
    /// The servers have no route to the flood's sources, so that its segments cost them nothing but a look-up.
    fn new() -> Self {
        let lab = Topology::builder(Shape::OneArmed).clients(2).servers(3).build().unwrap();
        let serve = |host: &weir_tests::lab::Host| {
            host.hold_vips(lab.vip4(), lab.vip6()).unwrap();
            CrowdServer::start(&host.namespace, PORT, 1).unwrap()
        };
        let servers = lab.servers.iter().map(serve).collect();
        for number in 21..24 {
            lab.client().namespace.ip(&format!("addr add {}/24 dev eth0", v4(1, number))).unwrap();
        }
        lab.client().namespace.set("net/ipv4/ip_local_port_range", "1024 65535").unwrap();
        Self { lab, _servers: servers }
    }

    fn vip(&self) -> SocketAddr {
        SocketAddr::new(self.lab.vip4().into(), PORT)
    }

    /// A configuration in which only `ready` takes new connections.
    fn configuration(&self, ready: usize) -> String {
        let mut text = format!(
            "slot_seed = \"flood\"\n[limits]\nflows = {PLACES}\n[listener.echo]\nmode = \"l4\"\nbind = \"{}\"\npool = \"echo\"\n\
             slots = {SLOTS}\n[pool.echo]\nforward = \"dsr\"\n",
            self.vip()
        );
        for (index, server) in self.lab.servers.iter().enumerate() {
            let state = if index == ready { "ready" } else { "drain" };
            text += &format!("servers.s{} = {{ address = \"{}\", state = \"{state}\" }}\n", index + 1, server.v4);
        }
        text
    }

    /// Opens so many connections from the client's further address `number`, and goes on asking them.
    fn open(&self, number: u8, connections: usize) -> Crowd {
        let from = [v4(1, number).into()];
        let mut crowd = Crowd::start_asking(&self.lab.client().namespace, self.vip(), &from, connections, PATIENCE).unwrap();
        crowd.wait_opened(SOON).unwrap();
        crowd
    }

    fn flood(&self, mode: Mode) -> Flood {
        let mac = self.lab.node().mac("eth0").unwrap();
        Flood::start(&self.lab.clients[1].namespace, self.vip(), &mac, mode, RATE, FLOOD).unwrap()
    }
}

/// The service's part of `weir status`.
fn service(weir: &Weir<'_>) -> Value {
    weir.status().unwrap()["services"][0].clone()
}

fn count(value: &Value) -> u64 {
    value.as_u64().unwrap_or(0)
}

fn packets(service: &Value) -> u64 {
    service["members"].as_array().unwrap().iter().map(|member| count(&member["packets"])).sum()
}

/// Makes `ready` the one that takes new connections: every slot changes.
fn turn_to(fixture: &Fixture, weir: &Weir<'_>, ready: usize) {
    weir.write_config(&fixture.configuration(ready)).unwrap();
    let address = fixture.lab.servers[ready].v4.to_string();
    let is_current = |service: &Value| {
        let members = service["members"].as_array().unwrap();
        members.iter().any(|member| member["address"] == address.as_str() && member["slots"] == SLOTS && member["state"] == "ready")
    };
    let turned = wait_until("the slots to change", SOON, || is_current(&service(weir)));
    turned.unwrap_or_else(|timeout| panic!("{timeout}: {:#}; {}", service(weir), weir.stderr()));
}

fn reports(crowds: impl IntoIterator<Item = Crowd>) -> Vec<Report> {
    crowds.into_iter().map(|crowd| crowd.report().unwrap()).collect()
}

/// Ends the flood; true figures of what it did come back.
fn end(flood: Flood, weir: &Weir<'_>, before: u64) -> Value {
    let sent = flood.report().unwrap().sent;
    let service = service(weir);
    let arrived = packets(&service) - before;
    println!("the flood sent {sent}; {arrived} packets went to servers meanwhile; {}", service["notes"]);
    assert!(arrived >= FLOODED, "the flood did not arrive: {arrived} of {sent}");
    service
}

fn learning_slots_outlive(mode: Mode) {
    let _alone = alone();
    let fixture = Fixture::new();
    let weir = Weir::start(fixture.lab.node(), &fixture.configuration(0)).unwrap();
    // Some are older than the first change of their slot, most come between it and the second, some under the flood.
    let older = fixture.open(21, CONNECTIONS / 4);
    turn_to(&fixture, &weir, 1);
    let remembered = fixture.open(22, CONNECTIONS / 2);
    let before = service(&weir);
    assert_eq!(count(&before["slots"]["learning"]), SLOTS, "{}", before["slots"]);
    assert!(count(&before["members"][1]["flows"]) >= CONNECTIONS as u64 / 2 * 99 / 100, "{}", before["members"]);

    let flood = fixture.flood(mode);
    wait_until("the flood", SOON, || packets(&service(&weir)) > packets(&before) + FLOODED).unwrap();
    turn_to(&fixture, &weir, 2);
    let younger = fixture.open(23, CONNECTIONS / 4);
    let after = end(flood, &weir, packets(&before));
    assert_eq!(count(&after["slots"]["learning"]), SLOTS, "{}", after["slots"]);

    let reports = reports([older, remembered, younger]);
    println!("older, remembered, younger: {reports:?}");
    let sum = |count: fn(&Report) -> usize| reports.iter().map(count).sum::<usize>();
    assert!(sum(|one| one.opened) >= CONNECTIONS * 99 / 100, "{reports:?}");
    assert!(sum(|one| one.broken) * 100 <= sum(|one| one.opened), "{reports:?}");
    assert!(sum(|one| one.answers) > 2 * CONNECTIONS, "no data was exchanged under the flood: {reports:?}");
}

#[test]
fn connections_on_learning_slots_outlive_a_flood_of_syns() {
    learning_slots_outlive(Mode::Syn);
}

#[test]
fn connections_on_learning_slots_outlive_a_flood_of_syns_and_acks() {
    learning_slots_outlive(Mode::SynAck);
}

#[test]
fn all_connections_on_clean_slots_outlive_a_flood() {
    let _alone = alone();
    let fixture = Fixture::new();
    let weir = Weir::start(fixture.lab.node(), &fixture.configuration(0)).unwrap();
    let crowd = fixture.open(21, CONNECTIONS);
    let before = packets(&service(&weir));
    let after = end(fixture.flood(Mode::SynAck), &weir, before);
    assert_eq!(count(&after["slots"]["clean"]), SLOTS, "{}", after["slots"]);
    let report = crowd.report().unwrap();
    println!("{report:?}");
    assert_eq!((report.opened, report.broken), (CONNECTIONS, 0));
    assert!(report.answers > 2 * CONNECTIONS, "no data was exchanged under the flood: {report:?}");
}
