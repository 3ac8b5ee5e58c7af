//! A model of maps, kernel time and slots that plans are performed on.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use lb_common::{
    address::Address,
    maps::{Service, SourceRule},
    words::{MemberWord, ServiceId, SlotWord, Tick},
};

use super::super::*;
use crate::{
    config::model::{
        AddressPolicy, Balance, Bind, Config, Forward, Limits, Listener, Node, OnDown, Pool, Protocol, Server, ServerState, UdpFlows,
        XdpMode,
    },
    control::{
        Endpoint,
        desired::{DesiredMember, DesiredService, Host},
        header::NextHop,
        installed::{Capacity, Identity, InstalledMember},
        op::PlaneSpec,
        slot,
        standing::View,
    },
};

pub(super) const CAPACITY: Capacity = Capacity { services: 16, members: 200, vips: 16, planes: 400 };
pub(super) const IDLE_S: u64 = 60;

pub(super) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(super) fn server(number: u8) -> Server {
    Server { address: IpAddr::from([10, 0, 0, number]), port: None, weight: 10, backup: false, state: ServerState::Ready }
}

pub(super) fn pool(servers: &[Server]) -> Pool {
    let servers = servers.iter().map(|server| (server.address.to_string(), *server)).collect();
    Pool {
        forward: Forward::Dsr,
        balance: Balance::Tuple,
        on_down: OnDown::Keep,
        check: None,
        slow_start: Duration::ZERO,
        panic_threshold_pct: 0,
        passive_hints: true,
        names: BTreeMap::new(),
        servers,
    }
}

pub(super) fn bind(address: &str, port: Option<u16>, protocol: Protocol) -> Bind {
    Bind { address: ip(address), port, protocol }
}

pub(super) fn web() -> Listener {
    Listener {
        binds: vec![bind("192.0.2.1", Some(80), Protocol::Tcp)],
        set_aside: None,
        pool: "p0".into(),
        allow: Vec::new(),
        deny: Vec::new(),
        conn_rate: None,
        slots: 256,
        tcp_idle: Duration::from_secs(IDLE_S),
        udp_idle: Duration::from_secs(IDLE_S),
        udp: UdpFlows::Tracked,
    }
}

pub(super) fn config(listeners: &[Listener], pools: &[Pool]) -> Config {
    let node = Node {
        name: "n".into(),
        interfaces: vec!["eth0".into()],
        xdp: XdpMode::Auto,
        slot_seed: "seed".into(),
        pin_dir: "/p".into(),
        state_dir: "/s".into(),
        addresses: AddressPolicy::Leave,
        tunnel_source4: None,
        tunnel_source6: None,
    };
    Config {
        admin: crate::config::model::Admin::default(),
        dns: crate::config::model::Dns::default(),
        node,
        limits: Limits::default(),
        listeners: listeners.iter().enumerate().map(|(i, listener)| (format!("l{i}"), listener.clone())).collect(),
        vrrp: BTreeMap::new(),
        pools: pools.iter().enumerate().map(|(i, pool)| (format!("p{i}"), pool.clone().into())).collect(),
    }
}

pub(super) fn next_hop(last_byte: u8) -> NextHop {
    NextHop { ifindex: 1, vlan: None, source_mac: [2; 6], target_mac: [last_byte; 6], mtu: 1500, source: ip("10.0.0.250") }
}

/// Servers 10.0.0.1 to 10.0.0.9 are reached.
pub(super) fn host() -> Host {
    Host {
        next_hops: (1..10).map(|number| (IpAddr::from([10, 0, 0, number]), next_hop(number))).collect::<BTreeMap<_, _>>().into(),
        own_addresses: [ip("10.0.0.250")].into(),
        ephemeral_ports: 32_768..=60_999,
    }
}

pub(super) fn desired(listeners: &[Listener], pools: &[Pool]) -> Desired {
    Desired::from_config(&config(listeners, pools), &View::default(), &host())
}

/// One web service on these servers.
pub(super) fn web_on(servers: &[Server]) -> Desired {
    desired(&[web()], &[pool(servers)])
}

#[derive(Clone)]
pub(super) struct World {
    pub(super) maps: Installed,
    slots: BTreeMap<ServiceId, Vec<(SlotWord, Tick)>>,
    pub(super) now: Tick,
    incarnations: u64,
}

impl World {
    pub(super) fn new() -> Self {
        Self { maps: Installed::new(CAPACITY), slots: BTreeMap::new(), now: 1000, incarnations: 0 }
    }

