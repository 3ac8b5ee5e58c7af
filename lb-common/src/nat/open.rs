//! Opening a NAT flow: a port is claimed, its record written, the port word published, and the directory told.

use super::{ClientKey, INDEX_MASK, PortState, PortWord, is_reusable, port_cell, rest_s, spare, tag_of};
use crate::{
    address::Address,
    decide::find_vip,
    hash::Hash,
    maps::{CHUNK_PENDING, NatFlow, NatPlane, Service},
    place,
    reason::{Drop, Note},
    tables::{Cell, CellLine, Step, Tables, take_empty},
    words::{ServiceId, Tick},
};

/// Lines of eight port words that are searched for a port before a plane is given another chunk.
const LINES_BEFORE_GROWTH: u32 = 4;

/// Lines that are searched when the plane can grow no more: enough for 64 000 flows on 64 512 ports.
const LINES_WHEN_FULL: u32 = 128;

/// Lines that are searched for the port that can be done without best when none is free: it goes before its time.
const LINES_WHEN_CUT: u32 = 16;

/// Positions, or looks at the last one, before a plane's growth is given up because other CPUs are at it.
const TRIES_TO_GROW: u32 = 16;

/// Lines of port words to a chunk.
const LINES_PER_CHUNK: u32 = crate::maps::PORTS_PER_CHUNK / 8;

/// What a new flow is made of, but for its port.
pub struct Opening {
    /// Its place in the directory.
    pub hash: Hash,
    /// The flow with port, plane and generation still to be filled.
    pub flow: NatFlow,
}

/// A claimed port.
struct Claim {
    index: u32,
    position: u8,
    generation: u32,
    /// Whether the port's record may be of an older flow that the directory still names.
    was_used: bool,
}

/// Opens a flow and returns its record's index.
///
/// # Errors
/// [`Drop::MartianSource`] for a source that cannot be answered, or is one of our own addresses (RFC 1812 s5.3.7), [`Drop::NatPortsFull`] when every port of the plane is in use, [`Drop::NatTableFull`] when the directory has no room,
/// [`Drop::Inconsistent`] while the plane is being made.
#[inline(always)]
pub fn open<T: Tables>(tables: &T, service: &Service, opening: &mut Opening, plane_index: u16) -> Result<u32, Drop> {
    if is_martian(tables, &opening.flow.client) {
        return Err(Drop::MartianSource);
    }
    let plane = tables.nat_plane(plane_index).ok_or(Drop::Inconsistent)?;
    let now = tables.tick();
    let claim = claim(tables, service, &plane, plane_index, opening.hash, now).ok_or(Drop::NatPortsFull)?;
    if claim.was_used {
        forget(tables, claim.index);
    }
    let port = (claim.position as u16) << 8 | (claim.index & 0xff) as u16;
    let flow = &mut opening.flow;
    flow.plane = plane_index;
    flow.snat_port = port.to_be();
    flow.generation = claim.generation;
    tables.set_nat_flow(claim.index, flow);
    let cell = port_cell(tables, claim.index).ok_or(Drop::Inconsistent)?;
    cell.store(PortWord::new(PortState::Opening, claim.generation, now).0);
    if enter(tables, opening.hash, claim.index, now) {
        tables.note(ServiceId(service.id), Note::NatOpened);
        tables.trace(Step::NatOpened { index: claim.index, snat_port: flow.snat_port });
        return Ok(claim.index);
    }
    cell.store(PortWord::new(PortState::Free, claim.generation, now).0);
    Err(Drop::NatTableFull)
}

/// Whether answers to it would reach nobody, or come back here: the next one of a server that answers whatever it gets would follow.
#[inline(always)]
fn is_martian<T: Tables>(tables: &T, source: &Address) -> bool {
    !source.can_be_answered() || find_vip(tables, source).is_some()
}

/// Claims a port of the plane: first where the flow's hash points, then in a chunk more, then anywhere.
#[inline(always)]
fn claim<T: Tables>(tables: &T, service: &Service, plane: &NatPlane, plane_index: u16, hash: Hash, now: Tick) -> Option<Claim> {
    let used = tables.nat_chunks_used(plane_index)?;
    let chunks = used.load() as u32 & 0x1ff;
    let start = hash.tag ^ now.wrapping_mul(0x9e37_79b9);
    let terms = Terms::new(service.protocol, service.idle_s);
    let near = tables.claim_port(plane_index, start, Span { chunks, lines: LINES_BEFORE_GROWTH }, terms, now);
    if let Some(claim) = near.claim() {
        return Some(claim);
    }
    let all = plane.low_chunks as u32 + plane.high_chunks as u32;
    let grown = if chunks < all { grow(tables, plane, plane_index, chunks, all) } else { 0 };
    if grown != 0 {
        used.replace(chunks as u64, grown as u64);
    }
    // A hash of all ones points at the last line, which is in the newest chunk.
    let (start, chunks) = if grown != 0 { (u32::MAX, grown) } else { (start.rotate_left(11), chunks) };
    let free = tables.claim_port(plane_index, start, Span { chunks, lines: LINES_WHEN_FULL }, terms, now).claim();
    if free.is_some() {
        return free;
    }
    let rested = tables.claim_rested(plane_index, start, chunks, terms, now).claim()?;
    tables.note(ServiceId(service.id), Note::NatRestCut);
    Some(rested)
}

