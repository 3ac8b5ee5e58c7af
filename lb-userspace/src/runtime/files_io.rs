//! Tells when the configuration may have changed, a file or a directory of fragments: by writes in place, by renames, by fragments that come and go,
//! and by folders and symlinks swapped anywhere on the way to any of them.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "watches the file system")]

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    ffi::OsString,
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Component, Path, PathBuf},
    sync::{Arc, Mutex},
    time::{Duration, Instant, SystemTime},
};

use notify::{
    Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _,
    event::{AccessKind, AccessMode, ModifyKind},
};
use tokio::sync::mpsc;

use crate::{
    config::{fragments_of, is_fragment_name},
    speaker::apart_io::Apart,
};

/// Symlinks followed on a path, as many as the kernel does (linux include/linux/namei.h, `MAXSYMLINKS`).
const MOST_SYMLINKS: usize = 40;

/// Who keeps a file open for writing has it read when it has been quiet for so long.
const WRITING_AT_MOST: Duration = Duration::from_secs(10);

/// How often a watch is begun anew because the path led elsewhere meanwhile.
const ARMING_TRIES: usize = 4;

/// What tells one state of the configuration from another.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Stamp {
    whole: FileStamp,
    /// Of a directory.
    fragments: Vec<(PathBuf, FileStamp)>,
}

impl Stamp {
    /// The state now.
    pub(super) fn of(path: &Path) -> Self {
        let fragments = fragments_of(path).unwrap_or_default();
        let fragments = fragments.into_iter().map(|fragment| (fragment.clone(), FileStamp::of(&fragment))).collect();
        Self { whole: FileStamp::of(path), fragments }
    }
}

#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct FileStamp {
    target: Option<PathBuf>,
    modified: Option<SystemTime>,
    inode: u64,
    bytes: u64,
}

impl FileStamp {
    fn of(path: &Path) -> Self {
        let metadata = fs::metadata(path).ok();
        Self {
            target: fs::canonicalize(path).ok(),
            modified: metadata.as_ref().and_then(|metadata| metadata.modified().ok()),
            inode: metadata.as_ref().map_or(0, |metadata| metadata.ino()),
            bytes: metadata.map_or(0, |metadata| metadata.len()),
        }
    }
}

/// Watches every folder on the way to a file, or to a directory and its fragments.
pub(super) struct FileWatch {
    path: PathBuf,
    way: Way,
    _watcher: RecommendedWatcher,
    events: mpsc::Receiver<()>,
    writes: Arc<Mutex<Writes>>,
}

/// Files that somebody writes to, and when that was noticed last.
type Writes = BTreeMap<PathBuf, Instant>;

impl FileWatch {
    /// Begins to watch. What is not there yet is awaited in the last folder that is.
    pub(super) fn new(path: &Path) -> notify::Result<Self> {
        let path = std::path::absolute(path).map_err(notify::Error::io)?;
        // To watch a folder of a great many files (`/tmp`, say) takes the kernel 12 ms (linux v6.18 fs/notify/fsnotify.c,
        // `fsnotify_set_children_dentry_flags`). The watcher's thread stays where this one is.
        let _apart = Apart::begin();
        let mut watch = Self::arm(&path)?;
        for _ in 1..ARMING_TRIES {
            if watch.is_on_the_way() {
                break;
            }
            watch = Self::arm(&path)?;
        }
        Ok(watch)
    }

    fn arm(path: &Path) -> notify::Result<Self> {
        let way = Way::to(path);
        let (marks, fragments_in) = (way.marks(), way.fragments_in.clone());
        let (sender, events) = mpsc::channel(1);
        let writes = Arc::<Mutex<Writes>>::default();
        let noticed = Arc::clone(&writes);
        // One waiting event says all there is to say: the file is looked at again.
        let mut watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            if let (Ok(event), Ok(mut writes)) = (&event, noticed.lock()) {
                follow_writes(event, &mut writes);
            }
            if event.as_ref().map_or(true, |event| concerns(event, &marks, fragments_in.as_deref())) {
                let _ = sender.try_send(());
            }
        })?;
        for folder in way.folders.keys() {
            match watcher.watch(folder, RecursiveMode::NonRecursive) {
                // One that is gone meanwhile the next look at the way finds. One that may not be read tells nothing.
                Err(error) if is_unwatchable(&error) => {}
                watched => watched?,
            }
        }
        Ok(Self { path: path.to_owned(), way, _watcher: watcher, events, writes })
    }

    /// Whether the folders that are watched are those that the path leads through.
    pub(super) fn is_on_the_way(&self) -> bool {
        self.way == Way::to(&self.path)
    }

    /// Whether somebody writes to the file, or to a fragment, and has not closed it: it may be half of what it is going to be.
    pub(super) fn is_being_written(&self) -> bool {
        let Ok(mut writes) = self.writes.lock() else { return false };
        writes.retain(|_, at| at.elapsed() < WRITING_AT_MOST);
        writes.keys().any(|path| self.way.leads_to(path))
    }

    /// Waits until something happened on the way to the file. Cancel safe: an event stays in the channel until it is received.
    pub(super) async fn changed(&mut self) {
        if self.events.recv().await.is_none() {
            std::future::pending::<()>().await;
        }
    }
}

