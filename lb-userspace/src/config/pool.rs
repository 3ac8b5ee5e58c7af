//! Reads `[pool.NAME]`, and of `[defaults]` what pools inherit.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use toml::Spanned;

use super::{
    check::CheckKeys,
    diagnostic::Span,
    model::{Balance, Forward, OnDown, Pool},
    reader::{Item, Key, Table, inherit, or, read_all},
    report::{Report, Reported},
    server::{self, Entry, NamedSection, ServerKeys, ServerSection},
    value,
};

const DEFAULT_GUE_PORT: u16 = 6080;

/// `forward` without what the modes need.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum ForwardWord {
    Nat,
    Dsr,
    Ipip,
    Gue,
}

/// `balance` as written: every word of Weir, of which an L4 listener understands some.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum BalanceWord {
    RoundRobin,
    Tuple,
    Source,
    /// Counts connections or requests, which packets do not show.
    NotForL4(&'static str),
}

const FORWARDS: &[(&str, ForwardWord)] =
    &[("nat", ForwardWord::Nat), ("dsr", ForwardWord::Dsr), ("ipip", ForwardWord::Ipip), ("gue", ForwardWord::Gue)];
const BALANCES: &[(&str, BalanceWord)] = &[
    ("round-robin", BalanceWord::RoundRobin),
    ("tuple", BalanceWord::Tuple),
    ("source", BalanceWord::Source),
    ("least-conn", BalanceWord::NotForL4("least-conn")),
    ("least-time", BalanceWord::NotForL4("least-time")),
    ("uri", BalanceWord::NotForL4("uri")),
];
const ON_DOWN: &[(&str, OnDown)] = &[("keep", OnDown::Keep), ("close-sessions", OnDown::CloseSessions)];

/// A pool with what the checks and lints ask of it.
#[derive(Debug)]
pub(super) struct PoolSection {
    pub(super) header: Span,
    /// If it could be read.
    pub(super) forward: Option<ForwardWord>,
    pub(super) snat: Vec<Spanned<IpAddr>>,
    pub(super) balance: Option<Spanned<BalanceWord>>,
    /// Those that could be read.
    pub(super) servers: BTreeMap<String, ServerSection>,
    /// Likewise, of those that are looked up.
    pub(super) names: BTreeMap<String, NamedSection>,
    pub(super) model: Result<Arc<Pool>, Reported>,
}

/// The keys of a pool that `[defaults]` may have too.
#[derive(Debug)]
pub(super) struct PoolKeys {
    forward: Key<ForwardWord>,
    balance: Key<BalanceWord>,
    on_down: Key<OnDown>,
    snat: Key<Vec<Spanned<IpAddr>>>,
    gue_port: Key<u16>,
    slow_start: Key<Duration>,
    panic_threshold_pct: Key<u8>,
    passive_hints: Key<bool>,
    check: CheckKeys,
    server: ServerKeys,
}

impl PoolKeys {
    pub(super) fn read(table: &mut Table<'_>, report: &mut Report) -> Self {
        let mut server = table.child("server", report);
        let server_keys = ServerKeys::read(&mut server, report);
        server.finish(report);
        Self {
            forward: table.optional("forward", report, |item, report| item.word(FORWARDS, report)),
            balance: table.optional("balance", report, |item, report| item.word(BALANCES, report)),
            on_down: table.optional("on_down", report, |item, report| item.word(ON_DOWN, report)),
            snat: table.optional("snat", report, read_snat),
            gue_port: table.optional("gue_port", report, |item, report| item.short(1..=u16::MAX, report)),
            slow_start: table.optional("slow_start", report, |item, report| item.duration(value::slow_start, report)),
            panic_threshold_pct: table.optional("panic_threshold", report, |item, report| item.parsed(value::percentage, report)),
            passive_hints: table.optional("passive_hints", report, |item, report| item.boolean(report)),
            check: CheckKeys::read(table, report),
            server: server_keys,
        }
    }

    fn inheriting(self, defaults: &Self) -> Self {
        Self {
            forward: inherit(self.forward, &defaults.forward),
            balance: inherit(self.balance, &defaults.balance),
            on_down: inherit(self.on_down, &defaults.on_down),
            snat: inherit(self.snat, &defaults.snat),
            gue_port: inherit(self.gue_port, &defaults.gue_port),
            slow_start: inherit(self.slow_start, &defaults.slow_start),
            panic_threshold_pct: inherit(self.panic_threshold_pct, &defaults.panic_threshold_pct),
            passive_hints: inherit(self.passive_hints, &defaults.passive_hints),
            check: self.check.inheriting(&defaults.check),
            server: self.server.inheriting(&defaults.server),
        }
    }
}

