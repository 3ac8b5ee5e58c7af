use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use proptest::prelude::*;

use super::*;

fn share(number: u32, weight: u16) -> Share {
    Share { server: Endpoint { address: Ipv4Addr::from_bits(0x0a00_0000 + number).into(), port: 80 }, weight }
}

fn equal_shares(count: u32) -> Vec<Share> {
    (0..count).map(|number| share(number, 10)).collect()
}

fn slots_of_each(table: &[u16], count: usize) -> Vec<u32> {
    let mut slots = vec![0; count];
    for &index in table {
        slots[usize::from(index)] += 1;
    }
    slots
}

/// The table by identity, as another node would see it.
fn owners(slots: u32, shares: &[Share]) -> Vec<Endpoint> {
    table(slots, shares).into_iter().map(|index| shares[usize::from(index)].server).collect()
}

/// Slots that `after` gives to another than `before`, among those whose owner is in both sets.
fn moved_needlessly(slots: u32, before: &[Share], after: &[Share]) -> usize {
    let kept: BTreeSet<Endpoint> = before.iter().map(|s| s.server).filter(|server| after.iter().any(|s| s.server == *server)).collect();
    let (before, after) = (owners(slots, before), owners(slots, after));
    before.iter().zip(&after).filter(|(b, a)| b != a && kept.contains(b) && kept.contains(a)).count()
}

#[test]
fn nobody_with_a_weight_makes_an_empty_table() {
    assert_eq!(table(256, &[]), Vec::<u16>::new());
    assert_eq!(table(256, &[share(1, 0), share(2, 0)]), Vec::<u16>::new());
}

#[test]
fn a_weight_of_zero_gets_no_slot() {
    assert_eq!(slots_of_each(&table(256, &[share(1, 0), share(2, 1), share(3, 1)]), 3), [0, 128, 128]);
}

#[test]
fn shares_follow_the_weights_to_the_slot() {
    assert_eq!(slots_of_each(&table(65_536, &[share(1, 2), share(2, 2), share(3, 1)]), 3), [26_215, 26_214, 13_107]);
}

#[test]
fn the_lightest_member_has_a_slot_whatever_the_others_weigh() {
    assert_eq!(slots_of_each(&table(256, &[share(1, 1000), share(2, 1), share(3, 1000)]), 3), [128, 1, 127]);
}

#[test]
fn with_fewer_slots_than_members_the_heaviest_have_one_each() {
    let mut shares = equal_shares(300);
    shares[299].weight = 11;
    let slots = slots_of_each(&table(256, &shares), 300);
    assert_eq!(slots.iter().sum::<u32>(), 256);
    assert_eq!((slots.iter().max(), slots[299]), (Some(&1), 1));
}

/// The published behaviour of tables about 100 times larger than the number of members (NSDI 2016, s5.3): a few per cent of needless moves.
#[test]
fn removing_or_adding_one_of_equal_members_moves_few_other_slots() {
    for (members, slots, bound_pct) in [(10, 65_536, 1.0), (100, 65_536, 1.0), (1000, 65_536, 1.0), (20, 4096, 2.5), (5, 256, 12.0)] {
        let all = equal_shares(members);
        let worst = (0..members.min(10))
            .map(|gone| {
                let mut left = all.clone();
                left.remove((gone * members / 10) as usize % all.len());
                moved_needlessly(slots, &all, &left).max(moved_needlessly(slots, &left, &all))
            })
            .max()
            .unwrap();
        let worst_pct = worst as f64 * 100.0 / f64::from(slots);
        println!("{members} members, {slots} slots: {worst_pct:.2} % move needlessly");
        assert!(worst_pct < bound_pct, "{members} members, {slots} slots: {worst_pct:.2} %");
    }
}

#[test]
fn a_changed_weight_moves_few_slots_of_the_others() {
    let before = equal_shares(100);
    let mut after = before.clone();
    after[17].weight = 5;
    let moved = owners(65_536, &before).iter().zip(owners(65_536, &after)).filter(|(b, a)| **b != *a).count();
    println!("halving one weight of 100: {:.2} % move, 0.5 % must", moved as f64 * 100.0 / 65_536.0);
    assert!(moved < 65_536 * 15 / 1000, "{moved}");
}

/// The figure is the contract between nodes: another table would send a peer's flows to other servers.
#[test]
fn tables_never_change_between_versions() {
    let mut shares = equal_shares(100);
    shares[3].weight = 7;
    let owners = table(65_536, &shares).into_iter().map(u64::from);
    assert_eq!(digest::words(owners, 0), 1_814_091_650_826_400_734);
}

fn slots() -> impl Strategy<Value = u32> {
    (8_u32..=13).prop_map(|exponent| 1 << exponent)
}

fn shares() -> impl Strategy<Value = Vec<Share>> {
    let weight = prop_oneof![3 => 0_u16..=20, 2 => 1_u16..=1000, 1 => Just(100_u16)];
    prop::collection::btree_map(0_u32..5000, weight, 1..120)
        .prop_map(|members: BTreeMap<u32, u16>| members.into_iter().map(|(number, weight)| share(number, weight)).collect())
}

proptest! {
    #[test]
    fn every_member_gets_its_share(slots in slots(), shares in shares()) {
        let total: u64 = shares.iter().map(|s| u64::from(s.weight)).sum();
        let counts = slots_of_each(&table(slots, &shares), shares.len());
        prop_assume!(total > 0);
        prop_assert_eq!(counts.iter().sum::<u32>(), slots);
        let worth = |share: &Share| f64::from(share.weight) * f64::from(slots) / total as f64;
        let is_anyone_raised = shares.iter().any(|s| s.weight > 0 && worth(s) < 1.0);
        for (share, &count) in shares.iter().zip(&counts) {
            prop_assert_eq!(share.weight > 0, count > 0);
            if !is_anyone_raised {
                let error = (f64::from(count) - worth(share)).abs();
                prop_assert!(error < 1.0, "{} slots for {}", count, worth(share));
                prop_assert!(worth(share) < 100.0 || error / worth(share) < 0.01);
            }
        }
    }

    #[test]
    fn the_order_of_the_input_does_not_count(slots in slots(), shares in shares(), seed in any::<u64>()) {
        let mut shuffled = shares.clone();
        shuffled.sort_by_key(|s| digest::words([u64::from(s.weight), seed], 1));
        shuffled.rotate_left(seed as usize % shares.len());
        prop_assert_eq!(owners(slots, &shares), owners(slots, &shuffled));
    }
}
