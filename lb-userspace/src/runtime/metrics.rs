//! What is counted, in Prometheus's text format. Names follow its conventions: base units, `_total` for what only grows. Pure.
//!
//! Series are bounded by the configuration: services, servers, interfaces and planes, and the reasons and states that this build knows.

use std::{borrow::Cow, collections::BTreeMap, fmt, sync::atomic::AtomicU64, time::Duration};

use prometheus_client::{
    encoding::text::encode,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

use super::report::Report;
use crate::{
    admin::node::{Member, Plane, Service, Status},
    control::{
        event::What,
        standing::{ServerName, Why},
    },
    health::monitor::Tally,
    speaker::order::RouterView,
};

/// What happened since the daemon's start, counted.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Tallies {
    applied: u64,
    refused: u64,
    rolled_back: u64,
    /// Whether the last configuration that was to be in force was refused.
    is_last_refused: bool,
    /// When that was, in milliseconds of the Unix epoch.
    last_at_ms: u64,
    /// How often each server went up and down.
    changes: BTreeMap<ServerName, (u64, u64)>,
}

impl Tallies {
    /// What is in force already was to be in force.
    pub(super) fn count_same(&mut self, now_ms: u64) {
        (self.is_last_refused, self.last_at_ms) = (false, now_ms);
    }

    /// Counts what happened at `now_ms`, milliseconds of the Unix epoch.
    pub(super) fn count(&mut self, what: &What, now_ms: u64) {
        match what {
            What::Applied { .. } => (self.applied, self.is_last_refused, self.last_at_ms) = (self.applied + 1, false, now_ms),
            What::Refused { .. } => (self.refused, self.is_last_refused, self.last_at_ms) = (self.refused + 1, true, now_ms),
            What::RolledBack { .. } => self.rolled_back += 1,
            What::ServerUp { server, .. } => self.changes.entry(server.clone()).or_default().0 += 1,
            What::ServerDown { server, .. } => self.changes.entry(server.clone()).or_default().1 += 1,
            What::ServerSilent { .. }
            | What::CheckNotMade { .. }
            | What::CheckMade { .. }
            | What::NameChanged { .. }
            | What::NameFailed { .. }
            | What::Started { .. }
            | What::Missed { .. }
            | What::NotAwaited { .. }
            | What::Lost { .. }
            | What::Vrrp { .. }
            | What::VrrpConflict { .. }
            | What::VrrpNotify { .. }
            | What::VrrpSpeaker { .. }
            | What::Operated { .. } => {}
        }
    }
}

/// What the daemon alone knows.
#[derive(Clone, Debug, Default)]
pub(super) struct Facts {
    /// Its record.
    pub(super) report: Report,
    /// What happened.
    pub(super) tallies: Tallies,
    /// Whether the configuration in force waits to be confirmed.
    pub(super) is_unconfirmed: bool,
    /// Weights in force.
    pub(super) weights: BTreeMap<ServerName, u16>,
    /// What the checks of each server came to, and how long the last one took.
    pub(super) checks: BTreeMap<ServerName, (Tally, Option<Duration>)>,
}

