//! Entries of the keyed tables that only the daemon writes: a line is chosen by a hash, its entries are compared one by one.

use lb_common::maps::{Line, WORDS_PER_LINE};

use super::mapped::{AccessError, Mapped};

/// Why an entry could not be put.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum LineError {
    #[error("line {line} has no room")]
    Full { line: u32 },
    #[error(transparent)]
    Access(#[from] AccessError),
}

/// Puts `word` into the line of `hash`, in place of the entry that is the `same` or into an empty place. One store.
pub(crate) fn put(table: &Mapped<Line>, hash: u32, word: u64, same: impl Fn(u64) -> bool) -> Result<(), LineError> {
    let line = line_of(table, hash);
    let place = match find(table, line, same)? {
        None => find(table, line, |word| word == 0)?.ok_or(LineError::Full { line })?,
        Some(place) => place,
    };
    if table.word(line, place)? != word {
        table.store_word(line, place, word)?;
    }
    Ok(())
}

/// Empties the place of the entry that is the `same`; fine if there is none.
pub(crate) fn take(table: &Mapped<Line>, hash: u32, same: impl Fn(u64) -> bool) -> Result<(), AccessError> {
    let line = line_of(table, hash);
    match find(table, line, same)? {
        Some(place) => table.store_word(line, place, 0),
        None => Ok(()),
    }
}

/// Every entry of the table.
pub(crate) fn entries(table: &Mapped<Line>) -> impl Iterator<Item = u64> + '_ {
    (0..table.len()).filter_map(|line| table.record(line).ok()).flatten().filter(|&word| word != 0)
}

fn find(table: &Mapped<Line>, line: u32, same: impl Fn(u64) -> bool) -> Result<Option<usize>, AccessError> {
    for place in 0..WORDS_PER_LINE {
        if same(table.word(line, place)?) {
            return Ok(Some(place));
        }
    }
    Ok(None)
}

/// The number of lines is a power of two.
fn line_of(table: &Mapped<Line>, hash: u32) -> u32 {
    hash & (table.len() - 1)
}
