//! The netlink module against the kernel, in network namespaces. Needs root.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "drives the module in real time")]

mod lab;

use std::time::Duration;

use lab::{DEADLINE, Daemon, FAR_MAC, LB_MAC, Lab, ip, set};
use lb_userspace::netlink::{
    AddressError, AssignedAddress, Change, Netlink, NextHop, NextHops, Unresolved, Watcher,
    driver_name_io::{DriverNameError, driver_name},
    neighbours::{Keeper, NeighbourKey, Resolution},
    sysctl_io::{self, InterfaceSettings, RpFilter},
};
use tokio::time::Instant;

async fn eth0(netlink: &mut Netlink) -> u32 {
    netlink.links().await.unwrap().into_iter().find(|link| link.name == "eth0").unwrap().ifindex
}

async fn held(netlink: &mut Netlink) -> Vec<String> {
    let all = netlink.neighbours().await.unwrap();
    all.iter().filter(|(_, neighbour)| neighbour.keeper == Keeper::Weir).map(|(key, _)| key.address.to_string()).collect()
}

#[test]
fn on_link_servers_of_both_families_resolve() {
    let lab = Lab::new();
    lab.in_lb(async || {
        let mut daemon = Daemon::start(&["10.9.1.10", "fd09:1::10"]).await;
        daemon.until_resolved().await;
        let ifindex = eth0(&mut Netlink::open().unwrap()).await;
        for (server, source) in [("10.9.1.10", "10.9.1.1"), ("fd09:1::10", "fd09:1::1")] {
            assert_eq!(
                daemon.next_hop(server),
                Ok(NextHop {
                    ifindex,
                    vlan: None,
                    source_mac: LB_MAC,
                    target_mac: FAR_MAC,
                    mtu: 1500,
                    source: ip(source),
                    interface: "eth0".into()
                })
            );
        }
    });
}

#[test]
fn servers_behind_gateways_resolve_to_the_gateway_of_either_family() {
    let lab = Lab::new();
    lab.lb("route add 10.9.3.0/24 via 10.9.1.254 mtu 1400");
    lab.lb("route add 10.9.4.0/24 via inet6 fd09:1::fe");
    lab.lb("route add fd09:3::/64 via fd09:1::fe");
    lab.in_lb(async || {
        let mut daemon = Daemon::start(&["10.9.3.10", "10.9.4.10", "fd09:3::10"]).await;
        daemon.until_resolved().await;
        for (server, mtu) in [("10.9.3.10", 1400), ("10.9.4.10", 1500), ("fd09:3::10", 1500)] {
            let next_hop = daemon.next_hop(server).unwrap();
            assert_eq!((next_hop.target_mac, next_hop.mtu), (FAR_MAC, mtu), "{server}");
        }
        assert_eq!(held(&mut Netlink::open().unwrap()).await.len(), 2);
    });
}

#[test]
fn what_cannot_be_reached_says_why() {
    let lab = Lab::new();
    lab.lb("route add blackhole 10.9.5.0/24");
    lab.lb("route add unreachable fd09:5::/64");
    lab.in_lb(async || {
        let local = ["10.9.1.1", "127.0.0.1", "::1", "fd09:1::1"];
        let unreachable = ["203.0.113.1", "2001:db8::1", "10.9.5.1", "fd09:5::1", "10.9.1.255", "224.0.0.9"];
        let daemon = Daemon::start(&[&local[..], &unreachable[..]].concat()).await;
        for server in local {
            assert_eq!(daemon.next_hop(server), Err(Unresolved::LocalAddress), "{server}");
        }
        for server in unreachable {
            assert_eq!(daemon.next_hop(server), Err(Unresolved::NoRoute), "{server}");
        }
    });
}

