//! Which keys of two configurations differ, by their sections: what a difference of the maps does not show, such as checks. Pure.

use std::{collections::BTreeMap, sync::Arc};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::difference::Change;
use crate::config::model::{Config, Dns, Listener, Node, Pool, Secret, VirtualRouter};

/// How a section of the configuration differs.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct SectionDifference {
    /// `node`, `admin`, `dns`, `listener NAME`, `pool NAME`, `vrrp NAME`.
    #[schema(example = "pool web")]
    pub section: String,
    /// Whether it comes, goes or changes.
    pub change: Change,
    /// The keys that differ, `[defaults]` included; none if the section comes or goes.
    pub keys: Vec<String>,
}

/// The sections that differ: the node first, then listeners, pools and virtual routers by name. Keys that only a start can change are told elsewhere.
pub fn sections(old: &Config, new: &Config) -> Vec<SectionDifference> {
    let single = [
        ("node", node_keys(&old.node, &new.node)),
        ("admin", if old.admin == new.admin { Vec::new() } else { admin_keys(old, new) }),
        ("dns", dns_keys(&old.dns, &new.dns)),
    ];
    let single = single.into_iter().filter(|(_, keys)| !keys.is_empty()).map(|(section, keys)| changed(section.to_owned(), &keys));
    let listeners = named("listener", &old.listeners, &new.listeners, listener_keys);
    let pools = named("pool", &old.pools, &new.pools, |old, new| if Arc::ptr_eq(old, new) { Vec::new() } else { pool_keys(old, new) });
    let routers = named("vrrp", &old.vrrp, &new.vrrp, router_keys);
    single.chain(listeners).chain(pools).chain(routers).collect()
}

fn changed(section: String, keys: &[&str]) -> SectionDifference {
    SectionDifference { section, change: Change::Changed, keys: keys.iter().map(|&key| key.to_owned()).collect() }
}

fn named<T>(
    kind: &str,
    old: &BTreeMap<String, T>,
    new: &BTreeMap<String, T>,
    keys: impl Fn(&T, &T) -> Vec<&'static str>,
) -> Vec<SectionDifference> {
    let section = |name: &String| format!("{kind} {name}");
    let whole = |name: &String, change| SectionDifference { section: section(name), change, keys: Vec::new() };
    let gone = old.keys().filter(|name| !new.contains_key(*name)).map(|name| whole(name, Change::Removed));
    let others = new.iter().filter_map(|(name, new)| match old.get(name) {
        None => Some(whole(name, Change::Added)),
        Some(old) => Some(keys(old, new)).filter(|keys| !keys.is_empty()).map(|keys| changed(section(name), &keys)),
    });
    let mut sections: Vec<SectionDifference> = gone.chain(others).collect();
    sections.sort_by(|one, two| one.section.cmp(&two.section));
    sections
}

fn differing<const N: usize>(keys: [(&'static str, bool); N]) -> Vec<&'static str> {
    keys.into_iter().filter(|(_, is_same)| !is_same).map(|(key, _)| key).collect()
}

fn node_keys(old: &Node, new: &Node) -> Vec<&'static str> {
    differing([
        ("name", old.name == new.name),
        ("interfaces", old.interfaces == new.interfaces),
        ("addresses", old.addresses == new.addresses),
        ("tunnel_source4", old.tunnel_source4 == new.tunnel_source4),
        ("tunnel_source6", old.tunnel_source6 == new.tunnel_source6),
    ])
}

fn admin_keys(old: &Config, new: &Config) -> Vec<&'static str> {
    let (old, new) = (&old.admin, &new.admin);
    differing([("socket", old.socket == new.socket), ("group", old.group == new.group), ("users", old.users == new.users)])
}

fn dns_keys(old: &Dns, new: &Dns) -> Vec<&'static str> {
    differing([
        ("nameservers", old.nameservers == new.nameservers),
        ("ttl_min", old.ttl_min == new.ttl_min),
        ("ttl_max", old.ttl_max == new.ttl_max),
        ("timeout", old.timeout == new.timeout),
    ])
}

fn listener_keys(old: &Listener, new: &Listener) -> Vec<&'static str> {
    differing([
        ("bind", old.binds == new.binds),
        ("pool", old.pool == new.pool),
        ("allow", old.allow == new.allow),
        ("deny", old.deny == new.deny),
        ("conn_rate", old.conn_rate == new.conn_rate),
        ("slots", old.slots == new.slots),
        ("timeout.tcp", old.tcp_idle == new.tcp_idle),
        ("timeout.udp", old.udp_idle == new.udp_idle),
        ("udp", old.udp == new.udp),
    ])
}

fn pool_keys(old: &Pool, new: &Pool) -> Vec<&'static str> {
    differing([
        ("forward", old.forward == new.forward),
        ("balance", old.balance == new.balance),
        ("on_down", old.on_down == new.on_down),
        ("check", old.check == new.check),
        ("slow_start", old.slow_start == new.slow_start),
        ("panic_threshold", old.panic_threshold_pct == new.panic_threshold_pct),
        ("passive_hints", old.passive_hints == new.passive_hints),
        ("servers", old.servers == new.servers && old.names == new.names),
    ])
}

