//! The records that the kernel program and the daemon share, and the names and shapes of the maps that hold them.
//!
//! | map | kind | element | who writes |
//! |---|---|---|---|
//! | `VIP_LINES` | mmap-able array | [`Line`] of [`VipWord`](crate::words::VipWord) | daemon |
//! | `MACS` | mmap-able array | 0: [`OwnMacs`]; 1: [`VirtualMacs`]; 2: until when these | 0: daemon; 1, 2: the speaker of VRRP |
//! | `VIPS` | mmap-able array | [`Vip`] | daemon |
//! | `PORT_LINES` | mmap-able array | [`Line`] of [`PortWord`](crate::words::PortWord) | daemon |
//! | `SERVICES` | mmap-able array | [`Service`] | daemon |
//! | `SLOT_PAGES` | array of mmap-able arrays | [`SLOTS_PER_PAGE`] [`SlotWord`](crate::words::SlotWord), then a [`CleanWord`](crate::words::CleanWord) for each four | daemon; the stamp: kernel |
//! | `MEMBERS` | mmap-able array | [`MemberWord`](crate::words::MemberWord) | daemon |
//! | `MEMBER_INFO` | mmap-able array | [`MemberInfo`] | daemon |
//! | `HEADERS` | mmap-able array | [`Header`] | daemon |
//! | `INTERFACES` | devmap hash, by interface index | interface index | daemon |
//! | `LINKS` | hash, by interface index | [`LinkInfo`] | daemon |
//! | `FLOWS` | mmap-able array | [`Line`] of [`FlowWord`](crate::words::FlowWord) | kernel |
//! | `FRAGMENTS` | mmap-able array | [`Line`] of fragment words | kernel |
//! | `RATES` | mmap-able array | [`Line`] of rate words | kernel |
//! | `SOURCES4`, `SOURCES6` | LPM trie | [`SourceKey4`], [`SourceKey6`] → [`SourceRule`] | daemon |
//! | `NAT_LINES` | mmap-able array | [`Line`] of directory words | kernel |
//! | `NAT_PORTS` | mmap-able array | [`Line`] of port words | kernel |
//! | `NAT_FLOWS` | mmap-able array | [`NatFlow`] | kernel |
//! | `NAT_PLANES` | mmap-able array | [`NatPlane`] | daemon |
//! | `NAT_CHUNKS` | mmap-able array | chunk of (plane × 256 + position): 0 none, [`CHUNK_PENDING`], else number + 1, u64 | both |
//! | `NAT_USED` | mmap-able array | chunks that the plane has been given, u64 | both |
//! | `NAT_ENDPOINTS` | mmap-able array | [`Line`] of endpoint words | daemon |
//! | `NAT_FREE` | mmap-able array | ring of free chunks | both |
//! | `WORKSPACE` | per-CPU array | the kernel program's own | kernel |
//! | `MEMBER_STATS` | per-CPU array | [`Traffic`] | kernel |
//! | `DROPS`, `NOTES` | per-CPU array | [`Tally`] | kernel |
//! | `TOUCHES` | mmap-able array | last tick at which a service found no room, u64 | kernel |
//! | `SAMPLES` | ring buffer | [`Sample`] | kernel |
//! | `DECAP_VIPS` | hash, by [`Address`] | 1, u32 | `weir server-setup` |
//! | `DECAP_STATS` | per-CPU array, by [`Decap`](crate::reason::Decap) | [`Traffic`] | kernel |
//! | `WAYS` | hash, by mark, u32 | [`Way`](crate::ways::Way) | daemon |
//! | `WAY_FLOWS` | LRU hash, by [`WayFlow`](crate::ways::WayFlow) | [`Address`] | kernel |

use bytemuck::{Pod, Zeroable};

use crate::address::Address;

pub use crate::settings::*;

/// The version of everything in this file and in [`crate::words`], and of the counters' order in [`crate::reason`]. A daemon refuses pinned maps of
/// another version.
pub const ABI_VERSION: u32 = 7;

/// 64-bit words to a line: one cache line, the unit of every keyed table.
pub const WORDS_PER_LINE: usize = 8;

/// A cache line of words.
pub type Line = [u64; WORDS_PER_LINE];

/// Slots to a page of a service's table. A service's slots are a power of two and fill whole pages, or a part of one.
pub const SLOTS_PER_PAGE: u32 = 4096;
/// 64-bit words of a page of slots.
pub const WORDS_PER_SLOT_PAGE: u32 = SLOTS_PER_PAGE + SLOTS_PER_PAGE / crate::words::CleanWord::SLOTS;

