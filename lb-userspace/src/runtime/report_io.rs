//! Writes and reads the daemon's record, and names the files beside it.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "reads and writes the state directory")]

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use super::{driver::RunError, report::Report};
use crate::{config::model::Node, dataplane::PinDir};

/// Why the record cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// The directory or the file.
    #[error("failed to use {path}\nhint: run as root; node.state_dir has to be a directory that the daemon may write")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The record is of another version, or not one.
    #[error("failed to understand {path}")]
    Content {
        /// Which.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
}

fn path_in(state_dir: &Path) -> PathBuf {
    state_dir.join("state.json")
}

/// Makes the state directory, and finds out whether it can be written. Says whether it had to be made.
///
/// # Errors
/// [`ReportError::File`].
pub fn prepare(state_dir: &Path) -> Result<Prepared, ReportError> {
    let prepared = if state_dir.exists() { Prepared::Found } else { Prepared::Made };
    let probe = state_dir.join(format!("probe-{}", std::process::id()));
    let written = fs::create_dir_all(state_dir).and_then(|()| fs::write(&probe, [])).and_then(|()| fs::remove_file(&probe));
    match written {
        Ok(()) => Ok(prepared),
        // Whoever starts after a crash finds its data plane all the same.
        Err(error) if matches!(error.kind(), io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::StorageFull) => Ok(Prepared::Refused),
        Err(source) => Err(ReportError::File { path: state_dir.into(), source }),
    }
}

/// What [`prepare`] found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Prepared {
    /// The directory was there.
    Found,
    /// It was made.
    Made,
    /// Its file system takes nothing: nothing of what the daemon says and hears is kept.
    Refused,
}

/// Removes the directory that [`prepare`] made, unless somebody put something into it.
pub fn unprepare(state_dir: &Path, prepared: Prepared) {
    if prepared == Prepared::Made {
        let _ = fs::remove_dir(state_dir);
    }
}

/// Replaces the record by a whole new one, so that no reader sees a half.
///
/// # Errors
/// [`ReportError`].
pub fn write(state_dir: &Path, report: &Report) -> Result<(), ReportError> {
    let path = path_in(state_dir);
    let fresh = path.with_extension("json.new");
    let text = serde_json::to_vec(report).map_err(|source| ReportError::Content { path: path.clone(), source })?;
    // Somebody may have cleaned up.
    let written = fs::create_dir_all(state_dir).and_then(|()| fs::write(&fresh, text));
    written.and_then(|()| fs::rename(&fresh, &path)).map_err(|source| {
        // Half a record is of no use, and on a full disk its place is.
        let _ = fs::remove_file(&fresh);
        ReportError::File { path, source }
    })
}

/// The record, or none when no daemon has left one.
///
/// # Errors
/// [`ReportError`].
pub fn read(state_dir: &Path) -> Result<Option<Report>, ReportError> {
    let path = path_in(state_dir);
    match fs::read(&path) {
        Ok(text) => serde_json::from_slice(&text).map(Some).map_err(|source| ReportError::Content { path, source }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(ReportError::File { path, source }),
    }
}

/// Removes the record.
///
/// # Errors
/// [`ReportError::File`].
pub fn remove(state_dir: &Path) -> Result<(), ReportError> {
    let path = path_in(state_dir);
    match fs::remove_file(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed.map_err(|source| ReportError::File { path, source }),
    }
}

/// Whether the daemon that wrote the record runs.
pub fn is_running(report: &Report) -> bool {
    report.pid != 0 && process_started(report.pid) == Some(report.pid_started_at)
}

/// Whether the record's daemon is, or was, in another network namespace than the caller.
pub fn is_elsewhere(report: &Report) -> bool {
    report.namespace != 0 && network_namespace().is_some_and(|own| own != report.namespace)
}

/// The inode of the calling thread's network namespace; none without `/proc`.
pub fn network_namespace() -> Option<u64> {
    fs::metadata("/proc/thread-self/ns/net").ok().map(|namespace| namespace.ino())
}

/// When a process started, in the kernel's ticks since boot; none if there is no such process, or only its remains.
pub fn process_started(pid: u32) -> Option<u64> {
    started(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// Of `/proc/PID/stat` (proc_pid_stat(5)): the name, in parentheses, may hold anything; the state follows, and the start is field 22.
fn started(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace();
    let state = fields.next()?;
    (!matches!(state, "Z" | "X")).then(|| fields.nth(18)?.parse().ok())?
}

/// What an earlier daemon of this node left: in the state directory, or in the one that its pins name.
pub(super) fn earlier(node: &Node) -> Result<Report, RunError> {
    let pins = PinDir::at(&node.pin_dir);
    if let Some(report) = read(&node.state_dir).ok().flatten() {
        let is_elsewhere = report.pin_dir != node.pin_dir && PinDir::at(&report.pin_dir).is_loaded();
        let pin_dir = report.pin_dir.clone();
        return if is_elsewhere && !pin_dir.as_os_str().is_empty() { Err(RunError::LoadedElsewhere { pin_dir }) } else { Ok(report) };
    }
    let Some(other) = pins.state_dir().filter(|other| *other != node.state_dir) else { return Ok(Report::default()) };
    let report = read(&other).ok().flatten().unwrap_or_default();
    if !is_running(&report) {
        // What cannot be removed misleads nobody: the pins name the new directory.
        let _ = remove(&other);
    }
    Ok(report)
}

#[cfg(test)]
mod tests {
    use super::started;

    #[test]
    fn a_process_is_known_by_its_start_whatever_its_name() {
        let stat = |name: &str, state: &str| format!("7 ({name}) {state} 1 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4711 9 10");
        assert_eq!(started(&stat("weir", "S")), Some(4711));
        assert_eq!(started(&stat("a ) R 5 (", "R")), Some(4711));
        assert_eq!(started(&stat("weir", "Z")), None);
        assert_eq!(started(""), None);
    }
}
