//! What the daemon answers with: what the admin API's document describes, and `-o json` prints.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::node::Status;
use crate::{
    control::{
        course::Transition,
        difference::Difference,
        settings::SectionDifference,
        standing::{Override, ServerName, Why},
    },
    health::book::Entry,
    speaker::order::RouterView,
};

/// A server as it is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct ServerView {
    /// Its names.
    pub server: ServerName,
    /// Its address.
    #[schema(value_type = String, example = "192.0.2.10")]
    pub address: IpAddr,
    /// Its port; none keeps the packet's.
    pub port: Option<u16>,
    /// Used only while no primary server is up.
    pub backup: bool,
    /// Why it takes new flows, or does not.
    pub why: Why,
    /// Whether it takes them.
    pub takes_new_flows: bool,
    /// Its weight now; 0 if it takes none.
    pub weight: u16,
    /// The configuration's; none if the server is not there.
    pub configured_weight: Option<u16>,
    /// What its checks found; none without checks.
    pub check: Option<Entry>,
    /// What the operator says of it.
    #[serde(rename = "override")]
    pub said: Option<Override>,
    /// Whether the operator added it.
    pub added: bool,
    /// Live flows.
    pub flows: u64,
}

/// Virtual routers as they are.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct VrrpView {
    /// The process that speaks for them; none: there is none.
    pub speaker_pid: Option<u32>,
    /// Why there is none.
    pub trouble: Option<String>,
    /// The routers.
    pub routers: Vec<RouterView>,
}

/// A node as it is.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct StatusView {
    /// Whether nobody has to look after it.
    pub healthy: bool,
    /// As `weir status -o json` prints it.
    pub status: Status,
}

/// Who is connected where.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct FlowsView {
    /// Translated flows, as many as were asked for.
    pub translated: Vec<FlowView>,
    /// How many there are.
    pub translated_total: usize,
    /// Flows of other modes by server: of these the tables know no more than a fingerprint.
    pub remembered: BTreeMap<String, u64>,
}

/// A translated flow.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct FlowView {
    /// `tcp` or `udp`.
    pub protocol: Cow<'static, str>,
    /// Who opened it.
    #[schema(value_type = String, example = "192.0.2.7:40000")]
    pub client: SocketAddr,
    /// Where to.
    #[schema(value_type = String, example = "198.51.100.1:443")]
    pub vip: SocketAddr,
    /// `POOL/SERVER`; empty if nobody calls it so any more.
    pub server: String,
    /// Where packets are sent.
    #[schema(value_type = String, example = "192.0.2.10:443")]
    pub to: SocketAddr,
    /// What the server sees.
    #[schema(value_type = String, example = "192.0.2.1:1024")]
    pub from: SocketAddr,
    /// How far it is: `opening`, `answered`, `established`, `client-closing`, `server-closing`, `closed`, `resting` or `reset`.
    pub state: Cow<'static, str>,
    /// Seconds since its last packet.
    pub idle_s: u32,
}

/// Where a packet would go, and why.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct Explanation {
    /// The packet, in words.
    pub packet: String,
    /// The service that it is for.
    pub service: Option<String>,
    /// The slot that its flow hashes to.
    pub slot: Option<SlotView>,
    /// What the flow cache knows: `miss`, or whom it names.
    pub cache: Option<String>,
    /// What is known of its translation.
    pub nat_flow: Option<String>,
    /// Who was chosen.
    pub member: Option<String>,
    /// How it gets there.
    pub forward: Option<String>,
    /// `pass`, `drop`, `echo`, `send`, or `send-to-client`.
    pub decision: Cow<'static, str>,
    /// The drop reason.
    pub drop_reason: Option<Cow<'static, str>>,
    /// The decision in words.
    pub why: String,
    /// Why such a packet hardly comes to this node: another one has the address.
    #[serde(default)]
    pub note: Option<String>,
}

/// A service's slot.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct SlotView {
    /// Its number.
    pub index: u32,
    /// How many there are.
    pub of: u32,
    /// `clean`, `learning` or `settled`.
    pub state: Cow<'static, str>,
    /// Who gets new flows.
    pub current: Option<String>,
    /// Who has older ones that nobody remembers.
    pub default: Option<String>,
}

