//! What a loaded program is built for: the constants that the loader sets. Part of the layout of [`crate::maps`].

use bytemuck::{Pod, Zeroable};

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
