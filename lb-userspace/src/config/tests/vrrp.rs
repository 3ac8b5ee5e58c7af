//! `[vrrp.NAME]`.

use std::time::Duration;

use super::{
    super::model::{Secret, Tracked},
    NODE, accepted, findings, read,
};
use crate::vrrp::{
    packet::ChecksumForm,
    settings::{Announcing, Preempt},
    terms::{Priority, Version},
    track::Effect,
};

const WEB: &str = "[listener.web]\nmode = 'l4'\nbind = '192.0.2.10:80'\npool = 'web'\n[pool.web]\nservers.a = '10.0.0.1'\n";

fn with(router: &str) -> String {
    format!("{NODE}{WEB}[vrrp.www]\n{router}\n")
}

#[test]
fn the_smallest_router_has_the_documented_defaults() {
    let config = accepted(&with("interface = 'eth0'\nrouter_id = 7\naddresses = '192.0.2.10'"));
    let router = &config.vrrp["www"];
    assert_eq!((router.priority.number(), router.interval.duration()), (100, Duration::from_secs(1)));
    assert_eq!((router.identity.router.number(), router.identity.version), (7, Version::V3));
    assert_eq!((router.addresses[0].prefix_len, router.preempt, router.start_delay), (32, Preempt::AtOnce, Duration::ZERO));
    assert_eq!((router.announcing, router.checksum, router.yield_hold), (Announcing::default(), None, None));
    assert_eq!((&router.secret, router.track.len(), router.peers.len()), (&Secret::None, 0, 0));
}

#[test]
fn every_key_is_understood() {
    let text = with(
        "interface = 'eth0'\nrouter_id = 255\npriority = 200\nversion = 3\ninterval = '10ms'\nsource = '192.0.2.2'\n\
         addresses = [{ address = '192.0.2.10/24', device = 'eth1', label = 'eth1:vip' }]\npeers = ['192.0.2.3']\npreempt = '30s'\n\
         start_delay = '5s'\nyield_hold = '1m'\nchecksum = 'pseudo-header'\ngroup = 'all'\nnotify = ['/bin/true', 'x']\n\
         announce = { again_after = 'off', every = '10s', least_gap = '2s' }\nkeys = { 1 = '0123456789abcdef', 2 = 'fedcba9876543210' }\nkey = 1\n\
         track = [{ interface = 'eth1' }, { pool = 'web', share = '50%', weight = -20 }, { file = '/run/ok', weight = 5 }, { command = '/bin/true' }, { data_plane = true }]",
    );
    let (config, _) = read(&text).unwrap();
    let router = &config.vrrp["www"];
    assert_eq!((router.preempt, router.yield_hold), (Preempt::After(Duration::from_secs(30)), Some(Duration::from_secs(60))));
    assert_eq!((router.announcing.again_after, router.announcing.every), (None, Some(Duration::from_secs(10))));
    assert_eq!((router.checksum, router.priority), (Some(ChecksumForm::PseudoHeader), Priority::new(200).unwrap()));
    assert!(matches!(&router.secret, Secret::Keys { ring, sends: 1 } if ring.len() == 2));
    assert_eq!(router.addresses[0].label.as_deref(), Some("eth1:vip"));
    assert_eq!(router.track[0].effect, Effect::Fault);
    assert_eq!(router.track[1].what, Tracked::Pool { name: "web".into(), share_pct: 50 });
    assert_eq!(config.programs().count(), 2);
}

#[test]
fn a_virtual_mac_has_an_interface_of_its_own() {
    let named = |virtual_mac: &str| {
        let router = format!("interface = 'eth0'\nrouter_id = 7\naddresses = '192.0.2.10'\nvirtual_mac = {virtual_mac}");
        accepted(&with(&router)).vrrp["www"].virtual_mac.clone()
    };
    assert_eq!([named("true"), named("'vip7'"), named("false")], [Some("vrrp4-7".into()), Some("vip7".into()), None]);
    let text = format!(
        "{NODE}{WEB}[vrrp.a]\ninterface = 'eth0'\nrouter_id = 7\naddresses = '192.0.2.10'\nvirtual_mac = true\n\
         [vrrp.b]\ninterface = 'eth1'\nrouter_id = 7\naddresses = '192.0.2.11'\nvirtual_mac = true\n\
         [vrrp.c]\ninterface = 'eth1'\nrouter_id = 8\naddresses = [{{ address = '192.0.2.12', device = 'eth2' }}]\nvirtual_mac = true\n\
         [vrrp.d]\ninterface = 'eth1'\nrouter_id = 9\naddresses = '192.0.2.13'\nvirtual_mac = 'eth0'\n"
    );
    let errors: Vec<String> = findings(&text).into_iter().filter(|finding| finding.contains("error")).collect();
    assert_eq!(
        errors,
        [
            "19:15: error: vrrp4-7 is virtual router `a`'s interface already | virtual_mac = \"NAME\" gives its macvlan interface another name",
            "23:14: error: with `virtual_mac` an address has no other device | leave `device` out",
            "29:15: error: virtual routers speak on eth0: it cannot be made for another one | virtual_mac = \"NAME\" gives its macvlan interface another name",
        ]
    );
}

