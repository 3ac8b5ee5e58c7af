//! Whatever happened, some time after it has ended one router is active, and stays so.

use std::time::Duration;

use super::world::{Random, Wire, World, settings, vips};
use crate::vrrp::{
    addresses::AddressList,
    machine::{Conflict, FaultCause, Link, Router, State},
    settings::{Preempt, Reach, Settings},
    terms::Priority,
};

const SEEDS: u64 = 300;

/// Longer than the hold after a yield, the delays, and ten of the longest intervals.
const SETTLES_IN: Duration = Duration::from_secs(6);

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn nodes(random: &mut Random) -> Vec<(Settings, u8)> {
    let number = 2 + random.below(4) as usize;
    let owner = random.below(10) as usize;
    let is_unicast = random.below(3) == 0;
    let node = |node| {
        let preempt = [Preempt::AtOnce, Preempt::AtOnce, Preempt::Never, Preempt::After(ms(500))][random.below(4) as usize];
        let start_delay = ms([0, 0, 500][random.below(3) as usize]);
        // Some are equal.
        let priority = if node == owner { 255 } else { [100, 100, 1 + random.below(254) as u8][random.below(3) as usize] };
        let interval = [50, 100, 100, 200][random.below(4) as usize];
        let of = settings(node, interval);
        let peers = (0..number).filter(|peer| *peer != node).map(|peer| settings(peer, interval).primary);
        let reach = if is_unicast { Reach::Unicast(peers.collect()) } else { Reach::Multicast };
        (Settings { preempt, start_delay, reach, ..of }, priority)
    };
    (0..number).map(node).collect()
}

fn disturb(world: &mut World, random: &mut Random) {
    let node = random.below(world.nodes.len() as u64) as usize;
    match random.below(18) {
        0 => world.kill(node),
        1 => world.power_off(node),
        2 | 3 => world.start(node),
        4 => world.nodes[node].is_suspended = true,
        5 | 6 => world.resume(node),
        7 => world.tell(node, Router::handle_yield),
        8 => world.tell(node, Router::handle_ready),
        9 => world.tell(node, Router::handle_stop),
        10 => {
            let priority = Priority::new(1 + random.below(254) as u8).unwrap();
            world.tell(node, |router, now| router.handle_priority(priority, now));
        }
        11 => (0..world.nodes.len()).for_each(|node| world.nodes[node].island = random.below(2)),
        12 => world.nodes.iter_mut().for_each(|node| node.island = 0),
        13 => {
            world.loss_pct = [0, 5, 30, 90][random.below(4) as usize];
            world.delay_us = [200, 5_000, 80_000][random.below(3) as usize];
            world.lag_us = [100, 20_000, 200_000][random.below(3) as usize];
        }
        14 => world.tell(node, |router, now| router.handle_fault(FaultCause::Tracked, now)),
        15 => {
            let interval = settings(node, [20, 100, 300][random.below(3) as usize]).interval;
            world.nodes[node].settings.interval = interval;
            let changed = world.nodes[node].settings.clone();
            world.tell(node, |router, now| router.handle_settings(changed, now).unwrap());
        }
        16 => {
            let one = AddressList::new(&vips().as_slice()[..1]).unwrap();
            world.tell(node, |router, now| router.handle_addresses(one, now).unwrap());
        }
        _ => {
            world.tell(node, |router, now| router.handle_link(Link::Down, now));
            world.run(ms(random.below(300)));
            world.tell(node, |router, now| router.handle_link(Link::Up, now));
        }
    }
}

fn calm(world: &mut World) {
    (world.loss_pct, world.delay_us, world.lag_us) = (0, 200, 100);
    for node in 0..world.nodes.len() {
        world.nodes[node].island = 0;
        world.resume(node);
        world.start(node);
        world.tell(node, |router, now| router.handle_fault_over(FaultCause::Tracked, now));
        world.tell(node, |router, now| router.handle_link(Link::Up, now));
        world.tell(node, |router, now| router.handle_addresses(vips(), now).unwrap());
    }
}

