//! How one slot changes: DESIGN "The packet's way", point 4. Called by whoever writes slots, with the word as it was read.
//!
//! ```text
//!            other member            idle timeout since its timer        last packet sent elsewhere is
//!            or none                 and since an insert found no room   older than the idle timeout
//!  CLEAN ──────────────→ LEARNING ──────────────────────→ SETTLED ──────────────────────→ CLEAN
//!    ↑                    │  ↑  └─ back to the default: ────→ │
//!    └ first member       └──┘ other: only current            └─ other member or none → LEARNING
//! ```
//!
//! A slot whose current member is none stays learning until it has one: its flows still go to the default, and a settled or clean word
//! could not say so.

use lb_common::words::{MemberId, SlotState, SlotWord, Tick};

/// What becomes of a slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SlotChange {
    /// The word to store.
    pub word: SlotWord,
    /// What becomes of its learning timer.
    pub timer: LearningTimer,
}

/// The time from which a learning slot's idle timeout is counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LearningTimer {
    /// It is counted from the change.
    Restart,
    /// It is as it was.
    Keep,
}

/// The slot once `current` has it. `now` is the stamp of a word that changes; a word that already says so is returned as it is.
///
/// A slot that nobody had becomes clean: no older flow can be in it.
pub fn change(word: SlotWord, current: Option<MemberId>, now: Tick) -> SlotChange {
    if word.current() == current {
        return SlotChange { word, timer: LearningTimer::Keep };
    }
    let (default, timer) = match word.state() {
        SlotState::Clean | SlotState::Settled => (word.current(), LearningTimer::Restart),
        SlotState::Learning { default } => (Some(default), LearningTimer::Keep),
    };
    let timer = if default.is_none() { LearningTimer::Keep } else { timer };
    SlotChange { word: SlotWord::new(current, default, now), timer }
}

/// The slot once time has done its work, if it changes.
///
/// `learning_since` is its learning timer; `last_no_room` when a flow of its service last found no room in the cache; `idle_s` the
/// service's idle timeout. Ticks count whole seconds, so that a full timeout has passed only when their difference exceeds it.
pub fn ripen(word: SlotWord, learning_since: Tick, last_no_room: Option<Tick>, idle_s: u32, now: Tick) -> Option<SlotWord> {
    let is_past = |tick: Tick| has_passed(tick, idle_s, now);
    match word.state() {
        SlotState::Clean => None,
        SlotState::Learning { .. } => {
            let current = word.current()?;
            (is_past(learning_since) && last_no_room.is_none_or(is_past)).then(|| SlotWord::new(Some(current), Some(current), now))
        }
        SlotState::Settled => is_past(word.stamp()).then(|| SlotWord::new(word.current(), None, now)),
    }
}

/// Whether more than `duration_s` lie between `since` and `now`. The kernel may be a tick ahead of the caller: that is no time at all.
fn has_passed(since: Tick, duration_s: u32, now: Tick) -> bool {
    let elapsed = now.wrapping_sub(since);
    elapsed <= Tick::MAX / 2 && elapsed > duration_s
}

#[cfg(test)]
mod tests;