#[test]
fn a_neighbour_that_does_not_answer_is_pending_then_failed_and_resolves_when_it_comes() {
    let lab = Lab::new();
    lab.exec("lb", "sysctl -qw net.ipv4.neigh.eth0.retrans_time_ms=50 net.ipv4.neigh.eth0.interval_probe_time_ms=200");
    lab.in_lb(async || {
        let mut daemon = Daemon::start(&["10.9.1.77"]).await;
        let (address, interface) = (ip("10.9.1.77"), String::from("eth0"));
        assert_eq!(daemon.next_hop("10.9.1.77"), Err(Unresolved::NeighbourPending { address, interface: interface.clone() }));
        let failed = Err(Unresolved::NeighbourFailed { address, interface });
        daemon.until(|next_hops| next_hops[&address] == failed).await;
        lab.far("address add 10.9.1.77/24 dev eth0");
        daemon.until_resolved().await;
    });
}

#[test]
fn a_neighbours_new_mac_is_noticed_within_50_ms() {
    let lab = Lab::new();
    lab.in_lb(async || {
        for (server, lb) in [("10.9.1.10", "10.9.1.1"), ("fd09:1::10", "fd09:1::1")] {
            let mut daemon = Daemon::start(&[server]).await;
            daemon.until_resolved().await;
            let mut took = Vec::new();
            // A busy machine may be late, but not each time.
            for attempt in 0..5 {
                took.push(noticing_a_new_mac(&lab, &mut daemon, server, lb, attempt).await);
                if took.last().is_some_and(|took| *took < Duration::from_millis(50)) {
                    break;
                }
            }
            assert!(took.iter().any(|took| *took < Duration::from_millis(50)), "{server}: {took:?}");
        }
    });
}