type Labels = Vec<(&'static str, String)>;

/// The metrics of a node.
///
/// # Errors
/// Never: a text has room.
pub(super) fn text(status: &Status, facts: &Facts) -> Result<String, fmt::Error> {
    let mut page = Page { registry: Registry::with_prefix("weir") };
    daemon(&mut page, status, facts);
    servers(&mut page, status, facts);
    routers(&mut page, &facts.report.vrrp);
    for_services(&mut page, &status.services);
    interfaces(&mut page, status);
    planes(&mut page, status);
    let mut text = String::new();
    encode(&mut text, &page.registry)?;
    Ok(classic(&text))
}

struct Page {
    registry: Registry,
}

impl Page {
    /// Values with the same labels are added up.
    fn gauges(&mut self, name: &str, help: &str, values: impl IntoIterator<Item = (Labels, f64)>) {
        let family = Family::<Labels, Gauge<f64, AtomicU64>>::default();
        for (labels, value) in values {
            family.get_or_create(&escaped(labels)).inc_by(value);
        }
        self.registry.register(name, help, family);
    }

    fn gauge(&mut self, name: &str, help: &str, value: f64) {
        let gauge = Gauge::<f64, AtomicU64>::default();
        gauge.set(value);
        self.registry.register(name, help, gauge);
    }

    fn counters(&mut self, name: &str, help: &str, values: impl IntoIterator<Item = (Labels, u64)>) {
        let family = Family::<Labels, Counter>::default();
        for (labels, value) in values {
            family.get_or_create(&escaped(labels)).inc_by(value);
        }
        self.registry.register(name, help, family);
    }
}

/// The library writes values of labels as they are: what would end one is escaped here, as the format wants it.
fn escaped(labels: Labels) -> Labels {
    let escape = |value: String| value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    labels.into_iter().map(|(name, value)| (name, escape(value))).collect()
}

/// The library writes OpenMetrics, in which a counter's family lacks the `_total` of its samples. The older text format, which everybody reads, has it in
/// both, and no end mark.
fn classic(text: &str) -> String {
    let counters: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" counter")).collect();
    let mut classic = String::with_capacity(text.len());
    for line in text.lines().filter(|line| *line != "# EOF") {
        let mut words = line.splitn(4, ' ');
        let head = (words.next(), words.next(), words.next(), words.next());
        if let (Some("#"), Some(kind @ ("HELP" | "TYPE")), Some(name), Some(rest)) = head
            && counters.contains(&name)
        {
            classic += &format!("# {kind} {name}_total {rest}\n");
        } else {
            classic += line;
            classic.push('\n');
        }
    }
    classic
}

fn flag(is_so: bool) -> f64 {
    f64::from(u8::from(is_so))
}

fn daemon(page: &mut Page, status: &Status, facts: &Facts) {
    let Facts { report, tallies, .. } = facts;
    page.gauges("build_info", "The daemon's version", [(vec![("version", report.version.clone())], 1.0)]);
    page.gauge("start_time_seconds", "When the daemon started, in seconds of the Unix epoch", report.started_at as f64);
    page.gauge(
        "uptime_seconds",
        "How long the daemon has been running",
        (report.read_at_ms / 1000).saturating_sub(report.started_at) as f64,
    );
    page.gauge("ready", "Whether the data plane forwards and is as the configuration wants it", flag(status.ready));
    page.gauge("maps_memory_bytes", "Kernel memory that the maps take", status.memory_bytes as f64);
    page.gauge("config_generation", "The number of the configuration in force", report.generation as f64);
    page.gauge("config_errors", "Errors of the configuration file as it is", report.config_errors.len() as f64);
    page.gauge("config_last_apply_success", "Whether the last configuration was taken", flag(!tallies.is_last_refused));
    let last_s = if tallies.last_at_ms == 0 { report.config_taken_at as f64 } else { tallies.last_at_ms as f64 / 1000.0 };
    page.gauge("config_last_apply_timestamp_seconds", "When it was taken or refused, in seconds of the Unix epoch", last_s);
    page.gauge("config_unconfirmed", "Whether the configuration in force waits to be confirmed", flag(facts.is_unconfirmed));
    page.gauge("maps_inconsistent", "Whether the maps are not as they should be", flag(report.apply_error.is_some()));
    let applies = [("applied", tallies.applied), ("refused", tallies.refused), ("rolled-back", tallies.rolled_back)];
    page.counters(
        "config_applies",
        "Configurations by what became of them",
        applies.map(|(result, count)| (vec![("result", result.into())], count)),
    );
    let drops = |counts: &BTreeMap<Cow<'static, str>, u64>, label| -> Vec<(Labels, u64)> {
        counts.iter().map(|(word, count)| (vec![(label, word.clone().into_owned())], *count)).collect()
    };
    page.counters("unassigned_drops", "Packets dropped that belong to no service, by reason", drops(&status.drops, "reason"));
    page.counters("unassigned_events", "Other events that belong to no service", drops(&status.notes, "event"));
}

fn of_server(name: &ServerName) -> Labels {
    vec![("pool", name.pool.clone()), ("server", name.server.clone())]
}

