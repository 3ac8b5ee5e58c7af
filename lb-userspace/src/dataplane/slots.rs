//! Slots change by compare-and-swap, since the kernel stamps them meanwhile; and the timers of those that learn, which live in this process only.

use std::collections::BTreeMap;

use lb_common::words::{CleanWord, MemberId, ServiceId, SlotState, SlotWord, Tick};

use super::{
    mapped::AccessError,
    tables::{SlotTable, SlotsError, Tables},
};

/// The rules of a slot's life, which `control` owns.
#[derive(Clone, Copy, Debug)]
pub struct SlotRules {
    /// What a slot becomes when it is given to another member.
    pub change: fn(SlotWord, Option<MemberId>, Tick) -> SlotWord,
    /// What a slot becomes as time passes, if it changes: from the tick at which it began to learn, the last one at which its service found no
    /// room for a flow, the service's idle timeout in seconds, and the time.
    pub ripen: fn(SlotWord, Tick, Option<Tick>, u32, Tick) -> Option<SlotWord>,
}

/// How many slots are not clean.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Unripe {
    /// Slots that learn.
    pub learning: u32,
    /// Slots that are settled.
    pub settled: u32,
}

impl Unripe {
    fn count(&mut self, word: SlotWord) {
        match word.state() {
            SlotState::Clean => {}
            SlotState::Learning { .. } => self.learning += 1,
            SlotState::Settled => self.settled += 1,
        }
    }

    fn add(&mut self, other: Self) {
        self.learning += other.learning;
        self.settled += other.settled;
    }
}

/// Why slots could not be set.
#[derive(Debug, thiserror::Error)]
pub enum SetSlotsError {
    /// The list is not as long as the table.
    #[error("{given} slots were given for the {slots} of service {}", .service.0)]
    Count {
        /// The service.
        service: ServiceId,
        /// Entries given.
        given: usize,
        /// Slots of the service.
        slots: u32,
    },
    /// The table cannot be reached.
    #[error(transparent)]
    Slots(#[from] SlotsError),
    /// A slot is beyond the table.
    #[error(transparent)]
    Access(#[from] AccessError),
}

/// The learning timers of every service with a slot that is not clean: since when each slot learns for certain. None is not known yet: the clock
/// that came with the change was read before the slot was stored, and counting from it would end the timer early. It counts from the next look.
#[derive(Debug)]
pub(crate) struct SlotTimers {
    rules: SlotRules,
    began: BTreeMap<ServiceId, Vec<Option<Tick>>>,
}

impl SlotTimers {
    /// Starts every learning slot's timer: what an earlier process knew of it is lost, so it learns one idle timeout longer than it had to. And
    /// tells what it may not have come to tell of slots that are clean.
    pub(crate) fn restart(tables: &Tables, rules: SlotRules, now: Tick) -> Result<Self, SlotsError> {
        let mut began = BTreeMap::new();
        for (id, _) in tables.services()? {
            let table = tables.slot_table(id)?;
            let mut unripe = Unripe::default();
            change_all(&table, |_, word| word, |_, _, word| unripe.count(word))?;
            if unripe != Unripe::default() {
                began.insert(id, vec![Some(now); table.slots as usize]);
            }
        }
        Ok(Self { rules, began })
    }

    /// Gives each slot of the service its member in `current`.
    pub(crate) fn set(&mut self, tables: &Tables, id: ServiceId, current: &[Option<MemberId>], now: Tick) -> Result<(), SetSlotsError> {
        let table = tables.slot_table(id)?;
        if current.len() != table.slots as usize {
            return Err(SetSlotsError::Count { service: id, given: current.len(), slots: table.slots });
        }
        let (rules, mut timers) = (self.rules, self.began.remove(&id));
        let rule = |slot: u32, word| (rules.change)(word, current[slot as usize], now);
        let changed = change_all(&table, rule, |slot, old, new| {
            if is_learning(new) && !is_learning(old) {
                timers.get_or_insert_with(|| vec![None; current.len()])[slot as usize] = None;
            }
        });
        self.began.extend(timers.map(|timers| (id, timers)));
        Ok(changed?)
    }

    /// Lets every slot that is not clean ripen. `now` is read after the last [`Self::set`].
    pub(crate) fn ripen_all(&mut self, tables: &Tables, now: Tick) -> Result<Unripe, SlotsError> {
        let mut all = Unripe::default();
        let mut clean = Vec::new();
        for (&id, began) in &mut self.began {
            let unripe = ripen(tables, self.rules, id, began, now)?;
            if unripe == Unripe::default() {
                clean.push(id);
            }
            all.add(unripe);
        }
        for id in clean {
            self.began.remove(&id);
        }
        Ok(all)
    }

    /// Forgets the timers of a service that is no more.
    pub(crate) fn forget(&mut self, id: ServiceId) {
        self.began.remove(&id);
    }
}

fn ripen(tables: &Tables, rules: SlotRules, id: ServiceId, began: &mut [Option<Tick>], now: Tick) -> Result<Unripe, SlotsError> {
    let table = tables.slot_table(id)?;
    let no_room_at = tables.touches.word(u32::from(id.0), 0)?;
    let last_no_room = (no_room_at != 0).then_some(no_room_at as Tick);
    let mut unripe = Unripe::default();
    let since: Vec<Tick> = began.iter_mut().map(|began| *began.get_or_insert(now)).collect();
    let rule = |slot: u32, word| (rules.ripen)(word, since[slot as usize], last_no_room, table.service.idle_s, now).unwrap_or(word);
    change_all(&table, rule, |_, _, word| unripe.count(word))?;
    Ok(unripe)
}

fn is_learning(word: SlotWord) -> bool {
    matches!(word.state(), SlotState::Learning { .. })
}

/// Changes every slot of a table by `rule`, and tells `seen` what each was and is. After each four the [`CleanWord`] says what they have become: this
/// process alone writes these words, and whether a slot is clean.
fn change_all(
    table: &SlotTable,
    rule: impl Fn(u32, SlotWord) -> SlotWord,
    mut seen: impl FnMut(u32, SlotWord, SlotWord),
) -> Result<(), AccessError> {
    for first in (0..table.slots).step_by(CleanWord::SLOTS as usize) {
        let (page, index) = table.locate(first)?;
        let mut clean = CleanWord(0);
        for offset in 0..CleanWord::SLOTS {
            let mut changed = (SlotWord(0), SlotWord(0));
            page.update_word(index + offset, 0, |word| {
                changed = (SlotWord(word), rule(first + offset, SlotWord(word)));
                Some(changed.1.0)
            })?;
            clean = clean.with(index + offset, changed.1);
            seen(first + offset, changed.0, changed.1);
        }
        let place = CleanWord::place(index);
        if page.word(place, 0)? != clean.0 {
            page.store_word(place, 0, clean.0)?;
        }
    }
    Ok(())
}
