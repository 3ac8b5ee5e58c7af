//! Performs the operations of a plan on the tables. Each may be repeated, and leaves the tables usable wherever it stops.

use std::{collections::BTreeSet, net::IpAddr};

use aya::maps::{MapError, PerCpuValues, xdp::XdpMapError};
use bytemuck::Zeroable as _;
use ipnet::IpNet;
use lb_common::{
    address::Address,
    maps::{Header, LinkInfo, MemberInfo, NatPlane, Service, SourceKey4, SourceKey6, SourceRule, Tally, Traffic, Vip},
    place,
    reason::{Drop, Note},
    words::{MemberId, MemberWord, PortWord, ServiceId, Tick, VipWord},
};

use super::{
    cell::Cell,
    headers::FreeHeaders,
    layout::MAX_INTERFACES,
    lines::{self, LineError},
    mapped::AccessError,
    planes,
    slots::{SetSlotsError, SlotRules, SlotTimers, Unripe},
    tables::{SlotsError, Tables, is_not_found, source_key},
};
use crate::control::op::Op;

/// Why an operation was not performed. The tables are as before it, or as after a part of it.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The line that an entry belongs to is taken by others.
    #[error("{table} has no room at line {line} for {what}\nhint: another limits.services or limits.nat_planes moves the entries")]
    LineFull {
        /// The table.
        table: &'static str,
        /// The line.
        line: u32,
        /// The entry.
        what: String,
    },
    /// Every free header record was freed less than a second ago.
    #[error("every free header record still rests\nhint: apply again in two seconds")]
    NoFreeHeader,
    /// There are more interfaces than the map has room for.
    #[error("packets can leave by {MAX_INTERFACES} interfaces at most")]
    TooManyInterfaces,
    /// A service's slots cannot be reached.
    #[error(transparent)]
    Slots(#[from] SlotsError),
    /// A service's slots cannot be set.
    #[error(transparent)]
    SetSlots(#[from] SetSlotsError),
    /// A record is beyond its table.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// The kernel refuses.
    #[error("failed to change a map")]
    Map(#[from] MapError),
    /// The kernel refuses an interface.
    #[error("failed to change the map of interfaces")]
    Interfaces(#[from] XdpMapError),
    /// The machine does not say how many CPUs it may have.
    #[error("failed to read the number of CPUs")]
    Cpus(#[source] std::io::Error),
}

/// The tables and what is known of them in this process only: free headers and learning timers.
#[derive(Debug)]
pub struct Applier {
    tables: Tables,
    free_headers: FreeHeaders,
    timers: SlotTimers,
}

impl Applier {
    /// Takes over tables that may be in use. `now` is the kernel's tick.
    pub(crate) fn new(tables: Tables, rules: SlotRules, now: Tick) -> Result<Self, ApplyError> {
        let free_headers = free_headers(&tables, now)?;
        let timers = SlotTimers::restart(&tables, rules, now)?;
        Ok(Self { tables, free_headers, timers })
    }

    /// The tables, for reading.
    pub fn tables(&self) -> &Tables {
        &self.tables
    }

    /// The same tables, opened again.
    pub(crate) fn replace_tables(&mut self, tables: Tables) {
        self.tables = tables;
    }

    /// Performs one operation. `now` is the kernel's tick.
    ///
    /// # Errors
    /// [`ApplyError`]; read back and plan again then.
    pub fn apply(&mut self, op: &Op, now: Tick) -> Result<(), ApplyError> {
        match op {
            Op::CreateSlots { first_page, pages } => self.create_slots(*first_page, *pages),
            Op::WriteMember { id, info } => self.write_member(*id, info),
            Op::SetHeader { id, header } => self.set_header(*id, header.as_deref(), now),
            Op::WritePlane { index, plane } => planes::write(&self.tables, *index, plane),
            Op::AddSourceRule { service, source, rule } => self.add_source_rule(*service, *source, *rule),
            Op::WriteService { id, record } => Ok(self.tables.services.write(u32::from(id.0), record)?),
            Op::SetSlots { service, current, .. } => Ok(self.timers.set(&self.tables, *service, current, now)?),
            Op::PublishVip { index, vip } => self.publish_vip(*index, vip),
            Op::PublishPort { vip, port, protocol, service } => self.publish_port(*vip, *port, *protocol, *service),
            Op::UnpublishPort { vip, port, protocol } => self.unpublish_port(*vip, *port, *protocol),
            Op::UnpublishVip { index } => self.unpublish_vip(*index),
            Op::RemoveSourceRule { service, source } => self.remove_source_rule(*service, *source),
            Op::FreeMember { id } => self.free_member(*id, now),
            Op::FreePlane { index } => planes::free(&self.tables, *index),
            Op::FreeService { id, first_page, pages } => self.free_service(*id, *first_page, *pages),
        }
    }

    /// Lets slots learn and settle on as time passes; to be called about once a second, with a clock that is read for it: a slot's learning is
    /// timed from the first call after its change. Says how many are not clean.
    ///
    /// # Errors
    /// [`ApplyError::Slots`] if a table cannot be reached.
    pub fn ripen_all(&mut self, now: Tick) -> Result<Unripe, ApplyError> {
        Ok(self.timers.ripen_all(&self.tables, now)?)
    }

    /// Lets packets leave by an interface: by index, its link-layer address and MTU.
    ///
    /// # Errors
    /// [`ApplyError::TooManyInterfaces`], [`ApplyError::Interfaces`].
    pub fn allow_interface(&mut self, ifindex: u32, link: LinkInfo) -> Result<(), ApplyError> {
        if !self.tables.interfaces.keys().any(|known| known.is_ok_and(|known| known == ifindex)) {
            if self.tables.interfaces.keys().count() >= MAX_INTERFACES as usize {
                return Err(ApplyError::TooManyInterfaces);
            }
            self.tables.interfaces.insert(ifindex, ifindex, None, 0)?;
        }
        Ok(self.tables.links.insert(ifindex, Cell(link), 0)?)
    }

    /// Forgets every interface whose index is not among these: its place is needed by others.
    ///
    /// # Errors
    /// [`ApplyError::Interfaces`], [`ApplyError::Map`].
    pub fn forget_interfaces(&mut self, present: &BTreeSet<u32>) -> Result<(), ApplyError> {
        let known: Vec<u32> = self.tables.interfaces.keys().collect::<Result<_, _>>()?;
        for ifindex in known.into_iter().filter(|ifindex| !present.contains(ifindex)) {
            self.tables.interfaces.remove(ifindex)?;
            match self.tables.links.remove(&ifindex) {
                Err(error) if !is_not_found(&error) => return Err(error.into()),
                _ => {}
            }
        }
        Ok(())
    }

    fn create_slots(&mut self, first_page: u32, pages: u32) -> Result<(), ApplyError> {
        Ok(self.tables.slot_pages.create(first_page, pages)?)
    }

    fn write_member(&mut self, id: MemberId, info: &MemberInfo) -> Result<(), ApplyError> {
        let index = u32::from(id.number());
        self.tables.member_info.write(index, info)?;
        let with_header_of = |word| MemberWord::new(MemberWord(word).header(), info.state, ServiceId(info.service)).0;
        Ok(self.tables.members.update_word(index, 0, |word| Some(with_header_of(word)))?)
    }

    fn set_header(&mut self, id: MemberId, header: Option<&Header>, now: Tick) -> Result<(), ApplyError> {
        let record = match header {
            Some(header) => {
                let record = self.free_headers.take(now).ok_or(ApplyError::NoFreeHeader)?;
                self.tables.headers.write(record, header)?;
                record
            }
            None => 0,
        };
        let mut earlier = 0;
        self.tables.members.update_word(u32::from(id.number()), 0, |word| {
            let word = MemberWord(word);
            earlier = word.header();
            Some(MemberWord::new(record, word.state(), word.service()).0)
        })?;
        self.free_headers.give(earlier, now);
        Ok(())
    }

    fn add_source_rule(&mut self, service: ServiceId, source: IpNet, rule: SourceRule) -> Result<(), ApplyError> {
        let added = match source_key_of(service, source) {
            SourceKey::V4(key) => self.tables.sources4.insert(&key, rule, 0),
            SourceKey::V6(key) => self.tables.sources6.insert(&key, rule, 0),
        };
        Ok(added?)
    }

    fn remove_source_rule(&mut self, service: ServiceId, source: IpNet) -> Result<(), ApplyError> {
        let removed = match source_key_of(service, source) {
            SourceKey::V4(key) => self.tables.sources4.remove(&key),
            SourceKey::V6(key) => self.tables.sources6.remove(&key),
        };
        match removed {
            Err(error) if !is_not_found(&error) => Err(error.into()),
            _ => Ok(()),
        }
    }

    fn publish_vip(&mut self, index: u16, vip: &Vip) -> Result<(), ApplyError> {
        let tables = &self.tables;
        tables.vips.write(u32::from(index), vip)?;
        let hash = place::vip(&vip.address, tables.abi.table_key);
        let family = if vip.address.is_v4() { 0 } else { VipWord::IPV6 };
        let word = VipWord::new(hash.tag, index, vip.flags as u16 | family);
        let put = lines::put(&tables.vip_lines, hash.index, word.0, |word| VipWord(word).index() == index);
        put.map_err(|error| full("VIP_LINES", error, || vip.address.to_string()))
    }

    fn unpublish_vip(&mut self, index: u16) -> Result<(), ApplyError> {
        let tables = &self.tables;
        let vip = tables.vips.record(u32::from(index))?;
        let hash = place::vip(&vip.address, tables.abi.table_key);
        lines::take(&tables.vip_lines, hash.index, |word| VipWord(word).index() == index)?;
        Ok(tables.vips.write(u32::from(index), &Vip::zeroed())?)
    }

    fn publish_port(&mut self, vip: u16, port: u16, protocol: u8, service: ServiceId) -> Result<(), ApplyError> {
        let word = PortWord::new(vip, port, protocol, service.0);
        let hash = place::port(vip, port, protocol, self.tables.abi.table_key);
        let put = lines::put(&self.tables.port_lines, hash.index, word.0, is_port(word));
        put.map_err(|error| full("PORT_LINES", error, || format!("port {port} of vip {vip}")))
    }

    fn unpublish_port(&mut self, vip: u16, port: u16, protocol: u8) -> Result<(), ApplyError> {
        let hash = place::port(vip, port, protocol, self.tables.abi.table_key);
        Ok(lines::take(&self.tables.port_lines, hash.index, is_port(PortWord::new(vip, port, protocol, 0)))?)
    }

    fn free_member(&mut self, id: MemberId, now: Tick) -> Result<(), ApplyError> {
        let index = u32::from(id.number());
        let mut header = 0;
        self.tables.members.update_word(index, 0, |word| {
            header = MemberWord(word).header();
            Some(0)
        })?;
        self.free_headers.give(header, now);
        self.tables.member_info.write(index, &MemberInfo::zeroed())?;
        Ok(self.tables.member_stats.set(index, on_every_cpu(Traffic::zeroed())?, 0)?)
    }

    fn free_service(&mut self, id: ServiceId, first_page: u32, pages: u32) -> Result<(), ApplyError> {
        self.timers.forget(id);
        let index = u32::from(id.0);
        self.tables.services.write(index, &Service::zeroed())?;
        for page in first_page..first_page + pages {
            self.tables.slot_pages.remove(page)?;
        }
        for reason in Drop::ALL {
            self.tables.drops.set(index * Drop::COUNT + reason.index(), on_every_cpu(Tally::zeroed())?, 0)?;
        }
        for note in Note::ALL {
            self.tables.notes.set(index * Note::COUNT + note.index(), on_every_cpu(Tally::zeroed())?, 0)?;
        }
        Ok(self.tables.touches.store_word(index, 0, 0)?)
    }
}

/// Turns the error of a keyed line into ours.
pub(crate) fn full(table: &'static str, error: LineError, what: impl FnOnce() -> String) -> ApplyError {
    match error {
        LineError::Full { line } => ApplyError::LineFull { table, line, what: what() },
        LineError::Access(error) => error.into(),
    }
}

fn is_port(entry: PortWord) -> impl Fn(u64) -> bool {
    move |word| word != 0 && PortWord(word).matches(entry)
}

fn free_headers(tables: &Tables, now: Tick) -> Result<FreeHeaders, AccessError> {
    let mut named = BTreeSet::new();
    for member in 0..tables.members.len() {
        named.insert(MemberWord(tables.members.word(member, 0)?).header());
    }
    let mut used = BTreeSet::new();
    for header in 1..tables.headers.len() {
        if tables.headers.record(header)?.kind != 0 {
            used.insert(header);
        }
    }
    Ok(FreeHeaders::new(tables.headers.len(), &named, &used, now))
}

fn on_every_cpu<T: bytemuck::Pod>(value: T) -> Result<PerCpuValues<Cell<T>>, ApplyError> {
    let cpus = aya::util::nr_cpus().map_err(|(_, error)| ApplyError::Cpus(error))?;
    PerCpuValues::try_from(vec![Cell(value); cpus]).map_err(ApplyError::Cpus)
}

enum SourceKey {
    V4(aya::maps::lpm_trie::Key<Cell<SourceKey4>>),
    V6(aya::maps::lpm_trie::Key<Cell<SourceKey6>>),
}

fn source_key_of(service: ServiceId, source: IpNet) -> SourceKey {
    let service = u32::from(service.0).to_be_bytes();
    let source = source.trunc();
    match source.network() {
        IpAddr::V4(address) => SourceKey::V4(source_key(source.prefix_len(), SourceKey4 { service, address: address.octets() })),
        IpAddr::V6(address) => SourceKey::V6(source_key(source.prefix_len(), SourceKey6 { service, address: address.octets() })),
    }
}

/// Whether a plane's record is in use.
pub(crate) fn is_in_use(plane: &NatPlane) -> bool {
    plane.snat != Address::NONE
}
