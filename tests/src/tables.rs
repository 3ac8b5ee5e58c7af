//! The packet path's tables in memory: what the kernel program's maps are to it, [`Arrays`] is to a test.
//!
//! The clock stands still until it is set. Cells change through a shared reference, as the maps do; records are put in place with a
//! mutable one, see `build`.

use std::{
    collections::BTreeMap,
    ops::Deref,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
};

use bytemuck::Pod;
use lb_common::{
    address::Address,
    choose::{self, Manner, Remembered},
    hash::Hash,
    maps::{CHUNKS_PER_PLANE, Header, NatFlow, NatPlane, SLOTS_PER_PAGE, Service, Settings, SourceRule, Vip, WORDS_PER_LINE},
    nat::open::{self, Claimed, Opening, Span, Terms},
    reason::{Drop, Note},
    tables::{Cell, CellLine, Step, Tables},
    words::{CleanWord, FlowWord, MemberId, MemberWord, ServiceId, SlotWord, Tick},
};

mod build;

pub use build::{PlaneSpec, ServiceSpec, Sizes};

/// A shared word.
#[derive(Debug, Default)]
pub struct Word(AtomicU64);

impl Cell for Word {
    fn load(&self) -> u64 {
        self.0.load(Relaxed)
    }

    fn store(&self, word: u64) {
        self.0.store(word, Relaxed);
    }

    fn replace(&self, old: u64, new: u64) -> bool {
        self.0.compare_exchange(old, new, Relaxed, Relaxed).is_ok()
    }
}

type Line = CellLine<Word>;

/// A copy of a record.
#[derive(Clone, Copy, Debug)]
pub struct Record<T>(T);

impl<T> Deref for Record<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

/// A prefix and what becomes of sources under it.
#[derive(Clone, Copy, Debug)]
struct Rule {
    service: ServiceId,
    prefix: Address,
    prefix_bits: u32,
    rule: SourceRule,
}

impl Rule {
    fn covers(&self, service: ServiceId, source: &Address) -> bool {
        let bits = |address: &Address| u128::from_be_bytes(bytemuck::cast(address.words()));
        let differing = bits(&self.prefix) ^ bits(source);
        self.service == service && self.prefix.is_v4() == source.is_v4() && differing.leading_zeros() >= self.prefix_bits
    }
}

/// Every table of the packet path.
#[derive(Debug)]
pub struct Arrays {
    settings: Settings,
    micros: AtomicU64,
    vip_lines: Vec<Line>,
    vips: Vec<Vip>,
    port_lines: Vec<Line>,
    services: Vec<Service>,
    slots: Vec<Word>,
    clean: Vec<Word>,
    members: Vec<Word>,
    headers: Vec<Header>,
    flow_lines: Vec<Line>,
    fragment_lines: Vec<Line>,
    rate_lines: Vec<Line>,
    rules: Vec<Rule>,
    nat_lines: Vec<Line>,
    nat_port_lines: Vec<Line>,
    /// Each record as eight words.
    nat_flows: Vec<Line>,
    planes: Vec<NatPlane>,
    chunks_used: Vec<Word>,
    chunks: Vec<Word>,
    free_chunks: Vec<Word>,
    endpoint_lines: Vec<Line>,
    touches: Vec<Word>,
    notes: Vec<AtomicU64>,
    is_recording: AtomicBool,
    steps: Mutex<Vec<Step>>,
}

impl Arrays {
    /// Sets the clock to so many seconds.
    pub fn set_tick(&self, tick: Tick) {
        self.set_micros(u64::from(tick) * 1_000_000);
    }

    /// Sets the clock to so many microseconds.
    pub fn set_micros(&self, micros: u64) {
        self.micros.store(micros, Relaxed);
    }

    /// How often this was noted for the service.
    pub fn noted(&self, service: ServiceId, note: Note) -> u64 {
        self.notes[note_index(service, note)].load(Relaxed)
    }

    /// How often this was noted for all services.
    pub fn noted_in_all(&self, note: Note) -> u64 {
        (0..self.services.len() as u16).map(|id| self.noted(ServiceId(id), note)).sum()
    }

    /// Every step of the decisions that `act` has made.
    pub fn steps_of<R>(&self, act: impl FnOnce(&Self) -> R) -> (R, Vec<Step>) {
        self.is_recording.store(true, Relaxed);
        let result = act(self);
        self.is_recording.store(false, Relaxed);
        (result, std::mem::take(&mut *self.steps.lock().unwrap_or_else(PoisonError::into_inner)))
    }

