//! What the bench harness makes every frame of: shared with the program that fills it in.

use bytemuck::{Pod, Zeroable};

/// The frame that each run begins with, but for its source.
///
/// Sums are ones' complement, over native 16-bit words, of all that a checksum covers, with the low 16 bits of the source address and the source
/// port zero.
///
/// | offset | size | field | order |
/// |---|---|---|---|
/// | 0 | 2 | zero | – |
/// | 2 | 80 | first bytes of the frame, so that its IP header is aligned | network |
/// | 82 | 2 | zero | – |
/// | 84 | 4 | length of the frame | native |
/// | 88 | 4 | flows to rotate over | native |
/// | 92 | 4 | the flow of the next run | native |
/// | 96 | 4 | flow number added to all of them | native |
/// | 100 | 4 | one of the `KIND`s | native |
/// | 104 | 4 | index of the program to go on with | native |
/// | 108 | 4 | sum of the IPv4 header | as summed |
/// | 112 | 4 | sum of the TCP or UDP checksum | as summed |
/// | 116 | 4 | interface to redirect to, for `weir_generate` | native |
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub(crate) struct Template {
    /// The first bytes of the frame, from the third byte on; of an IPv4 one the first 64.
    pub(crate) words: [u32; 21],
    /// Bytes of the frame: 64 at least, 80 for IPv6.
    pub(crate) frame_bytes: u32,
    /// Source addresses and ports, 1 to 2^24.
    pub(crate) flows: u32,
    /// Counts up to `flows`.
    pub(crate) next: u32,
    /// So that other flows follow where these end.
    pub(crate) first: u32,
    /// What the frame is.
    pub(crate) kind: u32,
    /// Place in `BENCH_PROGRAMS`.
    pub(crate) program: u32,
    /// For the IPv4 header's checksum.
    pub(crate) ip_sum: u32,
    /// For the transport header's.
    pub(crate) transport_sum: u32,
    /// An interface index.
    pub(crate) ifindex: u32,
}

const _: () = assert!(size_of::<Template>() == 120);

/// IPv4 and TCP.
pub(crate) const KIND_TCP4: u32 = 0;
/// IPv4 and UDP.
pub(crate) const KIND_UDP4: u32 = 1;
/// IPv6 and TCP.
pub(crate) const KIND_TCP6: u32 = 2;
