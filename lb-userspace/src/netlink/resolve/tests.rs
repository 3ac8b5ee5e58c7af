use ipnet::IpNet;

use super::{super::links::Vlan, *};

const MAC: Mac = [2, 0, 0, 0, 0, 1];
const SERVER_MAC: Mac = [2, 0, 0, 0, 0, 9];
const ETH: u32 = 3;
const VLAN: u32 = 4;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn servers(texts: &[&str]) -> BTreeSet<IpAddr> {
    texts.iter().map(|text| ip(text)).collect()
}

fn key(text: &str) -> NeighbourKey {
    NeighbourKey { ifindex: ETH, address: ip(text) }
}

fn eth() -> Link {
    Link {
        ifindex: ETH,
        name: "eth0".into(),
        mac: Some(MAC),
        mtu: 1500,
        is_up: true,
        has_carrier: true,
        is_loopback: false,
        kind: None,
        vlan: None,
        master: None,
        lower: None,
        lower_is_elsewhere: false,
        xdp: None,
    }
}

/// VLAN 5 on top of [`eth`].
fn vlan() -> Link {
    let vlan = Some(Vlan { id: 5, tag: VlanTag::Customer });
    Link { ifindex: VLAN, name: "eth0.5".into(), mac: Some([2, 0, 0, 0, 0, 5]), vlan, lower: Some(ETH), ..eth() }
}

/// The way to 10.0.0.9 when these are the links and the route leads over the VLAN.
fn over_vlan(links: &[Link]) -> Result<NextHop, Unresolved> {
    let route = UnicastRoute { ifindex: VLAN, next_hop: ip("10.0.0.9"), source: Some(ip("10.0.0.1")), mtu: None };
    let mut kernel = Kernel::new(&[("10.0.0.9", Route::Unicast(route))]);
    kernel.links = links.to_vec();
    let neighbour = NeighbourKey { ifindex: VLAN, address: ip("10.0.0.9") };
    kernel.neighbours.insert(neighbour, resolved(SERVER_MAC, Keeper::Another));
    started(&mut kernel, &["10.0.0.9"]).next_hops().remove(&ip("10.0.0.9")).unwrap()
}

fn via(next_hop: &str) -> Route {
    Route::Unicast(UnicastRoute { ifindex: ETH, next_hop: ip(next_hop), source: Some(ip("10.0.0.1")), mtu: None })
}

fn resolved(mac: Mac, keeper: Keeper) -> Neighbour {
    Neighbour { resolution: Resolution::Resolved(mac), keeper }
}

/// A kernel of three tables, which answers the resolver and notes what it was asked.
struct Kernel {
    links: Vec<Link>,
    routes: BTreeMap<IpAddr, Route>,
    neighbours: BTreeMap<NeighbourKey, Neighbour>,
    asked: Vec<Output>,
}

impl Kernel {
    fn new(routes: &[(&str, Route)]) -> Self {
        let routes = routes.iter().map(|(server, route)| (ip(server), route.clone())).collect();
        Self { links: vec![eth()], routes, neighbours: BTreeMap::new(), asked: Vec::new() }
    }

    fn answer(&mut self, resolver: &mut Resolver) {
        while let Some(output) = resolver.poll_output() {
            assert!(self.asked.len() < 1000, "the resolver never comes to rest: {:?}", &self.asked[..10]);
            self.asked.push(output);
            match output {
                Output::ReadLinks => resolver.handle_links(self.links.clone()),
                Output::ReadRoute(server) => resolver.handle_route(server, self.routes.get(&server).cloned().unwrap_or(Route::None)),
                Output::ReadNeighbour(key) => resolver.handle_neighbour(key, self.neighbours.get(&key).copied()),
                Output::Hold(key) => {
                    let resolution = self.neighbours.get(&key).map_or(Resolution::Pending, |neighbour| neighbour.resolution);
                    self.neighbours.insert(key, Neighbour { resolution, keeper: Keeper::Weir });
                    resolver.handle_neighbour(key, self.neighbours.get(&key).copied());
                }
                Output::Release(key, _) => {
                    self.neighbours.remove(&key);
                }
            }
        }
    }

    fn asked(&mut self) -> Vec<Output> {
        std::mem::take(&mut self.asked)
    }
}

fn started(kernel: &mut Kernel, texts: &[&str]) -> Resolver {
    let mut resolver = Resolver::default();
    resolver.set_servers(&servers(texts));
    kernel.answer(&mut resolver);
    kernel.asked();
    resolver
}

fn neighbour_event(key: NeighbourKey, neighbour: Option<Neighbour>) -> Change {
    Change { neighbours: BTreeMap::from([(key, neighbour)]), ..Change::default() }
}

