//! Clients, nodes and servers on local networks, addressed and routed for both families.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::Context as _;

use super::{Cable, End, Namespace};

const ETH0: &str = "eth0";
const ETH1: &str = "eth1";
/// Host numbers on a network.
const NODE: u8 = 1;
const FIRST: u8 = 11;
const FIRST_SERVER_ONE_ARMED: u8 = 51;
const VIP: u8 = 100;
const ROUTER: u8 = 254;

/// How the machines are joined. A network is 10.N.0.0/24 and fd00:N::/64; host numbers read alike in both (10.2.0.11 is fd00:2::11).
///
/// | shape | picture | VIPs | nodes | clients | servers |
/// |---|---|---|---|---|---|
/// | `OneArmed` | all on network 1 | 10.1.0.100 | 10.1.0.1.. | 10.1.0.11.. | 10.1.0.51.. |
/// | `TwoArmed` | clients –1– nodes –2– servers; everybody's default route is the first node | 10.1.0.100 | 10.1.0.1.., 10.2.0.1.. | 10.1.0.11.. | 10.2.0.11.. |
/// | `Routed` | clients –1– router –2– nodes and servers; default routes and the VIPs' way lead over the router | 10.3.0.100 | 10.2.0.1.. | 10.1.0.11.. | 10.2.0.11.. |
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Shape {
    /// One local network.
    OneArmed,
    /// The node stands between two networks.
    TwoArmed,
    /// A router stands between the clients and a network with nodes and servers: servers answer past the node.
    Routed,
}

/// A machine.
#[derive(Debug)]
pub struct Host {
    /// Its namespace.
    pub namespace: Namespace,
    /// Its network interfaces, first the one toward the clients.
    pub interfaces: &'static [&'static str],
    /// Address of the first interface.
    pub v4: Ipv4Addr,
    /// Address of the first interface.
    pub v6: Ipv6Addr,
}

/// A running topology. Dropping it removes everything.
#[derive(Debug)]
pub struct Topology {
    shape: Shape,
    /// Where requests come from.
    pub clients: Vec<Host>,
    /// Where Weir runs.
    pub nodes: Vec<Host>,
    /// Where requests go.
    pub servers: Vec<Host>,
    /// Between clients and nodes, in `Shape::Routed`.
    pub router: Option<Host>,
    _lans: Vec<Lan>,
}

/// What a topology will have: one client, one node, two servers and 1 500 bytes unless told otherwise.
#[derive(Clone, Copy, Debug)]
pub struct TopologyBuilder {
    shape: Shape,
    clients: u8,
    nodes: u8,
    servers: u8,
    mtu: u32,
    server_mtu: Option<u32>,
}

impl TopologyBuilder {
    /// Number of clients, at most 40.
    pub fn clients(mut self, count: u8) -> Self {
        self.clients = count;
        self
    }

    /// Number of nodes, at most 10.
    pub fn nodes(mut self, count: u8) -> Self {
        self.nodes = count;
        self
    }

    /// Number of servers, at most 40.
    pub fn servers(mut self, count: u8) -> Self {
        self.servers = count;
        self
    }

    /// MTU of every network, in bytes.
    pub fn mtu(mut self, bytes: u32) -> Self {
        self.mtu = bytes;
        self
    }

    /// MTU of the servers' network where it is another than the clients', in bytes.
    pub fn server_mtu(mut self, bytes: u32) -> Self {
        self.server_mtu = Some(bytes);
        self
    }

    /// Makes it all.
    pub fn build(self) -> anyhow::Result<Topology> {
        match self.shape {
            Shape::OneArmed => self.one_armed(),
            Shape::TwoArmed => self.two_armed(),
            Shape::Routed => self.routed(),
        }
        .with_context(|| format!("failed to build the lab {:?}", self.shape))
    }

