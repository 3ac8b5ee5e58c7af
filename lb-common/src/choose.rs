//! Which member a packet of a service goes to: slot, then what the slot's state asks of the flow cache.

use crate::{
    address::Address,
    flows::{self, LookUp},
    hash::{self, Hash},
    maps::{SLOTS_PER_PAGE, Service},
    packet::tcp,
    place,
    reason::{Drop, Note},
    tables::{Cell, Step, Tables},
    words::{FlowState, FlowWord, MemberId, MemberWord, ServiceId, SlotState, SlotWord, Tick},
};

/// What of a packet matters to the choice of its member.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Asking<'a> {
    /// The client.
    pub source: &'a Address,
    /// Its port and the service's, see [`crate::packet::ports_word`].
    pub ports: u32,
    /// The packet's TCP flags; 0 for UDP.
    pub tcp_flags: u8,
    /// Whether state may be written and refreshed for it. Not for ICMP errors, which anybody can send.
    pub writes: bool,
}

/// A member that was chosen, and its word as it was then.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Chosen {
    /// The member.
    pub id: MemberId,
    /// Its word.
    pub word: MemberWord,
}

/// The hash that chooses a service's slot: the same on every node.
#[inline(always)]
pub fn slot_hash(service: &Service, source: &Address, ports: u32) -> u32 {
    if service.is(Service::BY_SOURCE) {
        return hash::address(source, service.slot_key).index;
    }
    hash::endpoint(source, ports, service.slot_key).index
}

/// The member that a packet of `service` goes to.
///
/// # Errors
/// The reason to drop the packet: [`Drop::NoServer`], [`Drop::ServerDown`], [`Drop::FlowTableFull`] or, while the tables are being changed,
/// [`Drop::Inconsistent`].
#[inline(always)]
pub fn member<T: Tables>(tables: &T, service: &Service, asking: &Asking<'_>) -> Result<Chosen, Drop> {
    let index = slot_hash(service, asking.source, asking.ports) & service.slot_mask;
    let page = service.slot_page + index / SLOTS_PER_PAGE;
    let cell = tables.slot(page, index % SLOTS_PER_PAGE).ok_or(Drop::Inconsistent)?;
    let slot = SlotWord(cell.load());
    tables.trace(Step::Slot { index, word: slot });
    if slot.default().is_none() {
        return admit(tables, service, slot.current().ok_or(Drop::NoServer)?);
    }
    let now = tables.tick();
    let hash = place::flow(asking.source, asking.ports, service, tables.table_key());
    let id = tables.remember(service, slot, hash, Manner::new(asking.tcp_flags, asking.writes)).member()?;
    if asking.writes && slot.current() != Some(id) && slot.stamp() != now {
        cell.replace(slot.0, slot.with_stamp(now).0);
    }
    admit(tables, service, id)
}

#[inline(always)]
fn admit<T: Tables>(tables: &T, service: &Service, id: MemberId) -> Result<Chosen, Drop> {
    let word = MemberWord(tables.member(id).ok_or(Drop::Inconsistent)?.load());
    tables.trace(Step::Member(id, word));
    if word.service() != ServiceId(service.id) {
        return Err(Drop::Inconsistent);
    }
    if word.is(MemberWord::CLOSING) {
        return Err(Drop::ServerDown);
    }
    Ok(Chosen { id, word })
}

/// How a packet asks for its member, as a number: its TCP flags, and whether state may be written for it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Manner(pub u32);

impl Manner {
    const WRITES: u32 = 0x100;

    #[inline(always)]
    const fn new(tcp_flags: u8, writes: bool) -> Self {
        Self(tcp_flags as u32 | if writes { Self::WRITES } else { 0 })
    }

    #[inline(always)]
    const fn tcp_flags(self) -> u8 {
        self.0 as u8
    }

    #[inline(always)]
    const fn writes(self) -> bool {
        self.0 & Self::WRITES != 0
    }

    #[inline(always)]
    const fn is_syn(self) -> bool {
        self.tcp_flags() & (tcp::SYN | tcp::ACK | tcp::RST) == tcp::SYN
    }
}

/// The member of a slot that is learning or settled, or why there is none, as a number: so that the kernel program can have the choice verified
/// once, as a function of numbers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Remembered(pub u32);

impl Remembered {
    const NONE: u32 = 0x1_0000;

    #[inline(always)]
    const fn go_to(member: MemberId) -> Self {
        Self(member.number() as u32)
    }

    #[inline(always)]
    const fn refuse(reason: Drop) -> Self {
        Self(Self::NONE | reason.index())
    }

    #[inline(always)]
    const fn to_current(slot: SlotWord) -> Self {
        match slot.current() {
            Some(current) => Self::go_to(current),
            None => Self::refuse(Drop::NoServer),
        }
    }

    #[inline(always)]
    const fn member(self) -> Result<MemberId, Drop> {
        if self.0 == Self::NONE | Drop::FlowTableFull.index() {
            return Err(Drop::FlowTableFull);
        }
        match MemberId::new(self.0 as u16) {
            Some(member) if self.0 < Self::NONE => Ok(member),
            _ => Err(Drop::NoServer),
        }
    }
}

