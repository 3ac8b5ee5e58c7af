//! A data plane of a process's own, without interfaces, filled as the planner would fill it.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use aya::maps::{Array, Map, MapData};
use bytemuck::Zeroable as _;
use lb_common::{
    maps::{ForwardKind, MemberInfo, OwnMacs, SLOTS_PER_PAGE, SOURCE_ALLOW, Service, Vip, WORDS_PER_LINE},
    words::{MemberId, ServiceId, VipWord},
};
use lb_userspace::{
    balance::maglev::{self, Share},
    config::model::{Limits, XdpMode},
    control::{
        Endpoint,
        header::{self, NextHop, PlaneRun, Target},
        op::{Op, PlaneSpec},
        slot,
    },
    dataplane::{Dataplane, Features, Request, SlotRules},
};

/// A service to install, with servers of its own.
#[derive(Clone, Copy, Debug)]
pub struct Spec {
    /// What clients use.
    pub vip: IpAddr,
    /// In host order.
    pub port: u16,
    /// 6 or 17.
    pub protocol: u8,
    /// How servers are reached.
    pub forward: ForwardKind,
    /// A union of the `Service` flags.
    pub flags: u32,
}

/// What state the slots of a service are in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Slots {
    /// No server has changed.
    Clean,
    /// Every slot has just changed its server.
    Learning,
    /// Every slot changed its server one idle timeout ago.
    Settled,
}

/// The way to every server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Link {
    /// The interface that packets leave by.
    pub ifindex: u32,
    /// Its address.
    pub mac: [u8; 6],
    /// Where clients send their frames.
    pub front_mac: [u8; 6],
    /// The servers'.
    pub server_mac: [u8; 6],
}

/// The loopback interface, by which BPF_PROG_TEST_RUN lets frames come in: so they are sent back out of it.
pub const LOOPBACK: Link = Link { ifindex: 1, mac: [2, 0, 0, 0, 0, 1], front_mac: [2, 0, 0, 0, 0, 1], server_mac: [2, 0, 0, 0, 0, 2] };

/// Servers of a service.
pub const SERVERS: u16 = 100;
const SLOTS: u32 = 65_536;
const IDLE_S: u32 = 300;
const MTU: u16 = 1500;
/// Prefixes of an allow list, beside that of the clients.
const ALLOWED_PREFIXES: u8 = 100;

/// A loaded data plane.
pub struct World {
    dataplane: Dataplane,
    pin_dir: PathBuf,
    link: Link,
    services: u16,
    planes: u16,
}

impl World {
    /// Loads a data plane that takes packets from these interfaces.
    ///
    /// # Errors
    /// If it cannot be loaded.
    pub fn load(limits: &Limits, features: Features, interfaces: &[String], link: Link) -> anyhow::Result<Self> {
        let pin_dir = Path::new("/sys/fs/bpf").join(format!("weir-bench-{}", std::process::id()));
        let rules = SlotRules { change: |word, member, now| slot::change(word, member, now).word, ripen: slot::ripen };
        let request = Request {
            pin_dir: &pin_dir,
            limits,
            slot_key: 0x0123_4567_89ab_cdef,
            features,
            macs: OwnMacs::new(&[link.front_mac, link.mac]),
            interfaces,
            mode: XdpMode::Auto,
            rules,
        };
        let (dataplane, _) = Dataplane::start(&request).context("failed to start the data plane")?;
        Ok(Self { dataplane, pin_dir, link, services: 0, planes: 0 })
    }

    /// The loaded data plane.
    pub fn dataplane(&mut self) -> &mut Dataplane {
        &mut self.dataplane
    }

    /// Installs a service with [`SERVERS`] servers.
    ///
    /// # Errors
    /// If a table has no room.
    pub fn install(&mut self, spec: &Spec, slots: Slots) -> anyhow::Result<()> {
        self.services += 1;
        let id = ServiceId(self.services);
        let first_page = u32::from(self.services) * SLOTS / SLOTS_PER_PAGE;
        self.apply(&Op::CreateSlots { first_page, pages: SLOTS / SLOTS_PER_PAGE })?;
        let servers = servers(spec.forward, spec.vip);
        let first_member = (self.services - 1) * SERVERS + 1;
        for (&server, number) in servers.iter().zip(first_member..) {
            self.install_member(id, MemberId::new(number).context("numbers begin at one")?, spec, server)?;
        }
        self.apply(&Op::WriteService { id, record: record(id, spec, first_page) })?;
        self.allow_clients(id, spec)?;
        self.fill(id, first_member, &servers, slots)?;
        if spec.forward == ForwardKind::Nat {
            self.publish(u16::MAX >> 8, SNAT.into(), VipWord::SNAT)?;
        }
        self.publish(self.services, spec.vip, VipWord::VIP)?;
        self.apply(&Op::PublishPort { vip: self.services, port: spec.port, protocol: spec.protocol, service: id })
    }

    fn install_member(&mut self, service: ServiceId, id: MemberId, spec: &Spec, server: Endpoint) -> anyhow::Result<()> {
        let info = MemberInfo {
            address: server.address.into(),
            service: service.0,
            weight: 1,
            forward: spec.forward as u8,
            ..MemberInfo::zeroed()
        };
        self.apply(&Op::WriteMember { id, info })?;
        let planes = if spec.forward == ForwardKind::Nat { Some(self.plane(spec, server)?) } else { None };
        let source: IpAddr = if server.address.is_ipv4() { Ipv4Addr::new(10, 0, 0, 254).into() } else { SOURCE6.into() };
        let hop = NextHop {
            ifindex: self.link.ifindex,
            vlan: None,
            source_mac: self.link.mac,
            target_mac: self.link.server_mac,
            mtu: MTU,
            source,
        };
        let target = Target { forward: spec.forward, server, vip: spec.vip, tunnel_source: None, gue_port: 6080, planes };
        let header = header::build(&target, &hop)?;
        self.apply(&Op::SetHeader { id, header: Some(std::sync::Arc::new(header)) })
    }

