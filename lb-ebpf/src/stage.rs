//! The stages of the packet path as global functions: the verifier checks each once, for any arguments, instead of once for each way that leads
//! to it. What passes between them lies in memory of plain numbers.
#![allow(unsafe_code, reason = "functions by name for the loader, and memory passed between them")]

use aya_ebpf::bindings::{xdp_action, xdp_md};
use lb_common::{
    choose::{Manner, remembered},
    decide::{
        self, Concern, Delivery, Ingress, Kind, Parsed, Ruling,
        fragment::{follow, remember_first, use_of},
        is_hosts_as_well, parse, route,
    },
    fragments::Trail,
    hash::Hash,
    nat::open::{Span, Terms, claim_in_line, claim_port, claim_rested, rested_in_line},
    packet::{EthernetHeader, Fragment, MAX_L4, Packet},
    reason::Drop,
    words::{ServiceId, SlotWord},
};

use crate::{answer, fast, forward, frame::Frame, icmp, kernel::Kernel, maps, translate, verdict::Verdict};

/// Room for a [`Parsed`]. An array of numbers, as the type of a function's argument has to be plain for the verifier.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Scratch {
    words: [u64; 13],
}

const _: () = assert!(size_of::<Parsed>() <= size_of::<Scratch>() && align_of::<Parsed>() <= 8);

/// What the stages of one run share. It lies in a per-CPU map, as all of the stack's 512 bytes are needed for the calls.
#[repr(C)]
pub(crate) struct Workspace {
    scratch: Scratch,
    outcome: Outcome,
}

/// This CPU's workspace: what the last run left in it.
#[inline(always)]
pub(crate) fn workspace() -> Option<(&'static mut Scratch, &'static mut Outcome)> {
    let workspace = maps::WORKSPACE.get_ptr_mut(0)?;
    // SAFETY: a live map value of this CPU, on which no other program runs meanwhile.
    Some(unsafe { (&mut (*workspace).scratch, &mut (*workspace).outcome) })
}

impl Scratch {
    /// Takes what was found elsewhere than in [`weir_parse`].
    #[inline(always)]
    fn keep(&mut self, parsed: &Parsed) {
        // SAFETY: a scratch is as large as a `Parsed`.
        unsafe { *core::ptr::from_mut(self).cast::<Parsed>() = *parsed };
    }

    /// What [`weir_parse`] found.
    #[inline(always)]
    pub(crate) fn parsed(&self) -> &Parsed {
        // SAFETY: `weir_parse` wrote a `Parsed` here before it said that the frame is ours; an empty one is never read so.
        unsafe { &*core::ptr::from_ref(self).cast::<Parsed>() }
    }
}

/// What the decision came to.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Outcome {
    /// The service, 0 for none.
    pub(crate) service: u32,
    member: u32,
    header: u32,
    /// The NAT flow.
    pub(crate) flow: u32,
    /// Whether a refusal is told to the sender: 1 or 0.
    pub(crate) is_answered: u32,
}

/// What is to be done with an [`Outcome`].
pub(crate) mod act {
    /// Let the frame pass.
    pub(crate) const PASS: u32 = 0;
    /// Refuse it.
    pub(crate) const DROP: u32 = 1;
    /// Answer the echo request.
    pub(crate) const ECHO: u32 = 2;
    /// Send it to the member.
    pub(crate) const SEND: u32 = 3;
    /// Send it to the member, translated.
    pub(crate) const REQUEST: u32 = 4;
    /// Send it to the client, translated.
    pub(crate) const REPLY: u32 = 5;
    /// Send the error to the member, its quotation translated.
    pub(crate) const REQUEST_ERROR: u32 = 6;
    /// Send the error to the client, its quotation translated.
    pub(crate) const REPLY_ERROR: u32 = 7;
    /// The decision goes on in `weir_icmp`.
    pub(crate) const GO_ON_ICMP: u32 = 8;
    /// The decision goes on in `weir_nat`.
    pub(crate) const GO_ON_NAT: u32 = 9;
    /// The decision goes on in `weir_open`.
    pub(crate) const GO_ON_OPEN: u32 = 10;
}

