//! Reads a configuration from disk. The only file of this folder that touches the system.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "a leaf that reads a file")]

use std::{
    collections::BTreeSet,
    ffi::OsStr,
    fs::{self, File},
    io::{self, Read as _},
    os::unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    path::{Path, PathBuf},
};

use super::{
    diagnostic::{ConfigText, Diagnostic, Severity},
    model::Config,
};

/// A configuration that is larger is none.
const MOST_BYTES: u64 = 4 << 20;
/// So many fragments a directory may have.
const MOST_FRAGMENTS: usize = 4096;
/// How often a directory is read again because it changed meanwhile.
const READING_TRIES: usize = 5;

/// Programs that this machine cannot start, by their absolute paths: a warning for each use of one, at the first place that names it.
pub fn missing_programs(config: &Config, text: &ConfigText) -> Vec<Diagnostic> {
    let of_checks = "a check that cannot be made finds nobody down";
    let of_tracks = "what cannot be started counts as down, as if it had failed";
    let of_notify = "changes of virtual routers go on without it";
    [
        warnings(config.check_programs(), "the check cannot be made", of_checks, text),
        warnings(config.tracked_programs(), "what is tracked by it is down", of_tracks, text),
        warnings(config.told_programs(), "nobody is told of changes", of_notify, text),
    ]
    .concat()
}

/// A warning for each program that cannot be started, and what that means.
fn warnings<'c>(programs: impl Iterator<Item = &'c [String]>, consequence: &str, meaning: &str, text: &ConfigText) -> Vec<Diagnostic> {
    let programs: BTreeSet<&String> = programs.filter_map(<[String]>::first).filter(|program| program.starts_with('/')).collect();
    let finding = |program: &String| {
        let start = text.text.find(program.as_str());
        Some(Diagnostic {
            severity: Severity::Warning,
            span: start.map_or(0..0, |start| start..start + program.len()),
            message: format!("{program} {}: {consequence}", unfit(Path::new(program))?),
            hint: Some(format!("{meaning}; give the path of a program of the machine that runs the daemon")),
        })
    };
    programs.into_iter().filter_map(finding).collect()
}

/// Why a file is no program, if that can be seen.
fn unfit(program: &Path) -> Option<&'static str> {
    match fs::metadata(program) {
        Ok(about) if !about.is_file() => Some("is no file"),
        Ok(about) => (about.mode() & 0o111 == 0).then_some("is not executable"),
        Err(error) if [io::ErrorKind::NotFound, io::ErrorKind::NotADirectory].contains(&error.kind()) => Some("does not exist"),
        // It may be hidden from this user alone.
        Err(_) => None,
    }
}

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
    #[error("failed to read {}: the configuration is larger than {} MiB", path.display(), MOST_BYTES >> 20)]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// A directory has no fragment.
    #[error("there is no *.toml in {}\nhint: a directory is a configuration by the *.toml in it", path.display())]
    Empty {
        /// The directory.
        path: PathBuf,
    },
    /// A directory has too many.
    #[error("there are more than {MOST_FRAGMENTS} *.toml in {}", path.display())]
    TooMany {
        /// The directory.
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

/// The text of a file, or of a directory's fragments joined in the order of their names; UTF-8 and at most 4 MiB in all.
///
/// # Errors
///
/// [`LoadError`], but for [`LoadError::Invalid`].
pub fn read_text(path: &Path) -> Result<ConfigText, LoadError> {
    read_text_of(path, Kind::Any)
}

/// As [`read_text`], but of no pipe or device, which might be waited for: for a daemon that has other things to do.
///
/// # Errors
///
/// [`LoadError`], but for [`LoadError::Invalid`].
pub fn read_regular_text(path: &Path) -> Result<ConfigText, LoadError> {
    read_text_of(path, Kind::Regular)
}

fn read_text_of(path: &Path, kind: Kind) -> Result<ConfigText, LoadError> {
    if path.is_dir() {
        return read_fragments(path);
    }
    let (text, readers) = read_file(path, MOST_BYTES, kind)?;
    let file = path.display().to_string();
    let exposed = (readers == Readers::Others).then(|| file.clone()).into_iter().collect();
    Ok(ConfigText { exposed, ..ConfigText::new(file, text) })
}

/// What may be read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A pipe too: `weir check <(generate)`.
    Any,
    /// A file.
    Regular,
}

/// Who may read a file.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Readers {
    /// Its owner, and root.
    Owner,
    /// Its group or everybody, too.
    Others,
}

/// The fragments of a directory, by name: files that end in `.toml` and do not begin with a dot; symlinks to such files too.
///
/// # Errors
///
/// Those of reading the directory. A fragment that leads nowhere is among them: to leave it out would be to leave out what it says.
pub fn fragments_of(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut fragments = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let path = entry.path();
        if is_fragment_name(&entry.file_name()) && !path.is_dir() {
            fragments.push(path);
        }
    }
    fragments.sort();
    Ok(fragments)
}

/// Whether a file of this name is a fragment of its directory's configuration.
#[must_use]
pub fn is_fragment_name(name: &OsStr) -> bool {
    let name = name.as_bytes();
    name.ends_with(b".toml") && !name.starts_with(b".")
}

