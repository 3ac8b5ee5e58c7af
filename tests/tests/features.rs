//! The program loads for every set of features that matters, within the verifier's means.
#![allow(missing_docs)]

use lb_common::maps::Settings;
use weir_tests::fixture::bench::{ALL_FEATURES, Bench};

const NAMED: [(&str, u32); 9] = [
    ("none", 0),
    ("ipv6", Settings::IPV6),
    ("nat", Settings::NAT),
    ("source rules", Settings::SOURCE_RULES),
    ("rate", Settings::RATE),
    ("ipip", Settings::IPIP),
    ("gue", Settings::GUE),
    ("dsr", Settings::DSR),
    ("all", ALL_FEATURES),
];

/// The verifier looks at a million instructions at most: linux include/linux/bpf.h, BPF_COMPLEXITY_LIMIT_INSNS.
const VERIFIER_LIMIT: u32 = 1_000_000;

#[test]
fn the_program_loads_for_each_feature_alone_for_none_and_for_all() {
    let pairs = [("nat, ipv6", Settings::NAT | Settings::IPV6), ("all but nat", ALL_FEATURES & !Settings::NAT)];
    println!("{:<14} {:>12} {:>12} {:>12}", "FEATURES", "VERIFIED", "TRANSLATED B", "JITED B");
    for (name, features) in NAMED.into_iter().chain(pairs) {
        let mut bench = Bench::new(features).unwrap_or_else(|error| panic!("{name}: {error:#}"));
        let info = bench.dataplane().program().unwrap().info().unwrap();
        let verified = info.verified_instruction_count().unwrap();
        let size = |bytes: Option<u32>| bytes.map_or("-".to_owned(), |bytes| bytes.to_string());
        println!("{name:<14} {verified:>12} {:>12} {:>12}", size(info.size_translated()), info.size_jitted());
        assert!(verified < VERIFIER_LIMIT / 4 * 3, "{name}: {verified} of {VERIFIER_LIMIT}");
    }
}
