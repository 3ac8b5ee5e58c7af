//! Sending a packet to its member: the link-layer header and, for tunnels, the outer headers come prebuilt.

use aya_ebpf::bindings::{xdp_action, xdp_md};
use lb_common::{
    checksum::Sum,
    decide::{Delivery, Parsed},
    hash,
    maps::{ForwardKind, Header},
    packet::{Fragment, MssOption, NO_LEADING_MSS, Packet, leading_mss, mss_option, protocol},
    reason::{Drop, Note},
    words::ServiceId,
};

use crate::{
    count,
    frame::{Frame, Head, Unwritable},
    maps, stage,
    verdict::{Ok as _, Verdict, or_fail},
};

/// The Ethernet header without a VLAN tag.
pub(crate) const PLAIN_LINK: usize = 14;
/// The Ethernet header with one.
pub(crate) const TAGGED_LINK: usize = 18;
/// The IPv4 header without options.
pub(crate) const IPV4: usize = 20;
/// The IPv6 header.
pub(crate) const IPV6: usize = 40;
/// UDP and GUE.
const GUE: usize = 12;

/// Sends the frame out of an interface: back out of the one that it came in by, or over to another.
#[inline(always)]
pub(crate) fn transmit(frame: &Frame, ifindex: u32) -> Verdict {
    if frame.ifindex() == ifindex {
        return Verdict::done(xdp_action::XDP_TX);
    }
    match maps::INTERFACES.redirect(ifindex, 0) {
        Ok(action) => Verdict::done(action),
        Err(_) => Verdict::failed(Drop::Driver),
    }
}

/// Sends the packet to its member in the member's way. NAT is `translate`'s.
#[inline(always)]
pub(crate) fn send(frame: Frame, delivery: Delivery, parsed: &Parsed) -> Verdict {
    const fn shape(kind: ForwardKind, link_bytes: usize) -> u16 {
        Header::shape_of(kind as u8, link_bytes)
    }
    const DSR: u16 = shape(ForwardKind::Dsr, PLAIN_LINK);
    const DSR_TAGGED: u16 = shape(ForwardKind::Dsr, TAGGED_LINK);
    const IPIP4: u16 = shape(ForwardKind::Ipip4, PLAIN_LINK);
    const IPIP4_TAGGED: u16 = shape(ForwardKind::Ipip4, TAGGED_LINK);
    const IPIP6: u16 = shape(ForwardKind::Ipip6, PLAIN_LINK);
    const IPIP6_TAGGED: u16 = shape(ForwardKind::Ipip6, TAGGED_LINK);
    const GUE4: u16 = shape(ForwardKind::Gue4, PLAIN_LINK);
    const GUE4_TAGGED: u16 = shape(ForwardKind::Gue4, TAGGED_LINK);
    const GUE6: u16 = shape(ForwardKind::Gue6, PLAIN_LINK);
    const GUE6_TAGGED: u16 = shape(ForwardKind::Gue6, TAGGED_LINK);

    let header = or_fail!(maps::HEADERS.get(delivery.header()), Drop::Inconsistent);
    let mtu = header.mtu as usize;
    if parsed.transport.ip_bytes > mtu {
        return Verdict::too_big(mtu as u16);
    }
    if parsed.transport.is_syn() {
        or_fail!(clamp_mss(frame.context(), delivery.service(), parsed, mtu), Drop::Driver);
    }
    let sent = match header.shape() {
        DSR => wrap::<PLAIN_LINK>(frame, header, parsed).map(|_| ()),
        DSR_TAGGED => wrap::<TAGGED_LINK>(frame, header, parsed).map(|_| ()),
        IPIP4 => in_ipv4::<PLAIN_LINK, { PLAIN_LINK + IPV4 }>(frame, header, parsed),
        IPIP4_TAGGED => in_ipv4::<TAGGED_LINK, { TAGGED_LINK + IPV4 }>(frame, header, parsed),
        IPIP6 => in_ipv6::<PLAIN_LINK, { PLAIN_LINK + IPV6 }>(frame, header, parsed),
        IPIP6_TAGGED => in_ipv6::<TAGGED_LINK, { TAGGED_LINK + IPV6 }>(frame, header, parsed),
        GUE4 => in_gue4::<PLAIN_LINK, { PLAIN_LINK + IPV4 + GUE }>(frame, header, parsed),
        GUE4_TAGGED => in_gue4::<TAGGED_LINK, { TAGGED_LINK + IPV4 + GUE }>(frame, header, parsed),
        GUE6 => in_gue6::<PLAIN_LINK, { PLAIN_LINK + IPV6 + GUE }>(frame, header, parsed),
        GUE6_TAGGED => in_gue6::<TAGGED_LINK, { TAGGED_LINK + IPV6 + GUE }>(frame, header, parsed),
        // NAT is not sent from here.
        _ => return Verdict::failed(Drop::Inconsistent),
    };
    or_fail!(sent, Drop::Driver);
    count::sent(delivery.member(), parsed.transport.ip_bytes);
    transmit(&frame, header.ifindex)
}