/// How long after the kernel the daemon knows the MAC that the server has got.
async fn noticing_a_new_mac(lab: &Lab, daemon: &mut Daemon, server: &str, lb: &str, attempt: u8) -> Duration {
    let mut netlink = Netlink::open().unwrap();
    let key = NeighbourKey { ifindex: eth0(&mut netlink).await, address: ip(server) };
    let new_mac = [2, 0, 0, 0, 1 + attempt, if key.address.is_ipv4() { 4 } else { 6 }];
    lab.far(&format!("link set eth0 address 02:00:00:00:0{}:0{}", new_mac[4], new_mac[5]));
    let known = async {
        loop {
            let neighbour = netlink.neighbour(key).await.unwrap();
            if neighbour.is_some_and(|neighbour| neighbour.resolution == Resolution::Resolved(new_mac)) {
                return Instant::now();
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let noticed = async {
        daemon.until(|next_hops| next_hops[&key.address].as_ref().is_ok_and(|next_hop| next_hop.target_mac == new_mac)).await;
        Instant::now()
    };
    // The far side has forgotten its neighbours with its old MAC: it asks for ours, and so tells its new one.
    let talk = async { lab.send("far", ip(server), ip(lb), 1) };
    let ((), known, noticed) = tokio::join!(talk, known, noticed);
    noticed.duration_since(known)
}

#[test]
fn a_link_that_loses_its_carrier_is_down_and_resolves_again_when_it_is_back() {
    let lab = Lab::new();
    lab.in_lb(async || {
        let mut daemon = Daemon::start(&["10.9.1.10"]).await;
        daemon.until_resolved().await;
        lab.far("link set eth0 down");
        let down = Err(Unresolved::LinkDown { interface: "eth0".into() });
        daemon.until(|next_hops| next_hops[&ip("10.9.1.10")] == down).await;
        lab.far("link set eth0 up");
        daemon.until_resolved().await;

        lab.lb("link set eth0 down");
        daemon.until(|next_hops| next_hops[&ip("10.9.1.10")] == Err(Unresolved::NoRoute)).await;
        lab.lb("link set eth0 up");
        daemon.until_resolved().await;
        assert_eq!(held(&mut Netlink::open().unwrap()).await, ["10.9.1.10"]);
    });
}

#[test]
fn the_new_mac_and_mtu_of_our_own_interface_are_noticed() {
    let lab = Lab::new();
    lab.in_lb(async || {
        let mut daemon = Daemon::start(&["10.9.1.10"]).await;
        daemon.until_resolved().await;
        lab.lb("link set eth0 mtu 1400 address 02:00:00:00:00:77");
        let wanted = |next_hop: &NextHop| next_hop.source_mac == [2, 0, 0, 0, 0, 0x77] && next_hop.mtu == 1400;
        daemon.until(|next_hops| next_hops.values().all(|next_hop| next_hop.as_ref().is_ok_and(wanted))).await;
    });
}

#[test]
fn a_server_that_moves_behind_a_gateway_is_followed_there_and_back() {
    let lab = Lab::new();
    lab.in_lb(async || {
        let mut netlink = Netlink::open().unwrap();
        for (server, add, gateway) in [
            ("10.9.1.10", "route add 10.9.1.10/32 via 10.9.1.254", "10.9.1.254"),
            ("fd09:1::10", "route add fd09:1::10/128 via fd09:1::fe", "fd09:1::fe"),
        ] {
            let mut daemon = Daemon::start(&[server]).await;
            daemon.until_resolved().await;
            assert_eq!(held(&mut netlink).await, [server]);
            for (command, neighbour) in [(add.to_owned(), gateway), (add.replace("add", "delete"), server)] {
                lab.lb(&command);
                let deadline = Instant::now() + DEADLINE;
                while held(&mut netlink).await != [neighbour] {
                    let change = tokio::time::timeout_at(deadline, daemon.watcher.changed()).await.expect(&command).unwrap();
                    daemon.next_hops.update(&change).await.unwrap();
                }
                daemon.until_resolved().await;
            }
            daemon.next_hops.release().await.unwrap();
        }
    });
}

#[test]
fn held_neighbours_are_released_with_their_server_and_at_the_end() {
    let lab = Lab::new();
    lab.in_lb(async || {
        let mut netlink = Netlink::open().unwrap();
        let mut daemon = Daemon::start(&["10.9.1.10", "10.9.1.77", "fd09:1::10"]).await;
        daemon.until(|next_hops| next_hops.values().filter(|next_hop| next_hop.is_ok()).count() == 2).await;
        assert_eq!(held(&mut netlink).await.len(), 3);
        daemon.next_hops.set_servers(&set(&["10.9.1.10", "10.9.1.77"])).await.unwrap();
        let mut left = held(&mut netlink).await;
        left.sort();
        assert_eq!(left, ["10.9.1.10", "10.9.1.77"]);
        daemon.next_hops.release().await.unwrap();
        assert_eq!(held(&mut netlink).await.len(), 0);

        // What the host may need stays in the cache, what nobody answered for does not.
        let ifindex = eth0(&mut netlink).await;
        let resolved = netlink.neighbour(NeighbourKey { ifindex, address: ip("10.9.1.10") }).await.unwrap().unwrap();
        assert_eq!((resolved.keeper, resolved.resolution), (Keeper::Nobody, Resolution::Resolved(FAR_MAC)));
        assert_eq!(netlink.neighbour(NeighbourKey { ifindex, address: ip("10.9.1.77") }).await.unwrap(), None);
    });
}

#[test]
fn what_a_daemon_that_died_held_is_adopted_or_released_by_the_next() {
    let lab = Lab::new();
    lab.in_lb(async || {
        let mut netlink = Netlink::open().unwrap();
        let mut first = Daemon::start(&["10.9.1.10", "10.9.1.254"]).await;
        first.until_resolved().await;
        drop(first);
        let mut second = NextHops::new(Netlink::open().unwrap()).await.unwrap();
        assert_eq!(held(&mut netlink).await.len(), 2);
        second.set_servers(&set(&["10.9.1.10"])).await.unwrap();
        assert_eq!(held(&mut netlink).await, ["10.9.1.10"]);
        assert!(second.next_hops()[&ip("10.9.1.10")].is_ok());
    });
}

#[test]
fn a_permanent_neighbour_is_used_and_left_permanent_and_one_replaced_by_hand_is_held_again() {
    let lab = Lab::new();
    lab.lb("neighbour add 10.9.1.50 dev eth0 lladdr 02:00:00:00:00:50 nud permanent");
    lab.in_lb(async || {
        let mut netlink = Netlink::open().unwrap();
        let mut daemon = Daemon::start(&["10.9.1.50", "10.9.1.10"]).await;
        daemon.until_resolved().await;
        assert_eq!(daemon.next_hop("10.9.1.50").unwrap().target_mac, [2, 0, 0, 0, 0, 0x50]);
        assert_eq!(held(&mut netlink).await, ["10.9.1.10"]);

        lab.lb("neighbour replace 10.9.1.10 dev eth0 lladdr 02:00:00:00:00:51 nud reachable");
        assert_eq!(held(&mut netlink).await.len(), 0);
        daemon
            .until(|next_hops| next_hops[&ip("10.9.1.10")].as_ref().is_ok_and(|next_hop| next_hop.target_mac == [2, 0, 0, 0, 0, 0x51]))
            .await;
        assert_eq!(held(&mut netlink).await, ["10.9.1.10"]);
    });
}

#[test]
fn a_path_mtu_that_the_kernel_learned_is_seen_when_the_route_is_read_again() {
    let lab = Lab::new();
    lab.far("link add narrow mtu 1300 type veth peer name end");
    lab.far("link set narrow up");
    lab.far("link set end up");
    lab.far("route add 10.9.3.0/24 dev narrow");
    lab.exec("far", "sysctl -qw net.ipv4.ip_forward=1");
    lab.lb("route add 10.9.3.0/24 via 10.9.1.254");
    lab.in_lb(async || {
        let mut daemon = Daemon::start(&["10.9.3.10"]).await;
        daemon.until_resolved().await;
        assert_eq!(daemon.next_hop("10.9.3.10").unwrap().mtu, 1500);
        // Dropped by the router, which says what fits.
        lab.send("lb", ip("10.9.1.1"), ip("10.9.3.10"), 1400);
        let deadline = Instant::now() + DEADLINE;
        while daemon.next_hop("10.9.3.10").unwrap().mtu != 1300 {
            assert!(Instant::now() < deadline);
            daemon.next_hops.reread().await.unwrap();
        }
    });
}

#[test]
fn more_notifications_than_the_queue_holds_are_reported_as_incomplete() {
    let lab = Lab::new();
    let batch = lab.batch((0..20_000).map(|n| format!("route add 10.{}.{}.0/24 dev eth0", 100 + n / 250, n % 250)));
    lab.in_lb(async || {
        let mut daemon = Daemon::start(&["10.9.1.10"]).await;
        daemon.until_resolved().await;
        lab.lb(&format!("-batch {}", batch.display()));
        let deadline = Instant::now() + DEADLINE;
        loop {
            let change = tokio::time::timeout_at(deadline, daemon.watcher.changed()).await.unwrap().unwrap();
            daemon.next_hops.update(&change).await.unwrap();
            if change.is_incomplete {
                break;
            }
        }
        assert!(daemon.next_hop("10.9.1.10").is_ok());
        // It still watches.
        lab.lb("link set eth0 mtu 1400");
        daemon.until(|next_hops| next_hops[&ip("10.9.1.10")].as_ref().is_ok_and(|next_hop| next_hop.mtu == 1400)).await;
    });
}

#[test]
fn a_report_that_is_not_waited_for_is_not_lost() {
    let lab = Lab::new();
    lab.in_lb(async || {
        let mut watcher = Watcher::subscribe().unwrap();
        lab.lb("address add 10.9.1.2/32 dev eth0");
        // Dropped while it gathers, again and again.
        let deadline = Instant::now() + DEADLINE;
        let change: Change = loop {
            assert!(Instant::now() < deadline);
            if let Ok(change) = tokio::time::timeout(Duration::from_millis(3), watcher.changed()).await {
                break change.unwrap();
            }
        };
        assert!(change.addresses);
        assert!(change.routes.contains(&"10.9.1.2/32".parse().unwrap()));
        assert!(!change.is_incomplete);
    });
}

#[test]
fn vips_are_added_with_our_mark_usable_at_once_and_removed() {
    let lab = Lab::new();
    lab.in_lb(async || {
        let mut netlink = Netlink::open().unwrap();
        let ifindex = eth0(&mut netlink).await;
        for (text, prefix_len) in [("192.0.2.1", 32), ("2001:db8::1", 128)] {
            let address = ip(text);
            netlink.add_address(address, ifindex).await.unwrap();
            let vip = AssignedAddress { address, prefix_len, ifindex, is_tentative: false, is_ours: true };
            assert!(netlink.addresses().await.unwrap().contains(&vip));
            tokio::net::TcpListener::bind((address, 80)).await.unwrap();
            let again = netlink.add_address(address, ifindex).await.unwrap_err();
            assert!(matches!(again, AddressError::AlreadyAssigned { .. }), "{again}");
            netlink.remove_address(address, ifindex).await.unwrap();
            assert!(netlink.addresses().await.unwrap().iter().all(|assigned| assigned.address != address));
            let again = netlink.remove_address(address, ifindex).await.unwrap_err();
            assert!(matches!(again, AddressError::NotAssigned { .. }), "{again}");
            let nowhere = netlink.add_address(address, 9999).await.unwrap_err();
            assert!(matches!(nowhere, AddressError::NoLink { .. }), "{nowhere}");
        }
        let own = netlink.addresses().await.unwrap();
        assert!(own.iter().any(|own| own.address == ip("10.9.1.1") && own.prefix_len == 24 && !own.is_ours));
    });
}

#[test]
fn links_and_their_drivers_and_settings_are_those_of_this_namespace() {
    let lab = Lab::new();
    lab.write("lb", "/proc/sys/net/ipv4/ip_local_port_range", "40000 50000");
    lab.in_lb(async || {
        let links = Netlink::open().unwrap().links().await.unwrap();
        let eth0 = links.iter().find(|link| link.name == "eth0").unwrap();
        assert_eq!((eth0.mac, eth0.mtu, eth0.is_usable(), eth0.kind.as_deref()), (Some(LB_MAC), 1500, true, Some("veth")));
        assert!(links.iter().any(|link| link.name == "lo" && link.is_loopback));
        assert_eq!(driver_name("eth0").unwrap(), "veth");
        assert!(matches!(driver_name("nothere"), Err(DriverNameError::Refused { .. })));
        assert!(matches!(driver_name("a-name-far-too-long"), Err(DriverNameError::NameTooLong { .. })));
        assert_eq!(sysctl_io::local_port_range().unwrap(), 40000..=50000);
    });
}

#[test]
fn interface_settings_are_combined_with_those_of_all() {
    let lab = Lab::new();
    let set = |settings: &str| lab.exec("lb", &format!("sysctl -qw {settings}"));
    set("net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.eth0.rp_filter=2 net.ipv4.conf.eth0.accept_local=0");
    set("net.ipv4.conf.all.accept_local=1 net.ipv4.conf.eth0.forwarding=1 net.ipv6.conf.eth0.forwarding=0");
    lab.in_lb(async || {
        assert_eq!(
            sysctl_io::interface_settings("eth0").unwrap(),
            InterfaceSettings { rp_filter: RpFilter::Loose, accepts_local: true, forwards_v4: true, forwards_v6: false }
        );
        assert!(matches!(sysctl_io::interface_settings("nothere"), Err(sysctl_io::SysctlError::Read { .. })));
        assert!(matches!(sysctl_io::interface_settings("../eth0"), Err(sysctl_io::SysctlError::Name { .. })));
    });
}
