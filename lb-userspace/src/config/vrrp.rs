//! Reads `[vrrp.NAME]`.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use toml::Spanned;

use super::{
    diagnostic::Span,
    keepalived,
    model::{Secret, Track, Tracked, TrackedCommand, VirtualAddress, VirtualRouter},
    reader::{Item, Key, Table, or, read_all},
    report::{Report, Reported},
    value::{self, ValueError},
};
use crate::vrrp::{
    addresses::MOST_ADDRESSES,
    auth::{Key as MacKey, KeyError},
    packet::ChecksumForm,
    settings::{Announcing, Identity, MOST_PEERS, Preempt},
    terms::{Interval, Priority, RouterId, Version},
    track::{Effect, Weight},
};

const DEFAULT_PRIORITY: Priority = match Priority::new(100) {
    Some(priority) => priority,
    None => Priority::LOWEST,
};

/// keepalived sends unicast adverts of IPv6 as any other packet.
const UNICAST6_HOP_LIMIT: u8 = 64;

/// More often, announcements would be a load on the link.
const LEAST_REFRESH: Duration = Duration::from_secs(1);

const VERSIONS: &[(u32, Version)] = &[(2, Version::V2), (3, Version::V3)];
const CHECKSUMS: &[(&str, ChecksumForm)] = &[("rfc", ChecksumForm::Message), ("pseudo-header", ChecksumForm::PseudoHeader)];

/// A virtual router with what the checks and lints ask of it.
#[derive(Debug)]
pub(super) struct VrrpSection {
    pub(super) header: Span,
    /// Those that could be read.
    pub(super) addresses: Vec<Spanned<VirtualAddress>>,
    /// Its number, where that is.
    pub(super) router: Option<Spanned<RouterId>>,
    pub(super) interface: Option<Spanned<String>>,
    /// Where `virtual_mac` stands in the file.
    pub(super) virtual_mac: Option<Span>,
    pub(super) priority: Option<Spanned<Priority>>,
    pub(super) track: Vec<Spanned<Track>>,
    pub(super) group: Option<Spanned<String>>,
    /// Where `checksum` stands in the file.
    pub(super) checksum: Option<Span>,
    /// Where a secret stands in the file.
    pub(super) secret: Option<Span>,
    pub(super) model: Result<VirtualRouter, Reported>,
}

/// What `virtual_mac` says.
#[derive(Clone, PartialEq, Eq)]
enum MacvlanName {
    /// `false`: no macvlan.
    None,
    /// `true`: named after the router's number.
    Default,
    Given(String),
}

struct Keys {
    interface: Result<Spanned<String>, Reported>,
    router: Result<Spanned<RouterId>, Reported>,
    priority: Key<Priority>,
    version: Version,
    interval: Key<Interval>,
    virtual_mac: Key<MacvlanName>,
    source: Key<IpAddr>,
    peers: Key<BTreeSet<IpAddr>>,
    min_hop_limit: Key<u8>,
    preempt: Key<Preempt>,
    preempt_delay: Key<Duration>,
    start_delay: Key<Duration>,
    yield_hold: Key<Duration>,
    announcing: Result<Announcing, Reported>,
    password: Key<[u8; 8]>,
    keys: Key<BTreeMap<u8, String>>,
    key: Key<u8>,
    checksum: Key<ChecksumForm>,
    track: Key<Vec<Spanned<Track>>>,
    group: Key<String>,
    notify: Key<Vec<String>>,
}

/// None if the router is no table.
pub(super) fn read(item: &Item<'_>, report: &mut Report) -> Option<VrrpSection> {
    let mut table = item.table(report).ok()?;
    let header = table.span.clone();
    let (addresses, all_addresses) = read_addresses(&mut table, report);
    let keys = read_keys(&mut table, report);
    table.finish_knowing(keepalived::hint, report);
    let span = |key: Option<Span>, other: Option<Span>| key.or(other);
    let secret = span(place(&keys.password), place(&keys.keys));
    let section = VrrpSection {
        header: header.clone(),
        addresses: addresses.clone(),
        router: keys.router.as_ref().ok().cloned(),
        interface: keys.interface.as_ref().ok().cloned(),
        virtual_mac: place(&keys.virtual_mac),
        priority: keys.priority.as_ref().ok().cloned().flatten(),
        track: keys.track.as_ref().ok().and_then(Option::as_ref).map(|track| track.get_ref().clone()).unwrap_or_default(),
        group: keys.group.as_ref().ok().cloned().flatten(),
        secret,
        checksum: place(&keys.checksum),
        model: model(keys, (addresses, all_addresses), header, report),
    };
    Some(section)
}

