//! One address type for both families.

use bytemuck::{Pod, Zeroable};
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An IPv4 or IPv6 address, 16 bytes in network order; IPv4 in its mapped form `::ffff:a.b.c.d` (RFC 4291 s2.5.5.2).
///
/// Kept as 32-bit words, each holding four wire bytes as they lie in memory, so that the kernel program reads, compares and writes words.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Pod, Zeroable, Default)]
pub struct Address([u32; 4]);

const MAPPED_PREFIX: u32 = u32::from_ne_bytes([0, 0, 0xff, 0xff]);

impl Address {
    /// The unspecified IPv6 address; no packet to be balanced carries it.
    pub const NONE: Self = Self([0; 4]);

    /// From the four wire bytes of an IPv4 address, read as one native word.
    #[inline(always)]
    pub const fn from_v4_word(word: u32) -> Self {
        Self([0, 0, MAPPED_PREFIX, word])
    }

    /// From the sixteen wire bytes of an IPv6 address, read as four native words.
    #[inline(always)]
    pub const fn from_words(words: [u32; 4]) -> Self {
        Self(words)
    }

    /// The sixteen wire bytes as four native words.
    #[inline(always)]
    pub const fn words(&self) -> [u32; 4] {
        self.0
    }

    /// The four wire bytes of the IPv4 address as one native word; for an IPv6 address its last four bytes.
    #[inline(always)]
    pub const fn v4_word(&self) -> u32 {
        self.0[3]
    }

    /// Whether this is an IPv4 address.
    #[inline(always)]
    pub const fn is_v4(&self) -> bool {
        self.0[0] == 0 && self.0[1] == 0 && self.0[2] == MAPPED_PREFIX
    }

    /// Whether an answer can be sent to it: not if it is no host's, or stands for many (RFC 1122 s3.2.1.3, RFC 4443 s2.4 e).
    #[inline(always)]
    pub const fn can_be_answered(&self) -> bool {
        if self.is_v4() {
            let first = self.0[3].to_ne_bytes()[0];
            return first != 0 && first != 127 && first < 224;
        }
        let is_multicast = self.0[0].to_ne_bytes()[0] == 0xff;
        let is_low = self.0[0] == 0 && self.0[1] == 0 && self.0[2] == 0 && (self.0[3] == 0 || self.0[3] == 1_u32.to_be());
        !is_multicast && !is_low
    }

    /// The address as the standard library has it.
    pub fn ip(&self) -> IpAddr {
        let bytes: [u8; 16] = bytemuck::cast(self.0);
        Ipv6Addr::from(bytes).to_canonical()
    }
}

impl From<IpAddr> for Address {
    fn from(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(v4) => v4.into(),
            IpAddr::V6(v6) => v6.into(),
        }
    }
}

impl From<Ipv4Addr> for Address {
    fn from(v4: Ipv4Addr) -> Self {
        Self::from_v4_word(u32::from_ne_bytes(v4.octets()))
    }
}

impl From<Ipv6Addr> for Address {
    fn from(v6: Ipv6Addr) -> Self {
        Self(bytemuck::cast(v6.octets()))
    }
}

impl core::fmt::Debug for Address {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        self.ip().fmt(f)
    }
}

impl core::fmt::Display for Address {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        self.ip().fmt(f)
    }
}