/// Ports to a NAT chunk, the unit in which ports are given to a [`NatPlane`].
pub const PORTS_PER_CHUNK: u32 = 256;

/// Chunks that cover the whole port range: a plane's share of `NAT_CHUNKS`.
pub const CHUNKS_PER_PLANE: u32 = 256;

const _: () = assert!(size_of::<Line>() == 64);

/// An address that packets are accepted for.
///
/// | offset | size | field | order |
/// |---|---|---|---|
/// | 0 | 16 | address | network |
/// | 16 | 2 | any-port TCP service, 0 none | native |
/// | 18 | 2 | any-port UDP service, 0 none | native |
/// | 20 | 4 | [`VipWord`](crate::words::VipWord) flags | native |
/// | 24 | 8 | reserved | – |
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
pub struct Vip {
    /// The address itself.
    pub address: Address,
    /// The service that takes every TCP port without one of its own; 0 for none.
    pub any_tcp: u16,
    /// The service that takes every UDP port without one of its own; 0 for none.
    pub any_udp: u16,
    /// As in the [`VipWord`](crate::words::VipWord) that names this record.
    pub flags: u32,
    /// Zero.
    pub reserved: [u32; 2],
}

const _: () = assert!(size_of::<Vip>() == 32);

/// A service: what is looked up once a packet's VIP, port and protocol are known.
///
/// | offset | size | field | order |
/// |---|---|---|---|
/// | 0 | 16 | VIP | network |
/// | 16 | 8 | slot key | native |
/// | 24 | 8 | incarnation | native |
/// | 32 | 4 | first slot page | native |
/// | 36 | 4 | slots − 1 | native |
/// | 40 | 4 | idle timeout, s | native |
/// | 44 | 2 | port, 0 any | native |
/// | 46 | 1 | IP protocol | – |
/// | 47 | 1 | reserved | – |
/// | 48 | 4 | flags | native |
/// | 52 | 4 | rate interval, µs | native |
/// | 56 | 4 | rate tolerance, µs | native |
/// | 60 | 2 | own id | native |
/// | 62 | 2 | reserved | – |
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
pub struct Service {
    /// The address that clients use.
    pub vip: Address,
    /// What tells its slots from another service's of the same servers: its lower half is added to the hash that chooses a slot. The same on every
    /// node.
    pub slot_key: u64,
    /// Key of the hash that tags cached flows: random, never used twice.
    pub incarnation: u64,
    /// Index in `SLOT_PAGES` of the first page of its slots.
    pub slot_page: u32,
    /// Number of slots, a power of two, less one.
    pub slot_mask: u32,
    /// Seconds without a packet after which a proven flow is forgotten.
    pub idle_s: u32,
    /// The port that clients use, in host order; 0 takes every port.
    pub port: u16,
    /// 6 (TCP) or 17 (UDP).
    pub protocol: u8,
    /// Zero.
    pub reserved0: u8,
    /// A union of the `Service` flags.
    pub flags: u32,
    /// Microseconds between two new connections of one source at the sustained rate.
    pub rate_interval_us: u32,
    /// Microseconds by which a source may run ahead of that rate.
    pub rate_tolerance_us: u32,
    /// Its own number.
    pub id: u16,
    /// Zero.
    pub reserved1: u16,
}

const _: () = assert!(size_of::<Service>() == 64);

impl Service {
    /// The slot is chosen by the source address alone.
    pub const BY_SOURCE: u32 = 1;
    /// No flow state is kept: a change of a slot moves its flows at once (UDP only).
    pub const STATELESS: u32 = 2;
    /// `SOURCES4` and `SOURCES6` hold rules for the service.
    pub const SOURCE_RULES: u32 = 4;
    /// A source without a rule is denied.
    pub const DENY_OTHERS: u32 = 8;
    /// New connections of a source are limited.
    pub const RATE: u32 = 16;
    /// The pool forwards by NAT.
    pub const NAT: u32 = 32;

    /// Whether `flag` is set.
    #[inline(always)]
    pub const fn is(&self, flag: u32) -> bool {
        self.flags & flag != 0
    }
}