fn read_keys(table: &mut Table<'_>, report: &mut Report) -> Keys {
    let hint = "name the interface that the other routers are reached by: \"eth0\"";
    let interface = table.required("interface", hint, report, |item, report| item.parsed(value::interface, report));
    let router = table.required("router_id", "a number from 1 to 255, the same on all nodes", report, |item, report| {
        let number = item.short(1..=255, report)?;
        RouterId::new(number as u8).ok_or_else(|| item.wrong_type("a number from 1 to 255", report))
    });
    let version = table.optional("version", report, |item, report| {
        let number = item.integer(2..=3, report)?;
        Ok(VERSIONS.iter().find(|(known, _)| *known == number).map_or(Version::V3, |(_, version)| *version))
    });
    let version = or(version, Version::V3).unwrap_or(Version::V3);
    Keys {
        interface,
        router,
        priority: table.optional("priority", report, |item, report| {
            let number = item.short(1..=255, report)?;
            Ok(Priority::new(number as u8).unwrap_or(Priority::LOWEST))
        }),
        version,
        interval: table.optional("interval", report, |item, report| {
            item.duration(|text| Interval::new(value::any_duration(text)?, version).map_err(ValueError::Interval), report)
        }),
        virtual_mac: table.optional("virtual_mac", report, |item, report| {
            if item.is_boolean() {
                return Ok(if item.boolean(report)? { MacvlanName::Default } else { MacvlanName::None });
            }
            item.parsed(value::interface, report).map(MacvlanName::Given)
        }),
        source: table.optional("source", report, |item, report| item.parsed(value::unicast, report)),
        peers: table.optional("peers", report, read_peers),
        min_hop_limit: table.optional("min_hop_limit", report, |item, report| item.short(1..=255, report).map(|limit| limit as u8)),
        preempt: table.optional("preempt", report, |item, report| {
            if item.is_boolean() {
                return Ok(if item.boolean(report)? { Preempt::AtOnce } else { Preempt::Never });
            }
            item.duration(value::delay, report).map(Preempt::After)
        }),
        preempt_delay: table.optional("preempt_delay", report, |item, report| item.duration(value::delay, report)),
        start_delay: table.optional("start_delay", report, |item, report| item.duration(value::delay, report)),
        yield_hold: table.optional("yield_hold", report, |item, report| item.duration(value::delay, report)),
        announcing: read_announcing(table, report),
        password: table.optional("password", report, |item, report| item.parsed(value::vrrp_password, report)),
        keys: read_ring(table, report),
        key: table.optional("key", report, |item, report| item.short(0..=255, report).map(|id| id as u8)),
        checksum: table.optional("checksum", report, |item, report| item.word(CHECKSUMS, report)),
        track: table.optional("track", report, read_tracks),
        group: table
            .optional("group", report, |item, report| item.parsed(|text| value::check_name(text).map(|()| text.to_owned()), report)),
        notify: table.optional("notify", report, read_program),
    }
}

