//! The ways of probes that take the data path: an ordinary socket connects to a server's own address, and what it sends is made into what the data
//! path would send, to a VIP. The records that say how, and the outer header of one packet.
//!
//! A socket names its way by its mark (`SO_MARK`): [`WAY_MARK`] and the way's number.

use bytemuck::{Pod, Zeroable};

use crate::{address::Address, checksum::Sum, maps::ForwardKind, packet::protocol};

/// The upper half of every mark that is ours.
pub const WAY_MARK: u32 = 0x5745_0000;
/// The bits by which such a mark is known.
pub const WAY_MARK_MASK: u32 = 0xffff_0000;
/// The most ways: as many as the lower half has numbers.
pub const WAYS_MAX: u32 = 1 << 16;
/// The most conversations that are known at a time; the oldest are forgotten. Twice what is under way at once.
pub const WAY_FLOWS_MAX: u32 = 1 << 14;
/// Words of the longest outer header: IPv6, UDP and GUE.
const OUTER_WORDS: usize = 7;
/// Bytes of the same.
pub const OUTER_BYTES: usize = OUTER_WORDS * 8;

/// What becomes of the packets of a marked socket.
///
/// | offset | size | field | order |
/// |---|---|---|---|
/// | 0 | 16 | VIP | network |
/// | 16 | 56 | outer header, its source zero if it is the packet's own | network |
/// | 72 | 4 | partial sum, as a prebuilt header has it | native |
/// | 76 | 1 | [`ForwardKind`] | – |
/// | 77 | 1 | whether the outer source is the packet's own | – |
/// | 78 | 2 | reserved | – |
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
pub struct Way {
    /// Where the packet goes instead of the server's own address.
    pub vip: Address,
    /// The prebuilt outer header.
    pub outer: [u64; OUTER_WORDS],
    /// Sum of what does not change of it: see [`Header`](crate::maps::Header).
    pub partial_sum: u32,
    /// How packets reach the server.
    pub kind: u8,
    /// 1 if the outer source is the packet's own.
    pub takes_source: u8,
    /// Zero.
    pub reserved: u16,
}

const _: () = assert!(size_of::<Way>() == 80 && core::mem::offset_of!(Way, outer) == 16);

/// A conversation with a server that answers as a VIP: what names it in its answers. Its value is the server's own [`Address`].
///
/// | offset | size | field | order |
/// |---|---|---|---|
/// | 0 | 16 | VIP | network |
/// | 16 | 16 | this host's address | network |
/// | 32 | 2 | VIP's port | network |
/// | 34 | 2 | this host's port | network |
/// | 36 | 1 | IP protocol | – |
/// | 37 | 3 | reserved | – |
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Pod, Zeroable)]
pub struct WayFlow {
    /// Who answers.
    pub vip: Address,
    /// To whom.
    pub own: Address,
    /// From which port, wire bytes.
    pub vip_port: u16,
    /// To which port, wire bytes.
    pub own_port: u16,
    /// 6 or 17.
    pub protocol: u8,
    /// Zero.
    pub reserved: [u8; 3],
}

const _: () = assert!(size_of::<WayFlow>() == 40);

impl WayFlow {
    /// With ports as they lie on the wire.
    #[inline(always)]
    pub const fn new(vip: Address, own: Address, ports: [u16; 2], protocol: u8) -> Self {
        Self { vip, own, vip_port: ports[0], own_port: ports[1], protocol, reserved: [0; 3] }
    }
}

/// What an outer header takes from the packet inside.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Inner {
    /// Who sends it.
    pub source: Address,
    /// The VIP.
    pub destination: Address,
    /// The first eight bytes of its IP header, as two native words.
    pub first: [u32; 2],
    /// Its length with its IP header, without options.
    pub ip_bytes: u16,
    /// Its traffic class.
    pub class: u8,
    /// 6 or 17.
    pub protocol: u8,
    /// Its source port, wire bytes.
    pub source_port: u16,
}

const IPV4: u16 = 20;
const IPV6: u16 = 40;
const GUE: u16 = 12;

