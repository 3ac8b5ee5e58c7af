//! `weir_decap`, for a server whose kernel has no tunnel devices: takes the tunnel off packets for its VIPs and hands them to the host.
#![allow(unsafe_code, reason = "per-CPU records and constants that the loader sets")]

use aya_ebpf::{bindings::xdp_action, macros::xdp, programs::XdpContext};
use lb_common::{
    checksum::Sum,
    decap::{Opened, open},
    maps::DecapSettings,
    packet::{ETH_IPV4, EthernetHeader, Packet},
    reason::Decap,
};

use crate::{
    forward::{PLAIN_LINK, TAGGED_LINK},
    frame::{Frame, Unwritable},
    maps,
};

#[unsafe(no_mangle)]
static DECAP: DecapSettings = DecapSettings::NONE;

/// The Ethernet header with two VLAN tags.
const TWICE_TAGGED_LINK: usize = 22;

/// Opens the tunnel of a frame, or passes the frame as it is.
#[xdp(frags)]
fn weir_decap(ctx: XdpContext) -> u32 {
    let frame = Frame::new(ctx.ctx);
    // SAFETY: the pointer comes from a reference. Volatile, for the loader writes the value after compilation.
    let settings = unsafe { (&raw const DECAP).read_volatile() };
    let opened = open(&frame.snapshot(), settings, maps::is_decap_vip);
    if opened.outcome == Opened::NO_TUNNEL {
        return xdp_action::XDP_PASS;
    }
    let bytes = frame.bytes();
    if opened.outcome != Decap::Decapsulated.index() {
        count(opened.outcome, bytes);
        return if opened.is_drop() { xdp_action::XDP_DROP } else { xdp_action::XDP_PASS };
    }
    if strip(frame, &opened).is_err() {
        count(Decap::Driver.index(), bytes);
        return xdp_action::XDP_DROP;
    }
    count(opened.outcome, bytes);
    xdp_action::XDP_PASS
}

/// Puts the link-layer header before the inner packet and the start of the frame before that.
#[inline(always)]
fn strip(frame: Frame, opened: &Opened) -> Result<(), Unwritable> {
    match opened.l3 {
        PLAIN_LINK => strip_link::<PLAIN_LINK>(frame, opened),
        TAGGED_LINK => strip_link::<TAGGED_LINK>(frame, opened),
        _ => strip_link::<TWICE_TAGGED_LINK>(frame, opened),
    }
}

#[inline(always)]
fn strip_link<const LINK: usize>(frame: Frame, opened: &Opened) -> Result<(), Unwritable> {
    let ethernet: EthernetHeader = frame.get(0).ok_or(Unwritable)?;
    let outer_tag: u32 = if LINK > PLAIN_LINK { frame.get(PLAIN_LINK).ok_or(Unwritable)? } else { 0 };
    let inner_tag: u32 = if LINK > TAGGED_LINK { frame.get(TAGGED_LINK).ok_or(Unwritable)? } else { 0 };
    let frame = frame.shrink_head((opened.inner - LINK) as i32)?;
    frame.set(0, ethernet)?;
    if LINK > PLAIN_LINK {
        frame.set(PLAIN_LINK, outer_tag)?;
    }
    if LINK > TAGGED_LINK {
        frame.set(TAGGED_LINK, inner_tag)?;
    }
    frame.set(LINK - 2, opened.kind)?;
    if opened.ecn == opened.ecn_before { Ok(()) } else { mark::<LINK>(&frame, opened) }
}

/// Writes the ECN field of the IP header at `LINK`.
#[inline(always)]
fn mark<const LINK: usize>(frame: &Frame, opened: &Opened) -> Result<(), Unwritable> {
    let [version, class]: [u8; 2] = frame.get(LINK).ok_or(Unwritable)?;
    let change = opened.ecn ^ opened.ecn_before;
    if opened.kind != ETH_IPV4 {
        return frame.set(LINK + 1, class ^ change << 4);
    }
    let checksum: u16 = frame.get(LINK + 10).ok_or(Unwritable)?;
    let (old, new) = (u16::from_ne_bytes([version, class]), u16::from_ne_bytes([version, class ^ change]));
    frame.set(LINK + 1, class ^ change)?;
    frame.set(LINK + 10, Sum::ZERO.remove16(old).add16(new).update(checksum))
}

#[inline(always)]
fn count(outcome: u32, bytes: usize) {
    if let Some(traffic) = maps::DECAP_STATS.get_ptr_mut(outcome) {
        // SAFETY: this CPU's record, which no other program writes meanwhile.
        unsafe {
            (*traffic).packets += 1;
            (*traffic).bytes += bytes as u64;
        }
    }
}
