//! Reads back what the tables hold: for the planner, for `weir status` and for metrics.

use std::{collections::BTreeMap, net::Ipv4Addr, net::Ipv6Addr};

use aya::maps::{MapData, MapError, PerCpuArray};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use lb_common::{
    address::Address,
    maps::{Header, MemberInfo, NatPlane, Service, Settings, SourceRule, Tally, Traffic, Vip},
    reason::{Drop, Note},
    words::{FlowState, FlowWord, MemberId, MemberWord, PortWord, ServiceId, SlotWord, Tick, VipWord},
};

use super::{
    apply::is_in_use,
    cell::Cell,
    layout::{self, Features, Machine, MapSize},
    lines,
    mapped::AccessError,
    planes::{self, NatUsage},
    tables::{SlotsError, Tables},
};
use crate::config::model::Limits;

/// Why the tables could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// An index is out of range.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// The kernel refuses.
    #[error("failed to read a map")]
    Map(#[from] MapError),
}

/// A member as it is installed.
#[derive(Clone, PartialEq, Debug)]
pub struct MemberRecord {
    /// Its number.
    pub id: MemberId,
    /// What the packet path reads.
    pub word: MemberWord,
    /// What the control plane keeps.
    pub info: MemberInfo,
    /// The header that the word names.
    pub header: Option<Header>,
}

/// The state of a flow for its place in the cache: a flow that showed only a SYN may be replaced after this many seconds.
const SYN_S: u32 = 3;
/// One that was acknowledged, after this many.
const ACKNOWLEDGED_S: u32 = 6;

impl Tables {
    /// The limits that the tables were made for.
    pub fn limits(&self) -> Limits {
        self.abi.limits()
    }

    /// What a program built for `features` is told about these tables.
    pub fn settings(&self, features: Features) -> Settings {
        layout::settings(&self.sizes(), features, self.abi.hertz, self.abi.keys)
    }

    /// The tables' sizes as they are: those of a feature that was ever on stay large.
    fn sizes(&self) -> Vec<MapSize> {
        let lens = [
            ("RATES", self.rates.len()),
            ("NAT_LINES", self.nat_lines.len()),
            ("NAT_ENDPOINTS", self.nat_endpoints.len()),
            ("NAT_FREE", self.nat_free.len()),
        ];
        let mut sizes = layout::map_sizes(&self.limits(), Features::default());
        for size in &mut sizes {
            size.entries = lens.iter().find(|(name, _)| *name == size.name).map_or(size.entries, |&(_, len)| len);
        }
        sizes
    }

    /// Key of every local table's hash.
    pub fn table_key(&self) -> u64 {
        self.abi.keys.table
    }

    /// Bytes of kernel memory that the maps take as they are.
    ///
    /// # Errors
    /// [`ReadError::Map`] if the kernel refuses.
    pub fn memory_bytes(&self) -> Result<u64, ReadError> {
        let features = if self.nat_flows.len() > 1 { Settings::NAT } else { 0 } | if self.rates.len() > 1 { Settings::RATE } else { 0 };
        let cpus = aya::util::nr_cpus().map_or(1, |cpus| cpus as u32);
        let machine = Machine { cpus, slot_pages: self.slot_pages()?.len() as u32 };
        Ok(layout::memory_bytes(&self.limits(), Features(features), machine))
    }

    /// Every installed service.
    ///
    /// # Errors
    /// [`AccessError`] never for tables of the right size.
    pub fn services(&self) -> Result<Vec<(ServiceId, Service)>, AccessError> {
        let records = (1..self.services.len()).map(|index| Ok((ServiceId(index as u16), self.services.record(index)?)));
        records.filter(|record| record.as_ref().is_ok_and(|(id, service)| service.id == id.0)).collect()
    }