    pub(super) fn fresh(desired: &Desired) -> Self {
        let mut world = Self::new();
        world.converge(desired);
        world
    }

    pub(super) fn plan(&mut self, desired: &Desired, freeable: &Freeable) -> Plan {
        let incarnations = &mut self.incarnations;
        let mut incarnation = || {
            *incarnations += 1;
            *incarnations
        };
        plan(desired, &self.maps, u64::from(self.now), freeable, &mut incarnation)
    }

    /// Plans what differs from `before` alone.
    pub(super) fn change(&mut self, before: &Desired, desired: &Desired) -> Plan {
        let incarnations = &mut self.incarnations;
        let mut incarnation = || {
            *incarnations += 1;
            *incarnations
        };
        change(before, desired, &self.maps, u64::from(self.now), &mut incarnation)
    }

    /// Performs one plan; whether it had room for everything.
    pub(super) fn converge_once(&mut self, desired: &Desired) -> bool {
        let Plan { ops, unplaced } = self.plan(desired, &Freeable::default());
        ops.iter().for_each(|op| self.perform(op));
        unplaced.is_empty()
    }

    /// Performs a plan that frees nothing.
    pub(super) fn converge(&mut self, desired: &Desired) -> Vec<Op> {
        let ops = self.ops(desired, &Freeable::default());
        ops.iter().for_each(|op| self.perform(op));
        ops
    }

    /// The operations of a plan that has room for everything.
    pub(super) fn ops(&mut self, desired: &Desired, freeable: &Freeable) -> Vec<Op> {
        let Plan { ops, unplaced } = self.plan(desired, freeable);
        assert_eq!(unplaced, []);
        ops
    }

    pub(super) fn perform(&mut self, op: &Op) {
        let now = self.now;
        match op {
            Op::SetSlots { service, current, .. } => {
                for ((word, since), member) in self.slots.get_mut(service).unwrap().iter_mut().zip(current.iter()) {
                    let change = slot::change(*word, *member, now);
                    *word = change.word;
                    if change.timer == slot::LearningTimer::Restart {
                        *since = now;
                    }
                }
            }
            Op::WriteService { id, record } => {
                self.slots.entry(*id).or_insert_with(|| vec![(SlotWord(0), 0); record.slot_mask as usize + 1]);
            }
            Op::FreeService { id, .. } => {
                assert!(!self.maps.published_services().contains(id));
                self.slots.remove(id);
            }
            Op::SetHeader { id, .. } => assert!(self.maps.members.contains_key(id)),
            Op::CreateSlots { .. }
            | Op::WriteMember { .. }
            | Op::WritePlane { .. }
            | Op::AddSourceRule { .. }
            | Op::PublishVip { .. }
            | Op::PublishPort { .. }
            | Op::UnpublishPort { .. }
            | Op::UnpublishVip { .. }
            | Op::RemoveSourceRule { .. }
            | Op::FreeMember { .. }
            | Op::FreePlane { .. } => {}
        }
        self.maps.apply(op);
        self.check();
    }

    /// What must hold after every single operation.
    fn check(&self) {
        for id in self.maps.published_services() {
            let service = &self.maps.services[&id];
            let mut is_named = [false; CAPACITY.members as usize + 1];
            for ((word, _), current) in self.slots[&id].iter().zip(service.current.iter()) {
                assert_eq!(word.current(), *current);
                [word.current(), word.default()].into_iter().flatten().for_each(|member| is_named[usize::from(member.number())] = true);
            }
            for member in (1..).zip(&is_named[1..]).filter(|(_, is_named)| **is_named).filter_map(|(number, _)| MemberId::new(number)) {
                let member = self.maps.members.get(&member).unwrap_or_else(|| panic!("{id:?} names {member:?}, which is free"));
                assert_eq!((member.service, member.info.service), (id, id.0));
            }
        }
        self.check_ports();
        for (key, id) in &self.maps.ports {
            let record = self.maps.services[id].record;
            assert_eq!((self.maps.vips[&key.vip].address, key.port, key.protocol), (record.vip, record.port, record.protocol));
        }
        for header in self.maps.members.values().filter_map(|member| member.header.as_deref()) {
            for index in header.nat_plane..header.nat_plane + header.nat_planes {
                let snat = self.maps.planes[&index].snat;
                let vip = self.maps.vips.values().find(|vip| vip.address == snat).expect("replies to a plane in use are received");
                assert_ne!(vip.flags & u32::from(lb_common::words::VipWord::SNAT), 0);
            }
        }
    }

