//! What outlives the daemon beside the maps and its record: what the operator says, and the configurations that were in force.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "reads and writes the state directory")]

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use serde::{Serialize, de::DeserializeOwned};

/// The operator's overrides.
pub(super) const OVERRIDES: &str = "overrides.json";
/// The configurations that were in force.
pub(super) const HISTORY: &str = "history.json";

/// What the DNS said of names last.
pub(super) const NAMES: &str = "names.json";

/// Why it cannot be kept or found.
#[derive(Debug, thiserror::Error)]
pub(super) enum KeepError {
    /// The file.
    #[error("failed to use {path}", path = .path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// What it says.
    #[error("failed to understand {path}", path = .path.display())]
    Content {
        /// Which.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
}

/// Replaces a file by a whole new one, which is on the disk when this returns. Only its owner may read it: a configuration may hold what others should not.
pub(super) fn keep(state_dir: &Path, name: &str, content: &impl Serialize) -> Result<(), KeepError> {
    let path = state_dir.join(name);
    let fresh = path.with_extension("json.new");
    let text = serde_json::to_vec(content).map_err(|source| KeepError::Content { path: path.clone(), source })?;
    let written = fs::create_dir_all(state_dir).and_then(|()| write_whole(&fresh, &text)).and_then(|()| fs::rename(&fresh, &path));
    written.map_err(|source| {
        // Half of it is of no use, and on a full disk its place is.
        let _ = fs::remove_file(&fresh);
        KeepError::File { path, source }
    })
}

fn write_whole(path: &Path, text: &[u8]) -> io::Result<()> {
    let _ = fs::remove_file(path);
    let mut options = File::options();
    std::os::unix::fs::OpenOptionsExt::mode(options.write(true).create_new(true), 0o600);
    let mut file = options.open(path)?;
    file.write_all(text)?;
    file.sync_data()
}

/// What was kept; none if nothing was.
pub(super) fn find<T: DeserializeOwned>(state_dir: &Path, name: &str) -> Result<Option<T>, KeepError> {
    let path = state_dir.join(name);
    match fs::read(&path) {
        Ok(text) => serde_json::from_slice(&text).map(Some).map_err(|source| KeepError::Content { path, source }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(KeepError::File { path, source }),
    }
}
