//! Flows, servers and a daemon in virtual time, and beside them a full connection table: who should have had every packet.
//!
//! ```text
//!  flows ── packets ──→ lb_common::choose over Arrays ──→ member ─┐
//!    └──── owner, last packet: the full connection table ─────────┴→ kept, or a Break
//!  servers ── up, down, weights ──→ daemon: maglev, slot::change, slot::ripen ──→ slots
//! ```

use std::{cmp::Reverse, collections::BinaryHeap, net::IpAddr};

use lb_common::{
    address::Address,
    choose::{self, Asking, Chosen},
    flows,
    packet::{ports_word, protocol, tcp},
    place,
    reason::{Drop, Note},
    tables::Tables,
    words::{FlowState, MemberId, MemberWord, ServiceId, SlotWord, Tick},
};

use crate::{
    random::Random,
    tables::{Arrays, ServiceSpec, Sizes},
};

mod farm;
mod flow;

use farm::Farm;
use flow::{Flow, Spell};

/// Microseconds of virtual time, on the tables' clock.
pub type Micros = u64;

/// A second.
pub const SECOND: Micros = 1_000_000;

/// A service of the simulation.
#[derive(Clone, Copy, Debug)]
pub struct PoolSpec {
    /// What it is.
    pub service: ServiceSpec,
    /// Whether flows of a server that is down are closed.
    pub on_down: OnDown,
    /// How many flows it has at a time.
    pub flows: usize,
}

/// What becomes of the flows of a server that is down.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OnDown {
    /// They still go to it.
    Keep,
    /// They are refused.
    CloseSessions,
}

/// What is simulated.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// The same seed gives the same run.
    pub seed: u64,
    /// Lines of the flow cache.
    pub flow_lines: u32,
    /// How often the daemon looks for slots to ripen.
    pub ripen_every: Micros,
    /// The services.
    pub pools: Vec<PoolSpec>,
    /// On average, a service's servers change so often.
    pub change_every: Micros,
    /// On average, the daemon dies so often.
    pub restart_every: Micros,
}

/// A packet of a flow that the full table knew, which went elsewhere.
#[derive(Clone, Debug)]
pub struct Break {
    /// When.
    pub tick: Tick,
    /// Which service.
    pub service: ServiceId,
    /// Who had the flow.
    pub owner: MemberId,
    /// What became of the packet.
    pub went: Result<MemberId, Drop>,
    /// The slot before it.
    pub slot: SlotWord,
    /// Seconds since the flow's last packet.
    pub idle_s: u32,
    /// What the cache had said of the flow after its packet before.
    pub remembered: Option<FlowState>,
    /// Whether it says anything of it.
    pub is_cached: bool,
    /// Why.
    pub cause: Cause,
}

impl std::fmt::Display for Break {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { tick, service, owner, went, slot, idle_s, remembered, is_cached, cause } = self;
        let number = |id: Option<MemberId>| id.map_or(0, MemberId::number);
        let (current, default, stamp) = (number(slot.current()), number(slot.default()), slot.stamp());
        write!(f, "at {tick} s service {}: a flow of {} went to {went:?} after {idle_s} s; ", service.0, owner.number())?;
        write!(f, "slot {{{current}, {default}, {stamp}}}; remembered {remembered:?}, cached {is_cached}: {cause:?}")
    }
}

/// What explains a [`Break`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cause {
    /// Nothing does.
    Unknown,
    /// The cache had no room for the flow, and that was counted.
    NoRoom,
    /// The flow's entry was not a proven one, so that another could have its place after seconds.
    Displaced,
}

/// What came of a simulation.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Packets sent.
    pub packets: u64,
    /// Flows begun.
    pub flows: u64,
    /// Changes of a service's servers.
    pub changes: u64,
    /// Times the daemon died.
    pub restarts: u64,
    /// Flows that were given to a server by a connection opened while their slot was not clean.
    pub opened_unclean: u64,
    /// Connections refused as the cache had no room.
    pub refused: u64,
    /// Slots that became clean again.
    pub cleaned: u64,
    /// Members freed.
    pub freed: u64,
    /// SYNs that went to a member that takes no new flow, though the cache had room.
    pub misled: u64,
    /// Flows that broke.
    pub breaks: Vec<Break>,
}

