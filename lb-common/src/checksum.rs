//! The Internet checksum (RFC 1071) and its incremental update (RFC 1624).
//!
//! Sums are over native 16- or 32-bit words as they lie in the packet; the ones' complement sum does not depend on their byte order, so it may
//! be written back as it is.

/// A running ones' complement sum. Room for 2^32 words of 32 bits.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Sum(u64);

impl Sum {
    /// Nothing summed yet.
    pub const ZERO: Self = Self(0);

    /// Continues a sum that was kept unfolded.
    #[inline(always)]
    pub const fn from_partial(sum: u32) -> Self {
        Self(sum as u64)
    }

    /// Adds 32 bits.
    #[inline(always)]
    pub const fn add32(self, word: u32) -> Self {
        Self(self.0 + word as u64)
    }

    /// Adds 16 bits.
    #[inline(always)]
    pub const fn add16(self, word: u16) -> Self {
        Self(self.0 + word as u64)
    }

    /// Adds four words of 32 bits.
    #[inline(always)]
    pub const fn add_words(self, words: [u32; 4]) -> Self {
        self.add32(words[0]).add32(words[1]).add32(words[2]).add32(words[3])
    }

    /// Adds another sum.
    #[inline(always)]
    pub const fn add(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }

    /// Takes back 32 bits that were summed.
    #[inline(always)]
    pub const fn remove32(self, word: u32) -> Self {
        Self(self.0 + !word as u64)
    }

    /// Takes back 16 bits that were summed.
    #[inline(always)]
    pub const fn remove16(self, word: u16) -> Self {
        Self(self.0 + !word as u64)
    }

    /// Takes back four words of 32 bits.
    #[inline(always)]
    pub const fn remove_words(self, words: [u32; 4]) -> Self {
        self.remove32(words[0]).remove32(words[1]).remove32(words[2]).remove32(words[3])
    }

    /// The 16-bit ones' complement sum.
    #[inline(always)]
    pub const fn fold(self) -> u16 {
        let sum = (self.0 & 0xffff_ffff) + (self.0 >> 32);
        let sum = (sum & 0xffff) + (sum >> 16);
        let sum = (sum & 0xffff) + (sum >> 16);
        let sum = (sum & 0xffff) + (sum >> 16);
        sum as u16
    }

    /// The checksum of what was summed.
    #[inline(always)]
    pub const fn checksum(self) -> u16 {
        !self.fold()
    }

    /// The checksum of data that changed by this sum, from its old one (RFC 1624 equation 3).
    #[inline(always)]
    pub const fn update(self, checksum: u16) -> u16 {
        !self.add16(!checksum).fold()
    }
}

/// Sums bytes; an odd last one is padded with zero. For tests and the daemon.
pub fn sum_of(bytes: &[u8]) -> Sum {
    let mut sum = Sum::ZERO;
    for pair in bytes.chunks(2) {
        sum = sum.add16(u16::from_ne_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
    }
    sum
}