fn model(
    keys: Keys,
    (addresses, all_addresses): (Vec<Spanned<VirtualAddress>>, Result<(), Reported>),
    header: Span,
    report: &mut Report,
) -> Result<VirtualRouter, Reported> {
    let fits = check_together(&keys, &addresses, header, report);
    let preempt = match (or(keys.preempt, Preempt::AtOnce)?, keys.preempt_delay?) {
        (Preempt::AtOnce, Some(delay)) if !delay.get_ref().is_zero() => Preempt::After(delay.into_inner()),
        (preempt, _) => preempt,
    };
    let secret = match (keys.password?, keys.keys?) {
        (Some(password), _) => Secret::Password(password.into_inner()),
        (None, Some(ring)) => {
            let ring = ring.into_inner();
            let sends = or(keys.key, ring.last_key_value().map_or(0, |(id, _)| *id))?;
            Secret::Keys { ring, sends }
        }
        (None, None) => Secret::None,
    };
    let default = Interval::from_seconds(1).or(Interval::from_centiseconds(100));
    let interval = keys.interval?.map(Spanned::into_inner).or(default);
    all_addresses?;
    fits?;
    let identity = Identity { router: keys.router?.into_inner(), version: keys.version };
    let is_v4 = addresses.first().is_none_or(|first| first.get_ref().address.is_ipv4());
    let is_unicast = matches!(&keys.peers, Ok(Some(_)));
    let virtual_mac = match or(keys.virtual_mac, MacvlanName::None)? {
        MacvlanName::None => None,
        MacvlanName::Default => Some(format!("vrrp{}-{}", if is_v4 { 4 } else { 6 }, identity.router)),
        MacvlanName::Given(name) => Some(name),
    };
    let Some(interval) = interval else { return Err(report.error(0..0, "there is no interval")) };
    Ok(VirtualRouter {
        interface: keys.interface?.into_inner(),
        identity,
        priority: or(keys.priority, DEFAULT_PRIORITY)?,
        interval,
        virtual_mac,
        addresses: addresses.into_iter().map(Spanned::into_inner).collect(),
        source: keys.source?.map(Spanned::into_inner),
        min_hop_limit: or(keys.min_hop_limit, if is_unicast && !is_v4 { UNICAST6_HOP_LIMIT } else { u8::MAX })?,
        peers: or(keys.peers, BTreeSet::new())?,
        preempt,
        start_delay: or(keys.start_delay, Duration::ZERO)?,
        yield_hold: keys.yield_hold?.map(Spanned::into_inner),
        announcing: keys.announcing?,
        secret,
        checksum: keys.checksum?.map(Spanned::into_inner),
        track: or(keys.track, Vec::new())?.into_iter().map(Spanned::into_inner).collect(),
        group: keys.group?.map(Spanned::into_inner),
        notify: or(keys.notify, Vec::new())?,
    })
}