    /// A plane of its own for a server, of a SNAT address with the ports from 1 024 on.
    fn plane(&mut self, spec: &Spec, server: Endpoint) -> anyhow::Result<PlaneRun> {
        self.planes += 1;
        let plane = PlaneSpec {
            snat: SNAT.into(),
            server: server.address.into(),
            server_port: spec.port,
            protocol: spec.protocol,
            low: (4, 252),
            high: (0, 0),
        };
        self.apply(&Op::WritePlane { index: self.planes, plane })?;
        Ok(PlaneRun { first: self.planes, count: 1, snat: SNAT.into() })
    }

    fn publish(&mut self, index: u16, address: IpAddr, flags: u16) -> anyhow::Result<()> {
        self.apply(&Op::PublishVip { index, vip: Vip { address: address.into(), flags: flags.into(), ..Vip::zeroed() } })
    }

    fn allow_clients(&mut self, service: ServiceId, spec: &Spec) -> anyhow::Result<()> {
        if spec.flags & Service::SOURCE_RULES == 0 {
            return Ok(());
        }
        let others = (0..ALLOWED_PREFIXES).map(|number| format!("172.16.{number}.0/24"));
        for source in others.chain(["10.0.0.0/8".to_owned(), "2001:db8::/32".to_owned()]) {
            self.apply(&Op::AddSourceRule { service, source: source.parse()?, rule: SOURCE_ALLOW })?;
        }
        Ok(())
    }

    fn fill(&mut self, service: ServiceId, first_member: u16, servers: &[Endpoint], slots: Slots) -> anyhow::Result<()> {
        let shares: Vec<Share> = servers.iter().map(|&server| Share { server, weight: 1 }).collect();
        let table = maglev::table(SLOTS, &shares);
        let set = |turn: u16| {
            let current = table.iter().map(|&index| MemberId::new(first_member + (index + turn) % SERVERS)).collect::<Vec<_>>().into();
            Op::SetSlots { service, shares: vec![], current }
        };
        self.apply(&set(0))?;
        if slots == Slots::Clean {
            return Ok(());
        }
        self.apply(&set(1))?;
        if slots == Slots::Settled {
            let now = self.dataplane.tick()?;
            self.dataplane.applier().ripen_all(now)?;
            let later = now.wrapping_add(IDLE_S + 2);
            let unripe = self.dataplane.applier().ripen_all(later)?;
            anyhow::ensure!(unripe.settled > 0 && unripe.learning == 0, "{unripe:?}");
        }
        Ok(())
    }

    fn apply(&mut self, op: &Op) -> anyhow::Result<()> {
        let now = self.dataplane.tick()?;
        self.dataplane.applier().apply(op, now).with_context(|| format!("failed to apply {op:?}"))
    }

    /// Packets that were sent to servers.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn sent(&self) -> anyhow::Result<u64> {
        let members = (1..=self.services * SERVERS).filter_map(MemberId::new);
        members.map(|id| Ok(self.dataplane.tables().traffic(id)?.packets)).sum()
    }

    /// Empties tables of lines by their names.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn empty(&self, tables: &[&str]) -> anyhow::Result<()> {
        for name in tables {
            let map = Map::from_map_data(MapData::from_pin(self.pin_dir.join(name))?)?;
            let mut lines: Array<_, [u64; WORDS_PER_LINE]> = map.try_into()?;
            for index in 0..lines.len() {
                lines.set(index, [0; WORDS_PER_LINE], 0)?;
            }
        }
        Ok(())
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // The pins keep everything alive; the lock is still this process's, so they are removed by hand.
        for entry in std::fs::read_dir(&self.pin_dir).into_iter().flatten().flatten() {
            let _ = std::fs::remove_file(entry.path());
        }
        let _ = std::fs::remove_dir(&self.pin_dir);
    }
}

/// The address that servers see with NAT.
const SNAT: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 253);
const SOURCE6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0xfe);

fn servers(forward: ForwardKind, vip: IpAddr) -> Vec<Endpoint> {
    let is_v6 = match forward {
        ForwardKind::Ipip6 | ForwardKind::Gue6 => true,
        ForwardKind::Ipip4 | ForwardKind::Gue4 => false,
        ForwardKind::Nat | ForwardKind::Dsr => vip.is_ipv6(),
    };
    let address = |number: u16| -> IpAddr {
        if is_v6 { Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, number).into() } else { Ipv4Addr::new(10, 0, 0, number as u8).into() }
    };
    (1..=SERVERS).map(|number| Endpoint { address: address(number), port: 0 }).collect()
}

fn record(id: ServiceId, spec: &Spec, slot_page: u32) -> Service {
    Service {
        vip: spec.vip.into(),
        slot_key: 0x0123_4567_89ab_cdef,
        incarnation: 0xfedc_ba98_7654_3210 ^ u64::from(id.0),
        slot_page,
        slot_mask: SLOTS - 1,
        idle_s: IDLE_S,
        port: spec.port,
        protocol: spec.protocol,
        flags: spec.flags | if spec.forward == ForwardKind::Nat { Service::NAT } else { 0 },
        // No source exceeds it: what it costs is measured, not what it refuses.
        rate_interval_us: 1,
        rate_tolerance_us: 1 << 30,
        id: id.0,
        ..Service::zeroed()
    }
}
