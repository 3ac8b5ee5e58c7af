//! Every map of [`lb_common::maps`]' table, under its name. The daemon sets the number of entries when it loads the object (`dataplane::layout`
//! there); the numbers here only have to be legal.

use aya_ebpf::{
    btf_maps::{Array, ArrayOfMaps, DevMapHash, HashMap, LpmTrie, LruHashMap, PerCpuArray, RingBuf},
    macros::btf_map,
};
use lb_common::{
    address::Address,
    maps::{
        DECAP_VIPS_MAX, Header, LinkInfo, MemberInfo, NatFlow, NatPlane, OwnMacs, Sample, Service, SourceKey4, SourceKey6, SourceRule,
        Tally, Traffic, Vip, VirtualMacs, WORDS_PER_LINE, WORDS_PER_SLOT_PAGE,
    },
    reason::Decap,
    ways::{Way, WayFlow},
};

use crate::{stage::Workspace, word::Word};

/// `BPF_F_MMAPABLE`: the daemon writes the entries through a mapping.
const MAPPABLE: usize = 1 << 10;

/// A cache line of words that others change meanwhile.
pub(crate) type Line = [Word; WORDS_PER_LINE];

/// A part of a service's table of slots.
pub(crate) type SlotPage = Array<Word, { WORDS_PER_SLOT_PAGE as usize }, MAPPABLE>;

#[btf_map]
pub(crate) static VIP_LINES: Array<Line, 1, MAPPABLE> = Array::new();
#[btf_map]
pub(crate) static MACS: Array<OwnMacs, { VirtualMacs::RECORDS as usize }, MAPPABLE> = Array::new();
#[btf_map]
pub(crate) static VIPS: Array<Vip, 1, MAPPABLE> = Array::new();
#[btf_map]
pub(crate) static PORT_LINES: Array<Line, 1, MAPPABLE> = Array::new();
#[btf_map]
pub(crate) static SERVICES: Array<Service, 1, MAPPABLE> = Array::new();
#[btf_map]
pub(crate) static SLOT_PAGES: ArrayOfMaps<SlotPage, 1> = ArrayOfMaps::new();
#[btf_map]
pub(crate) static MEMBERS: Array<Word, 1, MAPPABLE> = Array::new();
#[btf_map]
pub(crate) static MEMBER_INFO: Array<MemberInfo, 1, MAPPABLE> = Array::new();
#[btf_map]
pub(crate) static HEADERS: Array<Header, 1, MAPPABLE> = Array::new();
#[btf_map]
pub(crate) static INTERFACES: DevMapHash<64> = DevMapHash::new();
#[btf_map]
pub(crate) static LINKS: HashMap<u32, LinkInfo, 64> = HashMap::new();
#[btf_map]
pub(crate) static FLOWS: Array<Line, 1, MAPPABLE> = Array::new();
#[btf_map]
pub(crate) static FRAGMENTS: Array<Line, 1, MAPPABLE> = Array::new();
#[btf_map]
pub(crate) static RATES: Array<Line, 1, MAPPABLE> = Array::new();
#[btf_map]
pub(crate) static SOURCES4: LpmTrie<SourceKey4, SourceRule, 16384> = LpmTrie::new();
#[btf_map]
pub(crate) static SOURCES6: LpmTrie<SourceKey6, SourceRule, 16384> = LpmTrie::new();
#[btf_map]
pub(crate) static NAT_LINES: Array<Line, 1, MAPPABLE> = Array::new();
#[btf_map]
pub(crate) static NAT_PORTS: Array<Line, 1, MAPPABLE> = Array::new();
#[btf_map]
pub(crate) static NAT_FLOWS: Array<NatFlow, 1, MAPPABLE> = Array::new();
#[btf_map]
pub(crate) static NAT_PLANES: Array<NatPlane, 1, MAPPABLE> = Array::new();
#[btf_map]
pub(crate) static NAT_CHUNKS: Array<Word, 1, MAPPABLE> = Array::new();
#[btf_map]
pub(crate) static NAT_USED: Array<Word, 1, MAPPABLE> = Array::new();
#[btf_map]
pub(crate) static NAT_ENDPOINTS: Array<Line, 1, MAPPABLE> = Array::new();
#[btf_map]
pub(crate) static NAT_FREE: Array<Word, 1, MAPPABLE> = Array::new();
#[btf_map]
pub(crate) static WORKSPACE: PerCpuArray<Workspace, 1> = PerCpuArray::new();
#[btf_map]
pub(crate) static MEMBER_STATS: PerCpuArray<Traffic, 1> = PerCpuArray::new();
#[btf_map]
pub(crate) static DROPS: PerCpuArray<Tally, 1> = PerCpuArray::new();
#[btf_map]
pub(crate) static NOTES: PerCpuArray<Tally, 1> = PerCpuArray::new();
#[btf_map]
pub(crate) static TOUCHES: Array<Word, 1, MAPPABLE> = Array::new();
#[btf_map]
pub(crate) static SAMPLES: RingBuf<Sample, 4096> = RingBuf::new();

#[btf_map]
pub(crate) static DECAP_VIPS: HashMap<Address, u32, { DECAP_VIPS_MAX as usize }> = HashMap::new();
#[btf_map]
pub(crate) static DECAP_STATS: PerCpuArray<Traffic, { Decap::COUNT as usize }> = PerCpuArray::new();
/// `BPF_F_NO_PREALLOC`: there is room for more than most have.
const AS_THEY_COME: usize = 1;
#[btf_map]
pub(crate) static WAYS: HashMap<u32, Way, 64, AS_THEY_COME> = HashMap::new();
#[btf_map]
pub(crate) static WAY_FLOWS: LruHashMap<WayFlow, Address, 64> = LruHashMap::new();

/// What becomes of the packets of a socket with this mark.
#[inline(always)]
#[allow(unsafe_code, reason = "a reference into a hash map")]
pub(crate) fn way(mark: u32) -> Option<&'static Way> {
    // SAFETY: the daemon changes an entry by a new one, and the old one lives as long as the program that has found it.
    unsafe { WAYS.get(mark) }
}

/// Who answers as the VIP of this conversation.
#[inline(always)]
#[allow(unsafe_code, reason = "a reference into a hash map")]
pub(crate) fn way_server(flow: &WayFlow) -> Option<Address> {
    // SAFETY: copied out at once. An entry that is given to another conversation meanwhile gives that one's server, whose answer is then not taken.
    unsafe { WAY_FLOWS.get(flow) }.copied()
}

/// What is known of an interface.
#[inline(always)]
#[allow(unsafe_code, reason = "a reference into a hash map")]
pub(crate) fn link(ifindex: u32) -> Option<LinkInfo> {
    // SAFETY: the daemon replaces entries under RCU and never removes one that a program may be reading; the record is copied out at once.
    unsafe { LINKS.get(ifindex) }.copied()
}

/// Whether a server opens tunnels for this address.
#[inline(always)]
#[allow(unsafe_code, reason = "a reference into a hash map")]
pub(crate) fn is_decap_vip(address: &Address) -> bool {
    // SAFETY: the value is not read.
    unsafe { DECAP_VIPS.get(address) }.is_some()
}