    /// The slots of a service.
    ///
    /// # Panics
    /// If there is no such service.
    pub fn slots(&self, service: ServiceId) -> &[Word] {
        let record = self.services[usize::from(service.0)];
        let first = (record.slot_page * SLOTS_PER_PAGE) as usize;
        &self.slots[first..=first + record.slot_mask as usize]
    }

    /// Changes a slot of a service as the daemon does.
    ///
    /// # Panics
    /// If the service has no such slot.
    pub fn set_slot(&self, service: ServiceId, slot: usize, word: SlotWord) {
        self.slots(service)[slot].store(word.0);
        let record = self.services[usize::from(service.0)];
        let (page, place) = (record.slot_page + slot as u32 / SLOTS_PER_PAGE, slot as u32 % SLOTS_PER_PAGE);
        let clean = self.slot(page, CleanWord::place(place)).expect("each slot has its clean word");
        clean.store(CleanWord(clean.load()).with(place, word).0);
    }

    /// The slot of a service's packet.
    pub fn slot_of(&self, service: ServiceId, source: &Address, ports: u32) -> SlotWord {
        let record = &self.services[usize::from(service.0)];
        SlotWord(self.slots(service)[(choose::slot_hash(self.settings.slot_key, record, source, ports) & record.slot_mask) as usize].load())
    }

    /// The places of the flow cache.
    pub fn flow_cells(&self) -> impl Iterator<Item = &Word> {
        self.flow_lines.iter().flatten()
    }

    /// How many live flows the cache remembers for each member.
    pub fn live_flows(&self) -> BTreeMap<MemberId, u64> {
        let mut live = BTreeMap::new();
        for word in self.flow_cells().map(|cell| FlowWord(cell.load())) {
            if let Some(member) = word.member().filter(|_| self.is_live(word)) {
                *live.entry(member).or_default() += 1;
            }
        }
        live
    }

    /// Empties the places of flows that were idle longer than their service's timeout, as the daemon does now and then.
    pub fn sweep_flows(&self) {
        let is_dead = |cell: &&Word| !self.is_live(FlowWord(cell.load()));
        self.flow_cells().filter(is_dead).for_each(|cell| cell.store(0));
    }

    fn is_live(&self, word: FlowWord) -> bool {
        let member = word.member().and_then(|id| self.member(id)).map_or(MemberWord(0), |cell| MemberWord(cell.load()));
        let service = member.service();
        service != ServiceId::NONE && word.idle(self.tick()) <= self.services[usize::from(service.0)].idle_s
    }

    /// A NAT flow's record.
    ///
    /// # Panics
    /// If there is none of this index.
    pub fn nat_record(&self, index: u32) -> NatFlow {
        read_record(&self.nat_flows[index as usize])
    }

    /// The words of the NAT directory that are in use, and all that there are.
    pub fn nat_directory_load(&self) -> (usize, usize) {
        let used = self.nat_lines.iter().flatten().filter(|cell| cell.load() != 0).count();
        (used, self.nat_lines.len() * WORDS_PER_LINE)
    }
}

fn note_index(service: ServiceId, note: Note) -> usize {
    (u32::from(service.0) * Note::COUNT + note.index()) as usize
}

fn read_record(line: &Line) -> NatFlow {
    bytemuck::cast(line.each_ref().map(Cell::load))
}

fn record<T: Copy>(records: &[T], index: impl Into<u32>) -> Option<Record<T>> {
    records.get(index.into() as usize).copied().map(Record)
}

impl Tables for Arrays {
    type Cell = Word;
    type Ref<'a, T: Pod> = Record<T>;

    fn setting(&self, field: impl Fn(&Settings) -> &u32) -> u32 {
        *field(&self.settings)
    }

    fn table_key(&self) -> u64 {
        self.settings.table_key
    }

    fn slot_key(&self) -> u64 {
        self.settings.slot_key
    }

    fn is_own_mac(&self, _: u64) -> bool {
        true
    }

    fn tick(&self) -> Tick {
        (self.micros() / 1_000_000) as Tick
    }

    fn micros(&self) -> u64 {
        self.micros.load(Relaxed)
    }

    fn vip_line(&self, index: u32) -> Option<&Line> {
        self.vip_lines.get(index as usize)
    }

    fn vip(&self, index: u16) -> Option<Record<Vip>> {
        record(&self.vips, index)
    }

