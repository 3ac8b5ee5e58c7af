//! An address of this host, and the messages that add and remove one. Pure.

use std::net::IpAddr;

use rtnetlink::packet_route::{
    AddressFamily,
    address::{AddressAttribute, AddressFlags, AddressMessage, AddressProtocol, CacheInfo},
};

use super::WEIR_PROTOCOL;

/// An address on an interface.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct AssignedAddress {
    /// The address.
    pub address: IpAddr,
    /// The length of its prefix, in bits.
    pub prefix_len: u8,
    /// The interface.
    pub ifindex: u32,
    /// IPv6: duplicate detection has not ended, or has failed: nothing can be bound to it.
    pub is_tentative: bool,
    /// It has our mark: this daemon or an earlier one added it. Never true on a kernel before 5.18, which keeps no mark.
    pub is_ours: bool,
}

impl AssignedAddress {
    /// The address of an `RTM_NEWADDR` message.
    #[must_use]
    pub fn from_message(message: &AddressMessage) -> Option<Self> {
        let attributes = message.attributes.as_slice();
        let local = attributes.iter().find_map(|a| if let AddressAttribute::Local(ip) = a { Some(*ip) } else { None });
        // On a point-to-point link IFA_ADDRESS is the peer; IPv6 without a peer has no IFA_LOCAL.
        let address = attributes.iter().find_map(|a| if let AddressAttribute::Address(ip) = a { Some(*ip) } else { None });
        let waiting = AddressFlags::Tentative | AddressFlags::Dadfailed;
        Some(Self {
            address: local.or(address)?,
            prefix_len: message.header.prefix_len,
            ifindex: message.header.index,
            is_tentative: attributes.iter().any(|a| matches!(a, AddressAttribute::Flags(flags) if flags.intersects(waiting))),
            is_ours: attributes.contains(&AddressAttribute::Protocol(AddressProtocol::from(WEIR_PROTOCOL))),
        })
    }
}

/// The message that adds a VIP: a host address with our mark and no prefix route. IPv6: no duplicate detection, which would leave it unusable for a
/// second, and deprecated, so that the host does not choose it as the source of what it sends by itself (RFC 6724 s5 rule 3).
#[must_use]
pub fn vip(address: IpAddr, ifindex: u32) -> AddressMessage {
    let mut message = host(address, ifindex);
    let nodad = if address.is_ipv6() { AddressFlags::Nodad } else { AddressFlags::empty() };
    if address.is_ipv6() {
        let mut lifetimes = CacheInfo::default();
        lifetimes.ifa_valid = u32::MAX;
        message.attributes.push(AddressAttribute::CacheInfo(lifetimes));
    }
    message.attributes.push(AddressAttribute::Flags(AddressFlags::Noprefixroute | nodad));
    message.attributes.push(AddressAttribute::Protocol(AddressProtocol::from(WEIR_PROTOCOL)));
    message
}

/// The message that names a host address (/32 or /128) on an interface.
#[must_use]
pub fn host(address: IpAddr, ifindex: u32) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    message.header.prefix_len = if address.is_ipv4() { 32 } else { 128 };
    message.header.index = ifindex;
    message.attributes = vec![AddressAttribute::Local(address), AddressAttribute::Address(address)];
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vip_is_a_host_address_with_our_mark() {
        for (text, prefix_len) in [("192.0.2.1", 32), ("2001:db8::1", 128)] {
            let address = text.parse().unwrap();
            assert_eq!(
                AssignedAddress::from_message(&vip(address, 4)),
                Some(AssignedAddress { address, prefix_len, ifindex: 4, is_tentative: false, is_ours: true })
            );
        }
    }

    #[test]
    fn the_local_address_of_a_point_to_point_link_is_not_its_peer() {
        let mut message = AddressMessage::default();
        message.attributes =
            vec![AddressAttribute::Address("10.0.0.2".parse().unwrap()), AddressAttribute::Local("10.0.0.1".parse().unwrap())];
        assert_eq!(AssignedAddress::from_message(&message).unwrap().address, "10.0.0.1".parse::<IpAddr>().unwrap());
    }
}