/// What keys of one router require of each other.
fn check_together(keys: &Keys, addresses: &[Spanned<VirtualAddress>], header: Span, report: &mut Report) -> Result<(), Reported> {
    let mut fits = Ok(());
    let mut wrong = |report: &mut Report, span: Span, message: String, hint: &str| fits = Err(report.error_hint(span, message, hint));
    let is_v4 = addresses.first().is_none_or(|first| first.get_ref().address.is_ipv4());
    if keys.version == Version::V2 && !is_v4 {
        wrong(report, addresses[0].span(), "version 2 of vrrp has no ipv6".into(), "leave `version` out: version 3 has both");
    }
    let mut known = BTreeSet::new();
    for address in addresses {
        if address.get_ref().address.is_ipv4() != is_v4 {
            let hint = "make a virtual router for each family: the same router_id may be used for both";
            wrong(report, address.span(), format!("{} is of another family than the first", address.get_ref().address), hint);
        }
        if !known.insert(address.get_ref().address) {
            wrong(report, address.span(), format!("address {} is given twice", address.get_ref().address), "leave one out");
        }
    }
    let has_macvlan = matches!(&keys.virtual_mac, Ok(Some(name)) if *name.get_ref() != MacvlanName::None);
    for address in addresses.iter().filter(|address| has_macvlan && address.get_ref().device.is_some()) {
        wrong(report, address.span(), "with `virtual_mac` an address has no other device".into(), "leave `device` out");
    }
    if let (Ok(Some(preempt)), Ok(Some(delay))) = (&keys.preempt, &keys.preempt_delay)
        && *preempt.get_ref() != Preempt::AtOnce
    {
        let hint = "`preempt = \"5s\"` and `preempt_delay = \"5s\"` say the same";
        wrong(report, delay.span(), "`preempt` says otherwise when it preempts".into(), hint);
    }
    for address in addresses.iter().filter(|address| is_no_hosts(address.get_ref())) {
        wrong(report, address.span(), format!("{} is of a network, not of a host", address.get_ref().address), "take one between");
    }
    let is_owner = matches!(&keys.priority, Ok(Some(priority)) if priority.get_ref().is_owner());
    if let Ok(Some(source)) = &keys.source
        && !is_owner
        && addresses.iter().any(|address| address.get_ref().address == *source.get_ref())
    {
        let hint = "a node speaks from an address that it keeps; priority = 255 is for the owner of the addresses";
        wrong(report, source.span(), format!("{} is a virtual address", source.get_ref()), hint);
    }
    if let (Ok(Some(limit)), Ok(None)) = (&keys.min_hop_limit, &keys.peers) {
        wrong(report, limit.span(), "multicast adverts come from this link, with 255".into(), "leave `min_hop_limit` out, or give `peers`");
    }
    let mut others = Vec::new();
    if let Ok(Some(peers)) = &keys.peers {
        for peer in peers.get_ref().iter().filter(|peer| addresses.iter().any(|one| one.get_ref().address == **peer)) {
            wrong(report, peers.span(), format!("peer {peer} is a virtual address"), "name the nodes by addresses that they keep");
        }
        others.extend(peers.get_ref().iter().map(|peer| (*peer, peers.span())));
        if peers.get_ref().len() > MOST_PEERS + 1 {
            wrong(report, peers.span(), format!("a router has at most {MOST_PEERS} unicast peers"), "use multicast");
        }
    }
    if let Ok(Some(source)) = &keys.source {
        others.push((*source.get_ref(), source.span()));
    }
    for (address, span) in others.into_iter().filter(|(address, _)| address.is_ipv4() != is_v4) {
        wrong(report, span, format!("{address} is of another family than the router's addresses"), "adverts go by the addresses' family");
    }
    let (password, ring) = (place(&keys.password), place(&keys.keys));
    match (keys.version, password, ring) {
        (Version::V3, Some(span), _) => {
            wrong(report, span, "version 3 has no password".into(), "use `keys` between Weir nodes, or version = 2");
        }
        (Version::V2, _, Some(span)) => wrong(report, span, "version 2 has no keys".into(), "leave `version` out"),
        (Version::V2 | Version::V3, ..) => {}
    }
    if let (Ok(Some(key)), Ok(ring)) = (&keys.key, &keys.keys)
        && ring.as_ref().is_none_or(|ring| !ring.get_ref().contains_key(key.get_ref()))
    {
        wrong(report, key.span(), format!("key {} is to send with, and not in `keys`", key.get_ref()), "add it to `keys`");
    }
    if addresses.len() > MOST_ADDRESSES {
        wrong(report, header, format!("a virtual router has at most {MOST_ADDRESSES} addresses"), "make two routers");
    }
    fits
}

/// The addresses that could be read, and whether these are all.
fn read_addresses(table: &mut Table<'_>, report: &mut Report) -> (Vec<Spanned<VirtualAddress>>, Result<(), Reported>) {
    let hint = "say which addresses one of the nodes holds: [\"198.51.100.1/24\"]";
    let items = match table.required("addresses", hint, report, |item, report| item.elements(report)) {
        Ok(items) => items,
        Err(reported) => return (Vec::new(), Err(reported)),
    };
    let span = items.span();
    let items = items.into_inner();
    if items.is_empty() {
        return (Vec::new(), Err(report.error_hint(span, "a virtual router needs an address", hint)));
    }
    let mut addresses = Vec::new();
    let mut all = Ok(());
    for item in items {
        match read_address(&item, report) {
            Ok(address) => addresses.push(Spanned::new(item.span.clone(), address)),
            Err(reported) => all = Err(reported),
        }
    }
    (addresses, all)
}

/// `"198.51.100.1/24"`, or `{ address = "198.51.100.1/24", device = "eth1", label = "eth1:vip" }`.
fn read_address(item: &Item<'_>, report: &mut Report) -> Result<VirtualAddress, Reported> {
    if !item.is_table() {
        let (address, prefix_len) = item.parsed(value::prefixed, report)?;
        return Ok(VirtualAddress { address, prefix_len, device: None, label: None });
    }
    let mut table = item.table(report)?;
    let hint = "{ address = \"198.51.100.1/24\", device = \"eth1\" }";
    let address = table.required("address", hint, report, |item, report| item.parsed(value::prefixed, report));
    let device = table.optional("device", report, |item, report| item.parsed(value::interface, report));
    let label = table.optional("label", report, |item, report| item.parsed(value::label, report));
    table.finish(report);
    let (address, prefix_len) = address?.into_inner();
    let label = label?;
    if let Some(label) = label.as_ref().filter(|_| address.is_ipv6()) {
        return Err(report.error_hint(label.span(), "an ipv6 address has no label", "leave `label` out"));
    }
    Ok(VirtualAddress { address, prefix_len, device: device?.map(Spanned::into_inner), label: label.map(Spanned::into_inner) })
}

