//! Keyed hashes of addresses and flows.
//!
//! Each step is a 32 × 32 → 64 bit multiplication folded onto itself (the construction of wyhash32), since BPF has no wider one. Both factors
//! are keyed: with one alone keyed, all inputs that zero the other would collide for every key.

use crate::address::Address;

/// A hash: `index` chooses a line or slot, `tag` tells apart what shares it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hash {
    /// For choosing a line or slot.
    pub index: u32,
    /// For comparing within a line.
    pub tag: u32,
}

/// One keyed folding step over two words; both halves of the result are mixed.
#[inline(always)]
const fn fold(a: u32, b: u32, key: u64) -> (u32, u32) {
    let product = ((a ^ key as u32) as u64).wrapping_mul((b ^ (key >> 32) as u32) as u64);
    (product as u32 ^ b, (product >> 32) as u32 ^ a)
}

/// The constants of the later steps: digits of the golden ratio and of e, so that no step repeats another's key.
const STEP: [u64; 4] = [0x9e37_79b9_7f4a_7c15, 0xb7e1_5162_8aed_2a6a, 0xbf58_476d_1ce4_e5b9, 0x94d0_49bb_1331_11eb];

#[inline(always)]
const fn finish(a: u32, b: u32, key: u64) -> Hash {
    let (a, b) = fold(a, b, key ^ STEP[3]);
    let product = ((a ^ 0x53c5_ca59) as u64).wrapping_mul((b ^ 0x7474_3c1b) as u64);
    Hash { index: product as u32 ^ (product >> 32) as u32, tag: (product >> 32) as u32 ^ a ^ b.rotate_left(15) }
}

/// Mixes an address and one more word. An IPv4 address costs one multiplication, an IPv6 one three.
#[inline(always)]
fn address_and(address: &Address, word: u32, key: u64) -> (u32, u32) {
    let words = address.words();
    let (a, b) = fold(words[3], word, key);
    if address.is_v4() {
        return (a, b);
    }
    let (a, b) = fold(a ^ words[0], b ^ words[1], key ^ STEP[0]);
    fold(a ^ words[2], b, key ^ STEP[1])
}

/// The hash of an address.
#[inline(always)]
pub fn address(address: &Address, key: u64) -> Hash {
    let (a, b) = address_and(address, 0, key);
    finish(a, b, key)
}

/// The hash of an address and a word of ports or of anything else that belongs to it.
#[inline(always)]
pub fn endpoint(address: &Address, word: u32, key: u64) -> Hash {
    let (a, b) = address_and(address, word, key);
    finish(a, b, key)
}

/// The hash of two addresses and a word.
#[inline(always)]
pub fn pair(first: &Address, second: &Address, word: u32, key: u64) -> Hash {
    let (a, b) = address_and(first, word, key);
    let (a, b) = address_and(second, a ^ b.rotate_left(16), key ^ STEP[2]);
    finish(a, b, key)
}

/// The hash of one word.
#[inline(always)]
pub const fn word(word: u64, key: u64) -> Hash {
    let (a, b) = fold(word as u32, (word >> 32) as u32, key);
    finish(a, b, key)
}
