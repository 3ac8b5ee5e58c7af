//! All tables, opened from their pins: by the daemon to change them, by `weir status` and `weir explain` to look.

use std::{net::IpAddr, os::fd::AsFd as _};

use aya::maps::{ArrayOfMaps, DevMapHash, HashMap, IterableMap as _, LpmTrie, Map, MapData, MapError, PerCpuArray, RingBuf, lpm_trie::Key};
use bytemuck::Pod;
use lb_common::{
    maps::{
        Header, Line, LinkInfo, MemberInfo, NatFlow, NatPlane, OwnMacs, SLOTS_PER_PAGE, Service, SourceKey4, SourceKey6, SourceRule, Tally,
        Traffic, Vip, VirtualMacs, WORDS_PER_SLOT_PAGE,
    },
    words::{ServiceId, SlotWord},
};

use super::{
    abi::{self, AbiError, AbiRecord},
    cell::Cell,
    clock_io::{ClockError, moment},
    mapped::{Access, AccessError, MapOpenError, Mapped},
    pins_io::PinDir,
    syscall::{self, open_pin},
};

/// `BPF_F_MMAPABLE`, linux include/uapi/linux/bpf.h.
const BPF_F_MMAPABLE: u32 = 1 << 10;
const WORD_BYTES: u32 = size_of::<u64>() as u32;

