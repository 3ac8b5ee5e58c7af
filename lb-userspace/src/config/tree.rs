//! The syntax tree of a configuration: that of its text, or of a directory's fragments, each of which is TOML on its own, made one.

use toml::{
    Spanned,
    de::{DeArray, DeString, DeTable, DeValue},
};

use super::{
    diagnostic::{ConfigText, Position, Span},
    report::Report,
};

/// The tree with places in the whole text, and a report that has what speaks against it: syntax errors, and keys that two fragments give. Tables
/// of one name in several fragments are one table.
pub(super) fn read(text: &ConfigText) -> (Spanned<DeTable<'_>>, Report) {
    if text.fragments.is_empty() {
        let (tree, errors) = DeTable::parse_recoverable(&text.text);
        let errors: Vec<_> = errors.iter().map(|error| (error.span().unwrap_or(0..0), error.message().to_owned())).collect();
        return (tree, Report::new(text, &errors));
    }
    let mut errors = Vec::new();
    let mut parsed = Vec::new();
    for (start, part) in text.parts() {
        let (tree, found) = DeTable::parse_recoverable(part);
        errors.extend(found.iter().map(|error| (moved(&error.span().unwrap_or(0..0), start), error.message().to_owned())));
        parsed.push((start, tree));
    }
    let mut report = Report::new(text, &errors);
    let mut all = DeTable::new();
    for (start, tree) in parsed {
        let mut path = Path { text, keys: Vec::new() };
        merge(&mut all, moved_table(tree.into_inner(), start), &mut path, &mut report);
    }
    // What is said of the whole is said of its beginning.
    (Spanned::new(0..0, all), report)
}

/// The way to a table that two fragments have.
struct Path<'t> {
    text: &'t ConfigText,
    keys: Vec<String>,
}

fn merge<'d>(into: &mut DeTable<'d>, from: DeTable<'d>, path: &mut Path<'_>, report: &mut Report) {
    for (key, value) in from {
        let Some(first) = into.get_key_value(&key).map(|(first, _)| first.span()) else {
            into.insert(key, value);
            continue;
        };
        path.keys.push(key.get_ref().escape_debug().to_string());
        match (into.get_mut(&key).map(Spanned::get_mut), value.into_inner()) {
            (Some(DeValue::Table(there)), DeValue::Table(more)) => merge(there, more, path, report),
            (Some(_) | None, _) => {
                let Position { line, column } = path.text.position(first.start);
                let (name, file) = (path.keys.join("."), path.text.file_at(first.start));
                let message = format!("`{name}` is given twice: {file}:{line}:{column} has it already");
                report.error_hint(key.span(), message, "leave it in one of the files");
            }
        }
        path.keys.pop();
    }
}

fn moved(span: &Span, by: usize) -> Span {
    span.start + by..span.end + by
}

pub(super) fn moved_table(table: DeTable<'_>, by: usize) -> DeTable<'_> {
    table.into_iter().map(|(key, value)| (moved_key(key, by), moved_value(value, by))).collect()
}

fn moved_key(key: Spanned<DeString<'_>>, by: usize) -> Spanned<DeString<'_>> {
    Spanned::new(moved(&key.span(), by), key.into_inner())
}

fn moved_value(value: Spanned<DeValue<'_>>, by: usize) -> Spanned<DeValue<'_>> {
    let span = moved(&value.span(), by);
    let inner = match value.into_inner() {
        DeValue::Table(table) => DeValue::Table(moved_table(table, by)),
        DeValue::Array(array) => DeValue::Array(array.into_iter().map(|value| moved_value(value, by)).collect::<DeArray<'_>>()),
        leaf @ (DeValue::String(_) | DeValue::Integer(_) | DeValue::Float(_) | DeValue::Boolean(_) | DeValue::Datetime(_)) => leaf,
    };
    Spanned::new(span, inner)
}
