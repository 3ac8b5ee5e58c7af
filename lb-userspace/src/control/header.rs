//! Builds a member's prebuilt header from its next hop: the bytes that the kernel program puts before, or into, every packet to it.

use std::net::IpAddr;

use lb_common::{
    address::Address,
    maps::{ForwardKind, HEADER_WORDS, Header},
};

use super::Endpoint;

/// The way to a server, as resolved from routes, links and neighbours.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NextHop {
    /// The interface to send from.
    pub ifindex: u32,
    /// The VLAN whose 802.1Q tag frames carry; none for frames without a tag.
    pub vlan: Option<u16>,
    /// The interface's link-layer address.
    pub source_mac: [u8; 6],
    /// The link-layer address of the server or of the router toward it.
    pub target_mac: [u8; 6],
    /// Bytes of the largest IP packet of the path.
    pub mtu: u16,
    /// The host's own address toward the server, of the server's family.
    pub source: IpAddr,
}

/// Consecutive NAT planes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PlaneRun {
    /// The first one's number.
    pub first: u16,
    /// How many.
    pub count: u16,
    /// The SNAT address of the first.
    pub snat: Address,
}

/// What a header depends on besides the next hop.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Target {
    /// How packets reach the server.
    pub forward: ForwardKind,
    /// The server.
    pub server: Endpoint,
    /// The service's VIP: its family is that of the packets.
    pub vip: IpAddr,
    /// Source of the outer header; without one, the next hop's.
    pub tunnel_source: Option<IpAddr>,
    /// UDP port of GUE.
    pub gue_port: u16,
    /// For NAT.
    pub planes: Option<PlaneRun>,
}

/// Why no header can be built.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum HeaderError {
    /// The forward kind, the server and the source are not of one family.
    #[error("failed to build a tunnel header from {from} to {to}: they are not both of the tunnel's family")]
    Family {
        /// The outer source.
        from: IpAddr,
        /// The server.
        to: IpAddr,
    },
}

const ETHERNET_BYTES: usize = 14;
const TAG_BYTES: usize = 4;
/// Where the addresses of a translation begin, see [`Header`].
const NAT_AT: usize = 24;
const ETHERTYPE_VLAN: u16 = 0x8100;
const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86dd;
/// IANA protocol numbers: IPv4 and IPv6 as payload, and UDP.
const PROTOCOL_IPV4: u8 = 4;
const PROTOCOL_IPV6: u8 = 41;
const PROTOCOL_UDP: u8 = 17;
const HOPS: u8 = 64;

/// The header of packets to `target` by `hop`.
///
/// # Errors
/// [`HeaderError::Family`] if the addresses do not fit the tunnel.
pub fn build(target: &Target, hop: &NextHop) -> Result<Header, HeaderError> {
    let inner = if target.vip.is_ipv4() { PROTOCOL_IPV4 } else { PROTOCOL_IPV6 };
    let mut bytes = Bytes { bytes: [0; HEADER_WORDS * 8], used: 0 };
    let source = target.tunnel_source.unwrap_or(hop.source);
    let partial_sum = match target.forward {
        ForwardKind::Nat => {
            bytes.ethernet(hop, family_type(target.vip));
            bytes.nat(target);
            0
        }
        ForwardKind::Dsr => {
            bytes.ethernet(hop, family_type(target.vip));
            0
        }
        ForwardKind::Ipip4 | ForwardKind::Ipip6 => {
            bytes.ethernet(hop, family_type(target.server.address));
            bytes.outer(target, source, inner)?
        }
        ForwardKind::Gue4 | ForwardKind::Gue6 => {
            bytes.ethernet(hop, family_type(target.server.address));
            let outer = bytes.outer(target, source, PROTOCOL_UDP)?;
            bytes.gue(target.gue_port, inner);
            outer
        }
    };
    Ok(Header {
        ifindex: hop.ifindex,
        reserved0: 0,
        kind: target.forward as u8,
        link_bytes: link_bytes(hop) as u8,
        partial_sum,
        mtu: room(target.forward, hop),
        nat_plane: target.planes.map_or(0, |planes| planes.first),
        nat_planes: target.planes.map_or(0, |planes| planes.count),
        reserved1: [0; 7],
        bytes: bytes.words(),
    })
}

