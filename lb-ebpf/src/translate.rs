//! NAT: addresses, ports and checksums are rewritten, both ways, in packets, in later fragments and in what ICMP errors quote.

use lb_common::{
    address::Address,
    checksum::Sum,
    decide::{Delivery, FlowIndex, Parsed},
    maps::{Header, NatFlow},
    packet::{ETH_VLAN, EthernetHeader, Fragment, Packet, protocol, tcp},
    reason::Drop,
    words::{MemberId, MemberWord, ServiceId},
};

use crate::{
    count,
    forward::{self, PLAIN_LINK, TAGGED_LINK, clamp_mss, transmit},
    frame::{Frame, Unwritable},
    kernel, maps,
    verdict::{Ok as _, Verdict, or_fail},
};

/// What a packet's addresses and ports become.
#[derive(Clone, Copy)]
pub(crate) struct Rewrite {
    /// Source address.
    pub(crate) source: Address,
    /// Destination address.
    pub(crate) destination: Address,
    /// Source port, wire bytes.
    pub(crate) source_port: u16,
    /// Destination port, wire bytes.
    pub(crate) destination_port: u16,
}

/// What a request of the flow becomes.
#[inline(always)]
pub(crate) fn request_rewrite(header: &Header, flow: &NatFlow) -> Option<Rewrite> {
    // The header carries the SNAT address of the member's first plane.
    let source = if flow.plane == header.nat_plane { header.nat_snat() } else { maps::NAT_PLANES.get(flow.plane as u32)?.snat };
    Some(Rewrite { source, destination: flow.server, source_port: flow.snat_port, destination_port: flow.server_port })
}

/// What a reply of the flow becomes.
#[inline(always)]
pub(crate) fn reply_rewrite(flow: &NatFlow) -> Option<Rewrite> {
    let service = maps::SERVICES.get(flow.service as u32)?;
    Some(Rewrite { source: service.vip, destination: flow.client, source_port: flow.vip_port, destination_port: flow.client_port })
}

/// Sends a client's packet to its server.
#[inline(always)]
pub(crate) fn request(frame: Frame, delivery: Delivery, index: FlowIndex, parsed: &Parsed) -> Verdict {
    let flow = or_fail!(maps::NAT_FLOWS.get(index), Drop::Inconsistent);
    let header = or_fail!(maps::HEADERS.get(delivery.header()), Drop::Inconsistent);
    if parsed.transport.ip_bytes > header.mtu as usize {
        return Verdict::too_big(header.mtu);
    }
    if parsed.transport.is_syn() {
        or_fail!(clamp_mss(frame.context(), delivery.service(), parsed, header.mtu as usize), Drop::Driver);
    }
    follow_client(&frame, index, flow, parsed);
    let new = or_fail!(request_rewrite(header, flow), Drop::Inconsistent);
    or_fail!(rewrite(&frame, parsed, &new), Drop::Driver);
    let frame = or_fail!(relink(frame, header, parsed), Drop::Driver);
    count::sent(delivery.member(), parsed.transport.ip_bytes);
    transmit(&frame, header.ifindex)
}

/// Has replies go where the client's packets come from, which may be another router by now, or another interface. Not by a SYN or a reset, which
/// anybody can send in its name.
#[inline(always)]
fn follow_client(frame: &Frame, index: FlowIndex, flow: &NatFlow, parsed: &Parsed) {
    let Some(ethernet) = frame.get::<EthernetHeader>(0) else { return };
    let ifindex = frame.ifindex();
    if ethernet.source == flow.mac && ifindex == flow.ifindex || parsed.transport.tcp_flags & (tcp::SYN | tcp::RST) != 0 {
        return;
    }
    kernel::move_flow(index, flow, ethernet.source, ifindex);
}

/// Puts the member's link-layer header in place of the frame's own.
#[inline(always)]
pub(crate) fn relink(frame: Frame, header: &Header, parsed: &Parsed) -> Result<Frame, Unwritable> {
    if header.link_bytes as usize == PLAIN_LINK {
        forward::wrap::<PLAIN_LINK>(frame, header, parsed)
    } else {
        forward::wrap::<TAGGED_LINK>(frame, header, parsed)
    }
}

/// Sends a server's packet to its client.
#[inline(always)]
pub(crate) fn reply(frame: Frame, index: FlowIndex, parsed: &Parsed) -> Verdict {
    let flow = or_fail!(maps::NAT_FLOWS.get(index), Drop::Inconsistent);
    let way = or_fail!(way_back(&frame, flow), Drop::NoNextHop);
    let service = ServiceId(flow.service);
    if parsed.transport.ip_bytes > way.mtu as usize {
        return Verdict::too_big(way.mtu);
    }
    if parsed.transport.tcp_flags & (tcp::SYN | tcp::RST) == tcp::SYN {
        or_fail!(clamp_mss(frame.context(), service, parsed, mtu_to_server(flow)), Drop::Driver);
    }
    let new = or_fail!(reply_rewrite(flow), Drop::Inconsistent);
    or_fail!(rewrite(&frame, parsed, &new), Drop::Driver);
    let frame = or_fail!(return_link(frame, flow, &way, parsed), Drop::Driver);
    transmit(&frame, flow.ifindex)
}