impl Report {
    /// The breaks of this cause.
    pub fn broken_by(&self, cause: Cause) -> usize {
        self.breaks.iter().filter(|b| b.cause == cause).count()
    }
}

/// The world.
#[derive(Debug)]
pub struct Simulation {
    tables: Arrays,
    random: Random,
    farm: Farm,
    flows: Vec<Flow>,
    /// When each flow acts next.
    agenda: BinaryHeap<Reverse<(Micros, usize)>>,
    now: Micros,
    next_second: Micros,
    report: Report,
}

impl Simulation {
    /// The world at its start, an hour before the 14 bits of the cache's clock wrap.
    pub fn new(scenario: &Scenario) -> Self {
        const START: Micros = (16_384 - 3600) * SECOND;
        let mut random = Random::new(scenario.seed);
        let mut tables = Arrays::new(&Sizes { flow_lines: scenario.flow_lines, table_key: random.word(), ..Sizes::default() });
        tables.set_micros(START);
        let farm = Farm::new(&mut tables, scenario, &mut random);
        let mut flows = Vec::new();
        for (pool, spec) in scenario.pools.iter().enumerate() {
            for _ in 0..spec.flows {
                flows.push(Flow::new(pool, client(flows.len(), spec.service.vip), spec.service.idle_s));
            }
        }
        let begin = |(index, _)| Reverse((START + random.below(60 * SECOND), index));
        let agenda = flows.iter().enumerate().map(begin).collect();
        Self { tables, random, farm, flows, agenda, now: START, next_second: START, report: Report::default() }
    }

    /// Lets so much time pass.
    pub fn run(&mut self, duration: Micros) {
        let end = self.now + duration;
        while let Some(&Reverse((at, index))) = self.agenda.peek() {
            if at.min(self.next_second) >= end {
                break;
            }
            if self.next_second <= at {
                self.control(true);
            } else {
                self.agenda.pop();
                self.now = at;
                self.tables.set_micros(at);
                let next = self.act(index);
                self.agenda.push(Reverse((next.max(at + 1), index)));
            }
        }
        self.now = end;
    }

    /// Lets every server be up and all flows cease, and waits for so long.
    pub fn rest(&mut self, duration: Micros) {
        let end = self.now + duration;
        self.farm.calm(&self.tables);
        while self.next_second < end {
            self.control(false);
        }
        self.now = end;
    }

    /// Slots that are not clean, of all services.
    pub fn unclean_slots(&self) -> usize {
        let services = self.farm.services();
        services.flat_map(|id| self.tables.slots(id)).filter(|cell| slot_of(cell).default().is_some()).count()
    }

    /// What has come of it.
    pub fn report(&self) -> Report {
        let farm = &self.farm;
        Report { changes: farm.changes, restarts: farm.restarts, cleaned: farm.cleaned, freed: farm.freed, ..self.report.clone() }
    }

    /// The tables as they are.
    pub fn tables(&self) -> &Arrays {
        &self.tables
    }

    fn control(&mut self, changes: bool) {
        self.now = self.next_second;
        self.next_second += SECOND;
        self.tables.set_micros(self.now);
        self.farm.second(&mut self.tables, self.now, changes.then_some(&mut self.random));
    }

    /// The flow sends a packet or begins anew; when it acts next.
    fn act(&mut self, index: usize) -> Micros {
        let flow = &mut self.flows[index];
        if flow.is_over() {
            flow.begin(self.now, self.farm.spell(flow.pool), &mut self.random);
            self.report.flows += 1;
        }
        let sent = flow.step(self.now, &mut self.random);
        self.send(index, sent.tcp_flags);
        // Who is refused does not try again at once.
        self.now + if self.flows[index].is_over() { sent.wait.max(SECOND) } else { sent.wait }
    }

