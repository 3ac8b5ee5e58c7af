//! Where a node's data plane and its daemon's record are. The file says where they will be made; what runs may have been made when it said otherwise,
//! and each of the two names the other: the record its pin directory, a symlink beside the pins its state directory.
#![allow(clippy::disallowed_methods, reason = "looks whether a directory is there")]

use std::path::{Path, PathBuf};

use super::node_of;
use crate::{
    config::{LoadError, model::Node},
    dataplane::PinDir,
    runtime::{
        report::Report,
        report_io::{self, ReportError},
    },
};

/// What the commands work on.
#[derive(Debug)]
pub(super) struct Place {
    /// The file's node.
    pub(super) node: Node,
    /// Where the data plane is.
    pub(super) pins: PinDir,
    /// Where the record is.
    pub(super) state_dir: PathBuf,
    /// The record; empty if there is none.
    pub(super) report: Result<Report, ReportError>,
}

impl Place {
    /// Of the node that `config` describes.
    ///
    /// # Errors
    /// As [`node_of`].
    pub(super) fn of(config: &Path) -> Result<Self, LoadError> {
        let node = node_of(config)?;
        let (pins, state_dir) = (PinDir::at(&node.pin_dir), node.state_dir.clone());
        Ok(match report_io::read(&state_dir) {
            Ok(Some(report)) => {
                let is_elsewhere = !report.pin_dir.as_os_str().is_empty() && report.pin_dir.exists();
                let pins = if is_elsewhere { PinDir::at(&report.pin_dir) } else { pins };
                Self { node, pins, state_dir, report: Ok(report) }
            }
            Ok(None) => {
                let state_dir = pins.state_dir().unwrap_or(state_dir);
                let report = report_io::read(&state_dir).map(Option::unwrap_or_default);
                Self { node, pins, state_dir, report }
            }
            Err(error) => Self { node, pins, state_dir, report: Err(error) },
        })
    }

    /// What of the file is not where things are, in words.
    pub(super) fn differences(&self) -> Vec<String> {
        let differ = |key: &str, named: &Path, found: &Path| {
            let words = || format!("{key} names {}, but the data plane that is loaded has {}", named.display(), found.display());
            (named != found).then(words)
        };
        let pins = differ("node.pin_dir", &self.node.pin_dir, self.pins.path());
        pins.into_iter().chain(differ("node.state_dir", &self.node.state_dir, &self.state_dir)).collect()
    }

    /// The process of the daemon: the one of the record, or else the one that has the data plane.
    pub(super) fn daemon(&self) -> Option<u32> {
        let recorded = self.report.as_ref().ok().filter(|report| report_io::is_running(report)).map(|report| report.pid);
        recorded.or_else(|| self.pins.holder())
    }
}
