#![no_std]
#![no_main]
#![feature(core_intrinsics)]
#![allow(internal_features)]
#![allow(unsafe_code)]
use aya_ebpf::{btf_maps::{Array, ArrayOfMaps}, macros::{btf_map, xdp}, programs::XdpContext, bindings::xdp_action, helpers::bpf_jiffies64};
use core::cell::UnsafeCell; #[repr(transparent)] pub struct W(UnsafeCell<u64>); unsafe impl Sync for W {} impl W { #[inline(always)] fn as_ptr(&self)->*mut u64 { self.0.get() } }

#[btf_map]
static LINES: Array<[W; 8], 64, 1024> = Array::new();
#[btf_map]
static PAGES: ArrayOfMaps<Array<[W;8], 64, 1024>, 16> = ArrayOfMaps::new();

#[xdp(frags)]
pub fn weir(ctx: XdpContext) -> u32 {
    match go(&ctx) { Some(v) => v, None => xdp_action::XDP_PASS }
}
#[inline(always)]
fn go(ctx: &XdpContext) -> Option<u32> {
    let j = unsafe { bpf_jiffies64() };
    let line = LINES.get((j as u32) & 63)?;
    let w = ld(&line[3]);
    if w == 7 { st(&line[3],8); }
    if cas(&line[4], w, j) { return Some(2); }
    let n = unsafe { core::intrinsics::atomic_xadd::<u64, u64, {core::intrinsics::AtomicOrdering::Relaxed}>(line[5].as_ptr(), 1) };
    let p = PAGES.get_value((n & 15) as u32, &((j & 63) as u32))?;
    let _ = ctx;
    Some(ld(&p[1]) as u32)
}
#[inline(always)]
fn cas(a:&W, old:u64,new:u64)->bool { unsafe { core::intrinsics::atomic_cxchg::<u64, {core::intrinsics::AtomicOrdering::Relaxed},{core::intrinsics::AtomicOrdering::Relaxed}>(a.as_ptr(), old, new).1 } }
#[inline(always)]
fn ld(a:&W)->u64 { unsafe { a.as_ptr().read_volatile() } }
#[inline(always)]
fn st(a:&W,v:u64) { unsafe { a.as_ptr().write_volatile(v) } }
#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! { loop {} }
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
