//! A network interface, as `RTM_GETLINK` tells it. Pure.

use rtnetlink::packet_route::link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage, LinkXdp, XdpAttached};

use super::Mac;

/// A network interface.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Link {
    /// The kernel's number of it.
    pub ifindex: u32,
    /// Its name.
    pub name: String,
    /// Its Ethernet address; none for an interface without one (tun, IP tunnels).
    pub mac: Option<Mac>,
    /// The largest IP packet it takes, in bytes.
    pub mtu: u32,
    /// The administrator has it up (`IFF_UP`).
    pub is_up: bool,
    /// The layer below is there (`IFF_LOWER_UP`).
    pub has_carrier: bool,
    /// It is `lo`.
    pub is_loopback: bool,
    /// What kind of virtual interface: `veth`, `bridge`, `vlan`, `bond` …; none for hardware.
    pub kind: Option<String>,
    /// The bridge, bond or VRF it is a port of.
    pub master: Option<u32>,
    /// The interface below (VLAN, macvlan) or the other end (veth); of another namespace if `lower_is_elsewhere`.
    pub lower: Option<u32>,
    /// `lower` is an index in another network namespace.
    pub lower_is_elsewhere: bool,
    /// How an XDP program is attached, if one is.
    pub xdp: Option<Xdp>,
}

/// How an XDP program is attached to a link.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Xdp {
    /// In the driver, or on the card.
    Native,
    /// In the network stack.
    Generic,
}

impl Link {
    /// The link of an `RTM_NEWLINK` message; attributes that are absent stay empty.
    #[must_use]
    pub fn from_message(message: &LinkMessage) -> Self {
        let flags = message.header.flags;
        let mut link = Self {
            ifindex: message.header.index,
            name: String::new(),
            mac: None,
            mtu: 0,
            is_up: flags.contains(LinkFlags::Up),
            has_carrier: flags.contains(LinkFlags::LowerUp),
            is_loopback: flags.contains(LinkFlags::Loopback),
            kind: None,
            master: None,
            lower: None,
            lower_is_elsewhere: false,
            xdp: None,
        };
        message.attributes.iter().for_each(|attribute| link.take(attribute));
        link
    }

    /// Frames can leave through it.
    #[must_use]
    pub fn is_usable(&self) -> bool {
        self.is_up && self.has_carrier
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "the kernel's attributes are open-ended")]
    fn take(&mut self, attribute: &LinkAttribute) {
        match attribute {
            LinkAttribute::IfName(name) => self.name.clone_from(name),
            // Tunnels carry an IP address here, of 4 or 16 bytes.
            LinkAttribute::Address(bytes) => self.mac = Mac::try_from(bytes.as_slice()).ok(),
            LinkAttribute::Mtu(mtu) => self.mtu = *mtu,
            LinkAttribute::Controller(ifindex) => self.master = Some(*ifindex),
            LinkAttribute::Link(ifindex) => self.lower = Some(*ifindex),
            LinkAttribute::LinkNetNsId(_) => self.lower_is_elsewhere = true,
            LinkAttribute::Xdp(xdp) => self.xdp = xdp.iter().find_map(attachment),
            LinkAttribute::LinkInfo(infos) => self.kind = infos.iter().find_map(kind),
            _ => {}
        }
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the kernel's attributes are open-ended")]
fn attachment(xdp: &LinkXdp) -> Option<Xdp> {
    match xdp {
        LinkXdp::Attached(XdpAttached::Driver | XdpAttached::Hardware | XdpAttached::Multiple) => Some(Xdp::Native),
        LinkXdp::Attached(XdpAttached::SocketBuffer) => Some(Xdp::Generic),
        _ => None,
    }
}

fn kind(info: &LinkInfo) -> Option<String> {
    if let LinkInfo::Kind(kind) = info { Some(InfoKind::to_string(kind)) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(attributes: Vec<LinkAttribute>) -> LinkMessage {
        let mut message = LinkMessage::default();
        message.header.index = 7;
        message.header.flags = LinkFlags::Up | LinkFlags::LowerUp;
        message.attributes = attributes;
        message
    }

    #[test]
    fn a_veth_has_its_kind_its_mac_and_its_other_end() {
        let link = Link::from_message(&message(vec![
            LinkAttribute::IfName("eth0".into()),
            LinkAttribute::Address(vec![2, 0, 0, 0, 0, 1]),
            LinkAttribute::Mtu(1500),
            LinkAttribute::Link(3),
            LinkAttribute::LinkNetNsId(0),
            LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Veth)]),
        ]));
        assert_eq!(
            link,
            Link {
                ifindex: 7,
                name: "eth0".into(),
                mac: Some([2, 0, 0, 0, 0, 1]),
                mtu: 1500,
                is_up: true,
                has_carrier: true,
                is_loopback: false,
                kind: Some("veth".into()),
                master: None,
                lower: Some(3),
                lower_is_elsewhere: true,
                xdp: None,
            }
        );
    }

    #[test]
    fn a_tunnel_whose_address_is_an_ip_address_has_no_mac() {
        let link = Link::from_message(&message(vec![LinkAttribute::Address(vec![10, 0, 0, 1])]));
        assert_eq!(link.mac, None);
    }

    #[test]
    fn a_link_without_carrier_is_not_usable() {
        let mut message = message(vec![]);
        message.header.flags = LinkFlags::Up;
        assert!(!Link::from_message(&message).is_usable());
    }
}
