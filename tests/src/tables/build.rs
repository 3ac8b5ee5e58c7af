//! How [`Arrays`] are filled: what the daemon's operations do to the maps.

use std::{
    net::IpAddr,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64},
    },
};

use bytemuck::Zeroable as _;
use lb_common::{
    address::Address,
    maps::{
        CHUNKS_PER_PLANE, ForwardKind, HEADER_WORDS, Header, NatPlane, PORTS_PER_CHUNK, SLOTS_PER_PAGE, Service, Settings, SourceRule, Vip,
    },
    packet::protocol,
    place,
    reason::Note,
    tables::{Cell, CellLine},
    words::{CleanWord, MemberId, MemberWord, PortWord, ServiceId, SlotWord, VipWord},
};

use super::{Arrays, Line, Rule, Word};

/// How large the tables are that packets fill, and what the program is built for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sizes {
    /// A union of the `Settings` features.
    pub features: u32,
    /// Lines of the flow cache, a power of two; so are the other numbers of lines.
    pub flow_lines: u32,
    /// Lines of fragments.
    pub fragment_lines: u32,
    /// Lines of rates.
    pub rate_lines: u32,
    /// Lines of the NAT directory.
    pub nat_lines: u32,
    /// Chunks of NAT ports.
    pub nat_chunks: u32,
    /// Key of every table's hash.
    pub table_key: u64,
}

impl Default for Sizes {
    /// Every feature and small tables.
    fn default() -> Self {
        Self {
            features: u32::MAX,
            flow_lines: 1024,
            fragment_lines: 16,
            rate_lines: 16,
            nat_lines: 64,
            nat_chunks: 4,
            table_key: 0x5bf0_3635_dcbf_ba1d,
        }
    }
}

/// A service to be made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ServiceSpec {
    /// Its VIP, which need not be known yet.
    pub vip: IpAddr,
    /// Its port in host order, 0 for any.
    pub port: u16,
    /// 6 (TCP) or 17 (UDP).
    pub protocol: u8,
    /// Its slots, a power of two.
    pub slots: u32,
    /// Its idle timeout in seconds.
    pub idle_s: u32,
    /// A union of the `Service` flags.
    pub flags: u32,
    /// Microseconds between two connections of a source at the sustained rate.
    pub rate_interval_us: u32,
    /// Microseconds by which a source may run ahead of it.
    pub rate_tolerance_us: u32,
}

impl ServiceSpec {
    /// A TCP service of 256 slots and 300 seconds.
    pub const fn tcp(vip: IpAddr, port: u16) -> Self {
        Self { vip, port, protocol: protocol::TCP, slots: 256, idle_s: 300, flags: 0, rate_interval_us: 0, rate_tolerance_us: 0 }
    }

    /// A UDP service of 256 slots and 30 seconds.
    pub const fn udp(vip: IpAddr, port: u16) -> Self {
        Self { protocol: protocol::UDP, idle_s: 30, ..Self::tcp(vip, port) }
    }
}

/// A NAT plane to be made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PlaneSpec {
    /// The SNAT address.
    pub snat: IpAddr,
    /// The server's address.
    pub server: IpAddr,
    /// The server's port in host order; 0 for every port.
    pub server_port: u16,
    /// 6 (TCP) or 17 (UDP).
    pub protocol: u8,
    /// Ports begin at 256 times this.
    pub first_chunk: u8,
    /// It has 256 times this many ports.
    pub chunks: u8,
}

fn lines(count: u32) -> Vec<Line> {
    assert!(count.is_power_of_two(), "{count} lines");
    (0..count).map(|_| CellLine::default()).collect()
}

fn words(count: u32) -> Vec<Word> {
    (0..count).map(|_| Word::default()).collect()
}

const VIP_LINES: u32 = 64;
const PORT_LINES: u32 = 64;
const ENDPOINT_LINES: u32 = 256;
/// The head and the tail of the ring.
const RING_HEAD: u32 = 2;

