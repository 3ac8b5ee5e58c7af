//! What there is to say about a configuration file: a message, where, and a cure if one is known. Renders it for people and for programs.

use std::{fmt, ops::Range};

use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};
use serde::{Deserialize, Serialize};

/// Byte offsets into the text of a configuration.
pub type Span = Range<usize>;

/// A configuration's text and the name by which messages call it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConfigText {
    /// Usually the path as the operator gave it.
    pub file: String,
    /// All of it: of a directory, its fragments one behind the other, each with a newline more than it has, so that its end is not the next one's
    /// beginning.
    pub text: String,
    /// Where its fragments begin, in order; none if it is one file.
    pub fragments: Vec<Fragment>,
    /// The files that others than their owner may read, by the names that messages call them; none is known of a text that was sent or kept.
    pub exposed: Box<[String]>,
}

/// A file of a directory that is a configuration.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema, Debug)]
pub struct Fragment {
    /// What messages call it: its path.
    pub file: String,
    /// The offset of its first byte in the whole text, in bytes.
    pub start: usize,
}

impl Fragment {
    /// Whether these are the fragments of such a text: each begins where the one before ends, the first with the text. None are those of one file.
    pub fn are_of(fragments: &[Self], text: &str) -> bool {
        fragments.first().is_none_or(|first| first.start == 0)
            && fragments.iter().all(|fragment| text.is_char_boundary(fragment.start))
            && fragments.is_sorted_by_key(|fragment| fragment.start)
    }
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
        Self { file: file.into(), text: text.into(), fragments: Vec::new(), exposed: Box::default() }
    }

    /// The fragments of the directory `file`, each with its name and text, in the order in which they are joined. What is said of the whole, such as
    /// what is missing in it, is said of the directory: an empty fragment of that name comes first.
    pub fn joined(file: impl Into<String>, fragments: impl IntoIterator<Item = (String, String)>) -> Self {
        let file = file.into();
        let mut joined =
            Self { text: "\n".into(), fragments: vec![Fragment { file: file.clone(), start: 0 }], file, exposed: Box::default() };
        for (file, text) in fragments {
            joined.fragments.push(Fragment { file, start: joined.text.len() });
            joined.text += &text;
            joined.text.push('\n');
        }
        joined
    }

    /// A text with its fragments, as they were kept or sent. Fragments that are not in order within the text are as good as none.
    pub fn with_fragments(file: impl Into<String>, text: impl Into<String>, fragments: Vec<Fragment>) -> Self {
        let (file, text) = (file.into(), text.into());
        let begins = fragments.first().is_none_or(|first| first.start == 0);
        let is_in_order = fragments.windows(2).all(|pair| pair[0].start < pair[1].start);
        let is_within = fragments.iter().all(|fragment| fragment.start < text.len() && text.is_char_boundary(fragment.start));
        let is_sound = begins && is_in_order && is_within;
        Self { file, text, fragments: if is_sound { fragments } else { Vec::new() }, exposed: Box::default() }
    }

    /// Whether others than the owner may read what stands at an offset.
    pub fn is_exposed_at(&self, offset: usize) -> bool {
        self.exposed.iter().any(|file| file == self.file_at(offset))
    }

    /// Each part that is TOML on its own, with the offset of its first byte: the fragments without the newline behind them, or all of the text.
    pub fn parts(&self) -> impl Iterator<Item = (usize, &str)> {
        let starts = self.fragments.iter().map(|fragment| fragment.start);
        let ends = self.fragments.iter().skip(1).map(|next| next.start).chain([self.text.len()]);
        let whole = self.fragments.is_empty().then_some((0, self.text.as_str()));
        // Those that were sent need not end with a newline.
        let part = |(start, end): (usize, usize)| {
            let text = &self.text[start..end];
            (start, text.strip_suffix('\n').unwrap_or(text))
        };
        whole.into_iter().chain(starts.zip(ends).map(part))
    }

    /// The fragment that an offset is in: what messages call it, and the offset of its first byte.
    fn part_at(&self, offset: usize) -> (&str, usize) {
        let before = self.fragments.partition_point(|fragment| fragment.start <= offset);
        self.fragments[..before].last().map_or((self.file.as_str(), 0), |fragment| (fragment.file.as_str(), fragment.start))
    }

    /// What messages call the file that an offset is in.
    #[must_use]
    pub fn file_at(&self, offset: usize) -> &str {
        self.part_at(offset).0
    }

    /// Where a byte offset is in its file; one past the end, or within a character, counts as the nearest place before.
    #[must_use]
    pub fn position(&self, offset: usize) -> Position {
        let before = &self.text[self.part_at(offset).1..self.text.floor_char_boundary(offset)];
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
            .path(text.file_at(self.span.start))
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
        format!("{}:{line}:{column}: {}: {}", text.file_at(self.span.start), self.severity, self.message)
    }

    /// With its place in `text`.
    #[must_use]
    pub fn located(&self, text: &ConfigText) -> LocatedDiagnostic {
        let Position { line, column } = text.position(self.span.start);
        LocatedDiagnostic {
            severity: self.severity,
            file: text.file_at(self.span.start).to_owned(),
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
