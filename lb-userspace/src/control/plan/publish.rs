//! What packets can reach: addresses and ports.

use std::collections::{BTreeMap, BTreeSet};

use lb_common::{
    address::Address,
    maps::Vip,
    words::{ServiceId, VipWord},
};

use super::{Draft, PlanError};
use crate::{
    config::model::Protocol,
    control::{ServiceKey, installed::PortKey, number, op::Op},
};

/// Makes the addresses of planes receive replies, before a header names the planes.
pub(super) fn snat_addresses(draft: &mut Draft<'_>) -> Result<(), PlanError> {
    let addresses = plane_addresses(draft);
    let numbers = numbers(draft, addresses.iter())?;
    for address in addresses {
        let index = numbers[&address];
        let installed = draft.state.vips.get(&index).copied().unwrap_or_else(|| no_services(address));
        publish_vip(draft, index, Vip { flags: installed.flags | u32::from(VipWord::SNAT), ..installed });
    }
    Ok(())
}

/// Makes packets reach every desired service.
pub(super) fn publish(draft: &mut Draft<'_>) -> Result<(), PlanError> {
    let wanted = addresses(draft);
    let numbers = numbers(draft, wanted.keys())?;
    for (address, vip) in wanted {
        publish_vip(draft, numbers[&address], vip);
    }
    let ports: Vec<(PortKey, ServiceId)> = ports(draft).into_iter().collect();
    for (key, service) in ports {
        if draft.state.ports.get(&key) != Some(&service) {
            draft.push(Op::PublishPort { vip: key.vip, port: key.port, protocol: key.protocol, service });
        }
    }
    Ok(())
}

/// Makes packets for everything else pass to the host.
pub(super) fn unpublish(draft: &mut Draft<'_>) {
    let wanted = ports(draft);
    let gone: Vec<PortKey> = draft.state.ports.keys().copied().filter(|key| !wanted.contains_key(key)).collect();
    for key in gone {
        draft.push(Op::UnpublishPort { vip: key.vip, port: key.port, protocol: key.protocol });
    }
    let wanted = addresses(draft);
    let gone: Vec<u16> = draft.state.vips.iter().filter(|(_, vip)| !wanted.contains_key(&vip.address)).map(|(index, _)| *index).collect();
    gone.into_iter().for_each(|index| draft.push(Op::UnpublishVip { index }));
}

/// The record of every address that packets are accepted for. An address of a plane that still has flows is one.
fn addresses(draft: &Draft<'_>) -> BTreeMap<Address, Vip> {
    let mut vips = BTreeMap::new();
    for address in plane_addresses(draft) {
        vips.entry(address).or_insert_with(|| no_services(address)).flags |= u32::from(VipWord::SNAT);
    }
    for key in draft.desired.services.keys() {
        let vip = vips.entry(key.vip_address()).or_insert_with(|| no_services(key.vip_address()));
        vip.flags |= u32::from(VipWord::VIP);
        if key.port == 0 {
            vip.flags |= u32::from(VipWord::ANY_PORT);
            *any_port(vip, key) = draft.services[key].0;
        }
    }
    vips
}

fn any_port<'a>(vip: &'a mut Vip, key: &ServiceKey) -> &'a mut u16 {
    match key.protocol {
        Protocol::Tcp => &mut vip.any_tcp,
        Protocol::Udp => &mut vip.any_udp,
    }
}

fn no_services(address: Address) -> Vip {
    Vip { address, any_tcp: 0, any_udp: 0, flags: 0, reserved: [0; 2] }
}

fn plane_addresses(draft: &Draft<'_>) -> BTreeSet<Address> {
    draft.state.planes.values().map(|plane| plane.snat).collect()
}

fn ports(draft: &Draft<'_>) -> BTreeMap<PortKey, ServiceId> {
    let numbers = known_numbers(draft);
    let keys = draft.desired.services.keys().filter(|key| key.port != 0);
    keys.filter_map(|key| {
        let vip = *numbers.get(&key.vip_address())?;
        Some((PortKey { vip, port: key.port, protocol: number(key.protocol) }, draft.services[key]))
    })
    .collect()
}

fn known_numbers(draft: &Draft<'_>) -> BTreeMap<Address, u16> {
    draft.state.vips.iter().map(|(index, vip)| (vip.address, *index)).collect()
}

/// The numbers of these addresses and all known ones; free numbers for those that have none.
fn numbers<'a>(draft: &Draft<'_>, addresses: impl Iterator<Item = &'a Address>) -> Result<BTreeMap<Address, u16>, PlanError> {
    let mut numbers = known_numbers(draft);
    let mut free = draft.state.free_vips();
    for address in addresses {
        if !numbers.contains_key(address) {
            numbers.insert(*address, free.next().ok_or(PlanError::Vips { capacity: draft.state.capacity.vips })?);
        }
    }
    Ok(numbers)
}

fn publish_vip(draft: &mut Draft<'_>, index: u16, vip: Vip) {
    if draft.state.vips.get(&index) != Some(&vip) {
        draft.push(Op::PublishVip { index, vip });
    }
}
