//! Every way of forwarding, end to end, in every shape of network: requests are shared by the servers, and bytes arrive as they were sent.

use std::time::Duration;

use weir_tests::{
    lab::{Shape, Topology, UdpLoad, Weir, http_servers, tcp_bulk},
    modes::{self, ECHO, Mode, WEB},
    short_or_long,
};

/// MiB each way, and how long they may take. The slowest of us shares two cores with clients, servers and bridges.
fn bulk(shape: Shape) -> (u64, Duration) {
    const SHORT: Duration = Duration::from_secs(20);
    let limit = short_or_long(SHORT, Duration::from_secs(120));
    let short = if shape == Shape::TwoArmed { 64 } else { 16 };
    (if limit == SHORT { short } else { 1024 }, limit)
}

/// Bytes of the answer to an HTTP request that asks for `megabytes` MiB of the big file.
fn download(lab: &Topology, url: &str, megabytes: u64, limit: Duration) -> anyhow::Result<u64> {
    let (range, limit) = (format!("0-{}", (megabytes << 20) - 1), limit.as_secs().to_string());
    let arguments = ["--silent", "--show-error", "--fail", "--globoff", "--noproxy", "*", "--max-time", &limit];
    let output = ["--range", &range, "--output", "/dev/null", "--write-out", "%{size_download}", url];
    Ok(lab.client().namespace.run("curl", &[&arguments[..], &output].concat())?.parse()?)
}

fn every_mode_carries_everything(shape: Shape, modes: &[Mode]) {
    let lab = Topology::builder(shape).build().unwrap();
    let _servers = modes::serve(&lab, modes).unwrap();
    let _weir = Weir::start(lab.node(), &modes::configuration(&lab, modes)).unwrap();
    let client = &lab.client().namespace;
    let (megabytes, limit) = bulk(shape);
    for (index, mode) in modes.iter().enumerate() {
        let (web, echo) = (modes::vip(&lab, modes, index, WEB), modes::vip(&lab, modes, index, ECHO));
        let tally = http_servers(client, format!("http://{web}/"), 2).unwrap_or_else(|error| panic!("{mode}: {error:#}"));
        assert_eq!(tally.keys().collect::<Vec<_>>(), ["s1", "s2"], "{mode}");

        let udp = UdpLoad::start(client, echo, 40, Duration::from_millis(20), Duration::from_millis(200)).unwrap().report().unwrap();
        assert_eq!((udp.lost, udp.changed, udp.moved.len()), (0, 0, 0), "{mode}: {udp:?}");
        assert_eq!(udp.by_server.keys().collect::<Vec<_>>(), ["s1", "s2"], "{mode}");

        let carried = tcp_bulk(client, echo, megabytes, limit).unwrap_or_else(|error| panic!("{mode}: {error:#}"));
        println!("{shape:?} {mode}: {megabytes} MiB each way in {} ms", carried.time.as_millis());
        let came = download(&lab, &format!("http://{web}/big"), megabytes, limit).unwrap_or_else(|error| panic!("{mode}: {error:#}"));
        assert_eq!(came, megabytes << 20, "{mode}");
    }
}

#[test]
fn nat_and_dsr_carry_everything_on_one_network() {
    every_mode_carries_everything(Shape::OneArmed, Mode::PLAIN);
}

#[test]
fn nat_and_dsr_carry_everything_between_two_networks() {
    every_mode_carries_everything(Shape::TwoArmed, Mode::PLAIN);
}

#[test]
fn nat_and_dsr_carry_everything_behind_a_router() {
    every_mode_carries_everything(Shape::Routed, Mode::PLAIN);
}

#[test]
fn ipip_carries_everything_on_one_network() {
    every_mode_carries_everything(Shape::OneArmed, Mode::IPIP);
}

#[test]
fn ipip_carries_everything_between_two_networks() {
    every_mode_carries_everything(Shape::TwoArmed, Mode::IPIP);
}

#[test]
fn ipip_carries_everything_behind_a_router() {
    every_mode_carries_everything(Shape::Routed, Mode::IPIP);
}

#[test]
fn gue_carries_everything_on_one_network() {
    every_mode_carries_everything(Shape::OneArmed, Mode::GUE);
}

#[test]
fn gue_carries_everything_between_two_networks() {
    every_mode_carries_everything(Shape::TwoArmed, Mode::GUE);
}

#[test]
fn gue_carries_everything_behind_a_router() {
    every_mode_carries_everything(Shape::Routed, Mode::GUE);
}
