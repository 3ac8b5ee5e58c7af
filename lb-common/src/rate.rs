//! The connection-rate limit of a source: the generic cell rate algorithm (ITU-T I.371 annex A), one word a source.
//!
//! | bits 63..40 | bits 39..0 |
//! |---|---|
//! | tag 24 | theoretical arrival time of the next connection, µs, modulo 2^40 |

use crate::{
    address::Address,
    hash::{self, Hash},
    maps::Service,
    place,
    tables::{Cell, CellLine, Tables},
};

const TIME_BITS: u32 = 40;
const TIME_MASK: u64 = (1 << TIME_BITS) - 1;

/// Whether a source may open a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rated {
    /// It may.
    Within,
    /// It opens them faster than the service's rate.
    Above,
    /// Too many sources are watched to know; it may.
    NoRoom,
}

/// Counts a new connection of `source` (of an IPv6 source its /64) against the rate of `service`.
#[inline(always)]
pub fn connection<T: Tables>(tables: &T, service: &Service, source: &Address) -> Rated {
    let hash = hash_of(service, source, tables.table_key());
    let mask = tables.setting(|s| &s.rate_mask);
    let now = tables.micros() & TIME_MASK;
    let tag = tag_of(hash);
    let Some(first) = tables.rate_line(place::first_line(hash, mask)) else { return Rated::NoRoom };
    let Some(second) = tables.rate_line(place::second_line(hash, mask)) else { return Rated::NoRoom };
    if let Some(rated) = known(first, tag, service, now) {
        return rated;
    }
    if let Some(rated) = known(second, tag, service, now) {
        return rated;
    }
    let word = tag << TIME_BITS | now.wrapping_add(service.rate_interval_us as u64) & TIME_MASK;
    if take_idle(first, word, now) || take_idle(second, word, now) { Rated::Within } else { Rated::NoRoom }
}

/// What is known of a source.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Watched {
    /// The line of its word.
    pub line: u32,
    /// The word's place in the line.
    pub place: usize,
    /// The word.
    pub word: u64,
    /// Microseconds by which it is ahead of the service's rate: a connection is refused while it is more than the tolerance.
    pub ahead_us: u64,
}

/// The word of `source` at `service`, without counting anything; none if it is not watched.
pub fn watched<T: Tables>(tables: &T, service: &Service, source: &Address) -> Option<Watched> {
    let hash = hash_of(service, source, tables.table_key());
    let mask = tables.setting(|s| &s.rate_mask);
    let now = tables.micros() & TIME_MASK;
    [place::first_line(hash, mask), place::second_line(hash, mask)].into_iter().find_map(|line| {
        let mut words = tables.rate_line(line)?.iter().map(Cell::load).enumerate();
        let (place, word) = words.find(|(_, word)| word >> TIME_BITS == tag_of(hash) && *word != 0)?;
        Some(Watched { line, place, word, ahead_us: ahead(word, now, service) })
    })
}

/// Whether a word still says something `now_us`, in microseconds of the packet path's clock.
pub const fn is_watching(word: u64, now_us: u64) -> bool {
    !is_idle(word, now_us & TIME_MASK)
}

#[inline(always)]
fn hash_of(service: &Service, source: &Address, key: u64) -> Hash {
    let words = source.words();
    let who = if source.is_v4() { *source } else { Address::from_words([words[0], words[1], 0, 0]) };
    hash::endpoint(&who, service.id as u32, key)
}

#[inline(always)]
const fn tag_of(hash: Hash) -> u64 {
    (hash.tag & 0xff_ffff) as u64
}

/// Microseconds by which the source is ahead of its rate: none when its word lies so far ahead that it must be left over from an earlier turn
/// of the 12-day clock.
#[inline(always)]
fn ahead(word: u64, now: u64, service: &Service) -> u64 {
    let ahead = (word & TIME_MASK).wrapping_sub(now) & TIME_MASK;
    let most = service.rate_tolerance_us as u64 + service.rate_interval_us as u64;
    if ahead > most { 0 } else { ahead }
}

#[inline(always)]
fn known<C: Cell>(line: &CellLine<C>, tag: u64, service: &Service, now: u64) -> Option<Rated> {
    for cell in line {
        let word = cell.load();
        if word >> TIME_BITS == tag && word != 0 {
            let ahead = ahead(word, now, service);
            if ahead > service.rate_tolerance_us as u64 {
                return Some(Rated::Above);
            }
            let next = now.wrapping_add(ahead).wrapping_add(service.rate_interval_us as u64) & TIME_MASK;
            cell.replace(word, tag << TIME_BITS | next);
            return Some(Rated::Within);
        }
    }
    None
}

/// A word whose time has come says no more than an empty one. Words of other services may have a longer tolerance; a time more than
/// 2^39 µs ahead is past.
#[inline(always)]
const fn is_idle(word: u64, now: u64) -> bool {
    let until = (word & TIME_MASK).wrapping_sub(now) & TIME_MASK;
    word == 0 || until == 0 || until > TIME_MASK / 2
}

#[inline(always)]
fn take_idle<C: Cell>(line: &CellLine<C>, word: u64, now: u64) -> bool {
    for cell in line {
        let old = cell.load();
        if is_idle(old, now) && cell.replace(old, word) {
            return true;
        }
    }
    false
}
