//! What was changed on a host, to be taken back. Pure.

use std::{collections::BTreeSet, net::IpAddr, path::PathBuf};

use serde::{Deserialize, Serialize};

use super::{
    advice::Outer,
    plan::{Tunnel, Way},
};

/// The shape of [`Record`]; another is refused.
pub const RECORD_VERSION: u32 = 1;

/// A host that is set up, and what was changed for that. Written before the changes are made, so it may name some that were not.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Record {
    /// [`RECORD_VERSION`].
    pub version: u32,
    /// Where packets of the load balancer come in.
    pub interface: String,
    /// How they come.
    pub tunnel: Tunnel,
    /// What opens tunnels.
    pub way: Way,
    /// The addresses that are served.
    pub vips: BTreeSet<IpAddr>,
    /// Those of them that were added to `lo`.
    pub added: BTreeSet<IpAddr>,
    /// Settings that were changed.
    pub settings: Vec<ChangedSetting>,
    /// Where the program that opens tunnels is pinned; empty in a record that does not say.
    #[serde(default)]
    pub pins: PathBuf,
    /// The family of the addresses that tunnels run between, if it was said.
    #[serde(default)]
    pub outer: Option<Outer>,
}

/// A setting below `/proc/sys/net`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ChangedSetting {
    /// Such as `ipv4/conf/all/arp_ignore`.
    pub name: String,
    /// What it was.
    pub before: u32,
    /// What it was set to.
    pub after: u32,
}

impl Record {
    /// What is changed beyond `earlier`.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> (BTreeSet<IpAddr>, Vec<ChangedSetting>) {
        let added = self.added.difference(&earlier.added).copied().collect();
        let is_new = |setting: &&ChangedSetting| earlier.settings.iter().all(|old| old.name != setting.name);
        (added, self.settings.iter().filter(is_new).cloned().collect())
    }
}
