//! Checks decide who takes flows: a server that dies is out of rotation in time, and comes back by its ramp.

use std::time::{Duration, Instant};

use serde_json::Value;
use weir_tests::{
    lab::{Nginx, Shape, TcpServer, Topology, Weir, http_servers, wait_until},
    operator::done,
};

const SOON: Duration = Duration::from_secs(20);
const PORT: u16 = 7000;

fn member<'v>(status: &'v Value, address: &str) -> &'v Value {
    let members = status["services"][0]["members"].as_array();
    members.and_then(|all| all.iter().find(|one| one["address"] == address)).unwrap_or(&Value::Null)
}

fn configuration(lab: &Topology, pool: &str) -> String {
    let servers: String =
        lab.servers.iter().enumerate().map(|(index, host)| format!("servers.s{} = \"{}\"\n", index + 1, host.v4)).collect();
    format!(
        "\n[listener.echo]\nmode = \"l4\"\nbind = \"{}:{PORT}\"\npool = \"echo\"\nslots = 4096\n\n[pool.echo]\n{pool}\n{servers}",
        lab.vip4()
    )
}

#[test]
fn a_dead_server_is_out_of_rotation_in_time_and_comes_back() {
    let lab = Topology::builder(Shape::TwoArmed).servers(3).build().unwrap();
    let serve = |index: usize| TcpServer::start(&lab.servers[index].namespace, &format!("s{}", index + 1), PORT).unwrap();
    let _others = [serve(0), serve(1)];
    let third = serve(2);
    let text = configuration(&lab, "check = { tcp = true, interval = \"400ms\", rise = 2, fall = 3 }\nslow_start = \"4s\"");
    let weir = Weir::start(lab.node(), &text).unwrap();
    let address = lab.servers[2].v4.to_string();
    let slots = || member(&weir.status().unwrap(), &address)["slots"].as_u64().unwrap();
    let third_of_all = 4096 / 3;
    assert!((third_of_all - 1..=third_of_all + 1).contains(&slots()));
    // Every server has been checked.
    std::thread::sleep(Duration::from_millis(900));

    drop(third);
    let died = Instant::now();
    wait_until("s3 to be out of rotation", SOON, || slots() == 0)
        .unwrap_or_else(|t| panic!("{t} {} {:#}", weir.stderr(), weir.status().unwrap()));
    let took = died.elapsed();
    // The last reading of the status takes its time, too.
    assert!(took <= Duration::from_millis(3 * 400 + 50 + 100), "{took:?}");
    let status = weir.status().unwrap();
    assert_eq!(member(&status, &address)["state"], "down");
    assert!(weir.stderr().contains("the server is down"), "{}", weir.stderr());

    let _third = serve(2);
    wait_until("s3 to come back", SOON, || slots() > 0).unwrap();
    let (back, first) = (Instant::now(), slots());
    assert!(first < third_of_all / 2, "{first} slots at once");
    let mut readings = 0;
    while slots() + 1 < third_of_all {
        let (before, now, after) = (back.elapsed(), slots(), back.elapsed());
        // Of the full share against the other two.
        let weight = now as f64 / (4096.0 - now as f64) * 2.0;
        let ramp = |at: Duration| (at.as_secs_f64() / 4.0).min(1.0);
        // The daemon's steps may be late on a busy machine.
        assert!(weight >= ramp(before) - 0.2 && weight <= ramp(after + Duration::from_millis(300)) + 0.05, "{weight} at {before:?}");
        readings += 1;
        assert!(back.elapsed() < SOON);
    }
    assert!(readings > 6, "{readings} readings");
    let took = back.elapsed();
    assert!((Duration::from_millis(3200)..Duration::from_millis(6000)).contains(&took), "{took:?}");
}

