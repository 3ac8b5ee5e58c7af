//! Where a node's data plane and its daemon's record are. The file says where they will be made; what runs may have been made when it said otherwise,
//! and each of the two names the other: the record its pin directory, a symlink beside the pins its state directory.
#![allow(clippy::disallowed_methods, reason = "looks whether a directory is there")]

use std::{
    io,
    path::{Path, PathBuf},
};

use super::{CONFIG_FILE, node_of};
use crate::{
    config::{self, LoadError, model::Node},
    dataplane::PinDir,
    runtime::{
        registry_io,
        report::Report,
        report_io::{self, ReportError},
    },
};

/// Why it is not known where things are.
#[derive(Debug, thiserror::Error)]
pub(super) enum PlaceError {
    /// There is no file.
    #[error("{0}\nhint: --config names the file of the daemon that is meant")]
    Absent(#[source] LoadError),
    /// The file tells nothing.
    #[error(transparent)]
    Config(LoadError),
}

fn is_absent(error: &LoadError) -> bool {
    matches!(error, LoadError::Read { source, .. } if source.kind() == io::ErrorKind::NotFound)
}

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
    /// Of the node that `config` describes. Where that cannot be known, of what is in the directories that it seems to name, or that everybody means, if it was
    /// made by a daemon of that file, or the file is the one that everybody means.
    ///
    /// # Errors
    /// [`PlaceError`].
    pub(super) fn of(config: &Path) -> Result<Self, PlaceError> {
        match node_of(config) {
            Ok(node) => {
                let place = Self::of_node(node.clone());
                let is_there = place.has_record() || place.pins.is_loaded();
                let other = (!is_there).then(|| Self::registered(config)).flatten();
                Ok(other.map_or(place, |other| Self { node, ..other }))
            }
            Err(error) => {
                let host_name = config::host_name();
                let node = match &error {
                    LoadError::Invalid { text, .. } => config::node_directories(text, &host_name),
                    LoadError::Read { .. } | LoadError::TooLarge { .. } | LoadError::Empty { .. } | LoadError::TooMany { .. } => {
                        config::unconfigured_node(&host_name)
                    }
                };
                let is_meant = |place: &Self| config == Path::new(CONFIG_FILE) || place.is_of(config);
                let place = Self::without_file(&node).filter(is_meant).or_else(|| Self::registered(config));
                place.ok_or(if is_absent(&error) { PlaceError::Absent(error) } else { PlaceError::Config(error) })
            }
        }
    }

    /// Of the daemon that runs, or ran, by this file, wherever it keeps its record.
    fn registered(config: &Path) -> Option<Self> {
        let state_dir = registry_io::find(config)?;
        let pin_dir = report_io::read(&state_dir).ok()??.pin_dir;
        let node = Node { state_dir, pin_dir, ..config::unconfigured_node(&config::host_name()) };
        Self::without_file(&node).filter(|place| place.is_of(config))
    }

    fn has_record(&self) -> bool {
        self.report.as_ref().is_ok_and(|report| *report != Report::default())
    }

    /// Whether a daemon of this file left the record.
    fn is_of(&self, config: &Path) -> bool {
        let recorded = self.report.as_ref().ok().and_then(|report| std::path::absolute(&report.config).ok());
        recorded.is_some_and(|recorded| std::path::absolute(config).is_ok_and(|config| config == recorded))
    }

    /// Of what runs, or ran, in the node's directories; none if they hold nothing. Its record names the interfaces.
    fn without_file(node: &Node) -> Option<Self> {
        let mut place = Self::of_node(node.clone());
        let report = place.report.as_ref().ok();
        place.node.interfaces = report.into_iter().flat_map(|report| report.interfaces.keys().cloned()).collect();
        (place.has_record() || place.pins.is_loaded()).then_some(place)
    }

    fn of_node(node: Node) -> Self {
        let (pins, state_dir) = (PinDir::at(&node.pin_dir), node.state_dir.clone());
        match report_io::read(&state_dir) {
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
        }
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

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{Place, PlaceError, Report, config, report_io};

    #[test]
    fn without_the_file_a_record_in_the_usual_directory_tells_where_things_are() {
        let folder = std::env::temp_dir().join(format!("weir-place-{}", std::process::id()));
        let mut node = config::unconfigured_node("host");
        node.pin_dir = folder.join("pins");
        node.state_dir = folder.join("state");
        assert!(Place::without_file(&node).is_none());
        let interfaces = [("eth0".to_owned(), "native".to_owned())].into();
        report_io::write(&node.state_dir, &Report { pid: 7, interfaces, ..Report::default() }).unwrap();
        let place = Place::without_file(&node).unwrap();
        assert_eq!((place.state_dir, place.node.interfaces), (node.state_dir, vec!["eth0".to_owned()]));
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_file_of_another_name_that_has_gone_is_an_error_with_a_hint() {
        let error = Place::of("/nowhere/weir.toml".as_ref()).unwrap_err();
        assert!(matches!(error, PlaceError::Absent(_)) && error.to_string().contains("hint: --config"), "{error}");
    }
}
