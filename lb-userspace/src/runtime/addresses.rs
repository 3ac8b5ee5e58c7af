//! Which addresses Weir gives to this host and takes from it. Pure.
//!
//! Those that it added carry its mark. A kernel before 5.18 keeps no mark, so the daemon's record names them too.

use std::{collections::BTreeSet, net::IpAddr};

use crate::{
    config::model::{AddressPolicy, Config, Forward},
    netlink::AssignedAddress,
};

/// An address that Weir added, and the index of its interface.
pub(super) type Added = (IpAddr, u32);

/// What is to be done about addresses.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct AddressPlan {
    /// Those that the host has for itself.
    pub own: BTreeSet<IpAddr>,
    /// Those that Weir added, while they stay.
    pub kept: BTreeSet<Added>,
    /// Those that Weir added and nobody needs.
    pub stale: BTreeSet<Added>,
    /// SNAT addresses that no interface has: to be added before any packet leaves with them.
    pub snat: BTreeSet<IpAddr>,
    /// VIPs that no interface has: to be added once the maps answer for them.
    pub vips: BTreeSet<IpAddr>,
}

impl AddressPlan {
    /// Compares what this host has with what `config` wants. `recorded` are the addresses that the record says Weir added, `interfaces` the
    /// indexes of those that the configuration names: marked addresses of others are another Weir's. `translating` are the SNAT addresses of
    /// all planes in the maps: servers answer to them until their flows have ended.
    pub(super) fn new(
        config: &Config,
        assigned: &[AssignedAddress],
        recorded: &BTreeSet<Added>,
        interfaces: &BTreeSet<u32>,
        translating: &BTreeSet<IpAddr>,
    ) -> Self {
        let is_ours = |one: &AssignedAddress| {
            let is_host = one.prefix_len == if one.address.is_ipv4() { 32 } else { 128 };
            one.is_ours && interfaces.contains(&one.ifindex) || is_host && recorded.contains(&(one.address, one.ifindex))
        };
        // Those of virtual routers come and go by themselves.
        let of_routers = config.virtual_addresses();
        let own = assigned.iter().filter(|one| !one.is_ours && !is_ours(one) && !of_routers.contains(&one.address));
        let own = own.map(|one| one.address).collect();
        let ours = assigned.iter().filter(|one| is_ours(one)).map(|one| (one.address, one.ifindex));
        if config.node.addresses == AddressPolicy::Leave {
            return Self { own, kept: ours.collect(), ..Self::default() };
        }
        let but_for_routers = |addresses: BTreeSet<IpAddr>| addresses.difference(&of_routers).copied().collect::<BTreeSet<_>>();
        let (snat, vips) = (but_for_routers(snat_addresses(config)), but_for_routers(vips(config)));
        let (kept, stale) = ours.partition(|(address, _)| [&snat, &vips, translating].iter().any(|all| all.contains(address)));
        let is_missing = |address: &IpAddr| !assigned.iter().any(|one| one.address == *address);
        let snat: BTreeSet<IpAddr> = snat.into_iter().filter(is_missing).collect();
        let vips = vips.into_iter().filter(is_missing).filter(|address| !snat.contains(address)).collect();
        Self { own, kept, stale, snat, vips }
    }
}

fn vips(config: &Config) -> BTreeSet<IpAddr> {
    config.binds().map(|(bind, ..)| bind.address).collect()
}

