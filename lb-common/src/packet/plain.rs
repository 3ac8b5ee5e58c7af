//! The headers of most packets, looked into without a loop: TCP or UDP, whole, in IP without VLAN tags, options or extension headers.
//!
//! Every offset is a constant here, and the address family known where it is used, which is worth a fifth of the kernel program's time. Whatever
//! is refused here is for [`super::network`] and [`super::transport`], which find the same in all that is taken.

use super::{
    ETH_IPV4, ETH_IPV6, EthernetHeader, Fragment, Ipv4Header, Ipv6Header, Network, Packet, TcpTail, Transport, TransportHead, protocol,
};
use crate::address::Address;

/// Offset of the IP header.
const L3: usize = size_of::<EthernetHeader>();
const L4_IN_IPV4: usize = L3 + size_of::<Ipv4Header>();
const L4_IN_IPV6: usize = L3 + size_of::<Ipv6Header>();

/// The addresses of an untagged IPv4 frame, or with `IPV6` of an IPv6 one; none of any other.
#[inline(always)]
pub fn network<const IPV6: bool, P: Packet + ?Sized>(packet: &P) -> Option<Network> {
    let ethernet: EthernetHeader = packet.get(0)?;
    if IPV6 {
        if ethernet.kind != ETH_IPV6 {
            return None;
        }
        let ip: Ipv6Header = packet.get(L3)?;
        let (source, destination) = (Address::from_words(ip.source), Address::from_words(ip.destination));
        if source.is_v4() || destination.is_v4() {
            return None;
        }
        return Some(Network { l3: L3, vlan: 0, source, destination });
    }
    if ethernet.kind != ETH_IPV4 {
        return None;
    }
    let ip: Ipv4Header = packet.get(L3)?;
    let (source, destination) = (Address::from_v4_word(ip.source), Address::from_v4_word(ip.destination));
    Some(Network { l3: L3, vlan: 0, source, destination })
}

/// What lies in the packet that [`network`] found; none unless it is plain and well formed.
#[inline(always)]
pub fn transport<const IPV6: bool, P: Packet + ?Sized>(packet: &P) -> Option<Transport> {
    if IPV6 { in_ipv6(packet) } else { in_ipv4(packet) }
}

#[inline(always)]
fn in_ipv4<P: Packet + ?Sized>(packet: &P) -> Option<Transport> {
    const MORE_OR_OFFSET: u16 = 0x3fff_u16.to_be();
    const DONT_FRAGMENT: u16 = 0x4000_u16.to_be();
    let ip: Ipv4Header = packet.get(L3)?;
    let ip_bytes = u16::from_be(ip.total_length) as usize;
    if ip.version_length != 0x45 || ip.fragment & MORE_OR_OFFSET != 0 || ip_bytes < size_of::<Ipv4Header>() {
        return None;
    }
    let dont_fragment = ip.fragment & DONT_FRAGMENT != 0;
    segment(packet, Transport { ip_bytes, traffic_class: ip.traffic_class, dont_fragment, ..at(L4_IN_IPV4, ip.protocol) })
}

#[inline(always)]
fn in_ipv6<P: Packet + ?Sized>(packet: &P) -> Option<Transport> {
    let ip: Ipv6Header = packet.get(L3)?;
    let ip_bytes = u16::from_be(ip.payload_length) as usize + size_of::<Ipv6Header>();
    let first = u32::from_be(ip.version_class_label);
    if first >> 28 != 6 {
        return None;
    }
    let traffic_class = (first >> 20) as u8;
    segment(packet, Transport { ip_bytes, traffic_class, dont_fragment: true, ..at(L4_IN_IPV6, ip.next_header) })
}

#[inline(always)]
const fn at(l4: usize, protocol: u8) -> Transport {
    Transport {
        protocol,
        l4,
        fragment: Fragment::Whole,
        identification: 0,
        ip_bytes: 0,
        source_port: 0,
        destination_port: 0,
        tcp_flags: 0,
        traffic_class: 0,
        dont_fragment: false,
    }
}

#[inline(always)]
fn segment<P: Packet + ?Sized>(packet: &P, found: Transport) -> Option<Transport> {
    let end = L3 + found.ip_bytes;
    if !packet.holds(end) || found.l4 + size_of::<TransportHead>() > end {
        return None;
    }
    let mut tcp_flags = 0;
    if found.protocol == protocol::TCP {
        let tail: TcpTail = packet.get(found.l4 + size_of::<TransportHead>())?;
        let header_bytes = (tail.offset >> 4) as usize * 4;
        if header_bytes < 20 || found.l4 + header_bytes > end {
            return None;
        }
        tcp_flags = tail.flags;
    } else if found.protocol != protocol::UDP {
        return None;
    }
    let head: TransportHead = packet.get(found.l4)?;
    Some(Transport { source_port: head.source_port, destination_port: head.destination_port, tcp_flags, ..found })
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;
    use crate::packet;

    const PLAIN4: &[u8] = &[
        2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0, 0x45, 0xb8, 0, 44, 0, 7, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 192, 0, 2, 1, 0x80, 1, 0, 80,
        0, 0, 0, 1, 0, 0, 0, 0, 0x60, 2, 4, 0, 0, 0, 0, 0, 2, 4, 5, 0xb4,
    ];
    const PLAIN6: &[u8] = &[
        2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x86, 0xdd, 0x6b, 0x80, 0, 0, 0, 10, 17, 64, 0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        0, 9, 0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0x80, 2, 0, 53, 0, 10, 0, 0, 1, 2,
    ];

    fn found<const IPV6: bool>(frame: &[u8]) -> Option<(Network, Transport)> {
        Some((network::<IPV6, _>(frame)?, transport::<IPV6, _>(frame)?))
    }

    fn generally(frame: &[u8]) -> Option<(Network, Transport)> {
        let network = packet::network(frame, true)?;
        Some((network, packet::transport(frame, &network).ok()?))
    }

    #[test]
    fn a_plain_syn_and_a_plain_datagram_are_taken() {
        let (_, syn) = found::<false>(PLAIN4).unwrap();
        assert_eq!((syn.is_syn(), syn.ip_bytes, syn.traffic_class, syn.destination_port), (true, 44, 0xb8, 80_u16.to_be()));
        let (_, datagram) = found::<true>(PLAIN6).unwrap();
        assert_eq!((datagram.protocol, datagram.ip_bytes, datagram.traffic_class), (17, 50, 0xb8));
    }

    #[test]
    fn no_plain_frame_is_taken_for_the_other_family() {
        assert_eq!((found::<true>(PLAIN4), found::<false>(PLAIN6)), (None, None));
    }

    fn frames() -> impl Strategy<Value = Vec<u8>> {
        let changes = proptest::collection::vec((0_usize..80, any::<u8>()), 0..4);
        (any::<bool>(), changes, 0_usize..90).prop_map(|(is_v6, changes, length)| {
            let mut frame = if is_v6 { PLAIN6 } else { PLAIN4 }.to_vec();
            for (at, byte) in changes {
                if let Some(place) = frame.get_mut(at) {
                    *place = byte;
                }
            }
            frame.truncate(length);
            frame
        })
    }

    proptest! {
        #[test]
        fn what_is_taken_is_what_the_general_parser_finds(frame in frames()) {
            for taken in [found::<false>(&frame), found::<true>(&frame)].into_iter().flatten() {
                prop_assert_eq!(Some(taken), generally(&frame));
            }
        }
    }
}
