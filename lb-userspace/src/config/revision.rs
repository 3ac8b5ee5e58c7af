//! Parses one version of a configuration after the other. Of a version that differs from the one before in some listeners and pools, only these are read
//! again: what comes out is what [`super::parse`] makes of all of it.
//!
//! It rests on this: TOML is read from left to right, and a line that begins with a header belongs to nothing before it. So where two texts begin alike up
//! to such a line, and end alike from another one on, what lies between is TOML on its own, in both of them.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    ConfigText, Diagnostic, Document, Parsed, Span, judge,
    listener::ListenerSection,
    pool::PoolSection,
    reader::Table,
    report::Report,
    tree::{self, moved_table},
};

/// Parses versions, and keeps what it read of the last one that has no errors.
#[derive(Debug, Default)]
pub struct Parser {
    before: Option<Version>,
}

impl Parser {
    /// The same as [`super::parse`].
    ///
    /// # Errors
    ///
    /// The same.
    pub fn parse(&mut self, text: &ConfigText, host_name: &str) -> Parsed {
        if let Some(change) = self.before.as_ref().and_then(|before| before.change_to(text, host_name)) {
            let followed = self.before.take().and_then(|before| before.after(change, text));
            if let Some((version, parsed)) = followed {
                self.before = Some(version);
                return Ok(parsed);
            }
        }
        let (tree, mut report) = tree::read(text);
        let document = Document::read(&tree, host_name, &mut report);
        let found = report.findings_if_sound();
        let parsed = judge(&document, text, report);
        // What is said of a missing [node] is said of all of the text.
        let sections = Sections::of(&tree, &text.text).filter(|_| tree.get_ref().contains_key("node"));
        if let (Ok(_), Some(found), Some(sections)) = (&parsed, found, sections) {
            self.before = Some(Version { text: text.clone(), host_name: host_name.to_owned(), document, found, sections });
        }
        parsed
    }
}

/// A text without errors, and what was read of it.
#[derive(Debug)]
struct Version {
    text: ConfigText,
    host_name: String,
    document: Document,
    /// What the readers of sections said.
    found: Vec<Diagnostic>,
    sections: Sections,
}

/// What a version has otherwise than the one before.
struct Change {
    /// Of the text before.
    old: Span,
    /// Of the text now. It begins where the old one does.
    new: Span,
    listeners: BTreeMap<String, ListenerSection>,
    pools: BTreeMap<String, PoolSection>,
    /// What the readers said of these.
    found: Vec<Diagnostic>,
    sections: Vec<Section>,
}

impl Version {
    /// None if the difference is not one of listeners and pools alone, or has errors: then all of the text has to be read.
    fn change_to(&self, text: &ConfigText, host_name: &str) -> Option<Change> {
        if host_name != self.host_name {
            return None;
        }
        let (old, new) = self.differing_parts(text)?;
        let part = text.text.get(new.clone())?;
        if has_short_header(part) {
            return None;
        }
        let (tree, errors) = DeTable::parse_recoverable(part);
        let only = ["listener", "pool"];
        if !errors.is_empty() || tree.get_ref().keys().any(|key| !only.contains(&key.get_ref().as_ref())) {
            return None;
        }
        let tree = Spanned::new(new.clone(), moved_table(tree.into_inner(), new.start));
        let mut report = Report::default();
        let mut root = Table::root(&tree);
        let (listeners, pools) = super::read_listeners_and_pools(&mut root, &self.document.defaults, &mut report);
        let (listeners, pools) = (listeners.ok()?, pools.ok()?);
        let sections = Sections::of(&tree, &text.text)?.all;
        let leaving: BTreeSet<(Kind, &str)> = self.sections.within(&old).map(Section::key).collect();
        let is_elsewhere = |section: &Section| !leaving.contains(&section.key()) && self.document.has(section);
        if sections.iter().any(is_elsewhere) {
            return None;
        }
        Some(Change { old, new, listeners, pools, found: report.findings_if_sound()?, sections })
    }

