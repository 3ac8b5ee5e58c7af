//! The pin directory: what lies in it, under which names, and that it is in a BPF file system.
//!
//! | name | object |
//! |---|---|
//! | a map's name | that map |
//! | `abi` | [`super::abi`]: the mark that the maps are complete |
//! | `program`, `clock` | the programs of the object |
//! | `link-IFNAME` | the program's attachment to an interface |
//! | `state` | a symlink to the daemon's state directory |
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "works on the pin directory")]

use std::{
    fs,
    io::{self, ErrorKind},
    os::{
        fd::{AsFd as _, AsRawFd as _, OwnedFd},
        unix::fs::{MetadataExt as _, symlink},
    },
    path::{Path, PathBuf},
    thread::sleep,
    time::{Duration, Instant},
};

use rustix::{
    fs::{FlockOperation, Mode, OFlags, flock, open, statfs},
    io::Errno,
    mount::{MountFlags, mount},
};

use super::{
    mapped::Access,
    naming, privileges_io,
    syscall::{self, open_pin},
};

/// linux include/uapi/linux/magic.h
const BPF_FS_MAGIC: i64 = 0xcafe_4a11;
/// Where systems mount the BPF file system.
const BPF_MOUNT: &str = "/sys/fs/bpf";

/// Why the pin directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PinDirError {
    /// Nothing above it is a BPF file system.
    #[error("{path} is not in a BPF file system\nhint: mount one: mount -t bpf bpf {BPF_MOUNT}", path = .path.display())]
    NotBpf {
        /// The pin directory.
        path: PathBuf,
    },
    /// The BPF file system could not be mounted.
    #[error("failed to mount a BPF file system on {BPF_MOUNT}")]
    Mount {
        /// The refusal.
        source: io::Error,
    },
    /// The directory could not be made, read or changed.
    #[error("failed to use the pin directory {path}{}", hint_for(source), path = .path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The refusal.
        source: io::Error,
    },
    /// Another process holds it.
    #[error("{} holds {path}\nhint: stop that daemon first", process(*.holder), path = .path.display())]
    InUse {
        /// The pin directory.
        path: PathBuf,
        /// That process, if the kernel tells.
        holder: Option<u32>,
    },
}

fn hint_for(refusal: &io::Error) -> String {
    if refusal.kind() == ErrorKind::PermissionDenied { format!("\nhint: {}", privileges_io::HINT) } else { String::new() }
}

fn process(holder: Option<u32>) -> String {
    holder.map_or_else(|| "another weir process".into(), |pid| format!("another weir process, {pid},"))
}

/// How long a process that was killed may hold the directory: the kernel closes its files a moment later.
const DEAD_HOLD: Duration = Duration::from_secs(1);

/// A pin directory.
#[derive(Clone, Debug)]
pub struct PinDir {
    path: PathBuf,
}

/// Held while a process owns the data plane; the kernel releases it when the process ends.
#[derive(Debug)]
pub(crate) struct PinLock {
    _directory: OwnedFd,
}

