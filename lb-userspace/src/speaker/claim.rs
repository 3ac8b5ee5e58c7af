//! What others say of where addresses are: ARP and neighbour advertisements that name an address of this node, and the filter that has the kernel give
//! only these. Pure.
//!
//! ```text
//! ARP (RFC 826), behind 14 bytes of Ethernet      NA (RFC 4861 s4.4), behind 14 bytes of Ethernet and 40 of IPv6
//! 14 hardware 1 | 16 protocol 0x0800               54 type 136 | 55 code 0 | 56 checksum | 58 flags
//! 18 lengths 6, 4 | 20 operation                   62 target
//! 22 sender's MAC | 28 sender's address            78 options: type, length in 8 bytes, value
//! ```

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use super::frames::{ETHERTYPE_ARP, ETHERTYPE_IPV6};
use crate::vrrp::terms::Family;

/// So much of a frame is read: an advertisement with its first options.
pub const FRAME_BYTES: usize = 256;
/// With more addresses or link-layer addresses the filter lets all announcements pass: they are compared here as well. The kernel takes 4096 instructions,
/// and of memory what `net.core.optmem_max` says (20 kB before linux v6.7): an address of IPv6 costs nine of eight bytes.
const MOST_EXACT: usize = 128;

const ICMPV6: u8 = 58;
const ADVERTISEMENT: u8 = 136;
/// RFC 4861 s7.1.2: what came by a router is no neighbour's.
const HOP_LIMIT: u8 = 255;
/// RFC 4861 s4.6.1.
const TARGET_MAC: u8 = 2;
const NETWORK: usize = 14;
const IPV6_HEADER: usize = 40;
/// The hardware, the protocol, and the lengths of their addresses.
const ARP_OF_IPV4: [u8; 6] = [0, 1, 0x08, 0, 6, 4];

/// Somebody says that an address is at this link-layer address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Claim {
    /// Whose place is told.
    pub address: IpAddr,
    /// The place.
    pub mac: [u8; 6],
}

/// What is listened for on a link.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Watch {
    /// The link.
    pub ifindex: u32,
    /// Addresses that this node has.
    pub addresses: BTreeSet<IpAddr>,
    /// Whose own words count for nothing.
    pub own: BTreeSet<[u8; 6]>,
}

/// An instruction of classic BPF (linux Documentation/networking/filter.rst).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Instruction {
    /// What it does.
    pub code: u16,
    /// How many are skipped if a comparison holds.
    pub if_so: u8,
    /// How many are skipped if it does not.
    pub if_not: u8,
    /// Its operand.
    pub value: u32,
}

/// The claim that a frame of Ethernet (without a tag of a VLAN, at most [`FRAME_BYTES`] of it) makes, if it makes one. A probe (RFC 5227 s1.1) names no address of its sender.
#[must_use]
pub fn claim_of(frame: &[u8]) -> Option<Claim> {
    let ethertype: [u8; 2] = array(frame, 12)?;
    let packet = frame.get(NETWORK..)?;
    if ethertype == ETHERTYPE_ARP {
        of_arp(packet)
    } else if ethertype == ETHERTYPE_IPV6 {
        of_advertisement(packet, array(frame, 6)?)
    } else {
        None
    }
}

fn of_arp(packet: &[u8]) -> Option<Claim> {
    let address = Ipv4Addr::from(array::<4>(packet, 14)?);
    let is_claim = packet.starts_with(&ARP_OF_IPV4) && !address.is_unspecified();
    Some(Claim { address: address.into(), mac: array(packet, 8)? }).filter(|_| is_claim)
}

fn of_advertisement(packet: &[u8], source: [u8; 6]) -> Option<Claim> {
    let length = usize::from(u16::from_be_bytes(array(packet, 4)?));
    let (next_header, hop_limit) = (*packet.get(6)?, *packet.get(7)?);
    let message = packet.get(IPV6_HEADER..packet.len().min(IPV6_HEADER + length))?;
    let target = Ipv6Addr::from(array::<16>(message, 8)?);
    if (next_header, hop_limit, *message.first()?, *message.get(1)?) != (ICMPV6, HOP_LIMIT, ADVERTISEMENT, 0) {
        return None;
    }
    let mac = target_mac(message.get(24..)?).unwrap_or(source);
    Some(Claim { address: target.into(), mac })
}

/// The target's link-layer address, where the options name it.
fn target_mac(mut options: &[u8]) -> Option<[u8; 6]> {
    while let [kind, length, value @ ..] = options {
        if *kind == TARGET_MAC && *length == 1 {
            return array(value, 0);
        }
        // RFC 4861 s4.6: one without a length would never end.
        options = options.get(usize::from(*length) * 8..).filter(|_| *length > 0)?;
    }
    None
}

