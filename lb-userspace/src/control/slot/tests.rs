use LearningTimer::{Keep, Restart};
use proptest::prelude::*;

use super::*;

const NONE: u16 = 0;
const A: u16 = 1;
const B: u16 = 2;
const C: u16 = 3;
const THEN: Tick = 500;
const NOW: Tick = 1000;
const IDLE_S: u32 = 300;

fn word(current: u16, default: u16, stamp: Tick) -> SlotWord {
    SlotWord::new(MemberId::new(current), MemberId::new(default), stamp)
}

/// (current, default) before, new current, (current, default) after, timer.
type Change = ((u16, u16), u16, (u16, u16), LearningTimer);

const CHANGES: &[Change] = &[
    // Nobody has had it: clean with the new one.
    ((NONE, NONE), A, (A, NONE), Keep),
    // Clean.
    ((A, NONE), B, (B, A), Restart),
    ((A, NONE), NONE, (NONE, A), Restart),
    // Settled.
    ((A, A), B, (B, A), Restart),
    ((A, A), NONE, (NONE, A), Restart),
    // Learning: only current is replaced.
    ((B, A), C, (C, A), Keep),
    ((B, A), NONE, (NONE, A), Keep),
    ((NONE, A), B, (B, A), Keep),
    // Learning, back to the default: settled.
    ((B, A), A, (A, A), Keep),
    ((NONE, A), A, (A, A), Keep),
];

#[test]
fn a_slot_changes_as_the_table_says() {
    for &((current, default), new, after, timer) in CHANGES {
        let expected = SlotChange { word: word(after.0, after.1, NOW), timer };
        assert_eq!(change(word(current, default, THEN), MemberId::new(new), NOW), expected, "{current}/{default} to {new}");
    }
}

#[test]
fn every_other_change_is_none_at_all() {
    for current in [NONE, A, B] {
        for default in [NONE, A, B] {
            for new in [NONE, A, B, C] {
                let is_listed = CHANGES.iter().any(|&(before, to, ..)| before == (current, default) && to == new);
                let before = word(current, default, THEN);
                let after = change(before, MemberId::new(new), NOW);
                if new == current {
                    assert!(!is_listed);
                    assert_eq!(after, SlotChange { word: before, timer: Keep });
                } else {
                    assert_eq!(after.word.current(), MemberId::new(new));
                    let first_known = if default == NONE { current } else { default };
                    assert_eq!(after.word.default(), MemberId::new(first_known), "{current}/{default} to {new}");
                }
            }
        }
    }
}

#[test]
fn a_learning_slot_settles_one_full_timeout_after_its_timer_and_the_last_insert_without_room() {
    let learning = word(B, A, THEN);
    let full = NOW - IDLE_S - 1;
    for (since, no_room, is_settled) in [
        (full, None, true),
        (full + 1, None, false),
        (full, Some(full), true),
        (full, Some(full + 1), false),
        (full + 1, Some(full), false),
        (full, Some(NOW + 1), false),
        (NOW + 1, None, false),
    ] {
        let expected = is_settled.then(|| word(B, B, NOW));
        assert_eq!(ripen(learning, since, no_room, IDLE_S, NOW), expected, "{since} {no_room:?}");
    }
}

#[test]
fn a_settled_slot_is_cleaned_once_nothing_was_sent_elsewhere_for_a_timeout() {
    for (stamp, is_cleaned) in [(NOW - IDLE_S - 1, true), (NOW - IDLE_S, false), (NOW, false), (NOW + 2, false)] {
        let expected = is_cleaned.then(|| word(A, NONE, NOW));
        assert_eq!(ripen(word(A, A, stamp), 0, Some(NOW), IDLE_S, NOW), expected, "{stamp}");
    }
}

#[test]
fn clean_slots_and_slots_without_a_current_member_do_not_ripen() {
    for slot in [word(A, NONE, 0), word(NONE, NONE, 0), word(NONE, A, 0)] {
        assert_eq!(ripen(slot, 0, None, IDLE_S, NOW), None);
    }
}

#[test]
fn ticks_may_wrap() {
    assert_eq!(ripen(word(A, A, Tick::MAX - 10), 0, None, IDLE_S, 200), None);
    assert_eq!(ripen(word(A, A, Tick::MAX - 10), 0, None, IDLE_S, 290), Some(word(A, NONE, 290)));
}

proptest! {
    /// The model: who may own a flow that the cache does not know.
    #[test]
    fn an_unknown_flow_belongs_to_who_had_the_slot_when_learning_began(changes in prop::collection::vec((0_u16..5, 0_u32..400), 1..40)) {
        let (mut slot, mut now, mut since) = (word(A, NONE, 0), 0, 0);
        let mut owner_of_unknown = A;
        for (new, wait_s) in changes {
            now += wait_s;
            if let Some(ripe) = ripen(slot, since, None, IDLE_S, now) {
                prop_assert_eq!(ripe.current(), slot.current());
                slot = ripe;
                owner_of_unknown = slot.current().map_or(NONE, MemberId::number);
            }
            let changed = change(slot, MemberId::new(new), now);
            if changed.timer == Restart {
                since = now;
            }
            slot = changed.word;
            prop_assert_eq!(slot.current(), MemberId::new(new));
            let unknown = slot.default().or(slot.current()).map_or(NONE, MemberId::number);
            prop_assert_eq!(unknown, owner_of_unknown);
        }
    }
}
