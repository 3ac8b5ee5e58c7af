//! The 64-bit words of the shared tables: each is read once and changed by one store or compare-and-swap.
//!
//! | word | bits 63..32 | bits 31..0 |
//! |---|---|---|
//! | [`VipWord`] | tag: the IPv4 address, or a hash of the IPv6 one | vip index 16, flags 16 |
//! | [`PortWord`] | vip index 16, port 16 | protocol 16, service 16 |
//! | [`SlotWord`] | stamp, ticks | default 16, current 16 |
//! | [`FlowWord`] | tag | time 14, state 2, member 16 |
//! | [`MemberWord`] | header index | reserved 8, state 8, service 16 |

use core::num::NonZeroU16;

/// Seconds on the kernel's jiffies clock, from an arbitrary origin. Differences wrap.
pub type Tick = u32;

/// A service: VIP, port and protocol. 0 names none.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct ServiceId(pub u16);

impl ServiceId {
    /// What counters name when a packet belongs to no service.
    pub const NONE: Self = Self(0);
}

/// A member: one server within one service.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct MemberId(pub NonZeroU16);

impl MemberId {
    /// The member of this number; 0 names none.
    #[inline(always)]
    pub const fn new(id: u16) -> Option<Self> {
        match NonZeroU16::new(id) {
            Some(id) => Some(Self(id)),
            None => None,
        }
    }

    /// Its number, 1 to 65 535.
    #[inline(always)]
    pub const fn number(self) -> u16 {
        self.0.get()
    }
}

#[inline(always)]
const fn number(member: Option<MemberId>) -> u64 {
    match member {
        Some(member) => member.number() as u64,
        None => 0,
    }
}

/// One entry of a line of addresses that the load balancer answers for.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct VipWord(pub u64);

impl VipWord {
    /// Services are bound to the address.
    pub const VIP: u16 = 1;
    /// The address is a source of translated flows: replies arrive for it.
    pub const SNAT: u16 = 2;
    /// One of the services takes every port.
    pub const ANY_PORT: u16 = 4;

    /// The address is an IPv6 one, so that the tag is only a hash of it.
    pub const IPV6: u16 = 8;

    /// Packs an entry; `index` is the address's record in the map of VIPs, from 1.
    pub const fn new(tag: u32, index: u16, flags: u16) -> Self {
        Self((tag as u64) << 32 | (index as u64) << 16 | flags as u64)
    }

    /// What distinguishes the address within its line.
    #[inline(always)]
    pub const fn tag(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// The address's record in the map of VIPs; 0 in an empty entry.
    #[inline(always)]
    pub const fn index(self) -> u16 {
        (self.0 >> 16) as u16
    }

    /// A union of [`Self::VIP`], [`Self::SNAT`], [`Self::ANY_PORT`] and [`Self::IPV6`].
    #[inline(always)]
    pub const fn flags(self) -> u16 {
        self.0 as u16
    }
}

/// One entry of a line of (VIP, port, protocol), which names its service.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PortWord(pub u64);

impl PortWord {
    /// Packs an entry. `port` is in host order.
    #[inline(always)]
    pub const fn new(vip: u16, port: u16, protocol: u8, service: u16) -> Self {
        Self((vip as u64) << 48 | (port as u64) << 32 | (protocol as u64) << 16 | service as u64)
    }

    /// Whether both entries are for the same VIP, port and protocol.
    #[inline(always)]
    pub const fn matches(self, other: Self) -> bool {
        (self.0 ^ other.0) >> 16 == 0
    }

    /// The service; [`ServiceId::NONE`] in an empty entry.
    #[inline(always)]
    pub const fn service(self) -> ServiceId {
        ServiceId(self.0 as u16)
    }
}

/// What one slot of a service's table says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SlotWord(pub u64);

/// How far a slot has got since its member last changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SlotState {
    /// The table alone answers.
    Clean,
    /// Flows that the cache does not know belong to `default`; new ones go to `current` and are remembered.
    Learning {
        /// Who had the slot before it changed.
        default: MemberId,
    },
    /// Every older flow that still lives is in the cache; all else goes to `current`.
    Settled,
}

