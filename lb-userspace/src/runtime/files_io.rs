//! Tells when the configuration file may have changed: by writes in place, by renames, and by a symlink swapped somewhere on its path.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "watches the file system")]

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::SystemTime,
};

use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::mpsc;

/// What tells one state of the file from another.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Stamp {
    target: Option<PathBuf>,
    modified: Option<SystemTime>,
    inode: u64,
    bytes: u64,
}

impl Stamp {
    /// The file's state now.
    pub(super) fn of(path: &Path) -> Self {
        let metadata = fs::metadata(path).ok();
        Self {
            target: fs::canonicalize(path).ok(),
            modified: metadata.as_ref().and_then(|metadata| metadata.modified().ok()),
            inode: metadata.as_ref().map_or(0, |metadata| metadata.ino()),
            bytes: metadata.map_or(0, |metadata| metadata.len()),
        }
    }
}

/// Watches the folder of a file, and that of the file it links to.
pub(super) struct FileWatch {
    _watcher: RecommendedWatcher,
    events: mpsc::Receiver<()>,
}

impl FileWatch {
    /// Begins to watch.
    pub(super) fn new(path: &Path) -> notify::Result<Self> {
        let (sender, events) = mpsc::channel(1);
        // One waiting event says all there is to say: the file is looked at again.
        let mut watcher = notify::recommended_watcher(move |_| {
            let _ = sender.try_send(());
        })?;
        let mut folders = vec![path.to_owned()];
        folders.extend(fs::canonicalize(path).ok());
        for folder in folders.iter().filter_map(|file| file.parent()) {
            let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
            watcher.watch(folder, RecursiveMode::NonRecursive)?;
        }
        Ok(Self { _watcher: watcher, events })
    }

    /// Waits until something happened beside the file. Cancel safe: an event stays in the channel until it is received.
    pub(super) async fn changed(&mut self) {
        if self.events.recv().await.is_none() {
            std::future::pending::<()>().await;
        }
    }
}
