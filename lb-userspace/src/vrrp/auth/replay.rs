//! Which numbers have been heard.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use super::keys::KeyId;
use crate::vrrp::refusal::Refusal;

/// Pairs of source and key of one virtual router; nobody is forgotten for a newcomer, or a recording of the forgotten one would pass.
pub const MOST_SOURCES: usize = 256;

/// Which start of a sender.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Epoch(u64);

impl Epoch {
    /// As it was kept, or is on the wire.
    #[must_use]
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// That of a start at this time since 1970, after the last that was kept: it grows even if the clock went back.
    #[must_use]
    pub fn after(last: Option<Self>, wall_clock: Duration) -> Self {
        let clock = u64::try_from(wall_clock.as_nanos()).unwrap_or(u64::MAX);
        Self(last.map_or(clock, |last| clock.max(last.0.saturating_add(1))))
    }

    /// As on the wire.
    #[must_use]
    pub const fn number(self) -> u64 {
        self.0
    }
}

/// What grows with every advert of a sender.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Sequence {
    pub(super) epoch: Epoch,
    pub(super) number: u64,
}

impl Sequence {
    pub(super) const fn following(self) -> Self {
        match self.number.checked_add(1) {
            Some(number) => Self { number, ..self },
            None => Self { epoch: Epoch(self.epoch.0.saturating_add(1)), number: 0 },
        }
    }
}

/// The greatest number of a sender with a key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Heard {
    /// Who sent it.
    pub source: IpAddr,
    /// With which key.
    pub key: KeyId,
    /// In which of its epochs.
    pub epoch: Epoch,
    /// Which in that epoch.
    pub number: u64,
}

#[derive(Debug, Default)]
pub(super) struct Window {
    greatest: BTreeMap<(IpAddr, KeyId), Sequence>,
}

impl Window {
    /// Takes a number that a right MAC vouches for.
    pub(super) fn take(&mut self, source: IpAddr, key: KeyId, sequence: Sequence) -> Result<(), Refusal> {
        let known = self.greatest.len();
        match self.greatest.get_mut(&(source, key)) {
            Some(greatest) if sequence.epoch < greatest.epoch => Err(Refusal::Stale),
            Some(greatest) if sequence <= *greatest => Err(Refusal::Replayed),
            Some(greatest) => {
                *greatest = sequence;
                Ok(())
            }
            None if known >= MOST_SOURCES => Err(Refusal::TooManySources),
            None => {
                self.greatest.insert((source, key), sequence);
                Ok(())
            }
        }
    }

    pub(super) fn heard(&self) -> impl Iterator<Item = Heard> {
        self.greatest.iter().map(|(&(source, key), &Sequence { epoch, number })| Heard { source, key, epoch, number })
    }

    /// Takes it unless more is known.
    pub(super) fn restore(&mut self, heard: Heard) {
        // A smaller number, or one more source than fits, changes nothing.
        _ = self.take(heard.source, heard.key, Sequence { epoch: heard.epoch, number: heard.number });
    }

    pub(super) fn retain(&mut self, is_kept: impl Fn(KeyId) -> bool) {
        self.greatest.retain(|&(_, key), _| is_kept(key));
    }

    pub(super) fn forget(&mut self, source: IpAddr) {
        self.greatest.retain(|&(known, _), _| known != source);
    }
}
