//! The daemon and this host's interfaces: those of the configuration are taken, and packets leave by all.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "the part of the daemon that meets the interfaces")]

use std::collections::BTreeMap;

use lb_common::maps::LinkInfo;
use tracing::{info, warn};

use super::{
    daemon_io::Daemon,
    report::{Trouble, in_words},
};
use crate::{
    dataplane::PinDir,
    netlink::{Link, links::Xdp},
};

impl Daemon {
    /// Lets packets leave by every link of this host, attaches where one of ours is there and not taken, and learns how they are attached.
    pub(super) fn take_links(&mut self, links: &[Link]) {
        let (ours, others): (Vec<&Link>, Vec<&Link>) = links.iter().partition(|link| self.config.node.interfaces.contains(&link.name));
        let mut troubles: BTreeMap<String, Trouble> = ours.iter().filter_map(|link| Some((link.name.clone(), trouble_of(link)?))).collect();
        for name in self.config.node.interfaces.iter().filter(|name| !ours.iter().any(|link| link.name == **name)) {
            troubles.insert(name.clone(), Trouble::Absent);
            if self.report.troubled_interfaces.get(name) != Some(&Trouble::Absent) {
                warn!(interface = name, "the interface does not exist; it is taken when it appears");
            }
        }
        let pins = PinDir::at(&self.config.node.pin_dir);
        // Another directory is in its place, or none: the links belong to whoever loads next.
        let is_lost = pins.identity() != self.pins;
        for link in &ours {
            let is_known = self.dataplane.interfaces().get(&link.name).is_some_and(|&known| known == link.ifindex);
            if is_lost || is_known && pins.is_linked(&link.name) {
                continue;
            }
            match self.dataplane.add_interface(&link.name) {
                Ok(()) => info!(interface = link.name, "the interface is taken"),
                Err(error) => {
                    let trouble = Trouble::Refused(in_words(&error));
                    if self.report.troubled_interfaces.get(&link.name) != Some(&trouble) {
                        warn!(interface = link.name, error = in_words(&error), "the interface is there and is not taken");
                    }
                    troubles.insert(link.name.clone(), trouble);
                }
            }
        }
        if let Err(error) = self.dataplane.applier().forget_interfaces(&links.iter().map(|link| link.ifindex).collect()) {
            warn!(error = in_words(&error), "interfaces that are gone are not forgotten");
        }
        for link in ours.iter().chain(&others) {
            let Some(mac) = link.mac.filter(|_| !link.is_loopback) else { continue };
            let words = [0, 2, 4].map(|at| u16::from_ne_bytes([mac[at], mac[at + 1]]));
            let mtu = u16::try_from(link.mtu).unwrap_or(u16::MAX);
            if let Err(error) = self.dataplane.applier().allow_interface(link.ifindex, LinkInfo { mac: words, mtu }) {
                warn!(interface = link.name, error = in_words(&error), "no packet can leave by this interface");
            }
        }
        let mode = |link: &Link| match link.xdp {
            Some(Xdp::Native) => "native",
            Some(Xdp::Generic) => "generic",
            None => "detached",
        };
        self.report.troubled_interfaces = troubles;
        self.links = links.iter().map(|link| (link.ifindex, link.name.clone())).collect();
        self.taken = ours.iter().map(|link| link.ifindex).collect();
        self.report.interfaces = ours.iter().map(|link| (link.name.clone(), mode(link).into())).collect();
    }
}

fn trouble_of(link: &Link) -> Option<Trouble> {
    match (link.is_up, link.has_carrier) {
        (false, _) => Some(Trouble::Down),
        (true, false) => Some(Trouble::NoCarrier),
        (true, true) => None,
    }
}
