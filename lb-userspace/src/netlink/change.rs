//! What a burst of route-netlink notifications means for the readers of links, routes, neighbours and addresses. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::IpNet;
use rtnetlink::{
    packet_core::{NetlinkBuffer, NetlinkMessage, NetlinkPayload},
    packet_route::{
        AddressFamily, RouteNetlinkMessage,
        address::{AddressAttribute, AddressProtocol},
        neighbour::NeighbourMessage,
        route::{RouteAttribute, RouteMessage},
    },
};

use super::{Neighbour, NeighbourKey, VRRP_PROTOCOL, routes};

/// More changed neighbours than this in one burst, and the burst counts as incomplete.
pub const NEIGHBOURS_MAX: usize = 4096;
/// More changed prefixes than this in one burst, and every route counts as changed.
pub const ROUTES_MAX: usize = 256;

// linux include/uapi/linux/rtnetlink.h; libc has no name for them.
const RTM_NEWNEXTHOP: u16 = 104;
const RTM_DELNEXTHOP: u16 = 105;

/// What changed since the last report.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Change {
    /// An interface came, went or changed.
    pub links: bool,
    /// An address of this host came, went or changed.
    pub addresses: bool,
    /// A routing rule or next-hop object changed, or very many routes: any route may be another.
    pub rules: bool,
    /// Routes to these prefixes came, went or changed. At most [`ROUTES_MAX`].
    pub routes: BTreeSet<IpNet>,
    /// These neighbour entries are so; none: gone. At most [`NEIGHBOURS_MAX`].
    pub neighbours: BTreeMap<NeighbourKey, Option<Neighbour>>,
    /// Notifications were lost: read everything again.
    pub is_incomplete: bool,
}

impl Change {
    /// Nothing changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Adds what a datagram from the notification socket says. One that cannot be understood makes the change incomplete.
    pub fn absorb(&mut self, mut datagram: &[u8]) {
        while !datagram.is_empty() {
            let Ok(buffer) = NetlinkBuffer::new_checked(datagram) else {
                self.is_incomplete = true;
                return;
            };
            // Messages are aligned to 4 bytes (NLMSG_ALIGN); the last may lack its padding.
            let length = buffer.length() as usize;
            self.absorb_message(buffer.message_type(), &datagram[..length]);
            datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
    }

    fn absorb_message(&mut self, message_type: u16, bytes: &[u8]) {
        match message_type {
            libc::RTM_NEWLINK | libc::RTM_DELLINK => self.links = true,
            libc::RTM_NEWADDR | libc::RTM_DELADDR => self.addresses |= !is_of_virtual_router(bytes),
            libc::RTM_NEWRULE | libc::RTM_DELRULE | RTM_NEWNEXTHOP | RTM_DELNEXTHOP => self.rules = true,
            libc::RTM_NEWROUTE | libc::RTM_DELROUTE | libc::RTM_NEWNEIGH | libc::RTM_DELNEIGH => self.absorb_body(bytes),
            _ => {}
        }
    }

    fn absorb_body(&mut self, bytes: &[u8]) {
        let payload = NetlinkMessage::<RouteNetlinkMessage>::deserialize(bytes).map(|message| message.payload);
        if let Ok(NetlinkPayload::InnerMessage(message)) = payload {
            if let RouteNetlinkMessage::NewNeighbour(neighbour) = &message {
                return self.absorb_neighbour(neighbour, true);
            } else if let RouteNetlinkMessage::DelNeighbour(neighbour) = &message {
                return self.absorb_neighbour(neighbour, false);
            } else if let RouteNetlinkMessage::NewRoute(route) | RouteNetlinkMessage::DelRoute(route) = &message {
                return self.absorb_route(route);
            }
        }
        self.is_incomplete = true;
    }

    fn absorb_neighbour(&mut self, message: &NeighbourMessage, is_there: bool) {
        let Some((key, neighbour)) = Neighbour::from_message(message) else { return };
        if self.neighbours.len() >= NEIGHBOURS_MAX && !self.neighbours.contains_key(&key) {
            self.is_incomplete = true;
        } else {
            self.neighbours.insert(key, is_there.then_some(neighbour));
        }
    }

    fn absorb_route(&mut self, message: &RouteMessage) {
        match prefix(message) {
            Some(prefix) if self.routes.len() < ROUTES_MAX => {
                self.routes.insert(prefix);
            }
            _ => self.rules = true,
        }
    }
}

/// Those are renewed all the time.
fn is_of_virtual_router(bytes: &[u8]) -> bool {
    let mark = AddressAttribute::Protocol(AddressProtocol::from(VRRP_PROTOCOL));
    let payload = NetlinkMessage::<RouteNetlinkMessage>::deserialize(bytes).map(|message| message.payload);
    if let Ok(NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewAddress(address) | RouteNetlinkMessage::DelAddress(address))) = payload {
        return address.attributes.contains(&mark);
    }
    false
}

