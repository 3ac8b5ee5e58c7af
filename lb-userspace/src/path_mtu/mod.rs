//! What routers on the way to tunnelled servers say of packets that are too big. They quote the tunnel's outer header and tell this host, whose
//! kernel learns nothing from it: no socket of its own sent the packet. So the daemon listens, remembers, and the members' headers follow.
//! `driver` owns the sockets; `tunnel`, pure, knows whose packets may be quoted; this file, pure, what the messages mean and how long that holds.
//!
//! Anybody can send such a message. It is believed if what it quotes is what this host sends to a server (addresses, protocol, port), and is longer
//! than what is said to fit; and only down to what senders may rely on (1280 bytes of IPv6, 576 of IPv4), below which they would not follow.

pub mod driver;
pub mod tunnel;

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::{Duration, Instant},
};

use self::tunnel::{Outer, Tunnel, carrier};

/// As long as the kernel's own `net.ipv4.route.mtu_expires`; then a larger packet is tried again.
const HELD_FOR: Duration = Duration::from_secs(600);

/// What is learned of one server changes at most once in this time, whoever sends how many messages: each change writes its headers anew.
const CHANGES_AT_MOST_EVERY: Duration = Duration::from_secs(1);

const FRAGMENTATION_NEEDED: [u8; 2] = [3, 4];
const PACKET_TOO_BIG: [u8; 2] = [2, 0];
const PROTOCOL_IPV4: u8 = 4;
const PROTOCOL_UDP: u8 = 17;
const PROTOCOL_IPV6: u8 = 41;

/// A router's word that a tunnel's packet was too big.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TooBig {
    /// What is quoted of the packet.
    pub outer: Outer,
    /// The packet's length, in bytes.
    pub bytes: u32,
    /// The largest IP packet that the router can pass on, in bytes.
    pub mtu: u16,
}

impl TooBig {
    /// Reads an ICMP message (RFC 792, RFC 1191) from its first byte on. None if it says something else, or quotes no tunnel.
    #[must_use]
    pub fn from_icmp4(message: &[u8]) -> Option<Self> {
        let (header, quoted) = message.split_first_chunk::<8>()?;
        let ip = quoted.first_chunk::<20>()?;
        // The packets of this host's tunnels have no options.
        if header[..2] != FRAGMENTATION_NEEDED || ip[0] != 0x45 || !is_tunnel(ip[9]) {
            return None;
        }
        let [source, server] = [12, 16].map(|at| Ipv4Addr::new(ip[at], ip[at + 1], ip[at + 2], ip[at + 3]).into());
        let outer = Outer { source, server, carrier: carrier(ip[9], &quoted[20..])? };
        Some(Self { outer, bytes: u16::from_be_bytes([ip[2], ip[3]]).into(), mtu: u16::from_be_bytes([header[6], header[7]]) })
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
        let address = |at: usize| Some(IpAddr::from(Ipv6Addr::from(*ip[at..].first_chunk::<16>()?)));
        let outer = Outer { source: address(8)?, server: address(24)?, carrier: carrier(ip[6], &quoted[40..])? };
        let bytes = 40 + u32::from(u16::from_be_bytes([ip[4], ip[5]]));
        Some(Self { outer, bytes, mtu: u16::try_from(mtu).unwrap_or(u16::MAX) })
    }
}

const fn is_tunnel(protocol: u8) -> bool {
    matches!(protocol, PROTOCOL_IPV4 | PROTOCOL_IPV6 | PROTOCOL_UDP)
}

/// What became of a router's word.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Heard {
    /// The MTU toward the server is another now.
    Learned,
    /// It says nothing new, or the next thing too soon.
    Nothing,
    /// It quotes what this host does not send.
    Unbelievable,
    /// It says less than senders can be made to follow.
    TooNarrow,
}

/// What has been learned: at most one entry a server.
#[derive(Clone, Default, Debug)]
pub struct PathMtus {
    tunnels: BTreeMap<IpAddr, Vec<Tunnel>>,
    learned: BTreeMap<IpAddr, Learned>,
    /// The smallest that was said and not learned, and how often, by server.
    too_narrow: BTreeMap<IpAddr, (u16, u64)>,
}

#[derive(Clone, Copy, Debug)]
struct Learned {
    mtu: u16,
    changed_at: Instant,
    until: Instant,
}

impl PathMtus {
    /// Takes the tunnels whose packets may be quoted from now on.
    pub fn set_tunnels(&mut self, tunnels: impl IntoIterator<Item = Tunnel>) {
        self.tunnels.clear();
        for tunnel in tunnels {
            let known = self.tunnels.entry(tunnel.outer.server).or_default();
            if !known.contains(&tunnel) {
                known.push(tunnel);
            }
        }
        self.too_narrow.retain(|server, _| self.tunnels.contains_key(server));
    }

    /// Takes a router's word, if it can be believed.
    pub fn handle_too_big(&mut self, said: TooBig, now: Instant) -> Heard {
        let server = said.outer.server;
        let tunnels = self.tunnels.get(&server).map_or(&[][..], Vec::as_slice);
        if said.bytes <= u32::from(said.mtu) || !tunnels.iter().any(|tunnel| tunnel.outer == said.outer) {
            return Heard::Unbelievable;
        }
        // The MTU is that of all tunnels to the server.
        if tunnels.iter().any(|tunnel| said.mtu < tunnel.least_mtu()) {
            let (least, times) = self.too_narrow.entry(server).or_insert((said.mtu, 0));
            (*least, *times) = ((*least).min(said.mtu), *times + 1);
            return Heard::TooNarrow;
        }
        let until = now + HELD_FOR;
        match self.learned.get_mut(&server) {
            // A larger one than is known comes from another path, or from nobody.
            Some(known) if known.mtu <= said.mtu => known.until = until,
            Some(known) if now.saturating_duration_since(known.changed_at) < CHANGES_AT_MOST_EVERY => {}
            _ => {
                self.learned.insert(server, Learned { mtu: said.mtu, changed_at: now, until });
                return Heard::Learned;
            }
        }
        Heard::Nothing
    }

    /// Forgets what has been held long enough. Returns whether that was something.
    pub fn handle_timeout(&mut self, now: Instant) -> bool {
        let held = self.learned.len();
        self.learned.retain(|_, learned| learned.until > now);
        self.learned.len() != held
    }

    /// The learned MTU toward a server, in bytes.
    #[must_use]
    pub fn mtu(&self, server: IpAddr) -> Option<u16> {
        self.learned.get(&server).map(|learned| learned.mtu)
    }

    /// What is wrong with the ways to servers, in words.
    #[must_use]
    pub fn troubles(&self) -> Vec<String> {
        let narrow = self
            .tunnels
            .values()
            .filter_map(|tunnels| tunnels.iter().filter(|tunnel| tunnel.is_too_narrow()).min_by_key(|tunnel| tunnel.room));
        let narrow = narrow.map(|tunnel| {
            let server = tunnel.outer.server;
            format!("IPv6 packets of {} bytes do not fit the way to server {server}: {} do", tunnel::LEAST_INNER6, tunnel.room)
        });
        let refused = self.too_narrow.iter().map(|(server, (least, times))| {
            format!(
                "somebody says that the way to server {server} passes {least} bytes only, which is less than senders can follow: not believed ({times} \
                 times)"
            )
        });
        narrow.chain(refused).collect()
    }
}

#[cfg(test)]
mod tests;
