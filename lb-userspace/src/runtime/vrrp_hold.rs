//! Which virtual routers are on hold, for the daemon's record: as the operator says until the speaker has heard it, then as that tells. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use crate::speaker::order::RouterView;

/// What the operator says of virtual routers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Word {
    /// They hand over, and leave other nodes alone.
    Yield,
    /// They preempt again.
    Ready,
}

/// The speaker tells each second how its routers are, and is taken to hang when it has not for so long.
const HEARD_WITHIN: Duration = Duration::from_secs(3);

/// Words that the speaker may not have heard yet: what it tells until it has is of the time before.
#[derive(Debug, Default)]
pub(super) struct Unheard(BTreeMap<String, Spoken>);

#[derive(Debug)]
struct Spoken {
    word: Word,
    /// How often the router had become active.
    became_active: u64,
    until: Instant,
}

impl Unheard {
    /// The speaker is about to be told of these routers; `views` is what it told of them last.
    pub(super) fn say(&mut self, word: Word, names: &[String], views: &[RouterView], now: Instant) {
        for name in names {
            let became_active = views.iter().find(|view| view.router == *name).map_or(0, |view| view.became_active);
            self.0.insert(name.clone(), Spoken { word, became_active, until: now + HEARD_WITHIN });
        }
    }

    /// Has `holds` follow what the speaker tells.
    pub(super) fn follow(&mut self, views: &[RouterView], holds: &mut BTreeSet<String>, now: Instant) {
        for view in views {
            if self.is_awaited(view, now) {
                continue;
            }
            self.0.remove(&view.router);
            if view.is_on_hold {
                holds.insert(view.router.clone());
            } else {
                holds.remove(&view.router);
            }
        }
    }

    fn is_awaited(&self, view: &RouterView, now: Instant) -> bool {
        let Some(spoken) = self.0.get(&view.router) else { return false };
        let is_heard = match spoken.word {
            // Where nobody took over, it is active once more, and not on hold.
            Word::Yield => view.is_on_hold || view.became_active > spoken.became_active,
            Word::Ready => !view.is_on_hold,
        };
        !is_heard && now < spoken.until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(state: &str, is_on_hold: bool, became_active: u64) -> RouterView {
        RouterView { router: "www".into(), state: state.into(), is_on_hold, became_active, ..RouterView::default() }
    }

    #[allow(clippy::disallowed_methods, reason = "an instant can be had from the clock alone; all others are counted from it")]
    fn epoch() -> Instant {
        Instant::now()
    }

    /// Whether the record has it on hold after each view, one a second, of a router of which `word` was said.
    fn followed(word: Word, views: &[RouterView]) -> Vec<bool> {
        let (mut unheard, now) = (Unheard::default(), epoch());
        let mut holds: BTreeSet<String> = (word == Word::Yield).then(|| "www".to_owned()).into_iter().collect();
        unheard.say(word, &["www".to_owned()], &[view("active", word == Word::Ready, 1)], now);
        let after = |(second, view): (u64, &RouterView)| {
            unheard.follow(std::slice::from_ref(view), &mut holds, now + Duration::from_secs(second));
            holds.contains("www")
        };
        (0..).zip(views).map(after).collect()
    }

    #[test]
    fn what_was_told_before_the_speaker_heard_it_counts_for_nothing() {
        let (before, heard, over) = (view("active", false, 1), view("yielding", true, 1), view("backup", false, 1));
        assert_eq!(followed(Word::Yield, &[before, heard, over]), [true, true, false]);
        let (before, heard, again) = (view("backup", true, 1), view("backup", false, 1), view("backup", true, 1));
        assert_eq!(followed(Word::Ready, &[before, heard, again]), [false, false, true]);
    }

    #[test]
    fn a_yield_that_nobody_followed_is_not_left_over() {
        assert_eq!(followed(Word::Yield, &[view("active", false, 2)]), [false]);
    }

    #[test]
    fn a_word_that_the_speaker_never_heard_is_forgotten() {
        let before = || view("active", false, 1);
        assert_eq!(followed(Word::Yield, &[before(), before(), before(), before()]), [true, true, true, false]);
    }
}
