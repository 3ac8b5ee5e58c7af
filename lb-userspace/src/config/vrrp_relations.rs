//! What virtual routers require of each other and of the other sections, and what of them is hardly meant.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use toml::Spanned;

use super::{
    ConfigText, Document,
    model::{Track, Tracked, VirtualAddress},
    pool::PoolSection,
    reader::suggestion,
    report::Report,
    vrrp::VrrpSection,
};
use crate::vrrp::{
    settings::Preempt,
    terms::{Priority, RouterId, Version},
    track::{Effect, reachable},
};

const LOOPBACK: &str = "lo";

/// Errors.
pub(super) fn check(document: &Document, report: &mut Report) {
    check_ids(document, report);
    check_addresses(document, report);
    check_macvlans(document, report);
    check_loopback(document, report);
    let pools: Vec<&str> = document.pools.keys().map(String::as_str).collect();
    for section in document.vrrp.values() {
        for track in &section.track {
            if let Tracked::Pool { name, .. } = &track.get_ref().what
                && !document.pools.contains_key(name)
            {
                report.error_hint(track.span(), format!("there is no pool `{name}`"), suggestion(name, &pools));
            }
        }
    }
}

/// The sections in the order of the text.
fn in_order(document: &Document) -> Vec<(&String, &VrrpSection)> {
    let mut sections: Vec<_> = document.vrrp.iter().collect();
    sections.sort_by_key(|(_, section)| section.header.start);
    sections
}

/// Two routers of one family with the same number on an interface are one to all others.
fn check_ids(document: &Document, report: &mut Report) {
    let mut known: BTreeMap<(&str, RouterId, bool), &str> = BTreeMap::new();
    for (name, section) in in_order(document) {
        let (Some(interface), Some(router), Some(first)) = (&section.interface, &section.router, section.addresses.first()) else {
            continue;
        };
        let key = (interface.get_ref().as_str(), *router.get_ref(), first.get_ref().address.is_ipv4());
        match known.get(&key) {
            None => _ = known.insert(key, name),
            Some(other) => {
                let message = format!("router_id {} is virtual router `{other}`'s on {} already", router.get_ref(), interface.get_ref());
                report.error_hint(router.span(), message, "each virtual router of a link has a number of its own");
            }
        }
    }
}

fn check_addresses(document: &Document, report: &mut Report) {
    let mut known: BTreeMap<IpAddr, &str> = BTreeMap::new();
    for (name, section) in in_order(document) {
        for address in &section.addresses {
            let VirtualAddress { address: ip, .. } = address.get_ref();
            match known.get(ip) {
                // Twice in one router has been told.
                Some(other) if *other != name.as_str() => {
                    report.error_hint(address.span(), format!("{ip} is an address of virtual router `{other}` already"), "leave one out");
                }
                Some(_) => {}
                None => _ = known.insert(*ip, name),
            }
        }
    }
}

/// A macvlan belongs to one router, and is no interface that is there for itself.
fn check_macvlans(document: &Document, report: &mut Report) {
    let mut known: BTreeMap<&str, &str> = BTreeMap::new();
    let used: BTreeSet<&str> = document.vrrp.values().filter_map(|section| Some(section.interface.as_ref()?.get_ref().as_str())).collect();
    for (name, section) in in_order(document) {
        let (Ok(model), Some(span)) = (&section.model, &section.virtual_mac) else { continue };
        let Some(macvlan) = model.virtual_mac.as_deref() else { continue };
        let hint = "virtual_mac = \"NAME\" gives its macvlan interface another name";
        if used.contains(macvlan) {
            report.error_hint(span.clone(), format!("virtual routers speak on {macvlan}: it cannot be made for another one"), hint);
        }
        match known.get(macvlan) {
            None => _ = known.insert(macvlan, name),
            Some(other) => _ = report.error_hint(span.clone(), format!("{macvlan} is virtual router `{other}`'s interface already"), hint),
        }
    }
}

