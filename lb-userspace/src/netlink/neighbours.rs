//! A neighbour entry: an IP address on a link, its MAC address, and who keeps it. Pure.

use std::net::IpAddr;

use rtnetlink::packet_route::{
    AddressFamily,
    neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourExtFlags, NeighbourFlags, NeighbourMessage, NeighbourState},
    route::RouteProtocol,
};

use super::{Mac, WEIR_PROTOCOL};

/// Which neighbour: an address on a link.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct NeighbourKey {
    /// The link.
    pub ifindex: u32,
    /// The address, of either family.
    pub address: IpAddr,
}

/// What the kernel knows of a neighbour.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Neighbour {
    /// Whether its MAC address is known.
    pub resolution: Resolution,
    /// Who keeps the entry.
    pub keeper: Keeper,
}

/// Whether a neighbour's MAC address is known.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Resolution {
    /// It is: the state is REACHABLE, STALE, DELAY, PROBE, PERMANENT or NOARP.
    Resolved(Mac),
    /// The kernel is asking for it, or nobody has asked.
    Pending,
    /// It did not answer.
    Failed,
}

/// Who keeps a neighbour entry from being forgotten.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Keeper {
    /// Nobody: it goes STALE and is collected.
    Nobody,
    /// We do: it is `managed` and has our mark.
    Weir,
    /// Somebody else: it is permanent, or learned from a control plane, or `managed` without our mark.
    Another,
}

impl Neighbour {
    /// The entry of an `RTM_NEWNEIGH` message; none if it is not an IP address on a link (a bridge's MAC table uses the same message).
    #[must_use]
    pub fn from_message(message: &NeighbourMessage) -> Option<(NeighbourKey, Self)> {
        let key = NeighbourKey { ifindex: message.header.ifindex, address: message.attributes.iter().find_map(destination)? };
        let is_proxy = message.header.flags.contains(NeighbourFlags::Proxy);
        (!is_proxy).then(|| (key, Self { resolution: resolution(message), keeper: keeper(message) }))
    }
}

/// The request to read one entry.
#[must_use]
pub fn read(key: NeighbourKey) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = if key.address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    message.header.ifindex = key.ifindex;
    message.attributes.push(NeighbourAttribute::Destination(key.address.into()));
    message
}

/// The entry to write so that the kernel resolves the address and keeps it resolved for ever (`ip neigh replace … managed`).
///
/// A kernel before 5.16 ignores `NTF_EXT_MANAGED`; `NTF_USE` makes every kernel resolve the address once. The state and MAC of an entry
/// that exists stay (linux `net/core/neighbour.c`, `__neigh_update`), except that it must not be permanent.
#[must_use]
pub fn hold(key: NeighbourKey) -> NeighbourMessage {
    let mut message = release(key);
    message.attributes.push(NeighbourAttribute::ExtFlags(NeighbourExtFlags::Managed));
    message.attributes.push(NeighbourAttribute::Protocol(RouteProtocol::from(WEIR_PROTOCOL)));
    message
}

