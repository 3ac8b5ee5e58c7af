//! The macvlans of routers that have a link-layer address of their own (RFC 9568 s7.3), and the kernel program's knowledge of these.
//!
//! One is there as long as its router, and up while that has addresses: to make one takes the kernel longer than to turn it on.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "changes links and their settings")]

use std::{collections::BTreeSet, io, path::Path};

use lb_common::maps::VirtualMacs;

use super::{
    desk::{Desk, LinkState, Macvlan},
    kernel_io::Kernel,
};
use crate::{
    dataplane::{PinDir, Tables},
    netlink::sysctl_io::{set, setting},
    vrrp::terms::Family,
};

/// Values of `arp_ignore` (linux Documentation/networking/ip-sysctl.rst): the interface's own addresses are answered for, or none.
const OWN: u32 = 1;
const NOTHING: u32 = 8;

/// What came of it.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// Links are others now.
    pub(super) has_changed: bool,
    /// Routers whose macvlan is refused, and why.
    pub(super) refused: Vec<(String, String)>,
}

/// What the macvlans of a node are marked with.
fn alias(socket: &Path) -> String {
    // Longer ones are refused (linux include/uapi/linux/if.h, IFALIASZ).
    format!("weir {}", socket.display()).chars().take(200).collect()
}

/// Removes those that a speaker left when it was killed.
///
/// # Errors
/// What the kernel refuses.
pub(super) fn sweep(socket: &Path) -> io::Result<()> {
    let mut kernel = Kernel::open()?;
    let left = kernel.aliased(&alias(socket))?;
    left.into_iter().try_for_each(|ifindex| kernel.remove_link(ifindex))
}

/// Those that this process made or found.
#[derive(Debug)]
pub(super) struct Macvlans {
    alias: String,
    /// Those that say nothing, for another node does.
    silent: BTreeSet<String>,
    made: BTreeSet<String>,
    /// What the program knows.
    told: Option<VirtualMacs>,
}

impl Macvlans {
    /// Of the node with this socket.
    pub(super) fn of(socket: &Path) -> Self {
        Self { alias: alias(socket), silent: BTreeSet::new(), made: BTreeSet::new(), told: None }
    }

    /// Makes links what they are to be; those that are leave no call.
    pub(super) fn set(&mut self, desk: &Desk, kernel: &mut Kernel) -> Outcome {
        let wanted = desk.macvlans();
        let mut outcome = Outcome::default();
        // The program takes the frames that the first word of an interface draws here.
        self.tell(desk, &wanted);
        let gone: Vec<String> = self.made.iter().filter(|name| wanted.iter().all(|one| one.name != **name)).cloned().collect();
        for name in gone {
            self.made.remove(&name);
            if let Some(link) = desk.link(&name).filter(|link| link.macvlan_on.is_some()) {
                outcome.has_changed |= kernel.remove_link(link.ifindex).is_ok();
            }
        }
        for one in &wanted {
            match self.set_one(one, desk, kernel) {
                Ok(has_changed) => outcome.has_changed |= has_changed,
                Err(error) => {
                    let words = format!("macvlan {} on {} is refused: {error}", one.name, one.interface);
                    outcome.refused.push((one.router.clone(), words));
                }
            }
        }
        outcome
    }

    /// Has one say nothing until its router is active again: answers to neighbours and reports of multicast groups have the address that frames go by, and
    /// a switch would send them here.
    pub(super) fn silence(&mut self, name: &str, ifindex: u32, kernel: &mut Kernel) {
        // Of many addresses the first has it silent already. What fails costs the frames until the other's next advert.
        if !self.silent.contains(name) && kernel.silence(ifindex).is_ok() {
            self.silent.insert(name.to_owned());
        }
    }

    /// Whether it changed.
    fn set_one(&mut self, one: &Macvlan, desk: &Desk, kernel: &mut Kernel) -> io::Result<bool> {
        // Without the link below the router has a fault already.
        let Some(lower) = desk.link(&one.interface) else { return Ok(false) };
        let Some(link) = desk.link(&one.name) else {
            kernel.add_macvlan(&one.name, one.mac, lower.ifindex, &self.alias)?;
            self.made.insert(one.name.clone());
            settle(one)?;
            return Ok(true);
        };
        if !is_it(link, one, lower) {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "another interface has its name"));
        }
        // One that an earlier process left may be silent.
        if self.made.insert(one.name.clone()) {
            self.silent.insert(one.name.clone());
        }
        if one.is_up && self.silent.contains(&one.name) {
            kernel.unsilence(link.ifindex)?;
            self.silent.remove(&one.name);
        }
        if link.is_up == one.is_up {
            return Ok(false);
        }
        if one.is_up {
            settle(one)?;
        }
        kernel.set_up(link.ifindex, one.is_up)?;
        Ok(true)
    }

    /// Has the kernel program take frames to the addresses of routers that are active here, and of no others.
    fn tell(&mut self, desk: &Desk, wanted: &[Macvlan]) {
        let mut macs = VirtualMacs::NONE;
        wanted.iter().filter(|one| one.is_up).for_each(|one| macs.insert(one.mac));
        // An earlier process may have left some.
        if self.told == Some(macs) {
            return;
        }
        // Without a data plane there is nobody to tell, until one is there.
        self.told = Tables::set_virtual_macs(&PinDir::at(desk.pin_dir()), &macs).is_ok().then_some(macs);
    }

    /// Each second: has what the program knows written again, for it believes it only so long, and may be another one.
    pub(super) fn doubt(&mut self) {
        if self.told != Some(VirtualMacs::NONE) {
            self.told = None;
        }
    }
}

fn is_it(link: &LinkState, one: &Macvlan, lower: &LinkState) -> bool {
    link.macvlan_on == Some(lower.ifindex) && link.mac == Some(one.mac)
}

/// The settings without which neighbours would learn the address of the link below, or packets be dropped.
fn settle(one: &Macvlan) -> io::Result<()> {
    let write = |name: String, value: u32| set(&name, value).map_err(io::Error::other);
    let (name, lower) = (&one.name, &one.interface);
    // It answers for its own addresses; one of IPv6 has none of IPv4, and answers for nothing: the host has others, which neighbours would look for here.
    write(format!("ipv4/conf/{name}/arp_ignore"), if one.family == Family::V4 { OWN } else { NOTHING })?;
    match one.family {
        Family::V4 => {
            // Answers to clients leave by the link below. The greater value of this and of `all` counts: 2, loose, is milder than 1 there.
            write(format!("ipv4/conf/{name}/rp_filter"), 2)?;
            // Only for its own addresses does the link below answer, and only with these does it ask.
            for (key, least) in [("arp_ignore", 1), ("arp_announce", 2)] {
                let place = format!("ipv4/conf/{lower}/{key}");
                if setting(&place).map_err(io::Error::other)?.is_some_and(|value| value < least) {
                    write(place, least)?;
                }
            }
            let place = format!("ipv6/conf/{name}/disable_ipv6");
            if matches!(setting(&place), Ok(Some(_))) { write(place, 1) } else { Ok(()) }
        }
        // Every node would give itself the same link-local address, and those that a router of the link advertises.
        Family::V6 => {
            write(format!("ipv6/conf/{name}/addr_gen_mode"), 1)?;
            write(format!("ipv6/conf/{name}/accept_ra"), 0)
        }
    }
}
