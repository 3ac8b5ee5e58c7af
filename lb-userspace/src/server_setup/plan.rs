//! From what is wanted and what the host is like to the changes to make. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    path::PathBuf,
};

use lb_common::maps::DecapSettings;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::record::{ChangedSetting, RECORD_VERSION, Record};
use crate::netlink::{AssignedAddress, Link};

/// How packets come from the load balancer: the pool's `forward`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tunnel {
    /// As the client sent them, to this host's Ethernet address.
    Dsr,
    /// Inside IP.
    Ipip,
    /// Inside UDP to this port.
    Gue(u16),
}

/// What opens tunnels.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Way {
    /// Weir's program on the interface.
    Xdp,
    /// The kernel's tunnel devices, which the operator makes.
    Kernel,
}

/// What is wanted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Request {
    /// Where packets of the load balancer come in.
    pub interface: String,
    /// The addresses to serve.
    pub vips: BTreeSet<IpAddr>,
    /// How packets come.
    pub tunnel: Tunnel,
    /// What opens tunnels.
    pub way: Way,
}

/// What the host is like.
#[derive(Clone, Default, Debug)]
pub struct Facts {
    /// Its interfaces.
    pub links: Vec<Link>,
    /// Its addresses.
    pub addresses: Vec<AssignedAddress>,
    /// Those of [`setting_names`] that exist.
    pub settings: BTreeMap<String, u32>,
}

/// Why a host is not set up as requested.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum Refusal {
    /// No such interface.
    #[error("interface {0} does not exist\nhint: see ip link")]
    NoInterface(String),
    /// Packets of others do not come in there.
    #[error("interface {0} is the loopback interface\nhint: name the one that packets of the load balancer come in by")]
    Loopback(String),
    /// Its frames have no Ethernet header.
    #[error("interface {0} is no Ethernet interface: weir_decap cannot read its frames\nhint: --decap kernel")]
    NoEthernet(String),
    /// Addresses of an interface that is down are not served.
    #[error("the loopback interface is down\nhint: ip link set lo up")]
    LoopbackDown,
    /// It would be answered for.
    #[error(
        "{vip} is an address of {interface}, which answers ARP and neighbour solicitations for it\nhint: ip address del {vip} dev {interface}"
    )]
    OnInterface {
        /// The VIP.
        vip: IpAddr,
        /// The interface.
        interface: String,
    },
    /// No host's address.
    #[error("{0} cannot be the address of a service")]
    NotUnicast(IpAddr),
    /// It is set up otherwise.
    #[error("this host is set up for {tunnel} on {interface} already\nhint: weir server-setup remove, then add")]
    Otherwise {
        /// How.
        tunnel: Tunnel,
        /// Where.
        interface: String,
    },
}

impl Tunnel {
    /// Which tunnels `weir_decap` is to open; none if there are none to open.
    #[must_use]
    pub const fn decap_settings(self) -> Option<DecapSettings> {
        match self {
            Self::Dsr => None,
            Self::Ipip => Some(DecapSettings::IPIP),
            Self::Gue(port) => Some(DecapSettings::gue(port)),
        }
    }
}

impl std::fmt::Display for Tunnel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Dsr => f.write_str("dsr"),
            Self::Ipip => f.write_str("ipip"),
            Self::Gue(port) => write!(f, "gue to port {port}"),
        }
    }
}

const ALL: &str = "all";
const STRICT: u32 = 1;
const LOOSE: u32 = 2;

fn setting_name(device: &str, setting: &str) -> String {
    format!("ipv4/conf/{device}/{setting}")
}

/// The settings that a plan looks at.
#[must_use]
pub fn setting_names(interface: &str) -> Vec<String> {
    let devices = [ALL, interface];
    devices.iter().flat_map(|device| ["arp_ignore", "arp_announce", "rp_filter"].map(|setting| setting_name(device, setting))).collect()
}

