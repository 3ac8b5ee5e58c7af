//! Where the later fragments of a datagram go: after its first, which alone carries the ports.
//!
//! | bits 63..36 | 35..34 | 33..10 | 9..0 |
//! |---|---|---|---|
//! | tag 28 | [`Trail`] kind | member or NAT flow | time, s, modulo 1 024 |

use crate::{
    address::Address,
    hash::{self, Hash},
    place,
    tables::{Cell, CellLine, Tables},
    words::Tick,
};

/// Seconds for which the fragments of a datagram may trickle in (RFC 8200 s4.5 allows a receiver 60).
pub const LIFETIME_S: u32 = 30;

const TIME_MASK: u32 = 0x3ff;

/// Where a datagram's first fragment went.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Trail {
    /// To this member, without translation.
    Member(u16),
    /// To the server of this NAT flow.
    NatRequest(u32),
    /// To the client of this NAT flow.
    NatReply(u32),
}

impl Trail {
    #[inline(always)]
    const fn kind(self) -> u64 {
        match self {
            Self::Member(_) => 1,
            Self::NatRequest(_) => 2,
            Self::NatReply(_) => 3,
        }
    }

    #[inline(always)]
    const fn index(self) -> u64 {
        match self {
            Self::Member(index) => index as u64,
            Self::NatRequest(index) | Self::NatReply(index) => (index & 0xff_ffff) as u64,
        }
    }

    #[inline(always)]
    const fn from_word(word: u64) -> Option<Self> {
        let index = (word >> 10) as u32 & 0xff_ffff;
        match (word >> 34) & 3 {
            1 => Some(Self::Member(index as u16)),
            2 => Some(Self::NatRequest(index)),
            3 => Some(Self::NatReply(index)),
            _ => None,
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

/// Remembers where the first fragment of a datagram went. Without room the later ones are dropped.
#[inline(always)]
pub fn remember<T: Tables>(tables: &T, datagram: &Datagram, trail: Trail, now: Tick) {
    let hash = hash_of(tables, datagram);
    let mask = tables.setting(|s| &s.fragment_mask);
    let word = ((hash.tag >> 4) as u64) << 36 | trail.kind() << 34 | trail.index() << 10 | (now & TIME_MASK) as u64;
    let Some(line) = tables.fragment_line(place::first_line(hash, mask)) else { return };
    take(line, word, now);
}

#[inline(always)]
fn take<C: Cell>(line: &CellLine<C>, word: u64, now: Tick) {
    for cell in line {
        let old = cell.load();
        let is_free = old == 0 || old >> 36 == word >> 36 || age(old, now) > LIFETIME_S;
        if is_free && cell.replace(old, word) {
            return;
        }
    }
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
    let line = tables.fragment_line(place::first_line(hash, mask))?;
    let now = tables.tick();
    for cell in line {
        let word = cell.load();
        if word != 0 && word >> 36 == (hash.tag >> 4) as u64 && age(word, now) <= LIFETIME_S {
            return Trail::from_word(word);
        }
    }
    None
}
