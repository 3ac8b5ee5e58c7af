//! A node as it is, and parts of it in detail: what `weir status` shows.

use std::{borrow::Cow, collections::BTreeMap, net::IpAddr};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::answer::ServerDetail;
use crate::{
    control::{
        course::Transition,
        standing::{ServerName, Why},
    },
    health::book::Entry,
    speaker::order::RouterView,
};

/// The word for a next hop that packets can be sent to.
pub const RESOLVED: &str = "resolved";
/// The word for the mode of an interface that the program is not attached to.
pub const DETACHED: &str = "detached";

/// A node as it is.
#[derive(Serialize, Deserialize, Debug, ToSchema)]
pub struct Status {
    /// The node's name.
    pub node: String,
    /// Whether the data plane forwards and is as the configuration wants it.
    pub ready: bool,
    /// The daemon.
    pub daemon: Daemon,
    /// Whether the interfaces are in another network namespace than this command.
    pub elsewhere: bool,
    /// Interfaces that packets are taken from.
    pub interfaces: Vec<Interface>,
    /// What checks found of servers, by `POOL/SERVER`.
    pub checks: BTreeMap<ServerName, Entry>,
    /// Bytes of kernel memory that the maps take.
    pub memory_bytes: u64,
    /// The services.
    pub services: Vec<Service>,
    /// Packets dropped that belong to no service, by reason.
    pub drops: BTreeMap<Cow<'static, str>, u64>,
    /// Other counts that belong to no service.
    pub notes: BTreeMap<Cow<'static, str>, u64>,
    /// How NAT ports are used.
    pub nat: Nat,
    /// Virtual routers, as the daemon knows them.
    #[serde(default)]
    pub vrrp: Vec<RouterView>,
    /// What is wrong, in words.
    pub problems: Vec<String>,
    /// What is otherwise than the file says, in words.
    pub notices: Vec<String>,
}

/// The daemon.
#[derive(Serialize, Deserialize, Debug, ToSchema)]
pub struct Daemon {
    /// Whether it runs.
    pub running: bool,
    /// Its process; 0 if it does not run.
    pub pid: u32,
    /// Whether the rest is its own record, not that of an earlier one.
    pub recorded: bool,
    /// Its version.
    pub version: String,
    /// Seconds of the Unix epoch.
    pub started_at: u64,
    /// `fresh` or `adopted`.
    pub origin: String,
    /// Seconds of the Unix epoch.
    pub config_taken_at: u64,
    /// Errors of the file as it is now.
    pub config_errors: Vec<String>,
    /// Warnings of the configuration in force.
    pub config_warnings: Vec<String>,
}

/// An interface.
#[derive(Serialize, Deserialize, Debug, ToSchema)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// `native`, `generic`, or `unknown` without a daemon's record.
    pub mode: String,
    /// Whether the program is attached to it.
    pub attached: bool,
}

/// A service.
#[derive(Serialize, Deserialize, Debug, ToSchema)]
pub struct Service {
    /// Its number in the maps.
    pub id: u16,
    /// The listener, if the daemon's record knows it.
    pub listener: String,
    /// The pool.
    pub pool: String,
    /// Whether no listener has it any more: it is here for the flows that are left.
    pub leaving: bool,
    /// The VIP.
    #[schema(value_type = String, example = "198.51.100.1")]
    pub vip: IpAddr,
    /// The port, 0 for every one.
    pub port: u16,
    /// `tcp` or `udp`.
    pub protocol: Cow<'static, str>,
    /// Its slots.
    pub slots: Slots,
    /// Its members.
    pub members: Vec<Member>,
    /// Packets dropped, by reason.
    pub drops: BTreeMap<Cow<'static, str>, u64>,
    /// Other counts.
    pub notes: BTreeMap<Cow<'static, str>, u64>,
}

/// A service's slots by state.
#[derive(Serialize, Deserialize, Clone, Copy, Default, Debug, ToSchema)]
pub struct Slots {
    /// All.
    pub total: u32,
    /// The table alone answers.
    pub clean: u32,
    /// Flows are remembered as they come.
    pub learning: u32,
    /// Older flows are remembered.
    pub settled: u32,
}

/// A member.
#[derive(Serialize, Deserialize, Clone, Debug, ToSchema)]
pub struct Member {
    /// Its number in the maps.
    pub id: u16,
    /// The server's name, if the daemon's record knows it.
    pub server: String,
    /// Its address.
    #[schema(value_type = String, example = "192.0.2.10")]
    pub address: IpAddr,
    /// Its port, 0 for the packet's.
    pub port: u16,
    /// How packets reach it.
    pub forward: Cow<'static, str>,
    /// Its weight.
    pub weight: u16,
    /// `ready`, `drain`, `down`, `closing` or `retired`.
    pub state: Cow<'static, str>,
    /// Why it takes new flows or does not; none if the daemon's record does not know it.
    pub why: Option<Why>,
    /// Whether its next hop is resolved, and its answers are translated; else why not.
    pub next_hop: String,
    /// Slots that name it.
    pub slots: u32,
    /// Packets sent to it.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Packets a second, over the last seconds; none without a daemon.
    pub packets_per_second: Option<f64>,
    /// Remembered flows that are alive: cached ones, or translated ones.
    pub flows: u32,
}

/// How NAT is used.
#[derive(Serialize, Deserialize, Default, Debug, ToSchema)]
pub struct Nat {
    /// Chunks of 256 flows that nobody has.
    pub free_chunks: u64,
    /// The planes.
    pub planes: Vec<Plane>,
}

