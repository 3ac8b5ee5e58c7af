//! No flow breaks that a full connection table would keep: hours of flows, changes and restarts in virtual time.
//!
//! `WEIR_LONG=1` simulates twelve hours in place of two.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use lb_common::{maps::Service, reason::Note};
use weir_tests::{
    sim::{Cause, Micros, OnDown, PoolSpec, Report, SECOND, Scenario, Simulation},
    tables::ServiceSpec,
};

const HOUR: Micros = 3600 * SECOND;

fn duration() -> Micros {
    if std::env::var_os("WEIR_LONG").is_some() { 12 * HOUR } else { 2 * HOUR }
}

fn scenario(seed: u64, flow_lines: u32, ripen_every: Micros) -> Scenario {
    let v4 = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
    let v6 = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1));
    let tcp = ServiceSpec::tcp(v4, 80);
    let pool = |service, on_down, flows| PoolSpec { service, on_down, flows };
    Scenario {
        seed,
        flow_lines,
        ripen_every,
        pools: vec![
            pool(ServiceSpec { slots: 2048, ..tcp }, OnDown::Keep, 3000),
            pool(ServiceSpec { vip: v6, idle_s: 900, slots: 1024, ..tcp }, OnDown::Keep, 2000),
            pool(ServiceSpec { port: 81, idle_s: 120, slots: 512, flags: Service::BY_SOURCE, ..tcp }, OnDown::Keep, 1000),
            pool(ServiceSpec { port: 82, idle_s: 60, ..tcp }, OnDown::CloseSessions, 500),
            pool(ServiceSpec { slots: 512, ..ServiceSpec::udp(v4, 53) }, OnDown::Keep, 500),
            pool(ServiceSpec { idle_s: 120, ..ServiceSpec::udp(v6, 443) }, OnDown::Keep, 1000),
        ],
        change_every: 90 * SECOND,
        restart_every: 1800 * SECOND,
    }
}

fn tell(name: &str, simulation: &Simulation) -> Report {
    let report = simulation.report();
    println!(
        "{name}: {} packets, {} flows ({} opened in unclean slots), {} changes, {} restarts, {} slots cleaned, {} members freed, \
         {} inserted, {} without room, {} refused; broken: {} without room, {} displaced, {} without cause",
        report.packets,
        report.flows,
        report.opened_unclean,
        report.changes,
        report.restarts,
        report.cleaned,
        report.freed,
        simulation.tables().noted_in_all(Note::FlowInserted),
        simulation.tables().noted_in_all(Note::FlowNoRoom),
        report.refused,
        report.broken_by(Cause::NoRoom),
        report.broken_by(Cause::Displaced),
        report.broken_by(Cause::Unknown),
    );
    report
}

fn with_ample_room(seed: u64, ripen_every: Micros) {
    let mut simulation = Simulation::new(&scenario(seed, 1 << 14, ripen_every));
    simulation.run(duration());
    let report = tell(&format!("seed {seed}"), &simulation);
    assert_eq!(simulation.tables().noted_in_all(Note::FlowNoRoom), 0);
    for broken in report.breaks.iter().take(20) {
        println!("{broken}");
    }
    assert_eq!(report.breaks.len(), 0);
    assert_eq!(report.misled, 0);
    simulation.rest(3 * 900 * SECOND);
    assert_eq!(simulation.unclean_slots(), 0);
}

#[test]
fn no_flow_breaks_that_a_full_table_would_keep() {
    with_ample_room(1, SECOND);
}

#[test]
fn no_flow_breaks_when_slots_ripen_late() {
    with_ample_room(2, 10 * SECOND);
}

#[test]
fn in_a_small_cache_every_break_is_explained() {
    let mut simulation = Simulation::new(&scenario(3, 1 << 8, SECOND));
    simulation.run(duration());
    let report = tell("small", &simulation);
    assert!(simulation.tables().noted_in_all(Note::FlowNoRoom) > 0, "the cache was not small");
    let unknown = report.breaks.iter().find(|b| b.cause == Cause::Unknown);
    assert!(unknown.is_none(), "{}", unknown.map_or_else(String::new, ToString::to_string));
    assert_eq!(report.misled, 0);
}
