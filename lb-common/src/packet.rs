//! Header parsing: from a frame to what the decision needs of it.
//!
//! Two stages, so that a packet for somebody else costs only the first: [`network`] finds the IP header and its addresses, [`transport`] what
//! lies in it. Numbers keep their wire bytes (a native word as it lies in memory) until a name says otherwise.

use bytemuck::{Pod, Zeroable};

use crate::address::Address;

pub mod plain;

/// A frame that can be read at any offset.
pub trait Packet {
    /// The `T` whose bytes begin `offset` bytes into the frame; none when the frame is shorter.
    fn get<T: Pod>(&self, offset: usize) -> Option<T>;
    /// Whether the frame has at least so many bytes, those that [`Self::get`] cannot reach included.
    fn holds(&self, bytes: usize) -> bool;
}

impl Packet for [u8] {
    fn get<T: Pod>(&self, offset: usize) -> Option<T> {
        let bytes = self.get(offset..)?.get(..size_of::<T>())?;
        Some(bytemuck::pod_read_unaligned(bytes))
    }

    fn holds(&self, bytes: usize) -> bool {
        bytes <= self.len()
    }
}

/// EtherType of IPv4, wire bytes.
pub const ETH_IPV4: u16 = 0x0800_u16.to_be();
/// EtherType of IPv6, wire bytes.
pub const ETH_IPV6: u16 = 0x86dd_u16.to_be();
/// EtherType of an IEEE 802.1Q tag, wire bytes.
pub const ETH_VLAN: u16 = 0x8100_u16.to_be();
/// EtherType of an IEEE 802.1ad tag, wire bytes.
pub const ETH_QINQ: u16 = 0x88a8_u16.to_be();

/// Bytes of a link-layer header with one VLAN tag.
pub const TAGGED_LINK: usize = size_of::<EthernetHeader>() + size_of::<VlanTag>();

/// IP protocol numbers.
pub mod protocol {
    /// ICMP (RFC 792).
    pub const ICMP: u8 = 1;
    /// IPv4 inside (RFC 2003).
    pub const IPV4: u8 = 4;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// IPv6 inside (RFC 2473).
    pub const IPV6: u8 = 41;
    /// ICMPv6 (RFC 4443).
    pub const ICMPV6: u8 = 58;
}

/// Bits of the TCP flags byte (RFC 9293 s3.1).
pub mod tcp {
    /// No more data from the sender.
    pub const FIN: u8 = 0x01;
    /// Synchronize sequence numbers.
    pub const SYN: u8 = 0x02;
    /// Reset the connection.
    pub const RST: u8 = 0x04;
    /// Push.
    pub const PSH: u8 = 0x08;
    /// The acknowledgment field is significant.
    pub const ACK: u8 = 0x10;
}

/// The Ethernet header.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub struct EthernetHeader {
    /// Destination, as 16-bit words of wire bytes.
    pub destination: [u16; 3],
    /// Source.
    pub source: [u16; 3],
    /// EtherType, wire bytes.
    pub kind: u16,
}

/// A VLAN tag after its EtherType.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct VlanTag {
    control: u16,
    kind: u16,
}

/// The IPv4 header without options (RFC 791 s3.1).
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub struct Ipv4Header {
    /// Version 4 and header length in 32-bit words.
    pub version_length: u8,
    /// DSCP and ECN.
    pub traffic_class: u8,
    /// Length of the packet, wire bytes.
    pub total_length: u16,
    /// Identification, wire bytes.
    pub identification: u16,
    /// Flags and fragment offset, wire bytes.
    pub fragment: u16,
    /// Hops left.
    pub hop_limit: u8,
    /// What follows.
    pub protocol: u8,
    /// Checksum of the header, wire bytes.
    pub checksum: u16,
    /// Source, wire bytes.
    pub source: u32,
    /// Destination, wire bytes.
    pub destination: u32,
}

/// The IPv6 header (RFC 8200 s3).
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub struct Ipv6Header {
    /// Version, traffic class and flow label, wire bytes.
    pub version_class_label: u32,
    /// Length after this header, wire bytes.
    pub payload_length: u16,
    /// What follows.
    pub next_header: u8,
    /// Hops left.
    pub hop_limit: u8,
    /// Source, wire bytes.
    pub source: [u32; 4],
    /// Destination, wire bytes.
    pub destination: [u32; 4],
}

/// The first eight bytes of every IPv6 extension header, and the whole of a fragment header (RFC 8200 s4.5).
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct ExtensionHeader {
    next_header: u8,
    length: u8,
    fragment: u16,
    identification: u32,
}

