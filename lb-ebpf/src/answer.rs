//! Answers made of the packet itself: TCP resets, ICMP unreachable and too-big, sent back the way it came.

use aya_ebpf::bindings::{xdp_action, xdp_md};
use lb_common::{
    checksum::Sum,
    decide::Parsed,
    packet::{EthernetHeader, Ipv4Header, Ipv6Header, Packet, protocol, tcp},
    reason::{Drop, Note},
    words::ServiceId,
};

use crate::{
    count,
    forward::{IPV4, IPV6},
    frame::{Frame, Unwritable},
    verdict::Verdict,
};

/// Hop limit of what we send.
pub(crate) const HOP_LIMIT: u8 = 64;
const TCP: usize = 20;
const ICMP: usize = 8;

/// Most bytes of the refused packet in an unreachable message: its headers and eight bytes more (RFC 792), by which its sender knows it. A
/// packet with more headers is not answered.
const SHORT_QUOTE: usize = 128;
/// Bytes quoted of a packet that is too big: 576 (RFC 1812 s4.3.2.3) and 1 280 (RFC 4443 s2.4) less the headers, in whole words.
const LONG_QUOTE4: usize = 548;
const LONG_QUOTE6: usize = 1232;

/// Tells the sender of a refused packet.
#[inline(always)]
pub(crate) fn answer(context: *mut xdp_md, service: ServiceId, parsed: &Parsed) -> u32 {
    if !parsed.network.source.can_be_answered() {
        return xdp_action::XDP_DROP;
    }
    let frame = Frame::new(context);
    let answered = if parsed.transport.protocol == protocol::TCP {
        reset(frame, parsed).map(|()| Note::ResetSent)
    } else {
        unreachable(frame, parsed).map(|()| Note::UnreachableSent)
    };
    match answered {
        Ok(note) => {
            count::note(service, note);
            xdp_action::XDP_TX
        }
        Err(Unwritable) => xdp_action::XDP_DROP,
    }
}

/// Turns the link-layer header around.
#[inline(always)]
pub(crate) fn swap_macs(frame: &Frame) -> Result<(), Unwritable> {
    let old: EthernetHeader = frame.get(0).ok_or(Unwritable)?;
    frame.set(0, old.source)?;
    frame.set(6, old.destination)
}

/// Writes an IP header from the packet's destination to its source at `l3`, and returns the sum of the pseudo-header.
#[inline(always)]
fn set_ip(frame: &Frame, l3: usize, parsed: &Parsed, next: u8, payload: usize) -> Result<Sum, Unwritable> {
    let (source, destination) = (parsed.network.destination, parsed.network.source);
    let pseudo = Sum::ZERO.add16((payload as u16).to_be()).add16((next as u16).to_be());
    if source.is_v4() {
        let mut header = Ipv4Header {
            version_length: 0x45,
            traffic_class: 0,
            total_length: ((IPV4 + payload) as u16).to_be(),
            identification: 0,
            fragment: 0x4000_u16.to_be(),
            hop_limit: HOP_LIMIT,
            protocol: next,
            checksum: 0,
            source: source.v4_word(),
            destination: destination.v4_word(),
        };
        let addresses = Sum::ZERO.add32(header.source).add32(header.destination);
        header.checksum = addresses
            .add16(0x4500_u16.to_be())
            .add16(header.total_length)
            .add16(header.fragment)
            .add16(u16::from_be_bytes([HOP_LIMIT, next]).to_be())
            .checksum();
        frame.set(l3, header)?;
        return Ok(pseudo.add(addresses));
    }
    let header = Ipv6Header {
        version_class_label: (6_u32 << 28).to_be(),
        payload_length: (payload as u16).to_be(),
        next_header: next,
        hop_limit: HOP_LIMIT,
        source: source.words(),
        destination: destination.words(),
    };
    frame.set(l3, header)?;
    Ok(pseudo.add_words(header.source).add_words(header.destination))
}

/// The TCP header, as far as a reset reads and writes it.
#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct TcpHeader {
    source_port: u16,
    destination_port: u16,
    sequence: u32,
    acknowledgment: u32,
    offset: u8,
    flags: u8,
    window: u16,
    checksum: u16,
    urgent: u16,
}

/// Makes the frame a reset in answer to itself (RFC 9293 s3.5.2).
#[inline(always)]
fn reset(frame: Frame, parsed: &Parsed) -> Result<(), Unwritable> {
    let l3 = parsed.network.offset();
    let l4 = parsed.transport.offset();
    let old: TcpHeader = frame.get(l4).ok_or(Unwritable)?;
    if old.flags & tcp::RST != 0 {
        return Err(Unwritable);
    }
    let header_bytes = (old.offset >> 4) as usize * 4;
    let data = parsed.transport.ip_bytes.wrapping_sub(l4 - l3).wrapping_sub(header_bytes) as u32;
    let control = (old.flags & tcp::SYN != 0) as u32 + (old.flags & tcp::FIN != 0) as u32;
    let (sequence, acknowledgment, flags) = if old.flags & tcp::ACK != 0 {
        (old.acknowledgment, 0, tcp::RST)
    } else {
        let next = u32::from_be(old.sequence).wrapping_add(data).wrapping_add(control);
        (0, next.to_be(), tcp::RST | tcp::ACK)
    };
    let plain_header = if parsed.network.source.is_v4() { IPV4 } else { IPV6 };
    let l4 = l3 + plain_header;
    let frame = frame.cut_to(l4 + TCP)?;
    let pseudo = set_ip(&frame, l3, parsed, protocol::TCP, TCP)?;
    let checksum = pseudo
        .add16(old.source_port)
        .add16(old.destination_port)
        .add32(sequence)
        .add32(acknowledgment)
        .add16(u16::from_be_bytes([0x50, flags]).to_be())
        .checksum();
    let answer = TcpHeader {
        source_port: old.destination_port,
        destination_port: old.source_port,
        sequence,
        acknowledgment,
        offset: 0x50,
        flags,
        window: 0,
        checksum,
        urgent: 0,
    };
    frame.set(l4, answer)?;
    swap_macs(&frame)
}

