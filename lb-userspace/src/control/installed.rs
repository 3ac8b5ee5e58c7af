//! The model of what the maps hold: read back from them by `dataplane`, or followed operation by operation. Gives out the numbers that are
//! free.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use ipnet::IpNet;
use lb_common::{
    maps::{ForwardKind, Header, MemberInfo, SLOTS_PER_PAGE, Service, SourceRule, Vip},
    words::{MemberId, ServiceId},
};

use super::{
    Endpoint,
    op::{Op, PlaneSpec},
};
use crate::config::model::Limits;

/// Slot pages that there can be.
pub const SLOT_PAGES: u32 = 65_536;

/// How many there can be of each. Numbers run from 1 to these: 0 is none.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Capacity {
    /// Of services.
    pub services: u16,
    /// Of members.
    pub members: u16,
    /// Of addresses, VIPs and SNAT addresses together.
    pub vips: u16,
    /// Of NAT planes.
    pub planes: u16,
}

impl Capacity {
    /// What the limits allow. A VIP has at least one service and a SNAT address at least one plane.
    pub fn of(limits: &Limits) -> Self {
        let bounded = |count: u32| u16::try_from(count).unwrap_or(u16::MAX);
        Self {
            services: bounded(limits.services),
            members: bounded(limits.members),
            vips: bounded(limits.services.saturating_add(limits.nat_planes)),
            planes: bounded(limits.nat_planes),
        }
    }
}

/// A port of an address: the VIP's number, the port in host order, the IP protocol.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct PortKey {
    /// The VIP's number.
    pub vip: u16,
    /// In host order.
    pub port: u16,
    /// 6 or 17.
    pub protocol: u8,
}

/// What the maps hold.
#[derive(Clone, PartialEq, Debug)]
pub struct Installed {
    /// The sizes of the maps.
    pub capacity: Capacity,
    /// Published addresses: those that have a line entry.
    pub vips: BTreeMap<u16, Vip>,
    /// Published ports.
    pub ports: BTreeMap<PortKey, ServiceId>,
    /// Services whose record is written, published or not.
    pub services: BTreeMap<ServiceId, InstalledService>,
    /// Members whose info is written, retired ones too.
    pub members: BTreeMap<MemberId, InstalledMember>,
    /// Planes that are published.
    pub planes: BTreeMap<u16, PlaneSpec>,
    /// How many chunks of ports the kernel gave each plane, when somebody last looked.
    pub chunks_given: BTreeMap<u16, u16>,
    /// Source rules.
    pub rules: BTreeMap<(ServiceId, IpNet), SourceRule>,
}

/// A service in the maps.
#[derive(Clone, PartialEq, Debug)]
pub struct InstalledService {
    /// Its record.
    pub record: Service,
    /// The current member of each slot.
    pub current: Arc<[Option<MemberId>]>,
    /// The members with a weight, in the order of their endpoints, that `current` was computed from; none if nobody knows (read back). It
    /// spares computing the table again.
    pub shares: Option<Vec<(MemberId, u16)>>,
}

/// A member in the maps.
#[derive(Clone, PartialEq, Debug)]
pub struct InstalledMember {
    /// Its info.
    pub info: MemberInfo,
    /// The state in its word: as in its info, unless a writer died between the two.
    pub state: u8,
    /// The service in its word.
    pub service: ServiceId,
    /// The header that its word names.
    pub header: Option<Arc<Header>>,
}

impl Installed {
    /// Empty maps.
    pub fn new(capacity: Capacity) -> Self {
        Self {
            capacity,
            vips: BTreeMap::new(),
            ports: BTreeMap::new(),
            services: BTreeMap::new(),
            members: BTreeMap::new(),
            planes: BTreeMap::new(),
            chunks_given: BTreeMap::new(),
            rules: BTreeMap::new(),
        }
    }

    /// What the maps hold once `op` was performed.
    pub fn apply(&mut self, op: &Op) {
        match op {
            // Pages belong to the service whose record names them; until then they may be created again.
            Op::CreateSlots { .. } => {}
            Op::WriteMember { id, info } => {
                let header = self.members.remove(id).and_then(|member| member.header);
                self.members.insert(*id, InstalledMember { info: *info, state: info.state, service: ServiceId(info.service), header });
            }
            Op::SetHeader { id, header } => {
                if let Some(member) = self.members.get_mut(id) {
                    member.header.clone_from(header);
                }
            }
            Op::WritePlane { index, plane } => {
                self.planes.insert(*index, *plane);
            }
            Op::AddSourceRule { service, source, rule } => {
                self.rules.insert((*service, *source), *rule);
            }
            Op::WriteService { id, record } => self.write_service(*id, record),
            Op::SetSlots { service, shares, current } => {
                if let Some(service) = self.services.get_mut(service) {
                    service.current = Arc::clone(current);
                    service.shares = Some(shares.clone());
                }
            }
            Op::PublishVip { index, vip } => {
                self.vips.insert(*index, *vip);
            }
            Op::PublishPort { vip, port, protocol, service } => {
                self.ports.insert(PortKey { vip: *vip, port: *port, protocol: *protocol }, *service);
            }
            Op::UnpublishPort { vip, port, protocol } => {
                self.ports.remove(&PortKey { vip: *vip, port: *port, protocol: *protocol });
            }
            Op::UnpublishVip { index } => {
                self.vips.remove(index);
            }
            Op::RemoveSourceRule { service, source } => {
                self.rules.remove(&(*service, *source));
            }
            Op::FreeMember { id } => {
                self.members.remove(id);
            }
            Op::FreePlane { index } => {
                self.planes.remove(index);
                self.chunks_given.remove(index);
            }
            Op::FreeService { id, .. } => {
                self.services.remove(id);
            }
        }
    }