#[test]
fn what_contradicts_itself_is_told() {
    let text = with(
        "interface = 'eth0'\nrouter_id = 7\naddresses = ['192.0.2.0/24', '192.0.2.255/24', '192.0.2.10/31', '192.0.2.9/24']\nsource = '192.0.2.9'\n\
         preempt = '5s'\npreempt_delay = '3s'\nmin_hop_limit = 64\nannounce = { every = '1us' }",
    );
    let errors: Vec<String> = findings(&text).into_iter().filter(|finding| finding.contains("error")).collect();
    assert_eq!(
        errors,
        [
            "13:14: error: 192.0.2.0 is of a network, not of a host | take one between",
            "13:30: error: 192.0.2.255 is of a network, not of a host | take one between",
            "14:10: error: 192.0.2.9 is a virtual address | a node speaks from an address that it keeps; priority = 255 is for the owner of the addresses",
            "16:17: error: `preempt` says otherwise when it preempts | `preempt = \"5s\"` and `preempt_delay = \"5s\"` say the same",
            "17:17: error: multicast adverts come from this link, with 255 | leave `min_hop_limit` out, or give `peers`",
            "18:22: error: `vrrp.www.announce.every` must be 1s or more | or \"off\"",
        ]
    );
    let text = format!(
        "{NODE}{WEB}[vrrp.a]\ninterface = 'eth0'\nrouter_id = 7\naddresses = '192.0.2.10'\ngroup = 'g'\npeers = ['192.0.2.2', '192.0.2.2']\n\
         [vrrp.b]\ninterface = 'eth0'\nrouter_id = 7\naddresses = '2001:db8::1'\ngroup = 'g'\npriority = 120\nchecksum = 'rfc'\n"
    );
    let warnings: Vec<String> = findings(&text).into_iter().filter(|finding| finding.contains("warning")).collect();
    for wanted in [
        "15:23: warning: peer 192.0.2.2 is given twice",
        "20:9: warning: virtual routers `a` and `b` of group `g` differ in `priority` or `preempt` | they become active together: give them the same",
        "22:12: warning: `checksum` has no effect: there is a choice for version 3 over ipv4 alone",
    ] {
        assert!(warnings.iter().any(|warning| warning == wanted), "{wanted}: {warnings:#?}");
    }
    let limit = |peers: &str| {
        let router = format!("interface = 'eth0'\nrouter_id = 7\naddresses = '2001:db8::1'\n{peers}");
        read(&with(&router)).unwrap().0.vrrp["www"].min_hop_limit
    };
    assert_eq!([limit(""), limit("peers = 'fd00::2'"), limit("peers = 'fd00::2'\nmin_hop_limit = 255")], [255, 64, 255]);
}

#[test]
fn announcements_are_a_second_apart_or_off() {
    let of = |every: &str| with(&format!("interface = 'eth0'\nrouter_id = 7\naddresses = '192.0.2.10'\nannounce.every = '{every}'"));
    for every in ["0s", "0ms", "999ms"] {
        assert_eq!(findings(&of(every)), ["14:18: error: `vrrp.www.announce.every` must be 1s or more | or \"off\""], "{every}");
    }
    let read = |every: &str| accepted(&of(every)).vrrp["www"].announcing.every;
    assert_eq!([read("off"), read("1s")], [None, Some(Duration::from_secs(1))]);
}

#[test]
fn errors_of_a_router_are_told_at_once() {
    let text = with(
        "interface = 'eth0'\nrouter_id = 0\nversion = 2\ninterval = '100ms'\naddresses = ['192.0.2.10/33', '2001:db8::1/64', '2001:db8::1/64']\n\
         password = 'longer than eight'\npriorty = 3\ntrack = [{ pool = 'wbe' }, { file = '/x', interface = 'eth0' }]",
    );
    assert_eq!(
        findings(&text),
        [
            "12:13: error: `vrrp.www.router_id` must be from 1 to 255, not 0",
            "14:12: error: bad value for `vrrp.www.interval`: an advert interval of version 2 is 1s to 255s, in whole seconds | the same on all nodes: \"1s\", \"2s\"",
            "15:14: error: bad value for `vrrp.www.addresses`: the prefix of \"192.0.2.10/33\" must have from 1 to 32 bits | write \"198.51.100.1/24\", or \"198.51.100.1\" for a whole address",
            "15:31: error: version 2 of vrrp has no ipv6 | leave `version` out: version 3 has both",
            "15:49: error: address 2001:db8::1 is given twice | leave one out",
            "16:12: error: bad value for `vrrp.www.password`: a password of version 2 has 1 to 8 bytes | all nodes have the same; everybody on the link can read it",
            "17:1: error: unknown key `priorty` in [vrrp.www] | did you mean `priority`?",
            "18:28: error: one thing is tracked by each entry | one of `interface`, `pool`, `file`, `command`, `data_plane = true`; `weight` goes with any of them",
        ]
    );
}

