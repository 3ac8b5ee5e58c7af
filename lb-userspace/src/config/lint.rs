//! What a file may say and its author hardly meant. Called for a file without errors.

use std::{collections::BTreeSet, net::IpAddr};

use ipnet::IpNet;
use toml::Spanned;

use super::{
    ConfigText, Document,
    listener::ListenerSection,
    model::{Probe, ServerState, Step, UdpFlows},
    pool::{BalanceWord, ForwardWord, PoolSection},
    relations,
    report::Report,
};

/// With fewer slots a server, its share of them is more than a percent off its weight's.
const SLOTS_PER_SERVER: usize = 100;

pub(super) fn advise(document: &Document, text: &ConfigText, report: &mut Report) {
    if !document.node.has_own_seed {
        let hint = "set `slot_seed` to a string of your own, the same on all nodes of one cluster";
        report.advise(document.node.header.clone(), "`slot_seed` is the default: clients can foretell which server they get", hint);
    }
    if document.listeners.is_empty() {
        report.warn(0..0, "there is no listener", Some("[listener.NAME] takes packets to a [pool.NAME]"));
    }
    advise_room(document, report);
    super::vrrp_relations::advise(document, text, report);
    let used: BTreeSet<&str> = document.listeners.values().filter_map(|l| l.pool.as_ref()).map(|pool| pool.get_ref().as_str()).collect();
    for (name, pool) in &document.pools {
        if !used.contains(name.as_str()) {
            report.warn(pool.header.clone(), format!("no listener uses pool `{name}`"), None);
        }
        advise_servers(name, pool, report);
        advise_check(pool, text, report);
    }
    for (name, listener) in &document.listeners {
        for bind in listener.binds.iter().filter(|bind| is_link_local(bind.get_ref().address)) {
            let message = format!("{} is link-local: no router passes its packets on", bind.get_ref().address);
            report.warn(
                bind.span(),
                message,
                Some("only clients on the interface's own network reach it, and IPv6 ones name the interface"),
            );
        }
        advise_sources(listener, report);
        if let Some(pool) = listener.pool.as_ref().and_then(|pool| document.pools.get(pool.get_ref())) {
            advise_pair(name, listener, pool, report);
        }
    }
}

fn advise_check(pool: &PoolSection, text: &ConfigText, report: &mut Report) {
    let Ok(model) = &pool.model else { return };
    let Some(check) = &model.check else {
        if !model.slow_start.is_zero() || model.panic_threshold_pct > 0 {
            let message = "`slow_start` and `panic_threshold` have no effect: no check finds servers down";
            report.warn(pool.header.clone(), message, Some("add check.tcp = true"));
        }
        return;
    };
    if let Probe::Http(http) = &check.probe
        && http.path == "/"
    {
        let hint = "a path made for the purpose tells whether the server can do its work: \"GET /healthz\"";
        report.advise(pool.header.clone(), "the check asks for `/`", hint);
    }
    if let Probe::Udp { expect: None, .. } = &check.probe {
        let message = "the UDP check has no `expect`: silence counts as health, and only a refusal is bad, which hosts seldom send and firewalls drop";
        report.advise(pool.header.clone(), message, "set `expect` beside `send` to what an answer contains");
    }
    if let Some(what) = secret_of(&check.probe).filter(|_| text.is_exposed_at(pool.header.start)) {
        let hint = "whoever may read the file may read it: give the check a user who may do nothing else, and the file mode 0600";
        report.advise(pool.header.clone(), format!("a password stands in the file: the check's {what}"), hint);
    }
    if check.pace.timeout > check.pace.interval {
        let message = "a check may take longer than the interval: the next one waits for it";
        report.warn(pool.header.clone(), message, Some("lower check.timeout, or raise check.interval"));
    }
}

/// Header fields that carry a secret, in lower case as they are kept.
const SECRET_FIELDS: [&str; 5] = ["authorization", "proxy-authorization", "cookie", "x-api-key", "x-auth-token"];
/// Beginnings of lines that carry one in the protocols of Redis, FTP, POP and IMAP, and memcached.
const SECRET_WORDS: [&[u8]; 3] = [b"auth ", b"pass ", b"login "];

/// What of a probe is a secret, as its name says.
fn secret_of(probe: &Probe) -> Option<String> {
    let is_secret_line = |line: &[u8]| SECRET_WORDS.iter().any(|word| line.to_ascii_lowercase().starts_with(word));
    match probe {
        Probe::Http(http) => {
            let field = http.headers.keys().find(|name| SECRET_FIELDS.contains(&name.as_str()));
            field.map(|name| format!("header field `{name}`"))
        }
        Probe::Tcp(steps) => {
            let sent = |step: &Step| matches!(step, Step::Send(bytes) if bytes.split(|byte| *byte == b'\n').any(is_secret_line));
            steps.iter().any(sent).then(|| "words that are sent".to_owned())
        }
        Probe::Command { argv } => argv.iter().any(|word| word.to_lowercase().contains("password=")).then(|| "command".to_owned()),
        Probe::Tls | Probe::Grpc { .. } | Probe::Mysql { .. } | Probe::Pgsql { .. } | Probe::Udp { .. } => None,
    }
}

/// The most that these limits can be.
const MOST_ROOM: u32 = 65_000;