    fn one_armed(self) -> anyhow::Result<Topology> {
        let mut lan = Lan::new(1, self.mtu)?;
        let nodes = hosts("node", self.nodes, |host| node(host, &mut [&mut lan], NODE))?;
        let clients = hosts("client", self.clients, |host| lan.plug(host, ETH0, FIRST, false))?;
        let servers = hosts("server", self.servers, |host| lan.plug(host, ETH0, FIRST_SERVER_ONE_ARMED, false))?;
        Ok(self.topology(clients, nodes, servers, None, vec![lan]))
    }

    fn two_armed(self) -> anyhow::Result<Topology> {
        let mut front = Lan::new(1, self.mtu)?;
        let mut back = Lan::new(2, self.server_mtu.unwrap_or(self.mtu))?;
        let nodes = hosts("node", self.nodes, |host| node(host, &mut [&mut front, &mut back], NODE))?;
        let clients = hosts("client", self.clients, |host| front.plug(host, ETH0, FIRST, false))?;
        let servers = hosts("server", self.servers, |host| back.plug(host, ETH0, FIRST, false))?;
        clients.iter().try_for_each(|client| client.default_route(1, NODE))?;
        servers.iter().try_for_each(|server| server.default_route(2, NODE))?;
        Ok(self.topology(clients, nodes, servers, None, vec![front, back]))
    }

    fn routed(self) -> anyhow::Result<Topology> {
        let mut front = Lan::new(1, self.mtu)?;
        let mut back = Lan::new(2, self.server_mtu.unwrap_or(self.mtu))?;
        let router = Host::new(Namespace::new("router")?, &[ETH0, ETH1], v4(1, ROUTER), v6(1, ROUTER));
        router.forwards()?;
        front.plug_at(&router.namespace, ETH0, ROUTER, false)?;
        back.plug_at(&router.namespace, ETH1, ROUTER, false)?;
        let nodes = hosts("node", self.nodes, |host| node(host, &mut [&mut back], NODE))?;
        let clients = hosts("client", self.clients, |host| front.plug(host, ETH0, FIRST, false))?;
        let servers = hosts("server", self.servers, |host| back.plug(host, ETH0, FIRST, false))?;
        clients.iter().try_for_each(|client| client.default_route(1, ROUTER))?;
        nodes.iter().chain(&servers).try_for_each(|host| host.default_route(2, ROUTER))?;
        router.namespace.ip(&format!("route add 10.3.0.0/24 via {}", v4(2, NODE)))?;
        router.namespace.ip(&format!("-6 route add fd00:3::/64 via {}", v6(2, NODE)))?;
        Ok(self.topology(clients, nodes, servers, Some(router), vec![front, back]))
    }

    fn topology(self, clients: Vec<Host>, nodes: Vec<Host>, servers: Vec<Host>, router: Option<Host>, lans: Vec<Lan>) -> Topology {
        Topology { shape: self.shape, clients, nodes, servers, router, _lans: lans }
    }
}

impl Topology {
    /// Starts describing one.
    pub fn builder(shape: Shape) -> TopologyBuilder {
        TopologyBuilder { shape, clients: 1, nodes: 1, servers: 2, mtu: 1500, server_mtu: None }
    }

    /// The first client.
    pub fn client(&self) -> &Host {
        &self.clients[0]
    }

    /// The first node.
    pub fn node(&self) -> &Host {
        &self.nodes[0]
    }

    /// An address with host number `number` that clients reach at the first node once it is there, from 100 to 199.
    pub fn vip(&self, family: Family, number: u8) -> IpAddr {
        family.address(self.vip_network(), number)
    }

    /// An address that clients reach at the first node once it is there.
    pub fn vip4(&self) -> Ipv4Addr {
        v4(self.vip_network(), VIP)
    }

    /// An address that clients reach at the first node once it is there.
    pub fn vip6(&self) -> Ipv6Addr {
        v6(self.vip_network(), VIP)
    }

