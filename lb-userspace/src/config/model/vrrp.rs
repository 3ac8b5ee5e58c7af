//! `[vrrp.NAME]`: a virtual router, in the words of [`crate::vrrp`].

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
    path::PathBuf,
    time::Duration,
};

use crate::vrrp::{
    packet::ChecksumForm,
    settings::{Announcing, Identity, Preempt},
    terms::{Interval, Priority},
    track::Effect,
};

/// `[vrrp.NAME]`: addresses that one of several nodes holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VirtualRouter {
    /// Where adverts go out and come in.
    pub interface: String,
    /// Its number there, and which VRRP is spoken.
    pub identity: Identity,
    /// This node's, before what is tracked moves it.
    pub priority: Priority,
    /// Between two adverts.
    pub interval: Interval,
    /// The macvlan interface that has the addresses, with the virtual router's link-layer address; none: they are on `interface`, with its own.
    pub virtual_mac: Option<String>,
    /// At least one, all of one family, no two alike.
    pub addresses: Vec<VirtualAddress>,
    /// From which adverts come; none: the first address of the interface.
    pub source: Option<IpAddr>,
    /// To whom adverts go and from whom they come; empty: everybody on the link. This node may be among them.
    pub peers: BTreeSet<IpAddr>,
    /// Adverts whose TTL or hop limit is less count for nothing.
    pub min_hop_limit: u8,
    /// Whether it takes over from one of lower priority.
    pub preempt: Preempt,
    /// So long after its start it claims nothing.
    pub start_delay: Duration,
    /// So long after it yielded it does not preempt; none: until it is told that it is ready.
    pub yield_hold: Option<Duration>,
    /// How the link learns where the addresses are.
    pub announcing: Announcing,
    /// How adverts are authenticated.
    pub secret: Secret,
    /// The checksum of what is sent by version 3 over IPv4; none: that of who was heard last, and RFC 9568's until then.
    pub checksum: Option<ChecksumForm>,
    /// What moves the priority or is a fault.
    pub track: Vec<Track>,
    /// Routers of one group change state together.
    pub group: Option<String>,
    /// The program that is told of changes, with its arguments; empty: none.
    pub notify: Vec<String>,
}

/// An address of a virtual router.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VirtualAddress {
    /// The address.
    pub address: IpAddr,
    /// The length of its prefix in bits; a whole address has no route.
    pub prefix_len: u8,
    /// The interface that gets it, if it is not the router's.
    pub device: Option<String>,
    /// Its label; IPv4 only.
    pub label: Option<String>,
}

/// How adverts are authenticated.
#[derive(Clone, PartialEq, Eq)]
pub enum Secret {
    /// Not at all.
    None,
    /// Version 2: by what everybody on the link can read, padded with zeros.
    Password([u8; 8]),
    /// Version 3: by a MAC.
    Keys {
        /// By id.
        ring: BTreeMap<u8, String>,
        /// The one to send with: it is in the ring.
        sends: u8,
    },
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("None"),
            Self::Password(_) => f.write_str("Password"),
            Self::Keys { ring, sends } => write!(f, "Keys {:?}, sends {sends}", ring.keys()),
        }
    }
}

/// Something that is watched.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Track {
    /// What.
    pub what: Tracked,
    /// How it counts.
    pub effect: Effect,
}

/// What is watched.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Tracked {
    /// An interface: up while it has a carrier.
    Interface(String),
    /// A pool: up while this share of its servers takes new flows.
    Pool {
        /// Its name.
        name: String,
        /// 1 to 100.
        share_pct: u8,
    },
    /// A file: up while it is there.
    File(PathBuf),
    /// A program: up while it ends with status 0.
    Command(TrackedCommand),
    /// Up while every interface of `[node]` has the XDP program.
    DataPlane,
}

/// A program whose end tells something.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct TrackedCommand {
    /// The program and its arguments.
    pub argv: Vec<String>,
    /// From one start to the next.
    pub interval: Duration,
    /// After so long it has failed.
    pub timeout: Duration,
    /// Successes in a row that bring it up.
    pub rise: u16,
    /// Failures in a row that bring it down.
    pub fall: u16,
}

/// As messages call it.
impl fmt::Display for Tracked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Interface(name) => write!(f, "interface {name}"),
            Self::Pool { name, share_pct } => write!(f, "pool {name} {share_pct}%"),
            Self::File(path) => write!(f, "file {}", path.display()),
            Self::Command(command) => write!(f, "command {}", command.argv.join(" ")),
            Self::DataPlane => f.write_str("data plane"),
        }
    }
}