/// The largest packet that the client may send toward the flow's server: what its MSS must respect.
#[inline(always)]
fn mtu_to_server(flow: &NatFlow) -> usize {
    let header = MemberId::new(flow.member)
        .and_then(|id| maps::MEMBERS.get(id.number() as u32))
        .and_then(|word| maps::HEADERS.get(MemberWord(word.load()).header()));
    header.map_or(u16::MAX as usize, |header| header.mtu as usize)
}

/// The link that replies of a flow leave by.
pub(crate) struct WayBack {
    mac: [u16; 3],
    /// The largest IP packet on it.
    pub(crate) mtu: u16,
}

/// Finds it. A reply that leaves by the interface it came in by needs no look-up: the frame was addressed to that interface.
#[inline(always)]
pub(crate) fn way_back(frame: &Frame, flow: &NatFlow) -> Option<WayBack> {
    if frame.ifindex() == flow.ifindex {
        let ethernet: EthernetHeader = frame.get(0)?;
        return Some(WayBack { mac: ethernet.destination, mtu: u16::MAX });
    }
    let link = maps::link(flow.ifindex)?;
    Some(WayBack { mac: link.mac, mtu: link.mtu })
}

/// Puts the way back to the client in place of the frame's own link-layer header.
#[inline(always)]
pub(crate) fn return_link(frame: Frame, flow: &NatFlow, way: &WayBack, parsed: &Parsed) -> Result<Frame, Unwritable> {
    let link = if flow.vlan == 0 { PLAIN_LINK } else { TAGGED_LINK };
    let kind = if parsed.network.source.is_v4() { lb_common::packet::ETH_IPV4 } else { lb_common::packet::ETH_IPV6 };
    let frame = frame.shrink_head(parsed.network.offset() as i32 - link as i32)?;
    let outer_kind = if flow.vlan == 0 { kind } else { ETH_VLAN };
    frame.set(0, EthernetHeader { destination: flow.mac, source: way.mac, kind: outer_kind })?;
    if flow.vlan != 0 {
        frame.set(14, flow.vlan)?;
        frame.set(16, kind)?;
    }
    Ok(frame)
}

/// The change of the checksum that covers the addresses.
#[inline(always)]
fn address_diff(parsed: &Parsed, new: &Rewrite) -> Sum {
    let network = &parsed.network;
    if network.source.is_v4() {
        return Sum::ZERO
            .remove32(network.source.v4_word())
            .remove32(network.destination.v4_word())
            .add32(new.source.v4_word())
            .add32(new.destination.v4_word());
    }
    Sum::ZERO
        .remove_words(network.source.words())
        .remove_words(network.destination.words())
        .add_words(new.source.words())
        .add_words(new.destination.words())
}

/// Writes the addresses, and the IPv4 header's checksum.
#[inline(always)]
pub(crate) fn rewrite_addresses(frame: &Frame, l3: usize, new: &Rewrite, diff: Sum) -> Result<(), Unwritable> {
    if new.source.is_v4() {
        let checksum: u16 = frame.get(l3 + 10).ok_or(Unwritable)?;
        frame.set(l3 + 10, diff.update(checksum))?;
        frame.set(l3 + 12, new.source.v4_word())?;
        return frame.set(l3 + 16, new.destination.v4_word());
    }
    frame.set(l3 + 8, new.source)?;
    frame.set(l3 + 24, new.destination)
}

/// Rewrites a packet, or a later fragment, which has no ports.
#[inline(always)]
pub(crate) fn rewrite(frame: &Frame, parsed: &Parsed, new: &Rewrite) -> Result<(), Unwritable> {
    let diff = address_diff(parsed, new);
    rewrite_addresses(frame, parsed.network.offset(), new, diff)?;
    let transport = &parsed.transport;
    if transport.fragment == Fragment::Later {
        return Ok(());
    }
    let diff = diff.remove16(transport.source_port).remove16(transport.destination_port).add16(new.source_port).add16(new.destination_port);
    let l4 = transport.offset();
    frame.set(l4, new.source_port)?;
    frame.set(l4 + 2, new.destination_port)?;
    if transport.protocol == protocol::TCP {
        let checksum: u16 = frame.get(l4 + 16).ok_or(Unwritable)?;
        return frame.set(l4 + 16, diff.update(checksum));
    }
    rewrite_udp_checksum(frame, l4, diff)
}

/// RFC 768: no checksum stays none, and one that comes out as zero is sent as all ones.
#[inline(always)]
pub(crate) fn rewrite_udp_checksum(frame: &Frame, l4: usize, diff: Sum) -> Result<(), Unwritable> {
    let checksum: u16 = frame.get(l4 + 6).ok_or(Unwritable)?;
    if checksum == 0 {
        return Ok(());
    }
    let updated = diff.update(checksum);
    frame.set(l4 + 6, if updated == 0 { 0xffff } else { updated })
}
