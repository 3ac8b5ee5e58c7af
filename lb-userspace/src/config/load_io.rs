//! Reads a configuration from disk. The only file of this folder that touches the system.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "a leaf that reads a file")]

use std::{
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use super::{
    diagnostic::{ConfigText, Diagnostic},
    model::Config,
};

/// A file that is larger is no configuration.
const MOST_BYTES: u64 = 4 << 20;

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file cannot be read.
    #[error("failed to read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is too large.
    #[error("failed to read {}: it is larger than {} MiB", path.display(), MOST_BYTES >> 20)]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// The file has errors.
    #[error("failed to load {}: it has errors", text.file)]
    Invalid {
        /// What was read.
        text: ConfigText,
        /// What was found, at least one error.
        findings: Vec<Diagnostic>,
    },
}

/// Reads and parses a file; gives the configuration, and its warnings with the text that they point into.
///
/// # Errors
///
/// As the variants of [`LoadError`] say.
pub fn load(path: &Path, host_name: &str) -> Result<(Config, Vec<Diagnostic>, ConfigText), LoadError> {
    let text = read_text(path)?;
    match super::parse(&text, host_name) {
        Ok((config, warnings)) => Ok((config, warnings, text)),
        Err(findings) => Err(LoadError::Invalid { text, findings }),
    }
}

/// The text of a file, which must be UTF-8 and at most 4 MiB.
///
/// # Errors
///
/// [`LoadError::Read`] and [`LoadError::TooLarge`].
pub fn read_text(path: &Path) -> Result<ConfigText, LoadError> {
    let mut text = String::new();
    let read = File::open(path).and_then(|file| file.take(MOST_BYTES + 1).read_to_string(&mut text));
    read.map_err(|source| LoadError::Read { path: path.to_owned(), source })?;
    if text.len() as u64 > MOST_BYTES {
        return Err(LoadError::TooLarge { path: path.to_owned() });
    }
    Ok(ConfigText::new(path.display().to_string(), text))
}

/// The kernel's name for this machine, the default of `node.name`.
#[must_use]
pub fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}