/// The first eight bytes of a TCP, UDP or ICMP header: all that an ICMP error must quote.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub struct TransportHead {
    /// TCP and UDP: the source port, wire bytes. ICMP: type and code.
    pub source_port: u16,
    /// TCP and UDP: the destination port, wire bytes. ICMP: the checksum.
    pub destination_port: u16,
    /// TCP: the sequence number. UDP: length and checksum. ICMP: the rest of the header.
    pub rest: u32,
}

/// Bytes 8 to 15 of a TCP header.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct TcpTail {
    acknowledgment: u32,
    offset: u8,
    flags: u8,
    window: u16,
}

/// Where in its datagram a packet lies.
#[repr(u32)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fragment {
    /// It is the whole datagram.
    Whole,
    /// It begins the datagram and more follow.
    First,
    /// It continues the datagram: no transport header is in it.
    Later,
}

/// The IP header of a frame and where things are.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Network {
    /// Offset of the IP header: 14 plus 4 for each tag.
    pub l3: usize,
    /// Tag control information of the outermost VLAN tag, wire bytes; 0 without.
    pub vlan: u16,
    /// Who sent the packet.
    pub source: Address,
    /// To whom.
    pub destination: Address,
}

/// Largest offset of a transport header that is looked for: link header, IPv6 header and 400 bytes of extension headers.
pub const MAX_L4: usize = 0x1ff;

impl Network {
    /// [`Self::l3`] within its bounds, for a verifier that has lost sight of them.
    #[inline(always)]
    pub const fn offset(&self) -> usize {
        self.l3 & 0x1f
    }
}

/// Most VLAN tags before an IP header that is looked into.
const MAX_TAGS: usize = 2;

/// Most extension headers before a transport header that is looked into.
const MAX_EXTENSIONS: usize = 6;

/// The link and network header of a frame. None for what is not IP, or too short to be: such frames are not for us.
#[inline(always)]
pub fn network<P: Packet + ?Sized>(packet: &P, ipv6: bool) -> Option<Network> {
    let ethernet: EthernetHeader = packet.get(0)?;
    let mut kind = ethernet.kind;
    let mut l3 = size_of::<EthernetHeader>();
    let mut vlan = 0;
    for tags in 0..MAX_TAGS {
        if kind != ETH_VLAN && kind != ETH_QINQ {
            break;
        }
        let tag: VlanTag = packet.get(l3)?;
        if tags == 0 {
            vlan = tag.control;
        }
        kind = tag.kind;
        l3 += size_of::<VlanTag>();
    }
    if kind == ETH_IPV4 {
        let ip: Ipv4Header = packet.get(l3)?;
        let (source, destination) = (Address::from_v4_word(ip.source), Address::from_v4_word(ip.destination));
        return Some(Network { l3, vlan, source, destination });
    }
    if ipv6 && kind == ETH_IPV6 {
        let ip: Ipv6Header = packet.get(l3)?;
        let (source, destination) = (Address::from_words(ip.source), Address::from_words(ip.destination));
        // Mapped addresses do not appear on a wire (RFC 4038 s4.2), and in our tables they are IPv4 ones.
        if source.is_v4() || destination.is_v4() {
            return None;
        }
        return Some(Network { l3, vlan, source, destination });
    }
    None
}

/// What an IP packet carries.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Transport {
    /// The protocol after all extension headers.
    pub protocol: u8,
    /// Offset of the transport header in the frame.
    pub l4: usize,
    /// Whether it is a fragment. In a later one nothing below is set.
    pub fragment: Fragment,
    /// What the fragments of its datagram share, wire bytes; 0 of a whole one. Beside the enum, not in it: of an enum that has it in some variants only the compiler moves
    /// undefined halves about, which verifiers refuse.
    pub identification: u32,
    /// Length of the IP packet, header included.
    pub ip_bytes: usize,
    /// TCP and UDP: the source port, wire bytes. ICMP: type in the first byte, code in the second.
    pub source_port: u16,
    /// TCP and UDP: the destination port, wire bytes.
    pub destination_port: u16,
    /// TCP flags; 0 otherwise.
    pub tcp_flags: u8,
    /// DSCP and ECN.
    pub traffic_class: u8,
    /// IPv4: no router may fragment it. Always so in IPv6.
    pub dont_fragment: bool,
}

impl Transport {
    /// [`Self::l4`] within its bounds, for a verifier that has lost sight of them.
    #[inline(always)]
    pub const fn offset(&self) -> usize {
        self.l4 & MAX_L4
    }

    /// Whether it opens a TCP connection.
    #[inline(always)]
    pub const fn is_syn(&self) -> bool {
        self.tcp_flags & (tcp::SYN | tcp::ACK | tcp::RST) == tcp::SYN
    }