/// How far ports are searched for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Span {
    /// Among the plane's first chunks, so many.
    pub chunks: u32,
    /// So many lines at most.
    pub lines: u32,
}

/// What decides whether a port may be taken, as a number: the protocol, and the service's idle timeout in seconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Terms(pub u32);

impl Terms {
    #[inline(always)]
    const fn new(protocol: u8, idle_s: u32) -> Self {
        Self((protocol as u32) << 24 | idle_s & 0xff_ffff)
    }

    #[inline(always)]
    const fn protocol(self) -> u8 {
        (self.0 >> 24) as u8
    }

    #[inline(always)]
    const fn idle_s(self) -> u32 {
        self.0 & 0xff_ffff
    }
}

/// A claimed port or none, as a number: so that the kernel program can have the search verified once, as a function of numbers.
///
/// | bits 63 | 62 | 55..32 | 31..8 | 7..0 |
/// |---|---|---|---|---|
/// | claimed | used before | generation | record | position |
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Claimed(pub u64);

impl Claimed {
    const NONE: Self = Self(0);

    #[inline(always)]
    const fn new(index: u32, position: u8, generation: u32, was_used: bool) -> Self {
        Self(1 << 63 | (was_used as u64) << 62 | (generation as u64) << 32 | (index as u64) << 8 | position as u64)
    }

    #[inline(always)]
    const fn claim(self) -> Option<Claim> {
        if self.0 == 0 {
            return None;
        }
        let generation = (self.0 >> 32) as u32 & PortWord::GENERATION_MASK;
        Some(Claim { index: (self.0 >> 8) as u32 & 0xff_ffff, position: self.0 as u8, generation, was_used: self.0 >> 62 & 1 != 0 })
    }
}

/// Claims a port of a plane in one of some lines, which `start` points at.
///
/// The lines lie far apart: those of the plane's first chunks are all full while the newest are empty, so that a search of neighbours would
/// find none at half the load.
#[inline(always)]
pub fn claim_port<T: Tables>(tables: &T, plane_index: u16, start: u32, span: Span, terms: Terms, now: Tick) -> Claimed {
    let total = span.chunks * LINES_PER_CHUNK;
    let Some(plane) = tables.nat_plane(plane_index) else { return Claimed::NONE };
    if total == 0 {
        return Claimed::NONE;
    }
    let mut line = share_of(start, total);
    let mut stride = stride_of(start.wrapping_mul(0x9e37_79b9), total);
    for turn in 0..LINES_WHEN_FULL {
        if turn >= span.lines {
            break;
        }
        // A stride near a simple fraction of the total goes in a small circle.
        if turn == LINES_WHEN_FULL / 2 {
            stride = stride_of(start.wrapping_mul(0x85eb_ca6b), total);
        }
        let claimed = search_line(tables, &plane, plane_index, line, terms, now);
        if claimed != Claimed::NONE {
            return claimed;
        }
        line = if line + stride < total { line + stride } else { line + stride - total };
    }
    Claimed::NONE
}

/// The share of `total` that `hash` is of 2^32.
#[inline(always)]
const fn share_of(hash: u32, total: u32) -> u32 {
    ((hash as u64 * total as u64) >> 32) as u32
}

/// An odd number below `total`, which is even.
#[inline(always)]
const fn stride_of(hash: u32, total: u32) -> u32 {
    share_of(hash, total) | 1
}

/// The position of the plane's chunk number `ordinal`: the low range first.
#[inline(always)]
fn position(plane: &NatPlane, ordinal: u32) -> u8 {
    let low = plane.low_chunks as u32;
    if ordinal < low { (plane.low_first as u32 + ordinal) as u8 } else { (plane.high_first as u32 + ordinal - low) as u8 }
}