    /// Takes away or gives back the carrier of a node's first interface.
    pub fn set_carrier(&self, node: usize, has_carrier: bool) -> anyhow::Result<()> {
        let lan = self._lans.get(if self.shape == Shape::Routed { 1 } else { 0 }).context("there is a network")?;
        // Nodes are plugged first.
        lan.namespace.ip(&format!("link set port{node} {}", if has_carrier { "up" } else { "down" })).map(drop)
    }

    fn vip_network(&self) -> u8 {
        match self.shape {
            Shape::OneArmed | Shape::TwoArmed => 1,
            Shape::Routed => 3,
        }
    }
}

impl Host {
    pub(super) fn new(namespace: Namespace, interfaces: &'static [&'static str], v4: Ipv4Addr, v6: Ipv6Addr) -> Self {
        Self { namespace, interfaces, v4, v6 }
    }

    /// Takes the VIPs without answering for them on the network, as a server behind DSR or a tunnel does.
    pub fn hold_vips(&self, v4: Ipv4Addr, v6: Ipv6Addr) -> anyhow::Result<()> {
        self.hold(v4.into())?;
        self.hold(v6.into())
    }

    /// Takes one VIP in the same way.
    pub fn hold(&self, vip: IpAddr) -> anyhow::Result<()> {
        self.namespace.set("net/ipv4/conf/all/arp_ignore", "1")?;
        self.namespace.set("net/ipv4/conf/all/arp_announce", "2")?;
        let rest = if vip.is_ipv4() { "/32 dev lo" } else { "/128 dev lo nodad" };
        self.namespace.ip(&format!("addr add {vip}{rest}"))?;
        Ok(())
    }

    /// Its address of a family.
    pub fn address(&self, family: Family) -> IpAddr {
        match family {
            Family::V4 => self.v4.into(),
            Family::V6 => self.v6.into(),
        }
    }

    /// The link-layer address of an interface, as `aa:bb:cc:dd:ee:ff`.
    pub fn mac(&self, interface: &str) -> anyhow::Result<String> {
        let text = self.namespace.ip(&format!("-j link show {interface}"))?;
        let links: serde_json::Value = serde_json::from_str(&text).context("ip printed no JSON")?;
        Ok(links[0]["address"].as_str().context("the interface has no link-layer address")?.to_owned())
    }

    fn default_route(&self, network: u8, gateway: u8) -> anyhow::Result<()> {
        self.namespace.ip(&format!("route add default via {}", v4(network, gateway)))?;
        self.namespace.ip(&format!("-6 route add default via {}", v6(network, gateway)))?;
        Ok(())
    }

    /// Makes it a router, which takes packets from its own addresses too.
    pub fn forwards(&self) -> anyhow::Result<()> {
        forwards(&self.namespace)
    }
}

/// An address family.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// Host `number` of network `network`.
    pub fn address(self, network: u8, number: u8) -> IpAddr {
        match self {
            Self::V4 => v4(network, number).into(),
            Self::V6 => v6(network, number).into(),
        }
    }

    /// Network `network` with its prefix length.
    pub fn network(self, network: u8) -> String {
        match self {
            Self::V4 => format!("{}/24", v4(network, 0)),
            Self::V6 => format!("{}/64", v6(network, 0)),
        }
    }

    /// The option of `ip`.
    pub fn option(self) -> &'static str {
        match self {
            Self::V4 => "-4",
            Self::V6 => "-6",
        }
    }
}

/// Host `number` of 10.`network`.0.0/24.
pub fn v4(network: u8, number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, network, 0, number)
}

/// Host `number` of fd00:`network`::/64; the number's decimal digits stand in the address as they are.
pub fn v6(network: u8, number: u8) -> Ipv6Addr {
    let digits = |number: u8| u16::from_str_radix(&number.to_string(), 16).expect("decimal digits are hexadecimal ones");
    Ipv6Addr::new(0xfd00, digits(network), 0, 0, 0, 0, 0, digits(number))
}

/// A bridge in a namespace of its own.
#[derive(Debug)]
struct Lan {
    number: u8,
    mtu: u32,
    cables: Vec<Cable>,
    namespace: Namespace,
}

