//! The daemon: wires configuration, netlink and data plane together, and keeps the maps as they should be.
//!
//! | file | what |
//! |---|---|
//! | `driver` | `weir run`: the loop over files, signals, netlink and time |
//! | `daemon_io` | what the loop keeps, and what it does on each event |
//! | `converge_io` | how it has the maps follow |
//! | `config_io`, `keep_io`, `files_io` | which configuration is in force, and what is kept of it |
//! | `admin_io`, `view_io` | the operator's requests, and what the daemon tells |
//! | `links_io`, `anew_io` | what it does about interfaces, and about pins that somebody removed |
//! | `addresses`, `own_macs`, `reload`, `retirement` | its decisions: which addresses, whose frames, what of a new file, when to look for what may go. Pure. |
//! | `checks_io` | the thread of the checks |
//! | `health_io` | what becomes of their results |
//! | `speaker_io` | the process that speaks VRRP: starts it and talks with it |
//! | `vrrp_io`, `vrrp_order`, `vrrp_track_io` | what it is told, what becomes of what it says, and the programs that virtual routers watch and tell |
//! | `vrrp_hold` | which routers the record has on hold. Pure |
//! | `metrics`, `metrics_io` | what is counted, for Prometheus |
//! | `fault_io` | where tests have the daemon die |
//! | `readback` | what the maps hold, as `control` models it |
//! | `details_io` | everything that is known of each server |
//! | `report` | the record that the daemon leaves for `weir status`, its file (`report_io`), and when it is written (`record_io`) |
//! | `registry_io` | where the record of a file's daemon is, whatever the file says by now |
//! | `inspect/` | what maps and record tell together, for whoever looks; `look_io` has a thread read them |

mod addresses;
mod admin_io;
mod anew_io;
mod authorities_io;
mod checks_io;
mod config_io;
mod converge_io;
mod daemon_io;
mod details_io;
mod driver;
mod fault_io;
mod files_io;
mod health_io;
pub mod inspect;
mod keep_io;
mod limits_io;
mod links_io;
mod look_io;
mod lookup_io;
mod metrics;
mod metrics_io;
mod names_io;
mod own_macs;
pub mod readback;
mod record_io;
pub mod registry_io;
mod reload;
pub mod report;
pub mod report_io;
mod retirement;
mod save_io;
mod silence_io;
mod speaker_io;
mod view_io;
mod vrrp_hold;
mod vrrp_io;
mod vrrp_order;
mod vrrp_track_io;
mod ways_io;

pub use driver::{RunError, run};