/// What the control plane keeps of a member, so that an adopting daemon finds it; the packet path never reads it.
///
/// | offset | size | field | order |
/// |---|---|---|---|
/// | 0 | 16 | server address | network |
/// | 16 | 2 | server port, 0 as the service's | native |
/// | 18 | 2 | service | native |
/// | 20 | 2 | weight | native |
/// | 22 | 1 | [`MemberWord`](crate::words::MemberWord) state | – |
/// | 23 | 1 | [`ForwardKind`] | – |
/// | 24 | 8 | retired since, s of the Unix epoch, 0 in use | native |
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
pub struct MemberInfo {
    /// The server's address.
    pub address: Address,
    /// The server's port in host order; 0 keeps the packet's.
    pub port: u16,
    /// The service it belongs to; 0 for a free record.
    pub service: u16,
    /// Its weight in the service's table; 0 takes no new flow.
    pub weight: u16,
    /// As in its [`MemberWord`](crate::words::MemberWord).
    pub state: u8,
    /// A [`ForwardKind`] number.
    pub forward: u8,
    /// Seconds of the Unix epoch since when the configuration does not name it; 0 while it does.
    pub retired_at: u64,
}

const _: () = assert!(size_of::<MemberInfo>() == 32);

/// How a packet reaches its server.
#[repr(u8)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum ForwardKind {
    /// Addresses and ports are rewritten, both ways.
    Nat = 1,
    /// Only the link-layer addresses are rewritten.
    Dsr = 2,
    /// Inside an IPv4 header (RFC 2003; RFC 4213 for IPv6 inside).
    Ipip4 = 3,
    /// Inside an IPv6 header (RFC 2473).
    Ipip6 = 4,
    /// Inside IPv4, UDP and GUE (draft-ietf-intarea-gue).
    Gue4 = 5,
    /// Inside IPv6, UDP and GUE.
    Gue6 = 6,
}

impl ForwardKind {
    /// The kind of this number.
    #[inline(always)]
    pub const fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            1 => Self::Nat,
            2 => Self::Dsr,
            3 => Self::Ipip4,
            4 => Self::Ipip6,
            5 => Self::Gue4,
            6 => Self::Gue6,
            _ => return None,
        })
    }

    /// Bytes put before the packet's own IP header.
    pub const fn overhead(self) -> usize {
        match self {
            Self::Nat | Self::Dsr => 0,
            Self::Ipip4 => 20,
            Self::Ipip6 => 40,
            Self::Gue4 => 20 + 8 + 4,
            Self::Gue6 => 40 + 8 + 4,
        }
    }
}

/// Room for the prebuilt bytes of a header, in words.
pub const HEADER_WORDS: usize = 12;

/// An immutable prebuilt header: everything that sending a packet to a member writes. Never changed while a member names it.
///
/// | offset | size | field | order |
/// |---|---|---|---|
/// | 0 | 4 | interface index | native |
/// | 4 | 2 | reserved | – |
/// | 6 | 1 | [`ForwardKind`] | – |
/// | 7 | 1 | bytes of the link-layer header: 14, or 18 with a VLAN tag | – |
/// | 8 | 4 | partial checksum of the outer header | as summed |
/// | 12 | 2 | largest IP packet before encapsulation | native |
/// | 14 | 2 | first NAT plane | native |
/// | 16 | 2 | NAT planes | native |
/// | 18 | 14 | reserved | – |
/// | 32 | 96 | bytes | network |
///
/// `bytes` holds, from its start, the Ethernet header (`link_bytes`) and for tunnels the outer IP header, and for GUE the UDP and GUE headers, with
/// length, checksum and identification fields zero. For NAT its words are:
///
/// | words | meaning | order |
/// |---|---|---|
/// | 0 to 2 | Ethernet header, then zero | network |
/// | 3, 4 | SNAT address of the first plane | network |
/// | 5, 6 | server address | network |
/// | 7 | low 16 bits: server port as wire bytes, 0 keeps the packet's | network |
/// | 8 to 11 | zero | – |
#[repr(C, align(8))]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
pub struct Header {
    /// The interface to send from.
    pub ifindex: u32,
    /// Zero.
    pub reserved0: u16,
    /// A [`ForwardKind`] number.
    pub kind: u8,
    /// Length of the link-layer header at the start of `bytes`: 14, or 18 with a VLAN tag.
    pub link_bytes: u8,
    /// Ones' complement sum (not folded below 32 bits) of the outer IPv4 header with length, identification and checksum zero; for
    /// [`ForwardKind::Gue6`] of the constant part of the UDP pseudo-header.
    pub partial_sum: u32,
    /// Largest IP packet, without what is put before it, that the path to the server takes.
    pub mtu: u16,
    /// The first of the member's NAT planes.
    pub nat_plane: u16,
    /// How many planes it has, one for each SNAT address.
    pub nat_planes: u16,
    /// Zero.
    pub reserved1: [u16; 7],
    /// Prebuilt bytes, see the type.
    pub bytes: [u64; HEADER_WORDS],
}

