//! One 64-bit digest of several words under a key: equal on every node, whatever its byte order. Not cryptographic.

use lb_common::hash;

/// The digest of `words` in their order under `key`: `hash::word` chained, each result (index in the upper half, tag in the lower) keying
/// the next step, so that every word and its place count.
pub fn words(words: impl IntoIterator<Item = u64>, key: u64) -> u64 {
    words.into_iter().fold(key, |key, word| joined(hash::word(word, key)))
}

/// The digest of `bytes` under `key`: their number, then eight at a time in little-endian order, the last padded with zeros.
pub fn bytes(bytes: &[u8], key: u64) -> u64 {
    let chunks = bytes.chunks(8).map(|chunk| {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        u64::from_le_bytes(word)
    });
    words(std::iter::once(bytes.len() as u64).chain(chunks), key)
}

fn joined(hash: hash::Hash) -> u64 {
    u64::from(hash.index) << 32 | u64::from(hash.tag)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_length_and_key_count() {
        let digest = words([1, 2], 7);
        assert_ne!(digest, words([2, 1], 7));
        assert_ne!(digest, words([1, 2], 8));
        assert_ne!(bytes(b"ab", 7), bytes(b"ab\0", 7));
    }

    /// The figures are the contract between nodes: a table computed from other digests would choose other servers.
    #[test]
    fn digests_never_change_between_versions() {
        assert_eq!([words([1, 2], 7), bytes(b"weir", 0)], [7_617_373_560_601_949_057, 8_348_353_448_042_101_405]);
    }
}
