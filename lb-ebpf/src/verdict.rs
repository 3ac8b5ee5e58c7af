//! What a frame's handling came to, as one number.
//!
//! A `Result<u32, Drop>` would leave half of itself undefined, and the compiler then computes with whatever the register held, which the verifier
//! refuses when that was a pointer.

use aya_ebpf::bindings::xdp_action;
use lb_common::{reason::Drop, words::ServiceId};

use crate::count;

/// An XDP action, or the reason why there is none, or the size that the packet exceeds.
#[must_use]
#[derive(Clone, Copy)]
pub(crate) struct Verdict(pub u32);

const FAILED: u32 = 0x100;
const TOO_BIG: u32 = 0x200;

impl Verdict {
    /// The frame is handled.
    #[inline(always)]
    pub(crate) fn done(action: u32) -> Self {
        Self(action)
    }

    /// The frame cannot be sent; what was written of it must not be.
    #[inline(always)]
    pub(crate) fn failed(reason: Drop) -> Self {
        Self(FAILED | reason.index())
    }

    /// The untouched frame exceeds the path, whose largest IP packet (before encapsulation) has `mtu` bytes.
    #[inline(always)]
    pub(crate) fn too_big(mtu: u16) -> Self {
        Self((mtu as u32) << 16 | TOO_BIG)
    }

    /// The MTU that the frame exceeds, if it does.
    #[inline(always)]
    pub(crate) fn exceeded(self) -> Option<u32> {
        if self.0 & TOO_BIG == 0 { None } else { Some(self.0 >> 16) }
    }

    /// The action to return to the driver. A failure is counted.
    #[inline(always)]
    pub(crate) fn action(self, service: ServiceId) -> u32 {
        if self.0 & FAILED == 0 {
            return self.0;
        }
        count::failed(service, self.0 & (FAILED - 1));
        xdp_action::XDP_DROP
    }
}

/// The value of a `Result` or `Option`, or a return with a failed [`Verdict`].
macro_rules! or_fail {
    ($result:expr, $reason:expr) => {
        match $result.ok() {
            Some(value) => value,
            None => return $crate::verdict::Verdict::failed($reason),
        }
    };
}
pub(crate) use or_fail;

/// `Option` by the name that [`or_fail`] calls.
pub(crate) trait Ok<T> {
    /// Itself.
    fn ok(self) -> Option<T>;
}

impl<T> Ok<T> for Option<T> {
    #[inline(always)]
    fn ok(self) -> Option<T> {
        self
    }
}