impl Outcome {
    /// Why it is refused: a [`lb_common::reason::Drop`] number.
    #[inline(always)]
    pub(crate) fn reason(&self) -> u32 {
        self.header
    }

    #[inline(always)]
    fn delivery(&self) -> Option<Delivery> {
        if self.member == 0 { None } else { Some(Delivery::new(ServiceId(self.service as u16), self.member as u16, self.header)) }
    }

    /// Fills itself in, and says what is to be done.
    #[inline(always)]
    fn take(&mut self, ruling: &Ruling) -> u32 {
        self.flow = ruling.flow;
        self.service = ruling.service().0 as u32;
        self.member = ruling.way.member() as u32;
        self.header = ruling.way.header();
        match ruling.kind {
            Kind::Pass | Kind::NoReply => act::PASS,
            Kind::Echo => act::ECHO,
            Kind::Drop => {
                self.is_answered = 0;
                act::DROP
            }
            Kind::DropAnswered => {
                self.is_answered = 1;
                act::DROP
            }
            Kind::Send | Kind::SendError => act::SEND,
            Kind::NatRequest | Kind::NatRequestFragment => act::REQUEST,
            Kind::NatReply | Kind::NatReplyFragment => act::REPLY,
            Kind::NatRequestError => act::REQUEST_ERROR,
            Kind::NatReplyError => act::REPLY_ERROR,
            Kind::Icmp => act::GO_ON_ICMP,
            Kind::Request => act::GO_ON_NAT,
            Kind::Open => act::GO_ON_OPEN,
        }
    }
}

/// [`weir_parse`]: the frame is not for us.
pub(crate) const NOT_OURS: u32 = 0;
/// [`weir_parse`]: the frame is for us.
pub(crate) const OURS: u32 = 1;
/// [`weir_parse`]: the frame is for us and malformed.
pub(crate) const MALFORMED: u32 = 2;

/// The whole way of a plain IPv4 packet: see [`fast`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn weir_fast4(context: *mut xdp_md) -> u32 {
    fast::handle::<false>(context)
}

/// The whole way of a plain IPv6 packet: see [`fast`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn weir_fast6(context: *mut xdp_md) -> u32 {
    fast::handle::<true>(context)
}

/// Leaves a decision to the stages that perform it. Returns one of [`act`].
#[inline(always)]
pub(crate) fn leave(parsed: &Parsed, ruling: &Ruling) -> u32 {
    let Some((scratch, outcome)) = workspace() else { return act::PASS };
    scratch.keep(parsed);
    outcome.take(ruling)
}

/// Parses the frame into `scratch`, which is written only for [`OURS`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn weir_parse(context: *mut xdp_md, scratch: *mut Scratch) -> u32 {
    if scratch.is_null() {
        return NOT_OURS;
    }
    match parse(&Kernel, &Frame::new(context).snapshot()) {
        Concern::None => NOT_OURS,
        Concern::Malformed(vip) if is_hosts_as_well(vip) => NOT_OURS,
        Concern::Malformed(_) => MALFORMED,
        Concern::Ours(parsed) => {
            // SAFETY: not null, and the caller's memory is as large as the type says: the verifier sees to that.
            unsafe { *scratch.cast::<Parsed>() = parsed };
            OURS
        }
    }
}

/// [`forward::clamp_mss`] of the TCP header at `l4`, for which at most `most` bytes are left. Whether it was written: 0 if not.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn weir_clamp_mss(context: *mut xdp_md, service: u32, l4: u32, most: u32) -> u32 {
    forward::lower_mss(&Frame::new(context), ServiceId(service as u16), l4 as usize & MAX_L4, most as u16).is_ok() as u32
}

/// [`remembered`], for [`Kernel`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn weir_remember(service: u32, slot: u64, hash: u64, manner: u32) -> u32 {
    let Some(service) = maps::SERVICES.get(service) else { return 0 };
    let hash = Hash { index: (hash >> 32) as u32, tag: hash as u32 };
    remembered(&Kernel, service, SlotWord(slot), hash, Manner(manner)).0
}

