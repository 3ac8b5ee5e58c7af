//! The operations that a plan consists of, and the model of what they leave in the maps.
//!
//! Each operation is one step that is safe to stop after. [`super::plan`] makes them, `dataplane` performs them, [`super::Installed::apply`] says
//! what the maps hold afterwards.

use ipnet::IpNet;
use lb_common::{
    address::Address,
    maps::{Header, MemberInfo, Service, Vip},
    words::{MemberId, ServiceId},
};

/// One step of a plan.
#[derive(Clone, PartialEq, Debug)]
pub enum Op {
    /// Create zeroed slot pages `first_page .. first_page + pages` and put them into `SLOT_PAGES`.
    CreateSlots { first_page: u32, pages: u32 },
    /// Write `MEMBER_INFO` and the state and service of the `MEMBERS` word; the word's header index stays if it has one.
    WriteMember { id: MemberId, info: MemberInfo },
    /// Write the header to a fresh record, then flip the member's word to it. None: the word names header 0 (no next hop).
    SetHeader { id: MemberId, header: Option<Box<Header>> },
    /// Write a plane's constant fields, its chunks as they are, and publish its endpoint in `NAT_ENDPOINTS`.
    WritePlane { index: u16, plane: PlaneSpec },
    /// Add or replace the rule of a source prefix.
    AddSourceRule { service: ServiceId, source: IpNet, rule: u32 },
    /// Write a service's record. The service may be in use: every field that differs then is a single aligned store.
    WriteService { id: ServiceId, record: Service },
    /// Make these the current members of the service's slots, one entry a slot, by the rules of [`super::slot::change`].
    SetSlots { service: ServiceId, current: Vec<Option<MemberId>> },
    /// Write `VIPS`, then the entry in `VIP_LINES` if it is missing or its flags changed.
    PublishVip { index: u16, vip: Vip },
    /// Put (VIP, port, protocol) → service into `PORT_LINES`. Not for any-port services, which the VIP's record names.
    PublishPort { vip: u16, port: u16, protocol: u8, service: ServiceId },
    /// Remove that entry.
    UnpublishPort { vip: u16, port: u16, protocol: u8 },
    /// Remove the entry in `VIP_LINES`, then clear the record.
    UnpublishVip { index: u16 },
    /// Remove the rule of a source prefix.
    RemoveSourceRule { service: ServiceId, source: IpNet },
    /// Clear the member's word, info and counters: its number may be used again.
    FreeMember { id: MemberId },
    /// Remove the plane's endpoint, return its chunks, clear the record.
    FreePlane { index: u16 },
    /// Clear the service's record and counters and drop its slot pages: its number may be used again.
    FreeService { id: ServiceId, first_page: u32, pages: u32 },
}

/// The constant part of a NAT plane.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct PlaneSpec {
    /// The address that the server sees.
    pub snat: Address,
    /// The server.
    pub server: Address,
    /// Its port, host order.
    pub server_port: u16,
    /// 6 or 17.
    pub protocol: u8,
    /// Positions (ports / 256) of the lower range: first and number.
    pub low: (u8, u8),
    /// Positions of the upper range: first and number.
    pub high: (u8, u8),
}
