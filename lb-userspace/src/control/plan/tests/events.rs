//! Random sequences of edits, check results, the operator's words and restarts, as the daemon takes them.

use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::world::*;
use crate::{
    config::{self, ConfigText, model::Config},
    control::{
        desired::{Desired, Host},
        op::Op,
        overrides::{AddedServer, Overrides},
        plan::{Freeable, Plan, recognise},
        standing::{AdminState, ServerName, View},
    },
    health::{book::Book, driver::Changed},
};
use lb_common::words::MemberWord;

/// As a file has it.
#[derive(Clone, Debug)]
struct File {
    forward: &'static str,
    on_down: &'static str,
    panic_threshold: u8,
    slow_start_s: u8,
    /// By pool, the servers' numbers, weights, states and whether they are backups.
    pools: [Vec<(u8, u16, &'static str, bool)>; 2],
    /// By listener, its pool.
    listeners: Vec<u8>,
}

impl File {
    fn config(&self) -> Config {
        let mut text = String::from("[node]\nname = 'n'\ninterfaces = ['eth0']\nslot_seed = 'seed'\n");
        for (number, pool) in self.listeners.iter().enumerate() {
            text += &format!("[listener.l{number}]\nmode = 'l4'\nbind = '192.0.2.{}:80'\npool = 'p{pool}'\nslots = 1024\n", number + 1);
        }
        for (number, servers) in self.pools.iter().enumerate() {
            text += &format!("[pool.p{number}]\nforward = '{}'\non_down = '{}'\n", self.forward, self.on_down);
            text += &format!(
                "panic_threshold = '{}%'\nslow_start = '{}s'\ncheck = {{ tcp = true, port = 80 }}\n",
                self.panic_threshold, self.slow_start_s
            );
            for (server, weight, state, backup) in servers {
                text += &format!(
                    "servers.s{server} = {{ address = '10.0.0.{server}', weight = {weight}, state = '{state}', backup = {backup} }}\n"
                );
            }
        }
        let text = ConfigText::new("test", text);
        let parsed = config::parse(&text, "host");
        parsed.unwrap_or_else(|findings| panic!("{}\n{}", text.text, findings[0].render(&text))).0
    }
}

fn a_file() -> impl Strategy<Value = File> {
    let state = prop_oneof![4 => Just("ready"), 1 => Just("drain"), 1 => Just("down")];
    let server = (prop_oneof![4 => Just(10_u16), 1 => 0..30_u16], state, prop::bool::weighted(0.2));
    let servers = prop::collection::btree_map(1..=6_u8, server, 1..=5);
    let servers =
        servers.prop_map(|servers| servers.into_iter().map(|(number, (weight, state, backup))| (number, weight, state, backup)).collect());
    let forward = prop_oneof![3 => Just("dsr"), 2 => Just("ipip"), 2 => Just("nat")];
    let on_down = prop_oneof![Just("keep"), Just("close-sessions")];
    let (threshold, slow_start) = (prop_oneof![2 => Just(0), 1 => Just(50)], prop_oneof![Just(1), Just(10)]);
    let listeners = prop::collection::vec(0..2_u8, 1..=3);
    (forward, on_down, threshold, slow_start, [servers.clone(), servers], listeners).prop_map(
        |(forward, on_down, panic_threshold, slow_start_s, pools, listeners)| File {
            forward,
            on_down,
            panic_threshold,
            slow_start_s,
            pools,
            listeners,
        },
    )
}

#[derive(Clone, Debug)]
enum Event {
    Edit(Box<File>),
    Checked { pool: u8, server: u8, is_up: bool },
    Said { pool: u8, server: u8, state: Option<AdminState>, weight: Option<u16> },
    Added { pool: u8, server: u8 },
    Removed { pool: u8, server: u8 },
    Switched { listener: u8, pool: u8 },
    Routed { server: u8, is_reached: bool },
    Passed { seconds: u8 },
    Restarted,
}

fn an_event() -> impl Strategy<Value = Event> {
    let state = prop::option::of(prop_oneof![Just(AdminState::Ready), Just(AdminState::Drain), Just(AdminState::Maint)]);
    let (pool, server) = (0..2_u8, 1..=6_u8);
    prop_oneof![
        2 => a_file().prop_map(|file| Event::Edit(Box::new(file))),
        6 => (pool.clone(), server.clone(), any::<bool>()).prop_map(|(pool, server, is_up)| Event::Checked { pool, server, is_up }),
        3 => (pool.clone(), server.clone(), state, prop::option::of(0..20_u16))
            .prop_map(|(pool, server, state, weight)| Event::Said { pool, server, state, weight }),
        1 => (pool.clone(), 7..=9_u8).prop_map(|(pool, server)| Event::Added { pool, server }),
        1 => (pool.clone(), server.clone()).prop_map(|(pool, server)| Event::Removed { pool, server }),
        1 => (0..3_u8, pool).prop_map(|(listener, pool)| Event::Switched { listener, pool }),
        1 => (server, any::<bool>()).prop_map(|(server, is_reached)| Event::Routed { server, is_reached }),
        2 => (0..8_u8).prop_map(|seconds| Event::Passed { seconds }),
        1 => Just(Event::Restarted),
    ]
}

/// What the daemon keeps.
struct Node {
    world: World,
    configured: Config,
    overrides: Overrides,
    book: Book,
    host: Host,
    settled: Option<Desired>,
    now: Instant,
}

impl Node {
    #[allow(clippy::disallowed_methods, reason = "an instant to begin with")]
    fn start(configured: Config, host: Host) -> Self {
        let (world, overrides, book) = (World::new(), Overrides::default(), Book::default());
        #[allow(clippy::disallowed_methods, reason = "an instant can be had from the clock alone; all others are counted from it")]
        let now = Instant::now();
        let mut node = Self { world, configured, overrides, book, host, settled: None, now };
        node.take_config();
        node
    }

    /// One that finds empty maps, and what this one keeps on its disk.
    fn afresh(&self) -> Self {
        let mut node = Self {
            world: World::new(),
            configured: self.configured.clone(),
            overrides: self.overrides.clone(),
            book: Book::new(self.book.entries().clone()),
            host: self.host.clone(),
            settled: None,
            now: self.now,
        };
        node.take_config();
        node
    }

    fn config(&self) -> Config {
        self.overrides.effective(&self.configured)
    }

    fn take_config(&mut self) {
        self.book.checks(&self.config(), &self.overrides.servers);
        self.converge();
    }

    fn desired(&self) -> Desired {
        let view = View { health: self.book.health(&self.config(), self.now), overrides: self.overrides.servers.clone() };
        Desired::from_config(&self.config(), &view, &self.host)
    }

    /// Something became known of a server of this pool, and nothing else.
    fn converge_pool(&mut self, pool: &str) {
        let pools = std::collections::BTreeSet::from([pool.to_owned()]);
        let Some(settled) = &self.settled else { return self.converge() };
        let view = View { health: self.book.health_of(&pools, &self.config(), self.now), overrides: self.overrides.servers.clone() };
        let desired = settled.with_pools(&pools, &self.config(), &view, &self.host);
        assert_eq!(desired, self.desired());
        self.converge_to(desired);
    }

    fn converge(&mut self) {
        let desired = self.desired();
        self.converge_to(desired);
    }

    fn converge_to(&mut self, desired: Desired) {
        let Plan { ops, unplaced } = match self.settled.take() {
            Some(settled) => self.world.change(&settled, &desired),
            None => self.world.plan(&desired, &Freeable::default()),
        };
        for op in &ops {
            if let Op::SetSlots { current, .. } = op {
                current.iter().flatten().for_each(|member| self.assert_alive(*member, &desired));
            }
            self.world.perform(op);
        }
        self.settled = unplaced.is_empty().then_some(desired);
    }

    /// No slot is ever given to a server that is down, drains or is not there.
    fn assert_alive(&self, member: lb_common::words::MemberId, desired: &Desired) {
        let member = &self.world.maps.members[&member];
        let service = desired.services.iter().find(|(key, _)| self.world.maps.services[&member.service].record.vip == key.vip_address());
        let wanted = service.and_then(|(_, service)| service.members.get(&member.endpoint())).expect("it is desired");
        assert!(wanted.weight > 0 && wanted.state & (MemberWord::DOWN | MemberWord::NO_NEW) == 0, "{wanted:?}");
    }

    fn handle(&mut self, event: &Event) {
        let name = |pool: u8, server: u8| ServerName::new(format!("p{pool}"), format!("s{server}"));
        match event {
            Event::Edit(file) => {
                self.configured = file.config();
                self.take_config();
            }
            Event::Checked { pool, server, is_up } => {
                let changed = Changed { server: name(*pool, *server), is_up: *is_up, cause: None, results: 1 };
                self.book.handle_changed(&changed, &self.config(), self.now, 0);
                self.converge_pool(&changed.server.pool);
            }
            Event::Said { pool, server, state, weight } => {
                self.overrides.say(&name(*pool, *server), |said| (said.state, said.weight) = (*state, *weight));
                self.take_config();
            }
            Event::Added { pool, server } => {
                let added = AddedServer { address: std::net::IpAddr::from([10, 0, 0, *server]), port: None, weight: 5, backup: false };
                // It may be there.
                let _ = self.overrides.add(&self.config(), name(*pool, *server), added);
                self.take_config();
            }
            Event::Removed { pool, server } => {
                let _ = self.overrides.remove(&self.config(), &name(*pool, *server));
                self.take_config();
            }
            Event::Switched { listener, pool } => {
                let _ = self.overrides.switch(&self.config(), &format!("l{listener}"), Some(&format!("p{pool}")));
                self.take_config();
            }
            Event::Routed { server, is_reached } => {
                let (hops, address) = (std::sync::Arc::make_mut(&mut self.host.next_hops), std::net::IpAddr::from([10, 0, 0, *server]));
                if *is_reached {
                    hops.insert(address, next_hop(*server));
                } else {
                    hops.remove(&address);
                }
                self.converge();
            }
            Event::Passed { seconds } => {
                self.now += Duration::from_secs(u64::from(*seconds));
                self.world.wait(u32::from(*seconds));
                self.book.handle_timeout(&self.config(), self.now);
                self.converge();
            }
            Event::Restarted => {
                self.book = Book::new(self.book.entries().clone());
                self.world.maps.services.values_mut().for_each(|service| service.shares = None);
                self.settled = None;
                self.book.checks(&self.config(), &self.overrides.servers);
                let desired = self.desired();
                recognise(&mut self.world.maps, &desired);
                self.converge();
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn whatever_happened_the_maps_end_as_a_fresh_start_builds_them(first in a_file(), events in prop::collection::vec(an_event(), 1..25)) {
        let mut node = Node::start(first.config(), host());
        for event in &events {
            node.handle(event);
        }
        // Slow starts end.
        node.handle(&Event::Passed { seconds: 60 });
        prop_assert_eq!(node.world.view(), node.afresh().world.view());
        prop_assert!(node.world.leads_where_it_can());
        let desired = node.desired();
        prop_assert_eq!(node.world.plan(&desired, &Freeable::default()), Plan::default());
        // What nothing names any more is freed, and nothing else.
        node.world.come_to_rest(&desired);
        prop_assert_eq!(node.world.view(), node.afresh().world.view());
    }
}