#[test]
fn routers_are_not_in_each_others_way() {
    let text = format!(
        "{}[vrrp.b]\ninterface = 'eth0'\nrouter_id = 7\naddresses = '192.0.2.10'\ntrack = [{{ pool = 'wbe' }}]\n",
        with("interface = 'eth0'\nrouter_id = 7\naddresses = '192.0.2.10'")
    );
    assert_eq!(
        findings(&text),
        [
            "16:13: error: router_id 7 is virtual router `www`'s on eth0 already | each virtual router of a link has a number of its own",
            "17:13: error: 192.0.2.10 is an address of virtual router `www` already | leave one out",
            "18:10: error: there is no pool `wbe` | did you mean `web`?",
        ]
    );
}

#[test]
fn what_is_hardly_meant_is_told() {
    let text = with(
        "interface = 'eth0'\nrouter_id = 7\npriority = 255\naddresses = '192.0.2.11'\ngroup = 'g'\npreempt = false\n\
         track = [{ file = '/x', weight = -20 }]\nversion = 2\npassword = 'x'",
    );
    assert_eq!(
        findings(&text),
        [
            "10:1: warning: `preempt` has no effect: the owner of the addresses always preempts",
            "13:12: warning: the weights of virtual router `www` can never change its priority | an owner's priority is never moved: take 254",
            "14:13: advice: no listener binds 192.0.2.11, an address of virtual router `www` | add it to a listener's `bind`, or it is held for the host alone",
            "15:9: warning: virtual router `www` is alone in group `g`",
            "19:12: advice: a secret stands in the file | whoever may read the file may read it: give the file mode 0600",
        ]
    );
}

#[test]
fn a_prefix_that_is_none_is_told_with_what_it_may_be() {
    let told = |address: &str| {
        let found = findings(&with(&format!("interface = 'eth0'\nrouter_id = 7\naddresses = '{address}'")));
        found.into_iter().find(|finding| finding.contains("error")).unwrap_or_default()
    };
    for (address, why) in [
        ("192.0.2.10/0", "the prefix of \"192.0.2.10/0\" must have from 1 to 32 bits |"),
        ("192.0.2.10/999", "the prefix of \"192.0.2.10/999\" must have from 1 to 32 bits |"),
        ("2001:db8::1/129", "the prefix of \"2001:db8::1/129\" must have from 1 to 128 bits |"),
        ("192.0.2.10/", "\"192.0.2.10/\" is not an address with its prefix |"),
        ("192.0.2.10/+8", "\"192.0.2.10/+8\" is not an address with its prefix |"),
    ] {
        assert!(told(address).contains(why), "{}", told(address));
    }
    assert_eq!([told("192.0.2.10/1"), told("192.0.2.10/32"), told("2001:db8::1/128")], [""; 3]);
}

#[test]
fn words_of_keepalived_lead_to_those_of_weir() {
    let text = with(
        "interface = 'eth0'\nrouter_id = 7\naddresses = '192.0.2.10'\nnopreempt = true\nstate = 'MASTER'\nadvert_int = 1\n\
         notify_master = '/bin/true'\npriorty = 3",
    );
    let expected = [
        "14:1: error: unknown key `nopreempt` in [vrrp.www] | `preempt = false`",
        "15:1: error: unknown key `state` in [vrrp.www] | there is none: the priority decides who is active; 255 is the owner of the addresses",
        "16:1: error: unknown key `advert_int` in [vrrp.www] | `interval = \"1s\"`",
        "17:1: error: unknown key `notify_master` in [vrrp.www] | `notify`: one program for all states, which finds WEIR_VRRP_STATE in its environment",
        "18:1: error: unknown key `priorty` in [vrrp.www] | did you mean `priority`?",
    ];
    assert_eq!(findings(&text), expected);
}