    fn send(&mut self, index: usize, tcp_flags: u8) {
        self.report.packets += 1;
        let (flow, tables) = (&mut self.flows[index], &self.tables);
        let id = self.farm.service(flow.pool);
        let service = tables.service(id).expect("the farm made it");
        let ports = ports_word(flow.port.to_be(), service.port.to_be());
        let now = tables.tick();
        let slot = tables.slot_of(id, &flow.source, ports);
        let no_room = tables.noted(id, Note::FlowNoRoom);
        let hash = place::flow(&flow.source, ports, &service, tables.table_key());
        let is_cached = slot.default().is_some() && flows::find(tables, hash).is_hit();
        let chosen = choose::member(tables, &service, &Asking { source: &flow.source, ports, tcp_flags, writes: true }).result();
        let met_no_room = tables.noted(id, Note::FlowNoRoom) != no_room;
        let idle_s = now.wrapping_sub(flow.last);
        flow.last = now;
        flow.met_no_room |= met_no_room;
        let is_syn = tcp_flags & tcp::SYN != 0;
        let owner = flow.owner.filter(|_| !is_syn && idle_s <= service.idle_s);
        if is_syn {
            self.report.misled += u64::from(!met_no_room && chosen.is_ok_and(|c| c.word.is(MemberWord::NO_NEW)));
            self.report.refused += u64::from(chosen == Err(Drop::FlowTableFull));
            self.report.opened_unclean += u64::from(slot.default().is_some());
        }
        let went = chosen.map(|c| c.id);
        let is_kept = owner.is_none_or(|owner| went == Ok(owner));
        if let Some(owner) = owner.filter(|&owner| !is_kept && !is_excused(tables, &self.farm, flow, owner, service.protocol)) {
            let cause = flow.cause(is_cached);
            let remembered = flow.remembered;
            self.report.breaks.push(Break { tick: now, service: id, owner, went, slot, idle_s, remembered, is_cached, cause });
        }
        if owner.is_none() || !is_kept {
            flow.adopt(chosen, |id| self.farm.closings(id), met_no_room);
        }
        let found = flows::find(tables, hash);
        flow.remembered = (slot.default().is_some() && found.is_hit()).then(|| found.word.state());
    }
}

/// Whether a full table would not have kept this flow either: its server closes sessions and was down since; or it is a datagram for a server
/// that is down, which leaves it wherever it is not known.
fn is_excused(tables: &Arrays, farm: &Farm, flow: &Flow, owner: MemberId, kind: u8) -> bool {
    let is_closed = farm.closings(owner) != flow.closings;
    is_closed || kind == protocol::UDP && tables.member_word(owner).is(MemberWord::DOWN)
}

fn slot_of(cell: &crate::tables::Word) -> SlotWord {
    SlotWord(lb_common::tables::Cell::load(cell))
}

/// The client of a flow: eight flows share an address.
fn client(index: usize, vip: IpAddr) -> (Address, u16) {
    let (host, turn) = (index as u32 / 8, index as u16 % 8);
    let address = match vip {
        IpAddr::V4(_) => Address::from_v4_word((0x0a00_0000 + host).to_be()),
        IpAddr::V6(_) => Address::from(IpAddr::V6((0x2001_0db8_u128 << 96 | u128::from(host) << 64 | 1).into())),
    };
    (address, 1024 + turn * 8000)
}

impl Flow {
    /// The flow is whoever's this packet went to.
    fn adopt(&mut self, chosen: Result<Chosen, Drop>, closings: impl Fn(MemberId) -> u32, met_no_room: bool) {
        self.met_no_room = met_no_room;
        self.owner = chosen.ok().map(|chosen| chosen.id);
        match self.owner {
            Some(owner) => self.closings = closings(owner),
            None => self.give_up(),
        }
    }

    /// Why it went to somebody else.
    fn cause(&self, is_cached: bool) -> Cause {
        match self.remembered {
            Some(FlowState::Syn | FlowState::Acknowledged | FlowState::Closed) if !is_cached => Cause::Displaced,
            _ if self.met_no_room => Cause::NoRoom,
            _ => Cause::Unknown,
        }
    }
}
