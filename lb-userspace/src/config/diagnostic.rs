//! What there is to say about a configuration file: a message, where, and a cure if one is known. Renders it for people and for programs.

use std::{fmt, ops::Range};

use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};
use serde::Serialize;

/// Byte offsets into the text of a configuration.
pub type Span = Range<usize>;

/// A configuration's text and the name by which messages call it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConfigText {
    /// Usually the path as the operator gave it.
    pub file: String,
    /// All of it.
    pub text: String,
}

/// How much a diagnostic matters.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Debug)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The file is refused.
    Error,
    /// Accepted, and hardly what was meant.
    Warning,
    /// Accepted, and there is a better way.
    Advice,
}

/// One finding.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Diagnostic {
    /// How much it matters.
    pub severity: Severity,
    /// What it is about.
    pub span: Span,
    /// Lower case, no full stop.
    pub message: String,
    /// How to cure it, where that is known.
    pub hint: Option<String>,
}

/// A place in a text, as editors count.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Position {
    /// From 1.
    pub line: usize,
    /// Characters from 1.
    pub column: usize,
}

/// A finding and where it is: what `-o json` prints. The fields are those of [`Diagnostic`] and [`Position`].
#[derive(Clone, PartialEq, Eq, Serialize, Debug)]
pub struct LocatedDiagnostic {
    /// How much it matters.
    pub severity: Severity,
    /// The name of the text.
    pub file: String,
    /// From 1.
    pub line: usize,
    /// Characters from 1.
    pub column: usize,
    /// Lower case, no full stop.
    pub message: String,
    /// How to cure it, where that is known.
    pub hint: Option<String>,
}

impl ConfigText {
    /// A text to be called `file` in messages.
    pub fn new(file: impl Into<String>, text: impl Into<String>) -> Self {
        Self { file: file.into(), text: text.into() }
    }

    /// Where a byte offset is; one past the end, or within a character, counts as the nearest place before.
    #[must_use]
    pub fn position(&self, offset: usize) -> Position {
        let before = &self.text[..self.text.floor_char_boundary(offset)];
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Position { line: before.matches('\n').count() + 1, column: before[line_start..].chars().count() + 1 }
    }

    /// The line that an offset is in, and the offset of its first byte.
    fn line_at(&self, offset: usize) -> (usize, &str) {
        let offset = self.text.floor_char_boundary(offset);
        let start = self.text[..offset].rfind('\n').map_or(0, |newline| newline + 1);
        let end = self.text[offset..].find('\n').map_or(self.text.len(), |length| offset + length);
        (start, &self.text[start..end])
    }
}

impl Diagnostic {
    /// The message over its line of the text with a caret below, the hint last; several lines without a final newline.
    #[must_use]
    pub fn render(&self, text: &ConfigText) -> String {
        let position = text.position(self.span.start);
        let (line_start, line) = text.line_at(self.span.start);
        let line = line.trim_end_matches('\r');
        let start = self.span.start.saturating_sub(line_start).min(line.len());
        let end = self.span.end.saturating_sub(line_start).clamp(start, line.len());
        let snippet = Snippet::source(line)
            .path(text.file.as_str())
            .line_start(position.line)
            .annotation(AnnotationKind::Primary.span(line.floor_char_boundary(start)..line.ceil_char_boundary(end)));
        let mut group = self.severity.level().primary_title(self.message.as_str()).element(snippet);
        if let Some(hint) = &self.hint {
            group = group.element(Level::HELP.with_name("hint").message(hint.as_str()));
        }
        Renderer::plain().render(&[group])
    }

    /// `file:line:column: error: message`, for a log.
    #[must_use]
    pub fn render_line(&self, text: &ConfigText) -> String {
        let Position { line, column } = text.position(self.span.start);
        format!("{}:{line}:{column}: {}: {}", text.file, self.severity, self.message)
    }

    /// With its place in `text`.
    #[must_use]
    pub fn located(&self, text: &ConfigText) -> LocatedDiagnostic {
        let Position { line, column } = text.position(self.span.start);
        LocatedDiagnostic {
            severity: self.severity,
            file: text.file.clone(),
            line,
            column,
            message: self.message.clone(),
            hint: self.hint.clone(),
        }
    }
}

impl Severity {
    const fn word(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Advice => "advice",
        }
    }

    fn level(self) -> Level<'static> {
        match self {
            Self::Error => Level::ERROR,
            Self::Warning => Level::WARNING,
            Self::Advice => Level::NOTE.with_name("advice"),
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}
