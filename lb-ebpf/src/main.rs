//! Weir's programs for the kernel: `weir`, the packet path, and `weir_clock`, by which the daemon reads the kernel's clock.
#![no_std]
#![no_main]
#![feature(core_intrinsics)]
#![allow(internal_features, reason = "the stable atomics need more than the BPF target has")]

mod clock;
mod maps;
mod word;

use aya_ebpf::{bindings::xdp_action, macros::xdp, programs::XdpContext};
use lb_common::{maps::Settings, words::SlotWord};

#[unsafe(no_mangle)]
#[allow(unsafe_code, reason = "the loader finds it by its name")]
static SETTINGS: Settings = Settings {
    features: 0,
    hertz: 1,
    vip_mask: 0,
    port_mask: 0,
    flow_mask: 0,
    fragment_mask: 0,
    rate_mask: 0,
    nat_mask: 0,
    endpoint_mask: 0,
    free_mask: 0,
    table_key: 0,
};

/// Lets every packet pass.
#[xdp(frags)]
fn weir(_ctx: XdpContext) -> u32 {
    touch_every_kind_of_map();
    xdp_action::XDP_PASS
}

/// Makes the verifier see one access of each kind that the packet path makes.
#[inline(always)]
fn touch_every_kind_of_map() -> Option<()> {
    let settings = settings();
    let line = maps::FLOWS.get(settings.table_key as u32 & settings.flow_mask)?;
    if line[0].load() == u64::MAX {
        line[0].replace(u64::MAX, 0);
    }
    let slot = maps::SLOT_PAGES.get_value(0, &0)?;
    let member = SlotWord(slot.load()).current()?;
    let header = maps::HEADERS.get(u32::from(member.number()))?;
    maps::PORTS.get(u32::from(header.port_index))?;
    maps::TOUCHES.get(0)?.store(1);
    Some(())
}

#[inline(always)]
#[allow(unsafe_code, reason = "the loader replaces the value, which the compiler must not fold")]
fn settings() -> Settings {
    // SAFETY: the pointer comes from a reference.
    unsafe { (&raw const SETTINGS).read_volatile() }
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
#[allow(unsafe_code, reason = "the loader finds it by its section")]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
