//! Prepares this host to be a server of a pool that forwards by dsr, ipip or gue, and takes that back. Used on servers, without a daemon.
//!
//! | file | what |
//! |---|---|
//! | `plan` | from a request and what the host is like to the changes to make. Pure. |
//! | `record` | those changes, as they are kept to be taken back. Pure. |
//! | `advice` | what is left to the operator: the MSS, tunnel devices. Pure. |
//! | `status` | what is as it should be. Pure. |
//! | `driver`, `record_io` | read the host, make and take back the changes, keep the record |
//!
//! # What is changed
//! - The VIPs become host addresses of `lo`, so that the host accepts their packets and answers from them.
//! - Nobody but the load balancer may attract their packets. IPv4: `arp_ignore` and `arp_announce` on the interface and on `all`, as the
//!   kernel answers ARP on every link for an address of any. IPv6: nothing, as neighbour solicitations are answered only by the link that has
//!   the address (linux net/ipv6/ndisc.c, `ndisc_recv_ns` looks it up on that link), and never carry an address of another as their source.
//! - `rp_filter`: where it is strict it becomes loose on the interface, as a client may be reached by another way than its packets come.
//! - ipip and gue: `weir_decap` is attached to the interface, or the operator is told which tunnel devices do the same.
//!
//! The record and the pins lie in file systems that a restart of the host empties, as it does all that was changed: run it at each start.

pub mod advice;
pub mod driver;
pub mod plan;
pub mod record;
mod record_io;
pub mod status;

pub use driver::{Places, Removed, SetupError, add, remove, status};
pub use plan::{Facts, Refusal, Request, Tunnel, Way};
pub use record::Record;
pub use record_io::RecordError;
pub use status::Status;
