//! Where each key lies in the tables of lines: one function a table, for the kernel that looks up and the daemon that writes.

use crate::{
    address::Address,
    hash::{self, Hash},
    maps::Service,
    words::{PortWord, VipWord},
};

/// Where an address lies in `VIP_LINES`: its line before masking, and its tag (the address itself when it is IPv4).
#[inline(always)]
pub fn vip(address: &Address, key: u64) -> Hash {
    let hash = hash::address(address, key);
    if address.is_v4() { Hash { tag: address.v4_word(), ..hash } } else { hash }
}

/// Whether an entry of `VIP_LINES` may be for an address of this tag and family.
#[inline(always)]
pub const fn vip_matches(word: VipWord, tag: u32, is_v4: bool) -> bool {
    word.tag() == tag && word.index() != 0 && (word.flags() & VipWord::IPV6 == 0) == is_v4
}

/// The line of `PORT_LINES` that names a service, before masking.
#[inline(always)]
pub const fn port(vip: u16, port: u16, protocol: u8, key: u64) -> u32 {
    hash::word(PortWord::new(vip, port, protocol, 0).0, key).index
}

/// Where a NAT endpoint lies in `NAT_ENDPOINTS`. `server_port` is wire bytes.
#[inline(always)]
pub fn nat_endpoint(server: &Address, server_port: u16, snat: &Address, protocol: u8, key: u64) -> Hash {
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
