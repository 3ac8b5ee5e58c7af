//! What an operator chooses for a virtual router.

use std::{collections::BTreeSet, net::IpAddr, time::Duration};

use thiserror::Error;

use super::{
    addresses::{AddressList, group},
    terms::{Family, Interval, RouterId, Version},
};

/// Unicast peers of a router: an advert goes to each of them.
pub const MOST_PEERS: usize = 64;

/// The longest delay, hold or gap: what is longer is a slip of the pen.
pub const LONGEST: Duration = Duration::from_hours(24);

/// What a router is for its whole life; another one is another router.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Identity {
    /// Its number on the link.
    pub router: RouterId,
    /// What it speaks.
    pub version: Version,
}

/// What may change while it runs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settings {
    /// This node's address on the link, from which adverts come. Of two equal priorities the greater address wins.
    pub primary: IpAddr,
    /// Between its adverts.
    pub interval: Interval,
    /// To whom they go, and from whom they come.
    pub reach: Reach,
    /// Whether it takes over from an active router of lower priority. An owner does at once.
    pub preempt: Preempt,
    /// So long after its start it claims nothing.
    pub start_delay: Duration,
    /// So long after it yielded it does not preempt; without one, until it is told that it is ready.
    pub yield_hold: Option<Duration>,
    /// How the link learns where the addresses are.
    pub announcing: Announcing,
    /// Who decides that it may become active.
    pub claims: Claims,
}

/// Who hears adverts, and whose are heard.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Reach {
    /// Everybody on the link.
    Multicast,
    /// These, and nobody else.
    Unicast(BTreeSet<IpAddr>),
}

/// When a router takes over from an active one of lower priority.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Preempt {
    /// When it has listened for an active-down interval.
    AtOnce,
    /// That, and so long after it first heard such a router.
    After(Duration),
    /// Not while the other lives.
    Never,
}

/// When gratuitous ARP or unsolicited neighbour advertisements are sent, beside at take-over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Announcing {
    /// Once more so long after a take-over: switches and hosts may have missed the first.
    pub again_after: Option<Duration>,
    /// Now and then.
    pub every: Option<Duration>,
    /// So often, after the first few, because of adverts of routers without precedence.
    pub least_gap: Duration,
}

/// Again after five seconds, as keepalived does; a refresh each minute, which it leaves out.
impl Default for Announcing {
    fn default() -> Self {
        Self { again_after: Some(Duration::from_secs(5)), every: Some(Duration::from_secs(60)), least_gap: Duration::from_secs(1) }
    }
}

/// Who decides that a router may become active.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Claims {
    /// It alone.
    Alone,
    /// Its sync group: it claims, and waits until that is granted.
    WithGroup,
}

/// What does not fit together.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum SetupError {
    /// RFC 3768 is of IPv4.
    #[error("version 2 of vrrp has no ipv6")]
    Version,
    /// An address, or a peer, is not of the primary address's family.
    #[error("{0} is of another family than the primary address")]
    Family(IpAddr),
    /// More peers than adverts are sent to.
    #[error("a router has at most 64 unicast peers, not {0}")]
    Peers(usize),
    /// A time of the settings.
    #[error("a delay, hold or gap of a router is at most 24 hours")]
    TooLong,
}

impl Settings {
    /// Whether all of it fits together.
    ///
    /// # Errors
    /// What does not.
    pub fn check(&self, identity: Identity, addresses: &AddressList) -> Result<(), SetupError> {
        if identity.version == Version::V2 && self.primary.is_ipv6() {
            return Err(SetupError::Version);
        }
        if self.times().into_iter().flatten().any(|time| time > LONGEST) {
            return Err(SetupError::TooLong);
        }
        let none = BTreeSet::new();
        let peers = match &self.reach {
            Reach::Multicast => &none,
            Reach::Unicast(peers) => peers,
        };
        if peers.len() > MOST_PEERS {
            return Err(SetupError::Peers(peers.len()));
        }
        let other = addresses.as_slice().iter().chain(peers).find(|address| address.is_ipv4() != self.primary.is_ipv4());
        other.map_or(Ok(()), |address| Err(SetupError::Family(*address)))
    }

    fn times(&self) -> [Option<Duration>; 6] {
        let preempt = match self.preempt {
            Preempt::After(delay) => Some(delay),
            Preempt::AtOnce | Preempt::Never => None,
        };
        let Announcing { again_after, every, least_gap } = self.announcing;
        [Some(self.start_delay), preempt, self.yield_hold, again_after, every, Some(least_gap)]
    }

    /// Where an advert goes.
    pub(super) fn destinations(&self) -> Vec<IpAddr> {
        match &self.reach {
            Reach::Multicast => vec![group(Family::of(self.primary))],
            Reach::Unicast(peers) => peers.iter().copied().collect(),
        }
    }

    /// Whether adverts of this source count.
    pub(super) fn hears(&self, source: IpAddr) -> bool {
        match &self.reach {
            Reach::Multicast => true,
            Reach::Unicast(peers) => peers.contains(&source),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_together_is_told() {
        let v3 = Identity { router: RouterId::new(1).expect("not 0"), version: Version::V3 };
        let (four, six): (IpAddr, IpAddr) = ("192.0.2.1".parse().unwrap(), "fe80::1".parse().unwrap());
        let of = |primary, reach| Settings {
            primary,
            interval: Interval::from_seconds(1).unwrap(),
            reach,
            preempt: Preempt::AtOnce,
            start_delay: Duration::ZERO,
            yield_hold: None,
            announcing: Announcing::default(),
            claims: Claims::Alone,
        };
        let list = |address| AddressList::new(&[address]).unwrap();
        let many: BTreeSet<IpAddr> = (0..65).map(|last| IpAddr::from([10, 0, 0, last])).collect();
        let long = Settings { preempt: Preempt::After(Duration::MAX), ..of(four, Reach::Multicast) };
        for (settings, identity, address, expected) in [
            (of(four, Reach::Multicast), v3, four, Ok(())),
            (of(six, Reach::Multicast), v3, six, Ok(())),
            (of(six, Reach::Multicast), Identity { version: Version::V2, ..v3 }, six, Err(SetupError::Version)),
            (of(six, Reach::Multicast), v3, four, Err(SetupError::Family(four))),
            (of(four, Reach::Unicast([six].into())), v3, four, Err(SetupError::Family(six))),
            (of(four, Reach::Unicast(many)), v3, four, Err(SetupError::Peers(65))),
            (long, v3, four, Err(SetupError::TooLong)),
        ] {
            assert_eq!(settings.check(identity, &list(address)), expected);
        }
    }
}