    /// Every member in use.
    ///
    /// # Errors
    /// [`AccessError`] if a member names a header beyond the table.
    pub fn members(&self) -> Result<Vec<MemberRecord>, AccessError> {
        let mut members = Vec::new();
        for id in (1..self.members.len()).filter_map(|index| MemberId::new(index as u16)) {
            let index = u32::from(id.number());
            let (word, info) = (MemberWord(self.members.word(index, 0)?), self.member_info.record(index)?);
            if word.service() != ServiceId::NONE || info.service != 0 {
                let header = (word.header() != 0).then(|| self.headers.record(word.header())).transpose()?;
                members.push(MemberRecord { id, word, info, header });
            }
        }
        Ok(members)
    }

    /// Every VIP record in use, with its entry in `VIP_LINES` if it has been published.
    ///
    /// # Errors
    /// [`AccessError`] never for tables of the right size.
    pub fn vips(&self) -> Result<Vec<(u16, Vip, Option<VipWord>)>, AccessError> {
        let published: BTreeMap<u16, VipWord> = lines::entries(&self.vip_lines).map(VipWord).map(|word| (word.index(), word)).collect();
        let mut vips = Vec::new();
        for index in 1..self.vips.len() {
            let vip = self.vips.record(index)?;
            if vip.address != Address::NONE {
                vips.push((index as u16, vip, published.get(&(index as u16)).copied()));
            }
        }
        Ok(vips)
    }

