//! Probes through the data path. `weir_way_out` makes what a marked socket sends to a server's own address into what the packet path would send: to the
//! VIP, in the pool's mode. `weir_way_back` makes the VIP's answers into the server's, before the kernel refuses packets from an address of its own.
#![allow(unsafe_code, reason = "fields of the kernel's packet, and a helper that aya wraps for no program of this kind")]

use aya_ebpf::{
    bindings::{
        __sk_buff, BPF_F_ADJ_ROOM_ENCAP_L3_IPV4, BPF_F_ADJ_ROOM_ENCAP_L3_IPV6, BPF_F_ADJ_ROOM_ENCAP_L4_UDP, BPF_F_MARK_MANGLED_0,
        BPF_F_PSEUDO_HDR, BPF_F_RECOMPUTE_CSUM, TC_ACT_SHOT, TC_ACT_UNSPEC, bpf_adj_room_mode::BPF_ADJ_ROOM_MAC,
    },
    helpers::bpf_csum_diff,
    macros::classifier,
    programs::TcContext,
};
use lb_common::{
    address::Address,
    maps::ForwardKind,
    packet::{ETH_IPV4, ETH_IPV6, protocol},
    ways::{self, Inner, WAY_MARK, WAY_MARK_MASK, Way, WayFlow, checksum_offset},
};

use crate::{
    forward::{IPV4, IPV6, PLAIN_LINK},
    maps,
};

/// A packet that is not as it has to be, or that the kernel does not change.
struct Unfit;

impl From<i32> for Unfit {
    #[inline(always)]
    fn from(_: i32) -> Self {
        Self
    }
}

impl From<i64> for Unfit {
    #[inline(always)]
    fn from(_: i64) -> Self {
        Self
    }
}

/// The IP header: no frame has its tag in front of it here, as the kernel keeps it aside.
const L3: usize = PLAIN_LINK;
const REFUSED: i32 = TC_ACT_SHOT;
/// `BPF_F_ADJ_ROOM_ENCAP_L2`: bytes between the outer headers and the packet inside.
const GUE_HEADER: u64 = 4 << 56;

/// Puts packets of marked sockets on their way. What cannot be sent so is not sent at all: it would reach the server past the data path.
#[classifier]
pub(crate) fn weir_way_out(ctx: TcContext) -> i32 {
    // SAFETY: a field that the verifier knows.
    let mark = unsafe { (*ctx.skb.skb).mark };
    if mark & WAY_MARK_MASK != WAY_MARK {
        return TC_ACT_UNSPEC;
    }
    let Some(way) = maps::way(mark) else { return REFUSED };
    let sent = match kind(&ctx) {
        ETH_IPV4 => leave4(&ctx, way),
        ETH_IPV6 => leave6(&ctx, way),
        _ => Ok(()),
    };
    // The interface below this one, if there is one, has the packet as it is to be.
    ctx.set_mark(0);
    if sent.is_ok() { TC_ACT_UNSPEC } else { REFUSED }
}

/// Makes a VIP's answers to such packets into the server's.
#[classifier]
pub(crate) fn weir_way_back(ctx: TcContext) -> i32 {
    // An answer that cannot be changed is the kernel's to refuse.
    let _ = match kind(&ctx) {
        ETH_IPV4 => arrive4(&ctx),
        ETH_IPV6 => arrive6(&ctx),
        _ => Ok(()),
    };
    TC_ACT_UNSPEC
}

#[inline(always)]
fn kind(ctx: &TcContext) -> u16 {
    let skb: *const __sk_buff = ctx.skb.skb;
    // SAFETY: a field that the verifier knows.
    unsafe { (*skb).protocol as u16 }
}

#[inline(always)]
fn leave4(ctx: &TcContext, way: &Way) -> Result<(), Unfit> {
    let Ipv4 { first, protocol, source, destination } = ipv4(ctx, L3)?;
    if !way.vip.is_v4() {
        return Err(Unfit);
    }
    let l4 = L3 + IPV4;
    let [source_port, port]: [u16; 2] = ctx.load(l4)?;
    let (own, server) = (Address::from_v4_word(source), Address::from_v4_word(destination));
    remember(&WayFlow::new(way.vip, own, [port, source_port], protocol), &server)?;
    readdress4(ctx, Place { ip: L3, field: 16, l4: Some(protocol) }, destination, way.vip.v4_word())?;
    let (class, length) = ((first[0].to_be() >> 16) as u8, first[0].to_be() as u16);
    let inner = Inner { source: own, destination: way.vip, first, ip_bytes: length, class, protocol, source_port };
    wrap(ctx, way, &inner)
}

