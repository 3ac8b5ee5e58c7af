//! The kernel's clock, for the daemon: run by BPF_PROG_TEST_RUN, never attached.
#![allow(unsafe_code, reason = "a helper call and a store to the packet")]

use aya_ebpf::{bindings::xdp_action, helpers::bpf_jiffies64, macros::xdp, programs::XdpContext};

/// Writes `jiffies64`, native order, over the packet's first eight bytes.
#[xdp]
fn weir_clock(ctx: XdpContext) -> u32 {
    let start = ctx.data();
    if start + size_of::<u64>() > ctx.data_end() {
        return xdp_action::XDP_ABORTED;
    }
    // SAFETY: the helper has no precondition.
    let jiffies = unsafe { bpf_jiffies64() };
    // SAFETY: the packet has the eight bytes, checked above.
    unsafe { (start as *mut u64).write_unaligned(jiffies) };
    xdp_action::XDP_PASS
}
