use std::{collections::BTreeMap, time::Duration};

use super::*;
use crate::config::model::{Balance, Forward};

const NO_NEW: u8 = MemberWord::NO_NEW;
const DOWN: u8 = MemberWord::NO_NEW | MemberWord::DOWN;
const SICK: Health = Health { is_up: false, is_checked: true, ramp_permille: 1000 };

/// Primaries a, b, c of weight 10, and a backup z.
fn web() -> Pool {
    let server = |last: u8, backup| Server { address: [10, 0, 0, last].into(), port: None, weight: 10, backup, state: ServerState::Ready };
    let servers = [("a", 1, false), ("b", 2, false), ("c", 3, false), ("z", 9, true)];
    Pool {
        forward: Forward::Dsr,
        balance: Balance::Tuple,
        on_down: OnDown::Keep,
        check: None,
        slow_start: Duration::ZERO,
        panic_threshold_pct: 0,
        passive_hints: true,
        names: BTreeMap::new(),
        servers: servers.into_iter().map(|(name, last, backup)| (name.to_owned(), server(last, backup))).collect(),
    }
}

fn of(pool: &Pool, health: &[(&str, Health)], overrides: &[(&str, Override)]) -> Vec<(u16, u8, Why)> {
    let view = View {
        health: health.iter().map(|(server, health)| (ServerName::new("web", *server), *health)).collect(),
        overrides: overrides.iter().map(|(server, said)| (ServerName::new("web", *server), *said)).collect(),
    };
    standings("web", pool, &view).into_iter().map(|standing| (standing.weight, standing.state, standing.why)).collect()
}

fn state(state: AdminState) -> Override {
    Override { state: Some(state), weight: None }
}

const UP: (u16, u8, Why) = (10, 0, Why::Up);
const BACKUP: (u16, u8, Why) = (0, NO_NEW, Why::Backup);

#[test]
fn a_server_whose_checks_fail_takes_no_new_flow() {
    assert_eq!(of(&web(), &[("b", SICK)], &[]), [UP, (0, DOWN, Why::Unhealthy), UP, BACKUP]);
}

#[test]
fn backups_serve_once_every_primary_is_unhealthy_or_in_maintenance() {
    let seen = of(&web(), &[("a", SICK), ("b", SICK)], &[("c", state(AdminState::Maint))]);
    assert_eq!(seen, [(0, DOWN, Why::Unhealthy), (0, DOWN, Why::Unhealthy), (0, DOWN, Why::Maintenance), UP]);
    let drained = of(&web(), &[("a", SICK), ("b", SICK)], &[("c", state(AdminState::Drain))]);
    assert_eq!(drained[2..], [(0, NO_NEW, Why::DrainedByOperator), BACKUP], "who drains is not down");
}

#[test]
fn the_operators_word_wins_over_the_file_and_neither_makes_a_sick_server_well() {
    let mut pool = web();
    for (name, configured) in [("a", ServerState::Drain), ("b", ServerState::Down)] {
        pool.servers.get_mut(name).unwrap().state = configured;
    }
    assert_eq!(of(&pool, &[], &[]), [(0, NO_NEW, Why::Drain), (0, DOWN, Why::Down), UP, BACKUP]);
    let ready = [("a", state(AdminState::Ready)), ("b", state(AdminState::Ready))];
    assert_eq!(of(&pool, &[("b", SICK)], &ready), [UP, (0, DOWN, Why::Unhealthy), UP, BACKUP]);
    let weights = [("c", Override { state: None, weight: Some(0) }), ("a", Override { state: Some(AdminState::Ready), weight: Some(500) })];
    assert_eq!(of(&pool, &[], &weights), [(500, 0, Why::Up), (0, DOWN, Why::Down), (0, NO_NEW, Why::WeightZero), BACKUP]);
}

#[test]
fn below_the_panic_threshold_unhealthy_servers_are_used_but_not_those_in_maintenance() {
    let pool = Pool { panic_threshold_pct: 50, ..web() };
    let two_sick = [("a", SICK), ("b", SICK)];
    assert_eq!(of(&pool, &two_sick, &[]), [(10, 0, Why::Panic), (10, 0, Why::Panic), UP, BACKUP]);
    assert_eq!(of(&pool, &two_sick[..1], &[])[0], (0, DOWN, Why::Unhealthy), "two of three are enough");
    let seen = of(&pool, &[("a", SICK)], &[("b", state(AdminState::Maint))]);
    assert_eq!(seen[..3], [(0, DOWN, Why::Unhealthy), (0, DOWN, Why::Maintenance), UP], "one of the two that could serve");
}

#[test]
fn shares_keep_the_weights_proportions_and_follow_a_ramp() {
    let shares = |health: &[(&str, Health)]| {
        let health: BTreeMap<_, _> = health.iter().map(|(server, health)| (ServerName::new("web", *server), *health)).collect();
        let view = View { health, ..View::default() };
        standings("web", &web(), &view).iter().map(|standing| standing.share).collect::<Vec<_>>()
    };
    assert_eq!(shares(&[]), [10, 10, 10, 0]);
    let ramp = |ramp_permille| Health { is_up: true, is_checked: true, ramp_permille };
    assert_eq!(shares(&[("b", ramp(250))]), [500, 125, 500, 0]);
    assert_eq!(shares(&[("b", ramp(0))]), [500, 1, 500, 0], "never nothing");
    assert_eq!(shares(&[("b", ramp(250)), ("b", SICK)]), [10, 0, 10, 0], "a ramp ends with the server");
}

#[test]
fn the_heaviest_weights_have_room_for_a_ramp() {
    assert_eq!(share(1000, 1000, true), 50_000);
    assert_eq!(share(1000, 1, true), 50);
    assert_eq!(share(1, 20, true), 1);
}

#[test]
fn a_backup_that_is_well_serves_before_primaries_that_are_not() {
    let pool = Pool { panic_threshold_pct: 50, ..web() };
    let all_sick = [("a", SICK), ("b", SICK), ("c", SICK)];
    let down = (0, DOWN, Why::Unhealthy);
    assert_eq!(of(&pool, &all_sick, &[]), [down, down, down, UP]);
    let nobody_well = [all_sick[0], all_sick[1], all_sick[2], ("z", SICK)];
    assert_eq!(of(&pool, &nobody_well, &[])[..3], [(10, 0, Why::Panic); 3]);
}

#[test]
fn who_has_not_been_checked_brings_no_panic_and_is_not_used_in_one() {
    let pool = Pool { panic_threshold_pct: 60, ..web() };
    let unchecked = Health { is_checked: false, ..SICK };
    assert_eq!(of(&pool, &[("b", unchecked), ("c", unchecked)], &[])[..3], [UP, (0, DOWN, Why::Unhealthy), (0, DOWN, Why::Unhealthy)]);
    let seen = of(&pool, &[("a", SICK), ("b", unchecked)], &[]);
    assert_eq!(seen[..3], [(10, 0, Why::Panic), (0, DOWN, Why::Unhealthy), UP], "one of the two that are known");
}
