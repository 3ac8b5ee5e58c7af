//! Every way of forwarding, each with a VIP of its own: HTTP on port 80, the echo servers on 7000 TCP and UDP. A server opens one kind of tunnel, so
//! what is asked for is one of the lists here.

use std::{fmt, net::SocketAddr};

use crate::lab::{Family, Host, Nginx, ServerSetup, TcpServer, Topology, UdpServer};

/// nginx.
pub const WEB: u16 = 80;
/// The echo servers.
pub const ECHO: u16 = 7000;
/// Host number of the first mode's VIP.
const FIRST_VIP: u8 = 100;

/// A way of forwarding.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mode {
    /// As in the configuration.
    pub forward: &'static str,
    /// Family of the VIP.
    pub vip: Family,
    /// Family of the server's address.
    pub server: Family,
}

const fn mode(forward: &'static str, vip: Family, server: Family) -> Mode {
    Mode { forward, vip, server }
}

impl Mode {
    /// Without a tunnel.
    pub const PLAIN: &'static [Self] = &[
        mode("nat", Family::V4, Family::V4),
        mode("nat", Family::V6, Family::V6),
        mode("dsr", Family::V4, Family::V4),
        mode("dsr", Family::V6, Family::V6),
    ];
    /// IP in IP.
    pub const IPIP: &'static [Self] = &[
        mode("ipip", Family::V4, Family::V4),
        mode("ipip", Family::V6, Family::V6),
        mode("ipip", Family::V4, Family::V6),
        mode("ipip", Family::V6, Family::V4),
    ];
    /// IP in UDP.
    pub const GUE: &'static [Self] = &[
        mode("gue", Family::V4, Family::V4),
        mode("gue", Family::V6, Family::V6),
        mode("gue", Family::V4, Family::V6),
        mode("gue", Family::V6, Family::V4),
    ];

    /// Bytes that the mode puts before a packet.
    pub fn overhead(self) -> usize {
        let outer = if self.server == Family::V4 { 20 } else { 40 };
        match self.forward {
            "ipip" => outer,
            "gue" => outer + 12,
            _ => 0,
        }
    }

    /// Bytes of the IP header of its packets.
    pub fn ip_header(self) -> usize {
        if self.vip == Family::V4 { 20 } else { 40 }
    }

    fn holds_vip(self) -> bool {
        self.forward != "nat"
    }
}

/// `nat-4`, or `ipip-6in4`.
impl fmt::Display for Mode {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digit = |family| if family == Family::V4 { 4 } else { 6 };
        match self.overhead() {
            0 => write!(out, "{}-{}", self.forward, digit(self.vip)),
            _ => write!(out, "{}-{}in{}", self.forward, digit(self.vip), digit(self.server)),
        }
    }
}

/// Port `port` of the `index`th mode's VIP.
pub fn vip(lab: &Topology, modes: &[Mode], index: usize, port: u16) -> SocketAddr {
    let number = FIRST_VIP + u8::try_from(index).expect("there are a dozen modes");
    SocketAddr::new(lab.vip(modes[index].vip, number), port)
}

/// What runs on a server.
#[derive(Debug)]
pub struct Served {
    _setup: Option<ServerSetup>,
    _nginx: Nginx,
    _tcp: TcpServer,
    _udp: UdpServer,
}

/// Starts nginx and the echo servers, called s1 and so on, on every server, for all these modes.
pub fn serve(lab: &Topology, modes: &[Mode]) -> anyhow::Result<Vec<Served>> {
    serve_by(lab.servers.iter(), lab, modes)
}

/// The same on other machines.
pub fn serve_by<'a>(servers: impl IntoIterator<Item = &'a Host>, lab: &Topology, modes: &[Mode]) -> anyhow::Result<Vec<Served>> {
    servers.into_iter().enumerate().map(|(index, host)| serve_on(host, &format!("s{}", index + 1), lab, modes)).collect()
}

fn serve_on(host: &Host, name: &str, lab: &Topology, modes: &[Mode]) -> anyhow::Result<Served> {
    let mut listen: Vec<SocketAddr> = Family::ALL.map(|family| SocketAddr::new(host.address(family), ECHO)).into();
    let held: Vec<_> = (0..modes.len()).filter(|index| modes[*index].holds_vip()).map(|index| vip(lab, modes, index, ECHO)).collect();
    listen.extend(&held);
    let addresses: Vec<_> = held.iter().map(SocketAddr::ip).collect();
    let tunnel = modes.iter().find(|mode| mode.overhead() > 0);
    let setup = tunnel.map(|mode| ServerSetup::add(host, mode.forward, &addresses)).transpose()?;
    if setup.is_none() {
        addresses.iter().try_for_each(|address| host.hold(*address))?;
    }
    Ok(Served {
        _setup: setup,
        _nginx: Nginx::start(&host.namespace, name, WEB)?,
        _tcp: TcpServer::start(&host.namespace, name, ECHO)?,
        _udp: UdpServer::start_at(&host.namespace, name, &listen)?,
    })
}

/// A listener and a pool for each mode; they follow the keys of `[node]`.
pub fn configuration(lab: &Topology, modes: &[Mode]) -> String {
    configuration_by(&lab.servers.iter().collect::<Vec<_>>(), lab, modes)
}

/// The same with other machines as servers.
pub fn configuration_by(servers: &[&Host], lab: &Topology, modes: &[Mode]) -> String {
    let mut text = "slot_seed = \"modes\"\n[defaults]\nmode = \"l4\"\nslots = 1024\n".to_owned();
    for (index, mode) in modes.iter().enumerate() {
        let (web, echo) = (vip(lab, modes, index, WEB), vip(lab, modes, index, ECHO));
        text += &format!("\n[listener.{mode}]\nbind = [\"{web}\", \"{echo}\", \"{echo}/udp\"]\npool = \"{mode}\"\n");
        text += &format!("[pool.{mode}]\nforward = \"{}\"\n", mode.forward);
        for (number, server) in servers.iter().enumerate() {
            text += &format!("servers.s{} = \"{}\"\n", number + 1, server.address(mode.server));
        }
    }
    text
}