impl PinDir {
    /// The directory at `path`, which need not exist.
    pub fn at(path: &Path) -> Self {
        Self { path: path.to_path_buf() }
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The path of a pin.
    pub(crate) fn pin(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// The path of an interface's link.
    pub(crate) fn link(&self, interface: &str) -> PathBuf {
        self.path.join(naming::link(interface))
    }

    /// Whether there is a pin of this name.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.pin(name).exists()
    }

    /// Whether the directory is there.
    pub(crate) fn exists(&self) -> bool {
        self.path.exists()
    }

    /// Makes the directory, mounting the BPF file system where systems have it if nobody did.
    ///
    /// # Errors
    /// [`PinDirError`] if it is not in a BPF file system or cannot be made.
    pub(crate) fn create(&self) -> Result<(), PinDirError> {
        if !self.is_in_bpf_fs()? {
            self.mount_bpf_fs()?;
        }
        fs::create_dir_all(&self.path).map_err(|source| self.io(&self.path, source))
    }

    /// Whether a start has to mount the BPF file system first, and can.
    #[must_use]
    pub fn mounts(&self) -> bool {
        self.is_in_bpf_fs().is_ok_and(|is_mounted| !is_mounted) && self.is_ours_to_mount()
    }

    /// Refuses a directory that is elsewhere.
    pub(crate) fn check_bpf_fs(&self) -> Result<(), PinDirError> {
        if self.is_in_bpf_fs()? { Ok(()) } else { Err(PinDirError::NotBpf { path: self.path.clone() }) }
    }

    /// Whether it is, or would be, in a BPF file system that is mounted.
    ///
    /// # Errors
    /// What the file system refuses.
    pub(crate) fn is_in_bpf_fs(&self) -> Result<bool, PinDirError> {
        let existing = self.path.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
        let stat = statfs(existing).map_err(|errno| self.io(existing, errno.into()))?;
        Ok(stat.f_type as i64 == BPF_FS_MAGIC)
    }

    fn mount_bpf_fs(&self) -> Result<(), PinDirError> {
        if !self.is_ours_to_mount() {
            return Err(PinDirError::NotBpf { path: self.path.clone() });
        }
        let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        mount("bpf", BPF_MOUNT, "bpf", flags, None).map_err(|errno| PinDirError::Mount { source: errno.into() })
    }

    fn is_ours_to_mount(&self) -> bool {
        let mount_point = Path::new(BPF_MOUNT);
        self.path.starts_with(mount_point) && self.path != mount_point && is_empty_directory(mount_point)
    }

    /// Takes the directory for this process.
    ///
    /// # Errors
    /// [`PinDirError::InUse`] if another process has it.
    pub(crate) fn lock(&self) -> Result<PinLock, PinDirError> {
        let began = Instant::now();
        loop {
            match self.lock_by(FlockOperation::NonBlockingLockExclusive) {
                Err(PinDirError::InUse { .. }) if began.elapsed() < DEAD_HOLD => sleep(Duration::from_millis(5)),
                locked => return locked,
            }
        }
    }

    /// The process that has taken the directory, if one has and the kernel tells.
    #[must_use]
    pub fn holder(&self) -> Option<u32> {
        let metadata = fs::metadata(&self.path).ok()?;
        let device = metadata.dev();
        let place = format!("{:02x}:{:02x}:{}", rustix::fs::major(device), rustix::fs::minor(device), metadata.ino());
        holder_of(&fs::read_to_string("/proc/locks").ok()?, &place)
    }

    /// Where the daemon of these pins leaves its record.
    #[must_use]
    pub fn state_dir(&self) -> Option<PathBuf> {
        fs::read_link(self.pin(naming::STATE)).ok()
    }

    /// Leaves word of where the daemon of these pins leaves its record.
    ///
    /// # Errors
    /// What the file system refuses.
    pub(crate) fn set_state_dir(&self, state_dir: &Path) -> Result<(), PinDirError> {
        self.remove(naming::STATE)?;
        symlink(state_dir, self.pin(naming::STATE)).map_err(|source| self.io(&self.pin(naming::STATE), source))
    }

    /// The directory's device and inode; none if it is not there.
    #[must_use]
    pub fn identity(&self) -> Option<(u64, u64)> {
        fs::metadata(&self.path).ok().map(|metadata| (metadata.dev(), metadata.ino()))
    }

    /// Whether the link of an interface is pinned here.
    pub(crate) fn is_linked(&self, interface: &str) -> bool {
        self.link(interface).exists()
    }

    /// Whether a whole data plane is pinned here.
    #[must_use]
    pub fn is_loaded(&self) -> bool {
        self.has(naming::ABI)
    }

    /// Takes the directory for this process, after commands that have it for a moment.
    ///
    /// # Errors
    /// [`PinDirError::Io`].
    pub(crate) fn lock_in_turn(&self) -> Result<PinLock, PinDirError> {
        self.lock_by(FlockOperation::LockExclusive)
    }

    fn lock_by(&self, operation: FlockOperation) -> Result<PinLock, PinDirError> {
        let directory =
            open(&self.path, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).map_err(|errno| self.io(&self.path, errno.into()))?;
        match flock(&directory, operation) {
            Ok(()) => Ok(PinLock { _directory: directory }),
            Err(Errno::WOULDBLOCK) => Err(PinDirError::InUse { path: self.path.clone(), holder: self.holder() }),
            Err(errno) => Err(self.io(&self.path, errno.into())),
        }
    }

    /// The names in it, sorted; none if it does not exist.
    pub(crate) fn names(&self) -> Result<Vec<String>, PinDirError> {
        let entries = match fs::read_dir(&self.path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(source) => return Err(self.io(&self.path, source)),
        };
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|source| self.io(&self.path, source))?;
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
        names.sort();
        Ok(names)
    }

    /// The interfaces that have a pinned link.
    pub(crate) fn linked_interfaces(&self) -> Result<Vec<String>, PinDirError> {
        Ok(self.names()?.iter().filter_map(|name| naming::interface_of_link(name)).collect())
    }