/// What lets pass the claims of others to addresses of a family, of all frames of ARP (version 4) or IPv6 that a packet socket would hear. The kernel runs
/// it over the whole frame.
#[must_use]
pub fn filter(family: Family, watch: &Watch) -> Vec<Instruction> {
    let [head, own, addressed] = match family {
        Family::V4 => [arp_head(), not_from(&watch.own, 22), of_ipv4(&watch.addresses)],
        Family::V6 => [advertisement_head(), not_from(&watch.own, 6), of_ipv6(&watch.addresses)],
    };
    [for_this_host(), head, own, addressed].concat()
}

/// What lets nothing pass.
pub(super) fn deaf() -> Vec<Instruction> {
    vec![RETURN_NOTHING]
}

const RETURN_NOTHING: Instruction = Instruction { code: 0x06, if_so: 0, if_not: 0, value: 0 };
const RETURN_FRAME: Instruction = Instruction { value: FRAME_BYTES as u32, ..RETURN_NOTHING };

const fn word(at: u32) -> Instruction {
    Instruction { code: 0x20, if_so: 0, if_not: 0, value: at }
}

const fn half(at: u32) -> Instruction {
    Instruction { code: 0x28, if_so: 0, if_not: 0, value: at }
}

const fn byte(at: u32) -> Instruction {
    Instruction { code: 0x30, if_so: 0, if_not: 0, value: at }
}

/// Goes on if it equals, else skips.
const fn equals(value: u32, else_skip: u8) -> Instruction {
    Instruction { code: 0x15, if_so: 0, if_not: else_skip, value }
}

fn must_be(load: Instruction, value: u32) -> [Instruction; 3] {
    [load, Instruction { code: 0x15, if_so: 1, if_not: 0, value }, RETURN_NOTHING]
}

/// To this host, to all, or to a group. Frames to others are of a switch that floods, and those of a VLAN that nobody here has look like them (linux v6.18
/// net/core/dev.c, __netif_receive_skb_core).
fn for_this_host() -> Vec<Instruction> {
    /// `SKF_AD_OFF + SKF_AD_PKTTYPE` (linux include/uapi/linux/filter.h).
    const PACKET_TYPE: u32 = 0xffff_f000 + 4;
    /// `PACKET_MULTICAST` (linux include/uapi/linux/if_packet.h).
    const LAST: u32 = 2;
    vec![word(PACKET_TYPE), Instruction { code: 0x25, if_so: 0, if_not: 1, value: LAST }, RETURN_NOTHING]
}

fn arp_head() -> Vec<Instruction> {
    [must_be(word(14), 0x0001_0800), must_be(half(18), 0x0604)].concat()
}

fn advertisement_head() -> Vec<Instruction> {
    let head = u32::from(ICMPV6) << 8 | u32::from(HOP_LIMIT);
    [must_be(half(20), head), must_be(byte(54), ADVERTISEMENT.into())].concat()
}

fn not_from(own: &BTreeSet<[u8; 6]>, at: u32) -> Vec<Instruction> {
    let one = |[a, b, c, d, e, f]: [u8; 6]| {
        let (first, last) = (u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes([0, 0, e, f]));
        [word(at), equals(first, 3), half(at + 4), equals(last, 1), RETURN_NOTHING]
    };
    let is_exact = own.len() <= MOST_EXACT;
    own.iter().filter(|_| is_exact).flat_map(|mac| one(*mac)).collect()
}

fn of_ipv4(addresses: &BTreeSet<IpAddr>) -> Vec<Instruction> {
    if addresses.len() > MOST_EXACT {
        return vec![RETURN_FRAME];
    }
    let one = |address: &IpAddr| match address {
        IpAddr::V4(address) => vec![equals(address.to_bits(), 1), RETURN_FRAME],
        IpAddr::V6(_) => Vec::new(),
    };
    [word(28)].into_iter().chain(addresses.iter().flat_map(one)).chain([RETURN_NOTHING]).collect()
}

fn of_ipv6(addresses: &BTreeSet<IpAddr>) -> Vec<Instruction> {
    if addresses.len() > MOST_EXACT {
        return vec![RETURN_FRAME];
    }
    let one = |address: &IpAddr| match address {
        IpAddr::V4(_) => Vec::new(),
        IpAddr::V6(address) => {
            let bits = address.to_bits();
            let part = |number: u32| [word(62 + 4 * number), equals((bits >> (96 - 32 * number)) as u32, 7 - 2 * number as u8)];
            [&part(0)[..], &part(1), &part(2), &part(3), &[RETURN_FRAME]].concat()
        }
    };
    addresses.iter().flat_map(one).chain([RETURN_NOTHING]).collect()
}