/// A file is being written from the first change of its content until it is closed, removed or renamed.
fn follow_writes(event: &Event, writes: &mut Writes) {
    let now = Instant::now();
    match event.kind {
        EventKind::Modify(ModifyKind::Data(_)) => writes.extend(event.paths.iter().map(|path| (path.clone(), now))),
        EventKind::Access(AccessKind::Close(AccessMode::Write)) | EventKind::Remove(_) | EventKind::Modify(ModifyKind::Name(_)) => {
            event.paths.iter().for_each(|path| _ = writes.remove(path));
        }
        EventKind::Any | EventKind::Access(_) | EventKind::Create(_) | EventKind::Modify(_) | EventKind::Other => {}
    }
}

fn is_unwatchable(error: &notify::Error) -> bool {
    match &error.kind {
        notify::ErrorKind::PathNotFound => true,
        notify::ErrorKind::Io(error) => matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied),
        notify::ErrorKind::Generic(_)
        | notify::ErrorKind::WatchNotFound
        | notify::ErrorKind::InvalidConfig(_)
        | notify::ErrorKind::MaxFilesWatch => false,
    }
}

/// Whether it is a change, and one of what the path leads through, or of a fragment.
fn concerns(event: &Event, marks: &BTreeSet<PathBuf>, fragments_in: Option<&Path>) -> bool {
    let is_change = match event.kind {
        EventKind::Access(kind) => kind == AccessKind::Close(AccessMode::Write),
        EventKind::Any | EventKind::Create(_) | EventKind::Modify(_) | EventKind::Remove(_) | EventKind::Other => true,
    };
    let is_fragment =
        |path: &Path| fragments_in.is_some() && path.parent() == fragments_in && path.file_name().is_some_and(is_fragment_name);
    is_change && (event.paths.is_empty() || event.paths.iter().any(|path| marks.contains(path) || is_fragment(path)))
}

/// The folders that a path leads through, symlinks resolved one by one.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Way {
    folders: BTreeMap<PathBuf, Passage>,
    /// The directory that the path leads to, if it is one.
    fragments_in: Option<PathBuf>,
}

/// What of a folder the path needs.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Passage {
    /// Its device and inode, if it is there.
    identity: Option<(u64, u64)>,
    /// The names in it.
    names: BTreeSet<OsString>,
}

impl Way {
    fn to(path: &Path) -> Self {
        let mut way = Self::default();
        let end = way.follow(path);
        if end.is_dir() {
            way.folders.entry(end.clone()).or_default().identity = identity(&end);
            fragments_of(&end).unwrap_or_default().iter().for_each(|fragment| drop(way.follow(fragment)));
            way.fragments_in = Some(end);
        }
        way
    }

    /// Adds the way to a path. Gives where it ends, or where it cannot go on.
    fn follow(&mut self, path: &Path) -> PathBuf {
        let (mut here, mut links) = (PathBuf::from("/"), 0);
        let mut ahead = parts(path);
        while let Some(part) = ahead.pop_front() {
            if part == ".." {
                here.pop();
                continue;
            }
            self.pass(&here, &part);
            here.push(&part);
            let Ok(metadata) = fs::symlink_metadata(&here) else { break };
            let Some(target) = metadata.is_symlink().then(|| fs::read_link(&here).ok()).flatten() else { continue };
            links += 1;
            if links > MOST_SYMLINKS {
                break;
            }
            here.pop();
            if target.is_absolute() {
                here = PathBuf::from("/");
            }
            parts(&target).into_iter().rev().for_each(|part| ahead.push_front(part));
        }
        here
    }

    fn pass(&mut self, folder: &Path, name: &OsString) {
        let passage = self.folders.entry(folder.to_owned()).or_default();
        passage.identity = identity(folder);
        passage.names.insert(name.clone());
    }

    /// Whether a file is that of the configuration, or on the way to it, or a fragment.
    fn leads_to(&self, path: &Path) -> bool {
        let (folder, name) = (path.parent().unwrap_or(path), path.file_name().unwrap_or_default());
        let is_fragment = self.fragments_in.as_deref() == Some(folder) && is_fragment_name(name);
        is_fragment || self.folders.get(folder).is_some_and(|passage| passage.names.contains(name))
    }

    /// The folders, and what of them the path needs.
    fn marks(&self) -> BTreeSet<PathBuf> {
        let names = self.folders.iter().flat_map(|(folder, passage)| passage.names.iter().map(move |name| folder.join(name)));
        names.chain(self.folders.keys().cloned()).collect()
    }
}

/// Device and inode.
fn identity(folder: &Path) -> Option<(u64, u64)> {
    fs::metadata(folder).ok().map(|metadata| (metadata.dev(), metadata.ino()))
}

fn parts(path: &Path) -> VecDeque<OsString> {
    let part = |component: Component<'_>| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    };
    path.components().filter_map(part).collect()
}

#[cfg(test)]
mod tests;