/// Makes the frame a port-unreachable message in answer to itself.
#[inline(always)]
fn unreachable(frame: Frame, parsed: &Parsed) -> Result<(), Unwritable> {
    let quoted = parsed.transport.offset().wrapping_sub(parsed.network.offset()).wrapping_add(8);
    if quoted > SHORT_QUOTE {
        return Err(Unwritable);
    }
    if parsed.network.source.is_v4() {
        quote::<IPV4>(frame, parsed, [3, 3], 0, quoted, |frame, at| sum_words(frame, at, quoted))
    } else {
        quote::<IPV6>(frame, parsed, [1, 4], 0, quoted, |frame, at| sum_words(frame, at, quoted))
    }
}

/// Answers a packet that exceeds the path to its member, or to its client, unless routers might have fragmented it.
/// Then the drop is counted here. No error is made about an ICMP message: of these only errors get here (RFC 1122 s3.2.2, RFC 4443 s2.4 e).
#[inline(always)]
pub(crate) fn too_big(context: *mut xdp_md, service: ServiceId, parsed: &Parsed, mtu: u16) -> Verdict {
    let frame = Frame::new(context);
    if !parsed.transport.dont_fragment || matches!(parsed.transport.protocol, protocol::ICMP | protocol::ICMPV6) {
        return Verdict::failed(Drop::TooBig);
    }
    count::dropped(&frame, service, Drop::TooBig.index());
    if !parsed.network.source.can_be_answered() {
        return Verdict::done(xdp_action::XDP_DROP);
    }
    let made = if parsed.network.source.is_v4() {
        quote::<IPV4>(frame, parsed, [3, 4], (mtu as u32).to_be(), LONG_QUOTE4, |frame, at| frame.sum::<LONG_QUOTE4>(at))
    } else {
        quote::<IPV6>(frame, parsed, [2, 0], (mtu as u32).to_be(), LONG_QUOTE6, |frame, at| frame.sum::<LONG_QUOTE6>(at))
    };
    if made.is_err() {
        return Verdict::done(xdp_action::XDP_DROP);
    }
    count::note(service, Note::TooBigSent);
    Verdict::done(xdp_action::XDP_TX)
}

/// The sum over `bytes` from `at` on, whole words and at most [`SHORT_QUOTE`].
#[inline(always)]
fn sum_words(frame: &Frame, at: usize, bytes: usize) -> Result<Sum, Unwritable> {
    let mut sum = Sum::ZERO;
    let mut done = 0;
    while done < SHORT_QUOTE {
        if done >= bytes {
            break;
        }
        sum = sum.add32(frame.get(at + done).ok_or(Unwritable)?);
        done += 4;
    }
    Ok(sum)
}

/// Makes the frame an ICMP message (type and code, the word after the checksum) that quotes its first `quoted` bytes from the IP header on,
/// whose sum `sum_of` takes where they then lie.
#[inline(always)]
fn quote<const IP: usize>(
    frame: Frame,
    parsed: &Parsed,
    kind: [u8; 2],
    word: u32,
    quoted: usize,
    sum_of: impl FnOnce(&Frame, usize) -> Result<Sum, Unwritable>,
) -> Result<(), Unwritable> {
    let next = if IP == IPV4 { protocol::ICMP } else { protocol::ICMPV6 };
    let ethernet: EthernetHeader = frame.get(0).ok_or(Unwritable)?;
    let tags: [u32; 2] = [frame.get(14).ok_or(Unwritable)?, frame.get(18).ok_or(Unwritable)?];
    let l3 = parsed.network.offset();
    let frame = frame.shrink_head(-((IP + ICMP) as i32))?;
    let frame = frame.cut_to(l3 + IP + ICMP + quoted)?;
    frame.set(0, EthernetHeader { destination: ethernet.source, source: ethernet.destination, kind: ethernet.kind })?;
    if l3 >= 18 {
        frame.set(14, tags[0])?;
    }
    if l3 >= 22 {
        frame.set(18, tags[1])?;
    }
    let pseudo = set_ip(&frame, l3, parsed, next, ICMP + quoted)?;
    let icmp = l3 + IP;
    let covered = if next == protocol::ICMPV6 { pseudo } else { Sum::ZERO };
    let sum = covered.add16(u16::from_be_bytes(kind).to_be()).add32(word).add(sum_of(&frame, icmp + ICMP)?);
    frame.set(icmp, kind)?;
    frame.set(icmp + 2, sum.checksum())?;
    frame.set(icmp + 4, word)
}