/// Nobody else is on the loopback interface, and there is one only.
fn check_loopback(document: &Document, report: &mut Report) {
    for section in document.vrrp.values() {
        if let Some(interface) = section.interface.as_ref().filter(|interface| interface.get_ref() == LOOPBACK) {
            let hint = "name the interface that the other routers are reached by: \"eth0\"";
            report.error_hint(interface.span(), "no other router is reached by lo", hint);
        }
        if let (Ok(model), Some(span)) = (&section.model, &section.virtual_mac)
            && model.virtual_mac.as_deref() == Some(LOOPBACK)
        {
            report.error_hint(
                span.clone(),
                "lo cannot be a macvlan interface",
                "virtual_mac = true has it named after the router's number",
            );
        }
    }
}

/// What is hardly meant.
pub(super) fn advise(document: &Document, text: &ConfigText, report: &mut Report) {
    let bound: BTreeSet<IpAddr> = document.listeners.values().flat_map(|l| &l.binds).map(|bind| bind.get_ref().address).collect();
    let mut groups: BTreeMap<&str, usize> = BTreeMap::new();
    for section in document.vrrp.values() {
        section.group.iter().for_each(|group| *groups.entry(group.get_ref().as_str()).or_default() += 1);
    }
    for (name, section) in &document.vrrp {
        for address in section.addresses.iter().filter(|address| !bound.contains(&address.get_ref().address)) {
            let message = format!("no listener binds {}, an address of virtual router `{name}`", address.get_ref().address);
            report.advise(address.span(), message, "add it to a listener's `bind`, or it is held for the host alone");
        }
        if let Some(group) = section.group.as_ref().filter(|group| groups.get(group.get_ref().as_str()) == Some(&1)) {
            report.warn(group.span(), format!("virtual router `{name}` is alone in group `{}`", group.get_ref()), None);
        }
        if let Some(secret) = section.secret.as_ref().filter(|secret| text.is_exposed_at(secret.start)) {
            let hint = "whoever may read the file may read it: give the file mode 0600";
            report.advise(secret.clone(), "a secret stands in the file", hint);
        }
        if let (Some(span), Ok(model)) = (&section.checksum, &section.model)
            && (model.identity.version == Version::V2 || model.addresses.iter().any(|one| one.address.is_ipv6()))
        {
            report.warn(span.clone(), "`checksum` has no effect: there is a choice for version 3 over ipv4 alone", None);
        }
        advise_group(document, name, section, report);
        advise_weights(name, section, report);
        advise_programs(document, name, section, &bound, report);
        advise_macvlan(document, name, section, report);
        advise_tracks(name, section, report);
        advise_servers(document, name, section, report);
        if let Ok(model) = &section.model
            && model.priority.is_owner()
            && model.preempt != Preempt::AtOnce
        {
            report.warn(section.header.clone(), "`preempt` has no effect: the owner of the addresses always preempts", None);
        }
    }
}

/// Routers of a group that compare differently with another node's cannot go together.
fn advise_group(document: &Document, name: &str, section: &VrrpSection, report: &mut Report) {
    let (Some(group), Ok(model)) = (&section.group, &section.model) else { return };
    let first = in_order(document).into_iter().find_map(|(other, section)| {
        let is_member = section.group.as_ref().is_some_and(|of| of.get_ref() == group.get_ref());
        Some((other, section.model.as_ref().ok()?)).filter(|_| is_member)
    });
    if let Some((other, first)) = first
        && other != name
        && (first.priority, first.preempt) != (model.priority, model.preempt)
    {
        let message = format!("virtual routers `{other}` and `{name}` of group `{}` differ in `priority` or `preempt`", group.get_ref());
        report.warn(group.span(), message, Some("they become active together: give them the same"));
    }
}