fn route_event(prefix: &str) -> Change {
    Change { routes: BTreeSet::from([prefix.parse::<IpNet>().unwrap()]), ..Change::default() }
}

#[test]
fn an_unknown_neighbour_is_held_once_and_resolves_when_the_kernel_says_so() {
    let mut kernel = Kernel::new(&[("10.0.0.9", via("10.0.0.9"))]);
    let mut resolver = Resolver::default();
    resolver.set_servers(&servers(&["10.0.0.9"]));
    kernel.answer(&mut resolver);
    let (server, neighbour) = (ip("10.0.0.9"), key("10.0.0.9"));
    assert_eq!(kernel.asked(), [Output::ReadLinks, Output::ReadRoute(server), Output::ReadNeighbour(neighbour), Output::Hold(neighbour)]);
    let pending = Unresolved::NeighbourPending { address: server, interface: "eth0".into() };
    assert_eq!(resolver.next_hops(), BTreeMap::from([(server, Err(pending))]));

    resolver.handle_change(&neighbour_event(neighbour, Some(resolved(SERVER_MAC, Keeper::Weir))));
    assert_eq!(resolver.poll_output(), None);
    let next_hop = NextHop {
        ifindex: ETH,
        vlan: None,
        source_mac: MAC,
        target_mac: SERVER_MAC,
        mtu: 1500,
        source: ip("10.0.0.1"),
        interface: "eth0".into(),
    };
    assert_eq!(resolver.next_hops(), BTreeMap::from([(server, Ok(next_hop))]));
}

#[test]
fn neighbours_that_another_keeps_are_used_and_left_alone() {
    let mut kernel = Kernel::new(&[("10.0.0.9", via("10.0.0.9"))]);
    kernel.neighbours.insert(key("10.0.0.9"), resolved(SERVER_MAC, Keeper::Another));
    let mut resolver = started(&mut kernel, &["10.0.0.9"]);
    assert_eq!(resolver.next_hops()[&ip("10.0.0.9")].as_ref().unwrap().target_mac, SERVER_MAC);
    resolver.set_servers(&BTreeSet::new());
    assert_eq!(resolver.poll_output(), None);
}

#[test]
fn a_gateway_is_released_with_the_last_server_behind_it() {
    let mut kernel = Kernel::new(&[("10.1.0.1", via("10.0.0.254")), ("10.1.0.2", via("10.0.0.254"))]);
    kernel.neighbours.insert(key("10.0.0.254"), resolved(SERVER_MAC, Keeper::Nobody));
    let mut resolver = started(&mut kernel, &["10.1.0.1", "10.1.0.2"]);
    resolver.set_servers(&servers(&["10.1.0.2"]));
    assert_eq!(resolver.poll_output(), None);
    resolver.set_servers(&BTreeSet::new());
    assert_eq!(resolver.poll_output(), Some(Output::Release(key("10.0.0.254"), Resolution::Resolved(SERVER_MAC))));
    assert_eq!(resolver.poll_output(), None);
}

#[test]
fn entries_left_by_an_earlier_daemon_are_adopted_or_released() {
    let mut kernel = Kernel::new(&[("10.0.0.9", via("10.0.0.9"))]);
    let left = [key("10.0.0.8"), key("10.0.0.9")].map(|key| (key, resolved(SERVER_MAC, Keeper::Weir)));
    kernel.neighbours.extend(left);
    let mut resolver = Resolver::default();
    resolver.handle_left_behind(left);
    assert_eq!(resolver.poll_output(), None);
    resolver.set_servers(&servers(&["10.0.0.9"]));
    kernel.answer(&mut resolver);
    assert!(kernel.asked().contains(&Output::Release(key("10.0.0.8"), Resolution::Resolved(SERVER_MAC))));
    assert_eq!(kernel.neighbours.keys().collect::<Vec<_>>(), [&key("10.0.0.9")]);
}

#[test]
fn only_servers_within_a_changed_prefix_are_read_again() {
    let mut kernel = Kernel::new(&[("10.0.0.9", via("10.0.0.9")), ("10.1.0.1", via("10.0.0.254"))]);
    let mut resolver = started(&mut kernel, &["10.0.0.9", "10.1.0.1", "fd00::1"]);
    for (prefix, read) in [("10.1.0.0/16", vec!["10.1.0.1"]), ("0.0.0.0/0", vec!["10.0.0.9", "10.1.0.1"]), ("10.2.0.0/16", vec![])] {
        resolver.handle_change(&route_event(prefix));
        kernel.answer(&mut resolver);
        let read: Vec<Output> = read.into_iter().map(|server| Output::ReadRoute(ip(server))).collect();
        assert_eq!(kernel.asked(), read, "{prefix}");
    }
}

