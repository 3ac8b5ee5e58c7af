//! The packet path's tables as the shared decision sees them, for `weir explain`: what it would write stays in copies, and what it would count
//! is left out.

use std::{
    cell::{Cell as Local, RefCell},
    collections::BTreeMap,
    ops::Deref,
    rc::Rc,
};

use bytemuck::Pod;
use lb_common::{
    address::Address,
    choose::{self, Manner, Remembered},
    hash::Hash,
    maps::{CHUNKS_PER_PLANE, Header, Line, NatFlow, NatPlane, Service, Settings, SourceRule, Vip, WORDS_PER_LINE},
    nat::open::{self, Claimed, Opening, Span, Terms},
    reason::{Drop, Note},
    tables::{Cell, CellLine, Step, Tables as PacketTables},
    words::{MemberId, ServiceId, SlotWord, Tick},
};
use typed_arena::Arena;

use super::{Features, Mapped, Moment, Tables};

/// What the decision passed on its way, in order.
pub type Passed = Vec<Step>;

/// A word's place: its table, and the number of the word there.
type Place = (&'static str, u64);

/// The tables, read only. The first look-up of a word copies it, and all later ones give that copy: so the decision finds again what it wrote, and
/// disturbs nobody.
pub struct Observer<'t> {
    tables: &'t Tables,
    settings: Settings,
    now: Moment,
    words: RefCell<BTreeMap<Place, Copied>>,
    cells: Arena<Copied>,
    lines: Arena<CellLine<Copied>>,
    passed: RefCell<Passed>,
}

impl std::fmt::Debug for Observer<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Observer").field("now", &self.now).finish_non_exhaustive()
    }
}

/// A word as it was when it was first looked up, and as it was written since.
#[derive(Clone, Debug)]
pub struct Copied(Rc<Local<u64>>);

impl Cell for Copied {
    fn load(&self) -> u64 {
        self.0.get()
    }

    fn store(&self, word: u64) {
        self.0.set(word);
    }

    fn replace(&self, old: u64, new: u64) -> bool {
        self.0.get() == old && {
            self.0.set(new);
            true
        }
    }
}

/// A copied record.
#[derive(Debug)]
pub struct Record<T>(T);

impl<T> Deref for Record<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<'t> Observer<'t> {
    /// Looks at `tables` as a program built for every feature would, at the kernel's time `now`.
    pub fn new(tables: &'t Tables, now: Moment) -> Self {
        let settings = tables.settings(Features(u32::MAX));
        Self { tables, settings, now, words: RefCell::default(), cells: Arena::new(), lines: Arena::new(), passed: RefCell::default() }
    }

    /// What was passed since it was made.
    pub fn passed(&self) -> Passed {
        self.passed.borrow().clone()
    }

    fn copy(&self, table: &'static str, number: u64, word: u64) -> Copied {
        self.words.borrow_mut().entry((table, number)).or_insert_with(|| Copied(Rc::new(Local::new(word)))).clone()
    }

    fn line(&self, name: &'static str, table: &Mapped<Line>, index: u32) -> Option<&CellLine<Copied>> {
        let line = table.record(index).ok()?;
        let first = u64::from(index) * WORDS_PER_LINE as u64;
        Some(self.lines.alloc(std::array::from_fn(|place| self.copy(name, first + place as u64, line[place]))))
    }

    fn cell(&self, table: &'static str, number: u64, word: u64) -> &Copied {
        self.cells.alloc(self.copy(table, number, word))
    }

    fn word(&self, name: &'static str, table: &Mapped<u64>, index: u32) -> Option<&Copied> {
        Some(self.cell(name, u64::from(index), table.word(index, 0).ok()?))
    }

    fn record<T: Pod>(&self, table: &Mapped<T>, index: u32) -> Option<Record<T>> {
        table.record(index).ok().map(Record)
    }
}