    /// The two ports as one word, source first.
    #[inline(always)]
    pub const fn ports(&self) -> u32 {
        ports_word(self.source_port, self.destination_port)
    }
}

/// Two ports, wire bytes, as one word for hashing.
#[inline(always)]
pub const fn ports_word(source: u16, destination: u16) -> u32 {
    (source as u32) << 16 | destination as u32
}

/// A packet that is cut short or contradicts itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Malformed;

/// What lies in the IP packet at `network.l3`.
///
/// # Errors
/// [`Malformed`] when a header is cut short, a length contradicts the frame's, or there are more than six extension headers.
#[inline(always)]
pub fn transport<P: Packet + ?Sized>(packet: &P, network: &Network) -> Result<Transport, Malformed> {
    let found = if network.destination.is_v4() { internet4(packet, network.l3, true)? } else { internet6(packet, network.l3, true)? };
    with_ports(packet, found, network.l3 + found.ip_bytes, true)
}

/// What lies in a packet that an ICMP error quotes from offset `l3` on: as [`transport`], but the packet may be cut after its first eight bytes
/// of transport header. `end` is where in the frame the error's own packet ends.
///
/// # Errors
/// [`Malformed`] when not even these are there.
#[inline(always)]
pub fn quoted_transport<P: Packet + ?Sized>(packet: &P, l3: usize, is_v4: bool, end: usize) -> Result<Transport, Malformed> {
    let found = if is_v4 { internet4(packet, l3, false)? } else { internet6(packet, l3, false)? };
    with_ports(packet, found, end, false)
}

#[inline(always)]
fn internet4<P: Packet + ?Sized>(packet: &P, l3: usize, whole: bool) -> Result<Transport, Malformed> {
    let ip: Ipv4Header = packet.get(l3).ok_or(Malformed)?;
    let header_bytes = (ip.version_length & 15) as usize * 4;
    let ip_bytes = u16::from_be(ip.total_length) as usize;
    if ip.version_length >> 4 != 4 || header_bytes < 20 || ip_bytes < header_bytes || (whole && !packet.holds(l3 + ip_bytes)) {
        return Err(Malformed);
    }
    let fragment = u16::from_be(ip.fragment);
    Ok(Transport {
        protocol: ip.protocol,
        l4: l3 + header_bytes,
        fragment: match (fragment & 0x1fff, fragment & 0x2000) {
            (0, 0) => Fragment::Whole,
            (0, _) => Fragment::First,
            _ => Fragment::Later,
        },
        identification: if fragment & 0x3fff == 0 { 0 } else { ip.identification as u32 },
        ip_bytes,
        source_port: 0,
        destination_port: 0,
        tcp_flags: 0,
        traffic_class: ip.traffic_class,
        dont_fragment: fragment & 0x4000 != 0,
    })
}

#[inline(always)]
fn internet6<P: Packet + ?Sized>(packet: &P, l3: usize, whole: bool) -> Result<Transport, Malformed> {
    let ip: Ipv6Header = packet.get(l3).ok_or(Malformed)?;
    let ip_bytes = u16::from_be(ip.payload_length) as usize + size_of::<Ipv6Header>();
    if ip.version_class_label & 0xf0_u32.to_le() != 0x60_u32.to_le() || (whole && !packet.holds(l3 + ip_bytes)) {
        return Err(Malformed);
    }
    let mut found = Transport {
        protocol: ip.next_header,
        l4: l3 + size_of::<Ipv6Header>(),
        fragment: Fragment::Whole,
        identification: 0,
        ip_bytes,
        source_port: 0,
        destination_port: 0,
        tcp_flags: 0,
        traffic_class: (u32::from_be(ip.version_class_label) >> 20) as u8,
        dont_fragment: true,
    };
    if is_extension(found.protocol) {
        skip_extensions(packet, &mut found)?;
    }
    Ok(found)
}

/// Whether the next header is an extension header that is skipped (RFC 8200 s4.1, RFC 4302 for 51).
#[inline(always)]
pub const fn is_extension(next_header: u8) -> bool {
    matches!(next_header, 0 | 43 | 44 | 51 | 60 | 135)
}