const _: () = assert!(size_of::<Header>() == 128);

impl Header {
    /// NAT: the server's address, words 5 and 6 of `bytes`.
    #[inline(always)]
    pub const fn nat_server(&self) -> Address {
        Self::address(self.bytes[5], self.bytes[6])
    }

    /// NAT: the SNAT address of the first plane, words 3 and 4 of `bytes`.
    #[inline(always)]
    pub const fn nat_snat(&self) -> Address {
        Self::address(self.bytes[3], self.bytes[4])
    }

    #[inline(always)]
    const fn address(a: u64, b: u64) -> Address {
        Address::from_words(if cfg!(target_endian = "little") {
            [a as u32, (a >> 32) as u32, b as u32, (b >> 32) as u32]
        } else {
            [(a >> 32) as u32, a as u32, (b >> 32) as u32, b as u32]
        })
    }

    /// NAT: the server's port as wire bytes, the low 16 bits of word 7; 0 keeps the packet's.
    #[inline(always)]
    pub const fn nat_server_port(&self) -> u16 {
        self.bytes[7] as u16
    }

    /// Kind and length of the link-layer header in one number: what the packet path branches on.
    #[inline(always)]
    pub const fn shape(&self) -> u16 {
        Self::shape_of(self.kind, self.link_bytes as usize)
    }

    /// The [`Self::shape`] of such a header.
    #[inline(always)]
    pub const fn shape_of(kind: u8, link_bytes: usize) -> u16 {
        (link_bytes as u16) << 8 | kind as u16
    }

    /// The kind of forwarding, if the record is in use.
    #[inline(always)]
    pub const fn forward(&self) -> Option<ForwardKind> {
        ForwardKind::from_number(self.kind)
    }
}

/// The lookup key of an IPv4 source rule: a prefix over service and address.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
pub struct SourceKey4 {
    /// The service's number, its bytes swapped to network order.
    pub service: [u8; 4],
    /// The source address.
    pub address: [u8; 4],
}

/// The lookup key of an IPv6 source rule.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
pub struct SourceKey6 {
    /// The service's number, in network order.
    pub service: [u8; 4],
    /// The source address.
    pub address: [u8; 16],
}

/// What becomes of sources under a prefix: 1 lets them in, 2 refuses them.
pub type SourceRule = u32;

/// Let the source in.
pub const SOURCE_ALLOW: SourceRule = 1;
/// Refuse the source.
pub const SOURCE_DENY: SourceRule = 2;

/// One translated flow. Written while its port word is claimed, then unchanged until the port is claimed again, but for the way back to the client, of
/// which the link-layer address and the interface are a 64-bit word each, the latter with the generation.
///
/// | offset | size | field | order |
/// |---|---|---|---|
/// | 0 | 16 | client address | network |
/// | 16 | 16 | server address | network |
/// | 32 | 2 | client port | network |
/// | 34 | 2 | server port | network |
/// | 36 | 2 | VIP port | network |
/// | 38 | 2 | SNAT port | network |
/// | 40 | 2 | service | native |
/// | 42 | 2 | member | native |
/// | 44 | 2 | plane | native |
/// | 46 | 2 | VLAN tag control information, 0 none | network |
/// | 48 | 6 | MAC address the client's packets come from | network |
/// | 54 | 2 | reserved | – |
/// | 56 | 4 | ingress interface | native |
/// | 60 | 4 | generation, as in its port word | native |
#[repr(C, align(8))]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
pub struct NatFlow {
    /// Who opened the flow.
    pub client: Address,
    /// Where it was sent.
    pub server: Address,
    /// The client's port, wire bytes.
    pub client_port: u16,
    /// The server's port, wire bytes.
    pub server_port: u16,
    /// The port the client sent to, wire bytes.
    pub vip_port: u16,
    /// The port the server sees, wire bytes.
    pub snat_port: u16,
    /// The service it belongs to.
    pub service: u16,
    /// The member it was given to.
    pub member: u16,
    /// The plane its SNAT port is from.
    pub plane: u16,
    /// The VLAN tag replies carry; 0 for none.
    pub vlan: u16,
    /// The link-layer address replies go to.
    pub mac: [u16; 3],
    /// Zero.
    pub reserved: u16,
    /// Where replies leave: the interface that the client's first packet came in by.
    pub ifindex: u32,
    /// Which use of the port this is, 24 bits.
    pub generation: u32,
}

