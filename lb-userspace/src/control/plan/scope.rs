//! Which services a plan has to look at: of thousands, a change mostly concerns a few.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use super::{Desired, DesiredService};
use crate::control::{ServiceKey, op::PlaneSpec};

/// The services that a plan looks at, member by member.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Scope {
    /// Every one.
    All,
    /// These; of the others nothing differs.
    Only(BTreeSet<ServiceKey>),
}

impl Scope {
    /// What differs between what the maps follow already and what they should. Services share planes, so that with other planes all are looked at.
    pub(super) fn between(before: &Desired, after: &Desired) -> Self {
        let moved = moved(before, after);
        let keys: BTreeSet<&ServiceKey> = before.services.keys().chain(after.services.keys()).collect();
        let mut changed = BTreeSet::new();
        for key in keys {
            let (was, is) = (before.services.get(key), after.services.get(key));
            let is_moved =
                || !moved.is_empty() && is.is_some_and(|service| service.members.keys().any(|server| moved.contains(&server.address)));
            if was == is && !is_moved() {
                continue;
            }
            if planes(was.map(Arc::as_ref)) != planes(is.map(Arc::as_ref)) {
                return Self::All;
            }
            changed.insert(*key);
        }
        Self::Only(changed)
    }

    pub(super) fn has(&self, key: &ServiceKey) -> bool {
        match self {
            Self::All => true,
            Self::Only(keys) => keys.contains(key),
        }
    }
}

/// The servers that are reached another way.
fn moved(before: &Desired, after: &Desired) -> BTreeSet<IpAddr> {
    if Arc::ptr_eq(&before.next_hops, &after.next_hops) || before.next_hops == after.next_hops {
        return BTreeSet::new();
    }
    let servers = before.next_hops.keys().chain(after.next_hops.keys());
    servers.copied().filter(|server| before.next_hops.get(server) != after.next_hops.get(server)).collect()
}

fn planes(service: Option<&DesiredService>) -> BTreeSet<&PlaneSpec> {
    service.into_iter().flat_map(|service| service.members.values()).flat_map(|member| &member.planes).collect()
}