/// The entry to write so that the kernel treats a held one as any other again. Deleting it would interrupt the host's own connections.
#[must_use]
pub fn release(key: NeighbourKey) -> NeighbourMessage {
    let mut message = read(key);
    message.header.flags = NeighbourFlags::Use;
    message
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the kernel's attributes are open-ended")]
fn destination(attribute: &NeighbourAttribute) -> Option<IpAddr> {
    match attribute {
        NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => Some((*v4).into()),
        NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => Some((*v6).into()),
        _ => None,
    }
}

fn resolution(message: &NeighbourMessage) -> Resolution {
    let mac = message.attributes.iter().find_map(|attribute| {
        if let NeighbourAttribute::LinkLayerAddress(bytes) = attribute { Mac::try_from(bytes.as_slice()).ok() } else { None }
    });
    match (message.header.state, mac) {
        (NeighbourState::Failed, _) => Resolution::Failed,
        (
            NeighbourState::Reachable
            | NeighbourState::Stale
            | NeighbourState::Delay
            | NeighbourState::Probe
            | NeighbourState::Permanent
            | NeighbourState::Noarp,
            Some(mac),
        ) => Resolution::Resolved(mac),
        _ => Resolution::Pending,
    }
}

fn keeper(message: &NeighbourMessage) -> Keeper {
    let has = |wanted: &NeighbourAttribute| message.attributes.contains(wanted);
    let is_managed =
        message.attributes.iter().any(|a| matches!(a, NeighbourAttribute::ExtFlags(flags) if flags.contains(NeighbourExtFlags::Managed)));
    let is_fixed = matches!(message.header.state, NeighbourState::Permanent | NeighbourState::Noarp)
        || message.header.flags.contains(NeighbourFlags::ExtLearned);
    if is_managed && has(&NeighbourAttribute::Protocol(RouteProtocol::from(WEIR_PROTOCOL))) {
        Keeper::Weir
    } else if is_managed || is_fixed {
        Keeper::Another
    } else {
        Keeper::Nobody
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: NeighbourKey = NeighbourKey { ifindex: 3, address: IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 9)) };
    const MAC: Mac = [2, 0, 0, 0, 0, 9];

    fn entry(state: NeighbourState, attributes: Vec<NeighbourAttribute>) -> Neighbour {
        let mut message = read(KEY);
        message.header.state = state;
        message.attributes.extend(attributes);
        let (key, neighbour) = Neighbour::from_message(&message).unwrap();
        assert_eq!(key, KEY);
        neighbour
    }

    #[test]
    fn a_mac_counts_in_every_state_in_which_the_kernel_would_send() {
        use NeighbourState as S;
        for (state, resolution) in [
            (S::Reachable, Resolution::Resolved(MAC)),
            (S::Stale, Resolution::Resolved(MAC)),
            (S::Delay, Resolution::Resolved(MAC)),
            (S::Probe, Resolution::Resolved(MAC)),
            (S::Permanent, Resolution::Resolved(MAC)),
            (S::Noarp, Resolution::Resolved(MAC)),
            (S::Incomplete, Resolution::Pending),
            (S::None, Resolution::Pending),
            (S::Failed, Resolution::Failed),
        ] {
            assert_eq!(entry(state, vec![NeighbourAttribute::LinkLayerAddress(MAC.to_vec())]).resolution, resolution, "{state}");
        }
        assert_eq!(entry(S::Noarp, vec![]).resolution, Resolution::Pending);
    }

    #[test]
    fn what_we_write_is_known_as_ours_and_what_others_keep_is_known_as_theirs() {
        let managed = NeighbourAttribute::ExtFlags(NeighbourExtFlags::Managed);
        assert_eq!(Neighbour::from_message(&hold(KEY)).unwrap().1.keeper, Keeper::Weir);
        assert_eq!(entry(NeighbourState::Reachable, vec![]).keeper, Keeper::Nobody);
        assert_eq!(entry(NeighbourState::Reachable, vec![managed]).keeper, Keeper::Another);
        assert_eq!(entry(NeighbourState::Permanent, vec![]).keeper, Keeper::Another);
        let mut learned = read(KEY);
        learned.header.flags = NeighbourFlags::ExtLearned;
        assert_eq!(Neighbour::from_message(&learned).unwrap().1.keeper, Keeper::Another);
    }

    #[test]
    fn entries_of_a_bridge_and_proxy_entries_are_no_neighbours() {
        let mut bridge = NeighbourMessage::default();
        bridge.attributes.push(NeighbourAttribute::LinkLayerAddress(MAC.to_vec()));
        assert_eq!(Neighbour::from_message(&bridge), None);
        let mut proxy = read(KEY);
        proxy.header.flags = NeighbourFlags::Proxy;
        assert_eq!(Neighbour::from_message(&proxy), None);
    }
}