impl NatFlow {
    /// Where the word of its link-layer address begins.
    pub const MAC_OFFSET: usize = core::mem::offset_of!(Self, mac);
    /// Where the word of its interface begins.
    pub const IFINDEX_OFFSET: usize = core::mem::offset_of!(Self, ifindex);
}

const _: () = assert!(NatFlow::MAC_OFFSET == 48 && NatFlow::IFINDEX_OFFSET == 56);

const _: () = assert!(size_of::<NatFlow>() == 64);

/// The source ports of one SNAT address toward one server endpoint and protocol, given chunk by chunk.
///
/// | offset | size | field | order |
/// |---|---|---|---|
/// | 0 | 16 | SNAT address | network |
/// | 16 | 16 | server address | network |
/// | 32 | 2 | server port | network |
/// | 34 | 1 | IP protocol | – |
/// | 35 | 1 | reserved | – |
/// | 36 | 1 | first chunk position of the low range | – |
/// | 37 | 1 | chunks in the low range | – |
/// | 38 | 1 | first chunk position of the high range | – |
/// | 39 | 1 | chunks in the high range | – |
/// | 40 | 24 | reserved | – |
#[repr(C, align(8))]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
pub struct NatPlane {
    /// The address that the server sees.
    pub snat: Address,
    /// The server.
    pub server: Address,
    /// The server's port, wire bytes.
    pub server_port: u16,
    /// 6 (TCP) or 17 (UDP).
    pub protocol: u8,
    /// Zero.
    pub reserved0: u8,
    /// The lower range of ports begins at 256 times this.
    pub low_first: u8,
    /// It has 256 times this many ports.
    pub low_chunks: u8,
    /// The upper range of ports begins at 256 times this.
    pub high_first: u8,
    /// It has 256 times this many ports.
    pub high_chunks: u8,
    /// Zero.
    pub reserved1: [u64; 3],
}

const _: () = assert!(size_of::<NatPlane>() == 64);

/// In `NAT_CHUNKS`: somebody is fetching a chunk for this position.
pub const CHUNK_PENDING: u64 = u32::MAX as u64;

/// What is known of an interface that packets leave by.
///
/// | offset | size | field | order |
/// |---|---|---|---|
/// | 0 | 6 | MAC address | network |
/// | 6 | 2 | MTU | native |
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Pod, Zeroable)]
pub struct LinkInfo {
    /// Its own link-layer address.
    pub mac: [u16; 3],
    /// Its largest IP packet.
    pub mtu: u16,
}

/// Packets and bytes of one member on one CPU; bytes are those of the IP packets as they came.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Pod, Zeroable)]
pub struct Traffic {
    /// Packets sent to the member.
    pub packets: u64,
    /// Their frame bytes as received.
    pub bytes: u64,
}

/// A count of drops or notes on one CPU.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Pod, Zeroable)]
pub struct Tally {
    /// How often.
    pub count: u64,
    /// The jiffy at which a packet was last sampled for it.
    pub sampled_at: u64,
}

/// Bytes of a packet kept in a [`Sample`].
pub const SAMPLE_BYTES: usize = 128;

/// A dropped packet, as handed to userspace.
///
/// | offset | size | field | order |
/// |---|---|---|---|
/// | 0 | 8 | jiffies | native |
/// | 8 | 4 | ingress interface index | native |
/// | 12 | 2 | service | native |
/// | 14 | 1 | [`Drop`](crate::reason::Drop) number | – |
/// | 15 | 1 | reserved | – |
/// | 16 | 4 | length of the frame | native |
/// | 20 | 4 | bytes kept | native |
/// | 24 | 128 | the frame's first bytes | – |
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
pub struct Sample {
    /// When, on the kernel's jiffies clock.
    pub jiffies: u64,
    /// Where it came in.
    pub ifindex: u32,
    /// The service it was for, 0 for none.
    pub service: u16,
    /// A [`Drop`](crate::reason::Drop) number.
    pub reason: u8,
    /// Zero.
    pub reserved: u8,
    /// Length of the frame.
    pub frame_bytes: u32,
    /// How many of `bytes` are the packet's.
    pub kept_bytes: u32,
    /// The beginning of the frame.
    pub bytes: [u8; SAMPLE_BYTES],
}

const _: () = assert!(size_of::<Sample>() == 152);
