//! What the operator says with `--save`: it is written into the configuration's file, and in force from there.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "writes the configuration's file")]

use std::{
    fs::{self, File},
    io::{self, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown},
    path::{Path, PathBuf},
};

use super::{
    admin_io::{Answer, refused, serialised},
    config_io::FILE,
    daemon_io::Daemon,
    keep_io,
    report::in_words,
};
use crate::{
    admin::api::{Addition, Refusal, Removal, WeightChange},
    config::{
        self, ConfigText,
        edit::{Edit, Edited, edit},
    },
    control::{names::expand::entry_of, overrides::select, standing::ServerName},
};

/// Why the file is not written.
#[derive(Debug, thiserror::Error)]
enum SaveError {
    /// The system refuses.
    #[error("failed to write {}\nhint: nothing has been changed; without --save it is said beside the file", .path.display())]
    Write {
        /// The file, symlinks resolved.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file has the name, the DNS the address.
    #[error("{server} is an address of {question}, and the file has the name alone, as pool.{pool}.servers.{entry}\nhint: {cure}", pool = .server.pool)]
    OfName {
        /// The server.
        server: ServerName,
        /// What is asked of the DNS.
        question: String,
        /// What the file calls it.
        entry: String,
        /// What to do instead.
        cure: String,
    },
    /// Somebody else wrote it.
    #[error("{} has changed meanwhile\nhint: say it again", .path.display())]
    Changed {
        /// The file.
        path: PathBuf,
    },
}

impl Daemon {
    /// A server that is added, in the file.
    pub(super) async fn save_added(&mut self, addition: Addition) -> Answer {
        let Addition { server, added, .. } = addition;
        let is_written = self
            .written
            .pools
            .get(&server.pool)
            .is_some_and(|pool| pool.servers.contains_key(&server.server) || pool.names.contains_key(&server.server));
        if is_written {
            let hint = Some("--save adds what the file does not have: weir server remove --save takes the file's out".into());
            return Err(Refusal { hint, ..Refusal::text(format!("{server} is there already, in the file")) });
        }
        // One that was added before is to be in the file from now on.
        let mut overrides = self.overrides.clone();
        if overrides.added.get(&server) == Some(&added) {
            overrides.added.remove(&server);
        }
        overrides.add(&self.configured, server.clone(), added).map_err(|error| Refusal::of(&error))?;
        self.save(&[(server, Edit::Add(added.server()))]).await
    }

    /// A server that is removed, from the file too.
    pub(super) async fn save_removed(&mut self, removal: &Removal) -> Answer {
        // One that is left out already may leave the file.
        if !self.overrides.removed.contains(&removal.server) {
            let mut overrides = self.overrides.clone();
            overrides.remove(&self.configured, &removal.server).map_err(|error| Refusal::of(&error))?;
            self.refuse_desertion(&overrides, removal.force)?;
        }
        self.save(&[(removal.server.clone(), Edit::Remove)]).await
    }

    /// Another weight, in the file.
    pub(super) async fn save_weight(&mut self, change: &WeightChange) -> Answer {
        let Some(weight) = change.weight.filter(|weight| *weight <= 1000) else {
            return Err(Refusal::text("--save writes a weight from 0 to 1000"));
        };
        let names = select(&self.config, &change.servers).map_err(|error| Refusal::of(&error))?;
        let mut overrides = self.overrides.clone();
        names.iter().for_each(|name| overrides.say(name, |said| said.weight = Some(weight)));
        self.refuse_desertion(&overrides, change.force)?;
        let edits: Vec<_> = names.into_iter().map(|name| (name, Edit::Weight(weight))).collect();
        self.save(&edits).await
    }

    /// What is said of one address of a name has no place in the file.
    fn refuse_names(&self, edits: &[(ServerName, Edit)]) -> Result<(), SaveError> {
        for (server, edit) in edits {
            let Some((entry, named)) = entry_of(&self.written, &server.pool, &server.server) else { continue };
            let (place, file) = (format!("pool.{}.servers.{entry}", server.pool), self.config_path.display());
            let cure = match edit {
                Edit::Add(_) => continue,
                Edit::Weight(_) => {
                    format!("write {place}.weight into {file}, which is for all its addresses, or leave out --save, which is for this one")
                }
                Edit::Remove => format!("take {place} out of {file}, or the address out of the DNS, or leave out --save"),
            };
            return Err(SaveError::OfName { server: server.clone(), question: named.question.to_string(), entry: entry.to_owned(), cure });
        }
        Ok(())
    }