#[inline(always)]
fn skip_extensions<P: Packet + ?Sized>(packet: &P, found: &mut Transport) -> Result<(), Malformed> {
    let mut l4 = found.l4;
    let mut kind = found.protocol;
    for _ in 0..MAX_EXTENSIONS {
        if !is_extension(kind) {
            break;
        }
        let extension: ExtensionHeader = packet.get(l4 & 0xfff).ok_or(Malformed)?;
        let bytes = match kind {
            44 => 8,
            51 => (extension.length as usize + 2) * 4,
            _ => (extension.length as usize + 1) * 8,
        };
        if kind == 44 {
            let fragment = u16::from_be(extension.fragment);
            found.identification = if fragment & 0xfff9 == 0 { 0 } else { extension.identification };
            found.fragment = match (fragment & 0xfff8, fragment & 1) {
                (0, 0) => Fragment::Whole,
                (0, _) => Fragment::First,
                _ => Fragment::Later,
            };
        }
        kind = extension.next_header;
        l4 += bytes;
        if matches!(found.fragment, Fragment::Later) {
            break;
        }
    }
    found.protocol = kind;
    found.l4 = l4;
    let later = matches!(found.fragment, Fragment::Later);
    if l4 > MAX_L4 || (!later && is_extension(kind)) { Err(Malformed) } else { Ok(()) }
}

#[inline(always)]
fn with_ports<P: Packet + ?Sized>(packet: &P, mut found: Transport, end: usize, whole: bool) -> Result<Transport, Malformed> {
    if matches!(found.fragment, Fragment::Later) {
        return Ok(found);
    }
    if !matches!(found.protocol, protocol::TCP | protocol::UDP | protocol::ICMP | protocol::ICMPV6) {
        return Ok(found);
    }
    // What follows the packet in its frame is padding.
    if found.l4 > MAX_L4 || found.l4 + size_of::<TransportHead>() > end {
        return Err(Malformed);
    }
    let head: TransportHead = packet.get(found.l4).ok_or(Malformed)?;
    found.source_port = head.source_port;
    found.destination_port = head.destination_port;
    if whole && found.protocol == protocol::TCP {
        let tail: TcpTail = packet.get(found.l4 + size_of::<TransportHead>()).ok_or(Malformed)?;
        let header_bytes = (tail.offset >> 4) as usize * 4;
        if header_bytes < 20 || found.l4 + header_bytes > end {
            return Err(Malformed);
        }
        found.tcp_flags = tail.flags;
    }
    Ok(found)
}

/// Where a SYN carries its maximum segment size, and that size in host order (RFC 9293 s3.2, option kind 2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MssOption {
    /// Offset of the 16-bit value in the frame.
    pub offset: usize,
    /// Bytes.
    pub mss: u16,
    /// Whether the value lies at an odd offset of the TCP header, so that its bytes are in two words of the checksum.
    pub is_odd: bool,
}

/// What [`leading_mss`] says of a header that does not begin its options with the MSS.
pub const NO_LEADING_MSS: u32 = u32::MAX;

/// The MSS of the TCP header at `l4`, if it is the first option, where nearly every system puts it; else [`NO_LEADING_MSS`]. A number, and no loop.
#[inline(always)]
pub fn leading_mss<P: Packet + ?Sized>(packet: &P, l4: usize) -> u32 {
    const KIND_AND_LENGTH: u32 = 0x0204;
    let Some(tail) = packet.get::<TcpTail>(l4 + size_of::<TransportHead>()) else { return NO_LEADING_MSS };
    let Some(first) = packet.get::<u32>(l4 + 20) else { return NO_LEADING_MSS };
    let first = u32::from_be(first);
    if tail.offset < 6 << 4 || first >> 16 != KIND_AND_LENGTH {
        return NO_LEADING_MSS;
    }
    first & 0xffff
}

/// Most options of a SYN that are looked through.
const MAX_OPTIONS: usize = 12;

/// The MSS option of the TCP header at `l4`.
#[inline(always)]
pub fn mss_option<P: Packet + ?Sized>(packet: &P, l4: usize) -> Option<MssOption> {
    let tail: TcpTail = packet.get(l4 + size_of::<TransportHead>())?;
    let end = (tail.offset >> 4) as usize * 4;
    let mut at = 20;
    for _ in 0..MAX_OPTIONS {
        if at + 4 > end {
            return None;
        }
        // Two bytes at once: of two checks that imply each other the compiler keeps one, and the verifier knows only the pointer checked.
        let head: u16 = packet.get(l4 + at)?;
        let [kind, length] = head.to_ne_bytes();
        match kind {
            0 => return None,
            1 => at += 1,
            2 if length == 4 => {
                let mss: u16 = packet.get(l4 + at + 2)?;
                return Some(MssOption { offset: l4 + at + 2, mss: u16::from_be(mss), is_odd: at & 1 != 0 });
            }
            _ if length < 2 => return None,
            _ => at += (length & 63) as usize,
        }
    }
    None
}

#[cfg(test)]
mod tests;
