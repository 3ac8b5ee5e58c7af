//! Desired state, the model of what the maps hold, and the plan from one to the other. Pure.

pub mod course;
pub mod desired;
pub mod difference;
pub mod event;
pub mod header;
pub mod history;
pub mod installed;
pub mod names;
pub mod op;
pub mod overrides;
pub mod plan;
mod planes;
mod ports;
pub mod settings;
pub mod slot;
pub mod standing;

use std::net::IpAddr;

use lb_common::{address::Address, maps::Service};

use crate::config::model::Protocol;

pub use crate::balance::Endpoint;

/// What identifies a service in every configuration and on every node.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct ServiceKey {
    /// The address that clients use.
    pub vip: IpAddr,
    /// The port that clients use, in host order; 0 takes every port.
    pub port: u16,
    /// TCP or UDP.
    pub protocol: Protocol,
}

impl ServiceKey {
    /// The service that this record is of; none for a protocol that is not balanced.
    pub fn of(record: &Service) -> Option<Self> {
        let protocol = [Protocol::Tcp, Protocol::Udp].into_iter().find(|&protocol| number(protocol) == record.protocol)?;
        Some(Self { vip: record.vip.ip(), port: record.port, protocol })
    }

    fn vip_address(&self) -> Address {
        self.vip.into()
    }
}

/// The IP protocol number.
pub fn number(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Tcp => 6,
        Protocol::Udp => 17,
    }
}