#[inline(always)]
fn leave6(ctx: &TcContext, way: &Way) -> Result<(), Unfit> {
    let Ipv6 { first, protocol, source, destination } = ipv6(ctx, L3)?;
    if way.vip.is_v4() {
        return Err(Unfit);
    }
    let [source_port, port]: [u16; 2] = ctx.load(L3 + IPV6)?;
    remember(&WayFlow::new(way.vip, source, [port, source_port], protocol), &destination)?;
    readdress6(ctx, Place { ip: L3, field: 24, l4: Some(protocol) }, &destination, &way.vip)?;
    let payload = (first[1].to_be() >> 16) as u16;
    let class = (first[0].to_be() >> 20) as u8;
    let inner = Inner { source, destination: way.vip, first, ip_bytes: payload + IPV6 as u16, class, protocol, source_port };
    wrap(ctx, way, &inner)
}

#[inline(always)]
fn remember(flow: &WayFlow, server: &Address) -> Result<(), Unfit> {
    if maps::way_server(flow).is_some_and(|known| known == *server) {
        return Ok(());
    }
    Ok(maps::WAY_FLOWS.insert(flow, server, 0)?)
}

/// Puts the outer header before the packet.
#[inline(always)]
fn wrap(ctx: &TcContext, way: &Way, inner: &Inner) -> Result<(), Unfit> {
    const V4: u64 = BPF_F_ADJ_ROOM_ENCAP_L3_IPV4 as u64;
    const V6: u64 = BPF_F_ADJ_ROOM_ENCAP_L3_IPV6 as u64;
    const UDP: u64 = BPF_F_ADJ_ROOM_ENCAP_L4_UDP as u64 | GUE_HEADER;
    match ForwardKind::from_number(way.kind) {
        Some(ForwardKind::Dsr) => Ok(()),
        Some(ForwardKind::Ipip4) => put_before::<20>(ctx, way, inner, V4),
        Some(ForwardKind::Ipip6) => put_before::<40>(ctx, way, inner, V6),
        Some(ForwardKind::Gue4) => put_before::<32>(ctx, way, inner, V4 | UDP),
        Some(ForwardKind::Gue6) => put_before::<52>(ctx, way, inner, V6 | UDP),
        Some(ForwardKind::Nat) | None => Err(Unfit),
    }
}

#[inline(always)]
fn put_before<const BYTES: usize>(ctx: &TcContext, way: &Way, inner: &Inner, flags: u64) -> Result<(), Unfit> {
    ctx.adjust_room(BYTES as i32, BPF_ADJ_ROOM_MAC, flags)?;
    let outer = ways::outer(way, inner);
    let header: &[u8; BYTES] = outer.first_chunk().ok_or(Unfit)?;
    Ok(ctx.store(L3, header, 0)?)
}

#[inline(always)]
fn arrive4(ctx: &TcContext) -> Result<(), Unfit> {
    let Ipv4 { protocol, source, destination, .. } = ipv4(ctx, L3)?;
    let l4 = L3 + IPV4;
    if protocol == protocol::ICMP {
        return complain4(ctx, source);
    }
    let ports: [u16; 2] = ctx.load(l4)?;
    let flow = WayFlow::new(Address::from_v4_word(source), Address::from_v4_word(destination), ports, protocol);
    let Some(server) = maps::way_server(&flow) else { return Ok(()) };
    readdress4(ctx, Place { ip: L3, field: 12, l4: Some(protocol) }, source, server.v4_word())
}

#[inline(always)]
fn arrive6(ctx: &TcContext) -> Result<(), Unfit> {
    let Ipv6 { protocol, source, destination, .. } = ipv6(ctx, L3)?;
    if protocol == protocol::ICMPV6 {
        return complain6(ctx, &source);
    }
    let ports: [u16; 2] = ctx.load(L3 + IPV6)?;
    let flow = WayFlow::new(source, destination, ports, protocol);
    let Some(server) = maps::way_server(&flow) else { return Ok(()) };
    readdress6(ctx, Place { ip: L3, field: 8, l4: Some(protocol) }, &source, &server)
}

/// An ICMP error about a probe quotes it as it was sent: the socket is told if it reads as the socket's own.
#[inline(always)]
fn complain4(ctx: &TcContext, source: u32) -> Result<(), Unfit> {
    // RFC 792: unreachable, time exceeded, parameter problem.
    let kind: u8 = ctx.load(L3 + IPV4)?;
    if kind != 3 && kind != 11 && kind != 12 {
        return Ok(());
    }
    let quoted = L3 + IPV4 + 8;
    let Ipv4 { protocol, source: own, destination: vip, .. } = ipv4(ctx, quoted)?;
    let [own_port, vip_port]: [u16; 2] = ctx.load(quoted + IPV4)?;
    let flow = WayFlow::new(Address::from_v4_word(vip), Address::from_v4_word(own), [vip_port, own_port], protocol);
    let Some(server) = maps::way_server(&flow) else { return Ok(()) };
    // The quoted header's own checksum makes up for the address: the message's stays right.
    readdress4(ctx, Place { ip: quoted, field: 16, l4: None }, vip, server.v4_word())?;
    if source == vip { readdress4(ctx, Place { ip: L3, field: 12, l4: None }, source, server.v4_word()) } else { Ok(()) }
}

