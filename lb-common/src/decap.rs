//! Opening a tunnel on the server: whether a frame carries a packet for one of its VIPs, and where in the frame that packet lies.
//!
//! | tunnel | known by |
//! |---|---|
//! | IPv4 or IPv6 in IPv4 or IPv6 | protocol 4 or 41 (RFC 2003, 4213, 2473) |
//! | GUE variant 0 | UDP to its port; 4 bytes, then options that are skipped, then the packet that its protocol field names |
//! | GUE variant 1 | UDP to its port; the packet follows, its version tells the family (draft-ietf-intarea-gue-09 s3, s4) |
//!
//! Checksums of the outer headers are not verified: everything that is used of them is checked against the packet inside, which the host
//! verifies by its own.

use crate::{
    address::Address,
    maps::DecapSettings,
    packet::{self, ETH_IPV4, ETH_IPV6, Fragment, Ipv4Header, Ipv6Header, Packet, TransportHead, protocol},
    reason::Decap,
};

/// What was found of a frame. Every field is set whatever the outcome, so that the compiler has no undefined half to compute with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Opened {
    /// The index of a [`Decap`], or [`Self::NO_TUNNEL`].
    pub outcome: u32,
    /// Offset of the outer IP header: where the inner one shall be.
    pub l3: usize,
    /// Offset of the inner IP header.
    pub inner: usize,
    /// EtherType of the inner packet, wire bytes.
    pub kind: u16,
    /// The inner packet's ECN field as it came.
    pub ecn_before: u8,
    /// And as the host shall see it (RFC 6040 s4.2).
    pub ecn: u8,
}

impl Opened {
    /// The frame carries no tunnel that is opened here.
    pub const NO_TUNNEL: u32 = Decap::COUNT;

    /// Whether the frame has to be dropped.
    #[inline(always)]
    pub const fn is_drop(&self) -> bool {
        self.outcome == Decap::Malformed.index() || self.outcome == Decap::Congestion.index()
    }

    #[inline(always)]
    const fn kept(outcome: u32) -> Self {
        Self { outcome, l3: 0, inner: 0, kind: 0, ecn_before: 0, ecn: 0 }
    }
}

/// Bytes of the GUE base header.
const GUE: usize = 4;
/// Bytes of the UDP header.
const UDP: usize = 8;
/// Most bytes between the outer IP header and the inner one: extension headers, UDP, GUE with all its options.
const MAX_INNER: usize = 0x3ff;

/// Looks for a tunnel in the frame. `is_vip` is asked at most once.
#[inline(always)]
pub fn open<P: Packet + ?Sized>(packet: &P, settings: DecapSettings, is_vip: impl FnOnce(&Address) -> bool) -> Opened {
    let Some(network) = packet::network(packet, true) else { return Opened::kept(Opened::NO_TUNNEL) };
    let Ok(outer) = packet::transport(packet, &network) else { return Opened::kept(Opened::NO_TUNNEL) };
    let is_ipip = settings.opens_ipip() && matches!(outer.protocol, protocol::IPV4 | protocol::IPV6);
    let is_gue = outer.protocol == protocol::UDP && settings.opens_gue(outer.destination_port);
    if !is_ipip && !is_gue {
        return Opened::kept(Opened::NO_TUNNEL);
    }
    if outer.fragment != Fragment::Whole {
        return Opened::kept(Decap::Fragment.index());
    }
    let mut inner = outer.offset();
    let mut end = network.offset() + outer.ip_bytes;
    let mut next = outer.protocol;
    if is_gue {
        let Some(udp) = packet.get::<TransportHead>(inner) else { return Opened::kept(Decap::NotOurs.index()) };
        let Some(head) = packet.get::<[u8; GUE]>(inner + UDP) else { return Opened::kept(Decap::NotOurs.index()) };
        let [high, low, ..] = udp.rest.to_ne_bytes();
        let udp_end = inner + u16::from_be_bytes([high, low]) as usize;
        if udp_end < inner + UDP + GUE || udp_end > end {
            return Opened::kept(Decap::NotOurs.index());
        }
        end = udp_end;
        next = gue_protocol(head);
        inner += UDP + gue_bytes(head);
    }
    let inner = inner & MAX_INNER;
    let (head, kind) = if next == protocol::IPV4 {
        let Some(ip) = packet.get::<Ipv4Header>(inner) else { return Opened::kept(Decap::NotOurs.index()) };
        (Head::of_ipv4(&ip), ETH_IPV4)
    } else if next == protocol::IPV6 {
        let Some(ip) = packet.get::<Ipv6Header>(inner) else { return Opened::kept(Decap::NotOurs.index()) };
        (Head::of_ipv6(&ip), ETH_IPV6)
    } else {
        return Opened::kept(Decap::NotOurs.index());
    };
    if !is_vip(&head.destination) {
        return Opened::kept(Decap::NotOurs.index());
    }
    if !head.is_sound || inner + head.bytes > end {
        return Opened::kept(Decap::Malformed.index());
    }
    let ecn = ecn::on_decapsulation(outer.traffic_class, head.ecn);
    if ecn == ecn::REFUSED {
        return Opened::kept(Decap::Congestion.index());
    }
    Opened { outcome: Decap::Decapsulated.index(), l3: network.offset(), inner, kind, ecn_before: head.ecn, ecn }
}