fn read_peers(item: &Item<'_>, report: &mut Report) -> Result<BTreeSet<IpAddr>, Reported> {
    let peers = read_all(&item.elements(report)?, report, |item, report| item.parsed(value::unicast, report))?;
    if peers.is_empty() {
        return Err(report.error_hint(item.span.clone(), format!("`{}` is empty", item.path), "leave it out to have multicast"));
    }
    let mut known = BTreeSet::new();
    for peer in &peers {
        if !known.insert(*peer.get_ref()) {
            report.warn(peer.span(), format!("peer {} is given twice", peer.get_ref()), None);
        }
    }
    Ok(known)
}

fn read_announcing(table: &mut Table<'_>, report: &mut Report) -> Result<Announcing, Reported> {
    let mut table = table.child("announce", report);
    let again_after = table.optional("again_after", report, |item, report| item.duration(value::delay, report));
    let every = table.optional("every", report, |item, report| {
        let every = item.duration(value::delay, report)?;
        if every >= LEAST_REFRESH || item.string(report)? == "off" {
            return Ok(every);
        }
        Err(report.error_hint(item.span.clone(), format!("`{}` must be 1s or more", item.path), "or \"off\""))
    });
    let least_gap = table.optional("least_gap", report, |item, report| item.duration(value::delay, report));
    table.finish(report);
    let default = Announcing::default();
    let some = |time: Duration| (!time.is_zero()).then_some(time);
    Ok(Announcing {
        again_after: again_after?.map_or(default.again_after, |time| some(time.into_inner())),
        every: every?.map_or(default.every, |time| some(time.into_inner())),
        least_gap: or(least_gap, default.least_gap)?,
    })
}

/// `keys = { 1 = "…", 2 = "…" }`.
fn read_ring(table: &mut Table<'_>, report: &mut Report) -> Key<BTreeMap<u8, String>> {
    let Some(keys) = table.strings("keys", report)? else { return Ok(None) };
    let (span, keys) = (keys.span(), keys.into_inner());
    let mut ring = BTreeMap::new();
    for (id, secret) in keys {
        let Ok(number) = id.parse::<u8>() else {
            return Err(report.error_hint(span, format!("`{}` is no key's id", id.escape_debug()), "ids are from 0 to 255"));
        };
        if let Err(error @ (KeyError::Short(_) | KeyError::NotInRing(_))) = MacKey::new(secret.as_bytes()) {
            return Err(report.error_hint(span, format!("key {number} is of no use: {error}"), "openssl rand -hex 32 makes a good one"));
        }
        ring.insert(number, secret);
    }
    if ring.is_empty() {
        return Err(report.error_hint(span, "there is no key", "keys = { 1 = \"32 or more random letters\" }"));
    }
    Ok(Some(Spanned::new(span, ring)))
}

fn read_tracks(item: &Item<'_>, report: &mut Report) -> Result<Vec<Spanned<Track>>, Reported> {
    let hint = "track = [{ interface = \"eth1\" }, { pool = \"web\", share = \"50%\", weight = -20 }]";
    let items = match item.array() {
        Some(items) => items,
        None => return Err(report.error_hint(item.span.clone(), format!("`{}` must be an array of tables", item.path), hint)),
    };
    read_all(&items, report, read_track)
}

