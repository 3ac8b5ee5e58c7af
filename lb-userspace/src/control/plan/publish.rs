//! What packets can reach: addresses and ports.

use std::collections::{BTreeMap, BTreeSet};

use lb_common::{
    address::Address,
    maps::Vip,
    words::{ServiceId, VipWord},
};

use super::{Draft, Table, Unplaced};
use crate::{
    config::model::Protocol,
    control::{ServiceKey, installed::PortKey, number, op::Op},
};

/// Makes the addresses of planes receive replies, before a header names the planes.
pub(super) fn snat_addresses(draft: &mut Draft<'_>) {
    let addresses = plane_addresses(draft);
    let numbers = numbers(draft, addresses.iter());
    for address in addresses {
        let Some(&index) = numbers.get(&address) else { continue };
        let installed = draft.state.vips.get(&index).copied().unwrap_or_else(|| no_services(address));
        publish_vip(draft, index, Vip { flags: installed.flags | u32::from(VipWord::SNAT), ..installed });
    }
}

/// Makes packets reach every desired service.
pub(super) fn publish(draft: &mut Draft<'_>) {
    let wanted = addresses(draft);
    let numbers = numbers(draft, wanted.keys());
    for (address, vip) in wanted {
        match numbers.get(&address) {
            Some(&index) => publish_vip(draft, index, vip),
            None => leave_out(draft, address),
        }
    }
    let ports: Vec<(PortKey, ServiceId)> = ports(draft).into_iter().collect();
    for (key, service) in ports {
        if draft.state.ports.get(&key) != Some(&service) {
            draft.push(Op::PublishPort { vip: key.vip, port: key.port, protocol: key.protocol, service });
        }
    }
}

fn leave_out(draft: &mut Draft<'_>, address: Address) {
    let keys: Vec<ServiceKey> = draft.placed().into_iter().map(|(_, key, _)| *key).filter(|key| key.vip_address() == address).collect();
    draft.unplaced.extend(keys.into_iter().map(|service| Unplaced { service, server: None, table: Table::Vips }));
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
    for (id, key, _) in draft.placed() {
        let vip = vips.entry(key.vip_address()).or_insert_with(|| no_services(key.vip_address()));
        vip.flags |= u32::from(VipWord::VIP);
        if key.port == 0 {
            vip.flags |= u32::from(VipWord::ANY_PORT);
            *any_port(vip, key) = id.0;
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
    let services = draft.placed().into_iter().filter(|(_, key, _)| key.port != 0);
    services
        .filter_map(|(id, key, _)| {
            let vip = *numbers.get(&key.vip_address())?;
            Some((PortKey { vip, port: key.port, protocol: number(key.protocol) }, id))
        })
        .collect()
}

fn known_numbers(draft: &Draft<'_>) -> BTreeMap<Address, u16> {
    draft.state.vips.iter().map(|(index, vip)| (vip.address, *index)).collect()
}

/// The numbers of these addresses and all known ones; free numbers for those that have none, as long as there are any.
fn numbers<'a>(draft: &Draft<'_>, addresses: impl Iterator<Item = &'a Address>) -> BTreeMap<Address, u16> {
    let mut numbers = known_numbers(draft);
    let mut free = draft.state.free_vips();
    for address in addresses {
        if !numbers.contains_key(address)
            && let Some(number) = free.next()
        {
            numbers.insert(*address, number);
        }
    }
    numbers
}

fn publish_vip(draft: &mut Draft<'_>, index: u16, vip: Vip) {
    if draft.state.vips.get(&index) != Some(&vip) {
        draft.push(Op::PublishVip { index, vip });
    }
}
