//! Checks through the data path: a server that clients' packets do not reach is found, though it is well for whoever asks it directly.

use std::{net::IpAddr, time::Duration};

use serde_json::Value;
use weir_tests::lab::{Cable, End, Family, Nginx, ServerSetup, Shape, TcpServer, Topology, UdpServer, Weir, wait_until};

const SOON: Duration = Duration::from_secs(20);
const PORT: u16 = 7000;
const CHECK: &str = "interval = \"200ms\", timeout = \"150ms\", fall = 2, rise = 1";

/// Two pools of the same server for each family: one checked through the data path, one directly.
fn configuration(lab: &Topology, forward: &str, check: &str) -> String {
    let mut text = "\n[defaults]\nmode = \"l4\"\nslots = 1024\n".to_owned();
    for (family, number) in [(Family::V4, 4), (Family::V6, 6)] {
        let (vip, server) = (bracketed(lab.vip(family, 100)), bracketed(lab.servers[0].address(family)));
        for (way, port, via) in [("path", PORT, "datapath"), ("direct", PORT + 1, "direct")] {
            text += &format!(
                "[listener.{way}{number}]\nbind = [\"{vip}:{port}\", \"{vip}:{port}/udp\"]\npool = \"{way}{number}\"\n[pool.{way}{number}]\nforward = \"{forward}\"\n\
                 check = {{ {check}, via = \"{via}\", {}{CHECK} }}\nservers.s1 = \"{server}\"\n",
                if via == "direct" { format!("port = {PORT}, ") } else { String::new() }
            );
        }
    }
    text
}

fn bracketed(address: IpAddr) -> String {
    if address.is_ipv4() { address.to_string() } else { format!("[{address}]") }
}

fn check(weir: &Weir<'_>, pool: &str) -> Value {
    weir.status().unwrap()["checks"][format!("{pool}/s1")].clone()
}

fn wait_up(weir: &Weir<'_>, pool: &str) {
    wait_until(&format!("{pool} to be up"), SOON, || {
        let check = check(weir, pool);
        check["is_up"] == true
    })
    .unwrap_or_else(|timeout| panic!("{timeout} {} {:#}", weir.stderr(), weir.status().unwrap()));
}

/// Waits until the pool's server is down; gives the cause.
fn wait_down(weir: &Weir<'_>, pool: &str) -> String {
    wait_until(&format!("{pool} to be down"), SOON, || check(weir, pool)["is_up"] == false)
        .unwrap_or_else(|timeout| panic!("{timeout} {} {:#}", weir.stderr(), weir.status().unwrap()));
    check(weir, pool)["cause"].as_str().unwrap().to_owned()
}

/// Longer than a server that is not well stays up.
fn settle() {
    std::thread::sleep(Duration::from_millis(1500));
}

fn all_up(weir: &Weir<'_>) {
    settle();
    for pool in ["path4", "path6", "direct4", "direct6"] {
        wait_up(weir, pool);
    }
    let status = weir.status().unwrap();
    assert_eq!(status["problems"], serde_json::json!([]), "{}", weir.stderr());
}

fn directly_up(weir: &Weir<'_>) {
    for pool in ["direct4", "direct6"] {
        assert_eq!(check(weir, pool)["is_up"], true, "{pool}: {}", weir.stderr());
    }
}

/// Takes a VIP from the server's loopback and gives it back.
fn vips_are_missed(lab: &Topology, weir: &Weir<'_>, mode: &str) {
    let server = &lab.servers[0];
    for (family, number, prefix) in [(Family::V4, 4, 32), (Family::V6, 6, 128)] {
        let vip = lab.vip(family, 100);
        server.namespace.ip(&format!("addr del {vip}/{prefix} dev lo")).unwrap();
        let cause = wait_down(weir, &format!("path{number}"));
        assert!(cause.starts_with("L4 ") && cause.contains(&format!("to VIP {vip} port {PORT} by {mode}")), "{cause}");
        directly_up(weir);
        let nodad = if family == Family::V6 { " nodad" } else { "" };
        server.namespace.ip(&format!("addr add {vip}/{prefix} dev lo{nodad}")).unwrap();
        wait_up(weir, &format!("path{number}"));
    }
}