/// A map of the kernel.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct MapView {
    /// Its name.
    pub name: Cow<'static, str>,
    /// What it is to the kernel.
    pub kind: Cow<'static, str>,
    /// Entries in use: words of lines, pages of slots.
    pub used: u64,
    /// Most entries, as the kernel counts them.
    pub max: u32,
    /// Kernel memory that it takes; none if the kernel does not tell.
    pub bytes: Option<u64>,
    /// What its entries are.
    pub holds: Cow<'static, str>,
}

/// A map's entries.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
pub struct MapEntries {
    /// The map's name.
    pub map: String,
    /// How many are in use.
    pub used: u64,
    /// The keys of an entry, in their order.
    pub columns: Vec<String>,
    /// As many as were asked for; what an entry has depends on the map.
    #[schema(value_type = Vec<Object>)]
    pub entries: Vec<serde_json::Map<String, serde_json::Value>>,
}

/// A server as it is, with all that is known of its checks and of its past.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
pub struct ServerDetail {
    /// As others see it.
    #[serde(flatten)]
    pub view: ServerView,
    /// The state that the configuration gives it: `ready`, `drain` or `down`; none if the server is not there.
    pub configured_state: Option<String>,
    /// Its checks; none without, or if they could not be asked in time.
    pub probe: Option<ProbeView>,
    /// Why it is not checked, though its pool has a check.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unchecked: Option<String>,
    /// The last changes of what it is, the oldest first.
    pub transitions: Vec<Transition>,
}

/// How a server is checked, and what came of it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
pub struct ProbeView {
    /// `tcp`, `tls`, `http`, `grpc`, `mysql`, `pgsql`, `udp` or `command`.
    pub kind: String,
    /// The address and port that are asked.
    pub target: String,
    /// Whether it is up.
    pub is_up: bool,
    /// Whether the last result contradicts that, or there is none yet.
    pub is_unsure: bool,
    /// Whether the last check was good; none before the first.
    pub last_good: Option<bool>,
    /// The last bad result, in words.
    pub last_failure: Option<String>,
    /// Milliseconds of the Unix epoch at which the last result came.
    pub last_at_ms: Option<u64>,
    /// How long that check took, in milliseconds.
    pub last_took_ms: Option<f64>,
    /// Milliseconds of the Unix epoch at which the next check begins; none while one is under way.
    pub next_at_ms: Option<u64>,
    /// Results in a row that contradict the state.
    pub contradicting: u16,
    /// Good results in a row that bring it up.
    pub rise: u16,
    /// Bad results in a row that bring it down.
    pub fall: u16,
    /// From one check's start to the next one's, in milliseconds.
    pub interval_ms: u64,
    /// The whole time that a check may take, in milliseconds.
    pub timeout_ms: u64,
    /// The longest time from a failure until the server is down, in milliseconds.
    pub detection_ms: u64,
    /// Good results since the checks began.
    pub passed: u64,
    /// Bad results since then.
    pub failed: u64,
    /// Checks since then that this machine could not make.
    pub not_made: u64,
}

/// A configuration that was in force.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct HistoryEntry {
    /// Counts from 1.
    pub generation: u64,
    /// Milliseconds of the Unix epoch at which it was first applied.
    pub at_ms: u64,
    /// Who or what had it applied.
    pub by: String,
    /// What messages call it.
    pub file: String,
    /// Whether it is in force.
    pub in_force: bool,
}

/// The configurations that were in force, the oldest first.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct HistoryView {
    /// They.
    pub entries: Vec<HistoryEntry>,
    /// Until when the one in force has to be confirmed, in milliseconds of the Unix epoch.
    pub confirm_until_ms: Option<u64>,
    /// The number of the one that follows otherwise.
    pub otherwise: Option<u64>,
}

/// A listener uses another pool.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Switched {
    /// The listener's name.
    pub listener: String,
    /// The pool that it used.
    pub was: String,
    /// The pool that it uses.
    pub pool: String,
    /// That pool's servers.
    pub servers: Vec<ServerView>,
    /// Whose connections end by it.
    pub ends: Vec<String>,
}

