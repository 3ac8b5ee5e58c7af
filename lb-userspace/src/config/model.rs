//! The typed configuration: what `weir.toml` says, with no invalid state. Built by the reader of this folder, read by `control` and `runtime`.

use std::{collections::BTreeMap, fmt, net::IpAddr, path::PathBuf, sync::Arc, time::Duration};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

pub use self::{
    check::{Check, CheckTls, HttpProbe, HttpVersion, Pace, Probe, Step, Via},
    name::{Dns, Families, NamedServer, Question},
    vrrp::{Secret, Track, Tracked, TrackedCommand, VirtualAddress, VirtualRouter},
};

mod check;
mod name;
mod vrrp;

/// A whole configuration. Every pool that a listener names exists.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// This machine.
    pub node: Node,
    /// Who may operate the daemon.
    pub admin: Admin,
    /// Who is asked for names.
    pub dns: Dns,
    /// Sizes of the tables, fixed while the data plane is loaded.
    pub limits: Limits,
    /// By name.
    pub listeners: BTreeMap<String, Listener>,
    /// By name. Shared with the configurations that are made from this one, so that one of thousands can be copied and compared at little cost.
    pub pools: BTreeMap<String, Arc<Pool>>,
    /// Virtual routers, by name.
    pub vrrp: BTreeMap<String, VirtualRouter>,
}

/// `[node]`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Node {
    /// The name shown by `weir status`; the host name by default.
    pub name: String,
    /// Where packets come in and go out. At least one.
    pub interfaces: Vec<String>,
    /// How the XDP program is attached.
    pub xdp: XdpMode,
    /// From which all slot keys are derived; nodes with the same seed choose the same servers.
    pub slot_seed: String,
    /// Where maps, program and links are pinned: a folder of its own in a BPF file system.
    pub pin_dir: PathBuf,
    /// Where the running daemon leaves what `weir status` shows.
    pub state_dir: PathBuf,
    /// Whether VIPs and SNAT addresses that no interface has are added to the first interface.
    pub addresses: AddressPolicy,
    /// Outer source address of IPv4 tunnels; by default the address the route to the server prefers.
    pub tunnel_source4: Option<IpAddr>,
    /// Outer source address of IPv6 tunnels.
    pub tunnel_source6: Option<IpAddr>,
}

/// `[admin]`.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Admin {
    /// The socket of the admin API; `admin.sock` in the state directory if none.
    pub socket: Option<PathBuf>,
    /// The group that the socket belongs to: its members may look.
    pub group: Option<String>,
    /// The users beside root who may change something.
    pub users: Vec<String>,
}

/// `node.xdp`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum XdpMode {
    /// Native where the driver can, generic otherwise.
    Auto,
    /// Native, or refuse to start.
    Native,
    /// Generic.
    Generic,
}

/// `node.addresses`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AddressPolicy {
    /// Weir adds the missing ones, and removes on `weir stop` those that it added.
    Add,
    /// Somebody else sees to them.
    Leave,
}

/// `[limits]`: capacities of the tables.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Services (VIP + port + protocol), 1 to 4 096.
    pub services: u32,
    /// Members (servers times the services they are in), 1 to 65 000.
    pub members: u32,
    /// Flows that may be remembered, up to 4 Mi.
    pub flows: u32,
    /// Concurrent NAT flows, up to 1 Mi.
    pub nat_flows: u32,
    /// NAT planes: pairs of SNAT address and server endpoint.
    pub nat_planes: u32,
    /// Sources whose connection rate is watched at once.
    pub rate_sources: u32,
    /// Fragmented packets in flight.
    pub fragments: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            services: 256,
            members: 4096,
            flows: 1 << 20,
            nat_flows: 1 << 18,
            nat_planes: 512,
            rate_sources: 1 << 16,
            fragments: 1 << 13,
        }
    }
}