#[test]
fn a_missing_loopback_address_is_found_behind_dsr() {
    for shape in [Shape::OneArmed, Shape::TwoArmed] {
        let lab = Topology::builder(shape).servers(1).build().unwrap();
        let server = &lab.servers[0];
        server.hold_vips(lab.vip4(), lab.vip6()).unwrap();
        let _tcp = TcpServer::start(&server.namespace, "s1", PORT).unwrap();
        let weir = Weir::start(lab.node(), &configuration(&lab, "dsr", "tcp = true")).unwrap();
        all_up(&weir);
        vips_are_missed(&lab, &weir, "dsr");
    }
}

/// Starts a tunnel's server, its check and all that happens to it.
fn a_tunnel_is_followed(shape: Shape, mode: &str) {
    let lab = Topology::builder(shape).servers(1).build().unwrap();
    let server = &lab.servers[0];
    let vips = [lab.vip4().into(), lab.vip6().into()];
    let setup = ServerSetup::add(server, mode, &vips).unwrap();
    let _nginx = Nginx::start(&server.namespace, "s1", PORT).unwrap();
    let expecting = |body: &str| configuration(&lab, mode, &format!("http = \"GET /\", expect = {{ body = \"{body}\" }}"));
    let weir = Weir::start(lab.node(), &expecting("s1")).unwrap();
    all_up(&weir);
    vips_are_missed(&lab, &weir, mode);

    weir.write_config(&expecting("another")).unwrap();
    for number in [4, 6] {
        let cause = wait_down(&weir, &format!("path{number}"));
        assert!(cause.starts_with("L7 body does not contain \"another\""), "{cause}");
    }
    weir.write_config(&expecting("s1")).unwrap();
    all_up(&weir);

    drop(setup);
    for number in [4, 6] {
        let cause = wait_down(&weir, &format!("path{number}"));
        assert!(cause.contains(&format!("by {mode}")) && cause.contains("open that tunnel"), "{cause}");
    }
    directly_up(&weir);
    let _setup = ServerSetup::add(server, mode, &vips).unwrap();
    all_up(&weir);
}

#[test]
fn a_missing_address_and_a_missing_tunnel_are_found_behind_ipip() {
    a_tunnel_is_followed(Shape::TwoArmed, "ipip");
}

#[test]
fn a_missing_address_and_a_missing_tunnel_are_found_behind_gue() {
    a_tunnel_is_followed(Shape::OneArmed, "gue");
}

#[test]
fn tunnels_are_followed_by_nodes_behind_a_router() {
    a_tunnel_is_followed(Shape::Routed, "gue");
}

#[test]
fn a_datagram_takes_the_data_path_and_so_does_its_refusal() {
    let lab = Topology::builder(Shape::TwoArmed).servers(1).build().unwrap();
    let server = &lab.servers[0];
    server.hold_vips(lab.vip4(), lab.vip6()).unwrap();
    // Each refusal is told.
    ["net/ipv4/icmp_ratelimit", "net/ipv6/icmp/ratelimit"].iter().for_each(|limit| server.namespace.set(limit, "0").unwrap());
    let config = configuration(&lab, "dsr", "udp = { send = \"?\" }");
    let weir = Weir::start(lab.node(), &config).unwrap();
    for (family, number) in [(Family::V4, 4), (Family::V6, 6)] {
        let cause = wait_down(&weir, &format!("path{number}"));
        assert!(cause.contains("refused, to VIP") && cause.contains(&lab.vip(family, 100).to_string()), "{cause}");
    }
    let listen = Family::ALL.map(|family| (server.address(family), PORT).into());
    let own = UdpServer::start_at(&server.namespace, "s1", &listen).unwrap();
    for number in [4, 6] {
        wait_up(&weir, &format!("direct{number}"));
        assert_eq!(check(&weir, &format!("path{number}"))["is_up"], false, "nobody listens at the VIP");
    }
    drop(own);
    let listen = Family::ALL.map(|family| (lab.vip(family, 100), PORT).into());
    let _of_the_vip = UdpServer::start_at(&server.namespace, "s1", &listen).unwrap();
    for number in [4, 6] {
        wait_up(&weir, &format!("path{number}"));
        assert!(wait_down(&weir, &format!("direct{number}")).contains("refused"));
    }
}