#[test]
fn only_servers_that_answer_as_they_should_serve_and_a_restart_knows_them() {
    let lab = Topology::builder(Shape::TwoArmed).servers(3).build().unwrap();
    let _nginx: Vec<_> = lab
        .servers
        .iter()
        .enumerate()
        .map(|(index, host)| Nginx::start(&host.namespace, &format!("s{}", index + 1), PORT).unwrap())
        .collect();
    let check = "check = { http = \"GET /name\", interval = \"300ms\", expect = { status = [200, 404], body_regex = \"^s[123]|404\" } }";
    let mut weir = Weir::start(lab.node(), &configuration(&lab, check)).unwrap();
    let is_down = |weir: &Weir<'_>, server: &str| weir.status().unwrap()["checks"][format!("echo/{server}")]["is_up"] == false;
    let address = format!("http://{}:{PORT}/", lab.vip4());
    let served = || http_servers(&lab.client().namespace, address.clone(), 3).unwrap().into_keys().collect::<Vec<_>>();
    assert_eq!(served(), ["s1", "s2", "s3"]);

    let of_one = "check = { http = \"GET /\", interval = \"300ms\", expect = { status = 200, body = \"s1\" } }";
    weir.write_config(&configuration(&lab, of_one)).unwrap();
    wait_until("s2 and s3 to be down", SOON, || is_down(&weir, "s2") && is_down(&weir, "s3")).unwrap();
    assert_eq!(served(), ["s1"]);
    let told = String::from_utf8(weir.operate(&["status"]).unwrap().stdout).unwrap();
    assert!(told.contains("! server echo/s2 is down: L7 body does not contain \"s1\""), "{told}");

    weir.kill_9().unwrap();
    weir.run().unwrap();
    assert!(is_down(&weir, "s2") && is_down(&weir, "s3") && !is_down(&weir, "s1"));
    assert_eq!(served(), ["s1"], "no blackout, and nobody on probation");

    weir.write_config(&configuration(&lab, "check = { tcp = true, interval = \"300ms\" }")).unwrap();
    wait_until("all to be up", SOON, || !is_down(&weir, "s2") && !is_down(&weir, "s3")).unwrap();
    assert_eq!(served(), ["s1", "s2", "s3"], "{} {:#}", weir.stderr(), weir.status().unwrap());
}

#[test]
fn no_single_result_brings_down_who_was_known_to_be_up() {
    let lab = Topology::builder(Shape::TwoArmed).servers(2).build().unwrap();
    let _servers: Vec<_> = lab.servers.iter().map(|host| TcpServer::start(&host.namespace, "s", PORT).unwrap()).collect();
    let mut weir = Weir::start(lab.node(), &configuration(&lab, "check = { tcp = true, interval = \"200ms\" }")).unwrap();
    let entry = |weir: &Weir<'_>, server: &str| weir.status().unwrap()["checks"][format!("echo/{server}")].clone();
    let are_up = |weir: &Weir<'_>| ["s1", "s2"].iter().all(|server| entry(weir, server)["is_up"] == true);
    wait_until("both to be checked", SOON, || ["s1", "s2"].iter().all(|server| entry(&weir, server)["is_checked"] == true)).unwrap();

    // Nobody listens there.
    let closed = configuration(&lab, "check = { tcp = true, port = 1, interval = \"500ms\", fall = 200 }");
    weir.write_config(&closed).unwrap();
    wait_until("the other check to be made", SOON, || done(&weir, &["status", "echo/s1"]).contains("connection refused")).unwrap();
    assert!(are_up(&weir), "{}", weir.stderr());
    weir.kill_9().unwrap();
    weir.run().unwrap();
    wait_until("the check to be made again", SOON, || done(&weir, &["status", "echo/s1"]).contains("connection refused")).unwrap();
    assert!(are_up(&weir), "{}", weir.stderr());
}

#[test]
fn causes_are_told_of_who_was_dead_from_the_start_and_of_checks_that_cannot_be_made() {
    let lab = Topology::builder(Shape::TwoArmed).servers(2).build().unwrap();
    let _first = TcpServer::start(&lab.servers[0].namespace, "s1", PORT).unwrap();
    let check = "check = { tcp = true, interval = \"200ms\" }";
    let both = configuration(&lab, check);
    let second = format!("servers.s2 = \"{}\"\n", lab.servers[1].v4);
    let weir = Weir::start(lab.node(), &both.replace(&second, "")).unwrap();
    weir.write_config(&both).unwrap();
    let problems = || weir.status().unwrap()["problems"].to_string();
    wait_until("the dead one to be told", SOON, || problems().contains("server echo/s2 is down: L4 connection refused"))
        .unwrap_or_else(|error| panic!("{error} {}", problems()));
    let detail = String::from_utf8(weir.operate(&["status", "echo/s2"]).unwrap().stdout).unwrap();
    assert!(detail.contains("connection refused") && !detail.contains("has not been checked"), "{detail}");
    assert!(done(&weir, &["events"]).contains("echo/s2 is down after 1 result: L4 connection refused"));
    assert!(weir.stderr().contains("the server is down at its first check"), "{}", weir.stderr());

    weir.write_config(&both.replace(check, "check = { command = [\"/nowhere/check\"], interval = \"200ms\" }")).unwrap();
    let told = "checks of echo/s1, echo/s2 cannot be made: failed to start /nowhere/check: no such file or directory";
    wait_until("it to be told", SOON, || problems().contains(told)).unwrap_or_else(|error| panic!("{error} {}", problems()));
    assert!(done(&weir, &["events"]).contains("checks of echo/s1 cannot be made, it stays what it is: failed to start"));
    weir.write_config(&both).unwrap();
    wait_until("it to be told no more", SOON, || !problems().contains("cannot be made")).unwrap();
}

