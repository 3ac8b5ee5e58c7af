//! Names and folders that belong to this process, and the reaper of those that belonged to dead ones.

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Once,
        atomic::{AtomicU32, Ordering},
    },
};

use anyhow::{Context as _, ensure};
use rustix::process::{Pid, Signal, kill_process};

use super::process::output_of;

pub(super) const NETNS_FOLDER: &str = "/run/netns";
const TEMPORARY_FOLDER: &str = "/tmp";
const BPF_FOLDER: &str = "/sys/fs/bpf";
/// `BPF_FS_MAGIC` of linux/magic.h.
const BPF_FS_MAGIC: u64 = 0xcafe_4a11;

/// `weir-PID-N-ROLE`, never given twice by this process. Also removes, once, what dead processes left under such names.
pub fn unique_name(role: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    static REAP: Once = Once::new();
    REAP.call_once(reap);
    format!("weir-{}-{}-{role}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A temporary folder, removed with what is in it on drop.
#[derive(Debug)]
pub struct Folder(PathBuf);

impl Folder {
    /// Makes an empty one.
    pub fn new(role: &str) -> anyhow::Result<Self> {
        let path = Path::new(TEMPORARY_FOLDER).join(unique_name(role));
        fs::create_dir(&path).with_context(|| format!("failed to make {}", path.display()))?;
        Ok(Self(path))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

/// A file system of 256 KiB at a path, taken away on drop.
#[derive(Debug)]
pub struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Mounts it.
    pub fn at(path: &Path) -> anyhow::Result<Self> {
        fs::create_dir_all(path).with_context(|| format!("failed to make {}", path.display()))?;
        let disk = Self(path.to_owned());
        disk.mount(&["-t", "tmpfs", "-o", "size=256k", "tmpfs"])?;
        Ok(disk)
    }

    /// Mounts it again with these options.
    pub fn remount(&self, options: &str) -> anyhow::Result<()> {
        self.mount(&["-o", &format!("remount,{options}")])
    }

    fn mount(&self, arguments: &[&str]) -> anyhow::Result<()> {
        let output = Command::new("mount").args(arguments).arg(&self.0).output().context("failed to run mount")?;
        ensure!(output.status.success(), "mount {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr));
        Ok(())
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // A lazy one succeeds whoever has files open.
        drop(Command::new("umount").arg("-l").arg(&self.0).status());
    }
}

/// A folder for pins in the BPF file system, which is mounted if it was not. Removed on drop with its pins, hence what only they held.
#[derive(Debug)]
pub struct BpfFolder(PathBuf);

impl BpfFolder {
    /// Names one without making it: that is the work of whoever pins.
    pub fn new(role: &str) -> anyhow::Result<Self> {
        mount_bpf_file_system()?;
        Ok(Self(Path::new(BPF_FOLDER).join(unique_name(role))))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for BpfFolder {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

fn mount_bpf_file_system() -> anyhow::Result<()> {
    static MOUNT: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let _one_at_a_time = MOUNT.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let kind = rustix::fs::statfs(BPF_FOLDER).with_context(|| format!("failed to look at {BPF_FOLDER}"))?.f_type;
    if u64::try_from(kind) != Ok(BPF_FS_MAGIC) {
        output_of(Command::new("mount").args(["-t", "bpf", "bpf", BPF_FOLDER]))?;
    }
    Ok(())
}

/// The process that a name of `unique_name` belongs to.
fn owner(name: &str) -> Option<u32> {
    name.strip_prefix("weir-")?.split('-').next()?.parse().ok()
}

fn reap() {
    for folder in [TEMPORARY_FOLDER, BPF_FOLDER, NETNS_FOLDER] {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let is_orphan = owner(&name).is_some_and(|pid| !Path::new("/proc").join(pid.to_string()).exists());
            // Another test may be reaping the same name: whoever comes second finds nothing.
            if is_orphan && folder == NETNS_FOLDER {
                remove_namespace(&name);
            } else if is_orphan {
                drop(fs::remove_dir_all(entry.path()));
            }
        }
    }
}

/// Ends what runs in the namespace and deletes its name. Problems are not reported: it may be half gone.
pub(super) fn remove_namespace(name: &str) {
    let path = Path::new(NETNS_FOLDER).join(name);
    for process in processes_in(&path).unwrap_or_default() {
        let _gone_already = kill_process(process, Signal::KILL);
    }
    let gone = || processes_in(&path).unwrap_or_default().is_empty();
    drop(super::wait_until("processes to end", std::time::Duration::from_secs(2), gone));
    drop(output_of(Command::new("ip").args(["netns", "del", name])));
}

/// Processes whose network namespace is the one at `path`.
pub(super) fn processes_in(path: &Path) -> io::Result<Vec<Pid>> {
    let namespace = fs::metadata(path)?;
    let is_inside = |pid: &i32| {
        fs::metadata(format!("/proc/{pid}/ns/net")).is_ok_and(|other| (other.dev(), other.ino()) == (namespace.dev(), namespace.ino()))
    };
    let pids = fs::read_dir("/proc")?.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    Ok(pids.filter(is_inside).filter_map(Pid::from_raw).collect())
}

#[cfg(test)]
mod tests {
    use super::{owner, unique_name};

    #[test]
    fn a_name_tells_its_owner_and_is_given_once() {
        let (one, other) = (unique_name("client"), unique_name("client"));
        assert_ne!(one, other);
        assert_eq!(owner(&one), Some(std::process::id()));
    }

    #[test]
    fn names_of_others_have_no_owner_here() {
        assert_eq!(owner("weir"), None);
        assert_eq!(owner("weir-lab"), None);
        assert_eq!(owner("blue-12-1-x"), None);
    }
}
