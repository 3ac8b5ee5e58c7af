//! Where the daemon of a configuration file keeps its record: known even where the file tells nothing, because it is broken, has gone, or names other
//! directories than those in use.
#![allow(clippy::disallowed_methods, reason = "keeps symlinks")]

use std::{
    fs, io,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use crate::balance::digest;

/// A symlink for each file, named by the digest of its path, to the state directory.
const DIRECTORY: &str = "/run/weir-nodes";

/// The daemon of this file keeps its record there from now on. Forgets daemons whose directories have gone.
///
/// # Errors
/// The system's refusal.
pub fn register(config: &Path, state_dir: &Path) -> io::Result<()> {
    let (link, target) = (link_of(config)?, std::path::absolute(state_dir)?);
    fs::create_dir_all(DIRECTORY)?;
    for other in fs::read_dir(DIRECTORY)?.flatten().map(|entry| entry.path()) {
        if !other.exists() {
            // Somebody else may have done so.
            let _ = fs::remove_file(other);
        }
    }
    let fresh = link.with_extension(format!("new-{}", std::process::id()));
    symlink(target, &fresh)?;
    fs::rename(fresh, link)
}

/// The state directory of the daemon that runs, or ran, by this file; none if none did.
pub fn find(config: &Path) -> Option<PathBuf> {
    fs::read_link(link_of(config).ok()?).ok()
}

/// The daemon of this file is no more, nor its data plane.
pub fn forget(config: &Path) {
    if let Ok(link) = link_of(config) {
        let _ = fs::remove_file(link);
    }
}

fn link_of(config: &Path) -> io::Result<PathBuf> {
    let path = std::path::absolute(config)?;
    Ok(Path::new(DIRECTORY).join(format!("{:016x}", digest::bytes(path.as_os_str().as_encoded_bytes(), 0))))
}