impl Arrays {
    /// Empty tables. The clock starts at 1 000 seconds.
    ///
    /// # Panics
    /// If a number of lines is not a power of two.
    pub fn new(sizes: &Sizes) -> Self {
        let (tick_factor, jiffy_us) = Settings::clock(1000);
        let settings = Settings {
            features: sizes.features,
            tick_factor,
            jiffy_us,
            vip_mask: VIP_LINES - 1,
            port_mask: PORT_LINES - 1,
            flow_mask: sizes.flow_lines - 1,
            fragment_mask: sizes.fragment_lines - 1,
            rate_mask: sizes.rate_lines - 1,
            nat_mask: sizes.nat_lines - 1,
            endpoint_mask: ENDPOINT_LINES - 1,
            free_mask: sizes.nat_chunks.next_power_of_two() - 1,
            reserved: 0,
            table_key: sizes.table_key,
            slot_key: sizes.table_key.rotate_left(32) ^ 0x9216_d5d9_8979_fb1b,
        };
        let ports = sizes.nat_chunks * PORTS_PER_CHUNK;
        let tables = Self {
            settings,
            micros: AtomicU64::new(1_000_000_000),
            vip_lines: lines(VIP_LINES),
            vips: vec![Vip::zeroed()],
            port_lines: lines(PORT_LINES),
            services: vec![Service::zeroed()],
            slots: Vec::new(),
            clean: Vec::new(),
            members: words(1),
            headers: vec![Header::zeroed()],
            flow_lines: lines(sizes.flow_lines),
            fragment_lines: lines(sizes.fragment_lines),
            rate_lines: lines(sizes.rate_lines),
            rules: Vec::new(),
            nat_lines: lines(sizes.nat_lines),
            nat_port_lines: (0..ports / 8).map(|_| CellLine::default()).collect(),
            nat_flows: (0..ports).map(|_| CellLine::default()).collect(),
            planes: vec![NatPlane::zeroed()],
            chunks_used: words(1),
            chunks: words(CHUNKS_PER_PLANE),
            free_chunks: words(RING_HEAD + sizes.nat_chunks.next_power_of_two()),
            endpoint_lines: lines(ENDPOINT_LINES),
            touches: words(1),
            notes: (0..Note::COUNT).map(|_| AtomicU64::new(0)).collect(),
            is_recording: AtomicBool::new(false),
            steps: Mutex::default(),
        };
        for chunk in 0..sizes.nat_chunks {
            tables.free_chunks[(RING_HEAD + chunk) as usize].store(u64::from(chunk));
        }
        tables.free_chunks[1].store(u64::from(sizes.nat_chunks));
        tables
    }

    /// Answers for an address. `flags` are those of [`VipWord`]; [`VipWord::IPV6`] is added where it belongs.
    ///
    /// # Panics
    /// If the line of the address is full.
    pub fn add_vip(&mut self, address: IpAddr, flags: u16) -> u16 {
        let address = Address::from(address);
        let flags = if address.is_v4() { flags } else { flags | VipWord::IPV6 };
        let index = self.vips.len() as u16;
        self.vips.push(Vip { address, flags: flags.into(), ..Vip::zeroed() });
        let hash = place::vip(&address, self.settings.table_key);
        put(&self.vip_lines[(hash.index & self.settings.vip_mask) as usize], VipWord::new(hash.tag, index, flags).0);
        index
    }

    /// Makes a service whose slots name nobody. Its port is found where its VIP is known.
    ///
    /// # Panics
    /// If the number of slots is not a power of two, or the line of the port is full.
    pub fn add_service(&mut self, spec: &ServiceSpec) -> ServiceId {
        assert!(spec.slots.is_power_of_two(), "{} slots", spec.slots);
        let id = self.services.len() as u16;
        let slot_page = self.slots.len() as u32 / SLOTS_PER_PAGE;
        let pages = spec.slots.div_ceil(SLOTS_PER_PAGE);
        self.slots.extend(words(pages * SLOTS_PER_PAGE));
        self.clean.extend(words(pages * SLOTS_PER_PAGE / CleanWord::SLOTS));
        let vip = Address::from(spec.vip);
        self.services.push(Service {
            vip,
            slot_key: 0x9216_d5d9_8979_fb1b ^ u64::from(id) << 17,
            incarnation: 0xd131_0ba6_98df_b5ac ^ u64::from(id) << 29,
            slot_page,
            slot_mask: spec.slots - 1,
            idle_s: spec.idle_s,
            port: spec.port,
            protocol: spec.protocol,
            flags: spec.flags,
            rate_interval_us: spec.rate_interval_us,
            rate_tolerance_us: spec.rate_tolerance_us,
            id,
            ..Service::zeroed()
        });
        self.touches.push(Word::default());
        self.notes.extend((0..Note::COUNT).map(|_| AtomicU64::new(0)));
        if let Some(index) = self.vips.iter().position(|record| record.address == vip) {
            self.publish(index, spec, id);
        }
        ServiceId(id)
    }

    fn publish(&mut self, vip: usize, spec: &ServiceSpec, service: u16) {
        if spec.port != 0 {
            let hash = place::port(&self.vips[vip].address, spec.port, spec.protocol, self.settings.table_key);
            let line = &self.port_lines[(hash.index & self.settings.port_mask) as usize];
            put(line, PortWord::new(vip as u16, spec.port, spec.protocol, service).0);
            return;
        }
        let record = &mut self.vips[vip];
        *(if spec.protocol == protocol::TCP { &mut record.any_tcp } else { &mut record.any_udp }) = service;
        record.flags |= u32::from(VipWord::ANY_PORT);
        let hash = place::vip(&record.address, self.settings.table_key);
        let line = &self.vip_lines[(hash.index & self.settings.vip_mask) as usize];
        let cell = line.iter().find(|cell| VipWord(cell.load()).index() == vip as u16).expect("the VIP was put into this line");
        cell.store(cell.load() | u64::from(VipWord::ANY_PORT));
    }