#[test]
fn a_server_that_moves_behind_a_gateway_takes_the_gateway_and_leaves_its_own_neighbour() {
    let mut kernel = Kernel::new(&[("10.0.0.9", via("10.0.0.9"))]);
    let mut resolver = started(&mut kernel, &["10.0.0.9"]);
    kernel.routes.insert(ip("10.0.0.9"), via("10.0.0.254"));
    resolver.handle_change(&route_event("10.0.0.9/32"));
    kernel.answer(&mut resolver);
    assert_eq!(
        kernel.asked(),
        [
            Output::ReadRoute(ip("10.0.0.9")),
            Output::Release(key("10.0.0.9"), Resolution::Pending),
            Output::ReadNeighbour(key("10.0.0.254")),
            Output::Hold(key("10.0.0.254")),
        ]
    );
}

#[test]
fn a_neighbour_lost_with_its_link_is_held_again_when_the_link_is_back() {
    let mut kernel = Kernel::new(&[("10.0.0.9", via("10.0.0.9"))]);
    let mut resolver = started(&mut kernel, &["10.0.0.9"]);
    kernel.links[0].has_carrier = false;
    kernel.neighbours.clear();
    let down = Change { links: true, ..neighbour_event(key("10.0.0.9"), None) };
    resolver.handle_change(&down);
    kernel.answer(&mut resolver);
    assert_eq!(resolver.next_hops()[&ip("10.0.0.9")], Err(Unresolved::LinkDown { interface: "eth0".into() }));
    assert_eq!(kernel.neighbours.len(), 0);

    kernel.links[0].has_carrier = true;
    resolver.handle_change(&Change { links: true, ..Change::default() });
    kernel.answer(&mut resolver);
    assert_eq!(kernel.neighbours[&key("10.0.0.9")].keeper, Keeper::Weir);
}

#[test]
fn a_held_entry_that_somebody_replaces_is_held_again() {
    let mut kernel = Kernel::new(&[("10.0.0.9", via("10.0.0.9"))]);
    let mut resolver = started(&mut kernel, &["10.0.0.9"]);
    resolver.handle_change(&neighbour_event(key("10.0.0.9"), Some(resolved(SERVER_MAC, Keeper::Nobody))));
    kernel.answer(&mut resolver);
    assert_eq!(kernel.asked(), [Output::Hold(key("10.0.0.9"))]);
}

#[test]
fn a_kernel_that_cannot_manage_neighbours_is_not_asked_for_ever() {
    let mut resolver = Resolver::default();
    resolver.set_servers(&servers(&["10.0.0.9"]));
    let mut holds = 0;
    while let Some(output) = resolver.poll_output() {
        match output {
            Output::ReadLinks => resolver.handle_links([eth()]),
            Output::ReadRoute(server) => resolver.handle_route(server, via("10.0.0.9")),
            Output::ReadNeighbour(key) => resolver.handle_neighbour(key, None),
            Output::Hold(key) => {
                holds += 1;
                assert!(holds < 2);
                resolver.handle_neighbour(key, Some(resolved(SERVER_MAC, Keeper::Nobody)));
            }
            Output::Release(..) => panic!("nothing was held"),
        }
    }
    assert_eq!(resolver.next_hops()[&ip("10.0.0.9")].as_ref().unwrap().target_mac, SERVER_MAC);
    resolver.set_servers(&BTreeSet::new());
    assert_eq!(resolver.poll_output(), None);
}

#[test]
fn lost_notifications_have_everything_read_again() {
    let mut kernel = Kernel::new(&[("10.0.0.9", via("10.0.0.9"))]);
    let mut resolver = started(&mut kernel, &["10.0.0.9"]);
    kernel.neighbours.insert(key("10.0.0.9"), resolved(SERVER_MAC, Keeper::Weir));
    resolver.handle_change(&Change { is_incomplete: true, ..Change::default() });
    kernel.answer(&mut resolver);
    assert_eq!(kernel.asked(), [Output::ReadLinks, Output::ReadRoute(ip("10.0.0.9")), Output::ReadNeighbour(key("10.0.0.9"))]);
    assert_eq!(resolver.next_hops()[&ip("10.0.0.9")].as_ref().unwrap().target_mac, SERVER_MAC);
}

