//! The kernel's way to one destination, as `RTM_GETROUTE` answers it. Pure.

use std::net::IpAddr;

use rtnetlink::packet_route::{
    AddressFamily,
    route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteMetric, RouteType, RouteVia},
};

/// The kernel's answer for one destination.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Route {
    /// Frames leave through an interface.
    Unicast(UnicastRoute),
    /// The destination is an address of this host.
    Local,
    /// The route puts the packet into a tunnel of the routing table's own (`encap`).
    Encapsulating,
    /// There is no route, or one that refuses (unreachable, blackhole, prohibit), or the address is no host's.
    None,
}

/// A route that leaves through an interface.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UnicastRoute {
    /// The interface.
    pub ifindex: u32,
    /// Who gets the frame: the gateway (of either family), or the destination itself.
    pub next_hop: IpAddr,
    /// The source address that the kernel would choose.
    pub source: Option<IpAddr>,
    /// The MTU of the route or the path MTU learned for the destination, in bytes; none: the link's.
    pub mtu: Option<u32>,
}

/// A default route of the main table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DefaultRoute {
    /// Of this family: IPv4, or else IPv6.
    pub is_v4: bool,
    /// The interface.
    pub ifindex: u32,
    /// The gateway, of either family; none on a point-to-point link.
    pub gateway: Option<IpAddr>,
    /// Its preference among default routes (`metric`); 0 when it has none.
    pub priority: u32,
    /// Who made it, as in `/etc/iproute2/rt_protos`.
    pub protocol: u8,
    /// The source address that it prefers.
    pub source: Option<IpAddr>,
    /// The largest MSS that connections over it offer (`advmss`), in bytes; none: that of its MTU.
    pub advmss: Option<u32>,
}

impl DefaultRoute {
    /// The route of an `RTM_NEWROUTE` message, if it is one; a route over several interfaces is none.
    #[must_use]
    pub fn from_message(message: &RouteMessage) -> Option<Self> {
        let RouteHeader { address_family, destination_prefix_length, table, kind, protocol, .. } = message.header;
        let is_default = destination_prefix_length == 0 && table == RouteHeader::RT_TABLE_MAIN && kind == RouteType::Unicast;
        let attributes = message.attributes.as_slice();
        let ifindex = attributes.iter().find_map(|a| if let RouteAttribute::Oif(ifindex) = a { Some(*ifindex) } else { None })?;
        is_default.then(|| Self {
            is_v4: address_family == AddressFamily::Inet,
            ifindex,
            gateway: attributes.iter().find_map(gateway),
            priority: attributes.iter().find_map(|a| if let RouteAttribute::Priority(p) = a { Some(*p) } else { None }).unwrap_or(0),
            protocol: protocol.into(),
            source: attributes.iter().find_map(|a| if let RouteAttribute::PrefSource(source) = a { ip(source) } else { None }),
            advmss: attributes.iter().find_map(advmss),
        })
    }
}

fn advmss(attribute: &RouteAttribute) -> Option<u32> {
    let RouteAttribute::Metrics(metrics) = attribute else { return None };
    metrics.iter().find_map(|metric| if let RouteMetric::Advmss(advmss) = metric { Some(*advmss) } else { None })
}

/// The request for the route to `destination`, as `ip route get` makes it.
#[must_use]
pub fn request(destination: IpAddr) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = if destination.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    message.header.destination_prefix_length = if destination.is_ipv4() { 32 } else { 128 };
    message.attributes.push(RouteAttribute::Destination(destination.into()));
    message
}