impl SlotWord {
    /// Packs a slot.
    #[inline(always)]
    pub fn new(current: Option<MemberId>, default: Option<MemberId>, stamp: Tick) -> Self {
        Self((stamp as u64) << 32 | number(default) << 16 | number(current))
    }

    /// Who takes new flows; none when no server can.
    #[inline(always)]
    pub const fn current(self) -> Option<MemberId> {
        MemberId::new(self.0 as u16)
    }

    /// Who had the slot before, none when the slot is clean; equal to the current member when settled.
    #[inline(always)]
    pub const fn default(self) -> Option<MemberId> {
        MemberId::new((self.0 >> 16) as u16)
    }

    /// When a packet of this slot was last sent elsewhere than to the current member.
    #[inline(always)]
    pub const fn stamp(self) -> Tick {
        (self.0 >> 32) as Tick
    }

    /// The same slot with another stamp.
    #[inline(always)]
    pub const fn with_stamp(self, stamp: Tick) -> Self {
        Self((stamp as u64) << 32 | self.0 & 0xffff_ffff)
    }

    /// The state that `current` and `default` spell.
    #[inline(always)]
    pub fn state(self) -> SlotState {
        match self.default() {
            None => SlotState::Clean,
            Some(default) if self.current() == Some(default) => SlotState::Settled,
            Some(default) => SlotState::Learning { default },
        }
    }
}

/// What the flow cache remembers of one flow; 0 is an empty place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FlowWord(pub u64);

/// What a cached flow has shown of itself; it decides how soon its place may be taken.
#[repr(u8)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum FlowState {
    /// Only its SYN was seen.
    Syn = 0,
    /// A further packet was seen.
    Acknowledged = 1,
    /// Packets were seen in two different seconds.
    Proven = 2,
    /// A FIN or RST was seen.
    Closed = 3,
}

impl FlowWord {
    /// Bits of [`Self::time`]: it wraps after 16 384 seconds.
    pub const TIME_MASK: u32 = 0x3fff;

    /// Packs an entry; of `time` the low 14 bits are kept.
    #[inline(always)]
    pub const fn new(tag: u32, member: MemberId, state: FlowState, time: Tick) -> Self {
        Self((tag as u64) << 32 | ((time & Self::TIME_MASK) as u64) << 18 | (state as u64) << 16 | member.number() as u64)
    }

    /// The flow's tag.
    #[inline(always)]
    pub const fn tag(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// Where the flow goes; none in an empty place.
    #[inline(always)]
    pub const fn member(self) -> Option<MemberId> {
        MemberId::new(self.0 as u16)
    }

    /// What the flow has shown.
    #[inline(always)]
    pub const fn state(self) -> FlowState {
        match (self.0 >> 16) & 3 {
            0 => FlowState::Syn,
            1 => FlowState::Acknowledged,
            2 => FlowState::Proven,
            _ => FlowState::Closed,
        }
    }

    /// When its last packet was seen, the low 14 bits of the tick.
    #[inline(always)]
    pub const fn time(self) -> u32 {
        (self.0 >> 18) as u32 & Self::TIME_MASK
    }

    /// Differences above this are times to come: another CPU may be a tick ahead of the reader, and a reading of all tables takes some.
    const AHEAD: u32 = Self::TIME_MASK - 255;

    /// Seconds since the flow's last packet, modulo 16 384; 0 for one that is up to 255 s ahead of `now`.
    #[inline(always)]
    pub const fn idle(self, now: Tick) -> u32 {
        let idle = now.wrapping_sub(self.time()) & Self::TIME_MASK;
        if idle > Self::AHEAD { 0 } else { idle }
    }
}

/// The current members of four slots that are clean; 0 for one that is not, or that is nobody's.
///
/// Most slots are clean most of the time, and a packet of one needs nothing but its member: so it finds it in a quarter of the memory, which stays
/// in the CPU's cache where the [`SlotWord`]s of many services would not. When a slot changes, its word comes first: what is read here in between
/// is what held a moment before.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CleanWord(pub u64);

impl CleanWord {
    /// Slots to a word.
    pub const SLOTS: u32 = 4;