    fn port_line(&self, index: u32) -> Option<&Line> {
        self.port_lines.get(index as usize)
    }

    fn service(&self, id: ServiceId) -> Option<Record<Service>> {
        record(&self.services, id.0)
    }

    fn slot(&self, page: u32, offset: u32) -> Option<&Word> {
        match offset.checked_sub(SLOTS_PER_PAGE) {
            Some(clean) => self.clean.get((page * (SLOTS_PER_PAGE / CleanWord::SLOTS) + clean) as usize),
            None => self.slots.get((page * SLOTS_PER_PAGE + offset) as usize),
        }
    }

    fn member(&self, id: MemberId) -> Option<&Word> {
        self.members.get(usize::from(id.number()))
    }

    fn header(&self, index: u32) -> Option<Record<Header>> {
        record(&self.headers, index)
    }

    fn flow_line(&self, index: u32) -> Option<&Line> {
        self.flow_lines.get(index as usize)
    }

    fn remember(&self, service: &Service, slot: SlotWord, hash: Hash, manner: Manner) -> Remembered {
        choose::remembered(self, service, slot, hash, manner)
    }

    fn fragment_line(&self, index: u32) -> Option<&Line> {
        self.fragment_lines.get(index as usize)
    }

    fn rate_line(&self, index: u32) -> Option<&Line> {
        self.rate_lines.get(index as usize)
    }

    fn source_rule(&self, service: ServiceId, source: &Address) -> SourceRule {
        let covering = self.rules.iter().filter(|rule| rule.covers(service, source));
        covering.max_by_key(|rule| rule.prefix_bits).map_or(0, |rule| rule.rule)
    }

    fn nat_line(&self, index: u32) -> Option<&Line> {
        self.nat_lines.get(index as usize)
    }

    fn nat_port_line(&self, index: u32) -> Option<&Line> {
        self.nat_port_lines.get(index as usize)
    }

    fn nat_flow(&self, index: u32) -> Option<Record<NatFlow>> {
        self.nat_flows.get(index as usize).map(|line| Record(read_record(line)))
    }

    fn set_nat_flow(&self, index: u32, flow: &NatFlow) {
        let words: [u64; WORDS_PER_LINE] = bytemuck::cast(*flow);
        if let Some(line) = self.nat_flows.get(index as usize) {
            line.iter().zip(words).for_each(|(cell, word)| cell.store(word));
        }
    }

    fn nat_plane(&self, index: u16) -> Option<Record<NatPlane>> {
        record(&self.planes, index)
    }

    fn nat_chunks_used(&self, plane: u16) -> Option<&Word> {
        self.chunks_used.get(usize::from(plane))
    }

    fn nat_chunk(&self, plane: u16, position: u8) -> Option<&Word> {
        self.chunks.get(usize::from(plane) * CHUNKS_PER_PLANE as usize + usize::from(position))
    }

    fn nat_free(&self, index: u32) -> Option<&Word> {
        self.free_chunks.get(index as usize)
    }

    fn open_nat(&self, service: &Service, opening: &mut Opening, plane: u16) -> Result<u32, Drop> {
        open::open(self, service, opening, plane)
    }

    fn claim_port(&self, plane: u16, start: u32, span: Span, terms: Terms, now: Tick) -> Claimed {
        open::claim_port(self, plane, start, span, terms, now)
    }

    fn claim_in_line(&self, line: u32, terms: Terms, now: Tick) -> u64 {
        open::claim_in_line(self, line, terms, now)
    }

    fn claim_rested(&self, plane: u16, start: u32, chunks: u32, terms: Terms, now: Tick) -> Claimed {
        open::claim_rested(self, plane, start, chunks, terms, now)
    }

    fn rested_in_line(&self, line: u32, terms: Terms, now: Tick) -> u64 {
        open::rested_in_line(self, line, terms, now)
    }

    fn nat_endpoint_line(&self, index: u32) -> Option<&Line> {
        self.endpoint_lines.get(index as usize)
    }

    fn touch(&self, service: ServiceId) -> Option<&Word> {
        self.touches.get(usize::from(service.0))
    }

    fn note(&self, service: ServiceId, note: Note) {
        if let Some(count) = self.notes.get(note_index(service, note)) {
            count.fetch_add(1, Relaxed);
        }
    }

    fn trace(&self, step: Step) {
        if self.is_recording.load(Relaxed) {
            self.steps.lock().unwrap_or_else(PoisonError::into_inner).push(step);
        }
    }
}