#[test]
fn a_verdict_is_that_of_an_address_and_a_port_whatever_they_are_called() {
    let lab = Topology::builder(Shape::TwoArmed).servers(2).build().unwrap();
    let serve = |index: usize| TcpServer::start(&lab.servers[index].namespace, &format!("s{}", index + 1), PORT).unwrap();
    let (_first, second) = (serve(0), serve(1));
    let servers = |port: u16, names: [&str; 2]| {
        let line = |(name, host): (&str, &weir_tests::lab::Host)| format!("servers.{name} = \"{}:{port}\"\n", host.v4);
        let lines: String = names.into_iter().zip(&lab.servers).map(line).collect();
        let pool = "[pool.echo]\ncheck = { tcp = true, interval = \"20s\", interval_unsure = \"20s\", interval_down = \"20s\", rise = 3 }";
        format!("\n[listener.echo]\nmode = \"l4\"\nbind = \"{}:{PORT}\"\npool = \"echo\"\nslots = 4096\n\n{pool}\n{lines}", lab.vip4())
    };
    let weir = Weir::start(lab.node(), &servers(PORT, ["a", "b"])).unwrap();
    let of = |host: usize| {
        let (status, address) = (weir.status().unwrap(), lab.servers[host].v4.to_string());
        let is_it = |one: &&Value| one["address"] == address.as_str() && one["port"] == PORT;
        status["services"][0]["members"].as_array().unwrap().iter().find(is_it).cloned().unwrap_or_default()
    };
    let serves = |host: usize| of(host)["slots"].as_u64().is_some_and(|slots| slots > 0);
    let health = || weir.status().unwrap()["checks"].clone();
    let all_checked = || health().as_object().is_some_and(|all| all.len() == 2 && all.values().all(|one| one["is_checked"] == true));
    wait_until("the first results", SOON, all_checked).unwrap();

    // Nobody answers there: the first result says so. And what it says is not known of the port that all return to.
    weir.write_config(&servers(PORT + 1, ["a", "b"])).unwrap();
    let is_none_up = || health().as_object().is_some_and(|all| all.values().all(|one| one["is_up"] == false));
    wait_until("both to be down", SOON, is_none_up).unwrap();
    weir.write_config(&servers(PORT, ["a", "b"])).unwrap();
    let back = Instant::now();
    wait_until("both to be up", SOON, || serves(0) && serves(1)).unwrap();
    assert!(back.elapsed() < Duration::from_secs(15), "{:?}: they were not asked thrice", back.elapsed());
    wait_until("the first results", SOON, all_checked).unwrap();

    // A server that is down stays so under the name of the other one.
    drop(second);
    weir.write_config(&servers(PORT, ["a", "c"])).unwrap();
    weir.write_config(&servers(PORT, ["a", "b"]).replace("20s", "200ms")).unwrap();
    wait_until("the second to be down", SOON, || !serves(1)).unwrap();
    weir.write_config(&servers(PORT, ["b", "a"])).unwrap();
    wait_until("the names to be swapped", SOON, || {
        let swapped = health();
        assert!(!serves(1), "the dead one takes flows: {swapped:#}");
        swapped["echo/a"]["is_up"] == false && swapped["echo/b"]["is_up"] == true
    })
    .unwrap();
    assert!(serves(0) && !serves(1));
}