/// Of the pools that a listener uses.
fn snat_addresses(config: &Config) -> BTreeSet<IpAddr> {
    let pools = config.listeners.values().filter_map(|listener| config.pools.get(&listener.pool));
    let snat = pools.filter_map(|pool| match &pool.forward {
        Forward::Nat { snat } => Some(snat),
        Forward::Dsr | Forward::Ipip | Forward::Gue { .. } => None,
    });
    snat.flatten().copied().collect()
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, net::IpAddr};

    use super::AddressPlan;
    use crate::{
        config::{ConfigText, model::Config},
        netlink::AssignedAddress,
    };

    fn config(node: &str) -> Config {
        let text = format!(
            "[node]\ninterfaces = \"eth0\"\n{node}\n[listener.a]\nmode = \"l4\"\nbind = [\"192.0.2.1:80\", \"192.0.2.2:80\"]\npool = \"a\"\n\
             [pool.a]\nsnat = \"192.0.2.9\"\nservers.s = \"10.0.0.1\"\n"
        );
        crate::config::parse(&ConfigText::new("weir.toml", text), "host").unwrap().0
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn assigned(address: &str, prefix_len: u8, ifindex: u32, is_ours: bool) -> AssignedAddress {
        AssignedAddress { address: ip(address), prefix_len, ifindex, is_tentative: false, is_ours }
    }

    #[test]
    fn what_no_interface_has_is_added_and_what_nobody_needs_removed() {
        let host = [
            assigned("10.0.0.254", 24, 2, false),
            assigned("192.0.2.1", 24, 3, false),
            assigned("192.0.2.7", 32, 2, true),
            assigned("2001:db8::7", 128, 2, true),
        ];
        let plan = AddressPlan::new(&config(""), &host, &BTreeSet::new(), &BTreeSet::from([2]), &BTreeSet::new());
        assert_eq!(plan.own, [ip("10.0.0.254"), ip("192.0.2.1")].into());
        assert_eq!(plan.stale, [(ip("192.0.2.7"), 2), (ip("2001:db8::7"), 2)].into());
        assert_eq!((plan.snat, plan.vips), ([ip("192.0.2.9")].into(), [ip("192.0.2.2")].into()));
        assert_eq!(plan.kept, BTreeSet::new());
    }

    #[test]
    fn a_record_stands_in_for_a_mark() {
        let host = [assigned("192.0.2.2", 32, 2, false), assigned("192.0.2.8", 32, 2, false), assigned("192.0.2.6", 24, 2, false)];
        let recorded = [(ip("192.0.2.2"), 2), (ip("192.0.2.8"), 2), (ip("192.0.2.6"), 2)].into();
        let plan = AddressPlan::new(&config(""), &host, &recorded, &BTreeSet::from([2]), &BTreeSet::new());
        assert_eq!((plan.kept, plan.stale), ([(ip("192.0.2.2"), 2)].into(), [(ip("192.0.2.8"), 2)].into()));
        assert_eq!(plan.own, [ip("192.0.2.6")].into(), "with another prefix it is somebody else's");
    }

    #[test]
    fn marked_addresses_of_interfaces_that_are_not_ours_are_left_alone() {
        let host = [assigned("192.0.2.7", 32, 9, true)];
        let plan = AddressPlan::new(&config(""), &host, &BTreeSet::new(), &BTreeSet::from([2]), &BTreeSet::new());
        assert_eq!((plan.stale, plan.own), (BTreeSet::new(), BTreeSet::new()));
    }

    #[test]
    fn an_address_stays_while_a_plane_has_it() {
        let host = [assigned("192.0.2.7", 32, 2, true), assigned("192.0.2.8", 32, 2, true)];
        let plan = AddressPlan::new(&config(""), &host, &BTreeSet::new(), &BTreeSet::from([2]), &BTreeSet::from([ip("192.0.2.7")]));
        assert_eq!((plan.kept, plan.stale), ([(ip("192.0.2.7"), 2)].into(), [(ip("192.0.2.8"), 2)].into()));
    }

    #[test]
    fn with_leave_nothing_is_touched() {
        let host = [assigned("192.0.2.7", 32, 2, true)];
        let plan = AddressPlan::new(&config("addresses = \"leave\""), &host, &BTreeSet::new(), &BTreeSet::from([2]), &BTreeSet::new());
        assert_eq!(plan, AddressPlan { kept: [(ip("192.0.2.7"), 2)].into(), ..AddressPlan::default() });
    }
}