/// The connection rate of a source at a listener.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct LimitView {
    /// The listener's name.
    pub listener: String,
    /// What is in force: `100/10s`; none: every connection is let in.
    pub conn_rate: Option<String>,
    /// What the configuration says.
    pub configured: Option<String>,
    /// Whether the operator says otherwise.
    #[serde(rename = "override")]
    pub is_said: bool,
    /// Connections refused for it since the data plane was loaded.
    pub refused: u64,
    /// Connections let in because too many sources were watched to know.
    pub no_room: u64,
}

/// What is known of sources whose connection rate is watched.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct TableView {
    /// How many are watched.
    pub watched: u64,
    /// How many can be, `limits.rate_sources`.
    pub most: u64,
    /// Of the source that was asked for, where its rate is limited.
    pub source: Vec<SourceView>,
}

/// A source at a bind of a listener.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct SourceView {
    /// The listener's name.
    pub listener: String,
    /// Where it takes connections.
    pub bind: String,
    /// The rate in force.
    pub conn_rate: String,
    /// Whether its last connections are remembered.
    pub is_watched: bool,
    /// How many connections it may open at once.
    pub left: u32,
    /// Milliseconds until it may open the next; 0: now.
    pub wait_ms: u64,
}

/// The configuration that is in force now.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct InForce {
    /// Its number in the history.
    pub generation: u64,
}

/// A configuration is in force.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Applied {
    /// Its number in the history.
    pub generation: u64,
    /// That of the one before.
    pub was: u64,
    /// Until when it has to be confirmed, in milliseconds of the Unix epoch.
    pub confirm_until_ms: Option<u64>,
    /// The number of the one that follows otherwise.
    pub otherwise: Option<u64>,
    /// Warnings about it.
    pub warnings: Vec<String>,
    /// What of it waits.
    pub held_back: Vec<String>,
}

/// What a configuration would change.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
pub struct DiffView {
    /// How the maps would differ.
    pub difference: Difference,
    /// How the sections of the configuration differ.
    pub sections: Vec<SectionDifference>,
    /// Whose connections would end, and why.
    pub ends: Vec<String>,
    /// Operations on the maps.
    pub operations: usize,
    /// What would wait for another start.
    pub waits_for_start: Vec<String>,
    /// What would find no room.
    pub no_room: Vec<String>,
    /// Servers of which it is not known yet how packets reach them.
    pub not_resolved_yet: Vec<String>,
    /// Warnings about it.
    pub warnings: Vec<String>,
}

/// A refusal.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema, thiserror::Error)]
#[error("{error}{}", .hint.as_ref().map(|hint| format!("\nhint: {hint}")).unwrap_or_default())]
pub struct Refusal {
    /// What is refused and why.
    pub error: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// More lines, such as the errors of a configuration.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub details: Vec<String>,
}

/// The refusal of a daemon, or a socket of it, that ends.
pub const IS_ENDING: &str = "the daemon is ending";

impl Refusal {
    /// Without a hint.
    pub fn text(error: impl Into<String>) -> Self {
        Self { error: error.into(), hint: None, details: Vec::new() }
    }

    /// From an error and what caused it; the first hint is the hint.
    pub fn of_chain(error: &(dyn std::error::Error + 'static)) -> Self {
        let mut whole = Self::text(String::new());
        for cause in std::iter::successors(Some(error), |error| error.source()) {
            let Self { error, hint, .. } = Self::of(cause);
            if !whole.error.contains(&error) {
                let between = if whole.error.is_empty() { "" } else { ": " };
                whole.error = whole.error + between + &error;
            }
            whole.hint = whole.hint.or(hint);
        }
        whole
    }

    /// From the text of an error, whose hint stands on a line of its own.
    pub fn of(error: &(impl std::error::Error + ?Sized)) -> Self {
        let text = error.to_string();
        let (error, hint) = text.split_once("\nhint: ").map_or((text.as_str(), None), |(error, hint)| (error, Some(hint.to_owned())));
        Self { error: error.to_owned(), hint, details: Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::Refusal;

    #[derive(Debug, thiserror::Error)]
    #[error("failed to write f\nhint: nothing has been changed")]
    struct Unwritten(#[source] io::Error);

    #[test]
    fn an_error_with_a_cause_says_each_once_and_the_hint_apart() {
        let refusal = Refusal::of_chain(&Unwritten(io::Error::other("not permitted")));
        assert_eq!(refusal.to_string(), "failed to write f: not permitted\nhint: nothing has been changed");
    }
}
