//! The decision's tables, in the kernel: each look-up is one map access.
#![allow(unsafe_code, reason = "helpers, per-CPU records and the constants that the loader sets")]

use aya_ebpf::{
    btf_maps::{Array, lpm_trie::Key},
    helpers::bpf_jiffies64,
};
use lb_common::{
    address::Address,
    choose::{Manner, Remembered},
    hash::Hash,
    maps::{CHUNKS_PER_PLANE, Header, NatFlow, NatPlane, OwnMacs, Service, Settings, SourceKey4, SourceKey6, SourceRule, Vip, VirtualMacs},
    nat::open::{Claimed, Opening, Span, Terms},
    reason::{Drop, Note},
    tables::{Cell, CellLine, Tables},
    words::{MemberId, ServiceId, SlotWord, Tick},
};

use crate::{SETTINGS, maps, stage, word::Word};

/// The maps of this program.
#[derive(Clone, Copy)]
pub(crate) struct Kernel;

impl Cell for Word {
    #[inline(always)]
    fn load(&self) -> u64 {
        Word::load(self)
    }

    #[inline(always)]
    fn store(&self, word: u64) {
        Word::store(self, word);
    }

    #[inline(always)]
    fn replace(&self, old: u64, new: u64) -> bool {
        Word::replace(self, old, new)
    }
}