    /// Every (VIP, port, protocol) that names a service, in no order.
    pub fn ports(&self) -> impl Iterator<Item = PortWord> + '_ {
        lines::entries(&self.port_lines).map(PortWord)
    }

    /// Every NAT plane in use.
    ///
    /// # Errors
    /// [`AccessError`] never for tables of the right size.
    pub fn planes(&self) -> Result<Vec<(u16, NatPlane)>, AccessError> {
        let records = (0..self.nat_planes.len()).map(|index| Ok((index as u16, self.nat_planes.record(index)?)));
        records.filter(|record| record.as_ref().is_ok_and(|(_, plane)| is_in_use(plane))).collect()
    }

    /// How the NAT planes' ports are used.
    ///
    /// # Errors
    /// [`AccessError`] never for tables of the right size.
    pub fn nat_usage(&self) -> Result<NatUsage, AccessError> {
        planes::usage(self)
    }

    /// Every slot of a service, in order.
    ///
    /// # Errors
    /// [`SlotsError`] if there is no such service or a page of its table is missing.
    pub fn slots(&self, id: ServiceId) -> Result<Vec<SlotWord>, SlotsError> {
        let table = self.slot_table(id)?;
        Ok((0..table.slots).map(|slot| table.word(slot)).collect::<Result<_, _>>()?)
    }

    /// The slot pages that exist, in order.
    ///
    /// # Errors
    /// [`ReadError::Map`] if the kernel refuses.
    pub fn slot_pages(&self) -> Result<Vec<u32>, ReadError> {
        Ok(self.slot_pages.existing()?)
    }

    /// Every source rule, in no order.
    ///
    /// # Errors
    /// [`ReadError::Map`] if the kernel refuses.
    pub fn source_rules(&self) -> Result<Vec<(ServiceId, IpNet, SourceRule)>, ReadError> {
        let mut rules = Vec::new();
        for entry in self.sources4.iter() {
            let (key, rule) = entry?;
            let (Cell(source), prefix) = (key.data(), prefix_of(key.prefix_len()));
            let net = Ipv4Net::new(Ipv4Addr::from(source.address), prefix);
            rules.extend(net.map(|net| (service_of(source.service), IpNet::V4(net), rule)));
        }
        for entry in self.sources6.iter() {
            let (key, rule) = entry?;
            let (Cell(source), prefix) = (key.data(), prefix_of(key.prefix_len()));
            let net = Ipv6Net::new(Ipv6Addr::from(source.address), prefix);
            rules.extend(net.map(|net| (service_of(source.service), IpNet::V6(net), rule)));
        }
        Ok(rules)
    }

    /// What was sent to a member, over all CPUs.
    ///
    /// # Errors
    /// [`ReadError::Map`] if the kernel refuses.
    pub fn traffic(&self, id: MemberId) -> Result<Traffic, ReadError> {
        let values = self.member_stats.get(&u32::from(id.number()), 0)?;
        Ok(values
            .iter()
            .fold(Traffic::default(), |sum, Cell(cpu)| Traffic { packets: sum.packets + cpu.packets, bytes: sum.bytes + cpu.bytes }))
    }

    /// How many packets of the service, or with [`ServiceId::NONE`] of none, were refused, for each reason that occurred.
    ///
    /// # Errors
    /// [`ReadError::Map`] if the kernel refuses.
    pub fn drops(&self, id: ServiceId) -> Result<Vec<(Drop, u64)>, ReadError> {
        let first = u32::from(id.0) * Drop::COUNT;
        let counts = Drop::ALL.iter().map(|&reason| Ok((reason, sum(&self.drops, first + reason.index())?)));
        counts.filter(|count| !matches!(count, Ok((_, 0)))).collect()
    }

    /// What else was done with packets of the service, each that occurred.
    ///
    /// # Errors
    /// [`ReadError::Map`] if the kernel refuses.
    pub fn notes(&self, id: ServiceId) -> Result<Vec<(Note, u64)>, ReadError> {
        let first = u32::from(id.0) * Note::COUNT;
        let counts = Note::ALL.iter().map(|&note| Ok((note, sum(&self.notes, first + note.index())?)));
        counts.filter(|count| !matches!(count, Ok((_, 0)))).collect()
    }

    /// Flows in the cache that are alive at `now`, by member.
    ///
    /// # Errors
    /// [`AccessError`] never for tables of the right size.
    pub fn flows_by_member(&self, now: Tick) -> Result<BTreeMap<MemberId, u32>, AccessError> {
        let idle_s = self.idle_by_member()?;
        let mut flows = BTreeMap::new();
        for word in lines::entries(&self.flows).map(FlowWord) {
            if let Some(member) = word.member().filter(|member| is_live(word, idle_s.get(member).copied(), now)) {
                *flows.entry(member).or_insert(0) += 1;
            }
        }
        Ok(flows)
    }

    /// The idle timeout, seconds, of each member's service.
    pub(crate) fn idle_by_member(&self) -> Result<BTreeMap<MemberId, u32>, AccessError> {
        let idle_s: BTreeMap<ServiceId, u32> = self.services()?.into_iter().map(|(id, service)| (id, service.idle_s)).collect();
        let mut members = BTreeMap::new();
        for member in (1..self.members.len()).filter_map(|index| MemberId::new(index as u16)) {
            let word = MemberWord(self.members.word(u32::from(member.number()), 0)?);
            members.extend(idle_s.get(&word.service()).map(|&idle_s| (member, idle_s)));
        }
        Ok(members)
    }
}

fn is_live(word: FlowWord, idle_s: Option<u32>, now: Tick) -> bool {
    let Some(idle_s) = idle_s else { return false };
    match word.state() {
        FlowState::Syn => word.idle(now) <= SYN_S,
        FlowState::Acknowledged => word.idle(now) <= ACKNOWLEDGED_S,
        FlowState::Proven => word.idle(now) <= idle_s,
        FlowState::Closed => false,
    }
}

fn sum(counters: &PerCpuArray<MapData, Cell<Tally>>, index: u32) -> Result<u64, MapError> {
    Ok(counters.get(&index, 0)?.iter().map(|Cell(cpu)| cpu.count).sum())
}

fn service_of(bytes: [u8; 4]) -> ServiceId {
    ServiceId(u32::from_be_bytes(bytes) as u16)
}

fn prefix_of(key_bits: u32) -> u8 {
    key_bits.saturating_sub(32) as u8
}