fn with(mut labels: Labels, label: &'static str, value: &str) -> Labels {
    labels.push((label, value.to_owned()));
    labels
}

fn servers(page: &mut Page, status: &Status, facts: &Facts) {
    let standings = &facts.report.standings;
    let states = standings
        .iter()
        .flat_map(|(name, why)| Why::ALL.into_iter().map(move |one| (with(of_server(name), "state", one.word()), flag(one == *why))));
    page.gauges("server_state", "What a server is: 1 for the state that it has", states);
    let weights = facts.weights.iter().map(|(name, weight)| (of_server(name), f64::from(*weight)));
    page.gauges("server_weight", "The weight of a server that is in force; 0 takes no new flow", weights);
    let members = || {
        status.services.iter().flat_map(|service| {
            service.members.iter().map(move |member| {
                let labels: Labels = vec![("pool", service.pool.clone()), ("server", member.server.clone())];
                (labels, member)
            })
        })
    };
    page.gauges("server_slots", "Slots of all services that name a server", members().map(|(name, one)| (name, f64::from(one.slots))));
    page.gauges("server_flows", "Remembered flows of a server", members().map(|(name, one)| (name, f64::from(one.flows))));
    page.counters("server_packets", "Packets sent to a server", members().map(|(name, one)| (name, one.packets)));
    page.counters("server_bytes", "Their bytes", members().map(|(name, one)| (name, one.bytes)));
    let results = facts.checks.iter().flat_map(|(name, (tally, _))| {
        [("passed", tally.passed), ("failed", tally.failed), ("not-made", tally.not_made)]
            .map(|(result, count)| (with(of_server(name), "result", result), count))
    });
    page.counters("server_checks", "Checks of a server by their result", results);
    let took = facts.checks.iter().filter_map(|(name, (_, took))| Some((of_server(name), took.as_ref()?.as_secs_f64())));
    page.gauges("server_check_duration_seconds", "How long the last check of a server took", took);
    let changes = facts.tallies.changes.iter().filter(|(name, _)| standings.contains_key(name));
    let changes =
        changes.flat_map(|(name, (up, down))| [("up", *up), ("down", *down)].map(|(to, count)| (with(of_server(name), "to", to), count)));
    page.counters("server_transitions", "How often the checks found a server up or down that was not", changes);
}

fn routers(page: &mut Page, routers: &[RouterView]) {
    const STATES: [&str; 6] = ["stopped", "fault", "backup", "held-over", "active", "yielding"];
    let of = |one: &RouterView| -> Labels { vec![("router", one.router.clone())] };
    let states = routers.iter().flat_map(|one| STATES.map(|state| (with(of(one), "state", state), flag(one.state == state))));
    page.gauges("vrrp_state", "What a virtual router is: 1 for the state that it has", states);
    let priorities = routers.iter().map(|one| (of(one), f64::from(one.priority)));
    page.gauges("vrrp_priority", "The priority of a virtual router, as what is watched makes it", priorities);
    let adverts = routers.iter().flat_map(|one| {
        [("sent", one.sent), ("heard", one.heard)].map(|(direction, count)| (with(of(one), "direction", direction), count))
    });
    page.counters("vrrp_adverts", "Adverts of a virtual router", adverts);
    let refused = routers.iter().flat_map(|one| one.refused.iter().map(move |(why, count)| (with(of(one), "reason", why), *count)));
    page.counters("vrrp_adverts_refused", "Adverts that counted for nothing, by reason", refused);
    page.counters("vrrp_became_active", "How often a virtual router became active", routers.iter().map(|one| (of(one), one.became_active)));
}

fn of_service(service: &Service) -> Labels {
    vec![
        ("listener", service.listener.clone()),
        ("vip", service.vip.to_string()),
        ("port", service.port.to_string()),
        ("protocol", service.protocol.clone().into_owned()),
    ]
}

