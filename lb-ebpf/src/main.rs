//! Weir's programs for the kernel: `weir`, the packet path; `weir_clock`, by which the daemon reads the kernel's clock; `weir_decap`,
//! which opens tunnels on a server; `weir_way_out` and `weir_way_back`, by which probes take the packet path's way.
#![no_std]
#![no_main]
#![feature(core_intrinsics, asm_experimental_arch)]
#![allow(internal_features, reason = "the stable atomics need more than the BPF target has")]

mod answer;
mod clock;
mod count;
mod decap;
mod fast;
mod forward;
mod frame;
mod icmp;
mod kernel;
mod maps;
mod stage;
mod translate;
mod verdict;
mod ways;
mod word;

use aya_ebpf::{
    bindings::{xdp_action, xdp_md},
    macros::xdp,
    programs::XdpContext,
};
use lb_common::{
    maps::Settings,
    packet::{ETH_IPV4, ETH_IPV6, EthernetHeader, Fragment, Packet as _},
    reason::Drop,
    tables::Tables as _,
    words::ServiceId,
};

use crate::{
    frame::Frame,
    kernel::Kernel,
    stage::{Outcome, Scratch, act},
    verdict::Verdict,
};

#[unsafe(no_mangle)]
#[allow(unsafe_code, reason = "the loader finds it by its name")]
static SETTINGS: Settings = Settings {
    features: 0,
    tick_factor: 0,
    jiffy_us: 0,
    vip_mask: 0,
    port_mask: 0,
    flow_mask: 0,
    fragment_mask: 0,
    rate_mask: 0,
    nat_mask: 0,
    endpoint_mask: 0,
    free_mask: 0,
    reserved: 0,
    table_key: 0,
    slot_key: 0,
};

/// The packet path: decides on a frame and performs the decision.
#[xdp(frags)]
pub(crate) fn weir(ctx: XdpContext) -> u32 {
    let fast = plain(ctx.ctx);
    if fast <= xdp_action::XDP_REDIRECT {
        return fast;
    }
    let Some((scratch, outcome)) = stage::workspace() else { return xdp_action::XDP_PASS };
    if fast & fast::LEFT != 0 {
        let wanted = fast & !fast::LEFT;
        let wanted = if wanted == act::GO_ON_OPEN { stage::weir_open(ctx.ctx, scratch, outcome) } else { wanted };
        return perform(ctx.ctx, wanted, scratch, outcome);
    }
    match stage::weir_parse(ctx.ctx, scratch) {
        stage::OURS => {}
        stage::MALFORMED => return stage::weir_drop(ctx.ctx, ServiceId::NONE.0 as u32, Drop::Malformed.index()),
        _ => return xdp_action::XDP_PASS,
    }
    if scratch.parsed().transport.fragment == Fragment::Later {
        let wanted = stage::weir_follow(scratch, outcome);
        return perform(ctx.ctx, wanted, scratch, outcome);
    }
    let mut wanted = stage::weir_route(scratch, outcome);
    if wanted == act::GO_ON_ICMP {
        wanted = stage::weir_icmp(ctx.ctx, scratch, outcome);
    } else if wanted == act::GO_ON_NAT {
        wanted = stage::weir_nat(scratch, outcome);
        if wanted == act::GO_ON_OPEN {
            wanted = stage::weir_open(ctx.ctx, scratch, outcome);
        }
    }
    let wanted = stage::weir_trail(scratch, outcome, wanted);
    perform(ctx.ctx, wanted, scratch, outcome)
}

/// What the frame's plain headers come to.
#[inline(always)]
fn plain(context: *mut xdp_md) -> u32 {
    match Frame::new(context).get::<EthernetHeader>(0) {
        Some(ethernet) if ethernet.kind == ETH_IPV4 => stage::weir_fast4(context),
        Some(ethernet) if ethernet.kind == ETH_IPV6 && Kernel.setting(|s| &s.features) & Settings::IPV6 != 0 => stage::weir_fast6(context),
        _ => fast::UNKNOWN,
    }
}

#[inline(always)]
fn perform(context: *mut xdp_md, wanted: u32, scratch: &Scratch, outcome: &Outcome) -> u32 {
    let verdict = match wanted {
        act::SEND => stage::weir_send(context, scratch, outcome),
        act::REQUEST => stage::weir_request(context, scratch, outcome),
        act::REPLY => stage::weir_reply(context, scratch, outcome.flow),
        act::DROP => return refuse(context, scratch, outcome),
        act::ECHO => return stage::weir_echo(context, scratch),
        act::REQUEST_ERROR => stage::weir_request_error(context, scratch, outcome),
        act::REPLY_ERROR => stage::weir_reply_error(context, scratch, outcome.flow),
        _ => return xdp_action::XDP_PASS,
    };
    if verdict <= xdp_action::XDP_REDIRECT {
        return verdict;
    }
    let service = if outcome.service == 0 { stage::service_of(outcome.flow) } else { outcome.service };
    match Verdict(verdict).exceeded() {
        Some(mtu) => stage::weir_too_big(context, scratch, service, mtu),
        None => Verdict(verdict).action(ServiceId(service as u16)),
    }
}

#[inline(always)]
fn refuse(context: *mut xdp_md, scratch: &Scratch, outcome: &Outcome) -> u32 {
    let action = stage::weir_drop(context, outcome.service, outcome.reason());
    if outcome.is_answered == 0 { action } else { stage::weir_answer(context, scratch, outcome.service) }
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
#[allow(unsafe_code, reason = "the loader finds it by its section")]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
