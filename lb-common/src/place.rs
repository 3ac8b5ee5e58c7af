//! Where each key lies in the tables of lines: one function a table, for the kernel that looks up and the daemon that writes.

use crate::{
    address::Address,
    hash::{self, Hash},
    maps::Service,
    words::VipWord,
};

/// Where an address lies in `VIP_LINES`: its line before masking, and its tag (the address itself when it is IPv4).
#[inline(always)]
pub fn vip(address: &Address, key: u64) -> Hash {
    let hash = hash::configured(address, 0, key);
    if address.is_v4() { Hash { tag: address.v4_word(), ..hash } } else { hash }
}

/// Whether an entry of `VIP_LINES` may be for an address of this tag and family. An empty one seems to be for the IPv4 address 0.0.0.0: its index
/// is 0.
#[inline(always)]
pub const fn vip_matches(word: VipWord, tag: u32, is_v4: bool) -> bool {
    const TAG_AND_FAMILY: u64 = VipWord::new(u32::MAX, 0, VipWord::IPV6).0;
    word.0 & TAG_AND_FAMILY == VipWord::new(tag, 0, if is_v4 { 0 } else { VipWord::IPV6 }).0
}

/// Where a VIP's port lies in `PORT_LINES`, whose entries hold the whole key: the tag is not used. `port` is in host order.
///
/// By the address, although an entry holds the number of the VIP: so the CPU fetches the line while it still looks the address up.
#[inline(always)]
pub const fn port(vip: &Address, port: u16, protocol: u8, key: u64) -> Hash {
    hash::configured(vip, (protocol as u32) << 16 | port as u32, key)
}

/// Where a plane lies in `NAT_ENDPOINTS`. `server_port` is wire bytes; 0 for a plane of every port.
#[inline(always)]
pub fn endpoint(server: &Address, snat: &Address, server_port: u16, protocol: u8, key: u64) -> Hash {
    hash::pair(server, snat, (server_port as u32) << 16 | protocol as u32, key)
}

/// An entry of `NAT_ENDPOINTS`.
#[inline(always)]
pub const fn endpoint_word(tag: u32, plane: u16) -> u64 {
    (tag as u64) << 32 | plane as u64
}

/// Where a flow lies in `FLOWS` or `NAT_LINES`. Of the service only its incarnation counts, so a service made anew starts with no flows.
#[inline(always)]
pub fn flow(source: &Address, ports: u32, service: &Service, key: u64) -> Hash {
    hash::endpoint(source, ports, service.incarnation ^ key)
}

/// The second line where what hashes so may lie: another one than the first in any table of more than one line.
#[inline(always)]
pub const fn second_line(hash: Hash, mask: u32) -> u32 {
    (hash.index ^ (hash.tag.wrapping_mul(0x5bd1_e995) >> 7 | 1)) & mask
}

/// The first line where what hashes so may lie.
#[inline(always)]
pub const fn first_line(hash: Hash, mask: u32) -> u32 {
    hash.index & mask
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
