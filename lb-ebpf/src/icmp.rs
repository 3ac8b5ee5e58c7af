//! ICMP: echo for VIPs, and errors whose quotation is translated.

use aya_ebpf::bindings::{xdp_action, xdp_md};
use lb_common::{
    address::Address,
    checksum::Sum,
    decide::{Delivery, FlowIndex, Parsed},
    packet::{Ipv4Header, Ipv6Header, Packet, Transport, protocol, quoted_transport},
    reason::{Drop, Note},
    words::ServiceId,
};

use crate::{
    answer::{HOP_LIMIT, swap_macs},
    count,
    forward::transmit,
    frame::{Frame, Unwritable},
    maps,
    translate::{self, Rewrite, rewrite_addresses},
    verdict::{Ok as _, Verdict, or_fail},
};

/// Makes an echo request its own reply: addresses trade places, so only the type changes the checksum. Its hop limit is fresh (RFC 1122
/// s3.2.1.7): a request may come with its last hop.
#[inline(always)]
pub(crate) fn echo(context: *mut xdp_md, parsed: &Parsed) -> u32 {
    let frame = Frame::new(context);
    match make_echo_reply(&frame, parsed) {
        Ok(()) => {
            count::note(ServiceId::NONE, Note::EchoReplied);
            xdp_action::XDP_TX
        }
        Err(Unwritable) => xdp_action::XDP_PASS,
    }
}

#[inline(always)]
fn make_echo_reply(frame: &Frame, parsed: &Parsed) -> Result<(), Unwritable> {
    let l3 = parsed.network.offset();
    let l4 = parsed.transport.offset();
    let checksum: u16 = frame.get(l4 + 2).ok_or(Unwritable)?;
    let (request, reply) = if parsed.network.source.is_v4() { ([8, 0], [0, 0]) } else { ([128, 0], [129, 0]) };
    let diff = Sum::ZERO.remove16(u16::from_ne_bytes(request)).add16(u16::from_ne_bytes(reply));
    frame.set(l4, reply[0])?;
    // Both zeros are the same sum, but of a message of zeros alone, whose checksum is all ones.
    let updated = match diff.update(checksum) {
        0 => 0xffff,
        updated => updated,
    };
    frame.set(l4 + 2, updated)?;
    set_hop_limit(frame, l3, parsed.network.source.is_v4())?;
    set_addresses(frame, l3, parsed.network.destination, parsed.network.source)?;
    swap_macs(frame)
}

#[inline(always)]
fn set_hop_limit(frame: &Frame, l3: usize, is_v4: bool) -> Result<(), Unwritable> {
    if !is_v4 {
        return frame.set(l3 + 7, HOP_LIMIT);
    }
    let old: [u8; 2] = frame.get(l3 + 8).ok_or(Unwritable)?;
    let checksum: u16 = frame.get(l3 + 10).ok_or(Unwritable)?;
    let diff = Sum::ZERO.remove16(u16::from_ne_bytes(old)).add16(u16::from_ne_bytes([HOP_LIMIT, old[1]]));
    frame.set(l3 + 8, HOP_LIMIT)?;
    frame.set(l3 + 10, diff.update(checksum))
}

/// Writes both addresses where their sum stays the same.
#[inline(always)]
fn set_addresses(frame: &Frame, l3: usize, source: Address, destination: Address) -> Result<(), Unwritable> {
    if source.is_v4() {
        frame.set(l3 + 12, source.v4_word())?;
        return frame.set(l3 + 16, destination.v4_word());
    }
    frame.set(l3 + 8, source)?;
    frame.set(l3 + 24, destination)
}

/// Sends an error about what a server sent toward a client to that server.
#[inline(always)]
pub(crate) fn request_error(context: *mut xdp_md, delivery: Delivery, index: FlowIndex, parsed: &Parsed) -> Verdict {
    let frame = Frame::new(context);
    let flow = or_fail!(maps::NAT_FLOWS.get(index), Drop::Inconsistent);
    let header = or_fail!(maps::HEADERS.get(delivery.header()), Drop::Inconsistent);
    let toward = or_fail!(translate::request_rewrite(header, flow), Drop::Inconsistent);
    let quoted = Rewrite {
        source: toward.destination,
        destination: toward.source,
        source_port: toward.destination_port,
        destination_port: toward.source_port,
    };
    let outer = Rewrite { source: parsed.network.source, ..toward };
    or_fail!(rewrite_error(&frame, parsed, &outer, &quoted), Drop::Malformed);
    let frame = or_fail!(translate::relink(frame, header, parsed), Drop::Driver);
    count::sent(delivery.member(), parsed.transport.ip_bytes);
    transmit(&frame, header.ifindex)
}