#[test]
fn a_daemon_that_comes_back_and_checks_that_come_back_take_the_data_path() {
    let lab = Topology::builder(Shape::TwoArmed).servers(1).build().unwrap();
    let server = &lab.servers[0];
    server.hold_vips(lab.vip4(), lab.vip6()).unwrap();
    let _tcp = TcpServer::start(&server.namespace, "s1", PORT).unwrap();
    let mut weir = Weir::start(lab.node(), &configuration(&lab, "dsr", "tcp = true")).unwrap();
    all_up(&weir);
    weir.crash_and_restart().unwrap();
    all_up(&weir);
    weir.write_config(&configuration(&lab, "dsr", "tcp = true").replace("datapath", "direct")).unwrap();
    wait_until("the programs to be gone", SOON, || weir.stderr().contains("no check takes the data path any more")).unwrap();
    weir.write_config(&configuration(&lab, "dsr", "tcp = true")).unwrap();
    all_up(&weir);
    vips_are_missed(&lab, &weir, "dsr");
}

/// A cable from the node to the server, of no interface that the configuration names.
fn cable(lab: &Topology) -> Cable {
    let (node, server) = (&lab.node().namespace, &lab.servers[0].namespace);
    let end = |namespace| End { namespace, interface: "dm0", carries_xdp: false };
    let cable = Cable::new(end(node), end(server), 1500).unwrap();
    node.ip("addr add 10.9.0.1/24 dev dm0").unwrap();
    server.ip("addr add 10.9.0.2/24 dev dm0").unwrap();
    cable
}

#[test]
fn an_interface_that_comes_back_is_taken_by_checks_too() {
    let lab = Topology::builder(Shape::TwoArmed).servers(1).build().unwrap();
    let server = &lab.servers[0];
    let first = cable(&lab);
    server.hold_vips(lab.vip4(), lab.vip6()).unwrap();
    let _tcp = TcpServer::start(&server.namespace, "s1", PORT).unwrap();
    let config = configuration(&lab, "dsr", "tcp = true").replace(&server.v4.to_string(), "10.9.0.2");
    let weir = Weir::start(lab.node(), &config).unwrap();
    all_up(&weir);
    drop(first);
    lab.node().namespace.ip("link del dm0").unwrap();
    wait_down(&weir, "path4");
    let _second = cable(&lab);
    all_up(&weir);
    vips_are_missed(&lab, &weir, "dsr");
}

#[test]
fn servers_behind_nat_are_asked_at_their_own_port_from_the_address_that_they_know() {
    let lab = Topology::builder(Shape::TwoArmed).servers(1).build().unwrap();
    let server = &lab.servers[0];
    let _tcp = TcpServer::start(&server.namespace, "s1", PORT).unwrap();
    let own = |family: Family| bracketed(family.address(2, 1));
    let config = format!(
        "\n[defaults]\nmode = \"l4\"\nslots = 1024\n[listener.l]\nbind = [\"{}:80\", \"[{}]:80\"]\npool = \"p\"\n[pool.p]\nsnat = [\"{}\", \"{}\"]\n\
         check = {{ tcp = true, via = \"datapath\", {CHECK} }}\nservers.a = \"{}:{PORT}\"\n[pool.q]\ncheck = {{ tcp = true, via = \"datapath\", {CHECK} }}\nservers.a = \"{}\"\n\
         [listener.q]\nbind = \"{}:{PORT}\"\npool = \"q\"\n",
        lab.vip4(), lab.vip6(), own(Family::V4), own(Family::V6).replace(['[', ']'], ""), server.v4, server.v4, lab.vip4(),
    )
    .replace(&format!(", \"[{}]:80\"", lab.vip6()), "");
    let weir = Weir::start(lab.node(), &config).unwrap();
    settle();
    let up = |pool: &str| weir.status().unwrap()["checks"][format!("{pool}/a")]["is_up"].clone();
    assert_eq!((up("p"), up("q")), (true.into(), true.into()), "{}", weir.stderr());
    // Who is let in only from that address is still well.
    server
        .namespace
        .run("nft", &["add table ip t; add chain ip t c { type filter hook input priority 0; }; add rule ip t c ip saddr != 10.2.0.1 drop"])
        .unwrap();
    settle();
    assert_eq!(up("p"), true);
    server.namespace.run("nft", &["add rule ip t c tcp dport 7000 reject with tcp reset"]).unwrap();
    wait_until("it to be down", SOON, || up("p") == false && up("q") == false).unwrap();
}
