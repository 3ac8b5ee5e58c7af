//! A frame in the driver's buffer: bounds-checked reads and writes, and resizing at its head.
#![allow(unsafe_code, reason = "packet memory is reached by pointers; the verifier checks each against the frame's end")]

use core::arch::asm;

use aya_ebpf::{
    bindings::xdp_md,
    helpers::{bpf_csum_diff, bpf_xdp_adjust_head, bpf_xdp_adjust_tail, bpf_xdp_get_buff_len},
};
use bytemuck::Pod;
use lb_common::{checksum::Sum, packet::Packet};

/// The frame of one run of a program. It keeps no pointer into the packet: each access takes them from the context, so that none outlives a
/// resize, and the compiler has none to merge with a number where paths join, which the verifier would refuse.
#[derive(Clone, Copy)]
pub(crate) struct Frame {
    context: *mut xdp_md,
}

/// The frame could not be resized, or is shorter than it was parsed to be.
pub(crate) struct Unwritable;

impl Frame {
    /// The frame that the program was called for.
    #[inline(always)]
    pub(crate) fn new(context: *mut xdp_md) -> Self {
        Self { context }
    }

    /// The frame for reading, until it is written or resized.
    #[inline(always)]
    pub(crate) fn snapshot(&self) -> Snapshot {
        let (start, end): (usize, usize);
        // The compiler knows a field of 32 bits to have a zero upper half and may keep only the lower one on the stack, where a pointer has to
        // stay whole for the verifier: so it does not get to see the width.
        // SAFETY: the kernel hands the program a valid context, whose `data` and `data_end` are at 0 and 4.
        unsafe {
            asm!("{0} = *(u32 *)({2} + 0)", "{1} = *(u32 *)({2} + 4)", out(reg) start, out(reg) end, in(reg) self.context, options(readonly, nostack, preserves_flags));
        }
        Snapshot { context: self.context, start, end }
    }

    /// The interface that it came in by.
    #[inline(always)]
    pub(crate) fn ifindex(&self) -> u32 {
        // SAFETY: as in `snapshot`.
        unsafe { (*self.context).ingress_ifindex }
    }

    /// Its context.
    #[inline(always)]
    pub(crate) fn context(&self) -> *mut xdp_md {
        self.context
    }

    /// Its length, all buffers together.
    #[inline(always)]
    pub(crate) fn bytes(&self) -> usize {
        // SAFETY: as in `snapshot`.
        unsafe { bpf_xdp_get_buff_len(self.context) as usize }
    }

    #[inline(always)]
    fn at<T>(&self, offset: usize) -> Option<*mut T> {
        self.snapshot().at(offset)
    }

    /// Writes `value` at `offset`.
    #[inline(always)]
    pub(crate) fn set<T: Pod>(&self, offset: usize, value: T) -> Result<(), Unwritable> {
        let place = self.at::<T>(offset).ok_or(Unwritable)?;
        // SAFETY: `at` checked the bounds. The machine and the verifier allow any alignment of packet memory.
        unsafe { *place = value };
        Ok(())
    }

    /// Its first `BYTES` bytes for writing, checked once for all of them. Not to be kept when the frame is resized.
    #[inline(always)]
    pub(crate) fn head<const BYTES: usize>(&self) -> Result<Head<BYTES>, Unwritable> {
        Ok(Head { start: self.at::<[u8; BYTES]>(0).ok_or(Unwritable)?.cast() })
    }

    /// The sum over `BYTES` bytes from `offset` on, a multiple of four.
    #[inline(always)]
    pub(crate) fn sum<const BYTES: usize>(&self, offset: usize) -> Result<Sum, Unwritable> {
        // Kernels before 6.12 sum at most 512 bytes at a time.
        const MOST: usize = 512;
        let place = self.at::<[u8; BYTES]>(offset).ok_or(Unwritable)?.cast::<u8>();
        let mut sum = 0;
        let mut at = 0;
        while at < BYTES {
            let length = if BYTES - at < MOST { BYTES - at } else { MOST };
            // SAFETY: `at` checked that the packet has all of these bytes.
            sum = unsafe { bpf_csum_diff(core::ptr::null_mut(), 0, place.add(at).cast(), length as u32, sum) } as u32;
            at += length;
        }
        Ok(Sum::from_partial(sum))
    }

    /// Moves the frame's start: forward by `bytes`, or backward when negative. What lies before the old start is undefined.
    #[inline(always)]
    pub(crate) fn shrink_head(self, bytes: i32) -> Result<Self, Unwritable> {
        if bytes == 0 {
            return Ok(self);
        }
        // SAFETY: as in `snapshot`; no pointer into the packet is kept.
        if unsafe { bpf_xdp_adjust_head(self.context, bytes) } != 0 {
            return Err(Unwritable);
        }
        Ok(self)
    }

    /// Cuts the frame to `bytes`.
    #[inline(always)]
    pub(crate) fn cut_to(self, bytes: usize) -> Result<Self, Unwritable> {
        let length = self.bytes();
        if length > bytes {
            // SAFETY: as in `shrink_head`.
            if unsafe { bpf_xdp_adjust_tail(self.context, bytes as i32 - length as i32) } != 0 {
                return Err(Unwritable);
            }
        }
        Ok(self)
    }
}

/// The first bytes of a frame.
#[derive(Clone, Copy)]
pub(crate) struct Head<const BYTES: usize> {
    start: *mut u8,
}

impl<const BYTES: usize> Head<BYTES> {
    /// Writes `value` at `offset`, a constant: nothing is left of the check in the program.
    #[inline(always)]
    pub(crate) fn set<T: Pod>(&self, offset: usize, value: T) {
        if offset + size_of::<T>() <= BYTES {
            // SAFETY: within what `Frame::head` checked. The machine and the verifier allow any alignment of packet memory.
            unsafe { *self.start.add(offset).cast::<T>() = value };
        }
    }

    /// Reads at `offset`, a constant as well; beyond the end, zeros.
    #[inline(always)]
    pub(crate) fn get<T: Pod>(&self, offset: usize) -> T {
        if offset + size_of::<T>() <= BYTES {
            // SAFETY: as in `set`.
            return unsafe { *self.start.add(offset).cast::<T>() };
        }
        T::zeroed()
    }
}

impl Packet for Frame {
    #[inline(always)]
    fn get<T: Pod>(&self, offset: usize) -> Option<T> {
        self.snapshot().get(offset)
    }

    #[inline(always)]
    fn holds(&self, bytes: usize) -> bool {
        self.snapshot().holds(bytes)
    }
}

/// A frame that is only read.
#[derive(Clone, Copy)]
pub(crate) struct Snapshot {
    context: *mut xdp_md,
    start: usize,
    end: usize,
}

impl Snapshot {
    /// A pointer to the `T` at `offset`, if the first buffer has all of it.
    #[inline(always)]
    fn at<T>(&self, offset: usize) -> Option<*mut T> {
        let place = self.start + offset;
        if place + size_of::<T>() > self.end { None } else { Some(place as *mut T) }
    }
}

impl Packet for Snapshot {
    #[inline(always)]
    fn get<T: Pod>(&self, offset: usize) -> Option<T> {
        let place = self.at::<T>(offset)?;
        // SAFETY: `at` checked the bounds. The machine and the verifier allow any alignment of packet memory.
        Some(unsafe { *place })
    }

    #[inline(always)]
    fn holds(&self, bytes: usize) -> bool {
        self.start + bytes <= self.end || bytes <= Frame::new(self.context).bytes()
    }
}
