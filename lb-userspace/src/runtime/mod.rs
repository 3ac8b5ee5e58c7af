//! The daemon: wires configuration, netlink and data plane together, and keeps the maps as they should be.
//!
//! | file | what |
//! |---|---|
//! | `driver` | `weir run`: the loop over files, signals, netlink and time |
//! | `daemon` | what the loop keeps, and what it does on each event |
//! | `readback` | what the maps hold, as `control` models it |
//! | `report` | the record that the daemon leaves for `weir status`, and its reading (`report_io`) |

mod daemon;
mod driver;
mod files_io;
pub mod readback;
pub mod report;
pub mod report_io;

pub use driver::{RunError, run};
