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

    /// [`Self::checksum`] of less than 2^32, such as the sum of a few words of 16 bits.
    #[inline(always)]
    pub const fn small_checksum(self) -> u16 {
        let sum = self.0 as u32;
        // Either half of the sum is the ones' complement sum of both, its carry come round (as the kernel's csum_fold).
        !(sum.wrapping_add(sum.rotate_left(16)) >> 16) as u16
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// RFC 1071 s4.1, over big-endian words, as wire bytes.
    fn plain_checksum(bytes: &[u8]) -> [u8; 2] {
        let mut sum = 0_u32;
        for pair in bytes.chunks(2) {
            sum += u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0));
            while sum >> 16 != 0 {
                sum = (sum & 0xffff) + (sum >> 16);
            }
        }
        (!(sum as u16)).to_be_bytes()
    }

    /// Zero has two forms in ones' complement, and an update may give either (RFC 1624 s3).
    fn is_same(a: u16, b: u16) -> bool {
        a == b || (a == 0 && b == 0xffff) || (a == 0xffff && b == 0)
    }

    #[test]
    fn the_example_of_rfc_1071_sums_to_ddf2() {
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(sum_of(&bytes).fold().to_ne_bytes(), [0xdd, 0xf2]);
    }

    #[test]
    fn the_example_of_rfc_1624_updates_to_zero() {
        let change = Sum::ZERO.remove16(0x5555_u16.to_be()).add16(0x3285_u16.to_be());
        assert_eq!(change.update(0xdd2f_u16.to_be()), 0);
    }

    #[test]
    fn the_largest_sums_fold() {
        for (sum, folded) in [(0, 0), (0xffff, 0xffff), (0x1_0000, 1), (0xffff_ffff, 0xffff), (u64::MAX, 0xffff), (u64::MAX - 1, 0xfffe)] {
            assert_eq!(Sum(sum).fold(), folded, "{sum:#x}");
            assert_eq!(u32::try_from(sum).map_or(!folded, |sum| Sum::from_partial(sum).small_checksum()), !folded, "{sum:#x}");
        }
    }

    proptest! {
        #[test]
        fn a_checksum_is_that_of_rfc_1071(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert_eq!(sum_of(&bytes).checksum().to_ne_bytes(), plain_checksum(&bytes));
        }

        #[test]
        fn a_small_sum_has_the_same_checksum(sum: u32) {
            prop_assert_eq!(Sum::from_partial(sum).small_checksum(), Sum::from_partial(sum).checksum());
        }

        #[test]
        fn sums_of_parts_add_up(words in any::<[u32; 4]>(), half in any::<u16>(), kept in any::<u32>()) {
            let mut bytes = [0; 22];
            bytes[..16].copy_from_slice(bytemuck::bytes_of(&words));
            bytes[16..18].copy_from_slice(&half.to_ne_bytes());
            bytes[18..].copy_from_slice(&kept.to_ne_bytes());
            let sum = Sum::ZERO.add_words(words).add(Sum::ZERO.add16(half)).add(Sum::from_partial(kept));
            prop_assert_eq!(sum.checksum().to_ne_bytes(), plain_checksum(&bytes));
        }

        #[test]
        fn an_update_is_the_checksum_of_the_changed_bytes(before in any::<[u32; 7]>(), words in any::<[u32; 4]>(), word: u32, half: u16) {
            let mut after = before;
            after[0..4].copy_from_slice(&words);
            after[4] = word;
            after[5] = before[5] & 0xffff_0000 | u32::from(half);
            let change = Sum::ZERO
                .remove_words([before[0], before[1], before[2], before[3]])
                .add_words(words)
                .remove32(before[4])
                .add32(word)
                .remove16(before[5] as u16)
                .add16(half);
            let updated = change.update(sum_of(bytemuck::bytes_of(&before)).checksum());
            prop_assert!(is_same(updated, sum_of(bytemuck::bytes_of(&after)).checksum()));
        }
    }
}
