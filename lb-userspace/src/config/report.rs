//! The list to which every reader of this folder adds what it finds, so that all errors of a file are told at once.

use super::diagnostic::{Diagnostic, Severity, Span};

/// Findings kept of one file; a file with more is told so once.
const MOST_FINDINGS: usize = 1000;

/// Witness that an error was reported: what a reader returns in place of the value that it could not read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reported(());

/// Everything found so far.
#[derive(Debug)]
pub(super) struct Report {
    findings: Vec<Diagnostic>,
    has_errors: bool,
    /// Parts of the text of which the tree cannot be believed.
    unreadable: Vec<Span>,
}

impl Report {
    /// Begins with what the TOML parser said of `text`. A `[section]` that has a syntax error is not judged further: its keys may belong elsewhere.
    pub(super) fn new(text: &str, syntax_errors: &[toml::de::Error]) -> Self {
        let mut report = Self { findings: Vec::new(), has_errors: false, unreadable: Vec::new() };
        let mut last_line = None;
        let mut errors: Vec<_> = syntax_errors.iter().map(|error| (error.span().unwrap_or(0..0), error.message())).collect();
        errors.sort_by_key(|(span, _)| span.start);
        for (span, message) in errors {
            let start = text.floor_char_boundary(span.start);
            let line = text[..start].matches('\n').count();
            if last_line != Some(line) {
                report.error(span, message.to_owned());
            }
            last_line = Some(line);
            report.unreadable.push(section_at(text, start));
        }
        report
    }

    /// Whether the tree is all of the text, so that what is missing in it is missing.
    pub(super) fn text_is_whole(&self) -> bool {
        self.unreadable.is_empty()
    }

    pub(super) fn has_errors(&self) -> bool {
        self.has_errors
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
        self.has_errors |= severity == Severity::Error;
        let is_believable = !self.unreadable.iter().any(|section| section.contains(&span.start));
        if is_believable && self.findings.len() < MOST_FINDINGS {
            self.findings.push(Diagnostic { severity, span, message, hint });
        } else if is_believable && self.findings.len() == MOST_FINDINGS {
            let message = format!("there are more than {MOST_FINDINGS} findings; the rest is not shown");
            self.findings.push(Diagnostic { severity, span, message, hint: None });
        }
        Reported(())
    }
}

/// From the last line before `offset` that begins with `[` to the next.
fn section_at(text: &str, offset: usize) -> Span {
    let line_start = text[..offset].rfind('\n').map_or(0, |newline| newline + 1);
    let is_header = |line: &str| line.trim_start().starts_with('[');
    let mut start = 0;
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        if is_header(line) {
            if at > line_start {
                return start..at;
            }
            start = at;
        }
        at += line.len();
    }
    start..text.len() + 1
}