/// The line of `NAT_PORTS` that is a plane's line number `line`; [`NOWHERE`] if its chunk is missing.
#[inline(always)]
fn place_of<T: Tables>(tables: &T, plane_index: u16, position: u8, line: u32) -> u32 {
    let Some(chunk) = tables.nat_chunk(plane_index, position) else { return NOWHERE };
    let chunk = chunk.load();
    if chunk == 0 || chunk >= CHUNK_PENDING {
        return NOWHERE;
    }
    ((chunk - 1) as u32 * LINES_PER_CHUNK + line % LINES_PER_CHUNK) & 0x1f_ffff
}

const NOWHERE: u32 = u32::MAX;

#[inline(always)]
fn search_line<T: Tables>(tables: &T, plane: &NatPlane, plane_index: u16, line: u32, terms: Terms, now: Tick) -> Claimed {
    let position = position(plane, line / LINES_PER_CHUNK);
    let first = place_of(tables, plane_index, position, line);
    if first == NOWHERE {
        return Claimed::NONE;
    }
    let found = tables.claim_in_line(first, terms, now);
    if found == 0 {
        return Claimed::NONE;
    }
    Claimed::new(first << 3 | (found >> 24) as u32 & 7, position, found as u32 & PortWord::GENERATION_MASK, found & WAS_USED != 0)
}

/// In what [`claim_in_line`] returns: the port was not free but reusable.
const WAS_USED: u64 = 1 << 33;

/// Claims a port in a line of port words: bit 32 set, [`WAS_USED`], its place, and its generation in the low 24 bits; 0 for none.
#[inline(always)]
pub fn claim_in_line<T: Tables>(tables: &T, line: u32, terms: Terms, now: Tick) -> u64 {
    let Some(cells) = tables.nat_port_line(line) else { return 0 };
    for (place, cell) in cells.iter().enumerate() {
        let word = PortWord(cell.load());
        if !is_reusable(word, terms.protocol(), terms.idle_s(), now) {
            continue;
        }
        let generation = word.generation().wrapping_add(1) & PortWord::GENERATION_MASK;
        if cell.replace(word.0, PortWord::new(PortState::Claimed, generation, now).0) {
            let was_used = if word.state() == PortState::Free { 0 } else { WAS_USED };
            return 1 << 32 | was_used | (place as u64) << 24 | generation as u64;
        }
    }
    0
}

/// Claims the port that can be done without best in some lines of a plane that has none free: see [`spare`]. What the server still keeps of an ended
/// connection then decides whether it takes the new one (RFC 6191).
#[inline(always)]
pub fn claim_rested<T: Tables>(tables: &T, plane_index: u16, start: u32, chunks: u32, terms: Terms, now: Tick) -> Claimed {
    let total = chunks * LINES_PER_CHUNK;
    let Some(plane) = tables.nat_plane(plane_index) else { return Claimed::NONE };
    if total == 0 {
        return Claimed::NONE;
    }
    let stride = stride_of(start.wrapping_mul(0x9e37_79b9), total);
    let mut line = share_of(start, total);
    let (mut best, mut best_line, mut best_position) = (0, 0, 0);
    for _ in 0..LINES_WHEN_CUT {
        let position = position(&plane, line / LINES_PER_CHUNK);
        let first = place_of(tables, plane_index, position, line);
        let rested = if first == NOWHERE { 0 } else { tables.rested_in_line(first, terms, now) };
        if rested > best {
            (best, best_line, best_position) = (rested, first, position);
        }
        line = if line + stride < total { line + stride } else { line + stride - total };
    }
    let place = best as u32 & 7;
    let index = best_line << 3 | place;
    if best == 0 {
        return Claimed::NONE;
    }
    let Some(cell) = port_cell(tables, index) else { return Claimed::NONE };
    let word = PortWord(cell.load());
    let generation = word.generation().wrapping_add(1) & PortWord::GENERATION_MASK;
    let is_spare = spare(word, terms.protocol(), terms.idle_s(), now) != 0;
    if is_spare && cell.replace(word.0, PortWord::new(PortState::Claimed, generation, now).0) {
        return Claimed::new(index, best_position, generation, true);
    }
    Claimed::NONE
}

/// The port of a line that can be done without best: how well, as [`spare`] has it, above bit 8, and its place; 0 for none.
#[inline(always)]
pub fn rested_in_line<T: Tables>(tables: &T, line: u32, terms: Terms, now: Tick) -> u64 {
    let Some(cells) = tables.nat_port_line(line) else { return 0 };
    let mut best = 0;
    for (place, cell) in cells.iter().enumerate() {
        let rested = spare(PortWord(cell.load()), terms.protocol(), terms.idle_s(), now) as u64;
        if rested > best >> 8 {
            best = rested << 8 | place as u64;
        }
    }
    best
}

