//! Changes a configuration's text where it says something of a server, and leaves everything else as it stands: comments, order, layout. Pure.

use toml_edit::{DocumentMut, InlineTable, Item, TableLike, Value};

use super::{ConfigText, model::Server, parse};

/// What is to be said.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Edit {
    /// The pool has this server, which it has not yet.
    Add(Server),
    /// The pool does not have the server.
    Remove,
    /// The server has this weight.
    Weight(u16),
}

/// A text with one of its files changed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Edited {
    /// All of it.
    pub text: ConfigText,
    /// The file that changes, as messages call it.
    pub file: String,
    /// What it said.
    pub before: String,
    /// What it says.
    pub after: String,
}

/// Why a text cannot be changed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum EditError {
    /// The pool or server is not there.
    #[error("{0} is not in the configuration's file\nhint: without --save it is said beside the file")]
    Absent(String),
    /// It is not TOML.
    #[error("{file} is not to be changed: {why}\nhint: change it by hand")]
    Refused {
        /// The file.
        file: String,
        /// The first thing that is wrong.
        why: String,
    },
}

/// The text in which `pool/server` is as `edit` says: in the fragment that has the server, or else in the one that has servers of the pool.
///
/// # Errors
/// [`EditError`] if there is no place for it, or if the whole would be no configuration or say something else.
pub fn edit(text: &ConfigText, host_name: &str, pool: &str, server: &str, edit: &Edit) -> Result<Edited, EditError> {
    let mut documents = Vec::new();
    for (start, part) in text.parts() {
        let file = text.file_at(start).to_owned();
        let document: DocumentMut = part
            .parse()
            .map_err(|error: toml_edit::TomlError| EditError::Refused { file: file.clone(), why: error.message().to_owned() })?;
        documents.push((file, part, document));
    }
    let has_server = |document: &DocumentMut| servers(document, pool).is_some_and(|servers| servers.contains_key(server));
    let place = match edit {
        Edit::Remove | Edit::Weight(_) => documents.iter().position(|(.., document)| has_server(document)),
        Edit::Add(_) => documents
            .iter()
            .position(|(.., document)| servers(document, pool).is_some())
            .or_else(|| documents.iter().position(|(.., document)| self::pool(document, pool).is_some())),
    };
    let name = || format!("{pool}/{server}");
    let place = place.ok_or_else(|| EditError::Absent(name()))?;
    let mut refused = EditError::Absent(name());
    for form in forms(edit) {
        let (file, before, document) = &documents[place];
        let mut document = document.clone();
        if !put(&mut document, pool, server, &form) {
            continue;
        }
        let (after, before, file) = (with_line_ends_of(before, document.to_string()), (*before).to_owned(), file.clone());
        let whole = replaced(text, place, &after);
        match is_meant(&whole, host_name, pool, server, edit) {
            Ok(()) => return Ok(Edited { text: whole, file, before, after }),
            Err(why) => refused = EditError::Refused { file, why },
        }
    }
    Err(refused)
}

/// With `\r\n` where every line of `before` ends so: a document knows `\n` alone.
fn with_line_ends_of(before: &str, after: String) -> String {
    let ends = before.matches('\n').count();
    if ends > 0 && before.matches("\r\n").count() == ends { after.replace("\r\n", "\n").replace('\n', "\r\n") } else { after }
}

/// A way to write an edit.
enum Form {
    Add(Value),
    Remove,
    Weight(u16),
}

/// The ways to write it, the shortest first.
fn forms(edit: &Edit) -> Vec<Form> {
    match edit {
        Edit::Remove => vec![Form::Remove],
        Edit::Weight(weight) => vec![Form::Weight(*weight)],
        Edit::Add(server) => {
            let address = match server.port {
                Some(port) => std::net::SocketAddr::new(server.address, port).to_string(),
                None => server.address.to_string(),
            };
            let table = |all: bool| {
                let mut table = InlineTable::new();
                table.insert("address", address.as_str().into());
                if all || server.weight != 1 {
                    table.insert("weight", i64::from(server.weight).into());
                }
                if all || server.backup {
                    table.insert("backup", server.backup.into());
                }
                Form::Add(table.into())
            };
            // A pool may have other defaults: then all is said.
            vec![Form::Add(address.as_str().into()), table(false), table(true)]
        }
    }
}

fn pool<'d>(document: &'d DocumentMut, name: &str) -> Option<&'d dyn TableLike> {
    document.get("pool")?.as_table_like()?.get(name)?.as_table_like()
}