/// The outer header of a packet with a valid checksum: the first [`ForwardKind::overhead`] bytes. The same as the data path's, but for the source port
/// of GUE, which spreads flows there.
#[inline(always)]
pub fn outer(way: &Way, inner: &Inner) -> [u8; OUTER_BYTES] {
    let mut bytes: [u8; OUTER_BYTES] = bytemuck::cast(way.outer);
    let mut sum = Sum::from_partial(way.partial_sum);
    let source = inner.source.words();
    let is_v4 = way.kind == ForwardKind::Ipip4 as u8 || way.kind == ForwardKind::Gue4 as u8;
    let is_gue = way.kind == ForwardKind::Gue4 as u8 || way.kind == ForwardKind::Gue6 as u8;
    let payload = inner.ip_bytes + if is_gue { GUE } else { 0 };
    if is_v4 {
        if way.takes_source != 0 {
            put4(&mut bytes, 12, source[3]);
            sum = sum.add32(source[3]);
        }
        let (length, class) = ((payload + IPV4).to_be(), (inner.class as u16).to_be());
        bytes[1] = inner.class;
        put2(&mut bytes, 2, length);
        put2(&mut bytes, 10, sum.add16(length).add16(class).checksum());
        if is_gue {
            put2(&mut bytes, 20, inner.source_port);
            // RFC 768: no checksum; the inner packet has its own.
            put2(&mut bytes, 24, payload.to_be());
        }
        return bytes;
    }
    if way.takes_source != 0 {
        put4(&mut bytes, 8, source[0]);
        put4(&mut bytes, 12, source[1]);
        put4(&mut bytes, 16, source[2]);
        put4(&mut bytes, 20, source[3]);
        sum = sum.add_words(source);
    }
    put4(&mut bytes, 0, (6_u32 << 28 | (inner.class as u32) << 20).to_be());
    put2(&mut bytes, 4, payload.to_be());
    if is_gue {
        let length = payload.to_be();
        put2(&mut bytes, 40, inner.source_port);
        put2(&mut bytes, 44, length);
        // Ports, length (of the pseudo-header, too) and GUE; then the packet inside.
        let target = u16::from_ne_bytes([bytes[42], bytes[43]]);
        let gue = u32::from_ne_bytes([bytes[48], bytes[49], bytes[50], bytes[51]]);
        let sum = sum.add16(length).add16(length).add16(inner.source_port).add16(target).add32(gue).add(inner_sum(inner));
        let checksum = sum.checksum();
        put2(&mut bytes, 46, if checksum == 0 { 0xffff } else { checksum });
    }
    bytes
}

/// The sum over the packet inside, from its headers alone: a segment with a valid checksum sums to the complement of its pseudo-header, an IPv4 header
/// to nothing. So it holds before a card has written that checksum, too.
#[inline(always)]
fn inner_sum(inner: &Inner) -> Sum {
    let is_v4 = inner.source.is_v4();
    let segment = (inner.ip_bytes - if is_v4 { IPV4 } else { IPV6 }).to_be();
    let sum = Sum::ZERO.remove16((inner.protocol as u16).to_be()).remove16(segment);
    if is_v4 {
        return sum.remove32(inner.source.v4_word()).remove32(inner.destination.v4_word());
    }
    // The addresses of the IPv6 header and of the pseudo-header cancel out.
    sum.add32(inner.first[0]).add32(inner.first[1])
}

/// Where the checksum of a protocol is in its header; none of one that is not probed with.
#[inline(always)]
pub const fn checksum_offset(protocol: u8) -> Option<usize> {
    match protocol {
        protocol::TCP => Some(16),
        protocol::UDP => Some(6),
        _ => None,
    }
}

#[inline(always)]
fn put2(bytes: &mut [u8; OUTER_BYTES], at: usize, value: u16) {
    let [a, b] = value.to_ne_bytes();
    (bytes[at], bytes[at + 1]) = (a, b);
}

#[inline(always)]
fn put4(bytes: &mut [u8; OUTER_BYTES], at: usize, value: u32) {
    let [a, b, c, d] = value.to_ne_bytes();
    (bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]) = (a, b, c, d);
}

#[cfg(test)]
mod tests;
