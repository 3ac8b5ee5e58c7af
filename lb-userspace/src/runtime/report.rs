//! What the daemon leaves in its state directory for whoever asks: names, next hops, errors, and a reading of the counters to compute rates from.

use std::{collections::BTreeMap, net::IpAddr, path::PathBuf};

use serde::{Deserialize, Serialize};

/// The daemon's record, `state.json`. Everything that the maps themselves tell is left to them.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Report {
    /// The daemon's process.
    pub pid: u32,
    /// Its version.
    pub version: String,
    /// The node's name.
    pub node: String,
    /// Seconds of the Unix epoch at which it started.
    pub started_at: u64,
    /// Whether it found the data plane in place or made it: `fresh` or `adopted`.
    pub origin: String,
    /// Where its configuration is.
    pub config: PathBuf,
    /// Seconds of the Unix epoch at which the configuration in force was taken.
    pub config_taken_at: u64,
    /// What is wrong with the file as it is now; the one in force stays.
    pub config_errors: Vec<String>,
    /// Warnings about the configuration in force.
    pub config_warnings: Vec<String>,
    /// What keeps the maps from being as they should be.
    pub apply_error: Option<String>,
    /// Changes that wait for a restart or never come, in words.
    pub held_back: Vec<String>,
    /// By interface: `native` or `generic`.
    pub interfaces: BTreeMap<String, String>,
    /// Addresses that Weir added, with their interface's index.
    pub added_addresses: Vec<(IpAddr, u32)>,
    /// Next hops that are missing, by server, and why.
    pub unresolved: BTreeMap<IpAddr, String>,
    /// Names of what the maps know by number.
    pub services: Vec<ServiceName>,
    /// The counters at [`Self::read_at_ms`].
    pub packets: BTreeMap<u16, (u64, u64)>,
    /// Milliseconds of the Unix epoch.
    pub read_at_ms: u64,
}

/// A service's names.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ServiceName {
    /// The listener.
    pub listener: String,
    /// The pool.
    pub pool: String,
    /// Its VIP.
    pub vip: IpAddr,
    /// Its port, 0 for every one.
    pub port: u16,
    /// 6 or 17.
    pub protocol: u8,
    /// The pool's servers: name, address, and port or 0.
    pub servers: Vec<(String, IpAddr, u16)>,
}
