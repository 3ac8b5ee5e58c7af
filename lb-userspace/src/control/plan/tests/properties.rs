//! Random configurations one after another, plans cut short anywhere.

use std::{net::IpAddr, sync::Arc};

use proptest::{prelude::*, sample::subsequence};

use super::world::*;
use crate::{
    config::model::{Balance, Forward, Listener, OnDown, Pool, Protocol, Rate, Server, ServerState, UdpFlows},
    control::{
        desired::{Desired, Host},
        installed::Capacity,
        plan::{Freeable, Plan, Unplaced},
        standing::View,
    },
};

fn a_server(number: u8, has_own_port: bool) -> impl Strategy<Value = Server> {
    let state = prop_oneof![4 => Just(ServerState::Ready), 1 => Just(ServerState::Drain), 2 => Just(ServerState::Down)];
    let weight = prop_oneof![3 => Just(10_u16), 1 => 0..=20_u16];
    (state, weight, prop::bool::weighted(0.25)).prop_map(move |(state, weight, backup)| {
        let port = has_own_port.then_some(8080);
        Server { state, weight, backup, port, ..server(number) }
    })
}

/// The lists are nested, so that all of them can have consecutive planes in the end.
fn a_forward() -> impl Strategy<Value = Forward> {
    let snat = |count: u8| Forward::Nat { snat: (0..count).map(|i| IpAddr::from([10, 0, 1, i])).collect() };
    prop_oneof![Just(Forward::Dsr), Just(Forward::Ipip), Just(Forward::Gue { port: 6080 }), (0..4_u8).prop_map(snat)]
}

fn a_pool() -> impl Strategy<Value = Pool> {
    let servers = (subsequence((1..=6_u8).collect::<Vec<_>>(), 1..=5), any::<bool>())
        .prop_flat_map(|(numbers, has_own_port)| numbers.into_iter().map(|number| a_server(number, has_own_port)).collect::<Vec<_>>());
    let on_down = prop_oneof![Just(OnDown::Keep), Just(OnDown::CloseSessions)];
    let balance = prop_oneof![Just(Balance::Tuple), Just(Balance::Source)];
    (servers, on_down, balance, a_forward()).prop_map(|(servers, on_down, balance, forward)| Pool {
        on_down,
        balance,
        forward,
        ..pool(&servers)
    })
}

/// Any of these binds, each in a listener of its own.
fn some_listeners() -> impl Strategy<Value = Vec<Listener>> {
    let binds = vec![
        bind("192.0.2.1", Some(80), Protocol::Tcp),
        bind("192.0.2.1", None, Protocol::Tcp),
        bind("192.0.2.1", Some(53), Protocol::Udp),
        bind("192.0.2.2", None, Protocol::Udp),
        bind("192.0.2.2", Some(80), Protocol::Tcp),
    ];
    let nets: Vec<ipnet::IpNet> = ["10.0.0.0/8", "10.1.0.0/16", "192.168.0.0/16"].map(|net| net.parse().unwrap()).into();
    let rules = (subsequence(nets.clone(), 0..=2), subsequence(nets, 0..=2));
    let options = (rules, any::<bool>(), any::<bool>(), 30..=90_u64, 0..2_u8);
    let listener = options.prop_map(|((allow, deny), is_limited, is_stateless, idle_s, pool)| {
        let idle = std::time::Duration::from_secs(idle_s);
        let conn_rate = is_limited.then_some(Rate { count: 10, per: idle });
        let udp = if is_stateless { UdpFlows::Stateless } else { UdpFlows::Tracked };
        Listener { allow, deny, conn_rate, udp, tcp_idle: idle, pool: format!("p{pool}"), ..web() }
    });
    let binds = subsequence(binds, 0..=5);
    (binds, prop::collection::vec(listener, 5)).prop_map(|(binds, listeners)| {
        binds.into_iter().zip(listeners).map(|(bind, listener)| Listener { binds: vec![bind], ..listener }).collect()
    })
}

fn a_host() -> impl Strategy<Value = Host> {
    (0..=6_u8, 0..3_u8).prop_map(|(unresolved, mac)| {
        let mut host = host();
        let next_hops = Arc::make_mut(&mut host.next_hops);
        next_hops.remove(&IpAddr::from([10, 0, 0, unresolved]));
        next_hops.values_mut().for_each(|hop| hop.source_mac = [mac; 6]);
        host
    })
}

fn a_desire() -> impl Strategy<Value = Desired> {
    (some_listeners(), a_pool(), a_pool(), a_host())
        .prop_map(|(listeners, first, second, host)| Desired::from_config(&config(&listeners, &[first, second]), &View::default(), &host))
}

#[derive(Clone, Debug)]
struct Step {
    desired: Desired,
    wait_s: u32,
    /// How much of the plan is performed.
    performed: f64,
}

fn a_step() -> impl Strategy<Value = Step> {
    let performed = prop_oneof![Just(1.0), 0.0..1.0];
    (a_desire(), prop_oneof![0..5_u32, 20..200_u32], performed).prop_map(|(desired, wait_s, performed)| Step { desired, wait_s, performed })
}

/// Plans until nothing is left to do at this time, which a first plan can make room for; what has no room then.
fn settle(world: &mut World, desired: &Desired) -> Vec<Unplaced> {
    for _ in 0..4 {
        let Plan { ops, unplaced } = world.plan(desired, &Freeable::default());
        if ops.is_empty() {
            return unplaced;
        }
        ops.iter().for_each(|op| world.perform(op));
    }
    panic!("the plan never ends")
}

