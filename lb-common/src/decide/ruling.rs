//! The forms of a decision: as the packet path carries it, and as it is told.

use crate::{reason::Drop, words::ServiceId};

/// What becomes of a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Decision {
    /// It goes on to the host, untouched.
    Pass,
    /// It is refused.
    Drop(Refusal),
    /// It is an echo request to a VIP, which answers.
    Echo,
    /// It goes to a member as it is, behind the member's prebuilt header.
    Send(Delivery),
    /// It goes to a member, translated.
    NatRequest(Delivery, FlowIndex),
    /// It comes from a member and goes to the client, translated.
    NatReply(FlowIndex),
    /// An ICMP error goes to the member whose flow it quotes.
    SendError(Delivery),
    /// An ICMP error goes to the member, its quotation translated.
    NatRequestError(Delivery, FlowIndex),
    /// An ICMP error from the server's side goes to the client, its quotation translated.
    NatReplyError(FlowIndex),
    /// A later fragment goes to a member, its addresses translated.
    NatRequestFragment(Delivery, FlowIndex),
    /// A later fragment goes to the client, its addresses translated.
    NatReplyFragment(FlowIndex),
}

/// A record of `NAT_FLOWS`.
pub type FlowIndex = u32;

/// A packet's way to a member.
///
/// One number, for the reason that [`Ruling`] gives.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Delivery(u64);

impl Delivery {
    /// The way to a member of a service by this header record.
    #[inline(always)]
    pub const fn new(service: ServiceId, member: u16, header: u32) -> Self {
        Self((header as u64) << 32 | (member as u64) << 16 | service.0 as u64)
    }

    #[inline(always)]
    pub(super) const fn refusal(service: ServiceId, reason: Drop) -> Self {
        Self::new(service, 0, reason.index())
    }

    /// Whether it leads nowhere: then its header is the reason, as [`Drop::index`] has it.
    #[inline(always)]
    pub const fn is_refusal(self) -> bool {
        self.member() == 0
    }

    /// The service it is for.
    #[inline(always)]
    pub const fn service(self) -> ServiceId {
        ServiceId(self.0 as u16)
    }

    /// The number of the member it goes to.
    #[inline(always)]
    pub const fn member(self) -> u16 {
        (self.0 >> 16) as u16
    }

    /// The member's header record.
    #[inline(always)]
    pub const fn header(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

impl core::fmt::Debug for Delivery {
    fn fmt(&self, out: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(out, "{:?} by member {} and header {}", self.service(), self.member(), self.header())
    }
}

/// A decision as the packet path carries it: a number for each part, all of which are always set.
///
/// An enum leaves what a variant does not have undefined, and the compiler then computes with whatever a register held, which the verifier refuses;
/// where it does not, it takes the bytes that variants share apart and puts them together again in memory, which costs a tenth of the program's
/// time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ruling {
    /// What is to be done.
    pub kind: Kind,
    /// The NAT flow; 0 where there is none.
    pub flow: FlowIndex,
    /// The way to the member; for a refusal its service, and the reason as the header. All 0 where there is none.
    pub way: Delivery,
}

/// What is to be done with a frame: a variant of [`Decision`], or the part of the decision that goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
#[allow(missing_docs, reason = "they are those of `Decision`")]
pub enum Kind {
    Pass,
    Drop,
    /// [`Kind::Drop`], and the sender is told.
    DropAnswered,
    Echo,
    Send,
    NatRequest,
    NatReply,
    SendError,
    NatRequestError,
    NatReplyError,
    NatRequestFragment,
    NatReplyFragment,
    /// [`super::icmp`] goes on.
    Icmp,
    /// [`super::request`] goes on, for the service of the way.
    Request,
    /// [`super::open`] goes on, for the service of the way.
    Open,
    /// It is no reply of a server: the look-up of services goes on.
    NoReply,
}

impl Ruling {
    /// The frame passes.
    pub const PASS: Self = Self::of(Kind::Pass, 0, Delivery(0));
    pub(super) const ECHO: Self = Self::of(Kind::Echo, 0, Delivery(0));

    #[inline(always)]
    pub(super) const fn of(kind: Kind, flow: FlowIndex, way: Delivery) -> Self {
        Self { kind, flow, way }
    }

    #[inline(always)]
    pub(super) const fn silent(service: ServiceId, reason: Drop) -> Self {
        Self::of(Kind::Drop, 0, Delivery::refusal(service, reason))
    }

    #[inline(always)]
    pub(super) const fn told(service: ServiceId, reason: Drop) -> Self {
        Self::of(Kind::DropAnswered, 0, Delivery::refusal(service, reason))
    }

    /// Refused in silence for the reason of a way that leads nowhere.
    #[inline(always)]
    pub(super) const fn dropped(refusal: Delivery) -> Self {
        Self::of(Kind::Drop, 0, refusal)
    }

    #[inline(always)]
    pub(super) const fn to_member(kind: Kind, way: Delivery, flow: FlowIndex) -> Self {
        Self::of(kind, flow, way)
    }

    #[inline(always)]
    pub(super) const fn to_client(kind: Kind, flow: FlowIndex) -> Self {
        Self::of(kind, flow, Delivery(0))
    }

    #[inline(always)]
    pub(super) const fn go_on(kind: Kind, service: ServiceId) -> Self {
        Self::of(kind, 0, Delivery::new(service, 0, 0))
    }

    /// The service that it is for, or none.
    #[inline(always)]
    pub const fn service(self) -> ServiceId {
        self.way.service()
    }

    /// Of a refusal: why, as [`Drop::index`] has it.
    #[inline(always)]
    pub const fn reason_index(self) -> u32 {
        self.way.header()
    }

    /// In words that cannot be wrong. What goes on elsewhere is none.
    #[must_use]
    pub fn decision(self) -> Option<Decision> {
        let refusal = |answered| {
            let reason = Drop::ALL.get(self.reason_index() as usize).copied().unwrap_or(Drop::Inconsistent);
            Decision::Drop(Refusal { service: self.service(), reason, answered })
        };
        Some(match self.kind {
            Kind::Pass => Decision::Pass,
            Kind::Drop => refusal(false),
            Kind::DropAnswered => refusal(true),
            Kind::Echo => Decision::Echo,
            Kind::Send => Decision::Send(self.way),
            Kind::NatRequest => Decision::NatRequest(self.way, self.flow),
            Kind::NatReply => Decision::NatReply(self.flow),
            Kind::SendError => Decision::SendError(self.way),
            Kind::NatRequestError => Decision::NatRequestError(self.way, self.flow),
            Kind::NatReplyError => Decision::NatReplyError(self.flow),
            Kind::NatRequestFragment => Decision::NatRequestFragment(self.way, self.flow),
            Kind::NatReplyFragment => Decision::NatReplyFragment(self.flow),
            Kind::Icmp | Kind::Request | Kind::Open | Kind::NoReply => return None,
        })
    }
}

/// A refused packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Refusal {
    /// The service it was for, or none.
    pub service: ServiceId,
    /// Why.
    pub reason: Drop,
    /// Whether the sender is told (a TCP reset, an ICMP unreachable).
    pub answered: bool,
}
