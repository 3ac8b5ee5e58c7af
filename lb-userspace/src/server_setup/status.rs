//! Whether a host is as its record says. Pure.

use std::net::IpAddr;

use serde::Serialize;

use super::{
    plan::{Facts, Tunnel, Way, changes},
    record::{ChangedSetting, Record},
};
use crate::dataplane::{DecapCount, LinkState};

/// A host that is set up.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Status {
    /// Where packets of the load balancer come in.
    pub interface: String,
    /// How they come.
    pub tunnel: Tunnel,
    /// What opens tunnels; none for dsr.
    pub decap: Option<Way>,
    /// The addresses that are served.
    pub vips: Vec<IpAddr>,
    /// What is not as it has to be; `weir server-setup add` as before makes it so.
    pub faults: Vec<String>,
    /// What became of tunnelled packets.
    pub counts: Vec<Count>,
}

/// Packets of one outcome.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Count {
    /// A [`lb_common::reason::Decap`]'s word.
    pub outcome: &'static str,
    /// What that means.
    pub meaning: &'static str,
    /// How many.
    pub packets: u64,
    /// Their frames.
    pub bytes: u64,
}

impl Status {
    /// Compares a record with its host.
    #[must_use]
    pub fn of(record: &Record, facts: &Facts, links: &[(String, LinkState)], counts: &[DecapCount]) -> Self {
        let mut faults = vec![];
        let is_assigned = |vip: &&IpAddr| facts.addresses.iter().any(|assigned| assigned.address == **vip);
        faults.extend(record.vips.iter().filter(|vip| !is_assigned(vip)).map(|vip| format!("{vip} is no address of this host")));
        if !facts.links.iter().any(|link| link.name == record.interface && link.is_usable()) {
            faults.push(format!("interface {} is down or does not exist", record.interface));
        }
        for setting in changes(&record.interface, &record.vips, &facts.settings) {
            let ChangedSetting { name, before, after } = setting;
            faults.push(format!("net/{name} is {before}, not {after}"));
        }
        let is_opened_here = record.way == Way::Xdp && record.tunnel != Tunnel::Dsr;
        if is_opened_here && !links.contains(&(record.interface.clone(), LinkState::Attached)) {
            faults.push(format!("weir_decap is not attached to {}", record.interface));
        }
        Self {
            interface: record.interface.clone(),
            tunnel: record.tunnel,
            decap: (record.tunnel != Tunnel::Dsr).then_some(record.way),
            vips: record.vips.iter().copied().collect(),
            faults,
            counts: counts.iter().map(Count::of).collect(),
        }
    }
}

impl Count {
    fn of(count: &DecapCount) -> Self {
        let DecapCount { outcome, traffic } = *count;
        let meaning = outcome.explanation().trim();
        Self { outcome: outcome.word(), meaning, packets: traffic.packets, bytes: traffic.bytes }
    }
}