    /// Removes a pin; fine if it is not there.
    pub(crate) fn remove(&self, name: &str) -> Result<(), PinDirError> {
        let path = self.pin(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(self.io(&path, error)),
            _ => Ok(()),
        }
    }

    /// Detaches the program from an interface and removes the pinned link; fine if it is not there. Removing the pin alone detaches some time
    /// later (linux v6.18 kernel/bpf/inode.c, bpf_free_inode waits for readers), and until then the interface would seem occupied.
    pub(crate) fn remove_link(&self, interface: &str) -> Result<(), PinDirError> {
        let name = naming::link(interface);
        match open_pin(&self.pin(&name), Access::ReadWrite).and_then(|link| syscall::detach(link.as_fd())) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(self.io(&self.pin(&name), error)),
            _ => self.remove(&name),
        }
    }

    /// Gives a pin another name, replacing what had it.
    pub(crate) fn rename(&self, from: &str, to: &str) -> Result<(), PinDirError> {
        fs::rename(self.pin(from), self.pin(to)).map_err(|source| self.io(&self.pin(from), source))
    }

    /// Removes the directory itself, if nothing is left in it; the directories above it stay.
    pub(crate) fn remove_directory(&self) -> Result<(), PinDirError> {
        match fs::remove_dir(&self.path) {
            Err(error) if !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::DirectoryNotEmpty) => Err(self.io(&self.path, error)),
            _ => Ok(()),
        }
    }

    pub(crate) fn io(&self, path: &Path, source: io::Error) -> PinDirError {
        PinDirError::Io { path: path.to_path_buf(), source }
    }
}

fn is_empty_directory(path: &Path) -> bool {
    fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_none())
}

/// Of `/proc/locks` (proc_locks(5)) the process that has an flock(2) on the inode at `place`; 0 or less is one of another namespace.
fn holder_of(locks: &str, place: &str) -> Option<u32> {
    let holder = |line: &str| {
        let mut fields = line.split_whitespace().skip(1);
        let is_lock = fields.next() == Some("FLOCK");
        let pid = fields.nth(2)?.parse().ok().filter(|pid| *pid > 0);
        (is_lock && fields.next() == Some(place)).then_some(pid)?
    };
    locks.lines().find_map(holder)
}

/// Most entries of a pinned map, and the bytes of kernel memory that it takes, if the kernel tells.
///
/// # Errors
/// What the kernel refuses.
pub fn map_facts(pins: &PinDir, name: &str) -> Result<(u32, Option<u64>), PinDirError> {
    let path = pins.pin(name);
    let read = || -> io::Result<(u32, Option<u64>)> {
        let map = open_pin(&path, Access::ReadOnly)?;
        let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", map.as_raw_fd()))?;
        let field = |label: &str| info.lines().find_map(|line| line.strip_prefix(label)).map(str::trim);
        let entries = field("max_entries:").and_then(|value| value.parse().ok()).unwrap_or_default();
        Ok((entries, field("memlock:").and_then(|value| value.parse().ok())))
    };
    read().map_err(|source| pins.io(&path, source))
}

/// The interface that a pinned link is attached to; 0 if that interface has gone.
pub(crate) fn link_ifindex(path: &Path) -> io::Result<u32> {
    let link = open_pin(path, Access::ReadWrite)?;
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", link.as_raw_fd()))?;
    let field = info.lines().find_map(|line| line.strip_prefix("ifindex:"));
    let ifindex = field.and_then(|value| value.trim().parse().ok());
    ifindex.ok_or_else(|| io::Error::new(ErrorKind::InvalidData, "the pinned object is no xdp link"))
}

#[cfg(test)]
mod tests {
    use super::holder_of;

    #[test]
    fn the_holder_is_the_process_that_has_a_lock_not_one_that_waits() {
        let locks = "1: POSIX  ADVISORY  WRITE 7 00:1b:55 0 EOF\n2: FLOCK  ADVISORY  WRITE 27429 00:1b:55 0 EOF\n\
                     2: -> FLOCK  ADVISORY  WRITE 9 00:1b:55 0 EOF\n3: FLOCK  ADVISORY  WRITE 0 00:1b:56 0 EOF\n";
        assert_eq!(holder_of(locks, "00:1b:55"), Some(27429));
        assert_eq!(holder_of(locks, "00:1b:56"), None);
        assert_eq!(holder_of(locks, "00:1b:57"), None);
    }
}