impl PacketTables for Observer<'_> {
    type Cell = Copied;
    type Ref<'a, T: Pod>
        = Record<T>
    where
        Self: 'a;

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
        // A packet that is only spoken of has no link-layer address.
        true
    }

    fn tick(&self) -> Tick {
        self.now.tick
    }

    fn micros(&self) -> u64 {
        self.now.micros
    }

    fn vip_line(&self, index: u32) -> Option<&CellLine<Copied>> {
        self.line("vip_lines", &self.tables.vip_lines, index)
    }

    fn vip(&self, index: u16) -> Option<Record<Vip>> {
        self.record(&self.tables.vips, u32::from(index))
    }

    fn port_line(&self, index: u32) -> Option<&CellLine<Copied>> {
        self.line("port_lines", &self.tables.port_lines, index)
    }

    fn service(&self, id: ServiceId) -> Option<Record<Service>> {
        self.record(&self.tables.services, u32::from(id.0))
    }

    fn slot(&self, page: u32, offset: u32) -> Option<&Copied> {
        let word = self.tables.slot_word(page, offset).ok()??;
        Some(self.cell("slots", u64::from(page) << 32 | u64::from(offset), word.0))
    }

    fn member(&self, id: MemberId) -> Option<&Copied> {
        self.word("members", &self.tables.members, u32::from(id.number()))
    }

    fn header(&self, index: u32) -> Option<Record<Header>> {
        self.record(&self.tables.headers, index)
    }

    fn flow_line(&self, index: u32) -> Option<&CellLine<Copied>> {
        self.line("flows", &self.tables.flows, index)
    }

    fn remember(&self, service: &Service, slot: SlotWord, hash: Hash, manner: Manner) -> Remembered {
        choose::remembered(self, service, slot, hash, manner)
    }

    fn fragment_line(&self, index: u32) -> Option<&CellLine<Copied>> {
        self.line("fragments", &self.tables.fragments, index)
    }

    fn rate_line(&self, index: u32) -> Option<&CellLine<Copied>> {
        self.line("rates", &self.tables.rates, index)
    }

    fn source_rule(&self, service: ServiceId, source: &Address) -> SourceRule {
        self.tables.source_rule(service, source.ip()).ok().flatten().unwrap_or(0)
    }

    fn nat_line(&self, index: u32) -> Option<&CellLine<Copied>> {
        self.line("nat_lines", &self.tables.nat_lines, index)
    }

    fn nat_port_line(&self, index: u32) -> Option<&CellLine<Copied>> {
        self.line("nat_ports", &self.tables.nat_ports, index)
    }

    fn nat_flow(&self, index: u32) -> Option<Record<NatFlow>> {
        self.record(&self.tables.nat_flows, index)
    }

    fn set_nat_flow(&self, _index: u32, _flow: &NatFlow) {}

    fn nat_plane(&self, index: u16) -> Option<Record<NatPlane>> {
        self.record(&self.tables.nat_planes, u32::from(index))
    }

    fn nat_chunks_used(&self, plane: u16) -> Option<&Copied> {
        self.word("nat_used", &self.tables.nat_used, u32::from(plane))
    }

    fn nat_chunk(&self, plane: u16, position: u8) -> Option<&Copied> {
        let index = u32::from(plane) * CHUNKS_PER_PLANE + u32::from(position);
        self.word("nat_chunks", &self.tables.nat_chunks, index)
    }

    fn nat_free(&self, index: u32) -> Option<&Copied> {
        self.word("nat_free", &self.tables.nat_free, index)
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

    fn nat_endpoint_line(&self, index: u32) -> Option<&CellLine<Copied>> {
        self.line("nat_endpoints", &self.tables.nat_endpoints, index)
    }

    fn touch(&self, service: ServiceId) -> Option<&Copied> {
        Some(self.cell("touches", u64::from(service.0), 0))
    }

    fn note(&self, _service: ServiceId, _note: Note) {}

    fn trace(&self, step: Step) {
        self.passed.borrow_mut().push(step);
    }
}
