//! Files of certificate authorities that checks use: the checks read them by themselves when they change, this tells which cannot be used.
#![allow(clippy::disallowed_methods, reason = "looks at files")]

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use tracing::{info, warn};

use super::{daemon_io::Daemon, files_io::Stamp};
use crate::{config::model::Config, health::probe::authorities};

/// The files as they were looked at last.
#[derive(Default)]
pub(super) struct Authorities {
    seen: BTreeMap<PathBuf, (Stamp, Option<String>)>,
}

impl Authorities {
    /// Looks at the files that changed. Gives what is wrong with any, a line each.
    pub(super) fn look(&mut self, config: &Config) -> Vec<String> {
        let tls = config.pools.values().filter_map(|pool| pool.check.as_ref()?.tls.as_ref());
        let files: BTreeSet<&PathBuf> = tls.filter_map(|tls| tls.ca.as_ref()).collect();
        self.seen.retain(|path, _| files.contains(path));
        for path in files {
            let stamp = Stamp::of(path);
            let before = self.seen.get(path);
            if before.is_some_and(|(seen, _)| *seen == stamp) {
                continue;
            }
            let trouble = authorities(path).err().map(|failure| failure.text);
            match (&trouble, before) {
                (Some(trouble), _) => warn!(trouble, "certificate authorities of checks cannot be used; what the file said before counts"),
                (None, Some(_)) => info!(file = %path.display(), "certificate authorities of checks are read again"),
                (None, None) => {}
            }
            self.seen.insert(path.clone(), (stamp, trouble));
        }
        let line = |trouble: &String| {
            format!("certificate authorities of checks: {trouble}; what the file said before counts, if it was read before")
        };
        self.seen.values().filter_map(|(_, trouble)| trouble.as_ref()).map(line).collect()
    }
}

impl Daemon {
    /// Each second: files that checks need may have changed.
    pub(super) fn look_at_authorities(&mut self) {
        self.report.file_troubles = self.authorities.look(&self.config);
    }
}
