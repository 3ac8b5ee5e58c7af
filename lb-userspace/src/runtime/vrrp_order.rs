//! What the speaker is told: virtual routers as the configuration has them, with the state of what the daemon watches. Pure.

use std::{collections::BTreeMap, path::Path, time::Duration};

use crate::{
    config::model::{Config, Secret, Track, Tracked, TrackedCommand, VirtualRouter},
    control::standing::{View, standings},
    speaker::order::{AddressOrder, Order, PreemptOrder, RouterOrder, TrackOrder, Watched},
    vrrp::{packet::ChecksumForm, settings::Preempt, terms::Version, track::Effect},
};

/// The state of what the daemon watches.
pub(super) struct Known<'a> {
    /// Servers.
    pub(super) view: &'a View,
    /// Whether a file is there.
    pub(super) is_there: &'a dyn Fn(&Path) -> bool,
    /// Why a command fails; none: it succeeds.
    pub(super) failure: &'a dyn Fn(&TrackedCommand) -> Option<String>,
}

/// The order for all routers of a configuration.
pub(super) fn order(config: &Config, known: &Known<'_>) -> Order {
    let routers = config.vrrp.iter().map(|(name, router)| (name.clone(), router_order(config, router, known)));
    let data_plane = if config.vrrp.is_empty() { Vec::new() } else { config.node.interfaces.clone() };
    Order { routers: routers.collect(), data_plane, pin_dir: config.node.pin_dir.clone() }
}

fn router_order(config: &Config, router: &VirtualRouter, known: &Known<'_>) -> RouterOrder {
    let (password, keys, key) = match &router.secret {
        Secret::None => (None, BTreeMap::new(), 0),
        Secret::Password(password) => (Some(*password), BTreeMap::new(), 0),
        Secret::Keys { ring, sends } => (None, ring.clone(), *sends),
    };
    let ms = |time: Duration| time.as_millis() as u64;
    RouterOrder {
        interface: router.interface.clone(),
        router_id: router.identity.router.number(),
        version: if router.identity.version == Version::V2 { 2 } else { 3 },
        priority: router.priority.number(),
        interval_ms: ms(router.interval.duration()),
        virtual_mac: router.virtual_mac.clone(),
        addresses: router
            .addresses
            .iter()
            .map(|one| AddressOrder {
                address: one.address,
                prefix_len: one.prefix_len,
                device: one.device.as_ref().or(router.virtual_mac.as_ref()).unwrap_or(&router.interface).clone(),
                label: one.label.clone(),
            })
            .collect(),
        source: router.source,
        peers: router.peers.clone(),
        min_hop_limit: router.min_hop_limit,
        preempt: match router.preempt {
            Preempt::AtOnce => PreemptOrder::AtOnce,
            Preempt::Never => PreemptOrder::Never,
            Preempt::After(delay) => PreemptOrder::AfterMs(ms(delay)),
        },
        start_delay_ms: ms(router.start_delay),
        yield_hold_ms: router.yield_hold.map(ms),
        announce_again_ms: router.announcing.again_after.map(ms),
        announce_every_ms: router.announcing.every.map(ms),
        announce_gap_ms: ms(router.announcing.least_gap),
        password,
        keys,
        key,
        has_pseudo_header: router.checksum.map(|form| form == ChecksumForm::PseudoHeader),
        group: router.group.clone(),
        tracks: router.track.iter().map(|track| track_order(config, track, known)).collect(),
        resume: None,
    }
}

fn track_order(config: &Config, track: &Track, known: &Known<'_>) -> TrackOrder {
    let told = |down: Option<String>| down.map_or(Watched::Up, Watched::Down);
    let how = match &track.what {
        Tracked::Interface(name) => Watched::Interface(name.clone()),
        Tracked::DataPlane => Watched::DataPlane,
        Tracked::File(path) => told((!(known.is_there)(path)).then(|| "it is not there".into())),
        Tracked::Command(command) => told((known.failure)(command)),
        Tracked::Pool { name, share_pct } => told(fails(config, name, *share_pct, known.view)),
    };
    let weight = match track.effect {
        Effect::Fault => None,
        Effect::Weight(weight) => Some(weight.number()),
    };
    TrackOrder { name: track.what.to_string(), how, weight }
}

/// Why less than this share of a pool's servers takes new flows; none: it does.
fn fails(config: &Config, pool: &str, share_pct: u8, view: &View) -> Option<String> {
    let Some(section) = config.pools.get(pool) else { return Some("there is no such pool".into()) };
    let standings = standings(pool, section, view);
    let usable = section.servers.values().filter(|server| !server.backup).count();
    let serving = standings.iter().filter(|standing| standing.weight > 0).count();
    let suffices = serving > 0 && serving * 100 >= usable * usize::from(share_pct);
    (!suffices).then(|| format!("{serving} of {usable} servers take new flows"))
}