#[test]
fn sections_of_keepalived_lead_to_those_of_weir() {
    let text = format!(
        "{NODE}{WEB}[vrrp_instance.x]\nstate = 'MASTER'\n[vrrp_sync_group.g]\n[vrrp_script.s]\n[virtual_server.v]\n[real_server.r]\n[vrp.x]\n"
    );
    let expected = [
        "10:2: error: unknown key `vrrp_instance` in the file | `[vrrp.NAME]`",
        "12:2: error: unknown key `vrrp_sync_group` in the file | the key `group` of each `[vrrp.NAME]`: routers that name the same one",
        "13:2: error: unknown key `vrrp_script` in the file | `track = [{ command = [\"/path/of/program\"], weight = -20 }]` in `[vrrp.NAME]`",
        "14:2: error: unknown key `virtual_server` in the file | `[listener.NAME]`, and the `[pool.NAME]` that it names",
        "15:2: error: unknown key `real_server` in the file | `servers.NAME = \"10.0.0.1\"` in `[pool.NAME]`",
        "16:2: error: unknown key `vrp` in the file | did you mean `vrrp`?",
    ];
    assert_eq!(findings(&text), expected);
}

#[test]
fn a_loopback_interface_is_no_routers() {
    let text = with("interface = 'lo'\nrouter_id = 7\naddresses = '192.0.2.10'\nvirtual_mac = 'lo'");
    let errors: Vec<String> = findings(&text).into_iter().filter(|finding| !finding.contains("cannot be made for another")).collect();
    assert_eq!(
        errors,
        [
            "11:13: error: no other router is reached by lo | name the interface that the other routers are reached by: \"eth0\"",
            "14:15: error: lo cannot be a macvlan interface | virtual_mac = true has it named after the router's number",
        ]
    );
}

#[test]
fn addresses_where_no_program_is_are_warned_of() {
    let on =
        |interface: &str, address: &str| findings(&with(&format!("interface = '{interface}'\nrouter_id = 7\naddresses = [{address}]")));
    let told = |place: &str, device: &str| {
        format!(
            "{place}: warning: {device}, where virtual router `www` has addresses that listeners bind, is not among node.interfaces | \
             packets that come in there meet no program: add it to node.interfaces, unless one of these is below it"
        )
    };
    assert_eq!(on("eth1", "'192.0.2.10'"), [told("11:13", "eth1")]);
    assert_eq!(on("eth0", "{ address = '192.0.2.10', device = 'eth1' }"), [told("13:14", "eth1")]);
    assert_eq!(on("eth1", "{ address = '192.0.2.10', device = 'eth0' }"), [""; 0]);
    assert_eq!(on("eth0.7", "'192.0.2.10'"), [""; 0]);
    let unbound = on("eth1", "'192.0.2.11'");
    assert!(unbound.len() == 1 && unbound[0].contains("no listener binds"), "{unbound:?}");
}

#[test]
fn a_macvlan_that_is_named_elsewhere_is_warned_of() {
    let text = with(
        "interface = 'eth0'\nrouter_id = 7\naddresses = '192.0.2.10'\nvirtual_mac = 'vip'\ntrack = [{ interface = 'vip' }]\n\
         [vrrp.b]\ninterface = 'eth0'\nrouter_id = 8\naddresses = [{ address = '192.0.2.11', device = 'vip' }]",
    );
    let found: Vec<String> =
        findings(&text.replace("[\"eth0\"]", "['eth0', 'vip']")).into_iter().filter(|one| one.contains("warning")).collect();
    let told = ["node.interfaces", "vrrp.b.addresses", "vrrp.www.track"].map(|place| {
        format!(
            "14:15: warning: vip, the macvlan interface of virtual router `www`, is named in {place} too | \
             Weir makes it: give it a name that no other interface has"
        )
    });
    assert_eq!(found, told);
}

#[test]
fn tracks_that_say_nothing_more_are_warned_of() {
    let text = with(
        "interface = 'eth0'\nrouter_id = 7\naddresses = '192.0.2.10'\n\
         track = [{ file = '/x', share = '50%', interval = '1s', timeout = '1s', rise = 2, fall = 2 }, { pool = 'web' }, { pool = 'web', share = '50%' },\n\
         { file = '/x', weight = -20 }]",
    );
    let mut expected: Vec<String> = [("14:33", "share", "pool"), ("14:51", "interval", "command"), ("14:67", "timeout", "command")]
        .into_iter()
        .chain([("14:80", "rise", "command"), ("14:90", "fall", "command")])
        .map(|(place, key, what)| format!("{place}: warning: `{key}` has no effect: it goes with `{what}`"))
        .collect();
    expected.push("15:1: warning: virtual router `www` tracks file /x twice | leave one out".into());
    assert_eq!(findings(&text), expected);
}

#[test]
fn a_server_at_a_virtual_address_is_warned_of() {
    let text = with("interface = 'eth0'\nrouter_id = 7\naddresses = '192.0.2.11'").replace("10.0.0.1", "192.0.2.11");
    let found = findings(&text);
    let told = "13:13: warning: 192.0.2.11 is an address of virtual router `www` and of a server of pool `web` | \
                name servers by addresses that they keep";
    assert!(found.iter().any(|one| one == told), "{found:#?}");
}