fn router_keys(old: &VirtualRouter, new: &VirtualRouter) -> Vec<&'static str> {
    let password = |router: &VirtualRouter| if let Secret::Password(password) = router.secret { Some(password) } else { None };
    let keys = |router: &VirtualRouter| if let Secret::Keys { ring, sends } = &router.secret { Some((ring.clone(), *sends)) } else { None };
    let ((old_ring, old_key), (new_ring, new_key)) = (keys(old).unzip(), keys(new).unzip());
    differing([
        ("interface", old.interface == new.interface),
        ("router_id", old.identity.router == new.identity.router),
        ("version", old.identity.version == new.identity.version),
        ("priority", old.priority == new.priority),
        ("interval", old.interval == new.interval),
        ("addresses", old.addresses == new.addresses),
        ("virtual_mac", old.virtual_mac == new.virtual_mac),
        ("source", old.source == new.source),
        ("peers", old.peers == new.peers),
        ("min_hop_limit", old.min_hop_limit == new.min_hop_limit),
        ("preempt", old.preempt == new.preempt),
        ("start_delay", old.start_delay == new.start_delay),
        ("yield_hold", old.yield_hold == new.yield_hold),
        ("announce", old.announcing == new.announcing),
        ("password", password(old) == password(new)),
        ("keys", old_ring == new_ring),
        ("key", old_key == new_key),
        ("checksum", old.checksum == new.checksum),
        ("track", old.track == new.track),
        ("group", old.group == new.group),
        ("notify", old.notify == new.notify),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{ConfigText, parse};

    fn config(text: &str) -> Config {
        parse(&ConfigText::new("weir.toml", text), "host").unwrap().0
    }

    #[test]
    fn sections_that_differ_are_told_with_their_keys() {
        let old = config(
            "[node]\ninterfaces = 'eth0'\nslot_seed = 's'\n[listener.a]\nmode = 'l4'\nbind = '192.0.2.1:80'\npool = 'a'\n\
             [pool.a]\nservers.s = '10.0.0.1'\n[pool.b]\nservers.s = '10.0.0.1'\n",
        );
        let new = config(
            "[node]\ninterfaces = ['eth0', 'eth1']\nslot_seed = 's'\n[admin]\nusers = 'root'\n\
             [listener.a]\nmode = 'l4'\nbind = '192.0.2.1:80'\npool = 'a'\ndeny = '10.0.0.0/8'\n[pool.a]\nslow_start = '5s'\ncheck.tcp = true\n\
             [pool.a.servers]\ns = { address = '10.0.0.1', weight = 2 }\n[pool.c]\nservers.s = '10.0.0.1'\n",
        );
        let told: Vec<String> = sections(&old, &new)
            .into_iter()
            .map(|SectionDifference { section, change, keys }| format!("{section} {change:?} {}", keys.join(" ")))
            .collect();
        let expected = [
            "node Changed interfaces",
            "admin Changed users",
            "listener a Changed deny",
            "pool a Changed check slow_start servers",
            "pool b Removed ",
            "pool c Added ",
        ];
        assert_eq!(told, expected);
        assert_eq!(sections(&new, &new), []);
    }
    #[test]
    fn virtual_routers_and_names_that_differ_are_told_with_their_keys() {
        let with = |rest: &str| {
            config(&format!(
                "[node]\ninterfaces = 'eth0'\nslot_seed = 's'\n[listener.a]\nmode = 'l4'\nbind = '192.0.2.1:80'\npool = 'a'\n\
                 [pool.a]\nservers.s = '10.0.0.1'\n{rest}"
            ))
        };
        let router = |name: &str, id: u8, rest: &str| {
            format!("[vrrp.{name}]\ninterface = 'eth0'\nrouter_id = {id}\naddresses = '192.0.2.{id}'\n{rest}\n")
        };
        let one = |rest: &str| with(&router("www", 1, rest));
        let told = |old: &Config, new: &Config| -> Vec<String> {
            let line = |SectionDifference { section, change, keys }| format!("{section} {change:?} {}", keys.join(" "));
            sections(old, new).into_iter().map(line).collect()
        };
        let plain = one("");
        for (changed, keys) in [
            ("priority = 120\ntrack = [{ file = '/x' }]", "priority track"),
            ("version = 2\npassword = 'x'", "version password"),
            ("keys = { 1 = '0123456789abcdef' }", "keys key"),
            ("interval = '10ms'\nvirtual_mac = true\nsource = '192.0.2.9'\npeers = '192.0.2.8'", "interval virtual_mac source peers"),
            ("preempt = false\nstart_delay = '1s'\nyield_hold = '1s'\nannounce.every = 'off'", "preempt start_delay yield_hold announce"),
            ("checksum = 'rfc'\ngroup = 'g'\nnotify = '/bin/true'", "checksum group notify"),
        ] {
            assert_eq!(told(&plain, &one(changed)), [format!("vrrp www Changed {keys}")]);
        }
        let ring = |key: u8| one(&format!("keys = {{ 1 = '0123456789abcdef', 2 = '0123456789abcdef' }}\nkey = {key}"));
        assert_eq!(told(&ring(1), &ring(2)), ["vrrp www Changed key"]);
        assert_eq!(told(&plain, &with(&router("www", 2, ""))), ["vrrp www Changed router_id addresses"]);
        assert_eq!(told(&plain, &with(&router("mail", 1, ""))), ["vrrp mail Added ", "vrrp www Removed "]);
        assert_eq!(told(&with(""), &with("[dns]\ntimeout = '1s'\n")), ["dns Changed timeout"]);
        assert_eq!(told(&plain, &plain), [""; 0]);
    }
}
