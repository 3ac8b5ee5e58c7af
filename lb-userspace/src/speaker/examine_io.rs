//! Whether this machine can hold virtual routers: for `weir doctor`.

use std::{collections::BTreeSet, net::IpAddr};

use super::urgency_io::refusals;
use crate::{
    config::model::{Config, VirtualRouter},
    dataplane::Finding,
    netlink::{AssignedAddress, Link},
    vrrp::terms::Family,
};

/// What there is to say of the virtual routers of a configuration, on a host with these links and addresses.
pub fn examine(config: &Config, links: &[Link], addresses: &[AssignedAddress]) -> Vec<Finding> {
    if config.vrrp.is_empty() {
        return Vec::new();
    }
    let refused = refusals();
    let urgency = Finding {
        what: "vrrp scheduling".to_owned(),
        ok: refused.is_empty(),
        detail: if refused.is_empty() { "real-time, memory locked".to_owned() } else { refused.join("; ") },
        hint: (!refused.is_empty()).then_some("run as root, or with CAP_SYS_NICE and CAP_IPC_LOCK"),
    };
    std::iter::once(urgency).chain(config.vrrp.iter().map(|(name, router)| place(name, router, links, addresses))).collect()
}

/// Whether a router has a link and an address to speak from.
fn place(name: &str, router: &VirtualRouter, links: &[Link], addresses: &[AssignedAddress]) -> Finding {
    let what = format!("vrrp {name}");
    let bad = |detail: String, hint| Finding { what: what.clone(), ok: false, detail, hint: Some(hint) };
    let interface = &router.interface;
    let Some(link) = links.iter().find(|link| link.name == *interface) else {
        return bad(format!("there is no interface {interface}"), "`interface` names the one that the other nodes are reached by");
    };
    if let Some(name) = router.virtual_mac.as_ref().and_then(|name| links.iter().find(|link| link.name == *name && !is_macvlan(link))) {
        return bad(
            format!("{} is another interface already", name.name),
            "virtual_mac = \"NAME\" gives its macvlan interface another name",
        );
    }
    let virtuals: BTreeSet<IpAddr> = router.addresses.iter().map(|one| one.address).collect();
    let family = router.addresses.first().map(|first| Family::of(first.address));
    let on_link = || addresses.iter().filter(|one| one.ifindex == link.ifindex && Some(Family::of(one.address)) == family);
    let is_there = match router.source {
        Some(source) => on_link().any(|one| one.address == source),
        None => on_link().any(|one| !virtuals.contains(&one.address) || router.priority.is_owner()),
    };
    if !is_there {
        let from = router.source.map_or_else(|| "an address of the family".to_owned(), |source| source.to_string());
        return bad(
            format!("{interface} has not {from} to speak from"),
            "give the interface an address of its own beside the virtual ones",
        );
    }
    let state = if link.is_usable() { "" } else { ", which is down" };
    Finding {
        what,
        ok: link.is_usable(),
        detail: format!("speaks on {interface}{state}"),
        hint: (!link.is_usable()).then_some("ip link set NAME up"),
    }
}

fn is_macvlan(link: &Link) -> bool {
    link.kind.as_deref() == Some("macvlan")
}
