//! What a loaded program is built for: the constants that the loader sets. Part of the layout of [`crate::maps`].

use bytemuck::{Pod, Zeroable};

use crate::words::Tick;

/// What a loaded program is built for: constants to the verifier, which removes what they switch off.
///
/// All masks are a power of two less one and count lines of their table.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
pub struct Settings {
    /// A union of the `Settings` features.
    pub features: u32,
    /// 2^32 over the kernel's timer ticks a second (`CONFIG_HZ`): see [`Settings::clock`].
    pub tick_factor: u32,
    /// Microseconds to a timer tick.
    pub jiffy_us: u32,
    /// Lines of `VIP_LINES`.
    pub vip_mask: u32,
    /// Lines of `PORT_LINES`.
    pub port_mask: u32,
    /// Lines of `FLOWS`.
    pub flow_mask: u32,
    /// Lines of `FRAGMENTS`.
    pub fragment_mask: u32,
    /// Lines of `RATES`.
    pub rate_mask: u32,
    /// Lines of `NAT_LINES`.
    pub nat_mask: u32,
    /// Lines of `NAT_ENDPOINTS`.
    pub endpoint_mask: u32,
    /// Entries of the `NAT_FREE` ring.
    pub free_mask: u32,
    /// Zero.
    pub reserved: u32,
    /// Key of every local table's hash: random, kept with the pinned maps.
    pub table_key: u64,
    /// Key of the hash that chooses slots, before the service's own number is added: nodes of one cluster share it.
    pub slot_key: u64,
}

const _: () = assert!(size_of::<Settings>() == 64);

/// The link-layer addresses of this host. A switch that does not know where one is floods frames to every port, and what is another host's must neither
/// be sent on nor answered.
///
/// Each is a word of wire bytes; unused ones repeat the first. A first one of 0 stands for all addresses. They lie in a map, since they may change at any
/// moment, and another program takes half a second.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
pub struct OwnMacs([u64; 8]);

impl OwnMacs {
    /// How many there can be.
    pub const MOST: usize = Self::ANY.0.len();
    /// Every frame is taken.
    pub const ANY: Self = Self([0; 8]);

    /// These addresses; every frame is taken if there is none, or more than eight.
    pub fn new(macs: &[[u8; 6]]) -> Self {
        let mut words = Self::ANY;
        if macs.len() > words.0.len() {
            return words;
        }
        for (index, word) in words.0.iter_mut().enumerate() {
            *word = macs.get(index).or(macs.first()).map_or(0, |mac| Self::word(*mac));
        }
        words
    }

    /// Whether every frame is taken.
    pub const fn is_any(&self) -> bool {
        self.0[0] == 0
    }

    fn word([a, b, c, d, e, f]: [u8; 6]) -> u64 {
        Self::pack(u32::from_ne_bytes([a, b, c, d]), u16::from_ne_bytes([e, f]))
    }

    /// The word of an address whose wire bytes are these.
    #[inline(always)]
    pub const fn pack(first: u32, last: u16) -> u64 {
        first as u64 | (last as u64) << 32
    }
}

/// Whose of the virtual routers' link-layer addresses (RFC 9568 s7.3) are this host's at present: a bit for each router id, of IPv4 and of IPv6.
///
/// It is the second record of the map of [`OwnMacs`]. A router that waits for another one must not take the frames that a switch floods to both. Nor must
/// one whose processes are all dead: what is said holds for [`Self::LEASE_S`], as the addresses do, and is said again each second.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
pub struct VirtualMacs([u64; 8]);

const _: () = assert!(size_of::<VirtualMacs>() == size_of::<OwnMacs>());

impl VirtualMacs {
    /// Its index in the map.
    pub const INDEX: u32 = 1;
    /// Index of the record whose first word is the last tick in which they are this host's.
    pub const UNTIL: u32 = 2;
    /// Records of the map.
    pub const RECORDS: u32 = 3;
    /// Seconds.
    pub const LEASE_S: u32 = 4;
    /// None is.
    pub const NONE: Self = Self([0; 8]);

    /// Makes an address this host's; one that is no virtual router's changes nothing.
    pub fn insert(&mut self, mac: [u8; 6]) {
        if let Some((word, mask)) = Self::bit(OwnMacs::word(mac)) {
            self.0[word] |= mask;
        }
    }

    /// The addresses that are.
    pub fn iter(&self) -> impl Iterator<Item = [u8; 6]> + '_ {
        let all = [1, 2].into_iter().flat_map(|family| (0..=255).map(move |router| [0, 0, 0x5e, 0, family, router]));
        all.filter(|mac| Self::bit(OwnMacs::word(*mac)).is_some_and(|(word, mask)| self.0[word] & mask != 0))
    }

    /// Seconds for which they still are, where the record of [`Self::UNTIL`] begins with `until`; none: they are no more.
    #[inline(always)]
    pub const fn left(until: u64, now: Tick) -> Option<u32> {
        let left = (until as u32).wrapping_sub(now);
        if left < 1 << 31 { Some(left) } else { None }
    }

    /// Index and mask of the bit of an address, whose word is one of [`OwnMacs::pack`]; none if it is no virtual router's.
    #[inline(always)]
    pub const fn bit(word: u64) -> Option<(usize, u64)> {
        let [family, router] = ((word >> 32) as u16).to_ne_bytes();
        if word as u32 != u32::from_ne_bytes([0, 0, 0x5e, 0]) || family.wrapping_sub(1) > 1 {
            return None;
        }
        Some((((family as usize - 1) & 1) * 4 + (router >> 6) as usize, 1 << (router & 63)))
    }
}

