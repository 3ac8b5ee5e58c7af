//! The servers of every service, what happens to them, and the daemon that tells the slots.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
};

use lb_common::{
    maps::ForwardKind,
    tables::{Cell, Tables},
    words::{MemberId, MemberWord, ServiceId, SlotState, SlotWord, Tick},
};
use lb_userspace::{
    balance::{
        Endpoint,
        maglev::{self, Share},
    },
    control::slot::{self, LearningTimer},
};

use super::{Micros, OnDown, PoolSpec, SECOND, Scenario, Spell};
use crate::{random::Random, tables::Arrays};

/// How often dead entries are swept from the cache.
const SWEEP_EVERY_S: Tick = 900;
/// How often the daemon looks for members to free.
const FREE_EVERY_S: Tick = 30;

#[derive(Clone, Debug)]
struct Server {
    endpoint: Endpoint,
    member: MemberId,
    /// 0 drains it.
    weight: u16,
    is_up: bool,
    retired_at: Option<Tick>,
}

#[derive(Clone, Debug)]
struct Pool {
    service: ServiceId,
    spec: PoolSpec,
    header: u32,
    servers: Vec<Server>,
    hosts: u32,
    /// When each slot began to learn.
    began: Vec<Tick>,
    has_changed: bool,
}

/// All services, their servers, and their daemon.
#[derive(Clone, Debug)]
pub(super) struct Farm {
    pools: Vec<Pool>,
    /// How often each member's sessions were closed.
    closings: BTreeMap<MemberId, u32>,
    ripen_every_s: Tick,
    change_every_s: f64,
    restart_every_s: f64,
    /// When the daemon is back.
    daemon_down_until: Option<Tick>,
    pub(super) changes: u64,
    pub(super) restarts: u64,
    pub(super) cleaned: u64,
    pub(super) freed: u64,
}

impl Farm {
    pub(super) fn new(tables: &mut Arrays, scenario: &Scenario, random: &mut Random) -> Self {
        let header = tables.add_plain_header(ForwardKind::Dsr);
        let seconds = |micros: Micros| micros as f64 / SECOND as f64;
        let mut farm = Self {
            pools: Vec::new(),
            closings: BTreeMap::new(),
            ripen_every_s: (scenario.ripen_every / SECOND) as Tick,
            change_every_s: seconds(scenario.change_every),
            restart_every_s: seconds(scenario.restart_every),
            daemon_down_until: None,
            changes: 0,
            restarts: 0,
            cleaned: 0,
            freed: 0,
        };
        let now = tables.tick();
        for spec in &scenario.pools {
            let service = tables.add_service(&spec.service);
            let began = vec![now; spec.service.slots as usize];
            let mut pool = Pool { service, spec: *spec, header, servers: Vec::new(), hosts: 0, began, has_changed: true };
            for _ in 0..2 + random.below(6) {
                pool.add(tables, random);
            }
            farm.pools.push(pool);
        }
        farm.apply(tables);
        farm
    }

    pub(super) fn services(&self) -> impl Iterator<Item = ServiceId> {
        self.pools.iter().map(|pool| pool.service)
    }

    pub(super) fn service(&self, pool: usize) -> ServiceId {
        self.pools[pool].service
    }

    pub(super) fn spell(&self, pool: usize) -> Spell {
        Spell { protocol: self.pools[pool].spec.service.protocol }
    }

    pub(super) fn closings(&self, member: MemberId) -> u32 {
        self.closings.get(&member).copied().unwrap_or(0)
    }

    /// Another second begins. Without random numbers nothing happens to the servers.
    pub(super) fn second(&mut self, tables: &mut Arrays, now: Micros, random: Option<&mut Random>) {
        let now = (now / SECOND) as Tick;
        if let Some(random) = random {
            self.happen(tables, now, random);
        }
        match self.daemon_down_until {
            Some(until) if now < until => return,
            Some(_) => {
                self.daemon_down_until = None;
                self.pools.iter_mut().for_each(|pool| pool.began.fill(now));
            }
            None => {}
        }
        self.apply(tables);
        if now.is_multiple_of(self.ripen_every_s) {
            self.cleaned += self.pools.iter().map(|pool| pool.ripen(tables, now)).sum::<u64>();
        }
        if now.is_multiple_of(FREE_EVERY_S) {
            self.free_due(tables, now);
        }
        if now.is_multiple_of(SWEEP_EVERY_S) {
            tables.sweep_flows();
        }
    }

    fn happen(&mut self, tables: &mut Arrays, now: Tick, random: &mut Random) {
        if self.daemon_down_until.is_none() && random.happens(1.0 / self.restart_every_s) {
            self.daemon_down_until = Some(now + random.below(60) as Tick);
            self.restarts += 1;
        }
        for pool in &mut self.pools {
            for server in pool.servers.iter_mut().filter(|server| !server.is_up) {
                server.is_up = random.happens(1.0 / 40.0);
                pool.has_changed |= server.is_up;
            }
            // A member is made by the daemon.
            if self.daemon_down_until.is_none() && random.happens(1.0 / self.change_every_s) {
                self.changes += 1;
                pool.change(tables, now, random);
            }
        }
    }

    /// Every server comes up and stays so.
    pub(super) fn calm(&mut self, tables: &Arrays) {
        self.daemon_down_until = None;
        for pool in &mut self.pools {
            pool.servers.iter_mut().for_each(|server| server.is_up = true);
            pool.has_changed = true;
        }
        self.apply(tables);
    }

