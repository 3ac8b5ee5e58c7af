//! What this process may do, against what loading, attaching and following the network need.

use rustix::thread::{CapabilitySet, capabilities};

/// What to do about a missing privilege.
pub(crate) const HINT: &str =
    "run as root, or with CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON, CAP_SYS_ADMIN (for maps by their numbers) and CAP_NET_RAW";

/// Without one of these nothing is forwarded. The first two are part of CAP_SYS_ADMIN (linux include/linux/capability.h, `bpf_capable`).
const NEEDED: [(&str, CapabilitySet); 4] = [
    ("CAP_BPF", CapabilitySet::BPF.union(CapabilitySet::SYS_ADMIN)),
    ("CAP_PERFMON", CapabilitySet::PERFMON.union(CapabilitySet::SYS_ADMIN)),
    ("CAP_NET_ADMIN", CapabilitySet::NET_ADMIN),
    ("CAP_SYS_ADMIN", CapabilitySet::SYS_ADMIN),
];

/// Without it routers are not heard: a tunnel's path MTU is not learned.
const WANTED: (&str, CapabilitySet) = ("CAP_NET_RAW", CapabilitySet::NET_RAW);

/// The capabilities that this process lacks.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Missing {
    /// Those that nothing works without.
    pub(crate) needed: Vec<&'static str>,
    /// Those that something works without.
    pub(crate) wanted: Vec<&'static str>,
}

/// What is missing. A kernel that does not tell is taken to allow everything: it refuses later.
pub(crate) fn missing() -> Missing {
    capabilities(None).map_or_else(|_| Missing::default(), |sets| lacking(sets.effective))
}

fn lacking(held: CapabilitySet) -> Missing {
    let lacks = |(name, any): &(&'static str, CapabilitySet)| (!held.intersects(*any)).then_some(*name);
    Missing { needed: NEEDED.iter().filter_map(lacks).collect(), wanted: lacks(&WANTED).into_iter().collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_missing_capability_is_named() {
        assert_eq!(lacking(CapabilitySet::all()), Missing::default());
        let two = CapabilitySet::NET_ADMIN | CapabilitySet::SYS_ADMIN;
        assert_eq!(lacking(two), Missing { needed: vec![], wanted: vec!["CAP_NET_RAW"] });
        let three = CapabilitySet::BPF | CapabilitySet::NET_ADMIN | CapabilitySet::NET_RAW;
        assert_eq!(lacking(three).needed, ["CAP_PERFMON", "CAP_SYS_ADMIN"]);
        assert_eq!(lacking(CapabilitySet::empty()).needed.len(), NEEDED.len());
    }
}
