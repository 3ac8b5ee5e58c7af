//! The list to which every reader of this folder adds what it finds, so that all errors of a file are told at once.

use std::collections::BTreeSet;

use super::diagnostic::{ConfigText, Diagnostic, Severity, Span};

/// Errors, and findings of other kinds, kept of one file; a file with more is told so once.
pub(super) const MOST_FINDINGS: usize = 1000;

/// Witness that an error was reported: what a reader returns in place of the value that it could not read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reported(());

/// Everything found so far.
#[derive(Debug, Default)]
pub(super) struct Report {
    findings: Vec<Diagnostic>,
    error_count: usize,
    /// Parts of the text of which the tree cannot be believed, in order, apart from each other.
    unreadable: Vec<Span>,
}

impl Report {
    /// Begins with what the TOML parser said of `text`, with places in all of it. A `[section]` that has a syntax error is not judged further: its keys
    /// may belong elsewhere.
    pub(super) fn new(text: &ConfigText, syntax_errors: &[(Span, String)]) -> Self {
        let mut report = Self { findings: Vec::new(), error_count: 0, unreadable: Vec::new() };
        let mut errors: Vec<_> = syntax_errors.iter().map(|(span, message)| (span.clone(), message.as_str())).collect();
        errors.sort_by_key(|(span, _)| span.start);
        let (lines, sections) = (line_starts(&text.text), section_starts(text));
        let (mut last_line, mut commas) = (0, BTreeSet::new());
        for (span, message) in &errors {
            let line = lines.partition_point(|start| *start <= span.start);
            // Behind an array that is not closed each line is taken for an element of it.
            let is_consequence = message.starts_with("missing comma") && !commas.insert(*message);
            if line != last_line && !is_consequence {
                report.error(span.clone(), (*message).to_owned());
            }
            last_line = line;
        }
        for (span, _) in errors {
            let next_section = sections.partition_point(|start| *start <= span.start);
            let end = sections.get(next_section).copied().unwrap_or(text.text.len() + 1);
            let section = sections[next_section - 1]..end;
            if report.unreadable.last() != Some(&section) {
                report.unreadable.push(section);
            }
        }
        report
    }

    /// Begins with what was found in a text without errors.
    pub(super) fn with_findings(findings: Vec<Diagnostic>) -> Self {
        Self { findings, ..Self::default() }
    }

    /// All that was found, if there is no error among it and nothing was left out.
    pub(super) fn findings_if_sound(&self) -> Option<Vec<Diagnostic>> {
        (self.text_is_whole() && !self.has_errors() && self.findings.len() < MOST_FINDINGS).then(|| self.findings.clone())
    }

    /// Whether the tree is all of the text, so that what is missing in it is missing.
    pub(super) fn text_is_whole(&self) -> bool {
        self.unreadable.is_empty()
    }

    pub(super) fn has_errors(&self) -> bool {
        self.error_count > 0
    }

    pub(super) fn error(&mut self, span: Span, message: impl Into<String>) -> Reported {
        self.add(Severity::Error, span, message.into(), None)
    }

    pub(super) fn error_hint(&mut self, span: Span, message: impl Into<String>, hint: impl Into<String>) -> Reported {
        self.add(Severity::Error, span, message.into(), Some(hint.into()))
    }

    /// An error about something that is not there: silent where the text has syntax errors.
    pub(super) fn missing(&mut self, span: Span, message: String, hint: Option<&str>) -> Reported {
        if self.text_is_whole() {
            return self.add(Severity::Error, span, message, hint.map(str::to_owned));
        }
        Reported(())
    }

    pub(super) fn warn(&mut self, span: Span, message: impl Into<String>, hint: Option<&str>) {
        self.add(Severity::Warning, span, message.into(), hint.map(str::to_owned));
    }

    pub(super) fn advise(&mut self, span: Span, message: impl Into<String>, hint: &str) {
        self.add(Severity::Advice, span, message.into(), Some(hint.to_owned()));
    }

    /// In the order of the text, no two alike.
    pub(super) fn into_findings(mut self) -> Vec<Diagnostic> {
        self.findings.sort_by(|a, b| (a.span.start, a.severity, &a.message).cmp(&(b.span.start, b.severity, &b.message)));
        self.findings.dedup();
        self.findings
    }

    fn add(&mut self, severity: Severity, span: Span, message: String, hint: Option<String>) -> Reported {
        let alike = if severity == Severity::Error { self.error_count } else { self.findings.len().saturating_sub(self.error_count) };
        self.error_count += usize::from(severity == Severity::Error);
        let before = self.unreadable.partition_point(|section| section.start <= span.start);
        let is_believable = before == 0 || !self.unreadable[before - 1].contains(&span.start);
        if is_believable && alike < MOST_FINDINGS {
            self.findings.push(Diagnostic { severity, span, message, hint });
        } else if is_believable && alike == MOST_FINDINGS {
            let message = format!("there are more than {MOST_FINDINGS} findings like this; the rest is not shown");
            self.findings.push(Diagnostic { severity, span, message, hint: None });
        }
        Reported(())
    }
}

fn line_starts(text: &str) -> Vec<usize> {
    std::iter::once(0).chain(text.match_indices('\n').map(|(newline, _)| newline + 1)).collect()
}

/// The beginnings of the text and of its fragments, and each line that begins with `[`.
fn section_starts(text: &ConfigText) -> Vec<usize> {
    let fragments: BTreeSet<usize> = text.fragments.iter().map(|fragment| fragment.start).collect();
    let is_header = |start: usize| text.text[start..].trim_start_matches([' ', '\t']).starts_with('[');
    let mut starts = line_starts(&text.text);
    starts.retain(|start| *start == 0 || fragments.contains(start) || is_header(*start));
    starts
}
