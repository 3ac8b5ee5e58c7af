//! NAT toward one server from one address, until there is no port left.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use serde_json::Value;
use weir_tests::lab::{Crowd, CrowdServer, Host, Shape, Topology, Weir, wait_until};

const CONNECTIONS: usize = 64_000;
/// A dedicated address has the ports from 1 024 up.
const PORTS: u64 = 64_512;
/// So that none needs more than 20 000 descriptors, which is what some machines allow.
const SERVER_PROCESSES: usize = 5;
const SOON: Duration = Duration::from_secs(10);

const CROWD: &str = r#"
[limits]
nat_flows = 131_072

[listener.crowd]
mode = "l4"
bind = "10.1.0.100:7001"
pool = "crowd"

[pool.crowd]
snat = "10.2.0.200"
servers.s1 = "10.2.0.11"
"#;

/// Two machines hold four hundred bytes of kernel memory a connection and more; their tables and queues are made to take them.
fn prepare(host: &Host) {
    host.namespace.set("net/ipv4/ip_local_port_range", "1024 65535").unwrap();
    host.namespace.set("net/ipv4/tcp_max_syn_backlog", "65536").unwrap();
}

fn service(weir: &Weir<'_>) -> Value {
    weir.status().unwrap()["services"][0].clone()
}

#[test]
fn nearly_every_port_of_a_dedicated_address_carries_a_flow_and_then_refusals_are_counted() {
    let lab = Topology::builder(Shape::TwoArmed).servers(1).build().unwrap();
    let client = lab.client();
    prepare(client);
    prepare(&lab.servers[0]);
    let from: Vec<IpAddr> = (21..25).map(|number| weir_tests::lab::v4(1, number).into()).collect();
    for address in &from {
        client.namespace.ip(&format!("addr add {address}/24 dev eth0")).unwrap();
    }
    let _server = CrowdServer::start(&lab.servers[0].namespace, 7001, SERVER_PROCESSES).unwrap();
    let weir = Weir::start(lab.node(), CROWD).unwrap();
    let to = SocketAddr::new(lab.vip4().into(), 7001);
    let mut crowd = Crowd::start(&client.namespace, to, &from, CONNECTIONS / from.len()).unwrap();
    crowd.wait_opened(Duration::from_secs(120)).unwrap();
    crowd.begin_more(&client.namespace, to, from[0], 3000).unwrap();

    let full = || service(&weir)["drops"]["nat-ports-full"].as_u64().unwrap_or(0) > 1000;
    wait_until("refusals to be counted", SOON, full).unwrap();
    let status = weir.status().unwrap();
    let plane = &status["nat"]["planes"][0];
    assert_eq!((plane["snat"].as_str(), plane["server"].as_str()), (Some("10.2.0.200"), Some("10.2.0.11")), "{plane:#}");
    assert_eq!(plane["most"], PORTS);
    let (flows, told) = (plane["flows"].as_u64().unwrap(), String::from_utf8(weir.operate(&["status"]).unwrap().stdout).unwrap());
    println!("{flows} flows are shown; {}", service(&weir)["drops"]);
    assert!(told.contains("nat-ports-full"), "{told}");
    assert!(told.lines().any(|line| line.contains("10.2.0.200") && line.contains("10.2.0.11")), "{told}");

    let report = crowd.report().unwrap();
    println!("{report:?}");
    assert_eq!(report.broken, 0, "{report:?}");
    assert!(report.opened >= CONNECTIONS * 99 / 100, "{report:?}");
    assert!(flows >= report.opened as u64 && flows <= PORTS, "{flows} flows for {report:?}");
}