    /// Where the word of a slot lies in its page. `slot` is the slot's number within the page.
    #[inline(always)]
    pub const fn place(slot: u32) -> u32 {
        crate::maps::SLOTS_PER_PAGE + slot / Self::SLOTS
    }

    const fn shift(slot: u32) -> u32 {
        slot % Self::SLOTS * 16
    }

    /// The slot's member, if it is clean and somebody's.
    #[inline(always)]
    pub const fn member(self, slot: u32) -> Option<MemberId> {
        MemberId::new((self.0 >> Self::shift(slot)) as u16)
    }

    /// With what `word` says of the slot.
    #[must_use]
    pub const fn with(self, slot: u32, word: SlotWord) -> Self {
        let member = if word.default().is_none() { number(word.current()) } else { 0 };
        let others = self.0 & !(0xffff << Self::shift(slot));
        Self(others | member << Self::shift(slot))
    }
}

/// One member as the packet path sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MemberWord(pub u64);

impl MemberWord {
    /// The member takes no new flow: it drains, is in maintenance, or is down.
    pub const NO_NEW: u8 = 1;
    /// The member is down (and so takes no new flow).
    pub const DOWN: u8 = 2;
    /// The member's flows are refused with a reset.
    pub const CLOSING: u8 = 4;

    /// Packs a member; `header` 0 means that its next hop is not resolved.
    pub const fn new(header: u32, state: u8, service: ServiceId) -> Self {
        Self((header as u64) << 32 | (state as u64) << 16 | service.0 as u64)
    }

    /// The index of its prebuilt header; 0 for none.
    #[inline(always)]
    pub const fn header(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// A union of [`Self::NO_NEW`], [`Self::DOWN`] and [`Self::CLOSING`].
    #[inline(always)]
    pub const fn state(self) -> u8 {
        (self.0 >> 16) as u8
    }

    /// The service it belongs to; [`ServiceId::NONE`] for a member that is not in use.
    #[inline(always)]
    pub const fn service(self) -> ServiceId {
        ServiceId(self.0 as u16)
    }

    /// Whether every bit of `flag` is set.
    #[inline(always)]
    pub const fn is(self, flag: u8) -> bool {
        self.state() & flag == flag
    }
}

#[cfg(test)]
mod tests {
    use super::{CleanWord, FlowState, FlowWord, MemberId, SlotWord};

    #[test]
    fn a_clean_word_has_the_members_of_clean_slots_alone() {
        let member = |number| MemberId::new(number);
        let slots = [
            (0, SlotWord::new(member(7), None, 0), member(7)),
            (1, SlotWord::new(member(0xffff), None, 5), member(0xffff)),
            (2, SlotWord::new(member(8), member(7), 0), None),
            (4095, SlotWord::new(None, None, 0), None),
        ];
        let full = CleanWord(u64::MAX);
        let word = slots.iter().fold(full, |word, &(slot, value, _)| word.with(slot, value));
        for (slot, _, found) in slots {
            assert_eq!(word.member(slot), found, "slot {slot}");
        }
        assert_eq!(CleanWord(0).with(2, SlotWord::new(member(9), None, 0)), CleanWord(9 << 32), "its neighbours stay as they are");
        assert_eq!([0, 3, 4, 4095].map(CleanWord::place), [4096, 4096, 4097, 5119]);
    }

    #[test]
    fn a_flow_seen_after_the_readers_tick_is_not_idle() {
        let seen_at = |time| FlowWord::new(1, MemberId::new(1).unwrap(), FlowState::Proven, time);
        assert_eq!(seen_at(1001).idle(1000), 0);
        assert_eq!(seen_at(1255).idle(1000), 0);
        assert_eq!(seen_at(1000).idle(1000), 0);
        assert_eq!(seen_at(1000).idle(1001), 1);
        assert_eq!(seen_at(16_383).idle(16_384), 1, "over the turn");
        assert_eq!(seen_at(0).idle(15_300), 15_300, "the longest timeout and a sweep more");
    }
}