/// [`claim_in_line`], for [`Kernel`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn weir_claim_in_line(line: u32, terms: u32, now: u32) -> u64 {
    claim_in_line(&Kernel, line, Terms(terms), now)
}

/// [`claim_port`], for [`Kernel`]. `span`: chunks in the upper half, lines in the lower.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn weir_claim_port(plane: u32, start: u32, span: u32, terms: u32, now: u32) -> u64 {
    let span = Span { chunks: span >> 16, lines: span & 0xffff };
    claim_port(&Kernel, plane as u16, start, span, Terms(terms), now).0
}

/// [`claim_rested`], for [`Kernel`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn weir_claim_rested(plane: u32, start: u32, chunks: u32, terms: u32, now: u32) -> u64 {
    claim_rested(&Kernel, plane as u16, start, chunks, Terms(terms), now).0
}

/// [`rested_in_line`], for [`Kernel`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn weir_rested_in_line(line: u32, terms: u32, now: u32) -> u64 {
    rested_in_line(&Kernel, line, Terms(terms), now)
}

/// [`route`], into `outcome`. Returns one of [`act`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn weir_route(scratch: *const Scratch, outcome: *mut Outcome) -> u32 {
    let Some((parsed, outcome)) = decision_memory(scratch, outcome) else { return act::PASS };
    outcome.take(&route(&Kernel, parsed))
}

/// [`follow`] of a later fragment, into `outcome`. Returns one of [`act`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn weir_follow(scratch: *const Scratch, outcome: *mut Outcome) -> u32 {
    let Some((parsed, outcome)) = decision_memory(scratch, outcome) else { return act::PASS };
    outcome.take(&follow(&Kernel, parsed))
}

/// Remembers what becomes of a datagram's first fragment: one of [`act`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn weir_trail(scratch: *const Scratch, outcome: *const Outcome, act: u32) -> u32 {
    if scratch.is_null() || outcome.is_null() {
        return act;
    }
    // SAFETY: as in `decision_memory`.
    let (parsed, outcome) = unsafe { ((*scratch).parsed(), &*outcome) };
    let trail = match act {
        act::PASS => Trail::Pass.bits(),
        act::SEND => Trail::Member(outcome.member as u16).bits(),
        act::REQUEST => Trail::NatRequest(use_of(&Kernel, outcome.flow)).bits(),
        act::REPLY => Trail::NatReply(use_of(&Kernel, outcome.flow)).bits(),
        _ => return act,
    };
    remember_first(&Kernel, parsed, trail);
    act
}

/// [`decide::icmp`], into `outcome`. Returns one of [`act`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn weir_icmp(context: *mut xdp_md, scratch: *const Scratch, outcome: *mut Outcome) -> u32 {
    let Some((parsed, outcome)) = decision_memory(scratch, outcome) else { return act::PASS };
    outcome.take(&decide::icmp(&Kernel, &Frame::new(context).snapshot(), parsed))
}

/// [`decide::request`] for the service in `outcome`, into `outcome`. Returns one of [`act`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn weir_nat(scratch: *const Scratch, outcome: *mut Outcome) -> u32 {
    let Some((parsed, outcome)) = decision_memory(scratch, outcome) else { return act::PASS };
    outcome.take(&decide::request(&Kernel, ServiceId(outcome.service as u16), parsed))
}

/// [`decide::open`] for the service in `outcome`, into `outcome`. Returns one of [`act`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn weir_open(context: *mut xdp_md, scratch: *const Scratch, outcome: *mut Outcome) -> u32 {
    let Some((parsed, outcome)) = decision_memory(scratch, outcome) else { return act::PASS };
    let frame = Frame::new(context);
    let Some(ethernet) = frame.get::<EthernetHeader>(0) else { return act::PASS };
    let ingress = Ingress { ifindex: frame.ifindex(), mac: ethernet.source, kind: ethernet.kind };
    outcome.take(&decide::open(&Kernel, &ingress, ServiceId(outcome.service as u16), parsed))
}

