//! The operations that a plan consists of.
//!
//! Each operation is one step that is safe to stop after. [`super::plan`] makes them, `dataplane` performs them,
//! [`Installed::apply`](super::installed::Installed::apply) says what the maps hold afterwards.

use std::sync::Arc;

use ipnet::IpNet;
use lb_common::{
    address::Address,
    maps::{Header, MemberInfo, Service, SourceRule, Vip},
    words::{MemberId, ServiceId},
};

/// One step of a plan.
#[derive(Clone, PartialEq, Debug)]
pub enum Op {
    /// Create zeroed slot pages and put them into `SLOT_PAGES`, in place of any that are there.
    CreateSlots {
        /// Index of the first.
        first_page: u32,
        /// How many.
        pages: u32,
    },
    /// Write `MEMBER_INFO` and the state and service of the `MEMBERS` word; the word's header index stays if it has one.
    WriteMember {
        /// Whose.
        id: MemberId,
        /// The whole record.
        info: MemberInfo,
    },
    /// Write the header to a fresh record, then flip the member's word to it.
    SetHeader {
        /// Whose.
        id: MemberId,
        /// None: the word names header 0 (no next hop).
        header: Option<Arc<Header>>,
    },
    /// Write a plane's constant fields, its chunks as they are, and publish its endpoint in `NAT_ENDPOINTS`.
    WritePlane {
        /// Its number.
        index: u16,
        /// Its constant fields.
        plane: PlaneSpec,
    },
    /// Add or replace the rule of a source prefix.
    AddSourceRule {
        /// Whose.
        service: ServiceId,
        /// The prefix, host bits zero.
        source: IpNet,
        /// What becomes of its sources.
        rule: SourceRule,
    },
    /// Write a service's record. The service may be in use: every field that differs then is a single aligned store.
    WriteService {
        /// Its number.
        id: ServiceId,
        /// The whole record.
        record: Service,
    },
    /// Make these the current members of the service's slots, by the rules of [`super::slot::change`]. The service's record is written.
    SetSlots {
        /// Whose.
        service: ServiceId,
        /// What the table was computed from, see [`InstalledService::shares`](super::installed::InstalledService::shares); not for the
        /// maps.
        shares: Vec<(MemberId, u16)>,
        /// One entry a slot.
        current: Arc<[Option<MemberId>]>,
    },
    /// Write `VIPS`, then the entry in `VIP_LINES` if it is missing or its flags changed.
    PublishVip {
        /// The record's number.
        index: u16,
        /// The whole record.
        vip: Vip,
    },
    /// Put (VIP, port, protocol) → service into `PORT_LINES`, once the VIP is published. Not for any-port services, which the VIP's record names.
    PublishPort {
        /// The VIP's number.
        vip: u16,
        /// In host order.
        port: u16,
        /// 6 or 17.
        protocol: u8,
        /// Who takes it.
        service: ServiceId,
    },
    /// Remove that entry.
    UnpublishPort {
        /// The VIP's number.
        vip: u16,
        /// In host order.
        port: u16,
        /// 6 or 17.
        protocol: u8,
    },
    /// Remove the entry in `VIP_LINES`, then clear the record.
    UnpublishVip {
        /// The record's number.
        index: u16,
    },
    /// Remove the rule of a source prefix.
    RemoveSourceRule {
        /// Whose.
        service: ServiceId,
        /// The prefix.
        source: IpNet,
    },
    /// Clear the member's word, info and counters: its number may be used again.
    FreeMember {
        /// Its number.
        id: MemberId,
    },
    /// Remove the plane's endpoint, return its chunks, clear the record.
    FreePlane {
        /// Its number.
        index: u16,
    },
    /// Clear the service's record and counters and drop its slot pages: its number may be used again.
    FreeService {
        /// Its number.
        id: ServiceId,
        /// Index of its first slot page.
        first_page: u32,
        /// How many it has.
        pages: u32,
    },
}

/// The constant part of a NAT plane.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct PlaneSpec {
    /// The address that the server sees.
    pub snat: Address,
    /// The server.
    pub server: Address,
    /// Its port, host order; 0 for every port, toward a server that keeps the ports of an any-port service.
    pub server_port: u16,
    /// 6 or 17.
    pub protocol: u8,
    /// Positions (ports / 256) of the lower range: first and number.
    pub low: (u8, u8),
    /// Positions of the upper range: first and number.
    pub high: (u8, u8),
}

impl PlaneSpec {
    /// What no two planes have in common: SNAT address, server endpoint and protocol.
    pub fn key(&self) -> (Address, Address, u16, u8) {
        (self.snat, self.server, self.server_port, self.protocol)
    }
}