fn array<const BYTES: usize>(bytes: &[u8], at: usize) -> Option<[u8; BYTES]> {
    bytes.get(at..)?.first_chunk().copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::speaker::frames::{Sender, announcement};

    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 7];

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn announcements_claim_what_they_name() {
        for address in [ip("192.0.2.1"), ip("2001:db8::1")] {
            for frame in announcement(address, MAC, Sender::Host) {
                assert_eq!(claim_of(&frame), Some(Claim { address, mac: MAC }));
                // Of a part of it the same or nothing is read.
                for bytes in 0..frame.len() {
                    let part = claim_of(&frame[..bytes]);
                    assert!(part.is_none() || part == claim_of(&frame), "{bytes}: {part:?}");
                }
            }
        }
    }

    #[test]
    fn a_request_for_another_address_claims_that_of_its_sender() {
        let mut frame = announcement(ip("192.0.2.1"), MAC, Sender::Host).remove(0);
        frame[38..42].copy_from_slice(&[192, 0, 2, 99]);
        assert_eq!(claim_of(&frame), Some(Claim { address: ip("192.0.2.1"), mac: MAC }));
    }

    #[test]
    fn a_probe_claims_nothing() {
        let mut frame = announcement(ip("192.0.2.1"), MAC, Sender::Host).remove(0);
        frame[28..32].fill(0);
        assert_eq!(claim_of(&frame), None);
    }

    #[test]
    fn an_arp_of_other_lengths_and_another_ethertype_claim_nothing() {
        for (at, value) in [(12, 0x81), (15, 6), (16, 0x86), (18, 8), (19, 16)] {
            let mut frame = announcement(ip("192.0.2.1"), MAC, Sender::Host).remove(0);
            frame[at] = value;
            assert_eq!(claim_of(&frame), None, "{at}");
        }
    }

    #[test]
    fn an_advertisement_without_the_option_claims_for_the_source_of_its_frame() {
        let whole = announcement(ip("2001:db8::1"), MAC, Sender::Host).remove(0);
        let (mut bare, mut other, mut endless) = (whole.clone(), whole.clone(), whole.clone());
        bare[6..12].copy_from_slice(&[2, 0, 0, 0, 0, 9]);
        bare.truncate(78);
        bare[19] = 24;
        let source = Some(Claim { address: ip("2001:db8::1"), mac: [2, 0, 0, 0, 0, 9] });
        assert_eq!(claim_of(&bare), source);
        // What pads a short frame is no option.
        assert_eq!(claim_of(&[&bare[..], &[2, 1, 1, 1, 1, 1, 1, 1]].concat()), source);
        // Another option stands before it.
        other.splice(78..78, [14, 1, 0, 0, 0, 0, 0, 0]);
        other[19] = 40;
        assert_eq!(claim_of(&other), Some(Claim { address: ip("2001:db8::1"), mac: MAC }));
        endless[79] = 0;
        endless[6..12].copy_from_slice(&[2, 0, 0, 0, 0, 9]);
        assert_eq!(claim_of(&endless), source);
    }

    #[test]
    fn what_came_by_a_router_and_a_solicitation_claim_nothing() {
        for (at, value) in [(20, 6), (21, 254), (54, 135), (55, 1)] {
            let mut frame = announcement(ip("2001:db8::1"), MAC, Sender::Host).remove(0);
            frame[at] = value;
            assert_eq!(claim_of(&frame), None, "{at}");
        }
    }

    #[test]
    fn a_filter_of_many_addresses_stays_small() {
        let many = |family: Family, count: u32| -> Watch {
            let address = |number: u32| match family {
                Family::V4 => IpAddr::from(Ipv4Addr::from_bits(number)),
                Family::V6 => IpAddr::from(Ipv6Addr::from_bits(number.into())),
            };
            let own = (0..count).map(|number| [2, 0, 0, 0, (number >> 8) as u8, number as u8]).collect();
            Watch { ifindex: 1, addresses: (0..count).map(address).collect(), own }
        };
        for family in [Family::V4, Family::V6] {
            let longest = (1..=400).map(|count| filter(family, &many(family, count)).len()).max().unwrap();
            // 2500 are 20 kB.
            assert!(longest < 2000, "{longest}");
            assert!(filter(family, &many(family, 129)).len() < 20);
        }
    }
}
