//! Counters and samples: one write a packet.
#![allow(unsafe_code, reason = "per-CPU records are written in place, samples in the ring buffer's memory")]

use aya_ebpf::helpers::bpf_xdp_load_bytes;
use lb_common::{
    maps::SAMPLE_BYTES,
    reason::{Drop, Note},
    words::ServiceId,
};

use crate::{frame::Frame, kernel::jiffies, maps};

/// Counts a packet of `bytes` sent to the member of this number.
#[inline(always)]
pub(crate) fn sent(member: u16, bytes: usize) {
    if let Some(traffic) = maps::MEMBER_STATS.get_ptr_mut(member as u32) {
        // SAFETY: this CPU's record, which no other program writes meanwhile.
        unsafe {
            (*traffic).packets += 1;
            (*traffic).bytes += bytes as u64;
        }
    }
}

/// Counts what happened beside the forwarding.
#[inline(always)]
pub(crate) fn note(service: ServiceId, note: Note) {
    if let Some(tally) = maps::NOTES.get_ptr_mut(service.0 as u32 * Note::COUNT + note.index()) {
        // SAFETY: as in `sent`.
        unsafe { (*tally).count += 1 };
    }
}

/// Counts a drop, and hands the packet to userspace unless one was within this tick of the clock.
#[inline(always)]
pub(crate) fn dropped(frame: &Frame, service: ServiceId, reason: u32) {
    let Some(tally) = maps::DROPS.get_ptr_mut(service.0 as u32 * Drop::COUNT + reason) else { return };
    let now = jiffies();
    // SAFETY: as in `sent`.
    let last = unsafe {
        (*tally).count += 1;
        core::mem::replace(&mut (*tally).sampled_at, now)
    };
    if last != now {
        sample(frame, service, reason, now);
    }
}

/// Counts a drop of a frame that may have been resized or rewritten already, so that it makes no sample.
#[inline(always)]
pub(crate) fn failed(service: ServiceId, reason: u32) {
    if let Some(tally) = maps::DROPS.get_ptr_mut(service.0 as u32 * Drop::COUNT + reason) {
        // SAFETY: as in `sent`.
        unsafe { (*tally).count += 1 };
    }
}

#[inline(always)]
fn sample(frame: &Frame, service: ServiceId, reason: u32, jiffies: u64) {
    let Some(mut entry) = maps::SAMPLES.reserve(0) else { return };
    let frame_bytes = frame.bytes();
    let kept = frame_bytes.clamp(1, SAMPLE_BYTES);
    let record = entry.as_mut_ptr();
    // SAFETY: the reservation is of a `Sample`; the helper writes at most `SAMPLE_BYTES` of it.
    unsafe {
        (*record).jiffies = jiffies;
        (*record).ifindex = frame.ifindex();
        (*record).service = service.0;
        (*record).reason = reason as u8;
        (*record).reserved = 0;
        (*record).frame_bytes = frame_bytes as u32;
        (*record).bytes = [0; SAMPLE_BYTES];
        let read = bpf_xdp_load_bytes(frame.context(), 0, (&raw mut (*record).bytes).cast(), kept as u32);
        (*record).kept_bytes = if read == 0 { kept as u32 } else { 0 };
    }
    entry.submit(0);
}
