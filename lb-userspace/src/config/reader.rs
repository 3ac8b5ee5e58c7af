//! A cursor over the syntax tree: typed access to values with their place, knowing which keys were asked for, so that the others can be reported.

use std::{collections::BTreeMap, ops::RangeInclusive};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    diagnostic::Span,
    report::{Report, Reported},
    value::{self, ValueError},
};

/// A key that may be absent.
pub(super) type Key<T> = Result<Option<Spanned<T>>, Reported>;

/// The key itself if it is there, else what `defaults` say.
pub(super) fn inherit<T: Clone>(own: Key<T>, defaults: &Key<T>) -> Key<T> {
    match own {
        Ok(None) => defaults.clone(),
        Ok(Some(_)) | Err(_) => own,
    }
}

/// The value of a key, or `otherwise` where nobody gave one.
pub(super) fn or<T>(key: Key<T>, otherwise: T) -> Result<T, Reported> {
    Ok(key?.map_or(otherwise, Spanned::into_inner))
}

/// Calls `read` for all items, then fails if it failed for any.
pub(super) fn read_all<'d, T>(
    items: &[Item<'d>],
    report: &mut Report,
    read: impl Fn(&Item<'d>, &mut Report) -> Result<T, Reported>,
) -> Result<Vec<Spanned<T>>, Reported> {
    let results: Vec<_> = items.iter().map(|item| Ok(Spanned::new(item.span.clone(), read(item, report)?))).collect();
    results.into_iter().collect()
}

/// A table of the file.
#[derive(Debug)]
pub(super) struct Table<'d> {
    /// Its header, for what is missing in it.
    pub(super) span: Span,
    path: String,
    /// None for a table that the file does not have.
    entries: Option<&'d DeTable<'d>>,
    asked: Vec<&'static str>,
}

/// A value of the file.
#[derive(Debug)]
pub(super) struct Item<'d> {
    /// Dotted, as messages call it.
    pub(super) path: String,
    pub(super) span: Span,
    value: &'d DeValue<'d>,
}

impl<'d> Table<'d> {
    pub(super) fn root(tree: &'d Spanned<DeTable<'d>>) -> Self {
        Self { span: tree.span(), path: String::new(), entries: Some(tree.get_ref()), asked: Vec::new() }
    }

