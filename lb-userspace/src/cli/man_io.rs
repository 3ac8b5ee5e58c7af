//! `weir man`: the manual pages, from the command line's own description.
#![allow(clippy::disallowed_methods, reason = "writes the pages")]

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
};

use super::{Exit, tell};

/// Why there are no pages.
#[derive(Debug, thiserror::Error)]
#[error("failed to write the manual pages into {}\nhint: name a folder that you may write to", .folder.display())]
struct ManError {
    folder: PathBuf,
    source: io::Error,
}

/// Performs `weir man`.
///
/// # Errors
/// Those of writing to `err`.
pub fn man(command: clap::Command, folder: &Path, err: &mut impl Write) -> io::Result<Exit> {
    match fs::create_dir_all(folder).and_then(|()| clap_mangen::generate_to(command, folder)) {
        Ok(()) => Ok(Exit::Fine),
        Err(source) => tell(err, &ManError { folder: folder.to_owned(), source }, Exit::Refused),
    }
}