/// None if the pool is no table.
pub(super) fn read(item: &Item<'_>, defaults: &PoolKeys, report: &mut Report) -> Option<PoolSection> {
    let mut table = item.table(report).ok()?;
    let header = table.span.clone();
    let own = PoolKeys::read(&mut table, report);
    let own_spans = (span(&own.snat), span(&own.gue_port));
    if let Some(stray) = own.check.unasked(&defaults.check) {
        let hint = "add check.tcp = true, or check.http = \"GET /healthz\"";
        report.warn(stray, "this check asks nothing: the pool's servers are not checked", Some(hint));
    }
    let keys = own.inheriting(defaults);
    let (Servers { servers, names }, all_servers) = read_servers(&mut table, &keys.server, report);
    table.finish(report);
    let forward = or(keys.forward.clone(), ForwardWord::Nat);
    if let Ok(forward) = forward {
        check_belongings(forward, own_spans, report);
    }
    Some(PoolSection {
        header,
        forward: forward.ok(),
        snat: match (forward, &keys.snat) {
            (Ok(ForwardWord::Nat), Ok(Some(list))) => list.get_ref().clone(),
            _ => Vec::new(),
        },
        balance: keys.balance.as_ref().ok().cloned().flatten(),
        model: all_servers.and_then(|()| pool_model(forward?, keys, &servers, &names).map(Arc::new)),
        servers,
        names,
    })
}

fn pool_model(
    forward: ForwardWord,
    keys: PoolKeys,
    servers: &BTreeMap<String, ServerSection>,
    names: &BTreeMap<String, NamedSection>,
) -> Result<Pool, Reported> {
    let snat = or(keys.snat, Vec::new())?.into_iter().map(Spanned::into_inner).collect();
    let gue_port = or(keys.gue_port, DEFAULT_GUE_PORT)?;
    Ok(Pool {
        forward: match forward {
            ForwardWord::Nat => Forward::Nat { snat },
            ForwardWord::Dsr => Forward::Dsr,
            ForwardWord::Ipip => Forward::Ipip,
            ForwardWord::Gue => Forward::Gue { port: gue_port },
        },
        balance: match or(keys.balance, BalanceWord::RoundRobin)? {
            BalanceWord::Source => Balance::Source,
            BalanceWord::RoundRobin | BalanceWord::Tuple | BalanceWord::NotForL4(_) => Balance::Tuple,
        },
        on_down: or(keys.on_down, OnDown::Keep)?,
        check: keys.check.into_model()?,
        slow_start: or(keys.slow_start, Duration::ZERO)?,
        panic_threshold_pct: or(keys.panic_threshold_pct, 0)?,
        passive_hints: or(keys.passive_hints, true)?,
        servers: servers.iter().map(|(name, section)| (name.clone(), section.server)).collect(),
        names: names.iter().map(|(name, section)| (name.clone(), section.named.clone())).collect(),
    })
}

/// A pool's own key that its mode has no use for is a mistake; one from `[defaults]` is for the pools that have.
fn check_belongings(forward: ForwardWord, (snat, gue_port): (Option<Span>, Option<Span>), report: &mut Report) {
    if let Some(span) = snat.filter(|_| forward != ForwardWord::Nat) {
        report.error_hint(span, "`snat` is for forward = \"nat\" only", "in the other modes servers see the client's address");
    }
    if let Some(span) = gue_port.filter(|_| forward != ForwardWord::Gue) {
        report.error(span, "`gue_port` is for forward = \"gue\" only");
    }
}

/// The entries of `servers`.
#[derive(Default)]
struct Servers {
    servers: BTreeMap<String, ServerSection>,
    names: BTreeMap<String, NamedSection>,
}

/// The servers that could be read, and whether these are all.
fn read_servers(table: &mut Table<'_>, defaults: &ServerKeys, report: &mut Report) -> (Servers, Result<(), Reported>) {
    let mut servers = Servers::default();
    let items = match table.named("servers", report) {
        Ok(items) => items,
        Err(reported) => return (servers, Err(reported)),
    };
    if items.is_empty() {
        let hint = "servers.web1 = \"10.0.1.11:80\"";
        return (servers, Err(report.missing(table.span.clone(), "a pool needs a server".to_owned(), Some(hint))));
    }
    let mut all = Ok(());
    for (name, item) in items {
        match server::read(&item, defaults, report) {
            Ok(Entry::Server(section)) => _ = servers.servers.insert(name, section),
            Ok(Entry::Named(section)) => _ = servers.names.insert(name, section),
            Err(reported) => all = Err(reported),
        }
    }
    (servers, all)
}

fn read_snat(item: &Item<'_>, report: &mut Report) -> Result<Vec<Spanned<IpAddr>>, Reported> {
    let addresses = read_all(&item.elements(report)?, report, |item, report| item.parsed(value::unicast, report))?;
    let mut known = BTreeSet::new();
    for address in &addresses {
        if !known.insert(*address.get_ref()) {
            report.error(address.span(), format!("{} is in the list twice", address.get_ref()));
        }
    }
    Ok(addresses)
}

fn span<T>(key: &Key<T>) -> Option<Span> {
    key.as_ref().ok().and_then(Option::as_ref).map(Spanned::span)
}
