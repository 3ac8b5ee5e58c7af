//! What is left to the operator, as commands to copy. Pure.

use std::{collections::BTreeSet, net::IpAddr};

use super::plan::{Tunnel, Way};
use crate::netlink::{Link, routes::DefaultRoute};

/// Bytes of a TCP header without options.
const TCP: u32 = 20;
/// Bytes of UDP and GUE headers.
const GUE: u32 = 8 + 4;

/// The family of the addresses that tunnels run between: that of the server's address in the pool.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outer {
    /// IPv4.
    Ipv4,
    /// IPv6.
    Ipv6,
}

const fn ip_bytes(is_v4: bool) -> u32 {
    if is_v4 { 20 } else { 40 }
}

/// Bytes that a packet grows by on its way here.
#[must_use]
pub const fn overhead_bytes(tunnel: Tunnel, outer: Outer) -> u32 {
    let ip = ip_bytes(matches!(outer, Outer::Ipv4));
    match tunnel {
        Tunnel::Dsr => 0,
        Tunnel::Ipip => ip,
        Tunnel::Gue(_) => ip + GUE,
    }
}

/// The largest MSS, in bytes, with which clients' packets fit through the tunnel to an interface of this MTU.
#[must_use]
pub const fn mss_bytes(mtu: u32, tunnel: Tunnel, outer: Outer, is_v4_vip: bool) -> u32 {
    mtu.saturating_sub(overhead_bytes(tunnel, outer) + ip_bytes(is_v4_vip) + TCP)
}

/// The MSS that answers of this host have to offer to clients: they go past the load balancer, which so cannot lower it. Nothing for dsr.
#[must_use]
pub fn on_mss(link: &Link, tunnel: Tunnel, outer: Outer, vips: &BTreeSet<IpAddr>, routes: &[DefaultRoute], links: &[Link]) -> Vec<String> {
    let overhead = overhead_bytes(tunnel, outer);
    if overhead == 0 {
        return vec![];
    }
    let mut lines = vec![];
    for is_v4 in [true, false].into_iter().filter(|is_v4| vips.iter().any(|vip| vip.is_ipv4() == *is_v4)) {
        let mss = mss_bytes(link.mtu, tunnel, outer, is_v4);
        let of_family = routes.iter().filter(|route| route.is_v4 == is_v4);
        let (fitting, others): (Vec<_>, Vec<_>) = of_family.partition(|route| route.advmss.is_some_and(|advmss| advmss <= mss));
        lines.extend(others.iter().filter_map(|route| change_route(route, mss, links)));
        if fitting.is_empty() && others.is_empty() {
            let family = if is_v4 { "ip" } else { "ip -6" };
            lines.push(format!("{family} route change PREFIX … advmss {mss}   # each route by which clients are reached"));
        }
    }
    if !lines.is_empty() {
        let words = format!(
            "# packets grow by {overhead} bytes in the tunnel: raise the MTU from the load balancer to {} by as many, or offer clients a smaller MSS:",
            link.name
        );
        lines.insert(0, words);
    }
    lines
}

/// The command that makes connections over the route offer `mss`; none if its interface has gone. `ip route change` forgets what it is not told.
fn change_route(route: &DefaultRoute, mss: u32, links: &[Link]) -> Option<String> {
    let link = links.iter().find(|link| link.ifindex == route.ifindex)?;
    let mut words = String::from(if route.is_v4 { "ip route change default" } else { "ip -6 route change default" });
    if let Some(gateway) = route.gateway {
        let inet6 = if route.is_v4 && gateway.is_ipv6() { "inet6 " } else { "" };
        words += &format!(" via {inet6}{gateway}");
    }
    words += &format!(" dev {} proto {}", link.name, route.protocol);
    if let Some(source) = route.source {
        words += &format!(" src {source}");
    }
    if route.priority != 0 {
        words += &format!(" metric {}", route.priority);
    }
    Some(words + &format!(" advmss {mss}"))
}