/// Fetches a free chunk for a position of the plane, from the `ordinal`th of `all` on, and returns how many there are with it; 0 if there is none to have.
///
/// The place is marked first, so that one CPU alone fetches. Where another has just fetched its chunk serves both; where another still
/// fetches the next position is taken, since nobody here can wait for long.
#[inline(always)]
fn grow<T: Tables>(tables: &T, plane: &NatPlane, plane_index: u16, ordinal: u32, all: u32) -> u32 {
    let mut ordinal = ordinal;
    for _ in 0..TRIES_TO_GROW {
        let Some(cell) = tables.nat_chunk(plane_index, position(plane, ordinal)) else { return 0 };
        if cell.replace(0, CHUNK_PENDING) {
            let chunk = free_chunk(tables);
            cell.store(chunk.map_or(0, |chunk| chunk + 1));
            return if chunk.is_some() { ordinal + 1 } else { 0 };
        }
        let chunk = cell.load();
        if chunk != 0 && chunk < CHUNK_PENDING {
            return ordinal + 1;
        }
        if ordinal + 1 < all {
            ordinal += 1;
        }
    }
    0
}

/// Takes a chunk off the ring: userspace alone adds at the tail, any CPU takes at the head.
#[inline(always)]
fn free_chunk<T: Tables>(tables: &T) -> Option<u64> {
    let mask = tables.setting(|s| &s.free_mask);
    for _ in 0..4 {
        let head = tables.nat_free(0)?.load();
        if head == tables.nat_free(1)?.load() {
            return None;
        }
        let chunk = tables.nat_free(2 + (head as u32 & mask))?.load();
        if tables.nat_free(0)?.replace(head, head + 1) {
            return Some(chunk);
        }
    }
    None
}

/// Takes the record's previous flow out of the directory.
#[inline(always)]
fn forget<T: Tables>(tables: &T, index: u32) {
    let Some(old) = tables.nat_flow(index) else { return };
    if old.service == 0 {
        return;
    }
    let Some(service) = tables.service(ServiceId(old.service)) else { return };
    let key = ClientKey { client: old.client, client_port: old.client_port, vip_port: old.vip_port };
    let hash = super::client_hash(tables, &service, &key);
    let mask = tables.setting(|s| &s.nat_mask);
    let word = tag_of(hash) << 24 | index as u64;
    for line in [place::first_line(hash, mask), place::second_line(hash, mask)] {
        let Some(line) = tables.nat_line(line) else { return };
        for cell in line {
            if cell.load() == word {
                cell.replace(word, 0);
                return;
            }
        }
    }
}

/// Puts a flow into the directory: in place of an older flow of the same tag, in an empty place, or in that of a flow that has ended.
#[inline(always)]
fn enter<T: Tables>(tables: &T, hash: Hash, index: u32, now: Tick) -> bool {
    let mask = tables.setting(|s| &s.nat_mask);
    let Some(first) = tables.nat_line(place::first_line(hash, mask)) else { return false };
    let Some(second) = tables.nat_line(place::second_line(hash, mask)) else { return false };
    let word = tag_of(hash) << 24 | index as u64;
    take_same(first, word)
        || take_same(second, word)
        || take_empty(first, second, word)
        || take_over(tables, first, word, now)
        || take_over(tables, second, word, now)
}

#[inline(always)]
fn take_same<C: Cell>(line: &CellLine<C>, word: u64) -> bool {
    for cell in line {
        let old = cell.load();
        if old != 0 && old >> 24 == word >> 24 {
            return cell.replace(old, word);
        }
    }
    false
}

#[inline(always)]
fn take_over<T: Tables>(tables: &T, line: &CellLine<T::Cell>, word: u64, now: Tick) -> bool {
    for cell in line {
        let old = cell.load();
        if is_over(tables, (old & INDEX_MASK) as u32, now) && cell.replace(old, word) {
            return true;
        }
    }
    false
}

/// Whether the flow of a record has ended, so far as can be told, and needs no place in the directory.
#[inline(always)]
fn is_over<T: Tables>(tables: &T, index: u32, now: Tick) -> bool {
    let Some(port) = port_cell(tables, index) else { return true };
    let word = PortWord(port.load());
    match word.state() {
        // In full lines those who have sent their last FIN or a reset can do without.
        PortState::Free | PortState::Closed | PortState::Reset => true,
        PortState::Resting => word.idle(now) > rest_s(PortState::Resting, crate::packet::protocol::TCP, 0),
        PortState::Claimed
        | PortState::Opening
        | PortState::Answered
        | PortState::Established
        | PortState::ClientClosing
        | PortState::ServerClosing => false,
    }
}