#[test]
fn a_server_behind_a_vlan_is_sent_to_by_the_interface_below_with_a_tag() {
    let expected = NextHop {
        ifindex: ETH,
        vlan: Some(5),
        source_mac: [2, 0, 0, 0, 0, 5],
        target_mac: SERVER_MAC,
        mtu: 1500,
        source: ip("10.0.0.1"),
        interface: "eth0.5".into(),
    };
    assert_eq!(over_vlan(&[eth(), vlan()]), Ok(expected.clone()));
    assert_eq!(over_vlan(&[eth(), Link { mtu: 1400, ..vlan() }]), Ok(NextHop { mtu: 1400, ..expected.clone() }));
    assert_eq!(over_vlan(&[Link { mtu: 1300, ..eth() }, vlan()]), Ok(NextHop { mtu: 1300, ..expected }));
}

#[test]
fn a_vlan_whose_frames_cannot_be_made_is_refused_with_the_reason() {
    let provider = Some(Vlan { id: 5, tag: VlanTag::Provider });
    let inner = Some(Vlan { id: 6, tag: VlanTag::Customer });
    let stacked = Unresolved::StackedVlan { interface: "eth0.5".into() };
    assert_eq!(over_vlan(&[eth(), Link { vlan: provider, ..vlan() }]), Err(stacked.clone()));
    assert_eq!(over_vlan(&[Link { vlan: inner, ..eth() }, vlan()]), Err(stacked));
    let elsewhere = Unresolved::VlanParentElsewhere { interface: "eth0.5".into() };
    assert_eq!(over_vlan(&[vlan()]), Err(elsewhere.clone()));
    assert_eq!(over_vlan(&[eth(), Link { lower_is_elsewhere: true, ..vlan() }]), Err(elsewhere));
    let parent_down = Unresolved::LinkDown { interface: "eth0".into() };
    assert_eq!(over_vlan(&[Link { has_carrier: false, ..eth() }, vlan()]), Err(parent_down));
}

#[test]
fn every_reason_has_its_word() {
    let interface = || String::from("eth0");
    let unsourced = Route::Unicast(UnicastRoute { ifindex: ETH, next_hop: ip("10.0.0.9"), source: None, mtu: None });
    let with = |change: fn(&mut Link)| {
        let mut link = eth();
        change(&mut link);
        link
    };
    let cases = [
        (Route::None, eth(), Unresolved::NoRoute),
        (Route::Local, eth(), Unresolved::LocalAddress),
        (Route::Encapsulating, eth(), Unresolved::EncapsulatingRoute),
        (via("10.0.0.9"), with(|link| link.is_loopback = true), Unresolved::LocalAddress),
        (via("10.0.0.9"), with(|link| link.mac = None), Unresolved::NoSourceMac { interface: interface() }),
        (via("10.0.0.9"), with(|link| link.is_up = false), Unresolved::LinkDown { interface: interface() }),
        (via("10.0.0.9"), with(|link| link.ifindex = 9), Unresolved::NoRoute),
        (unsourced, eth(), Unresolved::NoSourceAddress { interface: interface() }),
    ];
    for (route, link, reason) in cases {
        let mut kernel = Kernel::new(&[("10.0.0.9", route)]);
        kernel.links = vec![link];
        let resolver = started(&mut kernel, &["10.0.0.9"]);
        assert_eq!(resolver.next_hops()[&ip("10.0.0.9")], Err(reason));
    }
}

#[test]
fn a_neighbour_that_does_not_answer_is_named() {
    let mut kernel = Kernel::new(&[("10.1.0.1", via("10.0.0.254"))]);
    kernel.neighbours.insert(key("10.0.0.254"), Neighbour { resolution: Resolution::Failed, keeper: Keeper::Weir });
    let resolver = started(&mut kernel, &["10.1.0.1"]);
    assert_eq!(resolver.next_hops()[&ip("10.1.0.1")].as_ref().unwrap_err().to_string(), "10.0.0.254 does not answer on eth0");
}

#[test]
fn the_mtu_is_the_least_that_is_known_and_fits_an_ip_packet() {
    for (link_mtu, route_mtu, mtu) in [(1500, None, 1500), (1500, Some(1400), 1400), (1400, Some(9000), 1400), (65_536, None, 65_535)] {
        let route = Route::Unicast(UnicastRoute { ifindex: ETH, next_hop: ip("10.0.0.9"), source: Some(ip("10.0.0.1")), mtu: route_mtu });
        let mut kernel = Kernel::new(&[("10.0.0.9", route)]);
        kernel.links[0].mtu = link_mtu;
        kernel.neighbours.insert(key("10.0.0.9"), resolved(SERVER_MAC, Keeper::Nobody));
        let resolver = started(&mut kernel, &["10.0.0.9"]);
        assert_eq!(resolver.next_hops()[&ip("10.0.0.9")].as_ref().unwrap().mtu, mtu);
    }
}
