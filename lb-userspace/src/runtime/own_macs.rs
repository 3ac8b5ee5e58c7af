//! Which frames are for this host, by their link-layer address.

use std::collections::BTreeSet;

use lb_common::maps::OwnMacs;

use crate::{config::model::Config, netlink::Link};

/// By which link-layer addresses this host takes frames that come in by the interfaces of the configuration: theirs, and those of every interface that
/// is upon one of these, or has one as its port, and so on (bridge, bond, macvlan, VLAN).
pub(super) fn own_macs(config: &Config, links: &[Link]) -> OwnMacs {
    let named = links.iter().filter(|link| config.node.interfaces.contains(&link.name)).map(|link| link.ifindex);
    let ours = stacked_upon(named.collect(), links);
    // The speaker of VRRP says itself when those are this host's.
    let virtual_macs: BTreeSet<&str> = config.vrrp.values().filter_map(|router| router.virtual_mac.as_deref()).collect();
    let is_ours = |link: &&Link| ours.contains(&link.ifindex) && !virtual_macs.contains(link.name.as_str());
    let macs: Option<BTreeSet<[u8; 6]>> = links.iter().filter(is_ours).map(|link| link.mac).collect();
    // Frames without a link-layer address cannot be somebody else's.
    macs.map_or(OwnMacs::ANY, |macs| OwnMacs::new(&macs.into_iter().collect::<Vec<_>>()))
}

/// These interfaces, by index, and every one that is upon one of these, or has one as its port, and so on.
pub(super) fn stacked_upon(mut ours: BTreeSet<u32>, links: &[Link]) -> BTreeSet<u32> {
    loop {
        let masters = links.iter().filter(|link| ours.contains(&link.ifindex)).filter_map(|link| link.master);
        let upon = links.iter().filter(|link| is_upon(link, &ours)).map(|link| link.ifindex);
        let more: BTreeSet<u32> = masters.chain(upon).filter(|ifindex| !ours.contains(ifindex)).collect();
        if more.is_empty() {
            return ours;
        }
        ours.extend(more);
    }
}

/// What a veth says is below it is its other end.
fn is_upon(link: &Link, ours: &BTreeSet<u32>) -> bool {
    !link.lower_is_elsewhere && link.kind.as_deref() != Some("veth") && link.lower.is_some_and(|lower| ours.contains(&lower))
}

#[cfg(test)]
mod tests {
    use lb_common::maps::OwnMacs;

    use super::own_macs;
    use crate::{
        config::{ConfigText, parse},
        netlink::Link,
    };

    fn link(ifindex: u32, kind: Option<&str>, master: Option<u32>, lower: Option<u32>) -> Link {
        Link {
            ifindex,
            name: format!("if{ifindex}"),
            mac: Some(mac(ifindex)),
            mtu: 1500,
            is_up: true,
            has_carrier: true,
            is_loopback: false,
            kind: kind.map(str::to_owned),
            vlan: None,
            master,
            lower,
            lower_is_elsewhere: false,
            xdp: None,
        }
    }

    const fn mac(ifindex: u32) -> [u8; 6] {
        [2, 0, 0, 0, 0, ifindex as u8]
    }

    #[test]
    fn what_is_stacked_upon_an_interface_takes_its_frames() {
        let (config, _) = parse(&ConfigText::new("weir.toml", "[node]\ninterfaces = \"if1\"\n"), "host").unwrap();
        let links = [
            link(1, None, Some(2), None),
            link(2, Some("bridge"), None, None),
            link(3, Some("macvlan"), None, Some(2)),
            link(4, Some("vlan"), None, Some(3)),
            link(5, None, Some(2), None),
            link(6, Some("veth"), None, Some(1)),
            link(7, Some("macvlan"), None, Some(5)),
        ];
        assert_eq!(own_macs(&config, &links), OwnMacs::new(&[mac(1), mac(2), mac(3), mac(4)]));
        assert!(own_macs(&config, &[Link { mac: None, ..link(1, None, None, None) }]).is_any());
    }
}