    /// What `read` makes of a key's value.
    pub(super) fn optional<T>(
        &mut self,
        key: &'static str,
        report: &mut Report,
        read: impl FnOnce(&Item<'d>, &mut Report) -> Result<T, Reported>,
    ) -> Key<T> {
        let Some(item) = self.item(key) else { return Ok(None) };
        Ok(Some(Spanned::new(item.span.clone(), read(&item, report)?)))
    }

    /// Like `optional`, and an error where the key is absent.
    pub(super) fn required<T>(
        &mut self,
        key: &'static str,
        hint: &str,
        report: &mut Report,
        read: impl FnOnce(&Item<'d>, &mut Report) -> Result<T, Reported>,
    ) -> Result<Spanned<T>, Reported> {
        match self.optional(key, report, read)? {
            Some(value) => Ok(value),
            None => Err(self.missing(key, hint, report)),
        }
    }

    pub(super) fn missing(&self, key: &str, hint: &str, report: &mut Report) -> Reported {
        report.missing(self.span.clone(), format!("missing key `{key}` in {}", self.title()), Some(hint))
    }

    /// The table under a key; an empty one, with this table's place, where the key is absent or no table.
    pub(super) fn child(&mut self, key: &'static str, report: &mut Report) -> Self {
        let absent = Table { span: self.span.clone(), path: join(&self.path, key), entries: None, asked: Vec::new() };
        match self.item(key) {
            Some(item) => item.table(report).unwrap_or(absent),
            None => absent,
        }
    }

    /// Like [`Self::child`]; a value that is no table goes to `otherwise`.
    pub(super) fn child_or(&mut self, key: &'static str, report: &mut Report, otherwise: impl FnOnce(&Item<'d>, &mut Report)) -> Self {
        match self.entries.and_then(|entries| entries.get(key)) {
            Some(value) if value.get_ref().as_table().is_none() => {
                let absent = Table { span: self.span.clone(), path: join(&self.path, key), entries: None, asked: Vec::new() };
                if let Some(item) = self.item(key) {
                    otherwise(&item, report);
                }
                absent
            }
            Some(_) | None => self.child(key, report),
        }
    }

    /// The keys of a table whose entries are strings, with their place.
    pub(super) fn strings(&mut self, key: &'static str, report: &mut Report) -> Key<BTreeMap<String, String>> {
        self.optional(key, report, |item, report| {
            let table = item.table(report)?;
            let mut strings = BTreeMap::new();
            for (name, value) in table.entries.into_iter().flatten() {
                let item = Item { path: join(&table.path, name.get_ref()), span: value.span(), value: value.get_ref() };
                strings.insert(name.get_ref().to_string(), item.string(report)?.to_owned());
            }
            Ok(strings)
        })
    }

    /// The entries of a table whose keys are names that the operator chose, by name; none where there is no such table.
    pub(super) fn named(&mut self, key: &'static str, report: &mut Report) -> Result<BTreeMap<String, Item<'d>>, Reported> {
        let Some(item) = self.item(key) else { return Ok(BTreeMap::new()) };
        let table = item.table(report)?;
        let mut named = BTreeMap::new();
        for (name, entry) in table.entries.into_iter().flatten() {
            if let Err(error) = value::check_name(name.get_ref()) {
                report.error_hint(name.span(), format!("bad name in {}: {error}", table.title()), error.hint());
            }
            let path = join(&table.path, name.get_ref());
            named.insert(name.get_ref().to_string(), Item { path, span: entry.span(), value: entry.get_ref() });
        }
        Ok(named)
    }

    /// Reports every key that nobody asked for.
    pub(super) fn finish(self, report: &mut Report) {
        self.finish_knowing(|_| None, report);
    }

    /// The same, with what `hint` says of a key that is another program's.
    pub(super) fn finish_knowing(self, hint: impl Fn(&str) -> Option<&'static str>, report: &mut Report) {
        for key in self.entries.into_iter().flat_map(DeTable::keys) {
            let name: &str = key.get_ref();
            if self.asked.contains(&name) {
                continue;
            }
            let message = format!("unknown key `{}` in {}", name.escape_debug(), self.title());
            report.error_hint(key.span(), message, hint(name).map_or_else(|| suggestion(name, &self.asked), str::to_owned));
        }
    }

    fn item(&mut self, key: &'static str) -> Option<Item<'d>> {
        self.asked.push(key);
        let value = self.entries?.get(key)?;
        Some(Item { path: join(&self.path, key), span: value.span(), value: value.get_ref() })
    }

    fn title(&self) -> String {
        if self.path.is_empty() { "the file".to_owned() } else { format!("[{}]", self.path) }
    }
}

impl<'d> Item<'d> {
    pub(super) fn is_string(&self) -> bool {
        self.value.is_str()
    }

    pub(super) fn string(&self, report: &mut Report) -> Result<&'d str, Reported> {
        self.value.as_str().ok_or_else(|| self.wrong_type("a string", report))
    }

    pub(super) fn boolean(&self, report: &mut Report) -> Result<bool, Reported> {
        self.value.as_bool().ok_or_else(|| self.wrong_type("true or false", report))
    }

    /// An integer in `range`.
    pub(super) fn integer(&self, range: RangeInclusive<u32>, report: &mut Report) -> Result<u32, Reported> {
        let Some(integer) = self.value.as_integer() else { return Err(self.wrong_type("an integer", report)) };
        let number = u32::from_str_radix(integer.as_str(), integer.radix()).ok();
        number.filter(|number| range.contains(number)).ok_or_else(|| {
            let (least, most) = (range.start(), range.end());
            report.error(self.span.clone(), format!("`{}` must be from {least} to {most}, not {integer}", self.path))
        })
    }

    /// An integer in `range`, of 16 bits.
    pub(super) fn short(&self, range: RangeInclusive<u16>, report: &mut Report) -> Result<u16, Reported> {
        let number = self.integer(u32::from(*range.start())..=u32::from(*range.end()), report)?;
        Ok(u16::try_from(number).expect("within a range of u16"))
    }

    /// An integer in `range`, which may be below 0.
    pub(super) fn signed(&self, range: RangeInclusive<i16>, report: &mut Report) -> Result<i16, Reported> {
        let Some(integer) = self.value.as_integer() else { return Err(self.wrong_type("an integer", report)) };
        let number = i16::from_str_radix(integer.as_str(), integer.radix()).ok();
        number.filter(|number| range.contains(number)).ok_or_else(|| {
            let (least, most) = (range.start(), range.end());
            report.error(self.span.clone(), format!("`{}` must be from {least} to {most}, not {integer}", self.path))
        })
    }

    /// One of `words`.
    pub(super) fn word<T: Copy>(&self, words: &[(&'static str, T)], report: &mut Report) -> Result<T, Reported> {
        let text = self.string(report)?;
        if let Some((_, meaning)) = words.iter().find(|(word, _)| *word == text) {
            return Ok(*meaning);
        }
        let known: Vec<_> = words.iter().map(|(word, _)| *word).collect();
        let message = format!("`{}` cannot be {text:?}", self.path);
        Err(report.error_hint(self.span.clone(), message, suggestion(text, &known)))
    }

    /// What `parse` makes of a string.
    pub(super) fn parsed<T>(&self, parse: impl FnOnce(&str) -> Result<T, ValueError>, report: &mut Report) -> Result<T, Reported> {
        parse(self.string(report)?).map_err(|error| self.refused(&error, report))
    }

    /// The same of a duration, which has a unit and is a string for it.
    pub(super) fn duration<T>(&self, parse: impl Fn(&str) -> Result<T, ValueError>, report: &mut Report) -> Result<T, Reported> {
        if self.value.as_integer().is_none() && self.value.as_float().is_none() {
            return self.parsed(parse, report);
        }
        let seconds = self.value.as_integer().filter(|number| number.radix() == 10).map(|number| format!("{}s", number.as_str()));
        let hint = match seconds.filter(|seconds| parse(seconds).is_ok()) {
            Some(seconds) => format!("write {seconds:?}"),
            None => "write a number and its unit, as in \"5s\"".to_owned(),
        };
        Err(report.error_hint(self.span.clone(), self.mismatch("a string"), hint))
    }

    /// Reports that the value makes no sense.
    pub(super) fn refused(&self, error: &ValueError, report: &mut Report) -> Reported {
        let message = format!("bad value for `{}`: {error}", self.path);
        report.error_hint(self.span.clone(), message, error.hint())
    }

    /// The elements of an array of strings; a lone string counts as an array of one.
    pub(super) fn elements(&self, report: &mut Report) -> Result<Vec<Self>, Reported> {
        match self.array() {
            Some(array) => Ok(array),
            None if self.is_string() => Ok(vec![Item { path: self.path.clone(), span: self.span.clone(), value: self.value }]),
            None => Err(self.wrong_type("a string or an array of strings", report)),
        }
    }

    /// The elements of an array; none if it is something else.
    pub(super) fn array(&self) -> Option<Vec<Self>> {
        let item = |value: &'d Spanned<DeValue<'d>>| Item { path: self.path.clone(), span: value.span(), value: value.get_ref() };
        Some(self.value.as_array()?.iter().map(item).collect())
    }

    pub(super) fn is_table(&self) -> bool {
        self.value.as_table().is_some()
    }

    pub(super) fn is_boolean(&self) -> bool {
        self.value.as_bool().is_some()
    }

    pub(super) fn is_integer(&self) -> bool {
        self.value.as_integer().is_some()
    }

    pub(super) fn table(&self, report: &mut Report) -> Result<Table<'d>, Reported> {
        let Some(entries) = self.value.as_table() else { return Err(self.wrong_type("a table", report)) };
        Ok(Table { span: self.span.clone(), path: self.path.clone(), entries: Some(entries), asked: Vec::new() })
    }

    pub(super) fn wrong_type(&self, wanted: &str, report: &mut Report) -> Reported {
        report.error(self.span.clone(), self.mismatch(wanted))
    }

    fn mismatch(&self, wanted: &str) -> String {
        let found = self.value.type_str();
        let article = if found.starts_with(['a', 'i']) { "an" } else { "a" };
        format!("`{}` must be {wanted}, not {article} {found}", self.path)
    }
}

/// A hint for a word that is not among `known`: the one most like it, or all of them.
pub(super) fn suggestion(word: &str, known: &[&str]) -> String {
    let distance = |candidate: &str| strsim::damerau_levenshtein(word, candidate);
    let most = |candidate: &str| (candidate.chars().count() / 3).max(1);
    match known.iter().min_by_key(|candidate| distance(candidate)) {
        // A longer word is like none of them, and the comparison takes the product of both lengths.
        Some(best) if word.len() <= 64 && distance(best) <= most(best) => format!("did you mean `{best}`?"),
        Some(_) => format!("there are {}", known.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")),
        None => "there is none".to_owned(),
    }
}

fn join(path: &str, key: &str) -> String {
    let key = key.escape_debug();
    if path.is_empty() { key.to_string() } else { format!("{path}.{key}") }
}