/// A replaced server keeps its place for an idle timeout: replacing all takes room for all of them twice.
fn advise_room(document: &Document, report: &mut Report) {
    let Ok(limits) = document.limits.model else { return };
    let tables = [
        ("members", relations::member_count(document), limits.members, &document.limits.members),
        ("nat_planes", relations::plane_count(document), limits.nat_planes, &document.limits.nat_planes),
    ];
    let could_be_raised = |limit: u32| limit < MOST_ROOM;
    for (key, count, limit, span) in
        tables.into_iter().filter(|(_, count, limit, _)| count * 2 > *limit as usize && could_be_raised(*limit))
    {
        let message = format!(
            "limits.{key} is {limit}, and {count} are in use: only {} more can be while servers are replaced",
            limit as usize - count
        );
        let hint = format!(
            "raise it in [limits] to {} to replace all servers at once; a replaced one keeps its place for an idle timeout",
            (count * 2).min(MOST_ROOM as usize)
        );
        report.advise(span.clone().unwrap_or(document.node.header.clone()), message, &hint);
    }
}

/// RFC 3927, RFC 4291 s2.5.6.
const fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}

fn advise_servers(name: &str, pool: &PoolSection, report: &mut Report) {
    let named = || pool.names.values().map(|section| &section.named);
    let named = || named().map(|named| (named.weight.unwrap_or(1), named.backup, named.state));
    let addressed = || pool.servers.values().map(|section| (section.server.weight, section.server.backup, section.server.state));
    let servers = || addressed().chain(named());
    if servers().all(|(_, is_backup, _)| is_backup) {
        report.warn(pool.header.clone(), format!("every server of pool `{name}` is a backup"), Some("leave `backup` out for some"));
    }
    if servers().all(|(weight, ..)| weight == 0) {
        report.warn(pool.header.clone(), format!("every server of pool `{name}` has weight 0: new flows are refused"), None);
    } else if !servers().any(|(weight, _, state)| state == ServerState::Ready && weight > 0) {
        report.warn(pool.header.clone(), format!("no server of pool `{name}` is ready: new flows are refused"), None);
    }
}

fn advise_pair(name: &str, listener: &ListenerSection, pool: &PoolSection, report: &mut Report) {
    if let Some((BalanceWord::NotForL4(word), span)) = pool.balance.as_ref().map(|balance| (*balance.get_ref(), balance.span())) {
        let message = format!("`{word}` is not for packets: l4 listener `{name}` balances by the hash of source address and port");
        report.warn(span, message, Some("write \"round-robin\", or \"source\" to keep a client on one server"));
    }
    let Ok(model) = &listener.model else { return };
    if pool.forward == Some(ForwardWord::Nat) && model.udp == UdpFlows::Stateless {
        report.warn(listener.header.clone(), "udp = \"stateless\" has no effect: nat remembers every flow", None);
    }
    advise_slots(listener, model.slots, pool, report);
}

fn advise_slots(listener: &ListenerSection, slots: u32, pool: &PoolSection, report: &mut Report) {
    let span = listener.slots.as_ref().map_or(listener.header.clone(), Spanned::span);
    let weights = || pool.servers.values().map(|section| u64::from(section.server.weight)).filter(|weight| *weight > 0);
    let (count, total) = (weights().count(), weights().sum::<u64>());
    if let Some(least) = weights().min().filter(|least| least * u64::from(slots) < total) {
        let message = format!("weight {least} of {total} is less than one of {slots} slots");
        report.warn(span, message, Some("such a server gets more than its share, or nothing: raise `slots`, or bring the weights closer"));
    } else if count * SLOTS_PER_SERVER > slots as usize {
        let message =
            format!("{slots} slots are fewer than {SLOTS_PER_SERVER} for each of {count} servers: shares differ from the weights");
        let enough = (count * SLOTS_PER_SERVER).next_power_of_two();
        let hint = if enough <= 65_536 { format!("set `slots` to {enough}") } else { "65536 is the most".to_owned() };
        report.warn(span, message, Some(&hint));
    }
}

/// Of the networks that the listener names itself.
fn advise_sources(listener: &ListenerSection, report: &mut Report) {
    let own: BTreeSet<usize> = listener.own_sources.iter().map(|network| network.span().start).collect();
    let allowed: BTreeSet<IpNet> = listener.allow.iter().map(|network| *network.get_ref()).collect();
    for network in listener.deny.iter().filter(|network| own.contains(&network.span().start)) {
        if !allowed.is_empty() && !supernets(*network.get_ref()).any(|supernet| allowed.contains(&supernet)) {
            report.warn(network.span(), format!("denying {} has no effect: `allow` does not let it in", network.get_ref()), None);
        }
    }
    let has_family = [false, true].map(|is_v4| listener.binds.iter().any(|bind| bind.get_ref().address.is_ipv4() == is_v4));
    for list in [&listener.allow, &listener.deny] {
        let mut known = BTreeSet::new();
        for network in list.iter().filter(|network| own.contains(&network.span().start)) {
            if !known.insert(*network.get_ref()) {
                report.warn(network.span(), format!("{} is in the list twice", network.get_ref()), None);
            }
            if !has_family[usize::from(network.get_ref().addr().is_ipv4())] {
                let message = format!("{} has no effect: no bind of the listener is of its address family", network.get_ref());
                report.warn(network.span(), message, None);
            }
        }
    }
}

/// The network itself and all that contain it.
fn supernets(network: IpNet) -> impl Iterator<Item = IpNet> {
    std::iter::successors(Some(network), IpNet::supernet)
}