impl Settings {
    /// A service has an IPv6 VIP, or a SNAT address is one.
    pub const IPV6: u32 = 1;
    /// A pool forwards by NAT.
    pub const NAT: u32 = 2;
    /// A listener has source rules.
    pub const SOURCE_RULES: u32 = 4;
    /// A listener limits the rate of connections.
    pub const RATE: u32 = 8;
    /// A pool forwards by IPIP.
    pub const IPIP: u32 = 16;
    /// A pool forwards by GUE.
    pub const GUE: u32 = 32;
    /// A pool forwards by DSR.
    pub const DSR: u32 = 64;

    /// `tick_factor` and `jiffy_us` of a kernel with so many timer ticks a second (100 to 1 000).
    pub const fn clock(hertz: u32) -> (u32, u32) {
        (((1_u64 << 32) / hertz as u64) as u32, 1_000_000 / hertz)
    }

    /// Seconds of a jiffies clock, by multiplication: exact to one part in 2^22, and monotonic.
    #[inline(always)]
    pub const fn seconds(jiffies: u64, tick_factor: u32) -> u32 {
        ((jiffies * tick_factor as u64) >> 32) as u32
    }

    /// Whether `feature` is on.
    #[inline(always)]
    pub const fn has(&self, feature: u32) -> bool {
        self.features & feature != 0
    }
}

/// Most VIPs that a server opens tunnels for.
pub const DECAP_VIPS_MAX: u32 = 256;

/// Which tunnels a server opens: constants of `weir_decap`, set when it is loaded.
///
/// | offset | size | field | order |
/// |---|---|---|---|
/// | 0 | 4 | IPIP is opened: 1 or 0 | native |
/// | 4 | 4 | GUE port, 0 none | native |
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Pod, Zeroable)]
pub struct DecapSettings {
    ipip: u32,
    gue_port: u32,
}

const _: () = assert!(size_of::<DecapSettings>() == 8);

impl DecapSettings {
    /// Opens nothing.
    pub const NONE: Self = Self { ipip: 0, gue_port: 0 };
    /// Opens IP in IP, of all four combinations of families.
    pub const IPIP: Self = Self { ipip: 1, gue_port: 0 };

    /// Opens GUE to this UDP port.
    pub const fn gue(port: u16) -> Self {
        Self { ipip: 0, gue_port: port as u32 }
    }

    /// Whether IP in IP is opened.
    #[inline(always)]
    pub const fn opens_ipip(&self) -> bool {
        self.ipip != 0
    }

    /// Whether a UDP packet to `port` (wire bytes) is opened.
    #[inline(always)]
    pub const fn opens_gue(&self, port: u16) -> bool {
        self.gue_port != 0 && self.gue_port == u16::from_be(port) as u32
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::{collections::BTreeSet, vec::Vec};

    use super::*;

    #[test]
    fn what_is_leased_ends_after_its_last_second_whatever_the_clock_says() {
        for until in [0_u32, 5, 1 << 31, u32::MAX - 1, u32::MAX] {
            let left = |now: i64| VirtualMacs::left(until.into(), until.wrapping_add(now as u32));
            // Another CPU's clock may be a second behind.
            assert_eq!([-5, -4, 0, 1, 100].map(left), [Some(5), Some(4), Some(0), None, None]);
        }
    }

    #[test]
    fn a_virtual_router_has_a_bit_for_each_family_and_others_have_none() {
        let mut ours = VirtualMacs::NONE;
        let routers = [[0, 0, 0x5e, 0, 1, 10], [0, 0, 0x5e, 0, 1, 255], [0, 0, 0x5e, 0, 2, 10]];
        routers.into_iter().for_each(|mac| ours.insert(mac));
        for other in [[0, 0, 0x5e, 0, 0, 10], [0, 0, 0x5e, 0, 3, 10], [0, 0, 0x5e, 1, 1, 10], [2, 0, 0x5e, 0, 1, 10], [0xff; 6], [0; 6]] {
            ours.insert(other);
        }
        assert_eq!(ours.iter().collect::<Vec<_>>(), routers);
        let of_all = (1..=2).flat_map(|family| (0..=255).map(move |router| [0, 0, 0x5e, 0, family, router]));
        let bits: BTreeSet<_> = of_all.map(|mac| VirtualMacs::bit(OwnMacs::word(mac))).collect();
        assert_eq!((bits.len(), bits.contains(&None)), (512, false));
    }
}
