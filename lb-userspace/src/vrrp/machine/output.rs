//! What a router tells its driver.

use std::{fmt, net::IpAddr};

use crate::vrrp::packet::Advert;

/// What has to be done, in the order given.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Output {
    /// An advert goes out.
    Send {
        /// What it says.
        advert: Advert,
        /// To whom.
        to: IpAddr,
    },
    /// This node takes these addresses.
    AddAddresses(Vec<IpAddr>),
    /// This node gives these addresses up.
    RemoveAddresses(Vec<IpAddr>),
    /// The link is told that these addresses are here: a burst of gratuitous ARP or unsolicited neighbour advertisements.
    Announce(Vec<IpAddr>),
    /// The state is another; what comes with it has been said before.
    Transition(Transition),
    /// Something is wrong with a peer.
    Conflict(IpAddr, Conflict),
    /// It is wrong no longer.
    ConflictOver(IpAddr, Conflict),
}

/// A router's state (RFC 9568 s6.3).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum State {
    /// It does not run.
    Initialize,
    /// Something makes it unable to serve.
    Fault,
    /// Another one is active, or nobody yet.
    Backup,
    /// As backup, with the addresses that an earlier process left: nobody else is known to have them.
    HeldOver,
    /// It has the addresses.
    Active,
    /// It has the addresses and wants somebody else to take them.
    Yielding,
}

impl State {
    /// Whether the addresses are here.
    #[must_use]
    pub const fn holds_addresses(self) -> bool {
        match self {
            Self::HeldOver | Self::Active | Self::Yielding => true,
            Self::Initialize | Self::Fault | Self::Backup => false,
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Initialize => "stopped",
            Self::Fault => "fault",
            Self::Backup => "backup",
            Self::HeldOver => "backup, held over",
            Self::Active => "active",
            Self::Yielding => "active, yielding",
        })
    }
}

/// A change of state.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Transition {
    /// Before.
    pub from: State,
    /// After.
    pub to: State,
    /// Why.
    pub reason: Reason,
}

/// Why a state is another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reason {
    /// It was started.
    Started,
    /// It was started, and the addresses are its own.
    Owner,
    /// No active router was heard for an active-down interval.
    Silence,
    /// The active router resigned.
    Resigned,
    /// The active router has a lower priority.
    Preempts,
    /// A router of higher priority is active.
    HigherPriority(IpAddr),
    /// A router of the same priority and a greater address is active.
    GreaterAddress(IpAddr),
    /// Another router was found active after a restart.
    PeerActive(IpAddr),
    /// It was told to yield.
    Yields,
    /// Another router took over.
    HandedOver(IpAddr),
    /// No other router took over in time.
    NobodyTookOver,
    /// It was told that it is ready again.
    Ready,
    /// It woke so late that others have taken over.
    Late,
    /// Its sync group left.
    Group,
    /// Something makes it unable to serve.
    Fault(FaultCause),
    /// Nothing does any longer.
    FaultOver,
    /// It was stopped.
    Stopped,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Started => f.write_str("started"),
            Self::Owner => f.write_str("started as the owner of the addresses"),
            Self::Silence => f.write_str("no active router was heard"),
            Self::Resigned => f.write_str("the active router resigned"),
            Self::Preempts => f.write_str("the active router has a lower priority"),
            Self::HigherPriority(peer) => write!(f, "{peer} has a higher priority"),
            Self::GreaterAddress(peer) => write!(f, "{peer} has the same priority and a greater address"),
            Self::PeerActive(peer) => write!(f, "{peer} is active"),
            Self::Yields => f.write_str("told to yield"),
            Self::HandedOver(peer) => write!(f, "{peer} took over"),
            Self::NobodyTookOver => f.write_str("nobody took over"),
            Self::Ready => f.write_str("told that it is ready"),
            Self::Late => f.write_str("woke too late to go on"),
            Self::Group => f.write_str("its sync group left"),
            Self::Fault(cause) => cause.fmt(f),
            Self::FaultOver => f.write_str("the fault is over"),
            Self::Stopped => f.write_str("stopped"),
        }
    }
}

/// What makes a router unable to serve.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum FaultCause {
    /// Its link is down.
    Link,
    /// Its link has no address to speak from.
    Source,
    /// It has no address.
    NoAddresses,
    /// Something that is watched is down.
    Tracked,
    /// Another member of its sync group has a fault.
    Group,
    /// The driver cannot do its work, as add an address.
    Driver,
}

impl FaultCause {
    /// Whether it can still speak, and have the addresses until another one has them.
    pub(super) const fn leaves_link(self) -> bool {
        match self {
            Self::Tracked | Self::Group => true,
            Self::Link | Self::Source | Self::NoAddresses | Self::Driver => false,
        }
    }
}

impl fmt::Display for FaultCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Link => "the link is down",
            Self::Source => "there is no address to speak from",
            Self::NoAddresses => "there is no address",
            Self::Tracked => "something that is tracked is down",
            Self::Group => "its sync group has a fault",
            Self::Driver => "the system refuses",
        })
    }
}

/// What is wrong with a peer. What it says of itself is in the list of peers.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Conflict {
    /// It has other addresses.
    Addresses,
    /// It has another interval.
    Interval,
    /// It is the owner, as this router is.
    Owner,
    /// It has this router's primary address.
    SameAddress,
    /// It is active while another one is: they do not hear each other.
    Beside,
    /// It goes on as active, though this router has precedence: it does not hear it, or does not believe it.
    DoesNotHear,
}

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Addresses => "it has other addresses",
            Self::Interval => "it has another interval",
            Self::Owner => "it owns the addresses, as this node does",
            Self::SameAddress => "it has this node's address",
            Self::Beside => "it is active while another node is: they do not hear each other",
            Self::DoesNotHear => "it stays active, though this node has precedence",
        })
    }
}