fn servers<'d>(document: &'d DocumentMut, name: &str) -> Option<&'d dyn TableLike> {
    pool(document, name)?.get("servers")?.as_table_like()
}

/// Whether there was a place for it.
fn put(document: &mut DocumentMut, pool: &str, server: &str, form: &Form) -> bool {
    let Some(pool) = document.get_mut("pool").and_then(Item::as_table_like_mut).and_then(|pools| pools.get_mut(pool)) else { return false };
    let Some(pool) = pool.as_table_like_mut() else { return false };
    if pool.get("servers").is_none() && matches!(form, Form::Add(_)) {
        let mut fresh = toml_edit::Table::new();
        fresh.set_dotted(true);
        pool.insert("servers", Item::Table(fresh));
    }
    let Some(item) = pool.get_mut("servers") else { return false };
    if let (Form::Add(value), Some(inline)) = (form, item.as_inline_table_mut()) {
        append(inline, server, value.clone());
        return true;
    }
    let Some(servers) = item.as_table_like_mut() else { return false };
    match form {
        Form::Add(value) => {
            servers.insert(server, Item::Value(value.clone()));
            true
        }
        Form::Remove => servers.remove(server).is_some(),
        Form::Weight(weight) => servers.get_mut(server).is_some_and(|entry| put_weight(entry, *weight)),
    }
}

/// What stood before the closing brace stands there again.
fn append(inline: &mut InlineTable, key: &str, mut value: Value) {
    let last = inline.iter_mut().last().map(|(_, last)| {
        let suffix = last.decor().suffix().cloned();
        last.decor_mut().set_suffix("");
        suffix
    });
    value.decor_mut().set_prefix(" ");
    if let Some(Some(suffix)) = last {
        value.decor_mut().set_suffix(suffix);
    }
    inline.insert(key, value);
}

fn put_weight(entry: &mut Item, weight: u16) -> bool {
    if let Some(address) = entry.as_str().map(str::to_owned) {
        let decor = entry.as_value().map(|value| value.decor().clone()).unwrap_or_default();
        let mut table = InlineTable::new();
        table.insert("address", address.into());
        table.insert("weight", i64::from(weight).into());
        *table.decor_mut() = decor;
        *entry = Item::Value(table.into());
        return true;
    }
    let Some(table) = entry.as_table_like() else { return false };
    let mut value = Value::from(i64::from(weight));
    if !table.contains_key("weight")
        && let Some(inline) = entry.as_inline_table_mut()
    {
        append(inline, "weight", value);
        return true;
    }
    let Some(table) = entry.as_table_like_mut() else { return false };
    if let Some(old) = table.get("weight").and_then(Item::as_value) {
        *value.decor_mut() = old.decor().clone();
    }
    table.insert("weight", Item::Value(value));
    true
}

/// The whole with another text of one of its parts.
fn replaced(text: &ConfigText, place: usize, after: &str) -> ConfigText {
    if text.fragments.is_empty() {
        return ConfigText::new(text.file.clone(), after);
    }
    let parts = text.parts().enumerate().map(|(number, (start, part))| {
        let part = if number == place { after } else { part };
        (text.file_at(start).to_owned(), part.to_owned())
    });
    // The first one stands for the directory.
    ConfigText::joined(text.file.clone(), parts.skip(1))
}

/// Whether the whole says what is meant, and of everything else what it said.
fn is_meant(whole: &ConfigText, host_name: &str, pool: &str, server: &str, edit: &Edit) -> Result<(), String> {
    let found = |findings: Vec<super::Diagnostic>| findings.first().map(|finding| finding.render_line(whole)).unwrap_or_default();
    let (config, _) = parse(whole, host_name).map_err(found)?;
    let pool = config.pools.get(pool);
    let entry = pool.and_then(|pool| pool.servers.get(server));
    let is_meant = match edit {
        Edit::Add(wanted) => entry == Some(wanted),
        Edit::Remove => entry.is_none() && !pool.is_some_and(|pool| pool.names.contains_key(server)),
        Edit::Weight(weight) => {
            let of_name = pool.and_then(|pool| pool.names.get(server)).and_then(|named| named.weight);
            entry.map(|entry| entry.weight).or(of_name) == Some(*weight)
        }
    };
    if is_meant { Ok(()) } else { Err("the server would be another than was asked for: its pool gives it a port or a state".into()) }
}

#[cfg(test)]
mod tests;
