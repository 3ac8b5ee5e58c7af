//! Which numbers NAT planes have. A header names consecutive planes, one for each SNAT address, and a plane in use cannot move.
//!
//! So a list that grows is extended in place where there is room. Where there is none, its new planes go where all of it would fit, the
//! member uses those alone, and the older ones follow once their flows have ended and they were freed.

use std::collections::{BTreeMap, BTreeSet};

use lb_common::address::Address;

use super::{
    header::PlaneRun,
    installed::Installed,
    op::{Op, PlaneSpec},
    ports,
};

type Key = (Address, Address, u16, u8);

/// The numbers that planes have.
pub(super) struct PlaneNumbers {
    capacity: u16,
    by_key: BTreeMap<Key, u16>,
    by_index: BTreeMap<u16, Key>,
    /// No lower number is free.
    lowest_free: u16,
    /// No new list of so many planes has room.
    least_without_room: usize,
}

impl PlaneNumbers {
    pub(super) fn of(installed: &Installed) -> Self {
        let by_index: BTreeMap<u16, Key> = installed.planes.iter().map(|(&index, plane)| (index, plane.key())).collect();
        let by_key = by_index.iter().map(|(&index, &key)| (key, index)).collect();
        Self { capacity: installed.capacity.planes, by_key, by_index, lowest_free: 1, least_without_room: usize::MAX }
    }

    /// The operations that make those of these planes that have a number, and all others in the maps, what they should be.
    pub(super) fn writes(&self, installed: &Installed, wanted: &BTreeSet<&PlaneSpec>) -> Vec<Op> {
        let numbered = wanted.iter().filter(|plane| self.by_key.contains_key(&plane.key())).map(|plane| **plane);
        let assigned = ports::assigned(installed, numbered).into_iter().map(|plane| (self.by_key[&plane.key()], plane));
        let changed = assigned.filter(|(index, plane)| installed.planes.get(index) != Some(plane));
        changed.map(|(index, plane)| Op::WritePlane { index, plane }).collect()
    }

    /// Numbers those of `list` that have none; whether any has one. Where the whole does not fit but a part of it is there, that part serves
    /// alone.
    pub(super) fn place(&mut self, list: &[PlaneSpec]) -> bool {
        let missing: Vec<Key> = list.iter().map(PlaneSpec::key).filter(|key| !self.by_key.contains_key(key)).collect();
        if missing.is_empty() {
            return true;
        }
        let is_new = missing.len() == list.len();
        if is_new && list.len() >= self.least_without_room {
            return false;
        }
        let Some((first, last)) = self.window(list) else {
            if is_new {
                self.least_without_room = list.len();
            }
            return !is_new;
        };
        let own: BTreeSet<Key> = list.iter().map(PlaneSpec::key).collect();
        for key in missing {
            let is_own = |index: u16| self.by_index.get(&index).is_some_and(|key| own.contains(key));
            let free = |index: &u16| !self.by_index.contains_key(index);
            let beside = (first..=last).filter(free).find(|&index| is_own(index - 1) || is_own(index.saturating_add(1)));
            let index = beside.or_else(|| (first..=last).find(free)).expect("what of the window is not its own is free");
            self.by_key.insert(key, index);
            self.by_index.insert(index, key);
        }
        while self.by_index.contains_key(&self.lowest_free) {
            self.lowest_free += 1;
        }
        true
    }

    /// The first and last number of where all of `list` fits: free, or its own; of several, where most of it is already.
    fn window(&self, list: &[PlaneSpec]) -> Option<(u16, u16)> {
        let length = u16::try_from(list.len()).ok().filter(|length| *length > 0 && *length <= self.capacity)?;
        let own: BTreeSet<Key> = list.iter().map(PlaneSpec::key).collect();
        let is_any_placed = own.iter().any(|key| self.by_key.contains_key(key));
        let start = if is_any_placed { 1 } else { self.lowest_free };
        let windows = (start..=self.capacity - length + 1).map(|first| (first, first + length - 1));
        let mut fitting = windows.filter_map(|(first, last)| {
            let taken = self.by_index.range(first..=last);
            let is_own = taken.clone().all(|(_, key)| own.contains(key));
            is_own.then(|| (taken.count(), (first, last)))
        });
        if !is_any_placed {
            return fitting.next().map(|(_, window)| window);
        }
        // The first of equals.
        fitting.reduce(|best, other| if other.0 > best.0 { other } else { best }).map(|(_, window)| window)
    }

    /// The consecutive planes that a member wanting `list` uses: all of them but where some have to move first. None without any.
    pub(super) fn run(&self, list: &[PlaneSpec]) -> Option<PlaneRun> {
        let own: BTreeMap<u16, &PlaneSpec> = list.iter().filter_map(|plane| Some((*self.by_key.get(&plane.key())?, plane))).collect();
        let (first, last) = (*own.first_key_value()?.0, *own.last_key_value()?.0);
        let is_whole = usize::from(last - first) + 1 == list.len();
        let window = if is_whole { None } else { self.window(list).filter(|&(first, last)| own.range(first..=last).next().is_some()) };
        let window = window.unwrap_or((first, last));
        let mut best: Option<PlaneRun> = None;
        let mut open: Option<PlaneRun> = None;
        for (&index, plane) in own.range(window.0..=window.1) {
            let run = match open {
                Some(run) if run.first + run.count == index => PlaneRun { count: run.count + 1, ..run },
                Some(_) | None => PlaneRun { first: index, count: 1, snat: plane.snat },
            };
            open = Some(run);
            if best.is_none_or(|best| run.count > best.count) {
                best = Some(run);
            }
        }
        best
    }
}

#[cfg(test)]
mod tests;
