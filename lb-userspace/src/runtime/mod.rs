//! The daemon: wires configuration, netlink and data plane together, and keeps the maps as they should be.
//!
//! | file | what |
//! |---|---|
//! | `driver` | `weir run`: the loop over files, signals, netlink and time |
//! | `daemon_io` | what the loop keeps, and what it does on each event |
//! | `addresses`, `own_macs`, `reload`, `retirement` | its decisions: which addresses, whose frames, what of a new file, when to look for what may go. Pure. |
//! | `readback` | what the maps hold, as `control` models it |
//! | `report` | the record that the daemon leaves for `weir status`, and its reading (`report_io`) |

mod addresses;
mod daemon_io;
mod driver;
mod files_io;
mod own_macs;
pub mod readback;
mod reload;
pub mod report;
pub mod report_io;
mod retirement;

pub use driver::{RunError, run};
