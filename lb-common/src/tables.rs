//! Where the decision finds its tables: the kernel program's maps, a test's arrays, or pinned maps read by `weir explain`.

use bytemuck::Pod;
use core::ops::Deref;

use crate::{
    address::Address,
    choose::{Manner, Remembered},
    hash::Hash,
    maps::{Header, NatFlow, NatPlane, Service, Settings, SourceRule, Vip, WORDS_PER_LINE},
    nat::open::{Claimed, Opening, Span, Terms},
    reason::{Drop, Note},
    words::{FlowWord, MemberId, MemberWord, ServiceId, SlotWord, Tick},
};

/// A 64-bit word that others read and change at the same time.
pub trait Cell {
    /// Reads it once.
    fn load(&self) -> u64;
    /// Writes it whole.
    fn store(&self, word: u64);
    /// Writes `new` if it still holds `old`, and says whether it did.
    fn replace(&self, old: u64, new: u64) -> bool;
}

/// A line of such words.
pub type CellLine<C> = [C; WORDS_PER_LINE];

/// Writes `word` into an empty place of two lines; false if both are full.
///
/// Lines fill from their first place on, so that the lowest empty place of both is in the emptier line. Were the first line preferred, 4 of
/// 25 000 flows would find both of theirs full in a table that is 38 % full; so none of 40 000 does at 62 %.
#[inline(always)]
pub fn take_empty<C: Cell>(first: &CellLine<C>, second: &CellLine<C>, word: u64) -> bool {
    for (a, b) in first.iter().zip(second) {
        if take_if_empty(a, word) || take_if_empty(b, word) {
            return true;
        }
    }
    false
}

#[inline(always)]
fn take_if_empty<C: Cell>(cell: &C, word: u64) -> bool {
    cell.load() == 0 && cell.replace(0, word)
}

/// What the decision passed on its way, for whoever wants to tell (`weir explain`). The kernel program does not.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// The packet is for this service.
    Service(ServiceId),
    /// Its slot, and what the slot said.
    Slot {
        /// The slot's number within the service.
        index: u32,
        /// Its word.
        word: SlotWord,
    },
    /// What the flow cache said; 0 is a miss.
    Cache(FlowWord),
    /// The NAT flow it belongs to.
    NatFlow(u32),
    /// The NAT flow that it opens.
    NatOpened {
        /// Its record.
        index: u32,
        /// The port that the server sees, wire bytes.
        snat_port: u16,
    },
    /// The member it goes to.
    Member(MemberId, MemberWord),
}

/// Every table of the packet path. A look-up gives none for an index beyond the table.
pub trait Tables {
    /// A shared word.
    type Cell: Cell;
    /// A record: a reference into the map, or a copy of it.
    type Ref<'a, T: Pod>: Deref<Target = T>
    where
        Self: 'a;

