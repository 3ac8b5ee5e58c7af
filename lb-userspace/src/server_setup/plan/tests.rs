use super::*;

const VIP4: &str = "192.0.2.1";
const VIP6: &str = "2001:db8::1";

fn link(name: &str, ifindex: u32) -> Link {
    let is_loopback = name == "lo";
    Link {
        ifindex,
        name: name.to_owned(),
        mac: (!is_loopback && name != "tun0").then_some([2, 0, 0, 0, 0, 1]),
        mtu: 1500,
        is_up: true,
        has_carrier: true,
        is_loopback,
        kind: None,
        vlan: None,
        master: None,
        lower: None,
        lower_is_elsewhere: false,
        xdp: None,
    }
}

fn facts(values: &[(&str, u32)]) -> Facts {
    let mut settings: BTreeMap<String, u32> = setting_names("eth0").into_iter().map(|name| (name, 0)).collect();
    settings.extend(values.iter().map(|(name, value)| (format!("ipv4/conf/{name}"), *value)));
    Facts { links: vec![link("lo", 1), link("eth0", 2), link("tun0", 3)], addresses: vec![], settings }
}

fn request(vips: &[&str]) -> Request {
    let vips = vips.iter().map(|vip| vip.parse().unwrap()).collect();
    Request { interface: "eth0".to_owned(), vips, tunnel: Tunnel::Ipip, way: Way::Xdp }
}

fn assigned(vip: &str, ifindex: u32) -> AssignedAddress {
    AssignedAddress { address: vip.parse().unwrap(), prefix_len: 32, ifindex, is_tentative: false, is_ours: false }
}

fn changed(record: &Record) -> Vec<(&str, u32, u32)> {
    let name = |setting: &'_ ChangedSetting| setting.name.len() - setting.name.trim_start_matches("ipv4/conf/").len();
    record.settings.iter().map(|setting| (&setting.name[name(setting)..], setting.before, setting.after)).collect()
}

#[test]
fn arp_is_kept_quiet_and_the_reverse_path_is_loosened_only_where_it_is_strict() {
    let quiet = [("all/arp_ignore", 0, 1), ("all/arp_announce", 0, 2), ("eth0/arp_ignore", 0, 1), ("eth0/arp_announce", 0, 2)];
    assert_eq!(changed(&plan(&request(&[VIP4]), &facts(&[]), None).unwrap()), quiet);
    for (all, own, expected) in
        [(0, 1, Some(("eth0/rp_filter", 1, 2))), (1, 0, Some(("eth0/rp_filter", 0, 2))), (2, 1, None), (0, 2, None), (1, 2, None)]
    {
        let record = plan(&request(&[VIP4]), &facts(&[("all/rp_filter", all), ("eth0/rp_filter", own)]), None).unwrap();
        assert_eq!(changed(&record).get(4).copied(), expected, "{all} {own}");
    }
}

#[test]
fn a_setting_that_is_as_strict_already_stays() {
    let strict = facts(&[("all/arp_ignore", 2), ("all/arp_announce", 2), ("eth0/arp_ignore", 8), ("eth0/arp_announce", 2)]);
    assert_eq!(changed(&plan(&request(&[VIP4]), &strict, None).unwrap()), []);
    let wide = facts(&[("all/arp_ignore", 3), ("all/arp_announce", 2), ("eth0/arp_ignore", 1), ("eth0/arp_announce", 1)]);
    assert_eq!(changed(&plan(&request(&[VIP4]), &wide, None).unwrap()), [("all/arp_ignore", 3, 1), ("eth0/arp_announce", 1, 2)]);
}

#[test]
fn an_ipv6_vip_needs_its_address_only() {
    let record = plan(&request(&[VIP6]), &facts(&[]), None).unwrap();
    assert_eq!((record.settings, record.added), (vec![], BTreeSet::from([VIP6.parse().unwrap()])));
}

#[test]
fn an_address_that_was_there_is_served_and_not_taken_away() {
    let facts = Facts { addresses: vec![assigned(VIP4, 1)], ..facts(&[]) };
    let record = plan(&request(&[VIP4, VIP6]), &facts, None).unwrap();
    assert_eq!((record.vips.len(), record.added), (2, BTreeSet::from([VIP6.parse().unwrap()])));
}

#[test]
fn a_repeated_add_keeps_what_was_there_at_first() {
    let first = plan(&request(&[VIP4]), &facts(&[("all/rp_filter", 1)]), None).unwrap();
    let mut made = facts(&[("all/rp_filter", 1)]);
    made.settings.extend(first.settings.iter().map(|setting| (setting.name.clone(), setting.after)));
    made.addresses = vec![assigned(VIP4, 1)];
    assert_eq!(plan(&request(&[VIP4]), &made, Some(&first)).unwrap(), first);

    made.settings.insert("ipv4/conf/all/arp_ignore".to_owned(), 3);
    let more = plan(&request(&[VIP6]), &made, Some(&first)).unwrap();
    assert_eq!((more.settings.clone(), more.vips.len()), (first.settings.clone(), 2));
    assert_eq!(more.since(&first), (BTreeSet::from([VIP6.parse().unwrap()]), vec![]));
}

#[test]
fn what_cannot_work_is_refused() {
    let other = |change: fn(&mut Request)| {
        let mut request = request(&[VIP4]);
        change(&mut request);
        request
    };
    let eth0 = || "eth0".to_owned();
    let first = plan(&request(&[VIP4]), &facts(&[]), None).unwrap();
    let on_eth0 = Facts { addresses: vec![assigned(VIP4, 2)], ..facts(&[]) };
    let down = Facts { links: vec![Link { is_up: false, ..link("lo", 1) }, link("eth0", 2)], ..facts(&[]) };
    let otherwise = Refusal::Otherwise { tunnel: Tunnel::Ipip, interface: eth0() };
    for (request, facts, earlier, refusal) in [
        (other(|r| r.interface = "no0".to_owned()), facts(&[]), None, Refusal::NoInterface("no0".to_owned())),
        (other(|r| r.interface = "lo".to_owned()), facts(&[]), None, Refusal::Loopback("lo".to_owned())),
        (other(|r| r.interface = "tun0".to_owned()), facts(&[]), None, Refusal::NoEthernet("tun0".to_owned())),
        (request(&[VIP4]), down, None, Refusal::LoopbackDown),
        (request(&[VIP4]), on_eth0, None, Refusal::OnInterface { vip: VIP4.parse().unwrap(), interface: eth0() }),
        (request(&["224.0.0.1"]), facts(&[]), None, Refusal::NotUnicast("224.0.0.1".parse().unwrap())),
        (other(|r| r.tunnel = Tunnel::Gue(6080)), facts(&[]), Some(&first), otherwise.clone()),
        (other(|r| r.way = Way::Kernel), facts(&[]), Some(&first), otherwise),
    ] {
        assert_eq!(plan(&request, &facts, earlier), Err(refusal), "{request:?}");
    }
    let dsr_on_tun = other(|r| (r.interface, r.tunnel) = ("tun0".to_owned(), Tunnel::Dsr));
    assert_eq!(plan(&dsr_on_tun, &facts(&[]), None).map(|record| record.interface), Ok("tun0".to_owned()));
}
