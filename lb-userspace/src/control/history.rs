//! The configurations that were in force: the last ten, and which of them is. Pure.

use std::time::{Duration, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::config::{ConfigText, Fragment};

/// How many are kept.
pub const MOST: usize = 10;

/// An edit and the command that guards it belong together if they are so close, in milliseconds.
const FRESH_MS: u64 = 60_000;

/// A configuration that was in force.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Entry {
    /// Counts from 1, never again.
    pub generation: u64,
    /// Milliseconds of the Unix epoch at which it was first applied.
    pub at_ms: u64,
    /// The generation that was in force before; 0: none.
    #[serde(default)]
    pub after: u64,
    /// Who or what had it applied.
    pub by: String,
    /// What messages call it.
    pub file: String,
    /// The text.
    pub text: String,
    /// Where the fragments of a directory begin in it; none if it was one file's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fragments: Vec<Fragment>,
}

impl Entry {
    /// The text as it was read.
    pub fn config_text(&self) -> ConfigText {
        ConfigText::with_fragments(self.file.clone(), self.text.clone(), self.fragments.clone())
    }
}

/// The configurations that were in force, and the one that is.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct History {
    /// The oldest first.
    pub entries: Vec<Entry>,
    /// The generation in force; 0: none of them.
    pub in_force: u64,
    /// What the daemon's own file said when the one in force was applied. As long as it says the same, a start goes on with the one in force.
    pub own_text: String,
    /// Milliseconds of the Unix epoch until which the one in force has to be confirmed.
    pub confirm_until_ms: Option<u64>,
    /// The generation that follows otherwise.
    pub otherwise: u64,
}

/// Why there is no way back.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum HistoryError {
    /// The oldest one is in force.
    #[error("no earlier configuration is known\nhint: weir history lists them")]
    NoEarlier,
    /// It is not kept.
    #[error(
        "configuration {to} is not kept, only {kept}\nhint: weir history says when each was in force; weir rollback takes one of these numbers"
    )]
    Unknown {
        /// Its number.
        to: u64,
        /// The numbers of those that are, the oldest first, in words.
        kept: String,
    },
    /// Nothing waits for a confirmation.
    #[error("no configuration waits to be confirmed")]
    NothingToConfirm,
}

impl History {
    /// A text is in force: the entry that has it already, if that is the one in force, or a new one. Gives its generation. Another text ends the wait for a
    /// confirmation of the one before.
    pub fn apply(&mut self, applied: &ConfigText, by: &str, at_ms: u64) -> u64 {
        let ConfigText { file, text, fragments, exposed: _ } = applied;
        let latest = self.entries.last().map_or(0, |entry| entry.generation);
        match self.current() {
            Some(entry) if entry.text == *text => {}
            Some(_) | None => {
                let (file, text, fragments) = (file.clone(), text.clone(), fragments.clone());
                let after = self.in_force;
                let entry = Entry { generation: latest + 1, at_ms, after, by: by.to_owned(), file, text, fragments };
                self.entries.push(entry);
                self.confirm_until_ms = None;
                self.in_force = latest + 1;
                let excess = self.entries.len().saturating_sub(MOST);
                self.entries.drain(..excess);
            }
        }
        self.in_force
    }

    /// All but the texts.
    #[must_use]
    pub fn without_texts(&self) -> Self {
        let bare = |entry: &Entry| Entry {
            generation: entry.generation,
            at_ms: entry.at_ms,
            after: entry.after,
            by: entry.by.clone(),
            file: entry.file.clone(),
            text: String::new(),
            fragments: entry.fragments.clone(),
        };
        Self {
            entries: self.entries.iter().map(bare).collect(),
            in_force: self.in_force,
            own_text: String::new(),
            confirm_until_ms: self.confirm_until_ms,
            otherwise: self.otherwise,
        }
    }

    /// The one in force.
    pub fn current(&self) -> Option<&Entry> {
        self.get(self.in_force)
    }