/// ```text
///  0                   1                   2                   3
///  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// | 0 |C|   Hlen  |  Proto/ctype  |             Flags             |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// ```
/// The protocol that follows the GUE header; 0 for a control message and for what is not known. In variant 1 the header is the inner packet's
/// own, whose version begins with the bits 01.
#[inline(always)]
const fn gue_protocol([first, next, ..]: [u8; GUE]) -> u8 {
    const CONTROL: u8 = 0x20;
    match first >> 4 {
        4 => protocol::IPV4,
        6 => protocol::IPV6,
        0..=3 if first & CONTROL == 0 => next,
        _ => 0,
    }
}

/// Bytes of the GUE header with its options; 0 in variant 1.
#[inline(always)]
const fn gue_bytes([first, ..]: [u8; GUE]) -> usize {
    if first >> 6 == 0 { GUE + (first & 0x1f) as usize * 4 } else { 0 }
}

/// What is needed of an inner IP header.
struct Head {
    destination: Address,
    /// The packet's length by its own account.
    bytes: usize,
    ecn: u8,
    /// Its version is that of the family, and its lengths do not contradict each other.
    is_sound: bool,
}

impl Head {
    #[inline(always)]
    fn of_ipv4(ip: &Ipv4Header) -> Self {
        let header_bytes = (ip.version_length & 15) as usize * 4;
        let bytes = u16::from_be(ip.total_length) as usize;
        Self {
            destination: Address::from_v4_word(ip.destination),
            bytes,
            ecn: ip.traffic_class & ecn::MASK,
            is_sound: ip.version_length >> 4 == 4 && header_bytes >= size_of::<Ipv4Header>() && bytes >= header_bytes,
        }
    }

    #[inline(always)]
    fn of_ipv6(ip: &Ipv6Header) -> Self {
        let word = u32::from_be(ip.version_class_label);
        Self {
            destination: Address::from_words(ip.destination),
            bytes: u16::from_be(ip.payload_length) as usize + size_of::<Ipv6Header>(),
            ecn: (word >> 20) as u8 & ecn::MASK,
            is_sound: word >> 28 == 6,
        }
    }
}

/// Explicit congestion notification (RFC 3168) through tunnels (RFC 6040).
pub mod ecn {
    /// The field's bits in the traffic class.
    pub const MASK: u8 = 3;
    /// The ends do not understand congestion marks.
    pub const NOT_ECT: u8 = 0;
    /// They do.
    pub const ECT_1: u8 = 1;
    /// They do.
    pub const ECT_0: u8 = 2;
    /// A router is congested.
    pub const CE: u8 = 3;
    /// The packet has to be dropped.
    pub const REFUSED: u8 = 4;

    /// The inner field once the tunnel is removed, or [`REFUSED`]: RFC 6040 s4.2, figure 4.
    #[inline(always)]
    pub const fn on_decapsulation(outer: u8, inner: u8) -> u8 {
        match (outer & MASK, inner & MASK) {
            (CE, NOT_ECT) => REFUSED,
            (CE, _) => CE,
            (ECT_1, ECT_0) => ECT_1,
            (_, inner) => inner,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{ecn::*, *};

    #[test]
    fn congestion_marks_follow_the_table_of_rfc_6040() {
        let rows = [
            // inner: outer Not-ECT, ECT(0), ECT(1), CE
            (NOT_ECT, [NOT_ECT, NOT_ECT, NOT_ECT, REFUSED]),
            (ECT_0, [ECT_0, ECT_0, ECT_1, CE]),
            (ECT_1, [ECT_1, ECT_1, ECT_1, CE]),
            (CE, [CE, CE, CE, CE]),
        ];
        for (inner, expected) in rows {
            let found = [NOT_ECT, ECT_0, ECT_1, CE].map(|outer| on_decapsulation(0xb8 | outer, inner));
            assert_eq!(found, expected, "inner {inner}");
        }
    }

    #[test]
    fn gue_headers_name_their_protocol_and_length() {
        for (head, protocol, bytes) in [
            ([0, 4, 0, 0], 4, 4),
            ([0, 41, 0, 0], 41, 4),
            ([0x1f, 4, 0, 0], 4, 128),
            ([0x20, 4, 0, 0], 0, 4),
            ([0x45, 0, 0, 0], 4, 0),
            ([0x60, 0, 0, 0], 41, 0),
            ([0x50, 4, 0, 0], 0, 0),
            ([0x80, 4, 0, 0], 0, 0),
            ([0xc0, 4, 0, 0], 0, 0),
        ] {
            assert_eq!((gue_protocol(head), gue_bytes(head)), (protocol, bytes), "{head:x?}");
        }
    }

    #[test]
    fn a_frame_cut_anywhere_is_never_opened_beyond_its_end() {
        let mut frame = [0_u8; 14 + 20 + 20];
        frame[12..14].copy_from_slice(&[8, 0]);
        frame[14..18].copy_from_slice(&[0x45, 0, 0, 40]);
        frame[14 + 9] = 4;
        frame[34..38].copy_from_slice(&[0x45, 0, 0, 20]);
        let decapsulated = Decap::Decapsulated.index();
        for length in 0..frame.len() {
            assert_ne!(open(&frame[..length], DecapSettings::IPIP, |_| true).outcome, decapsulated, "{length}");
        }
        assert_eq!(open(&frame[..], DecapSettings::IPIP, |_| true).outcome, decapsulated);
    }
}
