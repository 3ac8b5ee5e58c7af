//! What the kernel knows about the network: links, routes, neighbours and addresses of the namespace that the process is in.
//!
//! | file | what |
//! |---|---|
//! | `links`, `routes`, `neighbours`, `addresses` | one kernel object each: its model and its messages. Pure. |
//! | `resolve` | from a server's address to the MAC addresses its frames need. Pure state machine. |
//! | `change` | what a burst of notifications means. Pure. |
//! | `driver` | the request socket, and what it reads and writes |
//! | `next_hops_io`, `watch_io` | the drivers of `resolve` and `change` |
//! | `driver_name_io`, `sysctl_io` | what netlink does not tell: a link's driver, the settings below `/proc/sys/net` |
//!
//! A socket belongs to the network namespace of the thread that opened it; so does `/proc/sys/net` to the thread that reads it. Nothing here reads `/sys`, which
//! shows the namespace of its mount.
//!
//! # Path MTU
//! The answer to a route request carries the path MTU that the kernel has learned for that destination, so [`NextHop::mtu`] is right when the
//! route is read. The kernel tells nobody when it learns one or forgets it (after `net.ipv4.route.mtu_expires`, 10 minutes): who
//! needs it calls [`NextHops::reread`] now and then. Of what routers say about tunnels the kernel learns nothing: see `path_mtu`.

pub mod addresses;
pub mod change;
pub mod driver;
pub mod driver_name_io;
pub mod links;
pub mod neighbours;
pub mod next_hops_io;
pub mod resolve;
pub mod routes;
pub mod sysctl_io;
pub mod watch_io;

pub use self::{
    addresses::AssignedAddress,
    change::Change,
    driver::{AddressError, Netlink, OpenError, RequestError},
    links::Link,
    neighbours::{Neighbour, NeighbourKey},
    next_hops_io::{NextHops, RefreshError},
    resolve::{NextHop, Resolver, Unresolved},
    watch_io::{WatchError, Watcher},
};

/// Marks our addresses (`IFA_PROTO`) and our neighbour entries (`NDA_PROTOCOL`), so that those of a daemon that died are known.
/// 87 is free in `/etc/iproute2/rt_protos` and in linux `include/uapi/linux/rtnetlink.h`.
pub const WEIR_PROTOCOL: u8 = 87;

/// Marks addresses of virtual routers (`IFA_PROTO`), which have a life of their own. 88 is free as well.
pub const VRRP_PROTOCOL: u8 = 88;

/// An Ethernet address.
pub type Mac = [u8; 6];