    fn get(&self, generation: u64) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.generation == generation)
    }

    /// The one to go back to: of this generation, or the one that was in force before; if that is not kept, the last one before.
    ///
    /// # Errors
    /// [`HistoryError`] if it is not kept.
    pub fn earlier(&self, to: Option<u64>) -> Result<&Entry, HistoryError> {
        match to {
            Some(to) => self.get(to).ok_or_else(|| HistoryError::Unknown { to, kept: self.kept() }),
            None => {
                let before = self.current().and_then(|current| self.get(current.after));
                let last = || self.entries.iter().rfind(|entry| entry.generation < self.in_force);
                before.or_else(last).ok_or(HistoryError::NoEarlier)
            }
        }
    }

    fn kept(&self) -> String {
        let words = |entry: &Entry| {
            let in_force = if entry.generation == self.in_force { " (in force)" } else { "" };
            format!("{}{in_force}", entry.generation)
        };
        self.entries.iter().map(words).collect::<Vec<_>>().join(", ")
    }

    /// The one of this generation is in force again.
    pub fn go_back(&mut self, generation: u64) {
        self.in_force = generation;
        self.confirm_until_ms = None;
    }

    /// The generation that follows if nobody confirms the one in force: what followed already if that waited, else the one `before` this was applied, or,
    /// where the daemon had taken the text from its file a moment ago, the one that this followed.
    pub fn otherwise(&self, before: u64, waited: Option<u64>, now_ms: u64) -> Option<u64> {
        let is_fresh = |entry: &&Entry| now_ms.saturating_sub(entry.at_ms) < FRESH_MS;
        let earlier = self.current().filter(is_fresh).map(|entry| entry.after);
        waited.or((before != self.in_force).then_some(before)).or(earlier).filter(|generation| self.get(*generation).is_some())
    }

    /// The one in force has to be confirmed until then, or else `otherwise` follows. Without another one nothing is awaited.
    pub fn await_confirmation(&mut self, until_ms: u64, otherwise: u64) {
        if self.get(otherwise).is_some() && otherwise != self.in_force {
            (self.confirm_until_ms, self.otherwise) = (Some(until_ms), otherwise);
        }
    }

    /// The one in force is confirmed.
    ///
    /// # Errors
    /// [`HistoryError::NothingToConfirm`].
    pub fn confirm(&mut self) -> Result<(), HistoryError> {
        self.confirm_until_ms.take().map(drop).ok_or(HistoryError::NothingToConfirm)
    }

    /// The generation that follows unless the one in force is confirmed; none if nothing waits.
    pub fn awaited(&self) -> Option<u64> {
        self.confirm_until_ms.map(|_| self.otherwise)
    }

    /// The generation that follows because nobody confirmed the one in force by `now_ms`.
    pub fn unconfirmed(&self, now_ms: u64) -> Option<u64> {
        self.confirm_until_ms.filter(|until| *until <= now_ms).map(|_| self.otherwise)
    }

    /// What is in force instead of the file, and what waits to be confirmed, in words.
    pub fn notes(&self) -> Vec<String> {
        let Some(entry) = self.current() else { return Vec::new() };
        let is_other = entry.text != self.own_text;
        let other = is_other.then(|| {
            format!("configuration {} ({}, by {}) is in force, not the file's: weir diff", entry.generation, entry.file, entry.by)
        });
        let waits = self.confirm_until_ms.map(|until_ms| {
            let until = humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_millis(until_ms));
            let Entry { generation, .. } = entry;
            format!("configuration {generation} gives way to {} at {until} unless it is confirmed: weir confirm", self.otherwise)
        });
        other.into_iter().chain(waits).collect()
    }

    /// The text that a start goes on with instead of that of its file: the file has not changed since another one was applied.
    pub fn instead_of(&self, own_text: &str) -> Option<&Entry> {
        self.current().filter(|entry| self.own_text == own_text && entry.text != own_text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(history: &History) -> Vec<&str> {
        history.entries.iter().map(|entry| entry.text.as_str()).collect()
    }

    fn apply(history: &mut History, text: &str, by: &str, at_ms: u64) -> u64 {
        history.apply(&ConfigText::new("f", text), by, at_ms)
    }

    #[test]
    fn who_is_not_confirmed_leads_back_to_the_last_that_was() {
        let text = |text: &str| ConfigText::new("f", text);
        let mut history = History::default();
        for (number, content) in (1..).zip(["a", "b"]) {
            assert_eq!(history.apply(&text(content), "test", 0), number);
        }
        let now = FRESH_MS * 2;
        let ask = |history: &mut History, content: &str, now: u64| {
            let (before, waited) = (history.in_force, history.confirm_until_ms.map(|_| history.otherwise));
            history.apply(&text(content), "test", now);
            let otherwise = history.otherwise(before, waited, now);
            otherwise.into_iter().for_each(|otherwise| history.await_confirmation(now + 1, otherwise));
            otherwise
        };
        assert_eq!(ask(&mut history, "b", now), None, "it was in force for long");
        assert_eq!(ask(&mut history, "c", now), Some(2));
        assert_eq!(ask(&mut history, "d", now), Some(2), "c was never confirmed");
        assert_eq!((ask(&mut history, "d", now), history.confirm_until_ms), (Some(2), Some(now + 1)));
        history.apply(&text("d"), "file", now);
        assert!(history.confirm_until_ms.is_some(), "the same text confirms nothing");
        history.confirm().unwrap();
        // The daemon took an edit of its file just before it was told to guard it.
        history.apply(&text("e"), "file", now);
        assert_eq!(ask(&mut history, "e", now + 300), Some(4));
    }

    #[test]
    fn the_last_ten_are_kept() {
        let mut history = History::default();
        for number in 0..12 {
            assert_eq!(apply(&mut history, &number.to_string(), "file", number), number + 1);
        }
        assert_eq!(texts(&history), (2..12).map(|number| number.to_string()).collect::<Vec<_>>());
        assert_eq!(apply(&mut history, "11", "file", 99), 12);
        assert!(
            matches!(history.earlier(Some(2)), Err(HistoryError::Unknown { to: 2, kept }) if kept.starts_with("3, 4") && kept.contains("(in force)"))
        );
    }

    #[test]
    fn one_may_go_back_and_forth() {
        let mut history = History::default();
        ["a", "b", "c"].iter().for_each(|text| assert!(apply(&mut history, text, "file", 0) > 0));
        assert_eq!(history.earlier(None).unwrap().text, "b");
        history.go_back(2);
        assert_eq!(history.earlier(None).unwrap().text, "a");
        assert_eq!(history.earlier(Some(3)).unwrap().text, "c");
        history.go_back(1);
        assert_eq!(history.earlier(None), Err(HistoryError::NoEarlier));
        // What comes next is a new one, and the way back leads to what was in force, not to what was left already.
        assert_eq!(apply(&mut history, "d", "file", 0), 4);
        assert_eq!(history.earlier(None).unwrap().text, "a");
        // Where that is not kept, it leads to the one with the number before.
        for number in 0..MOST - 1 {
            apply(&mut history, &format!("e{number}"), "file", 0);
        }
        history.go_back(4);
        assert_eq!(history.earlier(None), Err(HistoryError::NoEarlier));
    }

    #[test]
    fn the_latest_counts_down_until_it_is_confirmed() {
        let mut history = History::default();
        assert_eq!(history.confirm(), Err(HistoryError::NothingToConfirm));
        apply(&mut history, "a", "file", 0);
        history.await_confirmation(100, 1);
        assert_eq!(history.unconfirmed(1000), None, "there is nothing to go back to");
        apply(&mut history, "b", "root", 0);
        history.await_confirmation(100, 1);
        assert_eq!((history.unconfirmed(99), history.unconfirmed(100)), (None, Some(1)));
        history.confirm().unwrap();
        assert_eq!(history.unconfirmed(100), None);
        history.await_confirmation(100, 1);
        apply(&mut history, "c", "root", 0);
        assert_eq!(history.unconfirmed(100), None, "another one is in force");
    }

    #[test]
    fn the_fragments_of_a_directory_are_kept() {
        let text = ConfigText::joined("d", [("d/a.toml".to_owned(), "a".to_owned()), ("d/b.toml".to_owned(), String::new())]);
        let mut history = History::default();
        history.apply(&text, "file", 0);
        let kept: History = serde_json::from_str(&serde_json::to_string(&history).unwrap()).unwrap();
        assert_eq!(kept.current().unwrap().config_text(), text);
    }

    #[test]
    fn a_start_goes_on_with_what_was_applied_until_its_file_changes() {
        let mut history = History::default();
        assert_eq!(history.instead_of("a"), None);
        apply(&mut history, "a", "file", 0);
        history.own_text = "a".into();
        assert_eq!(history.instead_of("a"), None);
        apply(&mut history, "b", "root", 0);
        assert_eq!(history.instead_of("a").unwrap().text, "b");
        assert_eq!(history.instead_of("a2"), None);
    }
}
