//! Writes and reads the daemon's record, and names the files beside it.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "reads and writes the state directory")]

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::report::Report;

/// Why the record cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// The directory or the file.
    #[error("failed to use {path}\nhint: node.state_dir has to be a directory that the daemon may write")]
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

/// Makes the state directory.
///
/// # Errors
/// [`ReportError::File`].
pub fn prepare(state_dir: &Path) -> Result<(), ReportError> {
    fs::create_dir_all(state_dir).map_err(|source| ReportError::File { path: state_dir.into(), source })
}

/// Replaces the record by a whole new one, so that no reader sees a half.
///
/// # Errors
/// [`ReportError`].
pub fn write(state_dir: &Path, report: &Report) -> Result<(), ReportError> {
    let path = path_in(state_dir);
    let fresh = path.with_extension("json.new");
    let text = serde_json::to_vec(report).map_err(|source| ReportError::Content { path: path.clone(), source })?;
    fs::write(&fresh, text).and_then(|()| fs::rename(&fresh, &path)).map_err(|source| ReportError::File { path, source })
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

/// Whether the process runs, and is a `weir`.
pub fn is_running(pid: u32) -> bool {
    pid != 0 && fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim_end() == "weir")
}
