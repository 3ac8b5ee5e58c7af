//! Checks through the data path: their ways are numbered and told to the kernel, and the programs that know them are on all interfaces that servers are
//! reached by.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "the part of the daemon that meets the kernel")]

use std::collections::{BTreeMap, BTreeSet};

use tracing::{info, warn};

use super::{daemon_io::Daemon, own_macs::stacked_upon, report::in_words};
use crate::{
    dataplane::{Detour, Hook, WaysError},
    health::{
        book::Wanted,
        target::Route,
        ways::{Told, Ways},
    },
    netlink::Link,
};

/// What the daemon keeps of these checks.
#[derive(Debug, Default)]
pub(super) struct Detours {
    ways: Ways,
    /// While a check takes one.
    loaded: Option<Detour>,
    /// The links of this host at the last look, and the interfaces that lead to servers.
    links: Vec<Link>,
    interfaces: BTreeMap<u32, String>,
}

impl Daemon {
    /// Has everything ready that these checks need of the kernel, and gives them their marks.
    pub(super) async fn prepare_ways(&mut self, wanted: &mut Wanted) {
        for (target, ..) in wanted.values_mut() {
            // Another host's, or wholly translation's, whose ports the kernel does not know: a probe could have that of a client's connection.
            if matches!(target.route, Route::From(source) if !self.own_addresses.contains(&source)) {
                target.route = Route::Direct;
            }
        }
        let are_none = wanted.values().all(|(target, ..)| !matches!(target.route, Route::Datapath(_)));
        if are_none {
            if self.detours.loaded.take().is_some() {
                info!("no check takes the data path any more");
            }
            self.detours.ways = Ways::default();
            self.report.ways_errors.clear();
            return;
        }
        let was_loaded = self.detours.loaded.is_some();
        if let Err(why) = self.number_ways(wanted) {
            let why = format!("checks through the data path are not made: {why}");
            if !self.report.ways_errors.contains(&why) {
                warn!("{why}");
            }
            self.report.ways_errors = vec![why.clone()];
            (self.detours.loaded, self.detours.ways) = (None, Ways::default());
            self.checks.set_witness(Err(why)).await;
        } else if !was_loaded && let Some(witness) = self.detours.loaded.as_ref().map(Detour::witness) {
            self.attach_ways();
            self.checks.set_witness(witness.map_err(|error| in_words(&error))).await;
        }
    }

    fn number_ways(&mut self, wanted: &mut Wanted) -> Result<(), String> {
        let told = self.detours.ways.number(wanted).map_err(|error| error.to_string())?;
        let failed = |error: WaysError| in_words(&error);
        if self.detours.loaded.is_none() {
            self.detours.loaded = Some(Detour::load(Hook::of_kernel()).map_err(failed)?);
        }
        let Some(detour) = &mut self.detours.loaded else { return Ok(()) };
        told.iter().try_for_each(|told| match told {
            Told::Set(mark, way) => detour.set(*mark, way).map_err(failed),
            Told::Gone(mark) => detour.remove(*mark).map_err(failed),
        })
    }

    /// This host's links are these.
    pub(super) fn follow_ways(&mut self, links: &[Link]) {
        self.detours.links = links.to_vec();
        self.attach_ways();
    }

    /// Attaches the programs wherever a server's packets may leave or its answers come in: to the interfaces of the configuration, to those of the
    /// servers' next hops, and to what is stacked upon these.
    pub(super) fn attach_ways(&mut self) {
        if self.detours.loaded.is_none() {
            return;
        }
        let hops = self.next_hops.next_hops();
        let ways = hops.values().filter_map(|hop| Some(hop.as_ref().ok()?.ifindex));
        let named = self.detours.links.iter().filter(|link| self.config.node.interfaces.contains(&link.name)).map(|link| link.ifindex);
        let leading: BTreeSet<u32> = ways.chain(named).collect();
        let all = stacked_upon(leading, &self.detours.links);
        let ethernet = self.detours.links.iter().filter(|link| all.contains(&link.ifindex) && link.mac.is_some() && !link.is_loopback);
        let interfaces: BTreeMap<u32, String> = ethernet.map(|link| (link.ifindex, link.name.clone())).collect();
        let is_known = interfaces == self.detours.interfaces && self.report.ways_errors.is_empty();
        let Some(detour) = &mut self.detours.loaded else { return };
        let refused: Vec<String> = detour.attach(&interfaces).iter().map(|error| in_words(error)).collect();
        if !is_known && refused.is_empty() {
            info!(interfaces = ?interfaces.values().collect::<Vec<_>>(), "checks take the data path");
        }
        for error in refused.iter().filter(|error| !self.report.ways_errors.contains(error)) {
            warn!(error, "checks do not take the data path by this interface");
        }
        self.detours.interfaces = interfaces;
        self.report.ways_errors = refused;
    }
}
