//! The tunnels whose packets a router may quote, as the members' headers make them. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use lb_common::maps::{ForwardKind, HEADER_WORDS, Header};

use super::{PROTOCOL_IPV6, PROTOCOL_UDP};

/// RFC 8200 s5: every link that carries IPv6 takes packets of so many bytes, and senders make none smaller.
pub const LEAST_INNER6: u16 = 1280;
/// RFC 1122 s3.3.3: what every host of IPv4 takes.
pub const LEAST_INNER4: u16 = 576;

/// What tells the outer packets of one tunnel from all others.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Outer {
    /// This host's address in the outer header.
    pub source: IpAddr,
    /// The server's.
    pub server: IpAddr,
    /// What follows the outer IP header.
    pub carrier: Carrier,
}

/// What follows the outer IP header.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Carrier {
    /// A packet of this IP protocol: 4 or 41.
    Packet(u8),
    /// UDP to this port.
    Gue(u16),
}

/// A tunnel in use.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Tunnel {
    /// Its outer packets.
    pub outer: Outer,
    /// Bytes that it puts before a packet.
    pub overhead: u16,
    /// Whether the packets that it carries are of IPv6.
    pub carries_v6: bool,
    /// Bytes of the largest packet that it carries.
    pub room: u16,
}

impl Tunnel {
    /// The tunnel that a member's header makes; none for other ways of forwarding.
    #[must_use]
    pub fn of_header(header: &Header) -> Option<Self> {
        let kind = header.forward()?;
        let bytes: [u8; HEADER_WORDS * 8] = bytemuck::cast(header.bytes);
        let ip = bytes.get(usize::from(header.link_bytes)..)?;
        let (source, server, protocol, behind) = match kind {
            ForwardKind::Nat | ForwardKind::Dsr => return None,
            ForwardKind::Ipip4 | ForwardKind::Gue4 => {
                let address = |at: usize| Some(IpAddr::V4(Ipv4Addr::from(*ip.get(at..)?.first_chunk::<4>()?)));
                (address(12)?, address(16)?, *ip.get(9)?, ip.get(20..)?)
            }
            ForwardKind::Ipip6 | ForwardKind::Gue6 => {
                let address = |at: usize| Some(IpAddr::V6(Ipv6Addr::from(*ip.get(at..)?.first_chunk::<16>()?)));
                (address(8)?, address(24)?, *ip.get(6)?, ip.get(40..)?)
            }
        };
        // Behind ports, length and checksum, GUE's second byte is the protocol that it carries.
        let carried = if protocol == PROTOCOL_UDP { *behind.get(9)? } else { protocol };
        let outer = Outer { source, server, carrier: carrier(protocol, behind)? };
        Some(Self { outer, overhead: kind.overhead() as u16, carries_v6: carried == PROTOCOL_IPV6, room: header.mtu })
    }

    /// The smallest path MTU that leaves what every sender may rely on.
    #[must_use]
    pub const fn least_mtu(&self) -> u16 {
        self.overhead + if self.carries_v6 { LEAST_INNER6 } else { LEAST_INNER4 }
    }

    /// Whether packets that IPv6 must not have to split do not fit.
    #[must_use]
    pub const fn is_too_narrow(&self) -> bool {
        self.carries_v6 && self.room < LEAST_INNER6
    }
}

/// What follows the outer IP header: `behind` is what comes after that, of which UDP's ports are read.
pub(super) fn carrier(protocol: u8, behind: &[u8]) -> Option<Carrier> {
    if protocol == PROTOCOL_UDP {
        return Some(Carrier::Gue(u16::from_be_bytes([*behind.get(2)?, *behind.get(3)?])));
    }
    Some(Carrier::Packet(protocol))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::{
        Endpoint,
        header::{NextHop, Target, build},
    };

    #[test]
    fn a_header_tells_its_tunnel() {
        let (v4, v6): ([IpAddr; 2], [IpAddr; 2]) =
            (["10.2.0.1", "10.20.0.2"].map(|ip| ip.parse().unwrap()), ["fd00:2::1", "fd00:20::2"].map(|ip| ip.parse().unwrap()));
        let vips: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), "2001:db8::1".parse().unwrap()];
        let cases = [
            (ForwardKind::Ipip4, v4, vips[0], Carrier::Packet(4)),
            (ForwardKind::Ipip4, v4, vips[1], Carrier::Packet(41)),
            (ForwardKind::Ipip6, v6, vips[0], Carrier::Packet(4)),
            (ForwardKind::Gue4, v4, vips[1], Carrier::Gue(6080)),
            (ForwardKind::Gue6, v6, vips[0], Carrier::Gue(6080)),
        ];
        for (forward, [source, server], vip, carrier) in cases {
            let server_end = Endpoint { address: server, port: 0 };
            let target = Target { forward, server: server_end, vip, tunnel_source: None, gue_port: 6080, planes: None };
            for vlan in [None, Some(7)] {
                let hop = NextHop { ifindex: 7, vlan, source_mac: [1; 6], target_mac: [2; 6], mtu: 1500, source };
                let overhead = forward.overhead() as u16;
                let tunnel =
                    Tunnel { outer: Outer { source, server, carrier }, overhead, carries_v6: vip.is_ipv6(), room: 1500 - overhead };
                assert_eq!(Tunnel::of_header(&build(&target, &hop).unwrap()), Some(tunnel));
            }
        }
    }
}