/// Why the tables cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum TablesError {
    /// A pin is missing or refused.
    #[error("failed to open the pinned map {name}")]
    Pin {
        /// The map.
        name: &'static str,
        /// The refusal.
        source: std::io::Error,
    },
    /// A map is not what it should be.
    #[error("failed to use the pinned map {name}")]
    Map {
        /// The map.
        name: &'static str,
        /// What is wrong.
        source: MapError,
    },
    /// A record cannot be written.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// A map cannot be mapped into memory.
    #[error(transparent)]
    Open(#[from] MapOpenError),
    /// The maps are of another build.
    #[error(transparent)]
    Abi(#[from] AbiError),
    /// The kernel's clock cannot be read.
    #[error(transparent)]
    Clock(#[from] ClockError),
}

impl TablesError {
    /// Whether it is the caller who may not.
    pub fn is_denied(&self) -> bool {
        let of = |error: &std::io::Error| error.kind() == std::io::ErrorKind::PermissionDenied;
        match self {
            Self::Pin { source, .. } => of(source),
            Self::Abi(AbiError::Pin(source)) => of(source),
            Self::Abi(_) | Self::Access(_) | Self::Map { .. } | Self::Open(_) | Self::Clock(_) => false,
        }
    }
}

/// Every table of the data plane.
pub struct Tables {
    pub(crate) abi: AbiRecord,
    pub(crate) access: Access,
    /// Addresses by their hash.
    pub vip_lines: Mapped<Line>,
    /// The link-layer addresses that frames are taken by.
    pub macs: Mapped<OwnMacs>,
    /// VIP records.
    pub vips: Mapped<Vip>,
    /// Ports of VIPs by their hash.
    pub port_lines: Mapped<Line>,
    /// Service records.
    pub services: Mapped<Service>,
    /// Member words.
    pub members: Mapped<u64>,
    /// What the control plane keeps of members.
    pub member_info: Mapped<MemberInfo>,
    /// Prebuilt headers.
    pub headers: Mapped<Header>,
    /// The flow cache.
    pub flows: Mapped<Line>,
    /// Fragmented packets in flight.
    pub fragments: Mapped<Line>,
    /// Sources whose rate is watched.
    pub rates: Mapped<Line>,
    /// The directory of translated flows.
    pub nat_lines: Mapped<Line>,
    /// The ports of all chunks.
    pub nat_ports: Mapped<Line>,
    /// Translated flows.
    pub nat_flows: Mapped<NatFlow>,
    /// NAT planes.
    pub nat_planes: Mapped<NatPlane>,
    /// The chunks of every plane's positions.
    pub nat_chunks: Mapped<u64>,
    /// How many chunks each plane has been given.
    pub nat_used: Mapped<u64>,
    /// NAT planes by their hash.
    pub nat_endpoints: Mapped<Line>,
    /// The ring of free chunks.
    pub nat_free: Mapped<u64>,
    /// When each service last found no room.
    pub touches: Mapped<u64>,
    pub(crate) slot_pages: SlotPages,
    pub(crate) sources4: LpmTrie<MapData, Cell<SourceKey4>, SourceRule>,
    pub(crate) sources6: LpmTrie<MapData, Cell<SourceKey6>, SourceRule>,
    pub(crate) member_stats: PerCpuArray<MapData, Cell<Traffic>>,
    pub(crate) drops: PerCpuArray<MapData, Cell<Tally>>,
    pub(crate) notes: PerCpuArray<MapData, Cell<Tally>>,
    pub(crate) interfaces: DevMapHash<MapData>,
    pub(crate) links: HashMap<MapData, u32, Cell<LinkInfo>>,
}

impl std::fmt::Debug for Tables {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tables").field("abi", &self.abi).field("access", &self.access).finish_non_exhaustive()
    }
}

impl Tables {
    /// Opens the tables pinned in `pins`.
    ///
    /// # Errors
    /// [`TablesError::Pin`] if nothing is loaded, [`TablesError::Abi`] if it is of another version, else what the kernel refuses.
    pub fn open(pins: &PinDir, access: Access) -> Result<Self, TablesError> {
        let abi = abi::read(pins)?;
        let open = Opener { pins, access };
        Ok(Self {
            abi,
            access,
            vip_lines: open.mapped("VIP_LINES")?,
            macs: open.mapped("MACS")?,
            vips: open.mapped("VIPS")?,
            port_lines: open.mapped("PORT_LINES")?,
            services: open.mapped("SERVICES")?,
            members: open.mapped("MEMBERS")?,
            member_info: open.mapped("MEMBER_INFO")?,
            headers: open.mapped("HEADERS")?,
            flows: open.mapped("FLOWS")?,
            fragments: open.mapped("FRAGMENTS")?,
            rates: open.mapped("RATES")?,
            nat_lines: open.mapped("NAT_LINES")?,
            nat_ports: open.mapped("NAT_PORTS")?,
            nat_flows: open.mapped("NAT_FLOWS")?,
            nat_planes: open.mapped("NAT_PLANES")?,
            nat_chunks: open.mapped("NAT_CHUNKS")?,
            nat_used: open.mapped("NAT_USED")?,
            nat_endpoints: open.mapped("NAT_ENDPOINTS")?,
            nat_free: open.mapped("NAT_FREE")?,
            touches: open.mapped("TOUCHES")?,
            slot_pages: SlotPages { outer: open.typed("SLOT_PAGES")?, keys: open.slot_page_keys()?, access },
            sources4: open.typed("SOURCES4")?,
            sources6: open.typed("SOURCES6")?,
            member_stats: open.typed("MEMBER_STATS")?,
            drops: open.typed("DROPS")?,
            notes: open.typed("NOTES")?,
            interfaces: open.typed("INTERFACES")?,
            links: open.typed("LINKS")?,
        })
    }

    /// Says which addresses of virtual routers are this host's from now on, for [`VirtualMacs::LEASE_S`]. The speaker of VRRP alone does.
    ///
    /// # Errors
    /// [`TablesError`] if there is no such data plane, or the kernel does not run its clock.
    pub fn set_virtual_macs(pins: &PinDir, macs: &VirtualMacs) -> Result<(), TablesError> {
        let until = u64::from(moment(pins)?.tick.wrapping_add(VirtualMacs::LEASE_S));
        let table: Mapped<OwnMacs> = Opener { pins, access: Access::ReadWrite }.mapped("MACS")?;
        table.write_words(VirtualMacs::UNTIL, &until.to_ne_bytes())?;
        Ok(table.write_words(VirtualMacs::INDEX, bytemuck::bytes_of(macs))?)
    }

    /// Opens the ring of drop samples, which has room for one reader: the daemon.
    ///
    /// # Errors
    /// [`TablesError`] if it is not pinned or cannot be mapped.
    pub fn open_samples(pins: &PinDir) -> Result<RingBuf<MapData>, TablesError> {
        Opener { pins, access: Access::ReadWrite }.typed("SAMPLES")
    }

    /// One word of a slot page; none if there is no such page.
    ///
    /// # Errors
    /// [`SlotsError`] if the kernel refuses, or there is no such slot.
    pub fn slot_word(&self, page: u32, index: u32) -> Result<Option<SlotWord>, SlotsError> {
        let page = self.slot_pages.page(page)?;
        Ok(page.map(|page| page.word(index, 0)).transpose()?.map(SlotWord))
    }

    /// The rule of the longest prefix that holds this source, if the service has one.
    ///
    /// # Errors
    /// [`MapError`] if the kernel refuses.
    pub fn source_rule(&self, service: ServiceId, source: IpAddr) -> Result<Option<SourceRule>, MapError> {
        let service = u32::from(service.0).to_be_bytes();
        let rule = match source {
            IpAddr::V4(source) => self.sources4.get(&source_key(32, SourceKey4 { service, address: source.octets() }), 0),
            IpAddr::V6(source) => self.sources6.get(&source_key(128, SourceKey6 { service, address: source.octets() }), 0),
        };
        match rule {
            Err(error) if is_not_found(&error) => Ok(None),
            rule => rule.map(Some),
        }
    }

    /// The service's slots, mapped.
    ///
    /// # Errors
    /// [`SlotsError`] if there is no such service or a page of its table is missing.
    pub(crate) fn slot_table(&self, id: ServiceId) -> Result<SlotTable, SlotsError> {
        let service = self.services.record(u32::from(id.0))?;
        if service.id == 0 || service.id != id.0 {
            return Err(SlotsError::NoService { id });
        }
        let slots = service.slot_mask + 1;
        let pages = (service.slot_page..service.slot_page.saturating_add(slots.div_ceil(SLOTS_PER_PAGE)))
            .map(|index| self.slot_pages.page(index)?.ok_or(SlotsError::NoPage { id, index }))
            .collect::<Result<_, _>>()?;
        Ok(SlotTable { service, slots, pages })
    }
}

/// Opens maps by name.
struct Opener<'a> {
    pins: &'a PinDir,
    access: Access,
}