#[inline(always)]
fn decision_memory<'a>(scratch: *const Scratch, outcome: *mut Outcome) -> Option<(&'a Parsed, &'a mut Outcome)> {
    if scratch.is_null() || outcome.is_null() {
        return None;
    }
    // SAFETY: not null, and as large as their types say, which the verifier sees to; the caller holds no other reference to them.
    Some(unsafe { ((*scratch).parsed(), &mut *outcome) })
}

/// Sends the packet to its member, whole or in a tunnel. Returns a [`Verdict`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn weir_send(context: *mut xdp_md, scratch: *const Scratch, outcome: *const Outcome) -> u32 {
    with(scratch, outcome, |parsed, _, delivery| forward::send(Frame::new(context), delivery, parsed))
}

/// Sends the packet to its member, translated. Returns a [`Verdict`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn weir_request(context: *mut xdp_md, scratch: *const Scratch, outcome: *const Outcome) -> u32 {
    with(scratch, outcome, |parsed, flow, delivery| translate::request(Frame::new(context), delivery, flow, parsed))
}

/// Sends an ICMP error to the member, its quotation translated. Returns a [`Verdict`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn weir_request_error(context: *mut xdp_md, scratch: *const Scratch, outcome: *const Outcome) -> u32 {
    with(scratch, outcome, |parsed, flow, delivery| icmp::request_error(context, delivery, flow, parsed))
}

#[inline(always)]
fn with(scratch: *const Scratch, outcome: *const Outcome, act: impl FnOnce(&Parsed, u32, Delivery) -> Verdict) -> u32 {
    if scratch.is_null() || outcome.is_null() {
        return xdp_action::XDP_ABORTED;
    }
    // SAFETY: as in `decision_memory`.
    let (scratch, outcome) = unsafe { (&*scratch, &*outcome) };
    let Some(delivery) = outcome.delivery() else { return xdp_action::XDP_ABORTED };
    act(scratch.parsed(), outcome.flow, delivery).0
}

/// Sends a server's packet to the client of the NAT flow. Returns a [`Verdict`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn weir_reply(context: *mut xdp_md, scratch: *const Scratch, flow: u32) -> u32 {
    with_parsed(scratch, |parsed| translate::reply(Frame::new(context), flow, parsed).0)
}

/// Sends an ICMP error from the server's side to the client of the NAT flow. Returns a [`Verdict`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn weir_reply_error(context: *mut xdp_md, scratch: *const Scratch, flow: u32) -> u32 {
    with_parsed(scratch, |parsed| icmp::reply_error(context, flow, parsed).0)
}

/// The service of a NAT flow.
#[inline(always)]
pub(crate) fn service_of(flow: u32) -> u32 {
    maps::NAT_FLOWS.get(flow).map_or(0, |flow| flow.service as u32)
}

/// Answers an echo request.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn weir_echo(context: *mut xdp_md, scratch: *const Scratch) -> u32 {
    with_parsed(scratch, |parsed| icmp::echo(context, parsed))
}

/// Tells the sender of a refused packet.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn weir_answer(context: *mut xdp_md, scratch: *const Scratch, service: u32) -> u32 {
    with_parsed(scratch, |parsed| answer::answer(context, ServiceId(service as u16), parsed))
}

/// Refuses a packet that exceeds `mtu`, and tells its sender.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn weir_too_big(context: *mut xdp_md, scratch: *const Scratch, service: u32, mtu: u32) -> u32 {
    let service = ServiceId(service as u16);
    with_parsed(scratch, |parsed| answer::too_big(context, service, parsed, mtu as u16).action(service))
}

#[inline(always)]
fn with_parsed(scratch: *const Scratch, act: impl FnOnce(&Parsed) -> u32) -> u32 {
    if scratch.is_null() {
        return xdp_action::XDP_ABORTED;
    }
    // SAFETY: as in `decision_memory`.
    act(unsafe { &*scratch }.parsed())
}

/// Counts the drop of an untouched frame, and samples it.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn weir_drop(context: *mut xdp_md, service: u32, reason: u32) -> u32 {
    crate::count::dropped(&Frame::new(context), ServiceId(service as u16), reason);
    xdp_action::XDP_DROP
}

const _: () = assert!(Drop::COUNT < 256 && size_of::<Fragment>() <= 8);
