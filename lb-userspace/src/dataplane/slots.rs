//! Slots change by compare-and-swap, since the kernel stamps them meanwhile; and the timers of those that learn, which live in this process only.

use std::collections::BTreeMap;

use lb_common::words::{MemberId, ServiceId, SlotState, SlotWord, Tick};

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
    /// Starts every learning slot's timer: what an earlier process knew of it is lost, so it learns one idle timeout longer than it had to.
    pub(crate) fn restart(tables: &Tables, rules: SlotRules, now: Tick) -> Result<Self, SlotsError> {
        let mut began = BTreeMap::new();
        for (id, _) in tables.services()? {
            let table = tables.slot_table(id)?;
            if unripe(&table)? != Unripe::default() {
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
        for (slot, &member) in current.iter().enumerate() {
            let (old, new) = change(&table, slot as u32, |word| (self.rules.change)(word, member, now))?;
            let began_to_learn = is_learning(new) && !is_learning(old);
            if began_to_learn {
                self.began.entry(id).or_insert_with(|| vec![None; current.len()])[slot] = None;
            }
        }
        Ok(())
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
    for (slot, began) in began.iter_mut().enumerate() {
        let began = *began.get_or_insert(now);
        let rule = |word| (rules.ripen)(word, began, last_no_room, table.service.idle_s, now).unwrap_or(word);
        let (_, new) = change(&table, slot as u32, rule)?;
        unripe.count(new);
    }
    Ok(unripe)
}

fn unripe(table: &SlotTable) -> Result<Unripe, SlotsError> {
    let mut unripe = Unripe::default();
    for slot in 0..table.slots {
        unripe.count(table.word(slot)?);
    }
    Ok(unripe)
}

fn is_learning(word: SlotWord) -> bool {
    matches!(word.state(), SlotState::Learning { .. })
}

/// Changes a slot; what it was and is.
fn change(table: &SlotTable, slot: u32, rule: impl Fn(SlotWord) -> SlotWord) -> Result<(SlotWord, SlotWord), AccessError> {
    let (page, index) = table.locate(slot)?;
    let mut changed = (SlotWord(0), SlotWord(0));
    page.update_word(index, 0, |word| {
        changed = (SlotWord(word), rule(SlotWord(word)));
        Some(changed.1.0)
    })?;
    Ok(changed)
}
