//! Later fragments go after the first of their datagram.

use std::net::{Ipv4Addr, Ipv6Addr};

use lb_common::{
    fragments::{Datagram, LIFETIME_S, MAX_NAT_FLOWS, NatUse, Trail, remember, trail},
    packet::protocol,
    words::Tick,
};
use weir_tests::tables::{Arrays, Sizes};

const NOW: Tick = 5000;
const TRAILS: [Trail; 7] = [
    Trail::Pass,
    Trail::Member(1),
    Trail::Member(u16::MAX),
    Trail::NatRequest(NatUse::new(0, 0)),
    Trail::NatRequest(NatUse::new(MAX_NAT_FLOWS - 1, 0xff_ffff)),
    Trail::NatReply(NatUse::new(0, 255)),
    Trail::NatReply(NatUse::new(77, 0x12_3456)),
];

fn tables(fragment_lines: u32) -> Arrays {
    let tables = Arrays::new(&Sizes { fragment_lines, ..Sizes::default() });
    tables.set_tick(NOW);
    tables
}

fn datagram(identification: u32) -> Datagram {
    let (source, destination) = (Ipv4Addr::new(10, 0, 0, 1).into(), Ipv4Addr::new(192, 0, 2, 1).into());
    Datagram { source, destination, identification, protocol: protocol::UDP }
}

#[test]
fn a_later_fragment_goes_where_the_first_went() {
    for went in TRAILS {
        let tables = tables(16);
        remember(&tables, &datagram(1), went.bits(), NOW);
        assert_eq!((trail(&tables, &datagram(1)), trail(&tables, &datagram(2))), (Some(went), None));
    }
}

#[test]
fn the_newest_first_fragment_counts() {
    let tables = tables(1);
    for went in TRAILS {
        remember(&tables, &datagram(1), went.bits(), NOW);
        assert_eq!(trail(&tables, &datagram(1)), Some(went));
    }
}

#[test]
fn a_trail_is_lost_after_its_lifetime() {
    let tables = tables(16);
    remember(&tables, &datagram(1), TRAILS[0].bits(), NOW);
    for (after_s, expected) in [(LIFETIME_S, Some(TRAILS[0])), (LIFETIME_S + 1, None), (1023, None)] {
        tables.set_tick(NOW + after_s);
        assert_eq!(trail(&tables, &datagram(1)), expected, "after {after_s} s");
    }
}

#[test]
fn in_full_lines_the_oldest_makes_room() {
    let tables = tables(1);
    let went = |identification| Trail::NatReply(NatUse::new(identification, 1));
    for identification in 0..8 {
        remember(&tables, &datagram(identification), went(identification).bits(), NOW + u32::from(identification != 5));
    }
    tables.set_tick(NOW + 1);
    remember(&tables, &datagram(8), went(8).bits(), NOW + 1);
    for identification in 0..9 {
        let expected = (identification != 5).then(|| went(identification));
        assert_eq!(trail(&tables, &datagram(identification)), expected, "{identification}");
    }
}

#[test]
fn a_flood_of_first_fragments_takes_long_to_make_a_datagram_lose_its_way() {
    let (lines, flood) = (1024, 1024 * 8);
    let tables = tables(lines);
    let mut lost = 0;
    for round in 0..100 {
        remember(&tables, &datagram(round), TRAILS[1].bits(), NOW);
        (0..flood / 8).for_each(|number| remember(&tables, &datagram(1 << 20 | round << 13 | number), TRAILS[0].bits(), NOW));
        lost += u32::from(trail(&tables, &datagram(round)).is_none());
    }
    // An eighth of the table comes between two fragments: each place has been taken with a chance of about that.
    assert!(lost < 25, "{lost} of 100");
}

/// With one candidate line of eight, a table that is two thirds full would have lost some.
#[test]
fn a_datagram_has_room_in_either_of_two_lines() {
    let tables = tables(64);
    let count = 64 * 8 * 2 / 3;
    (0..count).for_each(|identification| remember(&tables, &datagram(identification), TRAILS[1].bits(), NOW));
    assert_eq!((0..count).filter(|&identification| trail(&tables, &datagram(identification)).is_none()).count(), 0);
    // What is known is not remembered a second time, in the other line.
    (0..count).for_each(|identification| remember(&tables, &datagram(identification), TRAILS[2].bits(), NOW));
    assert!((0..count).all(|identification| trail(&tables, &datagram(identification)) == Some(TRAILS[2])));
    (count..10 * count).for_each(|identification| remember(&tables, &datagram(identification), TRAILS[1].bits(), NOW + LIFETIME_S + 1));
    tables.set_tick(NOW + LIFETIME_S + 1);
    let known = (count..10 * count).filter(|&identification| trail(&tables, &datagram(identification)).is_some()).count();
    assert_eq!(known, 64 * 8, "old ones give up their places");
}

#[test]
fn a_trail_knows_the_use_of_a_port_from_the_next() {
    let used = NatUse::new(7, 0xff_ffff);
    assert!(used.is_of(0xff_ffff));
    assert!(!used.is_of(0) && !used.is_of(0xff_fffe));
}

#[test]
fn the_protocol_tells_ipv4_datagrams_apart_and_ipv6_ones_not() {
    let tables = tables(16);
    remember(&tables, &datagram(1), TRAILS[0].bits(), NOW);
    assert_eq!(trail(&tables, &Datagram { protocol: protocol::TCP, ..datagram(1) }), None);
    let (source, destination) = (Ipv6Addr::from_bits(1).into(), Ipv6Addr::from_bits(2).into());
    let v6 = Datagram { source, destination, identification: 1, protocol: protocol::UDP };
    remember(&tables, &v6, TRAILS[1].bits(), NOW);
    assert_eq!(trail(&tables, &Datagram { protocol: protocol::TCP, ..v6 }), Some(TRAILS[1]));
}

#[test]
fn both_directions_of_one_identification_are_apart() {
    let tables = tables(16);
    let there = datagram(1);
    let back = Datagram { source: there.destination, destination: there.source, ..there };
    remember(&tables, &there, TRAILS[0].bits(), NOW);
    assert_eq!(trail(&tables, &back), None);
}