#[test]
fn one_router_is_active_soon_after_any_disturbance_and_stays_so() {
    for seed in 0..SEEDS {
        let mut random = Random(seed ^ 0x5eed);
        let wire = if seed % 4 == 0 { Wire::keyed() } else { Wire::plain() };
        let mut world = World::of(wire, seed, nodes(&mut random));
        for _ in 0..5 + random.below(40) {
            world.run(ms(random.below(300)));
            disturb(&mut world, &mut random);
        }
        calm(&mut world);
        // Those that were stopping have ended.
        world.run(ms(1000));
        (0..world.nodes.len()).for_each(|node| world.start(node));
        world.run(SETTLES_IN);
        let transitions = world.log.len();
        let active = world.in_state(State::Active);
        let tail = |world: &World| world.log[world.log.len().saturating_sub(12)..].to_vec();
        assert_eq!(active.len(), 1, "seed {seed}: {:#?}", tail(&world));
        assert_eq!(world.holders(), active, "seed {seed}: {:#?}", tail(&world));
        world.watch();
        world.run(ms(10_000));
        assert_eq!(world.log.len(), transitions, "seed {seed}: {:#?}", tail(&world));
        assert_eq!(world.link, Some(active[0]), "seed {seed}: the link looks elsewhere: {:#?}", tail(&world));
        assert_eq!(world.longest_gap, Duration::ZERO, "seed {seed}");
    }
}

#[test]
fn nothing_changes_while_one_advert_in_fifty_is_lost() {
    for seed in 0..20 {
        let mut world = World::new(seed, [(settings(0, 100), 200), (settings(1, 100), 100)]);
        world.run(ms(2000));
        world.loss_pct = 2;
        world.lag_us = 20_000;
        let transitions = world.log.len();
        world.run(Duration::from_secs(60));
        // Three in a row must be lost for a change: 8 in a million, 600 times.
        assert_eq!(world.log.len(), transitions, "seed {seed}");
    }
}

#[test]
fn two_parts_have_one_active_router_each_and_the_better_one_stays() {
    for phase in 0..20 {
        let mut world = World::new(phase, [(settings(0, 100), 200), (settings(1, 100), 100), (settings(2, 100), 150)]);
        world.run(ms(2000));
        assert_eq!(world.in_state(State::Active), [0]);
        world.nodes[1].island = 1;
        world.nodes[2].island = 1;
        world.run(ms(2000 + 5 * phase));
        assert_eq!(world.in_state(State::Active), [0, 2]);
        world.nodes.iter_mut().for_each(|node| node.island = 0);
        world.run(ms(200));
        // Whoever heard the other first, the link looks for the addresses where they are.
        assert_eq!((world.in_state(State::Active), world.holders(), world.link), (vec![0], vec![0], Some(0)), "{phase}");
    }
}

#[test]
fn nodes_whose_files_differ_have_one_active_router() {
    for (of, intervals_ms) in [(1, [100, 100]), (2, [100, 1000]), (2, [1000, 100])] {
        let nodes = [(settings(0, intervals_ms[0]), 200), (settings(1, intervals_ms[1]), 100)];
        let mut world = World::new(1, nodes);
        let some = AddressList::new(&vips().as_slice()[..of]).unwrap();
        world.tell(0, |router, now| router.handle_addresses(some, now).unwrap());
        world.run(ms(10_000));
        assert_eq!((world.in_state(State::Active), world.holders()), (vec![0], vec![0]));
        let transitions = world.log.len();
        world.run(ms(60_000));
        assert_eq!(world.log.len(), transitions);
        let router = world.nodes[1].router.as_ref().unwrap();
        let wrong: Vec<_> = router.peers().flat_map(|(_, peer)| peer.conflicts.iter().copied()).collect();
        assert_eq!(wrong, [if of == 1 { Conflict::Addresses } else { Conflict::Interval }]);
    }
}

#[test]
fn editing_the_interval_of_one_node_after_the_other_changes_nothing() {
    for seed in 0..20 {
        let mut world = World::new(seed, [(settings(0, 100), 200), (settings(1, 100), 100)]);
        world.run(ms(2000));
        world.loss_pct = 2;
        let transitions = world.log.len();
        for (node, interval_ms) in [(1, 10), (0, 10), (0, 1000), (1, 1000), (1, 50), (0, 50), (1, 400), (0, 400)] {
            world.tell(node, |router, now| router.handle_settings(settings(node, interval_ms), now).unwrap());
            world.run(ms(1900 + seed * 3));
        }
        assert_eq!(world.log.len(), transitions, "seed {seed}: {:#?}", &world.log[transitions..]);
    }
}
