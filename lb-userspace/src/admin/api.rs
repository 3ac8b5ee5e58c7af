//! Requests; their answers are in `answer`. Paths begin with `/v1/`; a change that breaks clients gets another number.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
};

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

pub use super::answer::{
    Applied, DiffView, Explanation, FlowView, FlowsView, HistoryEntry, HistoryView, InForce, LimitView, MapEntries, MapView, ProbeView,
    Refusal, ServerDetail, ServerView, SlotView, SourceView, StatusView, Switched, TableView, VrrpView,
};
use crate::{
    config::Fragment,
    control::{overrides::AddedServer, standing::ServerName},
};

/// The header of answers with events that tells one daemon from the next, whose events count from 1 again.
pub const DAEMON_HEADER: &str = "weir-daemon";

/// What is asked of the daemon. Each is a path of its own; see [`Request::path`].
#[derive(Clone, PartialEq, Debug)]
pub enum Request {
    /// Servers with their standing, checks and overrides.
    Servers,
    /// The same, and all that is known of their checks and of their past.
    Details,
    /// Everything that is counted, for Prometheus.
    Metrics,
    /// What the maps tell.
    Look(Look),
    /// The overrides.
    Overrides,
    /// The configurations that were in force.
    History,
    /// What happened.
    Events(Since),
    /// What would change if this were the configuration.
    Diff(Candidate),
    /// A configuration is to be in force.
    Apply(Apply),
    /// The last one that waits for it is confirmed.
    Confirm,
    /// An earlier one is to be in force.
    Rollback(Rollback),
    /// Servers take no new flows.
    Drain(Selection),
    /// Servers are out of use.
    Maint(Selection),
    /// Servers are used again: what was said of their state is cleared.
    Ready(Selection),
    /// What was said of servers is forgotten.
    Clear(Selection),
    /// Servers get another weight.
    Weight(WeightChange),
    /// A server joins a pool.
    Add(Addition),
    /// A server leaves its pool.
    Remove(Removal),
    /// A listener uses another pool.
    Switch(Switch),
    /// The connection rates of listeners.
    Limits,
    /// A listener has another connection rate.
    Limit(Limit),
    /// What is known of sources whose connection rate is watched.
    Watched(Source),
    /// It is forgotten.
    Forget(Forget),
    /// Virtual routers as they are.
    Vrrp,
    /// Virtual routers hand over.
    VrrpYield(Which),
    /// Virtual routers may preempt again.
    VrrpReady(Which),
}

/// Which virtual router.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Which {
    /// Its name; those of its sync group go with it. None: all.
    pub router: Option<String>,
}

/// What is answered from the kernel's maps, and changes nothing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Look {
    /// The node as `weir status` shows it.
    Status,
    /// A part of it in detail.
    Part(PartQuestion),
    /// Who is connected where.
    Flows(FlowsQuestion),
    /// Where a packet would go, and why.
    Explain(PacketQuestion),
    /// The maps.
    Maps,
    /// Entries of one of them.
    Entries(EntriesQuestion),
}

impl Look {
    /// Its method and path.
    pub const fn path(&self) -> (&'static str, &'static str) {
        match self {
            Self::Status => ("GET", "/v1/status"),
            Self::Part(_) => ("POST", "/v1/status/part"),
            Self::Flows(_) => ("POST", "/v1/flows"),
            Self::Explain(_) => ("POST", "/v1/explain"),
            Self::Maps => ("GET", "/v1/maps"),
            Self::Entries(_) => ("POST", "/v1/maps/entries"),
        }
    }

    fn body(&self) -> serde_json::Result<Option<String>> {
        let body = match self {
            Self::Status | Self::Maps => return Ok(None),
            Self::Part(body) => serde_json::to_string(body),
            Self::Flows(body) => serde_json::to_string(body),
            Self::Explain(body) => serde_json::to_string(body),
            Self::Entries(body) => serde_json::to_string(body),
        };
        body.map(Some)
    }
}

/// As the command that asks for it.
impl fmt::Display for Look {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status => f.write_str("status"),
            Self::Part(PartQuestion { target }) => write!(f, "status {target}"),
            Self::Flows(_) => f.write_str("flows"),
            Self::Explain(PacketQuestion { source, destination, .. }) => write!(f, "explain {source} {destination}"),
            Self::Maps => f.write_str("bpf"),
            Self::Entries(EntriesQuestion { map, .. }) => write!(f, "bpf {map}"),
        }
    }
}

