//! What routers on the way to tunnelled servers say of packets that are too big. They quote the tunnel's outer header and tell this host, whose
//! kernel learns nothing from it: no socket of its own sent the packet. So the daemon listens, remembers, and the members' headers follow.
//! `driver` owns the sockets; this file, pure, what their messages mean and how long that holds.

pub mod driver;

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::{Duration, Instant},
};

/// As long as the kernel's own `net.ipv4.route.mtu_expires`; then a larger packet is tried again.
const HELD_FOR: Duration = Duration::from_secs(600);
/// Linux's `net.ipv4.route.min_pmtu`, and RFC 8200 s5: nobody may make us send smaller packets.
const LEAST4: u16 = 552;
const LEAST6: u16 = 1280;

const FRAGMENTATION_NEEDED: [u8; 2] = [3, 4];
const PACKET_TOO_BIG: [u8; 2] = [2, 0];
const PROTOCOL_IPV4: u8 = 4;
const PROTOCOL_UDP: u8 = 17;
const PROTOCOL_IPV6: u8 = 41;

/// A router's word that a tunnel's packet was too big.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TooBig {
    /// Where the packet was going.
    pub server: IpAddr,
    /// The largest IP packet that the router can pass on, in bytes.
    pub mtu: u16,
}

impl TooBig {
    /// Reads an ICMP message (RFC 792, RFC 1191) from its first byte on. None if it says something else, or quotes no tunnel.
    #[must_use]
    pub fn from_icmp4(message: &[u8]) -> Option<Self> {
        let (header, quoted) = message.split_first_chunk::<8>()?;
        let ip = quoted.first_chunk::<20>()?;
        if header[..2] != FRAGMENTATION_NEEDED || ip[0] >> 4 != 4 || !is_tunnel(ip[9]) {
            return None;
        }
        let server = Ipv4Addr::from(*ip[16..].first_chunk::<4>()?);
        Some(Self { server: server.into(), mtu: u16::from_be_bytes([header[6], header[7]]).max(LEAST4) })
    }

    /// The same for ICMPv6 (RFC 4443 s3.2).
    #[must_use]
    pub fn from_icmp6(message: &[u8]) -> Option<Self> {
        let (header, quoted) = message.split_first_chunk::<8>()?;
        let ip = quoted.first_chunk::<40>()?;
        if header[..2] != PACKET_TOO_BIG || ip[0] >> 4 != 6 || !is_tunnel(ip[6]) {
            return None;
        }
        let mtu = u32::from_be_bytes(*header[4..].first_chunk::<4>()?);
        let server = Ipv6Addr::from(*ip[24..].first_chunk::<16>()?);
        Some(Self { server: server.into(), mtu: u16::try_from(mtu).unwrap_or(u16::MAX).max(LEAST6) })
    }
}

const fn is_tunnel(protocol: u8) -> bool {
    matches!(protocol, PROTOCOL_IPV4 | PROTOCOL_IPV6 | PROTOCOL_UDP)
}

/// What has been learned: at most one entry a server.
#[derive(Clone, Default, Debug)]
pub struct PathMtus {
    learned: BTreeMap<IpAddr, (u16, Instant)>,
}

impl PathMtus {
    /// Takes a router's word, if it is about one of `servers`. Returns whether the MTU toward that server is another now.
    pub fn handle_too_big(&mut self, said: TooBig, servers: impl IntoIterator<Item = IpAddr>, now: Instant) -> bool {
        if !servers.into_iter().any(|server| server == said.server) {
            return false;
        }
        let before = self.mtu(said.server);
        // A larger one than is known comes from another path, or from nobody.
        let mtu = before.map_or(said.mtu, |known| known.min(said.mtu));
        self.learned.insert(said.server, (mtu, now + HELD_FOR));
        before != Some(mtu)
    }