    /// Writes the file, has it in force, and forgets what was said beside it.
    async fn save(&mut self, edits: &[(ServerName, Edit)]) -> Answer {
        self.refuse_names(edits).map_err(|error| Refusal::of(&error))?;
        let text = config::read_regular_text(&self.config_path).map_err(|error| Refusal::text(in_words(&error)))?;
        if self.history.current().is_none_or(|entry| entry.text != text.text) {
            let hint = Some("weir diff shows the difference, weir apply takes the file's".into());
            return Err(Refusal { hint, ..Refusal::text("the file is not what is in force, and --save would have both") });
        }
        let edited = edit_all(&text, edits)?;
        for (written, before) in edited.iter().zip(0..) {
            if let Err(error) = write(written) {
                edited[..before].iter().rev().for_each(unwrite);
                return Err(Refusal::of_chain(&error));
            }
        }
        let mut overrides = self.overrides.clone();
        edits.iter().for_each(|(name, edit)| match edit {
            Edit::Remove => overrides.is_gone(name),
            Edit::Add(_) | Edit::Weight(_) => overrides.is_written(name),
        });
        let whole = edited.last().map_or(text, |edited| edited.text.clone());
        let said = std::mem::replace(&mut self.overrides, overrides);
        self.history.own_text.clone_from(&whole.text);
        if let Err(errors) = self.apply(&whole, FILE).await {
            self.overrides = said;
            edited.iter().rev().for_each(unwrite);
            return Err(refused("the configuration is refused, and the file as it was", errors));
        }
        let kept = keep_io::keep(&self.config.node.state_dir, keep_io::OVERRIDES, &self.overrides);
        self.tell_keeping("overrides are not kept", kept);
        let mut servers = self.servers_as_they_are()?;
        servers.retain(|server| edits.iter().any(|(name, _)| *name == server.server));
        serialised(&servers)
    }
}

/// One change after the other.
fn edit_all(text: &ConfigText, edits: &[(ServerName, Edit)]) -> Result<Vec<Edited>, Refusal> {
    let (host_name, mut all) = (config::host_name(), Vec::<Edited>::new());
    for (ServerName { pool, server }, what) in edits {
        let text = all.last().map_or(text, |edited| &edited.text);
        all.push(edit(text, &host_name, pool, server, what).map_err(|error| Refusal::of(&error))?);
    }
    Ok(all)
}

/// Replaces the file in one step by another with the same mode and owner, unless it says something else than was read. Of a symlink, what it leads to.
fn write(edited: &Edited) -> Result<(), SaveError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        |source| SaveError::Write { path, source }
    };
    let named = Path::new(&edited.file);
    let path = fs::canonicalize(named).map_err(failed(named))?;
    if fs::read_to_string(&path).map_err(failed(&path))? != edited.before {
        return Err(SaveError::Changed { path });
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    // With a dot it is no fragment.
    let fresh = path.with_file_name(format!(".{name}.weir-{}", std::process::id()));
    let replaced = write_beside(&fresh, &path, &edited.after).and_then(|()| fs::rename(&fresh, &path));
    if replaced.is_err() {
        // Half of it is of no use.
        let _ = fs::remove_file(&fresh);
    }
    replaced.map_err(failed(&path))
}

fn write_beside(fresh: &Path, path: &Path, text: &str) -> io::Result<()> {
    let about = fs::metadata(path)?;
    let _ = fs::remove_file(fresh);
    let mut file = File::options().write(true).create_new(true).mode(0o600).open(fresh)?;
    fchown(&file, Some(about.uid()), Some(about.gid()))?;
    file.set_permissions(fs::Permissions::from_mode(about.mode() & 0o7777))?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

/// As it was before.
fn unwrite(edited: &Edited) {
    let Edited { text, file, before, after } = edited.clone();
    // If that fails too, the file's errors are told as those of any edit.
    let _ = write(&Edited { text, file, before: after, after: before });
}