fn read_track(item: &Item<'_>, report: &mut Report) -> Result<Track, Reported> {
    let mut table = item.table(report)?;
    let interface = table.optional("interface", report, |item, report| item.parsed(value::interface, report));
    let pool = table.optional("pool", report, |item, report| item.string(report).map(str::to_owned));
    let share = table.optional("share", report, |item, report| item.parsed(value::percentage, report));
    let file = table.optional("file", report, |item, report| item.parsed(value::absolute_path, report));
    let command = table.optional("command", report, read_program);
    let interval = table.optional("interval", report, |item, report| item.duration(value::check_interval, report));
    let timeout = table.optional("timeout", report, |item, report| item.duration(value::check_interval, report));
    let rise = table.optional("rise", report, |item, report| item.short(1..=1000, report));
    let fall = table.optional("fall", report, |item, report| item.short(1..=1000, report));
    let data_plane = table.optional("data_plane", report, |item, report| item.boolean(report));
    let weight = table.optional("weight", report, read_weight);
    table.finish(report);
    let of_pool = [("share", place(&share))];
    let of_command = [("interval", place(&interval)), ("timeout", place(&timeout)), ("rise", place(&rise)), ("fall", place(&fall))];
    warn_of_idle("pool", place(&pool), &of_pool, report);
    warn_of_idle("command", place(&command), &of_command, report);
    let interval = or(interval, Duration::from_secs(1))?;
    let command = command?.map(Spanned::into_inner);
    let command = match command {
        Some(argv) => {
            let timeout = or(timeout, interval)?;
            Some(Tracked::Command(TrackedCommand { argv, interval, timeout, rise: or(rise, 1)?, fall: or(fall, 1)? }))
        }
        None => None,
    };
    let share_pct = match share? {
        Some(share) if *share.get_ref() == 0 => {
            return Err(report.error_hint(share.span(), "a share of 0% is always there", "leave it out: any server"));
        }
        Some(share) => share.into_inner(),
        None => 1,
    };
    let kinds = [
        interface?.map(|name| Tracked::Interface(name.into_inner())),
        pool?.map(|name| Tracked::Pool { name: name.into_inner(), share_pct }),
        file?.map(|path| Tracked::File(path.into_inner())),
        command,
        data_plane?.filter(|is_watched| *is_watched.get_ref()).map(|_| Tracked::DataPlane),
    ];
    let mut kinds = kinds.into_iter().flatten();
    let (Some(what), None) = (kinds.next(), kinds.next()) else {
        let hint = "one of `interface`, `pool`, `file`, `command`, `data_plane = true`; `weight` goes with any of them";
        return Err(report.error_hint(item.span.clone(), "one thing is tracked by each entry", hint));
    };
    Ok(Track { what, effect: weight?.map_or(Effect::Fault, |weight| Effect::Weight(weight.into_inner())) })
}

/// Keys that go with `what`, where that is not tracked.
fn warn_of_idle(what: &str, tracked: Option<Span>, keys: &[(&str, Option<Span>)], report: &mut Report) {
    for (key, span) in keys.iter().filter(|_| tracked.is_none()) {
        span.iter().for_each(|span| report.warn(span.clone(), format!("`{key}` has no effect: it goes with `{what}`"), None));
    }
}

fn read_weight(item: &Item<'_>, report: &mut Report) -> Result<Weight, Reported> {
    let number = item.signed(-253..=253, report)?;
    Weight::new(number).map_err(|error| {
        let hint =
            "below 0: so much less while it is down; above: so much more while it is up; without a weight it is a fault while it is down";
        report.error_hint(item.span.clone(), error.to_string(), hint)
    })
}

/// An absolute path and its arguments.
fn read_program(item: &Item<'_>, report: &mut Report) -> Result<Vec<String>, Reported> {
    let argv = read_all(&item.elements(report)?, report, |item, report| Ok(item.string(report)?.to_owned()))?;
    let argv: Vec<String> = argv.into_iter().map(Spanned::into_inner).collect();
    match argv.first() {
        Some(program) if program.starts_with('/') => Ok(argv),
        program => {
            let error = ValueError::Path(program.cloned().unwrap_or_default());
            Err(item.refused(&error, report))
        }
    }
}

/// The first or the last address of its network (RFC 1122 s3.2.1.3); a network of two has none such (RFC 3021).
fn is_no_hosts(address: &VirtualAddress) -> bool {
    let IpAddr::V4(v4) = address.address else { return false };
    let host_bits = u32::MAX.checked_shr(address.prefix_len.into()).unwrap_or(0);
    address.prefix_len < 31 && (v4.to_bits() & host_bits == 0 || v4.to_bits() & host_bits == host_bits)
}

fn place<T>(key: &Key<T>) -> Option<Span> {
    key.as_ref().ok().and_then(Option::as_ref).map(Spanned::span)
}