fn advise_weights(name: &str, section: &VrrpSection, report: &mut Report) {
    let Ok(model) = &section.model else { return };
    let effects: Vec<Effect> = model.track.iter().map(|track| track.effect).collect();
    let has_weights = effects.iter().any(|effect| matches!(effect, Effect::Weight(_)));
    let (least, most) = reachable(model.priority, &effects);
    if has_weights && (least, most) == (model.priority, model.priority) {
        let span = section.priority.as_ref().map_or(section.header.clone(), |priority| priority.span());
        let cure = if model.priority == Priority::OWNER { "an owner's priority is never moved: take 254" } else { "take another priority" };
        report.warn(span, format!("the weights of virtual router `{name}` can never change its priority"), Some(cure));
    }
}

/// Packets to addresses that listeners bind come in where there is no program.
fn advise_programs(document: &Document, name: &str, section: &VrrpSection, bound: &BTreeSet<IpAddr>, report: &mut Report) {
    let (Ok(node), Some(interface)) = (&document.node.model, &section.interface) else { return };
    // The program of an interface sees the packets of its VLANs, too.
    let has_program =
        |device: &str| node.interfaces.iter().any(|one| device == one || device.split_once('.').is_some_and(|(of, _)| of == one));
    let mut known = BTreeSet::new();
    for address in section.addresses.iter().filter(|address| bound.contains(&address.get_ref().address)) {
        let device = address.get_ref().device.as_deref().filter(|device| *device != LOOPBACK);
        let (device, span) = device.map_or((interface.get_ref().as_str(), interface.span()), |device| (device, address.span()));
        if !has_program(device) && known.insert(device) {
            let message =
                format!("{device}, where virtual router `{name}` has addresses that listeners bind, is not among node.interfaces");
            let hint = "packets that come in there meet no program: add it to node.interfaces, unless one of these is below it";
            report.warn(span, message, Some(hint));
        }
    }
}

/// A macvlan of a name that means another interface elsewhere.
fn advise_macvlan(document: &Document, name: &str, section: &VrrpSection, report: &mut Report) {
    let (Ok(model), Some(span), Ok(node)) = (&section.model, &section.virtual_mac, &document.node.model) else { return };
    let Some(macvlan) = model.virtual_mac.as_deref() else { return };
    let mut warn = |place: &str| {
        let message = format!("{macvlan}, the macvlan interface of virtual router `{name}`, is named in {place} too");
        report.warn(span.clone(), message, Some("Weir makes it: give it a name that no other interface has"));
    };
    if node.interfaces.iter().any(|interface| interface == macvlan) {
        warn("node.interfaces");
    }
    for (other, section) in &document.vrrp {
        let is_tracked = |track: &Spanned<Track>| matches!(&track.get_ref().what, Tracked::Interface(interface) if interface == macvlan);
        if section.track.iter().any(is_tracked) {
            warn(&format!("vrrp.{other}.track"));
        }
        if section.addresses.iter().any(|address| address.get_ref().device.as_deref() == Some(macvlan)) {
            warn(&format!("vrrp.{other}.addresses"));
        }
    }
}

fn advise_tracks(name: &str, section: &VrrpSection, report: &mut Report) {
    let mut known = BTreeSet::new();
    for track in section.track.iter().filter(|track| !known.insert(&track.get_ref().what)) {
        report.warn(track.span(), format!("virtual router `{name}` tracks {} twice", track.get_ref().what), Some("leave one out"));
    }
}

/// Packets to such a server would be taken by whoever holds the address.
fn advise_servers(document: &Document, name: &str, section: &VrrpSection, report: &mut Report) {
    for address in &section.addresses {
        let ip = address.get_ref().address;
        let is_its = |pool: &PoolSection| pool.servers.values().any(|server| server.server.address == ip);
        for (pool, _) in document.pools.iter().filter(|(_, section)| is_its(section)) {
            let message = format!("{ip} is an address of virtual router `{name}` and of a server of pool `{pool}`");
            report.warn(address.span(), message, Some("name servers by addresses that they keep"));
        }
    }
}
