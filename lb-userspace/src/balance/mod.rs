//! Who gets which share of the connections: functions of server sets and weights. Pure.

use std::net::IpAddr;

pub mod digest;
pub mod maglev;

/// What identifies a server on every node.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Endpoint {
    /// The server's address.
    pub address: IpAddr,
    /// Its port in host order, 0 for none of its own.
    pub port: u16,
}
