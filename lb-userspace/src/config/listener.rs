//! Reads `[listener.NAME]`, and of `[defaults]` what listeners inherit.

use std::time::Duration;

use ipnet::IpNet;
use toml::Spanned;

use super::{
    diagnostic::Span,
    model::{Bind, Listener, Rate, UdpFlows},
    reader::{Item, Key, Table, inherit, or, read_all},
    report::{Report, Reported},
    value,
};

const DEFAULT_SLOTS: u32 = 65_536;
const DEFAULT_TCP_IDLE: Duration = Duration::from_secs(15 * 60);
const DEFAULT_UDP_IDLE: Duration = Duration::from_secs(30);

/// What a listener does with what it takes. The words of the three others are known so that they can be refused by name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Mode {
    L4,
    Unavailable(&'static str),
}

const MODES: &[(&str, Mode)] =
    &[("l4", Mode::L4), ("tcp", Mode::Unavailable("tcp")), ("sni", Mode::Unavailable("sni")), ("http", Mode::Unavailable("http"))];
const UDP_FLOWS: &[(&str, UdpFlows)] = &[("tracked", UdpFlows::Tracked), ("stateless", UdpFlows::Stateless)];

/// A listener with what the checks and lints ask of it.
#[derive(Debug)]
pub(super) struct ListenerSection {
    pub(super) header: Span,
    /// Those that could be read.
    pub(super) binds: Vec<Spanned<Bind>>,
    /// The name that it gives, if it could be read.
    pub(super) pool: Option<Spanned<String>>,
    pub(super) slots: Option<Spanned<u32>>,
    pub(super) allow: Vec<Spanned<IpNet>>,
    pub(super) deny: Vec<Spanned<IpNet>>,
    /// Of `allow` and `deny`, what the listener says itself: what it inherits was written for others too.
    pub(super) own_sources: Vec<Spanned<IpNet>>,
    pub(super) model: Result<Listener, Reported>,
}

/// The keys of a listener that `[defaults]` may have too.
#[derive(Debug)]
pub(super) struct ListenerKeys {
    mode: Key<Mode>,
    slots: Key<u32>,
    tcp_idle: Key<Duration>,
    udp_idle: Key<Duration>,
    udp: Key<UdpFlows>,
    conn_rate: Key<Option<Rate>>,
    allow: Key<Vec<Spanned<IpNet>>>,
    deny: Key<Vec<Spanned<IpNet>>>,
}

impl ListenerKeys {
    pub(super) fn read(table: &mut Table<'_>, report: &mut Report) -> Self {
        let mode = table.optional("mode", report, |item, report| item.word(MODES, report));
        let slots = table.optional("slots", report, read_slots);
        let mut timeout = table.child("timeout", report);
        let tcp_idle = timeout.optional("tcp", report, |item, report| item.duration(value::idle_time, report));
        let udp_idle = timeout.optional("udp", report, |item, report| item.duration(value::idle_time, report));
        timeout.finish(report);
        Self {
            mode,
            slots,
            tcp_idle,
            udp_idle,
            udp: table.optional("udp", report, |item, report| item.word(UDP_FLOWS, report)),
            conn_rate: table.optional("conn_rate", report, |item, report| item.parsed(value::rate, report)),
            allow: table.optional("allow", report, read_networks),
            deny: table.optional("deny", report, read_networks),
        }
    }

    fn inheriting(self, defaults: &Self) -> Self {
        Self {
            mode: inherit(self.mode, &defaults.mode),
            slots: inherit(self.slots, &defaults.slots),
            tcp_idle: inherit(self.tcp_idle, &defaults.tcp_idle),
            udp_idle: inherit(self.udp_idle, &defaults.udp_idle),
            udp: inherit(self.udp, &defaults.udp),
            conn_rate: inherit(self.conn_rate, &defaults.conn_rate),
            allow: inherit(self.allow, &defaults.allow),
            deny: inherit(self.deny, &defaults.deny),
        }
    }
}