#[inline(always)]
fn complain6(ctx: &TcContext, source: &Address) -> Result<(), Unfit> {
    // RFC 4443: errors have types below 128. 1 to 4 are in use.
    let kind: u8 = ctx.load(L3 + IPV6)?;
    if kind == 0 || kind > 4 {
        return Ok(());
    }
    let quoted = L3 + IPV6 + 8;
    let Ipv6 { protocol, source: own, destination: vip, .. } = ipv6(ctx, quoted)?;
    let [own_port, vip_port]: [u16; 2] = ctx.load(quoted + IPV6)?;
    let Some(server) = maps::way_server(&WayFlow::new(vip, own, [vip_port, own_port], protocol)) else { return Ok(()) };
    let checksum = L3 + IPV6 + 2;
    // The quoted address is of the message's body, not of the pseudo-header.
    ctx.l4_csum_replace(checksum, 0, difference(&vip, &server), 0)?;
    ctx.store(quoted + 24, &server, 0)?;
    if *source == vip { readdress6(ctx, Place { ip: L3, field: 8, l4: Some(protocol::ICMPV6) }, source, &server) } else { Ok(()) }
}

struct Ipv4 {
    first: [u32; 2],
    protocol: u8,
    source: u32,
    destination: u32,
}

/// The IPv4 header at `at`, if it has neither options nor fragments.
#[inline(always)]
fn ipv4(ctx: &TcContext, at: usize) -> Result<Ipv4, Unfit> {
    let words: [u32; 5] = ctx.load(at)?;
    let fragments = words[1].to_be() & 0x3fff;
    if words[0].to_be() >> 24 != 0x45 || fragments != 0 {
        return Err(Unfit);
    }
    let protocol = (words[2].to_be() >> 16) as u8;
    Ok(Ipv4 { first: [words[0], words[1]], protocol, source: words[3], destination: words[4] })
}

struct Ipv6 {
    first: [u32; 2],
    protocol: u8,
    source: Address,
    destination: Address,
}

/// The IPv6 header at `at`.
#[inline(always)]
fn ipv6(ctx: &TcContext, at: usize) -> Result<Ipv6, Unfit> {
    let words: [u32; 10] = ctx.load(at)?;
    let [first, second, s0, s1, s2, s3, d0, d1, d2, d3] = words;
    let protocol = (second.to_be() >> 8) as u8;
    let (source, destination) = (Address::from_words([s0, s1, s2, s3]), Address::from_words([d0, d1, d2, d3]));
    Ok(Ipv6 { first: [first, second], protocol, source, destination })
}

/// An address in a header, and what its change concerns beside it.
#[derive(Clone, Copy)]
struct Place {
    /// Where the IP header begins.
    ip: usize,
    /// Where the address is in it.
    field: usize,
    /// The protocol behind it, whose checksum covers the address.
    l4: Option<u8>,
}

const PSEUDO: u64 = BPF_F_PSEUDO_HDR as u64;

#[inline(always)]
fn flags(protocol: u8) -> u64 {
    // A datagram without a checksum stays so.
    if protocol == protocol::UDP { PSEUDO | BPF_F_MARK_MANGLED_0 as u64 } else { PSEUDO }
}

#[inline(always)]
fn readdress4(ctx: &TcContext, place: Place, old: u32, new: u32) -> Result<(), Unfit> {
    if let Some(protocol) = place.l4 {
        let checksum = place.ip + IPV4 + checksum_offset(protocol).ok_or(Unfit)?;
        ctx.l4_csum_replace(checksum, old as u64, new as u64, 4 | flags(protocol))?;
    }
    ctx.l3_csum_replace(place.ip + 10, old as u64, new as u64, 4)?;
    Ok(ctx.store(place.ip + place.field, &new, 0)?)
}

/// The kernel takes a card's sum over the frame for changed by the checksum alone (linux net/core/utils.c, `inet_proto_csum_replace_by_diff`), which it is
/// not: an IPv6 header has no checksum that makes up for the address. So the address is written with its change to that sum.
#[inline(always)]
fn readdress6(ctx: &TcContext, place: Place, old: &Address, new: &Address) -> Result<(), Unfit> {
    if let Some(protocol) = place.l4 {
        let offset = if protocol == protocol::ICMPV6 { 2 } else { checksum_offset(protocol).ok_or(Unfit)? };
        ctx.l4_csum_replace(place.ip + IPV6 + offset, 0, difference(old, new), flags(protocol))?;
    }
    Ok(ctx.store(place.ip + place.field, new, BPF_F_RECOMPUTE_CSUM as u64)?)
}

/// What a checksum over the old address changes by.
#[inline(always)]
fn difference(old: &Address, new: &Address) -> u64 {
    let [mut old, mut new] = [old.words(), new.words()];
    let bytes = size_of::<Address>() as u32;
    // SAFETY: both are so long, and on this program's stack.
    unsafe { bpf_csum_diff(old.as_mut_ptr(), bytes, new.as_mut_ptr(), bytes, 0) as u64 }
}
