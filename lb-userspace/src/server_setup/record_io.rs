//! The file that keeps the record.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "reads and writes the record's file")]

use std::{
    fs::{self, File},
    io::{self, ErrorKind},
    path::{Path, PathBuf},
};

use thiserror::Error;

use super::record::{RECORD_VERSION, Record};

/// Why the record cannot be used.
#[derive(Debug, Error)]
pub enum RecordError {
    /// The file.
    #[error("failed to use the record of the setup in {path}")]
    Io {
        /// Which.
        path: PathBuf,
        /// The refusal.
        source: io::Error,
    },
    /// Its content.
    #[error("failed to understand the record of the setup in {path}\nhint: another version of weir wrote it: remove with that one")]
    Content {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// Its version.
    #[error(
        "the record of the setup in {path} has version {found}, this weir knows {RECORD_VERSION}\nhint: remove with the weir that wrote it"
    )]
    Version {
        /// Which.
        path: PathBuf,
        /// Its version.
        found: u32,
    },
}

/// Held by the one command that changes the host and the record. The kernel takes it back when the process ends, however that may be.
#[derive(Debug)]
pub(crate) struct RecordLock {
    _file: File,
}

/// Waits until no other command changes the host. The file stays, as removing it would let two have locks of the same name.
pub(crate) fn lock(record: &Path) -> Result<RecordLock, RecordError> {
    let path = record.with_extension("lock");
    let refused = |source| RecordError::Io { path: path.clone(), source };
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(refused)?;
    }
    let file = File::options().create(true).append(true).open(&path).map_err(refused)?;
    file.lock().map_err(refused)?;
    Ok(RecordLock { _file: file })
}

/// The record; none if there is none.
pub(crate) fn read(path: &Path) -> Result<Option<Record>, RecordError> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(RecordError::Io { path: path.into(), source }),
    };
    let record: Record = serde_json::from_slice(&bytes).map_err(|source| RecordError::Content { path: path.into(), source })?;
    let found = record.version;
    if found == RECORD_VERSION { Ok(Some(record)) } else { Err(RecordError::Version { path: path.into(), found }) }
}

/// Keeps the record, whole or not at all.
pub(crate) fn write(path: &Path, record: &Record) -> Result<(), RecordError> {
    let refused = |source| RecordError::Io { path: path.into(), source };
    let bytes = serde_json::to_vec_pretty(record).map_err(|source| RecordError::Content { path: path.into(), source })?;
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(refused)?;
    }
    let waiting = path.with_extension("json-new");
    fs::write(&waiting, bytes).and_then(|()| fs::rename(&waiting, path)).map_err(refused)
}

/// Forgets the record; fine if there is none. The folder stays: it is the daemon's too.
pub(crate) fn forget(path: &Path) -> Result<(), RecordError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(RecordError::Io { path: path.into(), source: error }),
        _ => Ok(()),
    }
}
