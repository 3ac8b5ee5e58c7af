//! The first half of the decision for plain frames, which are most.

use super::{Parsed, find_vip, is_to_this_host};
use crate::{
    packet::{Packet, plain},
    tables::Tables,
};

/// Whether a plain frame concerns us.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Plain {
    /// It is for an address that is not ours, or for another host's link-layer address.
    Nobody,
    /// It is for a VIP or SNAT address.
    Ours(Parsed),
    /// It may not be plain: [`super::parse`] tells.
    Unknown,
}

/// [`super::parse`] of an IPv4 frame, or with `IPV6` of an IPv6 one, as far as [`plain`] goes.
#[inline(always)]
pub fn parse<const IPV6: bool, T: Tables, P: Packet + ?Sized>(tables: &T, frame: &P) -> Plain {
    let Some(network) = plain::network::<IPV6, P>(frame) else { return Plain::Unknown };
    let Some(vip) = find_vip(tables, &network.destination) else { return Plain::Nobody };
    if !is_to_this_host(tables, frame) {
        return Plain::Nobody;
    }
    match plain::transport::<IPV6, P>(frame) {
        Some(transport) => Plain::Ours(Parsed { network, transport, vip }),
        None => Plain::Unknown,
    }
}