fn read_fragments(folder: &Path) -> Result<ConfigText, LoadError> {
    let mut before = states(folder);
    for _ in 1..READING_TRIES {
        let text = read_fragments_once(folder);
        let after = states(folder);
        // Fragments of two versions are neither, as when a symlink on their way is swapped.
        if after == before {
            return text;
        }
        before = after;
    }
    read_fragments_once(folder)
}

fn read_fragments_once(folder: &Path) -> Result<ConfigText, LoadError> {
    let paths = fragments_of(folder).map_err(|source| LoadError::Read { path: folder.to_owned(), source })?;
    if paths.is_empty() {
        return Err(LoadError::Empty { path: folder.to_owned() });
    }
    if paths.len() > MOST_FRAGMENTS {
        return Err(LoadError::TooMany { path: folder.to_owned() });
    }
    let mut room = MOST_BYTES;
    let (mut fragments, mut exposed) = (Vec::new(), Vec::new());
    for path in paths {
        let (text, readers) = read_file(&path, room, Kind::Regular)?;
        room -= text.len() as u64;
        let file = path.display().to_string();
        if readers == Readers::Others {
            exposed.push(file.clone());
        }
        fragments.push((file, text));
    }
    Ok(ConfigText { exposed: exposed.into(), ..ConfigText::joined(folder.display().to_string(), fragments) })
}

/// Inode, bytes, and time of the last change in seconds and nanoseconds; none for a file that is not there.
type FileState = Option<(u64, u64, i64, i64)>;

/// What tells one state of the fragments from another.
fn states(folder: &Path) -> Vec<(PathBuf, FileState)> {
    let state = |path: PathBuf| {
        let metadata = fs::metadata(&path).ok();
        (path, metadata.map(|metadata| (metadata.ino(), metadata.len(), metadata.mtime(), metadata.mtime_nsec())))
    };
    fragments_of(folder).unwrap_or_default().into_iter().map(state).collect()
}

fn read_file(path: &Path, most_bytes: u64, kind: Kind) -> Result<(String, Readers), LoadError> {
    let mut text = String::new();
    // A pipe that nobody writes to would be waited for.
    let about = fs::metadata(path).map_err(|source| LoadError::Read { path: path.to_owned(), source })?;
    if kind == Kind::Regular && !about.is_file() {
        return Err(LoadError::Read { path: path.to_owned(), source: io::Error::other("it is no regular file") });
    }
    let read = File::open(path).and_then(|file| file.take(most_bytes + 1).read_to_string(&mut text));
    read.map_err(|source| LoadError::Read { path: path.to_owned(), source })?;
    if text.len() as u64 > most_bytes {
        return Err(LoadError::TooLarge { path: path.to_owned() });
    }
    let is_exposed = about.is_file() && about.mode() & 0o077 != 0;
    Ok((text, if is_exposed { Readers::Others } else { Readers::Owner }))
}

/// The kernel's name for this machine, the default of `node.name`.
#[must_use]
pub fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    #[test]
    fn a_directory_is_its_fragments_in_the_order_of_their_names() {
        let folder = std::env::temp_dir().join(format!("weir-fragments-{}", std::process::id()));
        fs::create_dir_all(folder.join("sub.toml")).unwrap();
        assert!(matches!(read_text(&folder), Err(LoadError::Empty { .. })));
        for (name, text) in [("b.toml", "b"), ("a.toml", "a\n"), (".c.toml", "c"), ("d.txt", "d"), ("e.data", "e")] {
            fs::write(folder.join(name), text).unwrap();
        }
        symlink("e.data", folder.join("e.toml")).unwrap();
        let text = read_text(&folder).unwrap();
        assert_eq!(text.text, "\na\n\nb\ne\n");
        let starts: Vec<_> = text.fragments.iter().map(|fragment| (fragment.file.rsplit('/').next().unwrap(), fragment.start)).collect();
        assert_eq!(starts[1..], [("a.toml", 1), ("b.toml", 4), ("e.toml", 6)]);
        symlink("nowhere", folder.join("f.toml")).unwrap();
        assert!(matches!(read_text(&folder), Err(LoadError::Read { path, .. }) if path.ends_with("f.toml")));
        fs::remove_dir_all(folder).unwrap();
    }
    #[test]
    fn files_that_others_may_read_are_known() {
        let folder = std::env::temp_dir().join(format!("weir-exposed-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        for (name, mode) in [("a.toml", 0o600), ("b.toml", 0o640)] {
            fs::write(folder.join(name), "x = 1").unwrap();
            fs::set_permissions(folder.join(name), fs::Permissions::from_mode(mode)).unwrap();
        }
        let exposed = |path: &Path| read_text(path).unwrap().exposed.into_vec();
        let b = folder.join("b.toml");
        let b_name = b.display().to_string();
        assert_eq!((exposed(&folder), exposed(&b), exposed(&folder.join("a.toml"))), (vec![b_name.clone()], vec![b_name], vec![]));
        fs::remove_dir_all(folder).unwrap();
    }
}