    /// Changes a service's record.
    ///
    /// # Panics
    /// If there is no such service.
    pub fn change_service(&mut self, id: ServiceId, change: impl FnOnce(&mut Service)) {
        change(&mut self.services[usize::from(id.0)]);
    }

    /// Makes a member of a service: the lowest number that is free.
    ///
    /// # Panics
    /// If there are 65 535 members.
    pub fn add_member(&mut self, service: ServiceId, header: u32) -> MemberId {
        let free = self.members.iter().skip(1).position(|cell| cell.load() == 0);
        let number = free.map_or(self.members.len(), |index| index + 1);
        if number == self.members.len() {
            self.members.push(Word::default());
        }
        let id = u16::try_from(number).ok().and_then(MemberId::new).expect("there are fewer than 65 536 members");
        self.set_member(id, MemberWord::new(header, 0, service));
        id
    }

    /// A member's word.
    ///
    /// # Panics
    /// If there is no such member; so for the functions below.
    pub fn member_word(&self, id: MemberId) -> MemberWord {
        MemberWord(self.members[usize::from(id.number())].load())
    }

    /// Writes a member's word.
    pub fn set_member(&self, id: MemberId, word: MemberWord) {
        self.members[usize::from(id.number())].store(word.0);
    }

    /// Gives a member the state that [`MemberWord`] spells.
    pub fn set_member_state(&self, id: MemberId, state: u8) {
        let word = self.member_word(id);
        self.set_member(id, MemberWord::new(word.header(), state, word.service()));
    }

    /// Frees a member's number.
    pub fn free_member(&self, id: MemberId) {
        self.set_member(id, MemberWord(0));
    }

    /// Gives every slot of a service this word.
    pub fn fill_slots(&self, service: ServiceId, word: SlotWord) {
        for slot in 0..self.slots(service).len() {
            self.set_slot(service, slot, word);
        }
    }

    /// Adds a header of which the decision needs no bytes.
    pub fn add_plain_header(&mut self, kind: ForwardKind) -> u32 {
        self.add_header(Header { kind: kind as u8, link_bytes: 14, mtu: 1500, ..Header::zeroed() })
    }

    /// Adds a header.
    pub fn add_header(&mut self, header: Header) -> u32 {
        self.headers.push(header);
        self.headers.len() as u32 - 1
    }

    /// Adds the planes of a NAT member, one for each SNAT address of one server, and the header that names them.
    ///
    /// # Panics
    /// If there is no plane, or no room for an endpoint.
    pub fn add_nat_header(&mut self, specs: &[PlaneSpec]) -> u32 {
        let first = self.planes.len() as u16;
        for spec in specs {
            self.add_plane(spec);
        }
        let spec = &specs[0];
        let halves = |ip: IpAddr| -> [u64; 2] { bytemuck::cast(Address::from(ip).words()) };
        let ([snat_high, snat_low], [server_high, server_low]) = (halves(spec.snat), halves(spec.server));
        let port = u64::from(spec.server_port.to_be());
        let bytes: [u64; HEADER_WORDS] = [0, 0, 0, snat_high, snat_low, server_high, server_low, port, 0, 0, 0, 0];
        let nat_planes = specs.len() as u16;
        self.add_header(Header {
            kind: ForwardKind::Nat as u8,
            link_bytes: 14,
            mtu: 1500,
            nat_plane: first,
            nat_planes,
            bytes,
            ..Header::zeroed()
        })
    }

    fn add_plane(&mut self, spec: &PlaneSpec) {
        let index = self.planes.len() as u16;
        let (snat, server, server_port) = (Address::from(spec.snat), Address::from(spec.server), spec.server_port.to_be());
        self.planes.push(NatPlane {
            snat,
            server,
            server_port,
            protocol: spec.protocol,
            low_first: spec.first_chunk,
            low_chunks: spec.chunks,
            ..NatPlane::zeroed()
        });
        self.chunks_used.push(Word::default());
        self.chunks.extend(words(CHUNKS_PER_PLANE));
        let hash = place::endpoint(&server, &snat, server_port, spec.protocol, self.settings.table_key);
        put(&self.endpoint_lines[(hash.index & self.settings.endpoint_mask) as usize], place::endpoint_word(hash.tag, index));
    }

    /// Adds a rule for the sources of a service under a prefix: of an IPv4 address its first `prefix_bits` of 32.
    pub fn add_source_rule(&mut self, service: ServiceId, prefix: IpAddr, prefix_bits: u32, rule: SourceRule) {
        let prefix_bits = if prefix.is_ipv4() { prefix_bits + 96 } else { prefix_bits };
        self.rules.push(Rule { service, prefix: prefix.into(), prefix_bits, rule });
    }
}

fn put(line: &Line, word: u64) {
    let free = line.iter().find(|cell| cell.load() == 0).expect("a test's table has room");
    free.store(word);
}