    fn apply(&mut self, tables: &Arrays) {
        for pool in self.pools.iter_mut().filter(|pool| pool.has_changed) {
            pool.has_changed = false;
            for closed in pool.write_members(tables) {
                *self.closings.entry(closed).or_default() += 1;
            }
            pool.write_slots(tables);
        }
    }

    fn free_due(&mut self, tables: &Arrays, now: Tick) {
        let is_any_due = |pool: &Pool| pool.servers.iter().any(|server| server.is_due(pool.spec.service.idle_s, now));
        if !self.pools.iter().any(is_any_due) {
            return;
        }
        let live = tables.live_flows();
        for pool in &mut self.pools {
            let named = pool.named(tables);
            let idle_s = pool.spec.service.idle_s;
            let (freed, kept) = std::mem::take(&mut pool.servers)
                .into_iter()
                .partition(|server| server.is_due(idle_s, now) && !live.contains_key(&server.member) && !named.contains(&server.member));
            pool.servers = kept;
            for server in freed {
                tables.free_member(server.member);
                self.freed += 1;
            }
        }
    }
}

impl Server {
    fn is_due(&self, idle_s: u32, now: Tick) -> bool {
        self.retired_at.is_some_and(|since| now.wrapping_sub(since) > idle_s)
    }

    fn takes_new(&self) -> bool {
        self.is_up && self.weight > 0 && self.retired_at.is_none()
    }
}

impl Pool {
    fn add(&mut self, tables: &mut Arrays, random: &mut Random) {
        self.hosts += 1;
        let host = u32::from(self.service.0) << 16 | self.hosts;
        let endpoint = Endpoint { address: IpAddr::V4(Ipv4Addr::from_bits(0x0a80_0000 + host)), port: 80 };
        let member = tables.add_member(self.service, self.header);
        let weight = 1 + random.below(4) as u16;
        self.servers.push(Server { endpoint, member, weight, is_up: true, retired_at: None });
    }

    /// One thing happens to one of the servers.
    fn change(&mut self, tables: &mut Arrays, now: Tick, random: &mut Random) {
        self.has_changed = true;
        let in_use = self.servers.iter().filter(|server| server.retired_at.is_none()).count();
        let chosen = random.below(self.servers.len() as u64) as usize;
        let what = random.below(10);
        if in_use < 2 || (what < 2 && in_use < 10) {
            return self.add(tables, random);
        }
        let server = &mut self.servers[chosen];
        match what {
            0..=3 => server.retired_at = server.retired_at.or(Some(now)),
            4 | 5 => server.weight = if server.weight == 0 { 1 } else { 0 },
            6 | 7 => server.weight = 1 + random.below(8) as u16,
            _ => server.is_up = !server.is_up,
        }
    }

    /// Writes the members' states; the members whose sessions are closed by that.
    fn write_members(&self, tables: &Arrays) -> Vec<MemberId> {
        let mut closed = Vec::new();
        for server in &self.servers {
            let is_closing = !server.is_up && self.spec.on_down == OnDown::CloseSessions;
            let state = if server.takes_new() { 0 } else { MemberWord::NO_NEW }
                | if server.is_up { 0 } else { MemberWord::DOWN }
                | if is_closing { MemberWord::CLOSING } else { 0 };
            if is_closing && !tables.member_word(server.member).is(MemberWord::CLOSING) {
                closed.push(server.member);
            }
            tables.set_member_state(server.member, state);
        }
        closed
    }

    fn write_slots(&mut self, tables: &Arrays) {
        let takers: Vec<&Server> = self.servers.iter().filter(|server| server.takes_new()).collect();
        let shares: Vec<Share> = takers.iter().map(|server| Share { server: server.endpoint, weight: server.weight }).collect();
        let table = maglev::table(self.spec.service.slots, &shares);
        let now = tables.tick();
        for (index, cell) in tables.slots(self.service).iter().enumerate() {
            let current = table.get(index).map(|&taker| takers[usize::from(taker)].member);
            let before = SlotWord(cell.load());
            let after = slot::change(before, current, now);
            if after.timer == LearningTimer::Restart {
                self.began[index] = now;
            }
            tables.set_slot(self.service, index, after.word);
        }
    }

    /// Lets the slots ripen, and counts those that became clean.
    fn ripen(&self, tables: &Arrays, now: Tick) -> u64 {
        let touched = tables.touch(self.service).map_or(0, Cell::load);
        let last_no_room = (touched != 0).then_some(touched as Tick);
        let mut cleaned = 0;
        for (index, (cell, began)) in tables.slots(self.service).iter().zip(&self.began).enumerate() {
            let before = SlotWord(cell.load());
            if let Some(after) = slot::ripen(before, *began, last_no_room, self.spec.service.idle_s, now) {
                tables.set_slot(self.service, index, after);
                cleaned += u64::from(after.state() == SlotState::Clean);
            }
        }
        cleaned
    }

    /// The members that slots name.
    fn named(&self, tables: &Arrays) -> BTreeSet<MemberId> {
        let words = tables.slots(self.service).iter().map(|cell| SlotWord(cell.load()));
        words.flat_map(|word| [word.current(), word.default()]).flatten().collect()
    }
}
