//! The keys that routers share.

use std::{collections::BTreeMap, fmt};

use aws_lc_rs::hmac;

/// Which key of the ring.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct KeyId(u8);

impl KeyId {
    /// Any number is one.
    #[must_use]
    pub const fn new(id: u8) -> Self {
        Self(id)
    }

    /// As on the wire.
    #[must_use]
    pub const fn number(self) -> u8 {
        self.0
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A secret.
#[derive(Clone)]
pub struct Key(hmac::Key);

/// RFC 2104 s3: a key shorter than the hash weakens the MAC; half of it is still out of anybody's reach.
const LEAST_KEY_BYTES: usize = 16;

/// Why there is no ring of keys.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum KeyError {
    /// It could be guessed.
    #[error("a key has at least 16 bytes, not {0}")]
    Short(usize),
    /// The key to send with is missing.
    #[error("key {0} is to send with, and not in the ring")]
    NotInRing(KeyId),
}

impl Key {
    /// From at least 16 bytes; 32 random ones are best.
    ///
    /// # Errors
    /// If they are fewer.
    pub fn new(secret: &[u8]) -> Result<Self, KeyError> {
        if secret.len() < LEAST_KEY_BYTES {
            return Err(KeyError::Short(secret.len()));
        }
        Ok(Self(hmac::Key::new(hmac::HMAC_SHA256, secret)))
    }

    pub(super) const fn mac_key(&self) -> &hmac::Key {
        &self.0
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key")
    }
}

/// At most 256 keys that are taken, of which one sends. To roll over: add the new key on every node, then send with it on every node, then
/// remove the old one.
#[derive(Clone, Debug)]
pub struct Keys {
    accepted: BTreeMap<KeyId, Key>,
    sends: (KeyId, Key),
}

impl Keys {
    /// The ring, and which of its keys sends.
    ///
    /// # Errors
    /// If that one is not in it.
    pub fn new(accepted: BTreeMap<KeyId, Key>, sends: KeyId) -> Result<Self, KeyError> {
        let key = accepted.get(&sends).ok_or(KeyError::NotInRing(sends))?.clone();
        Ok(Self { accepted, sends: (sends, key) })
    }

    pub(super) const fn sending(&self) -> (KeyId, &Key) {
        (self.sends.0, &self.sends.1)
    }

    pub(super) fn of(&self, id: KeyId) -> Option<&Key> {
        self.accepted.get(&id)
    }
}