    /// Forgets what has been held long enough. Returns whether that was something.
    pub fn handle_timeout(&mut self, now: Instant) -> bool {
        let held = self.learned.len();
        self.learned.retain(|_, (_, until)| *until > now);
        self.learned.len() != held
    }

    /// The learned MTU toward a server, in bytes.
    #[must_use]
    pub fn mtu(&self, server: IpAddr) -> Option<u16> {
        self.learned.get(&server).map(|(mtu, _)| *mtu)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 20, 0, 2));

    fn icmp4(kind: [u8; 2], mtu: u16, protocol: u8) -> Vec<u8> {
        let mut message = vec![kind[0], kind[1], 0, 0, 0, 0];
        message.extend(mtu.to_be_bytes());
        message.extend([0x45, 0, 5, 220, 0, 0, 0x40, 0, 63, protocol, 0, 0, 10, 2, 0, 1, 10, 20, 0, 2]);
        message
    }

    fn icmp6(mtu: u32, next: u8) -> Vec<u8> {
        let mut message = vec![2, 0, 0, 0];
        message.extend(mtu.to_be_bytes());
        message.extend([0x60, 0, 0, 0, 5, 180, next, 63]);
        message.extend("fd00:2::1".parse::<Ipv6Addr>().unwrap().octets());
        message.extend("fd00:20::2".parse::<Ipv6Addr>().unwrap().octets());
        message
    }

    #[test]
    fn a_router_tells_which_server_has_a_narrower_path() {
        for protocol in [4, 41, 17] {
            assert_eq!(TooBig::from_icmp4(&icmp4([3, 4], 1300, protocol)), Some(TooBig { server: SERVER, mtu: 1300 }));
            let server = "fd00:20::2".parse().unwrap();
            assert_eq!(TooBig::from_icmp6(&icmp6(1300, protocol)), Some(TooBig { server, mtu: 1300 }));
        }
    }

    #[test]
    fn nobody_makes_packets_smaller_than_every_link_takes() {
        assert_eq!(TooBig::from_icmp4(&icmp4([3, 4], 0, 4)).unwrap().mtu, 552);
        assert_eq!(TooBig::from_icmp6(&icmp6(68, 4)).unwrap().mtu, 1280);
        assert_eq!(TooBig::from_icmp6(&icmp6(1 << 20, 4)).unwrap().mtu, u16::MAX);
    }

    #[test]
    fn other_messages_and_short_ones_say_nothing() {
        assert_eq!(TooBig::from_icmp4(&icmp4([3, 3], 1300, 4)), None);
        assert_eq!(TooBig::from_icmp4(&icmp4([3, 4], 1300, 6)), None);
        let (v4, v6) = (icmp4([3, 4], 1300, 4), icmp6(1300, 4));
        assert!((0..v4.len()).all(|length| TooBig::from_icmp4(&v4[..length]).is_none()));
        assert!((0..v6.len()).all(|length| TooBig::from_icmp6(&v6[..length]).is_none()));
    }

    #[test]
    #[allow(clippy::disallowed_methods, reason = "an instant can be had from the clock alone")]
    fn the_smallest_of_ten_minutes_holds_and_only_for_servers() {
        let (mut mtus, start) = (PathMtus::default(), Instant::now());
        let said = |mtu| TooBig { server: SERVER, mtu };
        assert!(!mtus.handle_too_big(said(1300), [], start));
        assert_eq!(mtus.mtu(SERVER), None);
        assert!(mtus.handle_too_big(said(1300), [SERVER], start));
        assert!(!mtus.handle_too_big(said(1400), [SERVER], start));
        assert!(mtus.handle_too_big(said(1200), [SERVER], start));
        assert_eq!(mtus.mtu(SERVER), Some(1200));
        assert!(!mtus.handle_timeout(start + HELD_FOR - Duration::from_secs(1)));
        assert!(mtus.handle_timeout(start + HELD_FOR));
        assert_eq!(mtus.mtu(SERVER), None);
    }
}