/// The tunnel devices that open tunnels without Weir's program. Nothing for dsr, or where that program does it.
#[must_use]
pub fn on_devices(tunnel: Tunnel, way: Way, outer: Outer, vips: &BTreeSet<IpAddr>) -> Vec<String> {
    if way == Way::Xdp || tunnel == Tunnel::Dsr {
        return vec![];
    }
    let mut lines = vec!["# tunnels are left to the kernel:".to_owned()];
    if let Tunnel::Gue(port) = tunnel {
        lines.push(match outer {
            Outer::Ipv4 => format!("modprobe fou && ip fou add port {port} gue"),
            Outer::Ipv6 => format!("modprobe fou6 && ip -6 fou add port {port} gue"),
        });
    }
    let device = |module: &str, device: &str| {
        let up = format!("modprobe {module} && ip link set {device} up");
        [up, format!("sysctl -w net.ipv4.conf.{device}.rp_filter=2")]
    };
    match outer {
        Outer::Ipv6 => {
            lines.extend(device("ip6_tunnel", "ip6tnl0"));
            lines.push("ip -6 tunnel change ip6tnl0 mode any".to_owned());
        }
        Outer::Ipv4 => {
            if vips.iter().any(IpAddr::is_ipv4) {
                lines.extend(device("ipip", "tunl0"));
            }
            if vips.iter().any(IpAddr::is_ipv6) {
                lines.push("modprobe sit && ip link set sit0 up".to_owned());
            }
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(name: &str, ifindex: u32) -> Link {
        Link {
            ifindex,
            name: name.to_owned(),
            mac: None,
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

    fn set(vips: &[&str]) -> BTreeSet<IpAddr> {
        vips.iter().map(|vip| vip.parse().unwrap()).collect()
    }

    #[test]
    fn the_mss_leaves_room_for_the_tunnel_in_every_combination() {
        for (tunnel, outer, is_v4, mss) in [
            (Tunnel::Dsr, Outer::Ipv4, true, 1460),
            (Tunnel::Ipip, Outer::Ipv4, true, 1440),
            (Tunnel::Ipip, Outer::Ipv6, true, 1420),
            (Tunnel::Ipip, Outer::Ipv4, false, 1420),
            (Tunnel::Ipip, Outer::Ipv6, false, 1400),
            (Tunnel::Gue(6080), Outer::Ipv4, true, 1428),
            (Tunnel::Gue(6080), Outer::Ipv6, false, 1388),
        ] {
            assert_eq!(mss_bytes(1500, tunnel, outer, is_v4), mss, "{tunnel} {outer:?} {is_v4}");
        }
    }

    #[test]
    fn a_route_is_changed_by_a_command_that_repeats_what_it_has() {
        let route = |is_v4, gateway: &str, advmss| DefaultRoute {
            is_v4,
            ifindex: 3,
            gateway: Some(gateway.parse().unwrap()),
            priority: if is_v4 { 0 } else { 1024 },
            protocol: 16,
            source: is_v4.then(|| "10.0.0.1".parse().unwrap()),
            advmss,
        };
        let (eth0, out0) = (link("eth0", 2), link("out0", 3));
        let links = [eth0.clone(), out0];
        let vips = set(&["192.0.2.1", "2001:db8::1"]);
        let routes = [route(true, "10.0.0.254", Some(1441)), route(false, "fe80::1", None)];
        let lines = on_mss(&eth0, Tunnel::Ipip, Outer::Ipv4, &vips, &routes, &links);
        assert_eq!(
            lines[1..],
            [
                "ip route change default via 10.0.0.254 dev out0 proto 16 src 10.0.0.1 advmss 1440",
                "ip -6 route change default via fe80::1 dev out0 proto 16 metric 1024 advmss 1420",
            ]
        );
        let routes = [route(true, "fe80::1", Some(1440)), route(false, "fe80::1", Some(1420))];
        assert_eq!(on_mss(&eth0, Tunnel::Ipip, Outer::Ipv4, &vips, &routes, &links), [] as [&str; 0]);
        assert_eq!(on_mss(&eth0, Tunnel::Dsr, Outer::Ipv4, &vips, &[], &links), [] as [&str; 0]);
    }

    #[test]
    fn each_combination_of_families_has_its_device() {
        let devices = |tunnel, outer, vips: &[&str]| on_devices(tunnel, Way::Kernel, outer, &set(vips)).join("\n");
        let ipip = devices(Tunnel::Ipip, Outer::Ipv4, &["192.0.2.1"]);
        assert!(ipip.contains("tunl0 up") && !ipip.contains("sit0") && !ipip.contains("fou"), "{ipip}");
        let gue = devices(Tunnel::Gue(7000), Outer::Ipv4, &["2001:db8::1"]);
        assert!(gue.contains("ip fou add port 7000 gue") && gue.contains("sit0 up") && !gue.contains("tunl0"), "{gue}");
        assert!(devices(Tunnel::Ipip, Outer::Ipv6, &["192.0.2.1"]).contains("ip6tnl0 mode any"));
        assert_eq!(on_devices(Tunnel::Ipip, Way::Xdp, Outer::Ipv4, &set(&["192.0.2.1"])), [] as [&str; 0]);
    }
}
