//! Reads back what the maps hold, as the planner models it, and what of it is out of use.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use lb_common::{
    maps::{NatFlow, NatPlane},
    nat::{PortState, PortWord, is_reusable},
    words::{MemberId, ServiceId, SlotWord, Tick},
};

use crate::{
    control::{
        installed::{Capacity, Installed, InstalledMember, InstalledService, PortKey},
        op::PlaneSpec,
        plan::Freeable,
    },
    dataplane::{AccessError, ReadError, SlotsError, Tables},
};

/// Why the maps cannot be read back.
#[derive(Debug, thiserror::Error)]
pub enum ReadBackError {
    /// A record is beyond its table.
    #[error("failed to read the tables back")]
    Access(#[from] AccessError),
    /// The kernel refuses.
    #[error("failed to read the maps back")]
    Read(#[from] ReadError),
}

/// What the maps hold. A service without all of its slot pages was never published: it is left out, and its number is used again.
///
/// # Errors
/// [`ReadBackError`] if the kernel refuses.
pub fn installed(tables: &Tables, capacity: Capacity) -> Result<Installed, ReadBackError> {
    let mut installed = Installed::new(capacity);
    let vips = tables.vips()?.into_iter().filter(|(_, _, word)| word.is_some());
    installed.vips = vips.map(|(index, vip, _)| (index, vip)).collect();
    for word in tables.ports() {
        let key = PortKey { vip: (word.0 >> 48) as u16, port: (word.0 >> 32) as u16, protocol: (word.0 >> 16) as u8 };
        installed.ports.insert(key, word.service());
    }
    for (id, record) in tables.services()? {
        if let Ok(slots) = tables.slots(id) {
            let current: Arc<[Option<MemberId>]> = slots.into_iter().map(SlotWord::current).collect();
            installed.services.insert(id, InstalledService { record, current, shares: None });
        }
    }
    for member in tables.members()? {
        if member.info.service != 0 {
            let (state, service) = (member.word.state(), member.word.service());
            installed.members.insert(member.id, InstalledMember { info: member.info, state, service, header: member.header.map(Arc::new) });
        }
    }
    installed.planes = tables.planes()?.into_iter().map(|(index, plane)| (index, spec(&plane))).collect();
    look_at_planes(tables, &mut installed)?;
    installed.rules = tables.source_rules()?.into_iter().map(|(service, source, rule)| ((service, source), rule)).collect();
    Ok(installed)
}

/// Looks again how many chunks each plane has been given.
///
/// # Errors
/// [`AccessError`] if there are more planes than their table has room for.
pub fn look_at_planes(tables: &Tables, installed: &mut Installed) -> Result<(), AccessError> {
    let given = installed.planes.keys().map(|index| Ok((*index, tables.nat_used.word(u32::from(*index), 0)? as u16)));
    installed.chunks_given = given.collect::<Result<_, AccessError>>()?;
    Ok(())
}

fn spec(plane: &NatPlane) -> PlaneSpec {
    PlaneSpec {
        snat: plane.snat,
        server: plane.server,
        server_port: u16::from_be(plane.server_port),
        protocol: plane.protocol,
        low: (plane.low_first, plane.low_chunks),
        high: (plane.high_first, plane.high_chunks),
    }
}

/// The members and planes that nothing names any more: no slot, no cached flow and no translated one.
///
/// # Errors
/// [`ReadBackError`] if the kernel refuses.
pub fn freeable(tables: &Tables, installed: &Installed, now: Tick) -> Result<Freeable, ReadBackError> {
    let mut busy: BTreeSet<MemberId> = tables.flows_by_member(now)?.into_keys().collect();
    for id in installed.published_services() {
        match tables.slots(id) {
            Ok(slots) => busy.extend(slots.iter().flat_map(|slot| [slot.current(), slot.default()]).flatten()),
            Err(SlotsError::NoService { .. } | SlotsError::NoPage { .. }) => {}
            // What cannot be read may name any of them.
            Err(_) => return Ok(Freeable::default()),
        }
    }
    let nat = nat_flows(tables, now)?;
    busy.extend(nat.by_member.keys().copied());
    let members = installed.members.keys().copied().filter(|id| !busy.contains(id)).collect();
    let planes = installed.planes.keys().copied().filter(|index| !nat.by_plane.contains_key(index)).collect();
    Ok(Freeable { members, planes })
}

/// Translated flows that are alive.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct NatFlows {
    /// How many each member has, those included whose ports rest.
    pub by_member: BTreeMap<MemberId, u32>,
    /// The same without these: those that are still connected.
    pub connected: BTreeMap<MemberId, u32>,
    /// How many ports of each plane are taken, resting ones included.
    pub by_plane: BTreeMap<u16, u32>,
    /// The same without these.
    pub connected_by_plane: BTreeMap<u16, u32>,
}

/// Counts the translated flows that are alive at `now`.
///
/// # Errors
/// [`AccessError`] never for tables of the right size.
pub fn nat_flows(tables: &Tables, now: Tick) -> Result<NatFlows, AccessError> {
    let mut flows = NatFlows::default();
    each_nat_flow(tables, now, |word, flow| {
        let is_connected = !matches!(word.state(), PortState::Resting | PortState::Reset);
        if let Some(member) = MemberId::new(flow.member) {
            *flows.by_member.entry(member).or_default() += 1;
            if is_connected {
                *flows.connected.entry(member).or_default() += 1;
            }
        }
        if is_connected {
            *flows.connected_by_plane.entry(flow.plane).or_default() += 1;
        }
        *flows.by_plane.entry(flow.plane).or_default() += 1;
    })?;
    Ok(flows)
}

/// Tells `tell` of every translated flow that is alive at `now`, with its port's word.
///
/// # Errors
/// [`AccessError`] never for tables of the right size.
pub fn each_nat_flow(tables: &Tables, now: Tick, mut tell: impl FnMut(PortWord, &NatFlow)) -> Result<(), AccessError> {
    let idle: BTreeMap<ServiceId, (u8, u32)> =
        tables.services()?.into_iter().map(|(id, service)| (id, (service.protocol, service.idle_s))).collect();
    for line in 0..tables.nat_ports.len() {
        for (place, word) in tables.nat_ports.record(line)?.into_iter().enumerate() {
            let word = PortWord(word);
            if word.0 == 0 || matches!(word.state(), PortState::Free | PortState::Closed) {
                continue;
            }
            let flow = tables.nat_flows.record(line * 8 + place as u32)?;
            let Some(&(protocol, idle_s)) = idle.get(&ServiceId(flow.service)) else { continue };
            if !is_reusable(word, protocol, idle_s, now) {
                tell(word, &flow);
            }
        }
    }
    Ok(())
}