    /// What this program is built for; the implementation reads the one field that is asked for.
    fn setting(&self, field: impl Fn(&Settings) -> &u32) -> u32;
    /// The key of every local table's hash.
    fn table_key(&self) -> u64;
    /// The key of the hash that chooses slots.
    fn slot_key(&self) -> u64;
    /// Whether frames to this link-layer address, a word of [`OwnMacs`](crate::maps::OwnMacs), are for this host.
    fn is_own_mac(&self, word: u64) -> bool;
    /// The clock in seconds.
    fn tick(&self) -> Tick;
    /// The clock in microseconds, as coarse as the kernel's timer tick.
    fn micros(&self) -> u64;
    /// A line of `VIP_LINES`.
    fn vip_line(&self, index: u32) -> Option<&CellLine<Self::Cell>>;
    /// A record of `VIPS`.
    fn vip(&self, index: u16) -> Option<Self::Ref<'_, Vip>>;
    /// A line of `PORT_LINES`.
    fn port_line(&self, index: u32) -> Option<&CellLine<Self::Cell>>;
    /// A record of `SERVICES`.
    fn service(&self, id: ServiceId) -> Option<Self::Ref<'_, Service>>;
    /// A word of `SLOT_PAGES`: `offset` is within the page.
    fn slot(&self, page: u32, offset: u32) -> Option<&Self::Cell>;
    /// A word of `MEMBERS`.
    fn member(&self, id: MemberId) -> Option<&Self::Cell>;
    /// A record of `HEADERS`.
    fn header(&self, index: u32) -> Option<Self::Ref<'_, Header>>;
    /// A line of `FLOWS`.
    fn flow_line(&self, index: u32) -> Option<&CellLine<Self::Cell>>;
    /// The choice within a slot that is learning or settled: [`crate::choose::remembered`], of which the kernel program makes a function of its
    /// own.
    fn remember(&self, service: &Service, slot: SlotWord, hash: Hash, manner: Manner) -> Remembered;
    /// A line of `FRAGMENTS`.
    fn fragment_line(&self, index: u32) -> Option<&CellLine<Self::Cell>>;
    /// A line of `RATES`.
    fn rate_line(&self, index: u32) -> Option<&CellLine<Self::Cell>>;
    /// The rule for a source of a service; 0 for none.
    fn source_rule(&self, service: ServiceId, source: &Address) -> SourceRule;
    /// A line of `NAT_LINES`.
    fn nat_line(&self, index: u32) -> Option<&CellLine<Self::Cell>>;
    /// A line of `NAT_PORTS`.
    fn nat_port_line(&self, index: u32) -> Option<&CellLine<Self::Cell>>;
    /// A record of `NAT_FLOWS`.
    fn nat_flow(&self, index: u32) -> Option<Self::Ref<'_, NatFlow>>;
    /// Writes a record of `NAT_FLOWS` whose port is claimed.
    fn set_nat_flow(&self, index: u32, flow: &NatFlow);
    /// A record of `NAT_PLANES`, for its constant fields.
    fn nat_plane(&self, index: u16) -> Option<Self::Ref<'_, NatPlane>>;
    /// How many chunks a plane has been given.
    fn nat_chunks_used(&self, plane: u16) -> Option<&Self::Cell>;
    /// The chunk at a position of a plane.
    fn nat_chunk(&self, plane: u16, position: u8) -> Option<&Self::Cell>;
    /// A word of `NAT_FREE`: 0 the head, 1 the tail, then the ring.
    fn nat_free(&self, index: u32) -> Option<&Self::Cell>;
    /// Opens a NAT flow in a plane: [`crate::nat::open::open`], which the kernel program keeps out of line.
    ///
    /// # Errors
    /// As that function.
    fn open_nat(&self, service: &Service, opening: &mut Opening, plane: u16) -> Result<u32, Drop>;
    /// Claims a port of a plane: [`crate::nat::open::claim_port`], of which the kernel program makes a function of its own.
    fn claim_port(&self, plane: u16, start: u32, span: Span, terms: Terms, now: Tick) -> Claimed;
    /// Claims a port in a line of `NAT_PORTS`: [`crate::nat::open::claim_in_line`], likewise.
    fn claim_in_line(&self, line: u32, terms: Terms, now: Tick) -> u64;
    /// Claims the port of a plane that has rested longest: [`crate::nat::open::claim_rested`], likewise.
    fn claim_rested(&self, plane: u16, start: u32, chunks: u32, terms: Terms, now: Tick) -> Claimed;
    /// The port of a line of `NAT_PORTS` that has rested longest: [`crate::nat::open::rested_in_line`], likewise.
    fn rested_in_line(&self, line: u32, terms: Terms, now: Tick) -> u64;
    /// A line of `NAT_ENDPOINTS`.
    fn nat_endpoint_line(&self, index: u32) -> Option<&CellLine<Self::Cell>>;
    /// The service's word of `TOUCHES`.
    fn touch(&self, service: ServiceId) -> Option<&Self::Cell>;
    /// Counts.
    fn note(&self, service: ServiceId, note: Note);
    /// Tells a step of the decision.
    #[inline(always)]
    fn trace(&self, _step: Step) {}
}
