//! What a client loses when a router dies, yields, stops, sleeps or comes back.

use std::time::Duration;

use super::world::{Wire, World, settings};
use crate::vrrp::{
    machine::{Reason, Router, State},
    settings::Preempt,
};

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// A router of priority 254 is active, and two are behind it.
fn settled(seed: u64, interval_ms: u64) -> World {
    let nodes = [(0, 254), (1, 250), (2, 100)];
    let mut world = World::new(seed, nodes.map(|(node, priority)| (settings(node, interval_ms), priority)));
    world.run(ms(20 * interval_ms));
    assert_eq!(world.in_state(State::Active), [0]);
    world
}

#[test]
fn a_dead_node_is_replaced_within_three_intervals_and_a_skew() {
    for (interval_ms, most_us) in [(10, 33_000), (100, 305_000)] {
        let mut worst = Duration::ZERO;
        for seed in 0..100 {
            let mut world = settled(seed, interval_ms);
            world.run(Duration::from_micros(seed * interval_ms * 10));
            world.watch();
            world.power_off(0);
            let took = world.run_until(|world| world.in_state(State::Active) == [1], ms(10 * interval_ms)).unwrap();
            worst = worst.max(took);
            assert_eq!(world.longest_gap, took);
        }
        assert!(worst <= Duration::from_micros(most_us), "{worst:?} at {interval_ms} ms");
        // A router that looks at its watch finds nothing to gain.
        assert!(worst >= ms(2 * interval_ms));
    }
}

#[test]
fn version_2_replaces_a_dead_node_within_three_seconds_and_a_skew() {
    for seed in 0..10 {
        let mut world = World::of(Wire::version_2(), seed, [(settings(0, 1000), 200), (settings(1, 1000), 192)]);
        world.run(ms(10_000 + 100 * seed));
        assert_eq!(world.in_state(State::Active), [0]);
        world.power_off(0);
        let took = world.run_until(|world| world.in_state(State::Active) == [1], ms(5000)).unwrap();
        assert!((ms(2250)..ms(3252)).contains(&took), "{took:?}");
    }
}

#[test]
fn a_planned_handover_leaves_no_moment_without_a_holder() {
    for seed in 0..60 {
        for stops in [false, true] {
            let mut world = settled(seed, 100);
            world.run(ms(seed * 7 % 100));
            world.loss_pct = if stops { 0 } else { 10 };
            world.watch();
            world.tell(0, if stops { Router::handle_stop } else { Router::handle_yield });
            world.run(ms(1500));
            // A third one that heard nothing of it may become active for the time that an advert flies: 200 µs.
            assert!(
                world.longest_gap <= if stops { Duration::ZERO } else { Duration::from_micros(200) },
                "seed {seed}: {:?}",
                world.longest_gap
            );
            assert!(!world.was_unheld, "seed {seed}");
            assert_eq!(world.in_state(State::Active).len(), 1);
            assert!(stops != world.nodes[0].router.is_some());
        }
    }
}

#[test]
fn of_those_that_are_left_the_one_that_yielded_before_is_the_last_choice() {
    for seed in 0..20 {
        let mut world = settled(seed, 100);
        for (yields, active) in [(0, 1), (1, 2), (2, 0)] {
            world.tell(yields, Router::handle_yield);
            world.run(ms(1000));
            assert_eq!(world.in_state(State::Active), [active], "seed {seed}");
        }
    }
}

#[test]
fn the_best_backup_takes_over_from_a_router_that_yields_and_keeps_it_while_that_is_on_hold() {
    let mut world = settled(3, 100);
    world.tell(0, Router::handle_yield);
    let took = world.run_until(|world| world.in_state(State::Active) == [1], ms(500)).unwrap();
    // RFC 9568 s6.1: 6/256 of an interval.
    assert!(took < ms(4), "{took:?}");
    world.run(ms(1900));
    assert_eq!(world.holders(), [1]);
    world.watch();
    world.run(ms(1500));
    assert_eq!((world.holders(), world.longest_gap), (vec![0], Duration::ZERO));
}

#[test]
fn a_node_that_comes_back_takes_over_without_a_gap() {
    for seed in 0..30 {
        let mut world = settled(seed, 100);
        world.power_off(0);
        world.run(ms(2000 + seed * 3));
        assert_eq!(world.in_state(State::Active), [1]);
        world.watch();
        world.start(0);
        world.run(ms(2000));
        assert_eq!(world.in_state(State::Active), [0]);
        assert_eq!(world.longest_gap, Duration::ZERO);
    }
}

#[test]
fn a_killed_process_that_restarts_costs_nothing() {
    for away_ms in [0, 50, 250, 1000, 5000] {
        for preempt in [Preempt::AtOnce, Preempt::Never] {
            let mut world = settled(away_ms, 100);
            world.nodes[0].settings.preempt = preempt;
            world.watch();
            world.kill(0);
            world.run(ms(away_ms));
            world.start(0);
            world.run(ms(3000));
            assert_eq!(world.longest_gap, Duration::ZERO, "{away_ms}");
            assert_eq!(world.holders().len(), 1);
            assert_eq!(Some(world.holders()[0]), world.link);
        }
    }
    // Alone, it goes on with what it held.
    let mut world = World::new(1, [(settings(0, 100), 100)]);
    world.run(ms(1000));
    world.watch();
    world.kill(0);
    world.start(0);
    assert_eq!(world.in_state(State::HeldOver), [0]);
    world.run(ms(1000));
    assert_eq!((world.in_state(State::Active), world.longest_gap), (vec![0], Duration::ZERO));
}

#[test]
fn a_suspended_node_that_wakes_does_not_disturb_the_one_that_took_over() {
    for asleep_ms in [450, 1000, 60_000] {
        let mut world = settled(asleep_ms, 100);
        world.nodes[0].is_suspended = true;
        world.run(ms(asleep_ms));
        assert_eq!(world.in_state(State::Active), [0, 1]);
        world.watch();
        world.resume(0);
        world.run(ms(1));
        assert_eq!(world.holders(), [1]);
        assert!(world.log.iter().any(|(_, node, transition)| *node == 0 && transition.reason == Reason::Late));
        // Later it preempts, as any router of higher priority.
        world.run(ms(1000));
        assert_eq!((world.holders(), world.longest_gap), (vec![0], Duration::ZERO));
    }
}

#[test]
fn a_backup_that_was_suspended_does_not_become_active() {
    for asleep_ms in [200, 1000, 60_000] {
        let mut world = settled(asleep_ms, 100);
        world.nodes[1].is_suspended = true;
        world.run(ms(asleep_ms));
        let transitions = world.log.len();
        if asleep_ms == 200 {
            world.resume(1)
        } else {
            world.resume_deaf(1)
        }
        world.run(ms(2000));
        assert_eq!(world.log.len(), transitions);
    }
}

#[test]
fn a_host_that_found_the_addresses_at_a_killed_process_is_told_where_they_are() {
    let mut world = settled(1, 100);
    world.kill(0);
    world.run(ms(7000));
    assert_eq!(world.in_state(State::Active), [1]);
    // Both kernels answer for the addresses; a host asked, and the wrong one was faster.
    world.link = Some(0);
    world.nodes[0].settings.preempt = Preempt::Never;
    world.watch();
    world.start(0);
    world.run(ms(1000));
    assert_eq!((world.holders(), world.link), (vec![1], Some(1)));
    // No longer than an advert flies.
    assert!(world.longest_gap <= Duration::from_micros(200), "{:?}", world.longest_gap);
}
