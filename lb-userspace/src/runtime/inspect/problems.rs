//! What is wrong with a node, in words, the gravest first. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use super::status::troubles;
use crate::{
    admin::node::{DETACHED, Interface, Member, Nat, Service},
    control::standing::{ServerName, Why},
    health::book::Entry,
    runtime::report::{Report, Silence},
};

/// How bad something is: the first is the worst.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Gravity {
    /// A service has no server.
    NoService,
    /// The node does not do what it should.
    Node,
    /// A pool uses servers that are down.
    Panic,
    /// A server is down.
    Down,
    /// It is not known whether servers are well, or they are hardly reached.
    Unsure,
    /// Everything else.
    Other,
}

/// What the caller knows of the daemon.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Process {
    /// It runs, and has left the record.
    Runs,
    /// It runs, and the record is none of its own.
    RunsUnrecorded,
    /// There is none.
    Gone,
}

/// Every problem.
pub(super) fn problems(report: &Report, interfaces: &[Interface], services: &[Service], nat: &Nat, process: Process) -> Vec<String> {
    let mut found = Vec::new();
    of_services(services, nat, &mut found);
    of_node(report, interfaces, process, &mut found);
    of_checks(report, &mut found);
    let mut add = |gravity, line: String| found.push((gravity, line));
    report.silences.iter().for_each(|(server, silence)| add(Gravity::Unsure, silent(server, *silence)));
    let forgotten = forgotten(services);
    let of_servers = report.unresolved.iter().chain(&report.unanswered).filter(|(server, _)| !forgotten.contains(server));
    of_servers.for_each(|(server, why)| add(Gravity::Unsure, format!("server {server}: {why}")));
    let rest = report.forgone.iter().chain(&report.unwritten).chain(&report.unkept).chain(&report.address_errors).chain(&report.held_back);
    let rest = rest
        .chain(&report.narrow_ways)
        .chain(&report.ways_errors)
        .chain(&report.name_troubles)
        .chain(&report.file_troubles)
        .chain(&report.vrrp_troubles);
    rest.for_each(|line| add(Gravity::Other, line.clone()));
    found.sort_by_key(|(gravity, _)| *gravity);
    found.into_iter().map(|(_, line)| line).collect()
}

type Found = Vec<(Gravity, String)>;

fn of_services(services: &[Service], nat: &Nat, found: &mut Found) {
    for service in services.iter().filter(|service| !service.leaving) {
        let what = if service.is_deserted() {
            Some("no server takes new flows")
        } else if service.is_unreachable() {
            Some("no server can be reached")
        } else {
            None
        };
        let line = |what| (Gravity::NoService, format!("service {} port {} {}: {what}", service.vip, service.port, service.protocol));
        found.extend(what.map(line));
        // What was counted is past; of ports it is known whether they are taken still.
        let are_ports_taken = || nat.planes.iter().any(|plane| plane.protocol == service.protocol && plane.is_nearly_full());
        for (reason, count) in &service.drops {
            let (is_told, when) = match &**reason {
                "nat-ports-full" => (are_ports_taken(), ""),
                "nat-table-full" | "flow-table-full" => (true, " so far"),
                _ => (false, ""),
            };
            if is_told {
                let line =
                    format!("service {} port {} {}: {count} packets dropped{when}, {reason}", service.vip, service.port, service.protocol);
                found.push((Gravity::Other, line));
            }
        }
    }
}

fn of_node(report: &Report, interfaces: &[Interface], process: Process, found: &mut Found) {
    let mut add = |line: String| found.push((Gravity::Node, line));
    match process {
        Process::Runs => {}
        Process::RunsUnrecorded => add("the daemon that runs has left no record: it starts, or node.state_dir cannot be written".into()),
        Process::Gone => add("no daemon runs: packets are forwarded, but nothing follows changes of configuration or network".into()),
    }
    report.config_errors.iter().for_each(|error| add(format!("configuration not taken: {error}")));
    report.apply_error.iter().for_each(|error| add(format!("maps not as they should be: {error}")));
    let troubles = troubles(report, process != Process::Gone);
    for one in interfaces.iter().filter(|one| !one.attached && !troubles.contains_key(&one.name)) {
        add(if one.mode == DETACHED {
            format!("interface {} is not attached: no packet is taken from it", one.name)
        } else {
            format!("interface {} is gone", one.name)
        });
    }
    troubles.iter().for_each(|(name, trouble)| add(format!("interface {name} {trouble}")));
}

fn of_checks(report: &Report, found: &mut Found) {
    let mut panicking: BTreeMap<&str, usize> = BTreeMap::new();
    for (name, _) in report.standings.iter().filter(|(_, why)| **why == Why::Panic) {
        *panicking.entry(&name.pool).or_default() += 1;
    }
    let panic = |(pool, count): (&str, usize)| {
        (Gravity::Panic, format!("pool {pool} uses servers that are down, {count} of them: too few are up (panic_threshold)"))
    };
    found.extend(panicking.into_iter().map(panic));
    let down = report.health.iter().filter(|(_, entry)| !entry.is_up);
    found.extend(down.map(|(server, entry)| (Gravity::Down, unhealthy(server, entry))));
    let mut unchecked: BTreeMap<(&str, &str), Vec<String>> = BTreeMap::new();
    for (name, entry) in &report.health {
        if let Some(why) = &entry.not_made {
            unchecked.entry((&name.pool, why)).or_default().push(name.to_string());
        }
    }
    let line = |((_, why), servers): ((&str, &str), Vec<String>)| {
        let whom = match &servers[..] {
            [first, second, rest @ ..] if !rest.is_empty() => format!("{first}, {second} and {} more", rest.len()),
            few => few.join(", "),
        };
        (Gravity::Unsure, format!("checks of {whom} cannot be made: {why}; until they are, nobody goes up or down"))
    };
    found.extend(unchecked.into_iter().map(line));
}