/// Ports from one SNAT address toward one server.
#[derive(Serialize, Deserialize, Debug, ToSchema)]
pub struct Plane {
    /// The address that the server sees.
    #[schema(value_type = String, example = "192.0.2.1")]
    pub snat: IpAddr,
    /// The server.
    #[schema(value_type = String, example = "192.0.2.10")]
    pub server: IpAddr,
    /// Its port, 0 for every one.
    pub port: u16,
    /// `tcp` or `udp`.
    pub protocol: Cow<'static, str>,
    /// Ports with a live flow.
    pub flows: u32,
    /// Those, and ports that rest after one.
    pub taken: u32,
    /// Ports that it has been given memory for.
    pub given: u64,
    /// Ports that it may have.
    pub most: u64,
    /// Bytes of memory that its flows take.
    pub memory_bytes: u64,
}

/// A part of a node with all that is known of it.
#[derive(Serialize, Deserialize, Debug, ToSchema)]
pub struct Part {
    /// The node's name.
    pub node: String,
    /// Whether a daemon runs.
    pub running: bool,
    /// Why more is not known of servers, though one runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_told: Option<String>,
    /// Whether services were asked for, and not single servers.
    pub of_services: bool,
    /// The services that are meant, or that the servers belong to.
    pub services: Vec<Service>,
    /// The servers.
    pub servers: Vec<ServerPart>,
}

/// A server.
#[derive(Serialize, Deserialize, Debug, ToSchema)]
pub struct ServerPart {
    /// Its names.
    pub server: ServerName,
    /// Why it takes new flows, or does not.
    pub why: Option<Why>,
    /// Milliseconds of the Unix epoch since when it is so.
    pub since_ms: Option<u64>,
    /// Whether it is up, and since when, by its checks.
    pub check: Option<Entry>,
    /// The last changes of what it is, the oldest first.
    pub transitions: Vec<Transition>,
    /// What only a daemon that runs can tell.
    pub detail: Option<ServerDetail>,
    /// What it is to each of its services.
    pub members: Vec<Placement>,
}

/// A server in one of its services.
#[derive(Serialize, Deserialize, Debug, ToSchema)]
pub struct Placement {
    /// The listener.
    pub listener: String,
    /// The service's VIP.
    #[schema(value_type = String, example = "198.51.100.1")]
    pub vip: IpAddr,
    /// Its port, 0 for every one.
    pub service_port: u16,
    /// `tcp` or `udp`.
    pub protocol: Cow<'static, str>,
    /// All slots of the service.
    pub slots_total: u32,
    /// The server's member there.
    #[serde(flatten)]
    pub member: Member,
}

impl Status {
    /// Whether nobody has to look after it.
    pub fn is_healthy(&self) -> bool {
        self.ready
            && self.daemon.running
            && self.daemon.config_errors.is_empty()
            && self.services.iter().all(|service| !service.is_out())
            && self.vrrp.iter().all(can_serve)
    }
}

/// Whether a virtual router takes part: another node has its addresses, or this one has them or takes them by itself where nobody is heard.
pub fn can_serve(router: &RouterView) -> bool {
    !["fault", "unknown"].contains(&router.state.as_str())
}

impl Plane {
    /// Whether nineteen of twenty ports are taken.
    pub fn is_nearly_full(&self) -> bool {
        self.most > 0 && u64::from(self.taken) * 20 >= self.most * 19
    }
}

impl Service {
    /// Whether no server takes new flows, or none that does can be reached.
    fn is_out(&self) -> bool {
        !self.leaving && (self.is_deserted() || self.is_unreachable())
    }

    /// Whether no server takes new flows.
    pub fn is_deserted(&self) -> bool {
        self.slots.total > 0 && self.members.iter().all(|member| member.slots == 0)
    }

    /// Whether none of the servers that take new flows can be sent to, or answer.
    pub fn is_unreachable(&self) -> bool {
        let mut taking = self.members.iter().filter(|member| member.slots > 0).peekable();
        taking.peek().is_some() && taking.all(|member| member.next_hop != RESOLVED)
    }
}

impl Part {
    /// Whether nobody has to look after it: its servers pass their checks and can be reached, and a daemon runs.
    pub fn is_healthy(&self) -> bool {
        let is_well = |server: &ServerPart| {
            server.why != Some(Why::Unhealthy) && server.members.iter().all(|one| one.member.slots == 0 || one.member.next_hop == RESOLVED)
        };
        self.running && self.servers.iter().all(is_well)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_virtual_router_that_cannot_serve_has_to_be_looked_after() {
        let is_healthy = |states: &[&str]| {
            let daemon = Daemon {
                running: true,
                pid: 7,
                recorded: true,
                version: String::new(),
                started_at: 1,
                origin: "fresh".into(),
                config_taken_at: 1,
                config_errors: Vec::new(),
                config_warnings: Vec::new(),
            };
            let router = |state: &&str| RouterView { state: (*state).to_owned(), ..RouterView::default() };
            Status {
                node: "a".into(),
                ready: true,
                daemon,
                elsewhere: false,
                interfaces: Vec::new(),
                checks: BTreeMap::new(),
                memory_bytes: 0,
                services: Vec::new(),
                drops: BTreeMap::new(),
                notes: BTreeMap::new(),
                nat: Nat { planes: Vec::new(), free_chunks: 0 },
                vrrp: states.iter().map(router).collect(),
                problems: Vec::new(),
                notices: Vec::new(),
            }
            .is_healthy()
        };
        // A backup that has heard nobody yet is not told from others.
        assert!(is_healthy(&["stopped", "backup", "held-over", "active", "yielding"]));
        assert!(!is_healthy(&["active", "fault"]));
        assert!(!is_healthy(&["unknown", "active"]));
    }
}