impl Opener<'_> {
    fn map_data(&self, name: &'static str, access: Access) -> Result<MapData, TablesError> {
        let fd = open_pin(&self.pins.pin(name), access).map_err(|source| TablesError::Pin { name, source })?;
        MapData::from_fd(fd).map_err(|source| TablesError::Map { name, source })
    }

    /// A descriptor for reading only cannot be mapped: do_mmap takes the sharing from it, bpf_map_mmap wants it (linux v6.18 mm/mmap.c,
    /// kernel/bpf/syscall.c). The mapping itself is read-only.
    fn mapped<T: Pod>(&self, name: &'static str) -> Result<Mapped<T>, TablesError> {
        Ok(Mapped::open(name, &self.map_data(name, Access::ReadWrite)?, self.access)?)
    }

    fn typed<M: TryFrom<Map, Error = MapError>>(&self, name: &'static str) -> Result<M, TablesError> {
        let map = Map::from_map_data(self.map_data(name, self.access)?);
        map.and_then(M::try_from).map_err(|source| TablesError::Map { name, source })
    }

    /// aya removes keys from hash maps only; to the kernel it is the same call (BPF_MAP_DELETE_ELEM).
    fn slot_page_keys(&self) -> Result<HashMap<MapData, u32, u32>, TablesError> {
        let name = "SLOT_PAGES";
        let map = Map::HashMap(self.map_data(name, self.access)?);
        HashMap::try_from(map).map_err(|source| TablesError::Map { name, source })
    }
}