/// None if the listener is no table.
pub(super) fn read(item: &Item<'_>, defaults: &ListenerKeys, report: &mut Report) -> Option<ListenerSection> {
    let mut table = item.table(report).ok()?;
    let header = table.span.clone();
    let own = ListenerKeys::read(&mut table, report);
    let own_sources = [list(&own.allow), list(&own.deny)].concat();
    let keys = own.inheriting(defaults);
    let (binds, all_binds) = read_binds(&mut table, report);
    let pool = table.required("pool", "name a [pool]", report, |item, report| item.string(report).map(str::to_owned));
    let mode = check_mode(&keys.mode, &table, report);
    if matches!(mode, Ok(Mode::L4)) || keys.mode.is_err() {
        // Another mode has other keys: they are no mistake of their own.
        table.finish(report);
    }
    Some(ListenerSection {
        header,
        binds: binds.clone(),
        pool: pool.as_ref().ok().cloned(),
        slots: keys.slots.as_ref().ok().cloned().flatten(),
        allow: list(&keys.allow),
        deny: list(&keys.deny),
        own_sources,
        model: mode.and(all_binds).and_then(|()| listener_model(keys, binds, pool?)),
    })
}

fn listener_model(keys: ListenerKeys, binds: Vec<Spanned<Bind>>, pool: Spanned<String>) -> Result<Listener, Reported> {
    Ok(Listener {
        binds: binds.into_iter().map(Spanned::into_inner).collect(),
        pool: pool.into_inner(),
        set_aside: None,
        allow: plain(keys.allow)?,
        deny: plain(keys.deny)?,
        conn_rate: or(keys.conn_rate, None)?,
        slots: or(keys.slots, DEFAULT_SLOTS)?,
        tcp_idle: or(keys.tcp_idle, DEFAULT_TCP_IDLE)?,
        udp_idle: or(keys.udp_idle, DEFAULT_UDP_IDLE)?,
        udp: or(keys.udp, UdpFlows::Tracked)?,
    })
}

fn check_mode(mode: &Key<Mode>, table: &Table<'_>, report: &mut Report) -> Result<Mode, Reported> {
    let Some(mode) = mode.as_ref().map_err(|reported| *reported)? else {
        return Err(table.missing("mode", "write mode = \"l4\" here or in [defaults]", report));
    };
    match mode.get_ref() {
        Mode::L4 => Ok(Mode::L4),
        Mode::Unavailable(word) => {
            let message = format!("mode `{word}` is not available in this version");
            Err(report.error_hint(mode.span(), message, "the one mode that is available is \"l4\""))
        }
    }
}

/// The binds that could be read, and whether these are all.
fn read_binds(table: &mut Table<'_>, report: &mut Report) -> (Vec<Spanned<Bind>>, Result<(), Reported>) {
    let hint = "say where packets come in: \"192.0.2.10:80\"";
    let items = match table.required("bind", hint, report, |item, report| item.elements(report)) {
        Ok(items) => items,
        Err(reported) => return (Vec::new(), Err(reported)),
    };
    if items.get_ref().is_empty() {
        return (Vec::new(), Err(report.error_hint(items.span(), "a listener needs a bind", hint)));
    }
    let mut binds = Vec::new();
    let mut all = Ok(());
    for item in items.get_ref() {
        match item.parsed(value::bind, report) {
            Ok(bind) => binds.push(Spanned::new(item.span.clone(), bind)),
            Err(reported) => all = Err(reported),
        }
    }
    (binds, all)
}

fn read_slots(item: &Item<'_>, report: &mut Report) -> Result<u32, Reported> {
    let slots = item.integer(256..=65_536, report)?;
    if slots.is_power_of_two() {
        return Ok(slots);
    }
    let (below, above) = (slots.next_power_of_two() / 2, slots.next_power_of_two());
    let message = format!("`{}` must be a power of two, not {slots}", item.path);
    Err(report.error_hint(item.span.clone(), message, format!("the nearest are {below} and {above}")))
}

/// Networks without host bits: those that have some are meant as their network, and said so.
fn read_networks(item: &Item<'_>, report: &mut Report) -> Result<Vec<Spanned<IpNet>>, Reported> {
    read_all(&item.elements(report)?, report, |item, report| {
        let network = item.parsed(value::network, report)?;
        if network.trunc() != network {
            report.warn(item.span.clone(), format!("{network} has bits beyond its prefix: taken as {}", network.trunc()), None);
        }
        Ok(network.trunc())
    })
}

/// Empty if the key is absent or could not be read.
fn list<T: Clone>(key: &Key<Vec<T>>) -> Vec<T> {
    key.as_ref().ok().and_then(Option::as_ref).map(|list| list.get_ref().clone()).unwrap_or_default()
}

fn plain<T>(list: Key<Vec<Spanned<T>>>) -> Result<Vec<T>, Reported> {
    Ok(list?.map_or_else(Vec::new, |list| list.into_inner().into_iter().map(Spanned::into_inner).collect()))
}