    /// A server can tell the flows of all planes toward it apart.
    fn check_ports(&self) {
        let positions =
            |plane: &PlaneSpec| [plane.low, plane.high].map(|(first, count)| u16::from(first)..u16::from(first) + u16::from(count));
        let planes: Vec<&PlaneSpec> = self.maps.planes.values().collect();
        for any in planes.iter().filter(|plane| plane.server_port == 0) {
            let toward = |plane: &PlaneSpec| (plane.snat, plane.server, plane.protocol);
            for other in planes.iter().filter(|plane| plane.server_port != 0 && toward(plane) == toward(any)) {
                let is_shared = |port| positions(other).iter().any(|range| range.contains(&port));
                assert!(!positions(any).into_iter().flatten().any(is_shared), "{any:?} {other:?}");
            }
        }
    }

    /// Lets time pass, for the slots in two steps: settled, then clean.
    pub(super) fn wait(&mut self, seconds: Tick) {
        for step in [seconds / 2, seconds - seconds / 2] {
            self.now += step;
            for (id, slots) in &mut self.slots {
                let idle_s = self.maps.services[id].record.idle_s;
                for (word, since) in slots {
                    *word = slot::ripen(*word, *since, None, idle_s, self.now).unwrap_or(*word);
                }
            }
        }
    }

    /// What is out of use if no flow lives: whatever no reachable slot has as its default.
    pub(super) fn freeable(&self) -> Freeable {
        let published = self.maps.published_services();
        let reachable = self.slots.iter().filter(|(id, _)| published.contains(id));
        let named: BTreeSet<MemberId> = reachable.flat_map(|(_, slots)| slots).filter_map(|(word, _)| word.default()).collect();
        let members = self.maps.members.keys().copied().filter(|id| !named.contains(id)).collect();
        Freeable { members, planes: self.maps.planes.keys().copied().collect() }
    }

    /// Waits and plans until nothing is left to do.
    pub(super) fn come_to_rest(&mut self, desired: &Desired) {
        for _ in 0..20 {
            self.wait(1000);
            let freeable = self.freeable();
            let ops = self.plan(desired, &freeable).ops;
            if ops.is_empty() {
                return;
            }
            ops.iter().for_each(|op| self.perform(op));
        }
        panic!("the plan never ends: {:?}", self.plan(desired, &self.freeable()));
    }

    /// The maps as packets see them: no numbers, nothing retired.
    pub(super) fn view(&self) -> BTreeMap<Key, ServiceView> {
        let published = self.maps.published_services();
        let services = self.maps.services.iter().filter(|(id, _)| published.contains(id));
        services.map(|(id, service)| (service_key(&service.record), self.service_view(*id))).collect()
    }

    fn service_view(&self, id: ServiceId) -> ServiceView {
        let service = &self.maps.services[&id];
        let members = self.maps.members.values().filter(|member| member.info.service == id.0 && member.info.retired_at == 0);
        ServiceView {
            record: Service { id: 0, incarnation: 0, slot_page: 0, ..service.record },
            rules: self.maps.rules.iter().filter(|((owner, _), _)| *owner == id).map(|((_, net), rule)| (net.to_string(), *rule)).collect(),
            members: members.map(|member| (member.endpoint(), member_view(member))).collect(),
            slots: service.current.iter().map(|id| id.map(|id| self.maps.members[&id].endpoint())).collect(),
        }
    }

    /// Whether every slot leads, and led, to members whose flows its service can have, or to such as are closing.
    pub(super) fn leads_where_it_can(&self) -> bool {
        let leads = |id: &ServiceId| {
            let is_usable = |member: MemberId| {
                let member = &self.maps.members[&member];
                member.identity().is_translated == self.maps.services[id].is_translated() || member.state & MemberWord::CLOSING != 0
            };
            self.slots[id].iter().flat_map(|(word, _)| [word.current(), word.default()]).flatten().all(is_usable)
        };
        self.maps.published_services().iter().all(leads)
    }

    /// Whether the maps are as desired but for what had no room.
    pub(super) fn follows(&self, desired: &Desired, unplaced: &[Unplaced]) -> bool {
        let published: BTreeMap<ServiceKey, ServiceId> =
            self.maps.published_services().into_iter().map(|id| (ServiceKey::of(&self.maps.services[&id].record).unwrap(), id)).collect();
        let lacks = |key: &ServiceKey, server| unplaced.iter().any(|one| one.service == *key && one.server == server);
        let is_there = |key| published.contains_key(key) || lacks(key, None);
        desired.services.keys().all(is_there)
            && published.iter().all(|(key, id)| desired.services.get(key).is_some_and(|wanted| self.serves(key, *id, wanted, &lacks)))
    }

