//! The addresses of a virtual router.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use super::terms::{Family, RouterId};

/// The count in an advert has 8 bits (RFC 9568 s5.2.5).
pub const MOST_ADDRESSES: usize = 255;

/// RFC 9568 s5.1.1.2: the group of all VRRP routers.
pub const GROUP4: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 18);
/// RFC 9568 s5.1.2.2.
pub const GROUP6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x12);

/// Where adverts go that everybody shall hear.
#[must_use]
pub const fn group(family: Family) -> IpAddr {
    match family {
        Family::V4 => IpAddr::V4(GROUP4),
        Family::V6 => IpAddr::V6(GROUP6),
    }
}

/// RFC 9568 s7.3: the link-layer address of a virtual router.
#[must_use]
pub const fn virtual_mac(router: RouterId, family: Family) -> [u8; 6] {
    let family = match family {
        Family::V4 => 1,
        Family::V6 => 2,
    };
    [0, 0, 0x5e, 0, family, router.number()]
}

/// At most 255 different addresses of one family, in the order that was given.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AddressList {
    addresses: Arc<[IpAddr]>,
}

/// Why addresses are no such list.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum AddressListError {
    /// More than an advert can count.
    #[error("a virtual router has at most 255 addresses, not {0}")]
    TooMany(usize),
    /// Of both families.
    #[error("a virtual router has addresses of one family, and {0} is of another than the first")]
    Mixed(IpAddr),
    /// Twice the same.
    #[error("address {0} is given twice")]
    Twice(IpAddr),
}

impl AddressList {
    /// The list of these; empty while there is none.
    ///
    /// # Errors
    /// If they are too many, of two families, or not different.
    pub fn new(addresses: &[IpAddr]) -> Result<Self, AddressListError> {
        if addresses.len() > MOST_ADDRESSES {
            return Err(AddressListError::TooMany(addresses.len()));
        }
        let mut seen = BTreeSet::new();
        for address in addresses {
            if address.is_ipv4() != addresses[0].is_ipv4() {
                return Err(AddressListError::Mixed(*address));
            }
            if !seen.insert(address) {
                return Err(AddressListError::Twice(*address));
            }
        }
        Ok(Self { addresses: addresses.into() })
    }

    /// What an advert says, which may hold an address twice.
    pub(super) fn heard(addresses: Vec<IpAddr>) -> Self {
        Self { addresses: addresses.into() }
    }

    /// In the order given.
    #[must_use]
    pub fn as_slice(&self) -> &[IpAddr] {
        &self.addresses
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.addresses.is_empty()
    }

    /// Whether it has this one.
    #[must_use]
    pub fn contains(&self, address: &IpAddr) -> bool {
        self.addresses.contains(address)
    }

    /// Whether another has the same addresses, in whatever order.
    #[must_use]
    pub fn is_same_set(&self, other: &Self) -> bool {
        self.addresses == other.addresses || self.addresses.iter().collect::<BTreeSet<_>>() == other.addresses.iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_of_one_family_without_doubles_and_fits_an_advert() {
        let four: IpAddr = "192.0.2.1".parse().unwrap();
        let six: IpAddr = "2001:db8::1".parse().unwrap();
        assert_eq!(AddressList::new(&[four, six]), Err(AddressListError::Mixed(six)));
        assert_eq!(AddressList::new(&[four, four]), Err(AddressListError::Twice(four)));
        let many: Vec<IpAddr> = (0..=255).map(|last| IpAddr::V4(Ipv4Addr::new(10, 0, 0, last))).collect();
        assert_eq!(AddressList::new(&many), Err(AddressListError::TooMany(256)));
        assert_eq!(AddressList::new(&many[..255]).unwrap().as_slice(), &many[..255]);
        let backwards: Vec<IpAddr> = many[..255].iter().rev().copied().collect();
        assert!(AddressList::new(&backwards).unwrap().is_same_set(&AddressList::new(&many[..255]).unwrap()));
    }
}