    fn write_service(&mut self, id: ServiceId, record: &Service) {
        match self.services.get_mut(&id) {
            Some(service) => service.record = *record,
            None => {
                let current = std::iter::repeat_n(None, record.slot_mask as usize + 1).collect();
                self.services.insert(id, InstalledService { record: *record, current, shares: None });
            }
        }
    }

    /// The services that packets can reach.
    pub fn published_services(&self) -> BTreeSet<ServiceId> {
        let any_port = self.vips.values().flat_map(|vip| [vip.any_tcp, vip.any_udp]).map(ServiceId).filter(|id| *id != ServiceId::NONE);
        self.ports.values().copied().chain(any_port).collect()
    }

    /// Numbers for services, the lowest first.
    pub(super) fn free_services(&self) -> impl Iterator<Item = ServiceId> + use<> {
        // A number that a member left behind still names would adopt it.
        let named = self.members.values().flat_map(|member| [member.info.service, member.service.0]);
        let used: BTreeSet<u16> = self.services.keys().map(|id| id.0).chain(named).collect();
        (1..=self.capacity.services).filter(move |id| !used.contains(id)).map(ServiceId)
    }

    /// Numbers for members, the lowest first.
    pub(super) fn free_members(&self) -> impl Iterator<Item = MemberId> {
        (1..=self.capacity.members).filter_map(MemberId::new).filter(|id| !self.members.contains_key(id))
    }

    /// Numbers for addresses, the lowest first.
    pub(super) fn free_vips(&self) -> impl Iterator<Item = u16> {
        (1..=self.capacity.vips).filter(|index| !self.vips.contains_key(index))
    }

    /// The slot pages that no service has.
    pub(super) fn free_pages(&self) -> FreePages {
        let mut used: Vec<(u32, u32)> = self.services.values().map(|service| (service.record.slot_page, service.pages())).collect();
        used.sort_unstable();
        FreePages { used }
    }
}

/// Slot pages to be had.
pub(super) struct FreePages {
    /// First and number of those that are taken, in order.
    used: Vec<(u32, u32)>,
}

impl FreePages {
    /// Takes the first of `pages` consecutive ones.
    pub(super) fn take(&mut self, pages: u32) -> Option<u32> {
        let mut first = 0;
        let mut place = 0_usize;
        for (start, count) in &self.used {
            if first + pages <= *start {
                break;
            }
            first = first.max(start + count);
            place += 1;
        }
        if first + pages > SLOT_PAGES {
            return None;
        }
        match place.checked_sub(1).and_then(|before| self.used.get_mut(before)) {
            Some((start, count)) if *start + *count == first => *count += pages,
            Some(_) | None => self.used.insert(place, (first, pages)),
        }
        Some(first)
    }
}

/// What tells the members of a service apart. A server that is reached by NAT and the same one reached otherwise are two members, because
/// neither's flows can go on as the other's.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Identity {
    /// The server.
    pub endpoint: Endpoint,
    /// Whether it is reached by NAT.
    pub is_translated: bool,
}

impl InstalledService {
    /// Whether its flows are translated.
    pub(super) fn is_translated(&self) -> bool {
        self.record.is(Service::NAT)
    }

    /// How many slot pages it has.
    pub fn pages(&self) -> u32 {
        pages_of(self.record.slot_mask + 1)
    }
}

impl InstalledMember {
    /// The server that it is.
    pub fn endpoint(&self) -> Endpoint {
        Endpoint { address: self.info.address.ip(), port: self.info.port }
    }

    /// Which member of its service it is.
    pub(super) fn identity(&self) -> Identity {
        Identity { endpoint: self.endpoint(), is_translated: self.info.forward == ForwardKind::Nat as u8 }
    }

    pub(super) fn is_as(&self, info: &MemberInfo) -> bool {
        self.info == *info && self.state == info.state && self.service.0 == info.service
    }
}

/// The pages that so many slots fill, or a part of one.
pub(crate) fn pages_of(slots: u32) -> u32 {
    slots.div_ceil(SLOTS_PER_PAGE)
}

#[cfg(test)]
mod tests;