fn for_services(page: &mut Page, services: &[Service]) {
    let sum = |service: &Service, of: fn(&Member) -> u64| service.members.iter().map(of).sum::<u64>();
    let packets = services.iter().map(|one| (of_service(one), sum(one, |member| member.packets)));
    page.counters("service_packets", "Packets of a service sent to servers", packets);
    let bytes = services.iter().map(|one| (of_service(one), sum(one, |member| member.bytes)));
    page.counters("service_bytes", "Their bytes", bytes);
    let slots = services.iter().flat_map(|one| {
        let slots = [("clean", one.slots.clean), ("learning", one.slots.learning), ("settled", one.slots.settled)];
        slots.map(|(state, count)| (with(of_service(one), "state", state), f64::from(count)))
    });
    page.gauges("service_slots", "Slots of a service by their state", slots);
    let counts = |label: &'static str, of: fn(&Service) -> &BTreeMap<Cow<'static, str>, u64>| -> Vec<(Labels, u64)> {
        let each = |one| of(one).iter().map(move |(word, count)| (with(of_service(one), label, word), *count));
        services.iter().flat_map(each).collect()
    };
    page.counters("service_drops", "Packets of a service that were dropped, by reason", counts("reason", |one| &one.drops));
    page.counters("service_events", "Other events of a service", counts("event", |one| &one.notes));
}

fn interfaces(page: &mut Page, status: &Status) {
    let attached = status.interfaces.iter().map(|one| {
        let labels: Labels = vec![("interface", one.name.clone()), ("mode", one.mode.clone())];
        (labels, flag(one.attached))
    });
    page.gauges("interface_attached", "Whether packets are taken from an interface", attached);
}

fn planes(page: &mut Page, status: &Status) {
    let labels = |plane: &Plane| -> Labels {
        let (snat, server) = (plane.snat.to_string(), plane.server.to_string());
        vec![("snat", snat), ("address", server), ("port", plane.port.to_string()), ("protocol", plane.protocol.clone().into_owned())]
    };
    let each = |of: fn(&Plane) -> f64| -> Vec<(Labels, f64)> { status.nat.planes.iter().map(|plane| (labels(plane), of(plane))).collect() };
    page.gauges("nat_flows", "Translated flows from a SNAT address toward a server", each(|plane| f64::from(plane.flows)));
    page.gauges("nat_ports_given", "Ports that they have memory for", each(|plane| plane.given as f64));
    page.gauges("nat_ports", "Ports that they may have", each(|plane| plane.most as f64));
    page.gauge("nat_free_flows", "Translated flows that there is memory for beside", (status.nat.free_chunks * 256) as f64);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_is_called_alike_in_its_head_and_its_samples() {
        let text = "# HELP weir_a Help of a.\n# TYPE weir_a counter\nweir_a_total{x=\"# EOF\"} 1\n# HELP weir_ab B.\n# TYPE weir_ab gauge\nweir_ab 2\n# EOF\n";
        let expected = "# HELP weir_a_total Help of a.\n# TYPE weir_a_total counter\nweir_a_total{x=\"# EOF\"} 1\n# HELP weir_ab B.\n# TYPE weir_ab gauge\nweir_ab 2\n";
        assert_eq!(classic(text), expected);
    }

    #[test]
    fn values_of_the_same_labels_are_added_up() {
        let mut page = Page { registry: Registry::with_prefix("weir") };
        let labels = || vec![("server", "a\"b".to_owned())];
        page.counters("packets", "Packets", [(labels(), 3), (labels(), 4)]);
        let mut text = String::new();
        encode(&mut text, &page.registry).unwrap();
        assert!(classic(&text).contains("weir_packets_total{server=\"a\\\"b\"} 7\n"), "{text}");
    }

    #[test]
    fn refusals_and_changes_are_counted() {
        let mut tallies = Tallies::default();
        let server: ServerName = "web/a".parse().unwrap();
        tallies.count(&What::Applied { generation: 1, by: "file".into(), operations: 2 }, 5);
        tallies.count(&What::Refused { by: "file".into(), errors: Vec::new() }, 7);
        tallies.count(&What::ServerDown { server: server.clone(), cause: None, results: 3 }, 8);
        assert_eq!((tallies.applied, tallies.refused, tallies.is_last_refused, tallies.last_at_ms), (1, 1, true, 7));
        assert_eq!(tallies.changes[&server], (0, 1));
    }
}