    /// Where the texts differ, from one header to another.
    fn differing_parts(&self, text: &ConfigText) -> Option<(Span, Span)> {
        let (old, new) = (self.text.text.as_bytes(), text.text.as_bytes());
        let before = common_prefix(old, new);
        let after = common_suffix(&old[before..], &new[before..]);
        let fragment = self.fragment_with(&(before..old.len() - after))?;
        let first = self.sections.last_before(before).filter(|start| *start >= fragment.start)?;
        if first < self.sections.others_end {
            return None;
        }
        let old_end = old.len() - after;
        let end = self.sections.first_from(old_end.max(first + 1)).map_or(fragment.end, |start| start.min(fragment.end));
        // A section may go on in another fragment.
        if self.sections.within(&(first..end)).any(|section| section.span.end > end) {
            return None;
        }
        let new_end = (new.len() + end).checked_sub(old.len())?;
        let ends_line = new_end == new.len() || new_end.checked_sub(1).is_some_and(|last| new[last] == b'\n');
        let is_moved = |(old_start, new_start): (usize, usize)| {
            if old_start <= first { new_start == old_start } else { new_start + old.len() == old_start + new.len() }
        };
        let starts = |text: &ConfigText| text.fragments.iter().map(|fragment| fragment.start).collect::<Vec<_>>();
        let (old_starts, new_starts) = (starts(&self.text), starts(text));
        let are_moved = old_starts.len() == new_starts.len() && old_starts.into_iter().zip(new_starts).all(is_moved);
        (first < new_end && ends_line && are_moved).then_some((first..end, first..new_end))
    }

    /// The fragment that has all of a span; all of the text where it is one file.
    fn fragment_with(&self, span: &Span) -> Option<Span> {
        let fragments = &self.text.fragments;
        let next = fragments.partition_point(|fragment| fragment.start <= span.start);
        let start = if next == 0 { 0 } else { fragments[next - 1].start };
        let end = fragments.get(next).map_or(self.text.text.len(), |fragment| fragment.start);
        (span.end <= end).then_some(start..end)
    }

    /// None if it has errors.
    fn after(mut self, change: Change, text: &ConfigText) -> Option<(Self, (super::model::Config, Vec<Diagnostic>))> {
        let Change { old, new, listeners, pools, found, sections } = change;
        for section in self.sections.within(&old) {
            match section.kind {
                Kind::Listener => drop(self.document.listeners.remove(&section.name)),
                Kind::Pool => drop(self.document.pools.remove(&section.name)),
            }
        }
        self.found.retain(|finding| !old.contains(&finding.span.start));
        let shift = Shift { from: old.end, back: old.end, forth: new.end };
        if old.end != new.end {
            self.document.listeners.values_mut().for_each(|listener| listener.shift(&shift));
            self.document.pools.values_mut().for_each(|pool| pool.shift(&shift));
            self.found.iter_mut().for_each(|finding| shift.span(&mut finding.span));
        }
        self.document.listeners.extend(listeners);
        self.document.pools.extend(pools);
        self.found.extend(found);
        self.sections.replace(&old, sections, &shift);
        self.text.clone_from(text);
        let report = Report::with_findings(self.found.clone());
        let (config, findings) = judge(&self.document, text, report).ok()?;
        (findings.len() < super::report::MOST_FINDINGS).then_some((self, (config, findings)))
    }
}

