//! Programs that only benches load: `weir_bench` makes a frame anew and goes on with the program under test, `weir_noop` is what that is
//! compared with, and `weir_generate` sends such frames.
//!
//! BPF_PROG_TEST_RUN feeds a rewritten frame back, so without this every run after the first would time another path.
#![no_std]
#![no_main]
#![allow(unsafe_code, reason = "packet memory, map records and helpers; nothing of this is loaded by the daemon")]

mod template;

use aya_ebpf::{
    EbpfContext as _,
    bindings::xdp_action,
    btf_maps::{Array, DevMapHash, ProgramArray},
    helpers::{bpf_xdp_adjust_head, bpf_xdp_get_buff_len},
    macros::{btf_map, xdp},
    programs::XdpContext,
};
use template::{KIND_TCP4, KIND_TCP6, KIND_UDP4, Template};

#[btf_map]
static BENCH_TEMPLATE: Array<Template, 1> = Array::new();
#[btf_map]
static BENCH_PROGRAMS: ProgramArray<2> = ProgramArray::new();
#[btf_map]
static BENCH_INTERFACES: DevMapHash<8> = DevMapHash::new();

/// Makes the frame anew and goes on with another program.
#[xdp(frags)]
fn weir_bench(ctx: XdpContext) -> u32 {
    let Some(template) = renew(&ctx) else { return xdp_action::XDP_ABORTED };
    // SAFETY: neither program returns here.
    unsafe { BENCH_PROGRAMS.tail_call(&ctx, template.program) };
    xdp_action::XDP_ABORTED
}

/// Does nothing.
#[xdp(frags)]
fn weir_noop(_ctx: XdpContext) -> u32 {
    xdp_action::XDP_DROP
}

/// Lets every frame pass: what XDP_TX and redirects need on the other side of a veth pair.
#[xdp(frags)]
fn weir_accept(_ctx: XdpContext) -> u32 {
    xdp_action::XDP_PASS
}

/// Makes the frame anew and sends it.
#[xdp]
fn weir_generate(ctx: XdpContext) -> u32 {
    let Some(template) = renew(&ctx) else { return xdp_action::XDP_ABORTED };
    BENCH_INTERFACES.redirect(template.ifindex, 0).unwrap_or(xdp_action::XDP_ABORTED)
}

/// Counts the frame and drops it.
#[xdp(frags)]
fn weir_sink(_ctx: XdpContext) -> u32 {
    if let Some(count) = BENCH_SINK.get_ptr_mut(0) {
        // SAFETY: a live map value; the bench runs on one CPU.
        unsafe { *count += 1 };
    }
    xdp_action::XDP_DROP
}

#[btf_map]
static BENCH_SINK: Array<u64, 1> = Array::new();

/// Takes off what was put before the frame, writes its headers, and gives it the next source.
#[inline(always)]
fn renew(ctx: &XdpContext) -> Option<&'static Template> {
    let template = BENCH_TEMPLATE.get_ptr_mut(0)?;
    // SAFETY: a live map value, which userspace leaves alone while frames run.
    let template = unsafe { &mut *template };
    // SAFETY: the context is the kernel's.
    let surplus = unsafe { bpf_xdp_get_buff_len(ctx.as_ptr().cast()) } as i32 - template.frame_bytes as i32;
    // SAFETY: no pointer into the packet is kept.
    if surplus != 0 && unsafe { bpf_xdp_adjust_head(ctx.as_ptr().cast(), surplus) } != 0 {
        return None;
    }
    let flow = template.next;
    template.next = if flow + 1 < template.flows { flow + 1 } else { 0 };
    let flow = flow + template.first;
    // The low bits make the port, the others the address.
    let port = (0x8000 | (flow & 0xff) as u16).to_be() as u32;
    let address = ((flow >> 8) as u16).to_be() as u32;
    let (transport_sum, words) = (template.transport_sum + address + port, &template.words);
    let (start, end) = (ctx.data(), ctx.data_end());
    if start + FRAME4_BYTES > end {
        return None;
    }
    set(start, (words[0] >> 16) as u16);
    // Each store is what a field's load takes, or more: a load that spans two would wait for both.
    for index in 1..=FRAME4_WORDS {
        set(start + index * 4 - 2, words[index]);
    }
    match template.kind {
        KIND_TCP4 | KIND_UDP4 => {
            set(start + 24, checksum(template.ip_sum + address));
            set(start + 26, words[7] | address << 16);
            set(start + 34, words[9] | port);
            set(start + if template.kind == KIND_TCP4 { 34 + 16 } else { 34 + 6 }, checksum(transport_sum));
        }
        KIND_TCP6 => {
            if start + FRAME6_BYTES > end {
                return None;
            }
            for index in FRAME4_WORDS + 1..=FRAME6_WORDS {
                set(start + index * 4 - 2, words[index]);
            }
            set(start + 34, words[9] | address << 16);
            set(start + 54, words[14] | port);
            set(start + 70, checksum(transport_sum));
        }
        _ => return None,
    }
    Some(template)
}

const FRAME4_BYTES: usize = 64;
const FRAME6_BYTES: usize = 80;
/// Words to the end of a TCP header with four bytes of options: what programs rewrite.
const FRAME4_WORDS: usize = 14;
const FRAME6_WORDS: usize = 19;

#[inline(always)]
fn checksum(sum: u32) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16);
    !(((sum & 0xffff) + (sum >> 16)) as u16)
}

/// Writes to the packet, at any alignment.
#[inline(always)]
fn set<T>(place: usize, value: T) {
    // SAFETY: the caller checked the bounds; the machine and the verifier allow any alignment of packet memory.
    unsafe { *(place as *mut T) = value };
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