    fn serves(
        &self,
        key: &ServiceKey,
        id: ServiceId,
        wanted: &DesiredService,
        lacks: &dyn Fn(&ServiceKey, Option<Endpoint>) -> bool,
    ) -> bool {
        let service = &self.maps.services[&id];
        let members: BTreeMap<Identity, (MemberId, &InstalledMember)> =
            self.maps.members.iter().filter(|(_, one)| one.info.service == id.0).map(|(id, one)| (one.identity(), (*id, one))).collect();
        let holds: BTreeSet<MemberId> = service.current.iter().copied().flatten().collect();
        let serving: Vec<_> = wanted.identities().filter(|(server, one)| one.weight > 0 && !lacks(key, Some(server.endpoint))).collect();
        let is_right = |server: Identity, one: &DesiredMember| match members.get(&server) {
            Some((id, member)) => {
                let takes = one.weight > 0
                    && (!lacks(key, Some(server.endpoint)) || member.header.as_ref().is_some_and(|header| header.nat_planes > 0));
                // Others hold the slots, and are translated where it is not, or the other way round.
                let is_unusable = serving.is_empty() && service.is_translated() != member.identity().is_translated;
                let closing = if is_unusable { MemberWord::NO_NEW | MemberWord::DOWN | MemberWord::CLOSING } else { 0 };
                (member.info.weight, member.state) == (one.weight, one.state | closing) && (takes || !holds.contains(id))
            }
            None => lacks(key, Some(server.endpoint)),
        };
        let is_gone = |server: &Identity| {
            let (id, member) = members[server];
            if holds.contains(&id) { serving.is_empty() } else { member.info.retired_at != 0 }
        };
        wanted.identities().all(|(server, one)| is_right(server, one))
            && members.keys().filter(|server| !wanted.has(server)).all(is_gone)
            && (serving.is_empty() || service.current[0].is_some())
    }

    /// Addresses with their flags and the services of their whole port range.
    pub(super) fn vips(&self) -> BTreeMap<Address, (u32, [Option<Key>; 2])> {
        let key = |id: u16| self.maps.services.get(&ServiceId(id)).map(|service| service_key(&service.record));
        self.maps.vips.values().map(|vip| (vip.address, (vip.flags, [key(vip.any_tcp), key(vip.any_udp)]))).collect()
    }

    /// SNAT addresses that a member uses, in their order.
    pub(super) fn snat_of(&self, number: u8) -> Vec<IpAddr> {
        let member = self.maps.members.values().find(|member| member.info.address.ip() == IpAddr::from([10, 0, 0, number])).unwrap();
        let header = member.header.as_deref().unwrap();
        (header.nat_plane..header.nat_plane + header.nat_planes).map(|index| self.maps.planes[&index].snat.ip()).collect()
    }

    pub(super) fn member(&self, number: u8) -> Option<(MemberId, &InstalledMember)> {
        let mut members = self.maps.members.iter();
        members.find(|(_, member)| member.info.address.ip() == IpAddr::from([10, 0, 0, number])).map(|(id, member)| (*id, member))
    }

    /// The member that each of a service's slots had before, as far as it is remembered.
    pub(super) fn earlier(&self, service: ServiceId) -> BTreeSet<Option<MemberId>> {
        self.slots[&service].iter().map(|(word, _)| word.default()).collect()
    }

    pub(super) fn slots_of(&self, id: MemberId) -> usize {
        self.maps.services.values().flat_map(|service| service.current.iter()).filter(|current| **current == Some(id)).count()
    }
}

/// VIP, port, IP protocol.
type Key = (Address, u16, u8);

fn service_key(record: &Service) -> Key {
    (record.vip, record.port, record.protocol)
}

#[derive(PartialEq, Debug)]
pub(super) struct ServiceView {
    record: Service,
    rules: BTreeMap<String, SourceRule>,
    members: BTreeMap<Endpoint, MemberView>,
    slots: Vec<Option<Endpoint>>,
}

/// Weight, state, forward, header without the numbers of planes.
type MemberView = (u16, u8, u8, Option<lb_common::maps::Header>);

fn member_view(member: &InstalledMember) -> MemberView {
    let header = member.header.as_deref().map(|header| {
        let mut bytes = header.bytes;
        if header.nat_planes > 0 {
            bytes[3..5].fill(0);
        }
        lb_common::maps::Header { nat_plane: 0, nat_planes: header.nat_planes.min(1), bytes, ..*header }
    });
    (member.info.weight, member.state, member.info.forward, header)
}