/// `[listener.NAME]` with `mode = "l4"`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Listener {
    /// Addresses, ports and protocols; at least one, no two alike in the whole configuration.
    pub binds: Vec<Bind>,
    /// The pool's name.
    pub pool: String,
    /// The pool that the file names, while the operator has it use another one: that goes on being checked.
    pub set_aside: Option<String>,
    /// If not empty, only these sources are let in.
    pub allow: Vec<IpNet>,
    /// These sources are refused; between `allow` and `deny` the longer prefix wins.
    pub deny: Vec<IpNet>,
    /// New connections of one source (an IPv4 address, an IPv6 /64).
    pub conn_rate: Option<Rate>,
    /// Slots of each of its services: a power of two, 256 to 65 536.
    pub slots: u32,
    /// Idle time after which a TCP flow is forgotten, 1 s to 4 h.
    pub tcp_idle: Duration,
    /// Idle time after which a UDP flow is forgotten, 1 s to 4 h.
    pub udp_idle: Duration,
    /// Whether UDP flows are remembered.
    pub udp: UdpFlows,
}

/// Where a listener takes packets.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Bind {
    /// The VIP.
    pub address: IpAddr,
    /// The port; none takes every port that no other bind of this address and protocol takes.
    pub port: Option<u16>,
    /// TCP or UDP.
    pub protocol: Protocol,
}

/// A protocol that is balanced.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// IP protocol 6.
    Tcp,
    /// IP protocol 17.
    Udp,
}

/// `count` events in any `per`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rate {
    /// At least one.
    pub count: u32,
    /// Longer than zero.
    pub per: Duration,
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.count, humantime::format_duration(self.per))
    }
}

/// `listener.NAME.udp`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum UdpFlows {
    /// A flow stays with its server while the table changes.
    Tracked,
    /// Nothing is remembered.
    Stateless,
}

/// `[pool.NAME]`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pool {
    /// How packets reach the servers.
    pub forward: Forward,
    /// What of a packet chooses its slot.
    pub balance: Balance,
    /// What becomes of the flows of a server that is down.
    pub on_down: OnDown,
    /// How its servers are checked; none: each counts as up.
    pub check: Option<Check>,
    /// The time over which a server that comes back up regains its weight; zero: at once.
    pub slow_start: Duration,
    /// The share of servers, in percent, below which those that are down are used as well; 0 never.
    pub panic_threshold_pct: u8,
    /// Whether a server that answers no client is checked at once, and told.
    pub passive_hints: bool,
    /// By name. At least one, if there is none of `names`.
    pub servers: BTreeMap<String, Server>,
    /// Those that the DNS knows, by name.
    pub names: BTreeMap<String, NamedServer>,
}

/// `pool.NAME.forward` and what each mode needs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Forward {
    /// Both ways through this node. Servers are of the VIP's family.
    Nat {
        /// The addresses that servers see; empty: the node's own address toward the server.
        snat: Vec<IpAddr>,
    },
    /// Link-layer forwarding; servers are on a connected network and hold the VIP. They are of the VIP's family.
    Dsr,
    /// IP in IP, either family in either.
    Ipip,
    /// IP in UDP (GUE), either family in either.
    Gue {
        /// The servers' UDP port.
        port: u16,
    },
}

/// `pool.NAME.balance`, as an L4 listener understands it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Balance {
    /// By source address and port: shares follow the weights.
    Tuple,
    /// By source address alone.
    Source,
}

/// `pool.NAME.on_down`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OnDown {
    /// Existing flows still go to it: a false alarm kills no connection.
    Keep,
    /// Existing flows are reset.
    CloseSessions,
}

/// `pool.NAME.servers.SERVER`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Server {
    /// Its address.
    pub address: IpAddr,
    /// Its port, for NAT; none keeps the packet's.
    pub port: Option<u16>,
    /// Its share among the ready servers of the pool, 0 to 1 000; 0 drains it.
    pub weight: u16,
    /// Used only while no primary server is up.
    pub backup: bool,
    /// What the operator says of it.
    pub state: ServerState,
}

/// `state` of a server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ServerState {
    /// Takes flows by its weight.
    Ready,
    /// Takes no new flow; keeps those that it has.
    Drain,
    /// Counts as failed: no new flow, and `on_down` for those that it has.
    Down,
}
