//! The plan: operations that lead from what the maps hold to what they should hold, make before break.
//!
//! Order: free what is due · planes and their SNAT addresses · records of new services · members, headers · slots · source rules · changed
//! service records · publish · unpublish · members that take less or have to go. After any prefix of it no reachable slot names a member
//! that is not written, and planning again leads to the same end.
//!
//! A server that the configuration drops is *retired*: its slots go to others, its record stays. It is freed one idle timeout later, when
//! nothing names it; named again before that, it is the same member. A dropped service is unpublished, its members retire, and all go
//! together.

mod free;
mod make;
mod publish;
mod tables;

use std::collections::{BTreeMap, BTreeSet};

use lb_common::words::{MemberId, ServiceId};

use super::{Endpoint, ServiceKey, desired::Desired, installed::Installed, op::Op};

pub use tables::{held_back, recognise};

/// What the data plane has found out of use: a retired member or plane goes only if it is among these.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Freeable {
    /// Members that no cached or translated flow that still lives names, and no slot of a published service as its default.
    pub members: BTreeSet<MemberId>,
    /// Planes without a translated flow that still lives.
    pub planes: BTreeSet<u16>,
}

/// Why there is no plan. Numbers of what was dropped come back one idle timeout later; then the same plan may succeed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PlanError {
    /// No number is left for a service.
    #[error("failed to place a service: all {capacity} are in use\nhint: raise limits.services, or wait until dropped ones are free")]
    Services {
        /// How many there can be.
        capacity: u16,
    },
    /// No number is left for a member.
    #[error("failed to place a server: all {capacity} members are in use\nhint: raise limits.members, or wait until dropped ones are free")]
    Members {
        /// How many there can be.
        capacity: u16,
    },
    /// No number is left for an address.
    #[error("failed to place an address: all {capacity} are in use\nhint: raise limits.services")]
    Vips {
        /// How many there can be.
        capacity: u16,
    },
    /// There is no room for a server's planes.
    #[error("failed to place a NAT plane: no room among {capacity}\nhint: raise limits.nat_planes, or wait until dropped ones are free")]
    Planes {
        /// How many there can be.
        capacity: u16,
    },
    /// There is no room for a service's slots.
    #[error("failed to place {slots} slots: no {pages} consecutive pages are free\nhint: give listeners fewer slots")]
    SlotPages {
        /// Slots of the service.
        slots: u32,
        /// Pages that they take.
        pages: u32,
    },
}

/// The operations from `installed` to `desired`; none when nothing differs. `now_unix_s` is in seconds of the Unix epoch. `incarnation`
/// gives a random number that it never gave before, one for each new service.
///
/// # Errors
/// [`PlanError`] if a table is full. Nothing should be done then.
pub fn plan(
    desired: &Desired,
    installed: &Installed,
    now_unix_s: u64,
    freeable: &Freeable,
    incarnation: &mut dyn FnMut() -> u64,
) -> Result<Vec<Op>, PlanError> {
    let mut draft = Draft::new(desired, installed, now_unix_s);
    free::free_due(&mut draft, freeable);
    draft.know_members();
    make::planes(&mut draft)?;
    publish::snat_addresses(&mut draft)?;
    make::services(&mut draft, incarnation)?;
    make::members(&mut draft)?;
    tables::slots(&mut draft);
    make::rules_and_records(&mut draft);
    publish::publish(&mut draft)?;
    publish::unpublish(&mut draft);
    make::lesser_members(&mut draft);
    Ok(draft.ops)
}

/// The plan while it is made: what the maps hold after the operations so far, and the numbers of what is desired.
struct Draft<'a> {
    desired: &'a Desired,
    now_unix_s: u64,
    state: Installed,
    ops: Vec<Op>,
    services: BTreeMap<ServiceKey, ServiceId>,
    members: BTreeMap<(ServiceId, Endpoint), MemberId>,
}

impl<'a> Draft<'a> {
    fn new(desired: &'a Desired, installed: &Installed, now_unix_s: u64) -> Self {
        let services = installed.services.iter().filter_map(|(id, service)| Some((ServiceKey::of(&service.record)?, *id))).collect();
        Self { desired, now_unix_s, state: installed.clone(), ops: Vec::new(), services, members: BTreeMap::new() }
    }

    fn know_members(&mut self) {
        self.members = self.state.members.iter().map(|(id, m)| ((ServiceId(m.info.service), m.endpoint()), *id)).collect();
    }

    fn push(&mut self, op: Op) {
        self.state.apply(&op);
        self.ops.push(op);
    }
}

#[cfg(test)]
mod tests;