/// The choice within a slot that is learning or settled.
#[inline(always)]
pub fn remembered<T: Tables>(tables: &T, service: &Service, slot: SlotWord, hash: Hash, manner: Manner) -> Remembered {
    if service.is(Service::STATELESS) {
        return Remembered::to_current(slot);
    }
    let now = tables.tick();
    let found = flows::find(tables, hash);
    tables.trace(Step::Cache(found.word));
    let mut moves = false;
    if found.is_hit()
        && let Some(id) = found.word.member()
    {
        moves = service.protocol == crate::packet::protocol::UDP && has_state(tables, id, MemberWord::CLOSING);
        if !moves && is_honoured(tables, service, manner, found.word, now) {
            if manner.writes() {
                found.refresh(id, manner.tcp_flags(), now);
            }
            return Remembered::go_to(id);
        }
    }
    match slot.state() {
        SlotState::Clean | SlotState::Settled => pass_over(slot, manner, moves, &found, now),
        SlotState::Learning { default } => learn(tables, service, manner, Missed { slot, default, hash, stale: found, moves, now }),
    }
}

/// Whether a cached flow holds for this packet: its member is of this service, it has not outlived the idle timeout, and the packet does not
/// open a connection where the entry's is closed or its member takes none.
#[inline(always)]
fn is_honoured<T: Tables>(tables: &T, service: &Service, manner: Manner, entry: FlowWord, now: Tick) -> bool {
    let Some(cell) = entry.member().and_then(|id| tables.member(id)) else { return false };
    let word = MemberWord(cell.load());
    if word.service() != ServiceId(service.id) || entry.idle(now) > service.idle_s {
        return false;
    }
    !manner.is_syn() || (entry.state() != FlowState::Closed && !word.is(MemberWord::NO_NEW))
}

/// A flow that need not be remembered goes to the current member. But an entry that its SYN has passed over, of an ended connection of the same
/// addresses and ports, would take the packets after the SYN: the new connection gets it. So does a UDP flow that leaves its member, which would
/// go back with its next packet if that came up meanwhile.
#[inline(always)]
fn pass_over<C: Cell>(slot: SlotWord, manner: Manner, moves: bool, stale: &LookUp<'_, C>, now: Tick) -> Remembered {
    if let Some(current) = slot.current()
        && (moves || manner.is_syn())
        && manner.writes()
    {
        stale.restart(current, if moves { FlowState::Acknowledged } else { FlowState::Syn }, now);
    }
    Remembered::to_current(slot)
}

/// A flow that a learning slot knows nothing of.
struct Missed<'t, C> {
    slot: SlotWord,
    default: MemberId,
    hash: Hash,
    /// An entry of the same flow that does not hold, or none.
    stale: LookUp<'t, C>,
    /// That entry's member closes its sessions, which UDP cannot be told of: the flow leaves it, as a new one.
    moves: bool,
    now: Tick,
}

#[inline(always)]
fn learn<T: Tables>(tables: &T, service: &Service, manner: Manner, missed: Missed<'_, T::Cell>) -> Remembered {
    let Missed { slot, default, hash, stale, moves, now } = missed;
    let (target, state) = if manner.is_syn() {
        let Some(current) = slot.current() else { return Remembered::refuse(Drop::NoServer) };
        (current, FlowState::Syn)
    } else {
        let current = slot.current().filter(|_| moves);
        (current.unwrap_or_else(|| older_flow_target(tables, service, slot, default)), FlowState::Acknowledged)
    };
    if !manner.writes() || manner.tcp_flags() & tcp::RST != 0 || has_state(tables, target, MemberWord::CLOSING) {
        return Remembered::go_to(target);
    }
    let id = ServiceId(service.id);
    if stale.is_hit() {
        stale.restart(target, state, now);
        return Remembered::go_to(target);
    }
    if flows::insert(tables, id, hash, target, state, now).is_ok() {
        tables.note(id, Note::FlowInserted);
        return Remembered::go_to(target);
    }
    tables.note(id, Note::FlowNoRoom);
    if !manner.is_syn() {
        return Remembered::go_to(target);
    }
    if is_down(tables, default) { Remembered::refuse(Drop::FlowTableFull) } else { Remembered::go_to(default) }
}

/// Where a packet goes that may belong to a flow older than the slot's change. TCP: to the previous member, even when it is down. UDP cannot
/// tell such a flow from a new one, so it leaves a member that is down.
#[inline(always)]
fn older_flow_target<T: Tables>(tables: &T, service: &Service, slot: SlotWord, default: MemberId) -> MemberId {
    match slot.current() {
        Some(current) if service.protocol == crate::packet::protocol::UDP && is_down(tables, default) => current,
        Some(_) | None => default,
    }
}

#[inline(always)]
fn is_down<T: Tables>(tables: &T, id: MemberId) -> bool {
    has_state(tables, id, MemberWord::DOWN)
}

/// Whether a member has this state; one that does not exist has all.
#[inline(always)]
fn has_state<T: Tables>(tables: &T, id: MemberId, state: u8) -> bool {
    tables.member(id).is_none_or(|cell| MemberWord(cell.load()).is(state))
}