fn prefix(message: &RouteMessage) -> Option<IpNet> {
    let destination =
        message.attributes.iter().find_map(|a| if let RouteAttribute::Destination(address) = a { routes::ip(address) } else { None });
    // The default route has no destination attribute.
    let address = match (destination, message.header.address_family) {
        (Some(address), _) => address,
        (None, AddressFamily::Inet) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        (None, AddressFamily::Inet6) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        _ => return None,
    };
    IpNet::new(address, message.header.destination_prefix_length).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::neighbours::{self, Keeper, Resolution};
    use rtnetlink::packet_route::{link::LinkMessage, neighbour::NeighbourState};

    fn bytes(message: RouteNetlinkMessage) -> Vec<u8> {
        let mut message = NetlinkMessage::from(message);
        message.finalize();
        let mut bytes = vec![0; message.buffer_len().next_multiple_of(4)];
        message.serialize(&mut bytes);
        bytes
    }

    fn key(last: u16) -> NeighbourKey {
        NeighbourKey { ifindex: 3, address: Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, last).into() }
    }

    fn failed(key: NeighbourKey) -> NeighbourMessage {
        let mut message = neighbours::read(key);
        message.header.state = NeighbourState::Failed;
        message
    }

    fn route(prefix: &str) -> RouteMessage {
        let prefix: IpNet = prefix.parse().unwrap();
        let mut message = routes::request(prefix.addr());
        message.header.destination_prefix_length = prefix.prefix_len();
        if prefix.prefix_len() == 0 {
            message.attributes.clear();
        }
        message
    }

    #[test]
    fn a_datagram_of_several_messages_is_read_to_its_end() {
        let mut datagram = bytes(RouteNetlinkMessage::NewLink(LinkMessage::default()));
        datagram.extend(bytes(RouteNetlinkMessage::NewNeighbour(failed(key(1)))));
        datagram.extend(bytes(RouteNetlinkMessage::DelRoute(route("10.1.0.0/16"))));
        datagram.extend(bytes(RouteNetlinkMessage::NewRoute(route("::/0"))));
        let mut change = Change::default();
        change.absorb(&datagram);
        let entry = Neighbour { resolution: Resolution::Failed, keeper: Keeper::Nobody };
        assert_eq!(
            change,
            Change {
                links: true,
                routes: BTreeSet::from(["10.1.0.0/16".parse().unwrap(), "::/0".parse().unwrap()]),
                neighbours: BTreeMap::from([(key(1), Some(entry))]),
                ..Change::default()
            }
        );
    }

    #[test]
    fn the_last_word_on_a_neighbour_counts() {
        let mut change = Change::default();
        change.absorb(&bytes(RouteNetlinkMessage::NewNeighbour(failed(key(1)))));
        change.absorb(&bytes(RouteNetlinkMessage::DelNeighbour(failed(key(1)))));
        assert_eq!(change.neighbours, BTreeMap::from([(key(1), None)]));
    }

    #[test]
    fn a_storm_of_routes_or_neighbours_stays_bounded() {
        let mut change = Change::default();
        for n in 0..=NEIGHBOURS_MAX {
            assert!(!change.is_incomplete);
            change.absorb(&bytes(RouteNetlinkMessage::NewNeighbour(failed(key(u16::try_from(n).unwrap())))));
        }
        assert!(change.is_incomplete);
        assert_eq!(change.neighbours.len(), NEIGHBOURS_MAX);
        for n in 0..=ROUTES_MAX {
            assert!(!change.rules);
            change.absorb(&bytes(RouteNetlinkMessage::NewRoute(route(&format!("10.{}.{}.0/24", n / 256, n % 256)))));
        }
        assert!(change.rules);
        assert_eq!(change.routes.len(), ROUTES_MAX);
    }

    #[test]
    fn a_datagram_cut_at_any_byte_never_panics_and_is_reported() {
        let whole = bytes(RouteNetlinkMessage::NewNeighbour(failed(key(1))));
        for length in 1..whole.len() {
            let mut change = Change::default();
            change.absorb(&whole[..length]);
            assert!(change.is_incomplete, "cut at {length}");
        }
    }
}