/// Which events.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Since {
    /// Those after this number.
    pub since: u64,
    /// Whether those that come are told as they happen.
    pub follow: bool,
}

/// A configuration: a text, or the daemon's file as it is.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Candidate {
    /// The text; none: the daemon reads its file.
    pub text: Option<String>,
    /// What messages call it.
    pub name: Option<String>,
    /// Where the fragments of a directory begin in the text; none: it is one file's.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub fragments: Vec<Fragment>,
}

/// A configuration that is to be in force.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Apply {
    /// The text; none: the daemon reads its file.
    pub text: Option<String>,
    /// What messages call it.
    pub name: Option<String>,
    /// Where the fragments of a directory begin in the text; none: it is one file's.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub fragments: Vec<Fragment>,
    /// Seconds after which the earlier one is in force again unless this one is confirmed.
    pub confirm_s: Option<u64>,
}

/// Which earlier configuration.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Rollback {
    /// Its number in the history; none: the one before.
    pub to: Option<u64>,
}

/// Which servers.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Selection {
    /// A pattern: `web/a`, `web/*`.
    pub servers: String,
    /// Even if nobody of a pool takes new flows then.
    #[serde(default)]
    pub force: bool,
}

/// Another weight.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct WeightChange {
    /// A pattern: `web/a`, `web/*`.
    pub servers: String,
    /// From 0 to 1 000; none: that of the configuration.
    pub weight: Option<u16>,
    /// Even if nobody of a pool takes new flows then.
    #[serde(default)]
    pub force: bool,
    /// Written into the configuration's file, instead of said beside it.
    #[serde(default)]
    pub save: bool,
}

/// A server that joins its pool.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Addition {
    /// Its names.
    pub server: ServerName,
    /// What it is.
    #[serde(flatten)]
    pub added: AddedServer,
    /// Written into the configuration's file, instead of said beside it.
    #[serde(default)]
    pub save: bool,
}

/// A server that leaves its pool.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Removal {
    /// Its names.
    pub server: ServerName,
    /// Even if nobody of the pool takes new flows then.
    #[serde(default)]
    pub force: bool,
    /// Taken out of the configuration's file, instead of said beside it.
    #[serde(default)]
    pub save: bool,
}

/// Another pool for a listener.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Switch {
    /// The listener's name.
    pub listener: String,
    /// The pool's name; none: that of the configuration, and nothing is said of the listener any more.
    #[serde(default)]
    pub pool: Option<String>,
    /// Even if nobody of that pool takes new flows.
    #[serde(default)]
    pub force: bool,
}

/// Another connection rate for a listener.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Limit {
    /// The listener's name.
    pub listener: String,
    /// As its `conn_rate` would say it: `100/10s`, `off`; none: that of the configuration.
    #[serde(default)]
    #[schema(example = "100/10s")]
    pub conn_rate: Option<String>,
}

/// Whose connection rate.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Source {
    /// A client's address; of an IPv6 address its /64 is meant. None: only how many are watched.
    #[schema(value_type = Option<String>, example = "192.0.2.7")]
    pub source: Option<IpAddr>,
}

/// What of the node is meant.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PartQuestion {
    /// A pool, a server (`web/a`), a listener, or a pattern of them.
    #[schema(example = "web/*")]
    pub target: String,
}

/// Entries that are told at most in one answer: whoever wants more reads the maps, which root may.
pub const MOST_ENTRIES: usize = 10_000;

const fn some_entries() -> usize {
    100
}

/// Whose flows.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct FlowsQuestion {
    /// Of servers that this pattern fits; none: of all.
    #[serde(default)]
    #[schema(example = "web/*")]
    pub servers: Option<String>,
    /// Of this client; none: of all.
    #[serde(default)]
    #[schema(value_type = Option<String>, example = "192.0.2.7")]
    pub client: Option<IpAddr>,
    /// So many at most, up to 10 000.
    #[serde(default = "some_entries")]
    pub limit: usize,
}

/// A packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PacketQuestion {
    /// Where it comes from.
    #[schema(value_type = String, example = "192.0.2.7:40000")]
    pub source: SocketAddr,
    /// Where it goes.
    #[schema(value_type = String, example = "198.51.100.1:443")]
    pub destination: SocketAddr,
    /// Its protocol.
    #[serde(default)]
    pub protocol: Transport,
    /// What TCP packet of a connection it is.
    #[serde(default)]
    pub kind: PacketKind,
}