fn a_small_capacity() -> impl Strategy<Value = Capacity> {
    let members = prop_oneof![1..12_u16, Just(100)];
    (1..6_u16, members, 1..20_u16).prop_map(|(services, members, planes)| Capacity { services, members, vips: services + planes, planes })
}

/// `before` with its first service as it is `after`, and the next hops of that.
fn mixed(before: &Desired, after: &Desired) -> Desired {
    let mut mixed = before.clone();
    if let Some((key, _)) = before.services.first_key_value() {
        match after.services.get(key) {
            Some(service) => drop(mixed.services.insert(*key, service.clone())),
            None => drop(mixed.services.remove(key)),
        }
    }
    mixed.next_hops.clone_from(&after.next_hops);
    mixed
}

fn perform(world: &mut World, step: &Step) {
    world.wait(step.wait_s);
    let freeable = world.freeable();
    let ops = world.plan(&step.desired, &freeable).ops;
    let performed = (ops.len() as f64 * step.performed).ceil() as usize;
    ops[..performed].iter().for_each(|op| world.perform(op));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    /// [`World::perform`] checks after every operation that no reachable slot names a free or unwritten member.
    #[test]
    fn whatever_was_done_before_a_plan_leads_to_what_a_fresh_start_builds(steps in prop::collection::vec(a_step(), 1..6), last in a_desire()) {
        let mut world = World::new();
        for step in &steps {
            perform(&mut world, step);
        }
        world.converge(&last);
        prop_assert!(world.leads_where_it_can());
        prop_assert_eq!(world.ops(&last, &Freeable::default()), vec![]);
        let fresh = World::fresh(&last);
        prop_assert_eq!(world.view(), fresh.view());
        world.come_to_rest(&last);
        prop_assert_eq!(world.view(), fresh.view());
        let is_anyone_up = world.maps.services.values().all(|service| service.current[0].is_some());
        // A slot without a server remembers its last one.
        if is_anyone_up {
            let numbers = |world: &World| (world.maps.services.len(), world.maps.members.len(), world.maps.rules.len(), world.maps.planes.len());
            prop_assert_eq!(world.vips(), fresh.vips());
            prop_assert_eq!(numbers(&world), numbers(&fresh));
        }
    }

    /// In tables that are too small for what was wanted before, and may be for what is wanted now.
    #[test]
    fn what_does_not_fit_holds_up_nothing_else(
        capacity in a_small_capacity(), steps in prop::collection::vec(a_step(), 1..5), last in a_desire(), cut in 0.0..1.0
    ) {
        let mut world = World::new();
        world.maps.capacity = capacity;
        for step in &steps {
            perform(&mut world, step);
        }
        let mut other = world.clone();
        let whole = world.plan(&last, &Freeable::default());
        let performed = (whole.ops.len() as f64 * cut) as usize;
        whole.ops[..performed].iter().for_each(|op| other.perform(op));
        let unplaced = settle(&mut world, &last);
        prop_assert_eq!(settle(&mut other, &last), unplaced.clone());
        prop_assert_eq!(world.view(), other.view());
        prop_assert!(world.follows(&last, &unplaced));
        prop_assert!(world.leads_where_it_can());
        world.come_to_rest(&last);
        other.come_to_rest(&last);
        let unplaced = world.plan(&last, &Freeable::default()).unplaced;
        prop_assert!(world.follows(&last, &unplaced));
        let mut fresh = World::new();
        fresh.maps.capacity = Capacity { planes: capacity.planes / 4, members: capacity.members / 2, ..capacity };
        // A slot without a server remembers its last one, whose number is not free.
        let is_anyone_up = world.maps.services.values().all(|service| service.current[0].is_some());
        if is_anyone_up && fresh.plan(&last, &Freeable::default()).unplaced.is_empty() {
            prop_assert_eq!(unplaced, vec![]);
        }
    }

    /// To look at what differs alone finds what a look at everything finds.
    #[test]
    fn a_change_is_planned_as_the_whole(
        capacity in prop_oneof![2 => Just(CAPACITY), 1 => a_small_capacity()], steps in prop::collection::vec(a_step(), 2..7)
    ) {
        let mut world = World::new();
        world.maps.capacity = capacity;
        let mut settled: Option<Desired> = None;
        for step in &steps {
            if let Some(before) = &settled {
                for after in [&step.desired, &mixed(before, &step.desired)] {
                    prop_assert_eq!(world.clone().change(before, after), world.clone().plan(after, &Freeable::default()));
                }
            }
            perform(&mut world, step);
            let is_settled = world.converge_once(&step.desired) && world.plan(&step.desired, &Freeable::default()) == Plan::default();
            settled = is_settled.then(|| step.desired.clone());
        }
    }

    #[test]
    fn reading_the_maps_back_finds_no_difference(desired in a_desire()) {
        let mut world = World::fresh(&desired);
        for service in world.maps.services.values_mut() {
            service.shares = None;
        }
        prop_assert_eq!(world.ops(&desired, &Freeable::default()), vec![]);
        super::recognise(&mut world.maps, &desired);
        prop_assert!(world.maps.services.values().all(|service| service.shares.is_some()));
        prop_assert_eq!(world.ops(&desired, &Freeable::default()), vec![]);
    }
}