impl Document {
    fn has(&self, section: &Section) -> bool {
        match section.kind {
            Kind::Listener => self.listeners.contains_key(&section.name),
            Kind::Pool => self.pools.contains_key(&section.name),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Kind {
    Listener,
    Pool,
}

/// All that is said of a listener or a pool, in one place.
#[derive(Debug)]
struct Section {
    kind: Kind,
    name: String,
    /// From the beginning of the line with its header to the end of its last value.
    span: Span,
}

impl Section {
    fn key(&self) -> (Kind, &str) {
        (self.kind, &self.name)
    }
}

/// Those of a text, in their order and apart from each other.
#[derive(Debug)]
struct Sections {
    all: Vec<Section>,
    /// The end of all other sections.
    others_end: usize,
}

impl Sections {
    /// None if one begins with no header, or with one that does not begin its line, or if two of them overlap.
    fn of(tree: &Spanned<DeTable<'_>>, text: &str) -> Option<Self> {
        let mut all = Vec::new();
        let mut others_end = 0;
        for (key, value) in tree.get_ref() {
            let kind = match key.get_ref().as_ref() {
                "listener" => Kind::Listener,
                "pool" => Kind::Pool,
                _ => {
                    others_end = others_end.max(extent(key.span(), value.get_ref()).end);
                    continue;
                }
            };
            for (name, value) in value.get_ref().as_table()? {
                let Span { start, end } = extent(name.span(), value.get_ref());
                let start = text[..start].rfind('\n').map_or(0, |newline| newline + 1);
                if !text[start..].starts_with('[') {
                    return None;
                }
                all.push(Section { kind, name: name.get_ref().to_string(), span: start..end });
            }
        }
        all.sort_by_key(|section| (section.span.start, Reverse(section.span.end)));
        let are_apart = all.windows(2).all(|pair| pair[0].span.end <= pair[1].span.start);
        are_apart.then_some(Self { all, others_end })
    }

    /// Where the last one begins that begins before an offset.
    fn last_before(&self, offset: usize) -> Option<usize> {
        let next = self.all.partition_point(|section| section.span.start < offset);
        Some(self.all[next.checked_sub(1)?].span.start)
    }

    /// Where the first one begins that does not begin before an offset.
    fn first_from(&self, offset: usize) -> Option<usize> {
        let next = self.all.partition_point(|section| section.span.start < offset);
        Some(self.all.get(next)?.span.start)
    }

    /// The places of those that begin in a span.
    fn places(&self, span: &Span) -> Span {
        let place = |offset| self.all.partition_point(|section| section.span.start < offset);
        place(span.start)..place(span.end)
    }

    fn within(&self, span: &Span) -> impl Iterator<Item = &Section> {
        self.all[self.places(span)].iter()
    }

    fn replace(&mut self, span: &Span, with: Vec<Section>, shift: &Shift) {
        let places = self.places(span);
        self.all[places.end..].iter_mut().for_each(|section| shift.span(&mut section.span));
        self.all.splice(places, with);
    }
}

/// From the first of a value's keys, or its own, to the end of its last value.
fn extent(key: Span, value: &DeValue<'_>) -> Span {
    let Some(table) = value.as_table() else { return key };
    table.iter().fold(key, |all, (key, value)| {
        let Span { start, end } = extent(key.span(), value.get_ref());
        let end = if value.get_ref().is_table() { end } else { end.max(value.span().end) };
        all.start.min(start)..all.end.max(end)
    })
}

/// Whether a line may be the header of a table of the first level, which could be there twice.
fn has_short_header(part: &str) -> bool {
    let is_short = |line: &str| {
        let line = line.trim_start_matches([' ', '\t']);
        line.starts_with('[') && !line.split_once(']').map_or(line, |(header, _)| header).contains('.')
    };
    part.lines().any(is_short)
}

fn common_prefix(a: &[u8], b: &[u8]) -> usize {
    const BLOCK: usize = 256;
    let same = a.chunks(BLOCK).zip(b.chunks(BLOCK)).take_while(|(a, b)| a == b && a.len() == BLOCK).count() * BLOCK;
    same + a[same..].iter().zip(&b[same..]).take_while(|(a, b)| a == b).count()
}

fn common_suffix(a: &[u8], b: &[u8]) -> usize {
    const BLOCK: usize = 256;
    let same = a.rchunks(BLOCK).zip(b.rchunks(BLOCK)).take_while(|(a, b)| a == b && a.len() == BLOCK).count() * BLOCK;
    let (a, b) = (&a[..a.len() - same], &b[..b.len() - same]);
    same + a.iter().rev().zip(b.iter().rev()).take_while(|(a, b)| a == b).count()
}

/// What comes from an offset on is elsewhere: by `forth - back` further.
struct Shift {
    from: usize,
    back: usize,
    forth: usize,
}

impl Shift {
    fn span(&self, span: &mut Span) {
        if span.start >= self.from {
            *span = span.start - self.back + self.forth..span.end - self.back + self.forth;
        }
    }

    fn spanned<T: Clone>(&self, value: &mut Spanned<T>) {
        let mut span = value.span();
        self.span(&mut span);
        *value = Spanned::new(span, value.get_ref().clone());
    }
}

impl ListenerSection {
    fn shift(&mut self, shift: &Shift) {
        let Self { header, binds, pool, slots, allow, deny, own_sources, model: _ } = self;
        shift.span(header);
        binds.iter_mut().for_each(|bind| shift.spanned(bind));
        pool.iter_mut().for_each(|pool| shift.spanned(pool));
        slots.iter_mut().for_each(|slots| shift.spanned(slots));
        [allow, deny, own_sources].into_iter().flatten().for_each(|network| shift.spanned(network));
    }
}

impl PoolSection {
    fn shift(&mut self, shift: &Shift) {
        let Self { header, forward: _, snat, balance, servers, names, model: _ } = self;
        shift.span(header);
        snat.iter_mut().for_each(|address| shift.spanned(address));
        balance.iter_mut().for_each(|balance| shift.spanned(balance));
        for server in servers.values_mut() {
            shift.span(&mut server.address);
            server.port.iter_mut().for_each(|port| shift.span(port));
        }
        for name in names.values_mut() {
            shift.span(&mut name.name);
            name.port.iter_mut().for_each(|port| shift.span(port));
        }
    }
}

#[cfg(test)]
mod tests;