/// A packet's protocol.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// TCP.
    #[default]
    Tcp,
    /// UDP.
    Udp,
}

/// What a TCP packet is to its connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum PacketKind {
    /// It opens a connection.
    #[default]
    Syn,
    /// It belongs to an open one.
    Ack,
    /// It closes one.
    Fin,
    /// It resets one.
    Rst,
}

/// Which entries of which map.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EntriesQuestion {
    /// Its name.
    #[schema(example = "SERVICES")]
    pub map: String,
    /// So many at most, up to 10 000.
    #[serde(default = "some_entries")]
    pub limit: usize,
    /// The bytes of the values instead of what they mean.
    #[serde(default)]
    pub raw: bool,
}

/// What is to be forgotten of connection rates.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Forget {
    /// Of this client; of an IPv6 address its /64 is meant.
    #[schema(value_type = Option<String>, example = "192.0.2.7")]
    pub source: Option<IpAddr>,
    /// At this listener; none: at every one. Goes with `source`.
    pub listener: Option<String>,
    /// Of every client; then there is no `source`.
    pub all: bool,
}

impl Request {
    /// Its method and path.
    pub const fn path(&self) -> (&'static str, &'static str) {
        match self {
            Self::Servers => ("GET", "/v1/servers"),
            Self::Details => ("GET", "/v1/servers/details"),
            Self::Metrics => ("GET", "/v1/metrics"),
            Self::Look(look) => look.path(),
            Self::Overrides => ("GET", "/v1/overrides"),
            Self::History => ("GET", "/v1/history"),
            Self::Events(_) => ("GET", "/v1/events"),
            Self::Diff(_) => ("POST", "/v1/diff"),
            Self::Apply(_) => ("POST", "/v1/apply"),
            Self::Confirm => ("POST", "/v1/confirm"),
            Self::Rollback(_) => ("POST", "/v1/rollback"),
            Self::Drain(_) => ("POST", "/v1/drain"),
            Self::Maint(_) => ("POST", "/v1/maint"),
            Self::Ready(_) => ("POST", "/v1/ready"),
            Self::Clear(_) => ("POST", "/v1/clear"),
            Self::Weight(_) => ("POST", "/v1/weight"),
            Self::Add(_) => ("POST", "/v1/servers/add"),
            Self::Remove(_) => ("POST", "/v1/servers/remove"),
            Self::Switch(_) => ("POST", "/v1/switch"),
            Self::Limits => ("GET", "/v1/limits"),
            Self::Limit(_) => ("POST", "/v1/limit"),
            Self::Watched(_) => ("POST", "/v1/table"),
            Self::Forget(_) => ("POST", "/v1/table/clear"),
            Self::Vrrp => ("GET", "/v1/vrrp"),
            Self::VrrpYield(_) => ("POST", "/v1/vrrp/yield"),
            Self::VrrpReady(_) => ("POST", "/v1/vrrp/ready"),
        }
    }

    /// Whether it changes something, which readers may not.
    pub const fn is_change(&self) -> bool {
        match self {
            Self::Servers
            | Self::Details
            | Self::Metrics
            | Self::Look(_)
            | Self::Overrides
            | Self::History
            | Self::Events(_)
            | Self::Diff(_)
            | Self::Limits
            | Self::Vrrp
            | Self::Watched(_) => false,
            Self::Apply(_)
            | Self::Confirm
            | Self::Rollback(_)
            | Self::Drain(_)
            | Self::Maint(_)
            | Self::Ready(_)
            | Self::Clear(_)
            | Self::Weight(_)
            | Self::Add(_)
            | Self::Remove(_)
            | Self::Switch(_)
            | Self::Limit(_)
            | Self::VrrpYield(_)
            | Self::VrrpReady(_)
            | Self::Forget(_) => true,
        }
    }