/// The record of the host once it is set up as requested: the changes of `earlier` and those that are missing.
///
/// # Errors
/// [`Refusal`].
pub fn plan(request: &Request, facts: &Facts, earlier: Option<&Record>) -> Result<Record, Refusal> {
    check(request, facts, earlier)?;
    let mut record = earlier.cloned().unwrap_or_else(|| Record {
        version: RECORD_VERSION,
        interface: request.interface.clone(),
        tunnel: request.tunnel,
        way: request.way,
        vips: BTreeSet::new(),
        added: BTreeSet::new(),
        settings: vec![],
        pins: PathBuf::new(),
        outer: None,
    });
    let is_assigned = |vip: &IpAddr| facts.addresses.iter().any(|assigned| assigned.address == *vip);
    record.added.extend(request.vips.iter().filter(|vip| !is_assigned(vip)));
    record.vips.extend(&request.vips);
    for setting in changes(&request.interface, &record.vips, &facts.settings) {
        match record.settings.iter_mut().find(|known| known.name == setting.name) {
            // Somebody changed it meanwhile: what it was at first is what it has to be at last.
            Some(known) => known.after = setting.after,
            None => record.settings.push(setting),
        }
    }
    Ok(record)
}

fn check(request: &Request, facts: &Facts, earlier: Option<&Record>) -> Result<(), Refusal> {
    let interface = &request.interface;
    let Some(link) = facts.links.iter().find(|link| link.name == *interface) else { return Err(Refusal::NoInterface(interface.clone())) };
    if link.is_loopback {
        return Err(Refusal::Loopback(interface.clone()));
    }
    if request.tunnel != Tunnel::Dsr && request.way == Way::Xdp && link.mac.is_none() {
        return Err(Refusal::NoEthernet(interface.clone()));
    }
    if !facts.links.iter().any(|link| link.is_loopback && link.is_up) {
        return Err(Refusal::LoopbackDown);
    }
    if let Some(&vip) = request.vips.iter().find(|vip| vip.is_unspecified() || vip.is_multicast() || vip.is_loopback()) {
        return Err(Refusal::NotUnicast(vip));
    }
    let is_answered_for = |assigned: &&AssignedAddress| assigned.ifindex == link.ifindex && request.vips.contains(&assigned.address);
    if let Some(assigned) = facts.addresses.iter().find(is_answered_for) {
        return Err(Refusal::OnInterface { vip: assigned.address, interface: interface.clone() });
    }
    let is_same = |record: &Record| (&record.interface, record.tunnel, record.way) == (interface, request.tunnel, request.way);
    match earlier {
        Some(record) if !is_same(record) => Err(Refusal::Otherwise { tunnel: record.tunnel, interface: record.interface.clone() }),
        _ => Ok(()),
    }
}

/// The settings that are not as they have to be.
pub(crate) fn changes(interface: &str, vips: &BTreeSet<IpAddr>, settings: &BTreeMap<String, u32>) -> Vec<ChangedSetting> {
    if !vips.iter().any(IpAddr::is_ipv4) {
        return vec![];
    }
    let value = |device: &str, setting: &str| settings.get(&setting_name(device, setting)).copied();
    let changed = |device: &str, setting: &str, before, after| ChangedSetting { name: setting_name(device, setting), before, after };
    let mut changes = vec![];
    for device in [ALL, interface] {
        // 1: answer only for addresses of the link that asks; 2: also only to its subnet; 8: never. The larger of the two counts. 0 and 3
        // answer for a VIP on lo. linux Documentation/networking/ip-sysctl.rst.
        if let Some(before) = value(device, "arp_ignore").filter(|value| ![1, 2, 8].contains(value)) {
            changes.push(changed(device, "arp_ignore", before, 1));
        }
        // 2: ask only in the name of an address of the link that asks.
        if let Some(before) = value(device, "arp_announce").filter(|&value| value != 2) {
            changes.push(changed(device, "arp_announce", before, 2));
        }
    }
    // The larger of the two counts, so that loose on the interface is enough.
    if let Some(before) = value(interface, "rp_filter").filter(|&before| before.max(value(ALL, "rp_filter").unwrap_or(0)) == STRICT) {
        changes.push(changed(interface, "rp_filter", before, LOOSE));
    }
    changes
}

#[cfg(test)]
mod tests;
