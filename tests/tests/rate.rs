//! The connection-rate limit, beside a model that keeps every time stamp.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use lb_common::{
    address::Address,
    rate::{self, Rated},
    tables::Tables,
    words::ServiceId,
};
use proptest::prelude::*;
use weir_tests::tables::{Arrays, ServiceSpec, Sizes};

const START_US: u64 = 1_000_000_000;
/// 2^40 µs: the clock of a word.
const TURN_US: u64 = 1 << 40;

fn world(interval_us: u32, tolerance_us: u32, rate_lines: u32) -> (Arrays, ServiceId) {
    let mut tables = Arrays::new(&Sizes { rate_lines, ..Sizes::default() });
    let spec = ServiceSpec::tcp(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 80);
    let service = tables.add_service(&ServiceSpec { rate_interval_us: interval_us, rate_tolerance_us: tolerance_us, ..spec });
    (tables, service)
}

fn ask(tables: &Arrays, service: ServiceId, source: Address, at_us: u64) -> Rated {
    tables.set_micros(at_us);
    rate::connection(tables, &tables.service(service).unwrap(), &source)
}

fn v4(host: u32) -> Address {
    Ipv4Addr::from_bits(0x0a00_0000 + host).into()
}

/// ITU-T I.371 annex A, virtual scheduling: the theoretical arrival time as it is written there, without a wrap.
#[derive(Default)]
struct Model {
    arrival_us: u64,
}

impl Model {
    fn admits(&mut self, at_us: u64, interval_us: u32, tolerance_us: u32) -> bool {
        if self.arrival_us > at_us + u64::from(tolerance_us) {
            return false;
        }
        self.arrival_us = self.arrival_us.max(at_us) + u64::from(interval_us);
        true
    }
}

proptest! {
    #[test]
    fn sources_are_let_in_as_the_model_says(
        interval_us in 1_u32..100_000,
        burst in 0_u32..50,
        start_us in prop_oneof![Just(START_US), TURN_US - 2_000_000..TURN_US],
        waits_us in prop::collection::vec(prop_oneof![Just(0), 0_u64..200_000], 1..400),
    ) {
        let tolerance_us = interval_us * burst;
        let (tables, service) = world(interval_us, tolerance_us, 16);
        let (mut model, mut now) = (Model::default(), start_us);
        let mut admitted = Vec::new();
        for wait in waits_us {
            now += wait;
            let expected = if model.admits(now, interval_us, tolerance_us) { Rated::Within } else { Rated::Above };
            prop_assert_eq!(ask(&tables, service, v4(1), now), expected, "at {}", now);
            if expected == Rated::Within {
                admitted.push(now);
            }
        }
        // In any window: the burst, and what the steady rate gives.
        for (first, &from) in admitted.iter().enumerate() {
            for (last, &to) in admitted.iter().enumerate().skip(first) {
                let most = u64::from(burst) + 1 + (to - from) / u64::from(interval_us);
                prop_assert!((last - first + 1) as u64 <= most, "{} in {} us", last - first + 1, to - from);
            }
        }
    }
}

#[test]
fn a_source_at_exactly_the_rate_is_never_refused() {
    let (tables, service) = world(10_000, 0, 16);
    for turn in 0..1000 {
        assert_eq!(ask(&tables, service, v4(1), START_US + turn * 10_000), Rated::Within);
        assert_eq!(ask(&tables, service, v4(1), START_US + turn * 10_000 + 9_999), Rated::Above);
    }
}

#[test]
fn sources_and_services_are_limited_apart_and_a_v6_network_as_one() {
    let (mut tables, service) = world(1_000_000, 0, 16);
    let spec = ServiceSpec::tcp(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 81);
    let other = tables.add_service(&ServiceSpec { rate_interval_us: 1_000_000, ..spec });
    let v6 = |network: u16, host: u16| Address::from(Ipv6Addr::new(0x2001, 0xdb8, 0, network, 0, 0, 0, host));
    for (source, id, expected) in [
        (v4(1), service, Rated::Within),
        (v4(1), service, Rated::Above),
        (v4(1), other, Rated::Within),
        (v4(2), service, Rated::Within),
        (v6(1, 1), service, Rated::Within),
        (v6(1, 2), service, Rated::Above),
        (v6(2, 1), service, Rated::Within),
    ] {
        assert_eq!(ask(&tables, id, source, START_US), expected, "{source} of {id:?}");
    }
}

#[test]
fn a_source_beyond_the_table_is_let_in_and_those_within_are_still_limited() {
    let (tables, service) = world(1_000_000, 0, 2);
    let verdicts: Vec<Rated> = (0..64).map(|host| ask(&tables, service, v4(host), START_US)).collect();
    let within: Vec<u32> = (0..64).filter(|&host| verdicts[host as usize] == Rated::Within).collect();
    assert_eq!((within.len(), verdicts.iter().filter(|&&rated| rated == Rated::NoRoom).count()), (16, 48));
    for host in within {
        assert_eq!(ask(&tables, service, v4(host), START_US + 999_999), Rated::Above);
    }
    assert_eq!(ask(&tables, service, v4(1000), START_US + 1_000_001), Rated::Within, "their places are free again");
}