/// A machine that is being made: the how-manieth of its kind.
struct Unplugged<'a> {
    namespace: &'a Namespace,
    index: u8,
}

type Plugged = (&'static [&'static str], Ipv4Addr, Ipv6Addr);

impl Lan {
    fn new(number: u8, mtu: u32) -> anyhow::Result<Self> {
        let namespace = Namespace::new(&format!("lan{number}"))?;
        namespace.ip(&format!("link add br0 mtu {mtu} type bridge stp_state 0 forward_delay 0 mcast_snooping 0"))?;
        namespace.ip("link set br0 up")?;
        Ok(Self { number, mtu, cables: Vec::new(), namespace })
    }

    fn plug(&mut self, host: &Unplugged<'_>, interface: &'static str, first: u8, carries_xdp: bool) -> anyhow::Result<Plugged> {
        let number = first + host.index;
        self.plug_at(host.namespace, interface, number, carries_xdp)?;
        Ok((&[ETH0], v4(self.number, number), v6(self.number, number)))
    }

    fn plug_at(&mut self, host: &Namespace, interface: &str, number: u8, carries_xdp: bool) -> anyhow::Result<()> {
        let port = format!("port{}", self.cables.len());
        let inside = End { namespace: host, interface, carries_xdp };
        let bridge = End { namespace: &self.namespace, interface: &port, carries_xdp: false };
        self.cables.push(Cable::new(inside, bridge, self.mtu)?);
        if !carries_xdp {
            inside.steer_by_flow()?;
        }
        self.namespace.ip(&format!("link set {port} master br0"))?;
        host.ip(&format!("addr add {}/24 dev {interface}", v4(self.number, number)))?;
        host.ip(&format!("addr add {}/64 dev {interface} nodad", v6(self.number, number)))?;
        Ok(())
    }
}

fn hosts(role: &str, count: u8, mut plug: impl FnMut(&Unplugged<'_>) -> anyhow::Result<Plugged>) -> anyhow::Result<Vec<Host>> {
    (0..count)
        .map(|index| {
            let namespace = Namespace::new(&format!("{role}{}", index + 1))?;
            let (interfaces, v4, v6) = plug(&Unplugged { namespace: &namespace, index })?;
            Ok(Host::new(namespace, interfaces, v4, v6))
        })
        .collect()
}

fn node(host: &Unplugged<'_>, lans: &mut [&mut Lan], first: u8) -> anyhow::Result<Plugged> {
    forwards(host.namespace)?;
    let interfaces: &'static [&'static str] = if lans.len() == 1 { &[ETH0] } else { &[ETH0, ETH1] };
    let mut addresses = Vec::new();
    for (lan, interface) in lans.iter_mut().zip(interfaces) {
        let (_, v4, v6) = lan.plug(host, interface, first, true)?;
        addresses.push((v4, v6));
    }
    let (v4, v6) = *addresses.first().context("a node is on a network")?;
    Ok((interfaces, v4, v6))
}

/// Forwards both families, and takes packets whose source is an address of its own: what XDP passes up after NAT has one.
pub(super) fn forwards(namespace: &Namespace) -> anyhow::Result<()> {
    namespace.set("net/ipv4/ip_forward", "1")?;
    namespace.set("net/ipv6/conf/all/forwarding", "1")?;
    for scope in ["all", "default"] {
        namespace.set(&format!("net/ipv4/conf/{scope}/rp_filter"), "0")?;
        namespace.set(&format!("net/ipv4/conf/{scope}/accept_local"), "1")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{v4, v6};

    #[test]
    fn host_numbers_read_alike_in_both_families() {
        assert_eq!(v4(2, 11).to_string(), "10.2.0.11");
        assert_eq!(v6(2, 11).to_string(), "fd00:2::11");
        assert_eq!(v6(1, 100).to_string(), "fd00:1::100");
    }
}
