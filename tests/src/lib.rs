//! What Weir's tests stand on.
//!
//! | folder | what |
//! |---|---|
//! | `lab` | network namespaces, cables, topologies, the servers and clients in them, the daemon under test |
//! | `modes` | a service for every way of forwarding |
//! | `peer` | the traffic of the binary `weir-peer`: connections that notice a lost or changed byte |
//! | `../tests` | `e2e_*.rs` need the `weir` binary; the others need root only |

pub mod demo;
pub mod lab;
pub mod modes;
pub mod peer;
pub mod standing;

use std::time::Duration;

/// How long a random, fuzz or soak test runs: `short`, or `long` under `cargo xtask test --long`.
pub fn short_or_long(short: Duration, long: Duration) -> Duration {
    if std::env::var_os("WEIR_TEST_LONG").is_some() { long } else { short }
}
