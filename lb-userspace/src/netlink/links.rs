//! A network interface, as `RTM_GETLINK` tells it. Pure.

use rtnetlink::packet_route::link::{
    InfoData, InfoKind, InfoVlan, LinkAttribute, LinkFlags, LinkInfo, LinkMessage, LinkXdp, VlanProtocol, XdpAttached,
};

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
    /// What the frames of a VLAN interface carry on the interface below it; none for other kinds.
    pub vlan: Option<Vlan>,
    /// The bridge, bond or VRF it is a port of.
    pub master: Option<u32>,
    /// The interface below (VLAN, macvlan) or the other end (veth); of another namespace if `lower_is_elsewhere`.
    pub lower: Option<u32>,
    /// `lower` is an index in another network namespace.
    pub lower_is_elsewhere: bool,
    /// How an XDP program is attached, if one is.
    pub xdp: Option<Xdp>,
}

/// The tag of a VLAN interface's frames.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Vlan {
    /// The VLAN's number, 0 to 4 094.
    pub id: u16,
    /// What kind of tag carries it.
    pub tag: VlanTag,
}

/// Kinds of VLAN tags.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum VlanTag {
    /// IEEE 802.1Q, a customer's: EtherType 0x8100.
    Customer,
    /// IEEE 802.1ad, a provider's, or one that this version does not know.
    Provider,
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
            vlan: None,
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
            LinkAttribute::LinkInfo(infos) => {
                self.kind = infos.iter().find_map(kind);
                self.vlan = infos.iter().find_map(vlan);
            }
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

/// A kernel that does not name the kind of tag means the customer's: it knows no other.
fn vlan(info: &LinkInfo) -> Option<Vlan> {
    let LinkInfo::Data(InfoData::Vlan(vlan)) = info else { return None };
    let id = vlan.iter().find_map(|part| if let InfoVlan::Id(id) = part { Some(*id) } else { None })?;
    let protocol = vlan.iter().find_map(|part| if let InfoVlan::Protocol(protocol) = part { Some(*protocol) } else { None });
    let is_customers = protocol.is_none_or(|protocol| protocol == VlanProtocol::Ieee8021Q);
    Some(Vlan { id, tag: if is_customers { VlanTag::Customer } else { VlanTag::Provider } })
}

#[cfg(test)]
mod tests {
    use rtnetlink::{
        packet_core::{NetlinkMessage, NetlinkPayload},
        packet_route::RouteNetlinkMessage,
    };

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
                vlan: None,
                master: None,
                lower: Some(3),
                lower_is_elsewhere: true,
                xdp: None,
            }
        );
    }

    #[test]
    fn a_vlan_interface_has_its_parent_its_number_and_the_kind_of_its_tag() {
        let of = |parts: Vec<InfoVlan>| {
            let info = vec![LinkInfo::Kind(InfoKind::Vlan), LinkInfo::Data(InfoData::Vlan(parts))];
            let message = message(vec![LinkAttribute::Link(3), LinkAttribute::LinkInfo(info)]);
            // As the kernel sends it.
            let mut whole = NetlinkMessage::from(RouteNetlinkMessage::NewLink(message));
            whole.finalize();
            let mut bytes = vec![0; whole.buffer_len()];
            whole.serialize(&mut bytes);
            let parsed = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&bytes).unwrap().payload;
            let NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(message)) = parsed else { panic!("{parsed:?}") };
            let link = Link::from_message(&message);
            (link.kind, link.lower, link.vlan)
        };
        let vlan = |vlan| (Some("vlan".into()), Some(3), vlan);
        let customer = Some(Vlan { id: 5, tag: VlanTag::Customer });
        assert_eq!(of(vec![InfoVlan::Protocol(VlanProtocol::Ieee8021Q), InfoVlan::Id(5)]), vlan(customer));
        assert_eq!(of(vec![InfoVlan::Id(5)]), vlan(customer));
        let provider = Some(Vlan { id: 4094, tag: VlanTag::Provider });
        assert_eq!(of(vec![InfoVlan::Id(4094), InfoVlan::Protocol(VlanProtocol::Ieee8021Ad)]), vlan(provider));
        assert_eq!(of(vec![]), vlan(None));
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
