//! Removes dead flows from the cache. The time in a flow's word wraps after 16 384 s: one that is never looked up would seem young again.

use std::time::Duration;

use lb_common::{
    maps::WORDS_PER_LINE,
    words::{FlowWord, Tick},
};

use super::{mapped::AccessError, tables::Tables};

/// How often to sweep at least: idle timeouts are 4 h at most, and a quarter of an hour more than that has not wrapped.
pub const SWEEP_INTERVAL: Duration = Duration::from_secs(900);

const _: () = assert!(4 * 3600 + SWEEP_INTERVAL.as_secs() + 256 < FlowWord::TIME_MASK as u64);

/// What a sweep found.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Swept {
    /// Places in use afterwards.
    pub kept: u32,
    /// Places emptied.
    pub emptied: u32,
}

/// Empties the place of every flow that was idle longer than its service's timeout, or whose member is no more. A place that a packet refreshes
/// meanwhile stays.
///
/// # Errors
/// [`AccessError::ReadOnly`] for tables opened so.
pub fn sweep(tables: &Tables, now: Tick) -> Result<Swept, AccessError> {
    let idle_s = tables.idle_by_member()?;
    let mut swept = Swept::default();
    for line in 0..tables.flows.len() {
        for place in 0..WORDS_PER_LINE {
            let word = FlowWord(tables.flows.word(line, place)?);
            if word.0 == 0 {
                continue;
            }
            let timeout_s = word.member().and_then(|member| idle_s.get(&member));
            let is_dead = timeout_s.is_none_or(|&timeout_s| word.idle(now) > timeout_s);
            if is_dead && tables.flows.replace_word(line, place, word.0, 0)?.is_ok() {
                swept.emptied += 1;
            } else {
                swept.kept += 1;
            }
        }
    }
    Ok(swept)
}
