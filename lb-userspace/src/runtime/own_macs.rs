//! Which frames are for this host, by their link-layer address.

use std::collections::BTreeSet;

use lb_common::maps::OwnMacs;

use crate::{config::model::Config, netlink::Link};

/// By which link-layer addresses this host takes frames on the interfaces of the configuration: theirs, those of interfaces upon them (macvlan, VLAN), and
/// those of the bridge or bond that they are ports of.
pub(super) fn own_macs(config: &Config, links: &[Link]) -> OwnMacs {
    let ours: BTreeSet<u32> = links.iter().filter(|link| config.node.interfaces.contains(&link.name)).map(|link| link.ifindex).collect();
    let is_upon = |link: &&Link| {
        !link.lower_is_elsewhere && link.kind.as_deref() != Some("veth") && link.lower.is_some_and(|lower| ours.contains(&lower))
    };
    let masters: BTreeSet<u32> = links.iter().filter(|link| ours.contains(&link.ifindex)).filter_map(|link| link.master).collect();
    let taken = links.iter().filter(|link| ours.contains(&link.ifindex) || masters.contains(&link.ifindex) || is_upon(link));
    let macs: Option<BTreeSet<[u8; 6]>> = taken.map(|link| link.mac).collect();
    // Frames without a link-layer address cannot be somebody else's.
    macs.map_or(OwnMacs::ANY, |macs| OwnMacs::new(&macs.into_iter().collect::<Vec<_>>()))
}