impl Route {
    /// The route in the answer for `destination`.
    #[must_use]
    pub fn from_message(destination: IpAddr, message: &RouteMessage) -> Self {
        let attributes = message.attributes.as_slice();
        let kind = message.header.kind;
        if matches!(kind, RouteType::Local | RouteType::Anycast) {
            return Self::Local;
        }
        let ifindex = attributes.iter().find_map(|a| if let RouteAttribute::Oif(ifindex) = a { Some(*ifindex) } else { None });
        let (RouteType::Unicast, Some(ifindex)) = (kind, ifindex) else { return Self::None };
        if attributes.iter().any(|a| matches!(a, RouteAttribute::Encap(_) | RouteAttribute::EncapType(_))) {
            return Self::Encapsulating;
        }
        Self::Unicast(UnicastRoute {
            ifindex,
            next_hop: attributes.iter().find_map(gateway).unwrap_or(destination),
            source: attributes.iter().find_map(|a| if let RouteAttribute::PrefSource(source) = a { ip(source) } else { None }),
            mtu: attributes.iter().find_map(mtu),
        })
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the kernel's attributes are open-ended")]
fn gateway(attribute: &RouteAttribute) -> Option<IpAddr> {
    match attribute {
        RouteAttribute::Gateway(address) => ip(address),
        // A gateway of the other family, RFC 5549: `via inet6 fe80::1`.
        RouteAttribute::Via(RouteVia::Inet(address)) => Some((*address).into()),
        RouteAttribute::Via(RouteVia::Inet6(address)) => Some((*address).into()),
        _ => None,
    }
}

fn mtu(attribute: &RouteAttribute) -> Option<u32> {
    let RouteAttribute::Metrics(metrics) = attribute else { return None };
    metrics.iter().find_map(|metric| if let RouteMetric::Mtu(mtu) = metric { Some(*mtu) } else { None })
}

/// The IP address in a route's attribute, if it is one.
#[must_use]
pub fn ip(address: &RouteAddress) -> Option<IpAddr> {
    if let RouteAddress::Inet(v4) = address {
        Some((*v4).into())
    } else if let RouteAddress::Inet6(v6) = address {
        Some((*v6).into())
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 9));

    fn answer(kind: RouteType, attributes: Vec<RouteAttribute>) -> Route {
        let mut message = RouteMessage::default();
        message.header.kind = kind;
        message.attributes = attributes;
        Route::from_message(SERVER, &message)
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn the_next_hop_of_an_on_link_route_is_the_destination() {
        let source = RouteAttribute::PrefSource(address("10.0.0.1").into());
        assert_eq!(
            answer(RouteType::Unicast, vec![RouteAttribute::Oif(3), source]),
            Route::Unicast(UnicastRoute { ifindex: 3, next_hop: SERVER, source: Some(address("10.0.0.1")), mtu: None })
        );
    }

    #[test]
    fn a_gateway_of_either_family_is_the_next_hop_and_the_learned_mtu_is_kept() {
        for (attribute, next_hop) in [
            (RouteAttribute::Gateway(address("10.0.0.254").into()), "10.0.0.254"),
            (RouteAttribute::Via(address("fe80::1").into()), "fe80::1"),
        ] {
            let metrics = RouteAttribute::Metrics(vec![RouteMetric::Mtu(1400)]);
            assert_eq!(
                answer(RouteType::Unicast, vec![RouteAttribute::Oif(3), attribute, metrics]),
                Route::Unicast(UnicastRoute { ifindex: 3, next_hop: address(next_hop), source: None, mtu: Some(1400) })
            );
        }
    }

    #[test]
    fn only_unicast_routes_with_an_interface_are_used() {
        for (kind, attributes, route) in [
            (RouteType::Local, vec![RouteAttribute::Oif(1)], Route::Local),
            (RouteType::Anycast, vec![RouteAttribute::Oif(1)], Route::Local),
            (RouteType::Unreachable, vec![RouteAttribute::Oif(1)], Route::None),
            (RouteType::BlackHole, vec![], Route::None),
            (RouteType::Broadcast, vec![RouteAttribute::Oif(3)], Route::None),
            (RouteType::Multicast, vec![RouteAttribute::Oif(3)], Route::None),
            (RouteType::Unicast, vec![], Route::None),
            (RouteType::Unicast, vec![RouteAttribute::Oif(3), RouteAttribute::Encap(vec![])], Route::Encapsulating),
        ] {
            assert_eq!(answer(kind, attributes), route, "{kind:?}");
        }
    }
}
