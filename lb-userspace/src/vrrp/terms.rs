//! The words of VRRP as types: versions, virtual router ids, priorities and intervals.

use std::{fmt, time::Duration};

/// Which VRRP is spoken.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Version {
    /// RFC 3768: IPv4, intervals of whole seconds.
    V2,
    /// RFC 9568: IPv4 and IPv6, intervals of centiseconds.
    V3,
}

/// Which addresses a virtual router has; it has those of one family only (RFC 9568, abstract).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// That of an address.
    #[must_use]
    pub const fn of(address: std::net::IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }
}

/// A virtual router's number, 1 to 255 (RFC 9568 s5.2.3).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct RouterId(u8);

impl RouterId {
    /// None for 0.
    #[must_use]
    pub const fn new(id: u8) -> Option<Self> {
        if id == 0 { None } else { Some(Self(id)) }
    }

    /// As on the wire.
    #[must_use]
    pub const fn number(self) -> u8 {
        self.0
    }
}

impl fmt::Display for RouterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A router's priority, 1 to 255: the higher takes precedence (RFC 9568 s5.2.4).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Priority(u8);

impl Priority {
    /// The lowest.
    pub const LOWEST: Self = Self(1);
    /// The highest of a router that does not own the addresses.
    pub const HIGHEST: Self = Self(254);
    /// That of the router whose own addresses they are.
    pub const OWNER: Self = Self(255);

    /// None for 0, which only adverts have.
    #[must_use]
    pub const fn new(priority: u8) -> Option<Self> {
        if priority == 0 { None } else { Some(Self(priority)) }
    }

    /// As on the wire.
    #[must_use]
    pub const fn number(self) -> u8 {
        self.0
    }

    /// Whether it is the address owner's.
    #[must_use]
    pub const fn is_owner(self) -> bool {
        self.0 == Self::OWNER.0
    }
}

impl fmt::Display for Priority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The priority of an advert.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum AdvertPriority {
    /// 0: the sender stops being active.
    Resigns,
    /// The sender is active.
    Holds(Priority),
}

impl AdvertPriority {
    /// As on the wire.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Resigns => 0,
            Self::Holds(priority) => priority.number(),
        }
    }
}

impl From<u8> for AdvertPriority {
    fn from(number: u8) -> Self {
        Priority::new(number).map_or(Self::Resigns, Self::Holds)
    }
}

/// The time between two adverts of an active router.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Interval {
    centiseconds: u16,
}

/// Why a duration is no interval.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum IntervalError {
    /// Version 3 has 12 bits of centiseconds (RFC 9568 s5.2.7).
    #[error("an advert interval is 10ms to 40.95s, in steps of 10ms")]
    Centiseconds,
    /// Version 2 has 8 bits of seconds (RFC 3768 s5.3.7).
    #[error("an advert interval of version 2 is 1s to 255s, in whole seconds")]
    Seconds,
}

impl Interval {
    /// What the version can say.
    ///
    /// # Errors
    /// If it cannot say this one.
    pub fn new(interval: Duration, version: Version) -> Result<Self, IntervalError> {
        let (unit_ms, most, error) = match version {
            Version::V2 => (1000, 255, IntervalError::Seconds),
            Version::V3 => (10, 4095, IntervalError::Centiseconds),
        };
        let units = interval.as_millis() / unit_ms;
        let is_whole = interval.as_nanos() == units * unit_ms * 1_000_000;
        match u16::try_from(units * unit_ms / 10) {
            Ok(centiseconds) if is_whole && (1..=most).contains(&units) => Ok(Self { centiseconds }),
            Ok(_) | Err(_) => Err(error),
        }
    }

    /// From the field of version 3, of which 12 bits count; none for 0.
    #[must_use]
    pub const fn from_centiseconds(field: u16) -> Option<Self> {
        let centiseconds = field & 0x0fff;
        if centiseconds == 0 { None } else { Some(Self { centiseconds }) }
    }

    /// From the field of version 2; none for 0.
    #[must_use]
    pub const fn from_seconds(field: u8) -> Option<Self> {
        if field == 0 { None } else { Some(Self { centiseconds: field as u16 * 100 }) }
    }

    /// As a time.
    #[must_use]
    pub const fn duration(self) -> Duration {
        Duration::from_millis(self.centiseconds as u64 * 10)
    }

    /// The field of version 3: at most 4095.
    pub(super) const fn centiseconds(self) -> u16 {
        if self.centiseconds > 4095 { 4095 } else { self.centiseconds }
    }

    /// The field of version 2: at least 1.
    pub(super) const fn seconds(self) -> u8 {
        let seconds = self.centiseconds / 100;
        if seconds == 0 { 1 } else { seconds as u8 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_what_the_field_can_say() {
        let of = |ms, version| Interval::new(Duration::from_millis(ms), version).map(Interval::duration);
        for (ms, version, expected) in [
            (10, Version::V3, Ok(10)),
            (40_950, Version::V3, Ok(40_950)),
            (0, Version::V3, Err(IntervalError::Centiseconds)),
            (15, Version::V3, Err(IntervalError::Centiseconds)),
            (40_960, Version::V3, Err(IntervalError::Centiseconds)),
            (1000, Version::V2, Ok(1000)),
            (255_000, Version::V2, Ok(255_000)),
            (1500, Version::V2, Err(IntervalError::Seconds)),
            (256_000, Version::V2, Err(IntervalError::Seconds)),
            (u64::MAX, Version::V3, Err(IntervalError::Centiseconds)),
        ] {
            assert_eq!(of(ms, version), expected.map(Duration::from_millis), "{ms} {version:?}");
        }
    }
}
