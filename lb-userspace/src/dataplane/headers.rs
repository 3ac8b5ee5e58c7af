//! Which header records are free. A record is not used again before it has rested: a packet may still be reading it. Pure.

use std::collections::{BTreeSet, VecDeque};

use lb_common::words::Tick;

/// Ticks are whole seconds, so that two of them are more than one second.
const REST_TICKS: u32 = 2;

/// The free records of `HEADERS`, longest rested first.
#[derive(Debug)]
pub(crate) struct FreeHeaders {
    free: VecDeque<(u32, Option<Tick>)>,
}

impl FreeHeaders {
    /// Of `len` records, of which 0 is never used, those that are not `named`. Records that `were_used` may still be read.
    pub(crate) fn new(len: u32, named: &BTreeSet<u32>, were_used: &BTreeSet<u32>, now: Tick) -> Self {
        let free = (1..len).filter(|index| !named.contains(index));
        let (rested, resting): (Vec<u32>, Vec<u32>) = free.partition(|index| !were_used.contains(index));
        let rested = rested.into_iter().map(|index| (index, None));
        Self { free: rested.chain(resting.into_iter().map(|index| (index, Some(now)))).collect() }
    }

    /// Takes a record that no packet reads; none if all free ones still rest.
    pub(crate) fn take(&mut self, now: Tick) -> Option<u32> {
        let &(index, freed) = self.free.front()?;
        let has_rested = freed.is_none_or(|freed| now.wrapping_sub(freed) >= REST_TICKS);
        if has_rested {
            self.free.pop_front();
        }
        has_rested.then_some(index)
    }

    /// Gives a record back that no member names since `now`; 0 is no record.
    pub(crate) fn give(&mut self, index: u32, now: Tick) {
        if index != 0 {
            self.free.push_back((index, Some(now)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_freed_record_rests_for_more_than_a_second() {
        let mut free = FreeHeaders::new(2, &BTreeSet::new(), &BTreeSet::new(), 0);
        assert_eq!(free.take(u32::MAX), Some(1));
        free.give(1, u32::MAX);
        assert_eq!((free.take(u32::MAX), free.take(0)), (None, None));
        assert_eq!(free.take(1), Some(1));
    }

    #[test]
    fn after_adoption_unused_records_are_taken_first_and_named_ones_never() {
        let mut free = FreeHeaders::new(5, &BTreeSet::from([1]), &BTreeSet::from([1, 2]), 10);
        assert_eq!([free.take(10), free.take(10), free.take(10), free.take(12)], [Some(3), Some(4), None, Some(2)]);
        assert_eq!(free.take(100), None);
    }
}
