//! Servers that go down: backups, nobody at all, and what becomes of the connections that they had.

use std::{io, net::SocketAddr, net::TcpStream, time::Duration};

use weir_tests::{
    lab::{Shape, TcpLoad, TcpServer, Topology, Weir, wait_until},
    operator::{done, json},
};

const SOON: Duration = Duration::from_secs(20);
const PORT: u16 = 7000;
/// Where checks ask, so that a server is down to them while its connections live.
const CHECKED: u16 = 7001;

fn configuration(lab: &Topology, pool: &str) -> String {
    format!(
        "\n[listener.echo]\nmode = \"l4\"\nbind = \"{}:{PORT}\"\npool = \"echo\"\nslots = 4096\n[pool.echo]\ncheck = {{ tcp = true, port = {CHECKED}, interval = \"300ms\", rise = 1, fall = 2 }}\nservers.s1 = \"{}\"\n{pool}\n",
        lab.vip4(),
        lab.servers[0].v4
    )
}

fn serve(lab: &Topology, index: usize, port: u16) -> TcpServer {
    TcpServer::start(&lab.servers[index].namespace, &format!("s{}", index + 1), port).unwrap()
}

fn standing(weir: &Weir<'_>, server: &str) -> String {
    let servers = json(weir, &["server", "list"]);
    let found = servers.as_array().unwrap().iter().find(|one| one["server"] == server).unwrap();
    format!("{} {}", found["takes_new_flows"], found["why"])
}

fn await_flows(weir: &Weir<'_>, server: &str, takes: bool) {
    wait_until("the checks to find out", SOON, || standing(weir, server).starts_with(&takes.to_string()))
        .unwrap_or_else(|error| panic!("{error}: {server} {}", standing(weir, server)));
}

#[test]
fn a_backup_serves_while_no_other_does_and_nobody_resets_and_is_counted() {
    let lab = Topology::builder(Shape::TwoArmed).servers(2).build().unwrap();
    let _servers = [serve(&lab, 0, PORT), serve(&lab, 1, PORT)];
    let (first, second) = (serve(&lab, 0, CHECKED), serve(&lab, 1, CHECKED));
    let backup = format!("servers.s2 = {{ address = \"{}\", backup = true }}", lab.servers[1].v4);
    let weir = Weir::start(lab.node(), &configuration(&lab, &backup)).unwrap();
    let to = SocketAddr::new(lab.vip4().into(), PORT);
    let greeted = || {
        let load = TcpLoad::start(&lab.client().namespace, to, 20, Duration::from_millis(50), Duration::from_secs(1)).unwrap();
        load.wait_opened().unwrap();
        [load.greeted_by("s1"), load.greeted_by("s2")]
    };
    await_flows(&weir, "echo/s2", false);
    assert_eq!(greeted(), [20, 0]);
    drop(first);
    await_flows(&weir, "echo/s2", true);
    assert_eq!(greeted(), [0, 20]);

    drop(second);
    await_flows(&weir, "echo/s2", false);
    let refused = lab.client().namespace.enter(|| TcpStream::connect_timeout(&to, Duration::from_secs(3)));
    assert_eq!(refused.map(drop).unwrap_err().kind(), io::ErrorKind::ConnectionRefused, "at once, by a reset");
    let metrics = done(&weir, &["metrics"]);
    assert!(metrics.lines().any(|line| line.contains("no-server") && !line.ends_with(" 0")), "{metrics}");
    let _first = serve(&lab, 0, CHECKED);
    await_flows(&weir, "echo/s1", true);
    assert_eq!(greeted(), [20, 0]);
}

#[test]
fn connections_of_a_server_that_goes_down_are_kept_or_closed_as_its_pool_says() {
    for (on_down, kept) in [("keep", true), ("close-sessions", false)] {
        let lab = Topology::builder(Shape::TwoArmed).servers(2).build().unwrap();
        let _servers = [serve(&lab, 0, PORT), serve(&lab, 1, PORT)];
        let (first, _second) = (serve(&lab, 0, CHECKED), serve(&lab, 1, CHECKED));
        let pool = format!("servers.s2 = \"{}\"\non_down = \"{on_down}\"", lab.servers[1].v4);
        let weir = Weir::start(lab.node(), &configuration(&lab, &pool)).unwrap();
        let to = SocketAddr::new(lab.vip4().into(), PORT);
        await_flows(&weir, "echo/s1", true);
        let load = TcpLoad::start(&lab.client().namespace, to, 60, Duration::from_millis(100), Duration::from_secs(8)).unwrap();
        load.wait_opened().unwrap();
        let of_first = load.greeted_by("s1");
        assert!((10..50).contains(&of_first), "{of_first}");
        drop(first);
        await_flows(&weir, "echo/s1", false);
        let report = load.report().unwrap();
        assert_eq!(report.broken.len(), if kept { 0 } else { of_first }, "{on_down}: {report:?}");
        if !kept {
            let servers = json(&weir, &["server", "list"]);
            let first = servers.as_array().unwrap().iter().find(|server| server["server"] == "echo/s1").unwrap();
            assert_eq!(first["flows"], 0, "what was reset is no live flow");
        }
    }
}
