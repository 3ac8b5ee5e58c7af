//! What outlives the daemon beside the maps and its record: what the operator says, and the configurations that were in force.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "reads and writes the state directory")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::{self, Write as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::control::history::{Entry, History};

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

impl KeepError {
    /// Puts a file that is not understood aside, where nothing is written over it; where it is then.
    pub(super) fn put_aside(&self) -> Option<PathBuf> {
        match self {
            Self::File { .. } => None,
            Self::Content { path, .. } => {
                let aside = path.with_extension("json.broken");
                fs::rename(path, &aside).ok().map(|()| aside)
            }
        }
    }
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

/// Where the texts of the history are: large ones are written once.
const TEXTS: &str = "history";

/// The rest of the history.
#[derive(Serialize, Deserialize)]
struct Kept {
    #[serde(flatten)]
    history: History,
    /// The generation that the daemon's own file says too; none if that has a text of its own.
    #[serde(default)]
    own_generation: Option<u64>,
}

/// Keeps the history of configurations.
#[derive(Debug, Default)]
pub(super) struct HistoryKeeper {
    /// The texts that are known to be in their files, and what tells these from others: inode, bytes, and time of the last change.
    texts: BTreeMap<u64, (u64, u64, i64, i64)>,
}

impl HistoryKeeper {
    /// Each text in a file of its own, which is left alone if it is there, then the rest.
    pub(super) fn keep(&mut self, state_dir: &Path, history: &History) -> Result<(), KeepError> {
        let folder = state_dir.join(TEXTS);
        let refused = |source| KeepError::File { path: folder.clone(), source };
        fs::create_dir_all(&folder).map_err(refused)?;
        for entry in &history.entries {
            let path = folder.join(text_name(entry.generation));
            let known = self.texts.get(&entry.generation);
            if known.is_none() || known != state_of(&path).as_ref() {
                write_text(&path, &entry.text)?;
                self.texts.extend(state_of(&path).map(|state| (entry.generation, state)));
            }
        }
        let own_generation = history.entries.iter().rfind(|entry| entry.text == history.own_text).map(|entry| entry.generation);
        if own_generation.is_none() {
            write_text(&folder.join(OWN), &history.own_text)?;
        }
        keep(state_dir, HISTORY, &Kept { history: history.without_texts(), own_generation })?;
        let own = own_generation.is_none().then(|| OWN.to_owned());
        let names: BTreeSet<String> = history.entries.iter().map(|entry| text_name(entry.generation)).chain(own).collect();
        for found in fs::read_dir(&folder).map_err(refused)?.flatten() {
            if found.file_name().to_str().is_none_or(|name| !names.contains(name)) {
                // It misleads nobody.
                let _ = fs::remove_file(found.path());
            }
        }
        self.texts.retain(|generation, _| history.entries.iter().any(|entry| entry.generation == *generation));
        Ok(())
    }
}

fn state_of(path: &Path) -> Option<(u64, u64, i64, i64)> {
    let about = fs::metadata(path).ok()?;
    Some((about.ino(), about.len(), about.mtime(), about.mtime_nsec()))
}

/// Replaces a file, unless it says the same.
fn write_text(path: &Path, text: &str) -> Result<(), KeepError> {
    if fs::read(path).is_ok_and(|kept| kept == text.as_bytes()) {
        return Ok(());
    }
    let fresh = path.with_extension("new");
    write_whole(&fresh, text.as_bytes()).and_then(|()| fs::rename(&fresh, path)).map_err(|source| {
        let _ = fs::remove_file(&fresh);
        KeepError::File { path: path.to_owned(), source }
    })
}

/// The history that was kept; none if nothing was. Entries whose text is lost are left out.
pub(super) fn find_history(state_dir: &Path) -> Result<Option<History>, KeepError> {
    let Some(Kept { mut history, own_generation }) = find(state_dir, HISTORY)? else { return Ok(None) };
    let text = |name: &str| fs::read_to_string(state_dir.join(TEXTS).join(name)).ok();
    history.own_text = text(&own_generation.map_or_else(|| OWN.to_owned(), text_name)).unwrap_or_default();
    history.entries =
        history.entries.into_iter().filter_map(|entry| Some(Entry { text: text(&text_name(entry.generation))?, ..entry })).collect();
    Ok(Some(history))
}

/// The text of the daemon's own file.
const OWN: &str = "own.toml";

fn text_name(generation: u64) -> String {
    format!("{generation}.toml")
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{History, HistoryKeeper, find_history};

    #[test]
    fn a_history_is_found_as_it_was_kept_and_its_texts_are_written_once() {
        let folder = std::env::temp_dir().join(format!("weir-history-{}", std::process::id()));
        let mut history = History { own_text: "own".into(), ..History::default() };
        let mut keeper = HistoryKeeper::default();
        for number in 0..12 {
            history.apply(&crate::config::ConfigText::new("f", format!("text {number}")), "test", number);
            keeper.keep(&folder, &history).unwrap();
        }
        assert_eq!(find_history(&folder).unwrap().as_ref(), Some(&history));
        let text = folder.join("history/12.toml");
        let written = fs::metadata(&text).unwrap().modified().unwrap();
        keeper.keep(&folder, &history).unwrap();
        assert_eq!(fs::metadata(&text).unwrap().modified().unwrap(), written);
        // What others spoil is made good, by a daemon that knows nothing of it too.
        fs::write(&text, "spoilt!").unwrap();
        keeper.keep(&folder, &history).unwrap();
        fs::write(folder.join("history/11.toml"), "spoilt!").unwrap();
        HistoryKeeper::default().keep(&folder, &history).unwrap();
        assert_eq!(find_history(&folder).unwrap().as_ref(), Some(&history));
        let mut names: Vec<_> = fs::read_dir(folder.join("history")).unwrap().map(|found| found.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names.len(), 11);
        // What the daemon's own file says too is not written twice.
        history.own_text.clone_from(&history.entries[3].text);
        keeper.keep(&folder, &history).unwrap();
        assert!(!folder.join("history/own.toml").exists());
        assert_eq!(find_history(&folder).unwrap().as_ref(), Some(&history));
        fs::remove_file(folder.join("history/5.toml")).unwrap();
        let found = find_history(&folder).unwrap().unwrap();
        assert!(found.entries.len() == 9 && found.entries.iter().all(|entry| entry.generation != 5));
        fs::remove_dir_all(folder).unwrap();
    }
}
