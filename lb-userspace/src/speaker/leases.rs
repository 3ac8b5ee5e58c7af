//! The addresses that this process gave the host.

use std::{collections::BTreeMap, net::IpAddr};

use super::order::AddressOrder;

/// By address and interface: one that moves is on both for a moment.
#[derive(Debug, Default)]
pub(super) struct Leases(BTreeMap<(IpAddr, String), AddressOrder>);

impl Leases {
    /// The host has it.
    pub(super) fn note(&mut self, address: &AddressOrder) {
        self.0.insert((address.address, address.device.clone()), address.clone());
    }

    /// Forgets an address, and gives it as it was given, whatever the order says of it by now. Without a prefix it is one that the order names no longer, and
    /// may be on any interface.
    pub(super) fn take(&mut self, address: &AddressOrder) -> AddressOrder {
        let named = (address.address, address.device.clone());
        let is_it = |(one, _): &&(IpAddr, String)| *one == address.address && address.prefix_len == 0;
        let elsewhere = || self.0.keys().find(is_it).cloned();
        let known = if self.0.contains_key(&named) { Some(named) } else { elsewhere() };
        // One that an earlier process gave is as the order has it.
        known.and_then(|key| self.0.remove(&key)).unwrap_or_else(|| address.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn on(device: &str, prefix_len: u8) -> AddressOrder {
        AddressOrder { address: "192.0.2.1".parse().unwrap(), prefix_len, device: device.into(), label: None }
    }

    #[test]
    fn an_address_is_taken_from_where_it_is_said_to_be() {
        let mut leases = Leases::default();
        leases.note(&on("eth0", 24));
        leases.note(&on("vrrp4-7", 24));
        assert_eq!(leases.take(&on("vrrp4-7", 32)), on("vrrp4-7", 24));
        // An earlier process gave it; the one on the other interface stays.
        assert_eq!(leases.take(&on("vrrp4-7", 32)), on("vrrp4-7", 32));
        assert_eq!(leases.take(&on("eth0", 32)), on("eth0", 24));
    }

    #[test]
    fn an_address_that_the_order_names_no_longer_is_taken_from_wherever_it_is() {
        let mut leases = Leases::default();
        leases.note(&on("vrrp4-7", 24));
        assert_eq!(leases.take(&on("eth0", 0)), on("vrrp4-7", 24));
        assert_eq!(leases.take(&on("eth0", 0)), on("eth0", 0));
    }
}