/// Why a service's slots cannot be reached.
#[derive(Debug, thiserror::Error)]
pub enum SlotsError {
    /// No such service.
    #[error("service {} is not installed", .id.0)]
    NoService {
        /// The service asked for.
        id: ServiceId,
    },
    /// A page that its record names is not there.
    #[error("slot page {index} of service {} is missing", .id.0)]
    NoPage {
        /// The service.
        id: ServiceId,
        /// The page.
        index: u32,
    },
    /// The kernel refuses.
    #[error("failed to reach a slot page")]
    Map(#[from] MapError),
    /// A page cannot be mapped.
    #[error(transparent)]
    Open(#[from] MapOpenError),
    /// An index is out of range.
    #[error(transparent)]
    Access(#[from] AccessError),
}

/// Slot pages that are created at once: each is an open file until then, of which a process may have 1024.
const PAGES_AT_ONCE: usize = 256;

/// The pages of all services' slot tables. Pages are mapped when they are used: a full set would be more mappings than a process may have.
pub(crate) struct SlotPages {
    outer: ArrayOfMaps<MapData, MapData>,
    keys: HashMap<MapData, u32, u32>,
    access: Access,
}

impl SlotPages {
    /// Puts new, zeroed pages at `first .. first + count`; what was there goes once no packet uses it.
    ///
    /// One by one each page would take 9 ms (measured on 6.18): the kernel waits for the packets in flight.
    pub(crate) fn create(&mut self, first: u32, count: u32) -> Result<(), MapError> {
        for start in (0..count).step_by(PAGES_AT_ONCE) {
            let some = PAGES_AT_ONCE.min((count - start) as usize);
            let pages = (0..some).map(|_| Self::new_page()).collect::<Result<Vec<_>, _>>()?;
            let pages: Vec<_> = pages.iter().map(|page| page.fd().as_fd()).collect();
            syscall::set_inner_maps(self.keys.map().fd().as_fd(), first + start, &pages)?;
        }
        Ok(())
    }

    fn new_page() -> Result<MapData, MapError> {
        let array = aya_obj::generated::bpf_map_type::BPF_MAP_TYPE_ARRAY as u32;
        let shape = aya_obj::Map::new_from_params(array, size_of::<u32>() as u32, WORD_BYTES, WORDS_PER_SLOT_PAGE, BPF_F_MMAPABLE);
        MapData::create(shape, "slots", None)
    }

    /// Takes the page at `index` away; fine if there is none.
    pub(crate) fn remove(&mut self, index: u32) -> Result<(), MapError> {
        match self.keys.remove(&index) {
            Err(error) if !is_not_found(&error) => Err(error),
            _ => Ok(()),
        }
    }

    /// The pages that exist.
    pub(crate) fn existing(&self) -> Result<Vec<u32>, MapError> {
        let mut pages = Vec::new();
        for index in 0..self.outer.len() {
            match self.keys.get(&index, 0) {
                Ok(_) => pages.push(index),
                Err(error) if is_not_found(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(pages)
    }

    fn page(&self, index: u32) -> Result<Option<Mapped<u64>>, SlotsError> {
        match self.outer.get(&index, 0) {
            Ok(map) => Ok(Some(Mapped::open("SLOT_PAGES", &map, self.access)?)),
            Err(MapError::KeyNotFound) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

/// Whether the kernel said that there is no such key.
pub(crate) fn is_not_found(error: &MapError) -> bool {
    if let MapError::SyscallError(error) = error {
        return error.io_error.raw_os_error() == Some(libc::ENOENT);
    }
    matches!(error, MapError::KeyNotFound | MapError::ElementNotFound)
}

/// One service's slots.
pub(crate) struct SlotTable {
    pub(crate) service: Service,
    pub(crate) slots: u32,
    pages: Vec<Mapped<u64>>,
}

impl SlotTable {
    /// The page that holds the slot, and its place there.
    pub(crate) fn locate(&self, slot: u32) -> Result<(&Mapped<u64>, u32), AccessError> {
        let page = self.pages.get((slot / SLOTS_PER_PAGE) as usize);
        let out_of_range = AccessError::OutOfRange { name: "SLOT_PAGES", index: slot, len: self.slots };
        page.map(|page| (page, slot % SLOTS_PER_PAGE)).ok_or(out_of_range)
    }

    /// What the slot says.
    pub(crate) fn word(&self, slot: u32) -> Result<SlotWord, AccessError> {
        let (page, index) = self.locate(slot)?;
        Ok(SlotWord(page.word(index, 0)?))
    }
}

/// The lookup key of a source rule: its prefix covers the service and `prefix_len` bits of the address.
pub(crate) fn source_key<K: Pod>(prefix_len: u8, key: K) -> Key<Cell<K>> {
    const SERVICE_BITS: u32 = 32;
    Key::new(SERVICE_BITS + u32::from(prefix_len), Cell(key))
}
