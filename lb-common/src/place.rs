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
