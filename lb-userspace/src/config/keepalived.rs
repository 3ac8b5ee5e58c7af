//! What keepalived calls the keys of a virtual router, and its sections, for who writes `[vrrp.NAME]` from its configuration. ARCHITECTURE.md has the
//! table for people.

/// What Weir has for a section of keepalived's (keepalived.conf(5)).
pub(super) fn section_hint(word: &str) -> Option<&'static str> {
    SECTIONS.iter().find(|(section, _)| *section == word).map(|(_, hint)| *hint)
}

const SECTIONS: &[(&str, &str)] = &[
    ("vrrp_instance", "`[vrrp.NAME]`"),
    ("vrrp_sync_group", "the key `group` of each `[vrrp.NAME]`: routers that name the same one"),
    ("vrrp_script", "`track = [{ command = [\"/path/of/program\"], weight = -20 }]` in `[vrrp.NAME]`"),
    ("virtual_server", "`[listener.NAME]`, and the `[pool.NAME]` that it names"),
    ("real_server", "`servers.NAME = \"10.0.0.1\"` in `[pool.NAME]`"),
];

/// What Weir has for a word of keepalived's `vrrp_instance` and `vrrp_sync_group` (keepalived.conf(5)), where that is another one.
pub(super) fn hint(word: &str) -> Option<&'static str> {
    WORDS.iter().find(|(words, _)| words.contains(&word)).map(|(_, hint)| *hint)
}

const WORDS: &[(&[&str], &str)] = &[
    (&["state"], "there is none: the priority decides who is active; 255 is the owner of the addresses"),
    (&["virtual_router_id"], "`router_id`"),
    (&["vrrp_version"], "`version`"),
    (&["advert_int"], "`interval = \"1s\"`"),
    (&["authentication", "auth_type", "auth_pass"], "`password` with version 2, or `keys` between Weir nodes; there is no AH"),
    (&["virtual_ipaddress"], "`addresses = [\"198.51.100.1/24\"]`"),
    (
        &["virtual_ipaddress_excluded"],
        "there is none: all addresses are in `addresses`, and in adverts; make a second router for another family",
    ),
    (&["virtual_routes", "virtual_rules"], "there is none: the program of `notify` may set them"),
    (&["unicast_peer"], "`peers = [\"192.0.2.2\"]`"),
    (&["unicast_src_ip", "mcast_src_ip"], "`source`"),
    (&["unicast_ttl"], "there is none: adverts leave with 255; `min_hop_limit` says with how little they are taken"),
    (&["min_ttl"], "`min_hop_limit`"),
    (&["nopreempt"], "`preempt = false`"),
    (&["garp_master_delay"], "`announce = { again_after = \"5s\" }`"),
    (&["garp_master_refresh"], "`announce = { every = \"60s\" }`"),
    (&["garp_lower_prio_delay"], "`announce = { least_gap = \"1s\" }` is the nearest"),
    (&["garp_master_repeat", "garp_master_refresh_repeat", "garp_lower_prio_repeat"], "there is none; `announce` has the times"),
    (&["use_vmac"], "`virtual_mac = true`, or the name of its interface"),
    (&["vmac_xmit_base"], "there is none: adverts of an active router come from the virtual MAC"),
    (&["use_ipvlan"], "there is none: `virtual_mac` makes a macvlan"),
    (&["track_interface"], "`track = [{ interface = \"eth1\" }]`"),
    (&["track_script"], "`track = [{ command = [\"/path/of/program\"], weight = -20 }]`"),
    (&["track_file"], "`track = [{ file = \"/run/ok\" }]`: up while it is there; a number in it means nothing"),
    (&["track_process", "track_bfd"], "there is none: a program that looks is tracked by `track = [{ command = [\"/path/of/program\"] }]`"),
    (&["dont_track_primary"], "there is none: without a carrier on `interface` a router has a fault"),
    (
        &["notify_master", "notify_backup", "notify_fault", "notify_stop", "notify_deleted", "notify_master_rx_lower_pri"],
        "`notify`: one program for all states, which finds WEIR_VRRP_STATE in its environment",
    ),
    (&["notify_fifo", "smtp_alert"], "there is none: the program of `notify` is told of each change"),
    (&["script_user"], "there is none: programs run as the daemon does"),
    (&["sync_group", "vrrp_sync_group"], "`group`: routers that name the same one"),
    (&["accept", "no_accept"], "there is none: who is active takes packets to the addresses"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_known_once() {
        let mut known = std::collections::BTreeSet::new();
        assert!(WORDS.iter().flat_map(|(words, _)| *words).all(|word| known.insert(word)));
    }
}