#[inline(always)]
fn line<const N: usize, const F: usize>(map: &'static Array<maps::Line, N, F>, index: u32) -> Option<&'static CellLine<Word>> {
    map.get(index)
}

/// The kernel's clock in its own ticks.
#[inline(always)]
pub(crate) fn jiffies() -> u64 {
    // SAFETY: the helper has no precondition.
    unsafe { bpf_jiffies64() }
}

/// Has the replies of a flow go to another link-layer address, by another interface. If the record is given to another flow meanwhile, it stays as that
/// one has it.
#[inline(always)]
pub(crate) fn move_flow(index: u32, flow: &NatFlow, mac: [u16; 3], ifindex: u32) {
    let Some(record) = maps::NAT_FLOWS.get_ptr_mut(index) else { return };
    let word = |offset: usize| {
        // SAFETY: a live map value of eight words, of which `Word` takes one; every CPU changes these words by compare-and-swap while the flow lives.
        unsafe { &*record.cast::<u8>().add(offset).cast::<Word>() }
    };
    let address = |[a, b, c]: [u16; 3]| bytemuck::cast::<[u16; 4], u64>([a, b, c, 0]);
    word(NatFlow::MAC_OFFSET).replace(address(flow.mac), address(mac));
    let way = |ifindex: u32| bytemuck::cast::<[u32; 2], u64>([ifindex, flow.generation]);
    word(NatFlow::IFINDEX_OFFSET).replace(way(flow.ifindex), way(ifindex));
}

#[inline(always)]
fn rule(found: Option<&SourceRule>) -> SourceRule {
    match found {
        Some(rule) => *rule,
        None => 0,
    }
}

impl Tables for Kernel {
    type Cell = Word;
    type Ref<'a, T: bytemuck::Pod> = Record<T>;

    #[inline(always)]
    fn setting(&self, field: impl Fn(&Settings) -> &u32) -> u32 {
        // SAFETY: the pointer comes from a reference. Volatile, for the loader writes the value after compilation.
        unsafe { core::ptr::from_ref(field(&SETTINGS)).read_volatile() }
    }

    #[inline(always)]
    fn table_key(&self) -> u64 {
        // SAFETY: as in `setting`.
        unsafe { (&raw const SETTINGS.table_key).read_volatile() }
    }

    #[inline(always)]
    fn slot_key(&self) -> u64 {
        // SAFETY: as in `setting`.
        unsafe { (&raw const SETTINGS.slot_key).read_volatile() }
    }

    #[inline(always)]
    fn is_own_mac(&self, word: u64) -> bool {
        let Some(macs) = maps::MACS.get(0) else { return true };
        let macs = core::ptr::from_ref(macs).cast::<u64>();
        // SAFETY: a record of so many words, which the daemon changes word by word. The first is read alone, as it is the one of most hosts.
        let mac = |index| unsafe { macs.add(index).read_volatile() };
        let first = mac(0);
        if first == word || first == 0 {
            return true;
        }
        for index in 1..OwnMacs::MOST {
            if mac(index) == word {
                return true;
            }
        }
        let (Some((index, mask)), Some(ours)) = (VirtualMacs::bit(word), maps::MACS.get(VirtualMacs::INDEX)) else { return false };
        let ours = core::ptr::from_ref(ours).cast::<u64>();
        // SAFETY: a record of eight words, of which `bit` names one; the speaker of VRRP changes it word by word.
        if unsafe { ours.add(index).read_volatile() } & mask == 0 {
            return false;
        }
        let Some(until) = maps::MACS.get(VirtualMacs::UNTIL) else { return false };
        // SAFETY: as above.
        let until = unsafe { core::ptr::from_ref(until).cast::<u64>().read_volatile() };
        VirtualMacs::left(until, self.tick()).is_some()
    }

    #[inline(always)]
    fn tick(&self) -> Tick {
        Settings::seconds(jiffies(), self.setting(|s| &s.tick_factor))
    }

    #[inline(always)]
    fn micros(&self) -> u64 {
        jiffies() * self.setting(|s| &s.jiffy_us) as u64
    }

    #[inline(always)]
    fn vip_line(&self, index: u32) -> Option<&CellLine<Word>> {
        line(&maps::VIP_LINES, index)
    }

    #[inline(always)]
    fn vip(&self, index: u16) -> Option<Record<Vip>> {
        maps::VIPS.get(index as u32).map(Record)
    }

    #[inline(always)]
    fn port_line(&self, index: u32) -> Option<&CellLine<Word>> {
        line(&maps::PORT_LINES, index)
    }

    #[inline(always)]
    fn service(&self, id: ServiceId) -> Option<Record<Service>> {
        maps::SERVICES.get(id.0 as u32).map(Record)
    }

    #[inline(always)]
    fn slot(&self, page: u32, offset: u32) -> Option<&Word> {
        maps::SLOT_PAGES.get_value(page, &offset)
    }

    #[inline(always)]
    fn member(&self, id: MemberId) -> Option<&Word> {
        maps::MEMBERS.get(id.number() as u32)
    }

    #[inline(always)]
    fn header(&self, index: u32) -> Option<Record<Header>> {
        maps::HEADERS.get(index).map(Record)
    }

    #[inline(always)]
    fn flow_line(&self, index: u32) -> Option<&CellLine<Word>> {
        line(&maps::FLOWS, index)
    }

    #[inline(always)]
    fn remember(&self, service: &Service, slot: SlotWord, hash: Hash, manner: Manner) -> Remembered {
        Remembered(stage::weir_remember(service.id as u32, slot.0, (hash.index as u64) << 32 | hash.tag as u64, manner.0))
    }

    #[inline(always)]
    fn fragment_line(&self, index: u32) -> Option<&CellLine<Word>> {
        line(&maps::FRAGMENTS, index)
    }

    #[inline(always)]
    fn rate_line(&self, index: u32) -> Option<&CellLine<Word>> {
        line(&maps::RATES, index)
    }

    #[inline(always)]
    fn source_rule(&self, service: ServiceId, source: &Address) -> SourceRule {
        let words = source.words();
        let service = (service.0 as u32).to_be_bytes();
        if source.is_v4() {
            let key = SourceKey4 { service, address: words[3].to_ne_bytes() };
            return rule(maps::SOURCES4.get(&Key::new(64, key)));
        }
        let key = SourceKey6 { service, address: bytemuck::cast(words) };
        rule(maps::SOURCES6.get(&Key::new(160, key)))
    }

    #[inline(always)]
    fn nat_line(&self, index: u32) -> Option<&CellLine<Word>> {
        line(&maps::NAT_LINES, index)
    }

    #[inline(always)]
    fn nat_port_line(&self, index: u32) -> Option<&CellLine<Word>> {
        line(&maps::NAT_PORTS, index)
    }

    #[inline(always)]
    fn nat_flow(&self, index: u32) -> Option<Record<NatFlow>> {
        maps::NAT_FLOWS.get(index).map(Record)
    }

    #[inline(always)]
    fn set_nat_flow(&self, index: u32, flow: &NatFlow) {
        if let Some(record) = maps::NAT_FLOWS.get_ptr_mut(index) {
            // SAFETY: a pointer to a live map value; the record's port is claimed, so nobody else writes it.
            unsafe { *record = *flow };
        }
    }

    #[inline(always)]
    fn nat_plane(&self, index: u16) -> Option<Record<NatPlane>> {
        maps::NAT_PLANES.get(index as u32).map(Record)
    }

    #[inline(always)]
    fn nat_chunks_used(&self, plane: u16) -> Option<&Word> {
        maps::NAT_USED.get(plane as u32)
    }

    #[inline(always)]
    fn nat_chunk(&self, plane: u16, position: u8) -> Option<&Word> {
        maps::NAT_CHUNKS.get(plane as u32 * CHUNKS_PER_PLANE + position as u32)
    }

    #[inline(always)]
    fn nat_free(&self, index: u32) -> Option<&Word> {
        maps::NAT_FREE.get(index)
    }

    /// Out of line: its loops would be verified once for each path that leads here.
    #[inline(never)]
    fn open_nat(&self, service: &Service, opening: &mut Opening, plane: u16) -> Result<u32, Drop> {
        lb_common::nat::open::open(self, service, opening, plane)
    }

    #[inline(always)]
    fn claim_port(&self, plane: u16, start: u32, span: Span, terms: Terms, now: Tick) -> Claimed {
        Claimed(stage::weir_claim_port(plane as u32, start, span.chunks << 16 | span.lines, terms.0, now))
    }

    #[inline(always)]
    fn claim_in_line(&self, line: u32, terms: Terms, now: Tick) -> u64 {
        stage::weir_claim_in_line(line, terms.0, now)
    }

    #[inline(always)]
    fn claim_rested(&self, plane: u16, start: u32, chunks: u32, terms: Terms, now: Tick) -> Claimed {
        Claimed(stage::weir_claim_rested(plane as u32, start, chunks, terms.0, now))
    }

    #[inline(always)]
    fn rested_in_line(&self, line: u32, terms: Terms, now: Tick) -> u64 {
        stage::weir_rested_in_line(line, terms.0, now)
    }

    #[inline(always)]
    fn nat_endpoint_line(&self, index: u32) -> Option<&CellLine<Word>> {
        line(&maps::NAT_ENDPOINTS, index)
    }

    #[inline(always)]
    fn touch(&self, service: ServiceId) -> Option<&Word> {
        maps::TOUCHES.get(service.0 as u32)
    }

    #[inline(always)]
    fn note(&self, service: ServiceId, note: Note) {
        crate::count::note(service, note);
    }
}

/// A record in a map.
pub(crate) struct Record<T: 'static>(&'static T);

impl<T> core::ops::Deref for Record<T> {
    type Target = T;

    #[inline(always)]
    fn deref(&self) -> &T {
        self.0
    }
}
