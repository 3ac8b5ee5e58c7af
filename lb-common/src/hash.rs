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

/// One keyed folding step over two words, both fed forward: `b` twice, or it would vanish at the one `a` whose factor is 1. Its multiple cancels
/// no product.
#[inline(always)]
const fn fold(a: u32, b: u32, key: u64) -> (u32, u32) {
    let product = ((a ^ key as u32) as u64).wrapping_mul((b ^ (key >> 32) as u32) as u64);
    (product as u32 ^ b, (product >> 32) as u32 ^ a ^ b.wrapping_mul(0x85eb_ca6b))
}

/// The constants of the later steps: digits of the golden ratio and of e, so that no step repeats another's key.
const STEP: [u64; 4] = [0x9e37_79b9_7f4a_7c15, 0xb7e1_5162_8aed_2a6a, 0xbf58_476d_1ce4_e5b9, 0x94d0_49bb_1331_11eb];

#[inline(always)]
const fn finish(a: u32, b: u32, key: u64) -> Hash {
    let key = key ^ STEP[3];
    let product = ((a ^ key as u32) as u64).wrapping_mul((b ^ (key >> 32) as u32) as u64);
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

/// The hash of one word, by one step more than the packet path can afford: what nodes agree on is made of it, and what differs by one bit.
#[inline(always)]
pub const fn word(word: u64, key: u64) -> Hash {
    let (a, b) = fold(word as u32, (word >> 32) as u32, key);
    let (a, b) = fold(a, b, key ^ STEP[3]);
    let product = ((a ^ 0x53c5_ca59) as u64).wrapping_mul((b ^ 0x7474_3c1b) as u64);
    Hash { index: product as u32 ^ (product >> 32) as u32, tag: (product >> 32) as u32 ^ a ^ b.rotate_left(15) }
}

/// The hash of an address and a word that the operator has chosen: nobody else puts such keys into a table, so it need not withstand anybody who
/// looks for keys that collide. One multiplication for each word, all at once.
#[inline(always)]
pub const fn configured(address: &Address, word: u32, key: u64) -> Hash {
    let [a, b, c, d] = address.words();
    let sum = ((d ^ key as u32) as u64).wrapping_mul(STEP[0]).wrapping_add((word as u64).wrapping_mul(STEP[1]));
    if address.is_v4() {
        return Hash { index: (sum >> 32) as u32, tag: sum as u32 };
    }
    let sum = sum.wrapping_add((a as u64).wrapping_mul(STEP[2])).wrapping_add((b as u64).wrapping_mul(STEP[3]));
    let sum = sum.wrapping_add((c as u64).wrapping_mul(0xd6e8_feb8_6659_fd93));
    let mixed = (sum ^ sum >> 32).wrapping_mul(STEP[0]);
    Hash { index: (mixed >> 32) as u32, tag: mixed as u32 }
}

#[cfg(test)]
mod tests {
    use core::net::{Ipv4Addr, Ipv6Addr};

    use super::*;
    use crate::packet::ports_word;

    const SLOTS: usize = 1024;
    const INPUTS: u32 = 50_000;
    /// Keys are random; these are some.
    const KEYS: [u64; 6] = [
        0x6303_3b0c_a389_c35a,
        0x3b92_d3f0_106b_c147,
        0xc097_314d_9397_36f8,
        0x196e_4ec2_da05_b945,
        0xfc4d_e41f_1bcc_1b21,
        0x82d7_8c13_0699_ef2b,
    ];

    fn v4(host: u32) -> Address {
        Ipv4Addr::from_bits(0x0a64_0000 + host).into()
    }

    fn v6(host: u32) -> Address {
        Ipv6Addr::from_bits(0x2001_0db8 << 96 | u128::from(host)).into()
    }

    fn v6_prefix(host: u32) -> Address {
        Ipv6Addr::from_bits(0x2001_0db8 << 96 | u128::from(host) << 64 | 1).into()
    }

    fn to_80(port: u32) -> u32 {
        ports_word((port as u16).to_be(), 80_u16.to_be())
    }

    /// By how many standard deviations chi-square over the slots is above its mean.
    fn excess(values: impl Iterator<Item = u32>) -> f64 {
        let mut counts = [0_u32; SLOTS];
        values.for_each(|value| counts[value as usize % SLOTS] += 1);
        let expected = f64::from(counts.iter().sum::<u32>()) / SLOTS as f64;
        let squares: f64 = counts.iter().map(|&count| (f64::from(count) - expected) * (f64::from(count) - expected)).sum();
        let freedom = SLOTS as f64 - 1.0;
        (squares / expected - freedom) / root(2.0 * freedom)
    }

    /// The crate has no standard library to take roots.
    fn root(square: f64) -> f64 {
        (0..40).fold(square, |guess, _| (guess + square / guess) / 2.0)
    }

    type Input = fn(u32, u64) -> Hash;

    const INPUT_SETS: [(&str, Input); 8] = [
        ("ports of a v4 client", |i, key| endpoint(&v4(0), to_80(i), key)),
        ("v4 clients", |i, key| endpoint(&v4(i), to_80(5000), key)),
        ("v4 clients with ports", |i, key| endpoint(&v4(i / 256), to_80(1024 + i % 256), key)),
        ("v4 addresses", |i, key| address(&v4(i), key)),
        ("ports of a v6 client", |i, key| endpoint(&v6(0), to_80(i), key)),
        ("v6 clients", |i, key| endpoint(&v6(i), to_80(5000), key)),
        ("v6 networks", |i, key| address(&v6_prefix(i), key)),
        ("servers", |i, key| pair(&v4(i), &v4(1 << 20), 6, key)),
    ];

    #[test]
    fn sequential_inputs_spread_evenly_over_slots_for_every_key() {
        for (name, hash_of) in INPUT_SETS {
            for key in KEYS {
                for shift in [0, 11, 22] {
                    let index = excess((0..INPUTS).map(|i| hash_of(i, key).index >> shift));
                    let tag = excess((0..INPUTS).map(|i| hash_of(i, key).tag >> shift));
                    assert!(index < 5.0 && tag < 5.0, "{name}, key {key:#x}, from bit {shift}: {index} {tag}");
                }
            }
        }
    }

    const CONFIGURED: [(&str, Input); 7] = [
        ("v4 VIPs", |i, key| crate::place::vip(&v4(i), key)),
        ("v4 VIPs of many networks", |i, key| crate::place::vip(&v4(i << 8), key)),
        ("v6 VIPs", |i, key| crate::place::vip(&v6(i), key)),
        ("v6 VIPs of many networks", |i, key| crate::place::vip(&v6_prefix(i), key)),
        ("port 443 of v4 VIPs", |i, key| crate::place::port(&v4(i), 443, 6, key)),
        ("ports of a v4 VIP", |i, key| crate::place::port(&v4(7), i as u16, 6, key)),
        ("ports of a v6 VIP", |i, key| crate::place::port(&v6(7), i as u16, 17, key)),
    ];

    /// Tables are made with four lines of eight places for each entry.
    #[test]
    fn configured_keys_fill_no_line() {
        for (name, hash_of) in CONFIGURED {
            for key in KEYS {
                let mut lines = [0; 4 * SLOTS];
                (1..=SLOTS as u32).for_each(|i| lines[hash_of(i, key).index as usize % (4 * SLOTS)] += 1);
                assert!(lines.iter().all(|&entries| entries <= 4), "{name}, key {key:#x}: {:?}", lines.iter().max());
            }
        }
    }

    #[test]
    fn what_shares_a_slot_is_told_apart_by_tags() {
        for (name, hash_of) in INPUT_SETS {
            for key in KEYS {
                let in_slot = |i: &u32| hash_of(*i, key).index % 8 == 7;
                let spread = excess((0..INPUTS).filter(in_slot).map(|i| hash_of(i, key).tag));
                assert!(spread < 6.0, "{name}, key {key:#x}: {spread}");
            }
        }
    }

    /// All in one slot would be 1.1 million; with a factor of -1 some pairs of ports coincide, which is 361.
    const FEW_COINCIDE: f64 = 450.0;

    #[test]
    fn no_input_makes_the_others_collide() {
        for key in KEYS {
            // Each makes a factor of the first step so simple that the product says little of the other.
            for factor in [0, 1, 2, 3, 1 << 7, 1 << 16, 1 << 31, u32::MAX] {
                let special = Address::from_v4_word(key as u32 ^ factor);
                let ports = excess((0..INPUTS).map(|i| endpoint(&special, to_80(i), key).index));
                let clients = excess((0..INPUTS).map(|i| endpoint(&v4(i), (key >> 32) as u32 ^ factor, key).index));
                assert!(ports < FEW_COINCIDE && clients < FEW_COINCIDE, "key {key:#x}, factor {factor:#x}: {ports} {clients}");
            }
        }
    }

    #[test]
    fn every_input_bit_and_the_key_turn_about_half_of_the_output() {
        let flips = |a: Hash, b: Hash| (a.index ^ b.index).count_ones() + (a.tag ^ b.tag).count_ones();
        for bit in 0..32 {
            let mut turned = [0; 3];
            for i in 0..1000 {
                let (source, ports, key) = (v4(i * 77), to_80(i), 0x6303_3b0c_a389_c35a);
                let whole = endpoint(&source, ports, key);
                let [x, y, z, w] = source.words();
                turned[0] += flips(whole, endpoint(&Address::from_words([x, y, z, w ^ 1 << bit]), ports, key));
                turned[1] += flips(whole, endpoint(&source, ports ^ 1 << bit, key));
                turned[2] += flips(whole, endpoint(&source, ports, key ^ 1 << (2 * bit)));
            }
            for (what, count) in ["address", "ports", "key"].iter().zip(turned) {
                assert!((28_000..36_000).contains(&count), "bit {bit} of the {what}: {count} of 64 000");
            }
        }
    }

    #[test]
    fn the_second_line_is_another_one_and_as_even() {
        let mask = SLOTS as u32 - 1;
        for key in KEYS {
            let hash_of = |i| endpoint(&v4(i / 256), to_80(1024 + i % 256), key);
            assert!((0..INPUTS).all(|i| crate::place::first_line(hash_of(i), mask) != crate::place::second_line(hash_of(i), mask)));
            let spread = excess((0..INPUTS).map(|i| crate::place::second_line(hash_of(i), mask)));
            assert!(spread < 5.0, "key {key:#x}: {spread}");
        }
    }
}
