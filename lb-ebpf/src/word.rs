//! The 64-bit word that kernel and daemon change at once.
#![allow(unsafe_code, reason = "volatile and atomic access to map memory")]

use core::{
    cell::UnsafeCell,
    intrinsics::{AtomicOrdering, atomic_cxchg},
};

/// A word in a map: read by one load, changed by one store or compare-and-swap.
#[repr(transparent)]
pub(crate) struct Word(UnsafeCell<u64>);

// SAFETY: every access is one aligned 64-bit load, store or compare-and-swap.
unsafe impl Sync for Word {}

impl Word {
    /// Reads it, once.
    #[inline(always)]
    pub(crate) fn load(&self) -> u64 {
        // SAFETY: the pointer comes from a reference, so it is valid and aligned.
        unsafe { self.0.get().read_volatile() }
    }

    /// Writes it, once.
    #[inline(always)]
    pub(crate) fn store(&self, value: u64) {
        // SAFETY: as in `load`.
        unsafe { self.0.get().write_volatile(value) }
    }

    /// Replaces `old` by `new`; whether it was `old`.
    #[inline(always)]
    pub(crate) fn replace(&self, old: u64, new: u64) -> bool {
        // SAFETY: as in `load`.
        unsafe { atomic_cxchg::<u64, { AtomicOrdering::Relaxed }, { AtomicOrdering::Relaxed }>(self.0.get(), old, new).1 }
    }
}