/// Sends an error about what a client sent toward a server to that client. What the server itself says is said by the VIP.
#[inline(always)]
pub(crate) fn reply_error(context: *mut xdp_md, index: FlowIndex, parsed: &Parsed) -> Verdict {
    let frame = Frame::new(context);
    let flow = or_fail!(maps::NAT_FLOWS.get(index), Drop::Inconsistent);
    let toward = or_fail!(translate::reply_rewrite(flow), Drop::Inconsistent);
    let quoted = Rewrite {
        source: toward.destination,
        destination: toward.source,
        source_port: toward.destination_port,
        destination_port: toward.source_port,
    };
    let source = if parsed.network.source == flow.server { toward.source } else { parsed.network.source };
    let outer = Rewrite { source, ..toward };
    let way = or_fail!(translate::way_back(&frame, flow), Drop::NoNextHop);
    or_fail!(rewrite_error(&frame, parsed, &outer, &quoted), Drop::Malformed);
    let frame = or_fail!(translate::return_link(frame, flow, &way, parsed), Drop::Driver);
    transmit(&frame, flow.ifindex)
}

/// Rewrites the outer addresses and the quoted packet, and mends every checksum that covers them.
#[inline(always)]
fn rewrite_error(frame: &Frame, parsed: &Parsed, outer: &Rewrite, quoted: &Rewrite) -> Result<(), Unwritable> {
    let is_v4 = outer.source.is_v4();
    let icmp = parsed.transport.offset();
    let outer_diff = addresses(&parsed.network.source, &parsed.network.destination, outer);
    rewrite_addresses(frame, parsed.network.offset(), outer, outer_diff)?;
    let inner_l3 = icmp + 8;
    let end = parsed.network.offset() + parsed.transport.ip_bytes;
    let inner = quoted_transport(frame, inner_l3, is_v4, end).map_err(|_| Unwritable)?;
    let (source, destination) = inner_addresses(frame, inner_l3, is_v4).ok_or(Unwritable)?;
    let address_diff = addresses(&source, &destination, quoted);
    rewrite_addresses(frame, inner_l3, quoted, address_diff)?;
    let port_diff =
        Sum::ZERO.remove16(inner.source_port).remove16(inner.destination_port).add16(quoted.source_port).add16(quoted.destination_port);
    let l4 = inner.offset();
    frame.set(l4, quoted.source_port)?;
    frame.set(l4 + 2, quoted.destination_port)?;
    let transport_diff = rewrite_quoted_checksum(frame, &inner, end, address_diff.add(port_diff));
    // An IPv4 header's sum is zero before and after: its addresses and checksum cancel out within the quotation.
    let quoted_diff = if is_v4 { port_diff } else { address_diff.add(port_diff).add(outer_diff) };
    let checksum: u16 = frame.get(icmp + 2).ok_or(Unwritable)?;
    frame.set(icmp + 2, quoted_diff.add(transport_diff).update(checksum))
}

/// Mends the quoted packet's own checksum where the quotation, which ends at `end`, reaches it, and returns by how much that changes what
/// quotes it.
#[inline(always)]
fn rewrite_quoted_checksum(frame: &Frame, inner: &Transport, end: usize, diff: Sum) -> Sum {
    let at = inner.offset() + if inner.protocol == protocol::TCP { 16 } else { 6 };
    if at + 2 > end {
        return Sum::ZERO;
    }
    let Some(old) = frame.get::<u16>(at) else { return Sum::ZERO };
    if inner.protocol == protocol::UDP && old == 0 {
        return Sum::ZERO;
    }
    let updated = diff.update(old);
    // RFC 768: zero would say that there is none.
    let new = if inner.protocol == protocol::UDP && updated == 0 { 0xffff } else { updated };
    if frame.set(at, new).is_err() {
        return Sum::ZERO;
    }
    Sum::ZERO.remove16(old).add16(new)
}

#[inline(always)]
fn addresses(source: &Address, destination: &Address, new: &Rewrite) -> Sum {
    if new.source.is_v4() {
        return Sum::ZERO
            .remove32(source.v4_word())
            .remove32(destination.v4_word())
            .add32(new.source.v4_word())
            .add32(new.destination.v4_word());
    }
    Sum::ZERO
        .remove_words(source.words())
        .remove_words(destination.words())
        .add_words(new.source.words())
        .add_words(new.destination.words())
}

#[inline(always)]
fn inner_addresses(frame: &Frame, l3: usize, is_v4: bool) -> Option<(Address, Address)> {
    if is_v4 {
        let ip: Ipv4Header = frame.get(l3)?;
        return Some((Address::from_v4_word(ip.source), Address::from_v4_word(ip.destination)));
    }
    let ip: Ipv6Header = frame.get(l3)?;
    Some((Address::from_words(ip.source), Address::from_words(ip.destination)))
}