/// Puts the first `BYTES` prebuilt bytes in place of the frame's own link-layer header.
#[inline(always)]
pub(crate) fn wrap<const BYTES: usize>(frame: Frame, header: &Header, parsed: &Parsed) -> Result<Frame, Unwritable> {
    let frame = frame.shrink_head(parsed.network.offset() as i32 - BYTES as i32)?;
    copy_prebuilt(&frame.head::<BYTES>()?, header);
    Ok(frame)
}

#[inline(always)]
fn copy_prebuilt<const BYTES: usize>(head: &Head<BYTES>, header: &Header) {
    let words = &header.bytes;
    let mut at = 0;
    while at + 8 <= BYTES {
        head.set(at, words[at / 8]);
        at += 8;
    }
    let mut rest = if BYTES.is_multiple_of(8) { 0 } else { words[BYTES / 8] };
    if BYTES - at >= 4 {
        head.set(at, rest as u32);
        rest >>= 32;
        at += 4;
    }
    if BYTES - at >= 2 {
        head.set(at, rest as u16);
    }
}

/// As [`wrap`], for writing on.
#[inline(always)]
fn wrapped<const BYTES: usize>(frame: Frame, header: &Header, parsed: &Parsed) -> Result<Head<BYTES>, Unwritable> {
    wrap::<BYTES>(frame, header, parsed)?.head()
}

/// Fills in the outer IPv4 header at `LINK`: traffic class (RFC 6040 s4.1, normal mode), length and checksum.
#[inline(always)]
fn finish_ipv4<const LINK: usize, const BYTES: usize>(head: &Head<BYTES>, header: &Header, parsed: &Parsed, overhead: usize) {
    let length = ((parsed.transport.ip_bytes + overhead) as u16).to_be();
    let class = (parsed.transport.traffic_class as u16).to_be();
    let checksum = Sum::from_partial(header.partial_sum).add16(length).add16(class).small_checksum();
    head.set(LINK + 1, parsed.transport.traffic_class);
    head.set(LINK + 2, length);
    head.set(LINK + 10, checksum);
}

/// Fills in the outer IPv6 header at `LINK`.
#[inline(always)]
fn finish_ipv6<const LINK: usize, const BYTES: usize>(head: &Head<BYTES>, parsed: &Parsed, overhead: usize) {
    head.set(LINK, (6_u32 << 28 | (parsed.transport.traffic_class as u32) << 20).to_be());
    head.set(LINK + 4, ((parsed.transport.ip_bytes + overhead) as u16).to_be());
}

#[inline(always)]
fn in_ipv4<const LINK: usize, const BYTES: usize>(frame: Frame, header: &Header, parsed: &Parsed) -> Result<(), Unwritable> {
    let head = wrapped::<BYTES>(frame, header, parsed)?;
    finish_ipv4::<LINK, BYTES>(&head, header, parsed, IPV4);
    Ok(())
}

#[inline(always)]
fn in_ipv6<const LINK: usize, const BYTES: usize>(frame: Frame, header: &Header, parsed: &Parsed) -> Result<(), Unwritable> {
    let head = wrapped::<BYTES>(frame, header, parsed)?;
    finish_ipv6::<LINK, BYTES>(&head, parsed, 0);
    Ok(())
}

#[inline(always)]
fn in_gue4<const LINK: usize, const BYTES: usize>(frame: Frame, header: &Header, parsed: &Parsed) -> Result<(), Unwritable> {
    let head = wrapped::<BYTES>(frame, header, parsed)?;
    finish_ipv4::<LINK, BYTES>(&head, header, parsed, IPV4 + GUE);
    head.set(LINK + IPV4, entropy_port(parsed));
    // RFC 768: no checksum; the inner packet has its own.
    head.set(LINK + IPV4 + 4, ((parsed.transport.ip_bytes + GUE) as u16).to_be());
    Ok(())
}

#[inline(always)]
fn in_gue6<const LINK: usize, const BYTES: usize>(frame: Frame, header: &Header, parsed: &Parsed) -> Result<(), Unwritable> {
    let inner = inner_sum(&frame, parsed);
    let head = wrapped::<BYTES>(frame, header, parsed)?;
    finish_ipv6::<LINK, BYTES>(&head, parsed, GUE);
    let udp = LINK + IPV6;
    let source = entropy_port(parsed);
    let length = ((parsed.transport.ip_bytes + GUE) as u16).to_be();
    head.set(udp, source);
    head.set(udp + 4, length);
    let Some(inner) = inner else { return Ok(()) };
    let target: u16 = head.get(udp + 2);
    let gue: u32 = head.get(udp + 8);
    let outer = Sum::from_partial(header.partial_sum).add16(length).add16(length).add16(source).add16(target).add32(gue);
    let checksum = outer.add(inner).checksum();
    head.set(udp + 6, if checksum == 0 { 0xffff } else { checksum });
    Ok(())
}

