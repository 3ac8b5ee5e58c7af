//! The flow cache: which member a flow was given to, for flows whose slot has changed.
//!
//! Two candidate lines of eight words a flow. An entry is replaced only when it has been idle longer than its state allows: a policy that
//! evicts live entries would lose all of them to a flood of spoofed packets.

use crate::{
    hash::Hash,
    maps::WORDS_PER_LINE,
    packet::tcp,
    place,
    reason::Note,
    tables::{Cell, CellLine, Tables},
    words::{FlowState, FlowWord, MemberId, MemberWord, ServiceId, Tick},
};

/// Seconds after which an entry that shows only a SYN may be replaced.
pub const SYN_IDLE_S: u32 = 3;
/// Seconds after which an entry whose packets all came within one second may be replaced.
pub const ACKNOWLEDGED_IDLE_S: u32 = 6;
/// Seconds after which an entry that saw a FIN or RST may be replaced.
pub const CLOSED_IDLE_S: u32 = 60;

/// What a look-up came to: an entry's place and what it said, or neither.
///
/// Not an `Option` of both: its second half would be undefined in a miss, and the compiler then moves registers that the verifier knows to be
/// unset.
pub struct LookUp<'t, C> {
    cell: Option<&'t C>,
    /// What the entry said; 0 in a miss.
    pub word: FlowWord,
}

impl<C: Cell> LookUp<'_, C> {
    /// Whether there is an entry.
    #[inline(always)]
    pub const fn is_hit(&self) -> bool {
        self.cell.is_some()
    }

    #[inline(always)]
    fn replace(&self, word: FlowWord) {
        if let Some(cell) = self.cell {
            cell.replace(self.word.0, word.0);
        }
    }

    /// Records a packet of the flow: its time, and what its TCP flags (0 for UDP) say of the flow.
    #[inline(always)]
    pub fn refresh(&self, member: MemberId, tcp_flags: u8, now: Tick) {
        let state = next_state(self.word, tcp_flags, now);
        let word = FlowWord::new(self.word.tag(), member, state, now);
        if word != self.word {
            self.replace(word);
        }
    }

    /// Gives the entry, if there is one, to a new flow of the same addresses and ports.
    #[inline(always)]
    pub fn restart(&self, member: MemberId, state: FlowState, now: Tick) {
        self.replace(FlowWord::new(self.word.tag(), member, state, now));
    }
}

#[inline(always)]
fn next_state(word: FlowWord, tcp_flags: u8, now: Tick) -> FlowState {
    if tcp_flags & (tcp::FIN | tcp::RST) != 0 {
        return FlowState::Closed;
    }
    match word.state() {
        FlowState::Syn if tcp_flags & tcp::SYN != 0 => FlowState::Syn,
        FlowState::Syn => FlowState::Acknowledged,
        FlowState::Acknowledged if word.time() != now & FlowWord::TIME_MASK => FlowState::Proven,
        state @ (FlowState::Acknowledged | FlowState::Proven | FlowState::Closed) => state,
    }
}

/// Looks a flow up in both of its lines.
#[inline(always)]
pub fn find<T: Tables>(tables: &T, hash: Hash) -> LookUp<'_, T::Cell> {
    let mask = tables.setting(|s| &s.flow_mask);
    let mut found = LookUp { cell: None, word: FlowWord(0) };
    for line in [place::first_line(hash, mask), place::second_line(hash, mask)] {
        let Some(line) = tables.flow_line(line) else { break };
        for cell in line {
            let word = FlowWord(cell.load());
            if word.tag() == hash.tag && word.member().is_some() {
                found = LookUp { cell: Some(cell), word };
                break;
            }
        }
        if found.is_hit() {
            break;
        }
    }
    found
}

/// A flow table without room where this flow belongs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NoRoom;

/// Remembers a flow.
///
/// # Errors
/// [`NoRoom`] when all sixteen places hold flows that may not be replaced yet. The service's `TOUCHES` word then tells when.
#[inline(always)]
pub fn insert<T: Tables>(tables: &T, service: ServiceId, hash: Hash, member: MemberId, state: FlowState, now: Tick) -> Result<(), NoRoom> {
    let mask = tables.setting(|s| &s.flow_mask);
    let word = FlowWord::new(hash.tag, member, state, now);
    let first = tables.flow_line(place::first_line(hash, mask)).ok_or(NoRoom)?;
    let second = tables.flow_line(place::second_line(hash, mask)).ok_or(NoRoom)?;
    if take_empty(first, word) || take_empty(second, word) || take_idle(tables, first, word, now) || take_idle(tables, second, word, now) {
        return Ok(());
    }
    if let Some(touch) = tables.touch(service) {
        touch.store(now as u64);
    }
    Err(NoRoom)
}

#[inline(always)]
fn take_empty<C: Cell>(line: &CellLine<C>, word: FlowWord) -> bool {
    for cell in line {
        if cell.load() == 0 && cell.replace(0, word.0) {
            return true;
        }
    }
    false
}

#[inline(always)]
fn take_idle<T: Tables>(tables: &T, line: &CellLine<T::Cell>, word: FlowWord, now: Tick) -> bool {
    for cell in line.iter().take(WORDS_PER_LINE) {
        let old = FlowWord(cell.load());
        if is_replaceable(tables, old, now) && cell.replace(old.0, word.0) {
            if old.state() == FlowState::Acknowledged {
                displace(tables, old, now);
            }
            return true;
        }
    }
    false
}

/// A flow has lost its place that may only pause. While its slot learns its next packet is remembered again, so that must last: the service's
/// `TOUCHES` word tells since when.
#[inline(always)]
fn displace<T: Tables>(tables: &T, word: FlowWord, now: Tick) {
    if word.idle(now) > proven_idle_s(tables, word) {
        return;
    }
    let service = service_of(tables, word);
    tables.note(service, Note::FlowDisplaced);
    if let Some(touch) = tables.touch(service) {
        touch.store(now as u64);
    }
}

/// Whether an entry has been idle longer than its state allows.
#[inline(always)]
pub fn is_replaceable<T: Tables>(tables: &T, word: FlowWord, now: Tick) -> bool {
    let idle = word.idle(now);
    match word.state() {
        FlowState::Syn => idle > SYN_IDLE_S,
        FlowState::Acknowledged => idle > ACKNOWLEDGED_IDLE_S,
        FlowState::Closed => idle > CLOSED_IDLE_S,
        FlowState::Proven => idle > proven_idle_s(tables, word),
    }
}

/// The service that the entry's member belongs to, if it does.
#[inline(always)]
fn service_of<T: Tables>(tables: &T, word: FlowWord) -> ServiceId {
    match word.member().and_then(|id| tables.member(id)) {
        Some(member) => MemberWord(member.load()).service(),
        None => ServiceId::NONE,
    }
}

/// The idle timeout of that service; 0 when there is none.
#[inline(always)]
fn proven_idle_s<T: Tables>(tables: &T, word: FlowWord) -> u32 {
    let service = service_of(tables, word);
    if service == ServiceId::NONE {
        return 0;
    }
    tables.service(service).map_or(0, |service| service.idle_s)
}
