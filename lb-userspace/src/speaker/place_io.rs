//! The place of the one speaker of a node: a lock beside its socket.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "owns a lock file")]

use std::{
    fs::File,
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::fs::{FlockOperation, flock};

/// A process that is killed closes its files one after the other.
const TRIALS: u32 = 50;

/// The place, while this is there.
#[derive(Debug)]
pub(super) struct Place {
    socket: PathBuf,
    path: PathBuf,
    lock: File,
}

/// Who has the place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Held {
    /// This process.
    Ours,
    /// Somebody removed the lock, and another process has the new one.
    Anothers,
}

impl Place {
    /// Waits until nobody has it.
    ///
    /// # Errors
    /// If there can be no such file.
    pub(super) fn take(socket: &Path) -> io::Result<Self> {
        let path = socket.with_extension("lock");
        loop {
            let place = Self { socket: socket.to_owned(), lock: File::create(&path)?, path: path.clone() };
            flock(&place.lock, FlockOperation::LockExclusive)?;
            // The file may have been another one by then.
            if place.is_there() {
                return Ok(place);
            }
        }
    }

    /// Takes it from a process that is about to be gone; none if another one has it.
    ///
    /// # Errors
    /// If there can be no such file.
    pub(super) fn inherit(socket: &Path) -> io::Result<Option<Self>> {
        let path = socket.with_extension("lock");
        for _ in 0..TRIALS {
            let place = Self { socket: socket.to_owned(), lock: File::create(&path)?, path: path.clone() };
            if flock(&place.lock, FlockOperation::NonBlockingLockExclusive).is_ok() && place.is_there() {
                return Ok(Some(place));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(None)
    }

    /// The socket that belongs to it.
    pub(super) fn socket(&self) -> &Path {
        &self.socket
    }

    /// Takes it again if somebody removed the lock, as the cleaning of a directory does.
    pub(super) fn keep(&mut self) -> Held {
        if self.is_there() {
            return Held::Ours;
        }
        let Ok(lock) = File::create(&self.path) else {
            // There is no directory: nobody else can have it either.
            return Held::Ours;
        };
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            return Held::Anothers;
        }
        self.lock = lock;
        Held::Ours
    }

    fn is_there(&self) -> bool {
        let of = |metadata: io::Result<std::fs::Metadata>| metadata.map(|metadata| (metadata.dev(), metadata.ino())).ok();
        of(self.lock.metadata()).is_some_and(|own| of(std::fs::metadata(&self.path)) == Some(own))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_that_was_removed_is_made_again_unless_another_has_it() {
        let folder = std::env::temp_dir().join(format!("weir-lock-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let socket = folder.join("vrrp.sock");
        let mut first = Place::take(&socket).unwrap();
        assert_eq!(first.keep(), Held::Ours);
        std::fs::remove_file(socket.with_extension("lock")).unwrap();
        assert_eq!((first.keep(), first.is_there()), (Held::Ours, true));
        std::fs::remove_file(socket.with_extension("lock")).unwrap();
        let _second = Place::take(&socket).unwrap();
        assert_eq!(first.keep(), Held::Anothers);
        std::fs::remove_dir_all(&folder).unwrap();
        assert_eq!(first.keep(), Held::Ours);
    }
}
