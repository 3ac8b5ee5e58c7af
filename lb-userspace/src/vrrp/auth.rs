//! Adverts that nobody without a key can make, and nobody can replay: Weir's own, for links on which anyone can send.
//!
//! A trailer follows the message of version 3. Routers that know nothing of it refuse the advert for its length.
//!
//! ```text
//!    0        4         5        6           8            16              24               56
//!   +--------+---------+--------+-----------+------------+---------------+----------------+
//!   | "WVRA" | version | key id | 0         | epoch      | sequence      | HMAC-SHA-256   |
//!   +--------+---------+--------+-----------+------------+---------------+----------------+
//! ```
//!
//! The MAC covers the source and the destination (16 bytes each, IPv4 as mapped), the message, which names the virtual router, and the
//! trailer before the MAC. A receiver takes an advert whose (epoch, sequence) is greater than every one that it took from the same source
//! with the same key id: who has stolen an old key cannot use up the numbers of a new one.
//!
//! **Restarts.** The epoch is the sender's: wall-clock time at its start, never less than the last one that it kept plus one
//! ([`Epoch::after`]). A sender that lost what it kept, and whose clock went back as well, is refused ([`Refusal::Stale`]) by all who heard
//! it before: it cannot be told from an attacker who plays a recording. It is heard again when its clock has passed the old epoch, when
//! the ring's sending key gets another id, or when the receivers are told to forget it ([`Opener::forget`]). A receiver that restarts knows
//! nobody: it gives back what [`Opener::heard`] said ([`Opener::restore`]), or a recording could pass until the true sender's next advert.

mod keys;
mod replay;

use std::net::IpAddr;

use aws_lc_rs::hmac;

use self::replay::{Sequence, Window};
pub use self::{
    keys::{Key, KeyError, KeyId, Keys},
    replay::{Epoch, Heard, MOST_SOURCES},
};
use super::{
    packet::{self, Ends, Received},
    refusal::Refusal,
};

const MAGIC: [u8; 4] = *b"WVRA";
const TRAILER_VERSION: u8 = 1;
const MAC_BYTES: usize = 32;
/// What the MAC covers of the trailer.
const CLEAR_BYTES: usize = 24;
/// Bytes that an authenticated advert is longer.
pub const TRAILER_BYTES: usize = CLEAR_BYTES + MAC_BYTES;

/// Whether a payload ends with a trailer, by its magic number.
#[must_use]
pub fn is_sealed(payload: &[u8]) -> bool {
    payload.len().checked_sub(TRAILER_BYTES).is_some_and(|at| payload[at..].starts_with(&MAGIC))
}

/// Authenticates the adverts of one virtual router.
#[derive(Debug)]
pub struct Sealer {
    keys: Keys,
    next: Sequence,
}

impl Sealer {
    /// With the epoch of this start.
    #[must_use]
    pub const fn new(keys: Keys, epoch: Epoch) -> Self {
        Self { keys, next: Sequence { epoch, number: 1 } }
    }

    /// Uses another ring from now on.
    pub fn set_keys(&mut self, keys: Keys) {
        self.keys = keys;
    }

    /// A message of version 3 with its trailer. No two have the same number.
    pub fn seal(&mut self, mut message: Vec<u8>, ends: Ends) -> Vec<u8> {
        let (id, key) = self.keys.sending();
        let trailer = clear(id, self.next);
        self.next = self.next.following();
        let mac = hmac::sign(key.mac_key(), &covered(ends, &message, &trailer));
        message.extend(trailer);
        message.extend(mac.as_ref());
        message
    }
}

/// Takes the authenticated adverts of one virtual router.
#[derive(Debug)]
pub struct Opener {
    keys: Keys,
    window: Window,
}

impl Opener {
    /// Of senders that have not been heard yet.
    #[must_use]
    pub fn new(keys: Keys) -> Self {
        Self { keys, window: Window::default() }
    }

    /// Uses another ring from now on; what was heard with keys that it has not is forgotten.
    pub fn set_keys(&mut self, keys: Keys) {
        self.window.retain(|id| keys.of(id).is_some());
        self.keys = keys;
    }

    /// Checks a payload and gives it without its trailer.
    ///
    /// # Errors
    /// Why it is not believed.
    pub fn open<'a>(&mut self, received: &Received<'a>) -> Result<Received<'a>, Refusal> {
        packet::check_ends(received)?;
        let (message, trailer) = packet::split(received)?;
        if trailer.is_empty() {
            return Err(Refusal::Unauthenticated);
        }
        let Ok(trailer) = <&[u8; TRAILER_BYTES]>::try_from(trailer) else { return Err(Refusal::Trailer) };
        let (id, sequence) = read(trailer)?;
        let key = self.keys.of(id).ok_or(Refusal::UnknownKey)?;
        let (clear, mac) = trailer.split_at(CLEAR_BYTES);
        // In constant time.
        if hmac::verify(key.mac_key(), &covered(received.ends, message, clear), mac).is_err() {
            return Err(Refusal::Mac);
        }
        self.window.take(received.ends.source, id, sequence)?;
        Ok(Received { payload: message, ..*received })
    }

    /// The greatest number of every sender, to be kept over a restart.
    pub fn heard(&self) -> impl Iterator<Item = Heard> {
        self.window.heard()
    }

    /// Takes what [`Self::heard`] said before a restart.
    pub fn restore(&mut self, heard: impl IntoIterator<Item = Heard>) {
        heard.into_iter().for_each(|heard| self.window.restore(heard));
    }

    /// Takes any number from a sender next: an operator knows that it lost its own.
    pub fn forget(&mut self, source: IpAddr) {
        self.window.forget(source);
    }
}

fn clear(id: KeyId, sequence: Sequence) -> [u8; CLEAR_BYTES] {
    let mut bytes = [0; CLEAR_BYTES];
    bytes[..4].copy_from_slice(&MAGIC);
    bytes[4] = TRAILER_VERSION;
    bytes[5] = id.number();
    bytes[8..16].copy_from_slice(&sequence.epoch.number().to_be_bytes());
    bytes[16..].copy_from_slice(&sequence.number.to_be_bytes());
    bytes
}

/// The key's id and the number; the reserved bytes are zero.
fn read(trailer: &[u8; TRAILER_BYTES]) -> Result<(KeyId, Sequence), Refusal> {
    let (words, _) = trailer.as_chunks::<8>();
    let [magic @ .., version, id, 0, 0] = words[0] else { return Err(Refusal::Trailer) };
    if magic != MAGIC || version != TRAILER_VERSION {
        return Err(Refusal::Trailer);
    }
    let sequence = Sequence { epoch: Epoch::new(u64::from_be_bytes(words[1])), number: u64::from_be_bytes(words[2]) };
    Ok((KeyId::new(id), sequence))
}

/// What the MAC covers.
fn covered(ends: Ends, message: &[u8], clear: &[u8]) -> Vec<u8> {
    let mapped = |address| match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    };
    [&mapped(ends.source)[..], &mapped(ends.destination), message, clear].concat()
}

#[cfg(test)]
mod tests;