/// The same header by another next hop; the outer source address stays. For members whose configuration is gone.
pub fn rerouted(header: &Header, hop: &NextHop) -> Header {
    let old: [u8; HEADER_WORDS * 8] = bytemuck::cast(header.bytes);
    let old_link = if usize::from(header.link_bytes) == ETHERNET_BYTES { ETHERNET_BYTES } else { ETHERNET_BYTES + TAG_BYTES };
    let mut bytes = Bytes { bytes: [0; HEADER_WORDS * 8], used: 0 };
    bytes.ethernet(hop, u16::from_be_bytes([old[old_link - 2], old[old_link - 1]]));
    if header.forward() == Some(ForwardKind::Nat) {
        bytes.used = NAT_AT;
        bytes.put(&old[NAT_AT..]);
    } else {
        // The longest header ends long before the record does.
        bytes.put(&old[old_link..old.len() - TAG_BYTES]);
    }
    let mtu = header.forward().map_or(hop.mtu, |forward| room(forward, hop));
    Header { ifindex: hop.ifindex, link_bytes: link_bytes(hop) as u8, mtu, bytes: bytes.words(), ..*header }
}

/// Bytes of the link-layer header by this hop.
const fn link_bytes(hop: &NextHop) -> usize {
    if hop.vlan.is_some() { ETHERNET_BYTES + TAG_BYTES } else { ETHERNET_BYTES }
}

/// The largest packet that fits the path with what is put before it.
fn room(forward: ForwardKind, hop: &NextHop) -> u16 {
    hop.mtu.saturating_sub(forward.overhead() as u16)
}

fn family_type(ip: IpAddr) -> u16 {
    if ip.is_ipv4() { ETHERTYPE_IPV4 } else { ETHERTYPE_IPV6 }
}

/// The prebuilt bytes while they are written.
struct Bytes {
    bytes: [u8; HEADER_WORDS * 8],
    used: usize,
}

impl Bytes {
    fn words(&self) -> [u64; HEADER_WORDS] {
        bytemuck::cast(self.bytes)
    }

    fn put(&mut self, part: &[u8]) {
        self.bytes[self.used..self.used + part.len()].copy_from_slice(part);
        self.used += part.len();
    }

    fn ethernet(&mut self, hop: &NextHop, ethertype: u16) {
        self.put(&hop.target_mac);
        self.put(&hop.source_mac);
        if let Some(vlan) = hop.vlan {
            self.put(&ETHERTYPE_VLAN.to_be_bytes());
            self.put(&vlan.to_be_bytes());
        }
        self.put(&ethertype.to_be_bytes());
    }

    /// What a translation writes, in whole words: see [`Header`].
    fn nat(&mut self, target: &Target) {
        self.used = NAT_AT;
        self.put(bytemuck::bytes_of(&target.planes.map_or(Address::NONE, |planes| planes.snat)));
        self.put(bytemuck::bytes_of(&Address::from(target.server.address)));
        let port = u16::from_ne_bytes(target.server.port.to_be_bytes());
        self.put(&u64::from(port).to_ne_bytes());
    }

    /// The outer IP header; gives the record's partial sum.
    fn outer(&mut self, target: &Target, source: IpAddr, protocol: u8) -> Result<u32, HeaderError> {
        let start = self.used;
        let is_v4_tunnel = matches!(target.forward, ForwardKind::Ipip4 | ForwardKind::Gue4);
        match (source, target.server.address) {
            (IpAddr::V4(from), IpAddr::V4(to)) if is_v4_tunnel => {
                // Version and length, DF, hops, protocol (RFC 791 s3.1); length, identification and checksum are the packet's.
                self.put(&[0x45, 0, 0, 0, 0, 0, 0x40, 0, HOPS, protocol, 0, 0]);
                self.put(&from.octets());
                self.put(&to.octets());
                Ok(sum(&self.bytes[start..self.used]))
            }
            (IpAddr::V6(from), IpAddr::V6(to)) if !is_v4_tunnel => {
                self.put(&[0x60, 0, 0, 0, 0, 0, protocol, HOPS]);
                let addresses = self.used;
                self.put(&from.octets());
                self.put(&to.octets());
                // RFC 8200 s8.1: addresses, length and next header; the length is the packet's.
                let pseudo_header = sum(&self.bytes[addresses..self.used]) + sum(&[0, PROTOCOL_UDP]);
                Ok(if protocol == PROTOCOL_UDP { pseudo_header } else { 0 })
            }
            (from, to) => Err(HeaderError::Family { from, to }),
        }
    }

    /// UDP without ports' entropy, length and checksum, and GUE variant 0 without options (draft-ietf-intarea-gue-09 s3).
    fn gue(&mut self, port: u16, inner: u8) {
        self.put(&[0, 0]);
        self.put(&port.to_be_bytes());
        self.put(&[0, 0, 0, 0]);
        self.put(&[0, inner, 0, 0]);
    }
}

/// Ones' complement sum of 16-bit words as they lie in memory (RFC 1071 s2 B), not folded. `bytes` are even and few.
fn sum(bytes: &[u8]) -> u32 {
    bytes.chunks_exact(2).map(|pair| u32::from(u16::from_ne_bytes([pair[0], pair[1]]))).sum()
}

#[cfg(test)]
mod tests;
