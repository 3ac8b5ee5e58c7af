//! What Weir's tests stand on.
//!
//! | module | what |
//! |---|---|
//! | `bench` | the packet path timed |
//! | `demo` | the demonstration |
//! | `fixture` | packets run through the real program |
//! | `frames` | frames made by hand for the tables in memory |
//! | `lab` | network namespaces, cables, topologies, the servers and clients in them, the daemon under test |
//! | `modes` | a lab for each forward mode |
//! | `operator` | the operator's commands, and what they have to say |
//! | `peer` | the traffic of the binary `weir-peer`: connections that notice a lost or changed byte |
//! | `random` | seeded random numbers |
//! | `sim` | flows, servers and a daemon in virtual time, beside a full connection table |
//! | `standing` | what stays standing after a command |
//! | `tables` | the packet path's tables in memory: a model of the kernel's maps |
//! | `vrrp` | nodes that share addresses, and who answers at them |
//! | `web` | three nginx in the lab, and who of them serves |
//! | `../tests` | `e2e_*.rs` need the `weir` binary; the others need root only |

pub mod bench;
pub mod demo;
pub mod fixture;
pub mod frames;
pub mod lab;
pub mod modes;
pub mod operator;
pub mod peer;
pub mod random;
pub mod sim;
pub mod standing;
pub mod tables;
pub mod vrrp;
pub mod web;

use std::time::Duration;

/// How long a random, fuzz or soak test runs: `short`, or `long` under `cargo xtask test --long`.
pub fn short_or_long(short: Duration, long: Duration) -> Duration {
    if std::env::var_os("WEIR_TEST_LONG").is_some() { long } else { short }
}