    /// Its body.
    ///
    /// # Errors
    /// Never for these types.
    pub fn body(&self) -> serde_json::Result<Option<String>> {
        let body = match self {
            Self::Servers
            | Self::Details
            | Self::Metrics
            | Self::Overrides
            | Self::History
            | Self::Events(_)
            | Self::Confirm
            | Self::Vrrp
            | Self::Limits => return Ok(None),
            Self::Look(look) => return look.body(),
            Self::Diff(body) => serde_json::to_string(body),
            Self::Apply(body) => serde_json::to_string(body),
            Self::Rollback(body) => serde_json::to_string(body),
            Self::Drain(body) | Self::Maint(body) | Self::Ready(body) | Self::Clear(body) => serde_json::to_string(body),
            Self::Weight(body) => serde_json::to_string(body),
            Self::Add(body) => serde_json::to_string(body),
            Self::Remove(body) => serde_json::to_string(body),
            Self::Switch(body) => serde_json::to_string(body),
            Self::Limit(body) => serde_json::to_string(body),
            Self::Watched(body) => serde_json::to_string(body),
            Self::Forget(body) => serde_json::to_string(body),
            Self::VrrpYield(body) | Self::VrrpReady(body) => serde_json::to_string(body),
        };
        body.map(Some)
    }
}

/// As the command that asks for it.
impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let force = |force: bool| if force { " --force" } else { "" };
        let save = |save: bool| if save { " --save" } else { "" };
        match self {
            Self::Servers => f.write_str("servers"),
            Self::Details => f.write_str("status SERVER"),
            Self::Metrics => f.write_str("metrics"),
            Self::Look(look) => look.fmt(f),
            Self::Overrides => f.write_str("overrides"),
            Self::History => f.write_str("history"),
            Self::Events(_) => f.write_str("events"),
            Self::Diff(_) => f.write_str("diff"),
            Self::Apply(Apply { name, confirm_s, .. }) => {
                f.write_str("apply")?;
                name.as_ref().map_or(Ok(()), |name| write!(f, " {name}"))?;
                confirm_s.map_or(Ok(()), |seconds| write!(f, " --confirm {seconds}s"))
            }
            Self::Confirm => f.write_str("confirm"),
            Self::Rollback(Rollback { to: Some(to) }) => write!(f, "rollback {to}"),
            Self::Rollback(Rollback { to: None }) => f.write_str("rollback"),
            Self::Drain(which) => write!(f, "drain {}{}", which.servers, force(which.force)),
            Self::Maint(which) => write!(f, "maint {}{}", which.servers, force(which.force)),
            Self::Ready(which) => write!(f, "ready {}{}", which.servers, force(which.force)),
            Self::Weight(WeightChange { servers, weight: Some(weight), force: is_forced, save: is_saved }) => {
                write!(f, "weight {servers} {weight}{}{}", force(*is_forced), save(*is_saved))
            }
            Self::Weight(WeightChange { servers, weight: None, .. }) => write!(f, "weight {servers} default"),
            Self::Add(Addition { server, added, save: is_saved }) => write!(f, "server add {server} {}{}", added.address, save(*is_saved)),
            Self::Remove(Removal { server, force: is_forced, save: is_saved }) => {
                write!(f, "server remove {server}{}{}", force(*is_forced), save(*is_saved))
            }
            Self::Clear(which) => write!(f, "clear {}{}", which.servers, force(which.force)),
            Self::Switch(Switch { listener, pool: Some(pool), force: is_forced }) => {
                write!(f, "switch {listener} {pool}{}", force(*is_forced))
            }
            Self::Vrrp => f.write_str("vrrp"),
            Self::VrrpYield(Which { router }) => {
                write!(f, "vrrp yield{}", router.iter().map(|name| format!(" {name}")).collect::<String>())
            }
            Self::VrrpReady(Which { router }) => {
                write!(f, "vrrp ready{}", router.iter().map(|name| format!(" {name}")).collect::<String>())
            }
            Self::Limits => f.write_str("limit"),
            Self::Limit(Limit { listener, conn_rate }) => write!(f, "limit {listener} {}", conn_rate.as_deref().unwrap_or("default")),
            Self::Watched(Source { source: None }) => f.write_str("table"),
            Self::Watched(Source { source: Some(source) }) => write!(f, "table {source}"),
            Self::Forget(Forget { source: None, .. }) => f.write_str("table --clear --all"),
            Self::Forget(Forget { source: Some(source), listener, .. }) => {
                write!(f, "table {source} --clear")?;
                listener.as_ref().map_or(Ok(()), |listener| write!(f, " --listener {listener}"))
            }
            Self::Switch(Switch { listener, pool: None, force: is_forced }) => write!(f, "switch {listener}{}", force(*is_forced)),
        }
    }
}
