//! The way of most packets, in one piece: plain frames that are sent to a member, or back to a client.
//!
//! It is the same decision and the same sending as that of the stages. Because the headers lie where they always lie, and one function holds all
//! of it, their contents stay in registers.

use aya_ebpf::bindings::{xdp_action, xdp_md};
use lb_common::{
    decide::{
        self, Kind,
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
    let mut ruling = route(&Kernel, &parsed);
    if ruling.kind == Kind::Request {
        ruling = decide::request(&Kernel, ruling.service(), &parsed);
    }
    let (verdict, service) = match ruling.kind {
        Kind::Send => (forward::send(frame, ruling.way, &parsed), ruling.service()),
        Kind::NatRequest => (translate::request(frame, ruling.way, ruling.flow, &parsed), ruling.service()),
        Kind::NatReply => (translate::reply(frame, ruling.flow, &parsed), ServiceId(stage::service_of(ruling.flow) as u16)),
        Kind::Pass => return xdp_action::XDP_PASS,
        Kind::Drop | Kind::DropAnswered | Kind::Open => return LEFT | stage::leave(&parsed, &ruling),
        // Of ICMP and fragments: not plain.
        Kind::Echo
        | Kind::SendError
        | Kind::NatRequestError
        | Kind::NatReplyError
        | Kind::NatRequestFragment
        | Kind::NatReplyFragment
        | Kind::Icmp
        | Kind::Request
        | Kind::NoReply => return UNKNOWN,
    };
    if verdict.exceeded().is_some() {
        return LEFT | stage::leave(&parsed, &ruling);
    }
    verdict.action(service)
}