fn unhealthy(server: &ServerName, entry: &Entry) -> String {
    match &entry.cause {
        Some(cause) => format!("server {server} is down: {cause}"),
        None => format!("server {server} is taken for down until it has been checked"),
    }
}

fn silent(server: &ServerName, Silence { unanswered, within_s }: Silence) -> String {
    format!("server {server} has answered none of {unanswered} SYNs within the last {within_s} s")
}

/// Servers that have been replaced, and have no flow left: nothing is wrong if they are not reached.
fn forgotten(services: &[Service]) -> BTreeSet<IpAddr> {
    let members = || services.iter().flat_map(|service| &service.members);
    let is_over = |member: &&Member| member.state == "retired" && member.flows == 0;
    let used: BTreeSet<IpAddr> = members().filter(|member| !is_over(member)).map(|member| member.address).collect();
    members().filter(is_over).map(|member| member.address).filter(|address| !used.contains(address)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::node::Slots;

    fn member(last: u8, state: &'static str, flows: u32) -> Member {
        Member {
            id: u16::from(last),
            server: String::new(),
            address: [10, 0, 0, last].into(),
            port: 0,
            forward: "dsr".into(),
            weight: 1,
            state: state.into(),
            why: None,
            next_hop: "unresolved".into(),
            slots: 0,
            packets: 0,
            bytes: 0,
            packets_per_second: None,
            flows,
        }
    }

    fn service(members: Vec<Member>) -> Service {
        let slots = Slots { total: 8, ..Slots::default() };
        let (listener, pool, vip) = ("web".into(), "web".into(), [192, 0, 2, 1].into());
        Service {
            id: 1,
            listener,
            pool,
            vip,
            port: 80,
            leaving: false,
            protocol: "tcp".into(),
            slots,
            members,
            drops: [].into(),
            notes: [].into(),
        }
    }

    fn entry(is_up: bool, cause: Option<&str>, not_made: Option<&str>) -> Entry {
        Entry { is_up, since_ms: 1, cause: cause.map(Into::into), is_checked: true, seat: None, not_made: not_made.map(Into::into) }
    }

    fn name(server: &str) -> ServerName {
        ServerName::new("web", server)
    }

    fn lines(report: &Report, services: &[Service]) -> Vec<String> {
        problems(report, &[], services, &Nat::default(), Process::Runs)
    }

    #[test]
    fn the_gravest_comes_first() {
        let report = Report {
            name_troubles: vec!["a name".into()],
            silences: [(name("d"), Silence { unanswered: 93, within_s: 7 })].into(),
            health: [
                (name("a"), entry(false, Some("L4 refused"), None)),
                (name("b"), entry(true, None, Some("no program"))),
                (name("c"), Entry { is_checked: false, ..entry(false, None, None) }),
            ]
            .into(),
            standings: [(name("a"), Why::Panic), (name("c"), Why::Panic)].into(),
            config_errors: vec!["an error".into()],
            ..Report::default()
        };
        assert_eq!(
            lines(&report, &[service(vec![member(1, "down", 0)])]),
            [
                "service 192.0.2.1 port 80 tcp: no server takes new flows",
                "configuration not taken: an error",
                "pool web uses servers that are down, 2 of them: too few are up (panic_threshold)",
                "server web/a is down: L4 refused",
                "server web/c is taken for down until it has been checked",
                "checks of web/b cannot be made: no program; until they are, nobody goes up or down",
                "server web/d has answered none of 93 SYNs within the last 7 s",
                "a name",
            ]
        );
    }

    #[test]
    fn checks_that_cannot_be_made_for_one_reason_are_one_problem() {
        let health = ["a", "b", "c", "d"].map(|server| (name(server), entry(true, None, Some("no program"))));
        let found = lines(&Report { health: health.into(), ..Report::default() }, &[]);
        assert_eq!(found, ["checks of web/a, web/b and 2 more cannot be made: no program; until they are, nobody goes up or down"]);
    }

    #[test]
    fn who_is_replaced_and_has_no_flow_is_not_spoken_of() {
        let (members, address) =
            (vec![member(1, "retired", 0), member(2, "retired", 3), member(3, "ready", 0)], |last| [10, 0, 0, last].into());
        let unresolved = [1, 2, 3, 4].map(|last| (address(last), "no route".to_owned())).into();
        let report = Report { unresolved, ..Report::default() };
        let mut services = [service(members)];
        let of_servers =
            |services: &[Service]| lines(&report, services).into_iter().filter(|line| line.contains("no route")).collect::<Vec<_>>();
        let all = [1, 2, 3, 4].map(|last| format!("server 10.0.0.{last}: no route"));
        assert_eq!(of_servers(&services), all[1..]);
        services[0].members.push(member(1, "ready", 0));
        assert_eq!(of_servers(&services), all);
    }
}
