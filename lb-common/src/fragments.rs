//! Where the later fragments of a datagram go: after its first, which alone carries the ports.
//!
//! | bits 63..40 | 39..32 | 31..30 | 29..10 | 9..0 |
//! |---|---|---|---|---|
//! | tag 24 | generation of the NAT flow | [`Trail`] kind | member or NAT flow | time, s, modulo 1 024 |
//!
//! Two candidate lines a datagram; the oldest of them makes room.

use crate::{
    address::Address,
    hash::{self, Hash},
    maps::WORDS_PER_LINE,
    place,
    tables::{Cell, CellLine, Tables, take_empty},
    words::Tick,
};

/// Seconds for which the fragments of a datagram may trickle in (RFC 8200 s4.5 allows a receiver 60).
pub const LIFETIME_S: u32 = 30;

/// Most records of `NAT_FLOWS` that a trail can name.
pub const MAX_NAT_FLOWS: u32 = 1 << 20;

const TIME_MASK: u32 = 0x3ff;
const TAG_AT: u32 = 40;
const INDEX_MASK: u32 = MAX_NAT_FLOWS - 1;
/// The index of [`Trail::Pass`], so that no word of one is empty.
const PASS_INDEX: u64 = 1;

/// Where a datagram's first fragment went.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Trail {
    /// To the host.
    Pass,
    /// To this member, without translation.
    Member(u16),
    /// To the server of this NAT flow.
    NatRequest(NatUse),
    /// To the client of this NAT flow.
    NatReply(NatUse),
}

/// One use of a record of `NAT_FLOWS`: the next flow that is given its port has another generation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NatUse {
    /// The record, below [`MAX_NAT_FLOWS`].
    pub index: u32,
    /// The low bits of its generation: one comes again after 256 uses of the port, of which 30 seconds do not see so many.
    pub generation: u8,
}

impl NatUse {
    /// The use of a record by the flow of this generation.
    #[inline(always)]
    pub const fn new(index: u32, generation: u32) -> Self {
        Self { index: index & INDEX_MASK, generation: generation as u8 }
    }

    /// Whether it is the use by the flow of this generation.
    #[inline(always)]
    pub const fn is_of(self, generation: u32) -> bool {
        self.generation == generation as u8
    }
}

/// A trail as a number: of the enum, half would be undefined for most variants, which the kernel's verifier refuses to see moved.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TrailBits(u64);

impl Trail {
    /// The trail as a number.
    #[inline(always)]
    pub const fn bits(self) -> TrailBits {
        TrailBits(match self {
            Self::Pass => Self::packed(0, PASS_INDEX, 0),
            Self::Member(number) => Self::packed(1, number as u64, 0),
            Self::NatRequest(flow) => Self::packed(2, flow.index as u64, flow.generation),
            Self::NatReply(flow) => Self::packed(3, flow.index as u64, flow.generation),
        })
    }

    #[inline(always)]
    const fn packed(kind: u64, index: u64, generation: u8) -> u64 {
        (generation as u64) << 32 | kind << 30 | index << 10
    }

    #[inline(always)]
    const fn from_word(word: u64) -> Self {
        let index = (word >> 10) as u32 & INDEX_MASK;
        let flow = NatUse { index, generation: (word >> 32) as u8 };
        match (word >> 30) & 3 {
            0 => Self::Pass,
            1 => Self::Member(index as u16),
            2 => Self::NatRequest(flow),
            _ => Self::NatReply(flow),
        }
    }
}

/// What the fragments of one datagram share (RFC 791 s3.2, RFC 8200 s4.5).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Datagram {
    /// Who sent it.
    pub source: Address,
    /// To whom.
    pub destination: Address,
    /// The identification field, wire bytes.
    pub identification: u32,
    /// The protocol; IPv6 leaves it out of the key (RFC 8200 s4.5), as fragments may differ in it.
    pub protocol: u8,
}

#[inline(always)]
fn hash_of<T: Tables>(tables: &T, datagram: &Datagram) -> Hash {
    let protocol = if datagram.source.is_v4() { datagram.protocol as u64 } else { 0 };
    hash::pair(&datagram.source, &datagram.destination, datagram.identification, tables.table_key() ^ protocol << 32)
}

/// The bits that tell datagrams apart within their lines.
#[inline(always)]
const fn tag_of(hash: Hash) -> u64 {
    (hash.tag >> 8) as u64
}

/// Remembers where the first fragment of a datagram went.
#[inline(always)]
pub fn remember<T: Tables>(tables: &T, datagram: &Datagram, trail: TrailBits, now: Tick) {
    let hash = hash_of(tables, datagram);
    let mask = tables.setting(|s| &s.fragment_mask);
    let word = (tag_of(hash) << TAG_AT) | trail.0 | (now & TIME_MASK) as u64;
    let Some(first) = tables.fragment_line(place::first_line(hash, mask)) else { return };
    let Some(second) = tables.fragment_line(place::second_line(hash, mask)) else { return };
    let _is_remembered =
        take_same(first, word) || take_same(second, word) || take_empty(first, second, word) || take_oldest(first, second, word, now);
}

/// In place of what an earlier first fragment of the same key left.
#[inline(always)]
fn take_same<C: Cell>(line: &CellLine<C>, word: u64) -> bool {
    for cell in line {
        let old = cell.load();
        if old != 0 && old >> TAG_AT == word >> TAG_AT {
            return cell.replace(old, word);
        }
    }
    false
}

/// In place of the oldest of two full lines, of one of them where several are as old: whoever floods us with fragments has to send many of them
/// between two of a datagram to make it lose its way.
#[inline(always)]
fn take_oldest<C: Cell>(first: &CellLine<C>, second: &CellLine<C>, word: u64, now: Tick) -> bool {
    let first_choice = (word >> TAG_AT) as u32;
    let in_first = oldest(first, first_choice, now);
    let in_second = oldest(second, first_choice ^ 1, now);
    let line = if in_first >= in_second { first } else { second };
    let place = in_first.max(in_second) as usize % WORDS_PER_LINE;
    match line.get(place) {
        Some(cell) => cell.replace(cell.load(), word),
        None => false,
    }
}

/// Age and place of a line's oldest entry: age, then how soon one of that age is chosen, then the place, in this order of bits.
#[inline(always)]
fn oldest<C: Cell>(line: &CellLine<C>, first_choice: u32, now: Tick) -> u32 {
    const PLACES: u32 = WORDS_PER_LINE as u32;
    let mut oldest = 0;
    for (place, cell) in line.iter().enumerate() {
        let preference = (place as u32).wrapping_add(first_choice) % PLACES;
        let score = (age(cell.load(), now) * PLACES + preference) * PLACES + place as u32;
        oldest = oldest.max(score);
    }
    oldest
}

#[inline(always)]
const fn age(word: u64, now: Tick) -> u32 {
    now.wrapping_sub(word as u32 & TIME_MASK) & TIME_MASK
}

/// Where the first fragment of a datagram went.
#[inline(always)]
pub fn trail<T: Tables>(tables: &T, datagram: &Datagram) -> Option<Trail> {
    let hash = hash_of(tables, datagram);
    let mask = tables.setting(|s| &s.fragment_mask);
    let now = tables.tick();
    for line in [place::first_line(hash, mask), place::second_line(hash, mask)] {
        for cell in tables.fragment_line(line)? {
            let word = cell.load();
            if word != 0 && word >> TAG_AT == tag_of(hash) && age(word, now) <= LIFETIME_S {
                return Some(Trail::from_word(word));
            }
        }
    }
    None
}
