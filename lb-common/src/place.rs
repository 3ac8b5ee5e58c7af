//! Where an entry lies in a keyed table, and by which tag it is told from its neighbours: the same for the daemon that writes and the kernel
//! program that looks up. The line is [`Hash::index`] masked with the table's number of lines less one.

use crate::{
    address::Address,
    hash::{self, Hash},
    words::PortWord,
};

/// Of an address in `VIP_LINES`. The tag of an IPv4 address is the address itself.
#[inline(always)]
pub fn vip(address: &Address, key: u64) -> Hash {
    let hash = hash::address(address, key);
    if address.is_v4() { Hash { tag: address.v4_word(), ..hash } } else { hash }
}

/// Of a VIP's port in `PORT_LINES`, whose entries hold the whole key: the tag is not used. `port` is in host order.
#[inline(always)]
pub const fn port(vip: u16, port: u16, protocol: u8, key: u64) -> Hash {
    hash::word(PortWord::new(vip, port, protocol, 0).0, key)
}

/// Of a plane in `NAT_ENDPOINTS`. `server_port` is the wire's bytes.
#[inline(always)]
pub fn endpoint(server: &Address, snat: &Address, server_port: u16, protocol: u8, key: u64) -> Hash {
    hash::pair(server, snat, (server_port as u32) << 16 | protocol as u32, key)
}

#[cfg(test)]
mod tests {
    use core::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    #[test]
    fn an_ipv4_address_is_its_own_tag_and_an_ipv6_one_is_told_by_all_its_bits() {
        let v4 = Address::from(Ipv4Addr::new(192, 0, 2, 1));
        assert_eq!(vip(&v4, 7).tag, v4.v4_word());
        let v6 = |last| vip(&Address::from(Ipv6Addr::new(0x2001, 0xdb8, last, 0, 0, 0, 0, 1)), 7);
        assert_ne!(v6(0).tag, v6(1).tag);
    }

    #[test]
    fn an_endpoint_depends_on_port_protocol_and_direction() {
        let (a, b) = (Address::from(Ipv4Addr::new(10, 0, 0, 1)), Address::from(Ipv4Addr::new(10, 0, 0, 2)));
        let tcp = endpoint(&a, &b, 80, 6, 7);
        for other in [endpoint(&a, &b, 80, 17, 7), endpoint(&a, &b, 81, 6, 7), endpoint(&b, &a, 80, 6, 7), endpoint(&a, &b, 80, 6, 8)] {
            assert_ne!(tcp, other);
        }
    }
}
