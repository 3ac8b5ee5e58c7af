//! The process that speaks VRRP: it holds the addresses of virtual routers, and goes on when the daemon dies.
//!
//! | file | what |
//! |---|---|
//! | `order` | what the daemon and the speaker say to each other |
//! | `desk`, `member` | routers, sync groups, keys and what is watched: what has to be done on each event. Pure |
//! | `leases` | the addresses that the host was given. Pure |
//! | `frames` | gratuitous ARP, unsolicited neighbour advertisements, adverts of virtual MACs. Pure |
//! | `claim` | what others say of where addresses are, and the filter of that. Pure |
//! | `defence` | when addresses are announced against that, and what is told. Pure |
//! | `clock_io` | time that goes on while the machine sleeps |
//! | `wire_io` | the sockets of adverts |
//! | `claims_io` | the sockets that hear who else claims addresses |
//! | `kernel_io` | links and addresses by netlink, and frames on a link |
//! | `macvlan_io` | interfaces of routers with a link-layer address of their own |
//! | `apart_io` | keeps long system calls of others off its processor |
//! | `urgency_io` | real-time scheduling and locked memory |
//! | `examine_io` | whether this machine can do it |
//! | `heir_io` | the process that goes on when the speaker is killed |
//! | `place_io` | the lock that makes a speaker the only one |
//! | `control_io` | the socket that the daemon connects to |
//! | `driver` | the loop |
//! | `visit_io` | what other processes do with a speaker: look at it, and have it end |
//!
//! **Leases.** An address is added for [`LEASE`](kernel_io::LEASE) and renewed each second: those of a speaker that was killed or stopped go away by
//! themselves. An address that the host has without our mark is somebody else's, and left alone.
//!
//! **One thread**, without allocations that wait for others: each round it reads the kernel's news and the adverts that wait, does what is due, and performs
//! the outputs in their order.

use std::ffi::CStr;

pub mod apart_io;
pub mod claim;
mod claims_io;
pub mod clock_io;
mod control_io;
mod defence;
mod desk;
pub mod driver;
pub mod examine_io;
mod frames;
mod heir_io;
mod kernel_io;
mod leases;
mod macvlan_io;
mod member;
pub mod order;
mod place_io;
mod urgency_io;
pub mod visit_io;
mod wire_io;

/// What the process is called while it speaks (proc_pid_comm(5)).
const NAME: &CStr = c"vrrp-speaker";
/// And while it waits for the end of the one that speaks. Neither is the program's: what ends all processes of that name leaves them alone.
const HEIRS_NAME: &CStr = c"vrrp-heir";

/// The socket, in the state directory.
pub const SOCKET: &str = "vrrp.sock";