/// A source port from 49 152 up by which routers and network cards spread flows.
#[inline(always)]
fn entropy_port(parsed: &Parsed) -> u16 {
    // Whoever chooses a port that collides with another flow's shares its path, no more.
    let hash = hash::configured(&parsed.network.source, parsed.transport.ports(), 0x5765_6972_2047_5545);
    (0xc000 | (hash.index & 0x3fff) as u16).to_be()
}

/// The sum over the inner packet, from its headers alone: a segment with a valid checksum sums to the complement of its pseudo-header, an IPv4
/// header to nothing. None where that does not hold: fragments, UDP without a checksum or not as long as its packet, and what is neither TCP nor
/// UDP; these go without an outer checksum (RFC 6935).
#[inline(always)]
fn inner_sum(frame: &Frame, parsed: &Parsed) -> Option<Sum> {
    let transport = &parsed.transport;
    if transport.fragment != Fragment::Whole {
        return None;
    }
    let checksum_offset = match transport.protocol {
        protocol::TCP => 16,
        protocol::UDP => 6,
        _ => return None,
    };
    let checksum: u16 = frame.get(transport.offset() + checksum_offset)?;
    if checksum == 0 {
        return None;
    }
    let (l3, is_v4) = (parsed.network.offset(), parsed.network.source.is_v4());
    let plain_header = if is_v4 { IPV4 } else { IPV6 };
    if transport.l4 - l3 != plain_header {
        return None;
    }
    let segment = ((transport.ip_bytes - plain_header) as u16).to_be();
    if transport.protocol == protocol::UDP {
        let covered: u16 = frame.get(transport.offset() + 4)?;
        if covered != segment {
            return None;
        }
    }
    let source = parsed.network.source.words();
    let destination = parsed.network.destination.words();
    let protocol = (transport.protocol as u16).to_be();
    if is_v4 {
        return Some(Sum::ZERO.remove32(source[3]).remove32(destination[3]).remove16(protocol).remove16(segment));
    }
    // The addresses of the IPv6 header and of the pseudo-header cancel out.
    let first: u32 = frame.get(l3)?;
    let next: u32 = frame.get(l3 + 4)?;
    Some(Sum::ZERO.add32(first).add32(next).remove16(protocol).remove16(segment))
}

/// Lowers the MSS of a SYN to what fits the path (`mtu`: the largest packet without encapsulation).
#[inline(always)]
pub(crate) fn clamp_mss(context: *mut xdp_md, service: ServiceId, parsed: &Parsed, mtu: usize) -> Result<(), Unwritable> {
    let headers = if parsed.network.source.is_v4() { IPV4 + 20 } else { IPV6 + 20 };
    let most = mtu.saturating_sub(headers) as u32;
    let (frame, l4) = (Frame::new(context), parsed.transport.offset());
    let leading = leading_mss(&frame.snapshot(), l4);
    if leading <= most {
        return Ok(());
    }
    if leading != NO_LEADING_MSS {
        count::note(service, Note::MssClamped);
        return set_mss(&frame, l4, MssOption { offset: l4 + 22, mss: leading as u16, is_odd: false }, most as u16);
    }
    if stage::weir_clamp_mss(context, service.0 as u32, parsed.transport.offset() as u32, most) == 0 { Err(Unwritable) } else { Ok(()) }
}

/// Lowers the MSS in the TCP header at `l4` to `most`.
#[inline(always)]
pub(crate) fn lower_mss(frame: &Frame, service: ServiceId, l4: usize, most: u16) -> Result<(), Unwritable> {
    let Some(option) = mss_option(frame, l4) else { return Ok(()) };
    if option.mss <= most {
        return Ok(());
    }
    count::note(service, Note::MssClamped);
    set_mss(frame, l4, option, most)
}

#[inline(always)]
fn set_mss(frame: &Frame, l4: usize, option: MssOption, mss: u16) -> Result<(), Unwritable> {
    let (old, new) = (option.mss.to_be(), mss.to_be());
    let diff =
        if option.is_odd { Sum::ZERO.remove16(old.swap_bytes()).add16(new.swap_bytes()) } else { Sum::ZERO.remove16(old).add16(new) };
    let checksum: u16 = frame.get(l4 + 16).ok_or(Unwritable)?;
    frame.set(l4 + 16, diff.update(checksum))?;
    frame.set(option.offset, new)
}
