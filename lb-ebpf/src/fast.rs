//! The way of most packets, in one piece: plain frames that are sent to a member, or back to a client.
//!
//! It is the same decision and the same sending as that of the stages. Because the headers lie where they always lie, and one function holds all
//! of it, their contents stay in registers.

use aya_ebpf::bindings::{xdp_action, xdp_md};
use lb_common::{
    decide::{
        self, Decision, Parsed, Routed,
        plain::{self, Plain},
        route,
    },
    words::ServiceId,
};

use crate::{forward, frame::Frame, kernel::Kernel, stage, translate};

/// The frame is for the stages, from the first on.
pub(crate) const UNKNOWN: u32 = 0x400;
/// The decision is in the workspace: the lower bits are one of [`stage::act`].
pub(crate) const LEFT: u32 = 0x800;

/// Handles a plain frame. Returns an XDP action, [`UNKNOWN`], or [`LEFT`] and an act.
#[inline(always)]
pub(crate) fn handle<const IPV6: bool>(context: *mut xdp_md) -> u32 {
    let frame = Frame::new(context);
    let parsed = match plain::parse::<IPV6, _, _>(&Kernel, &frame.snapshot()) {
        Plain::Nobody => return xdp_action::XDP_PASS,
        Plain::Unknown => return UNKNOWN,
        Plain::Ours(parsed) => parsed,
    };
    match route(&Kernel, &parsed) {
        Routed::Decided(Decision::Send(delivery)) => {
            let verdict = forward::send(frame, &delivery, &parsed);
            if verdict.exceeded().is_some() {
                return LEFT | stage::leave(&parsed, &Decision::Send(delivery));
            }
            verdict.action(delivery.service)
        }
        Routed::Decided(Decision::Pass) => xdp_action::XDP_PASS,
        Routed::Decided(Decision::Drop(refusal)) => LEFT | stage::leave(&parsed, &Decision::Drop(refusal)),
        Routed::Decided(Decision::NatReply(flow)) => {
            let verdict = translate::reply(frame, flow, &parsed);
            if verdict.exceeded().is_some() {
                return LEFT | stage::leave(&parsed, &Decision::NatReply(flow));
            }
            verdict.action(ServiceId(stage::service_of(flow) as u16))
        }
        Routed::Request(service) => request(frame, service, &parsed),
        // Of ICMP and fragments: not plain.
        Routed::Icmp
        | Routed::Decided(
            Decision::Echo
            | Decision::NatRequest(..)
            | Decision::SendError(_)
            | Decision::NatRequestError(..)
            | Decision::NatReplyError(_)
            | Decision::NatRequestFragment(..)
            | Decision::NatReplyFragment(_),
        ) => UNKNOWN,
    }
}

/// A client's packet to a service that forwards by NAT.
#[inline(always)]
fn request(frame: Frame, service: ServiceId, parsed: &Parsed) -> u32 {
    match decide::request(&Kernel, service, parsed) {
        Some(Decision::NatRequest(delivery, flow)) => {
            let verdict = translate::request(frame, &delivery, flow, parsed);
            if verdict.exceeded().is_some() {
                return LEFT | stage::leave(parsed, &Decision::NatRequest(delivery, flow));
            }
            verdict.action(delivery.service)
        }
        Some(Decision::Drop(refusal)) => LEFT | stage::leave(parsed, &Decision::Drop(refusal)),
        // Not of this function.
        Some(
            Decision::Pass
            | Decision::Echo
            | Decision::Send(_)
            | Decision::NatReply(_)
            | Decision::SendError(_)
            | Decision::NatRequestError(..)
            | Decision::NatReplyError(_)
            | Decision::NatRequestFragment(..)
            | Decision::NatReplyFragment(_),
        ) => UNKNOWN,
        None => LEFT | stage::leave_open(parsed, service),
    }
}
