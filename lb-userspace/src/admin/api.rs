//! Requests and answers. Paths begin with `/v1/`; a change that breaks clients gets another number.

use std::{fmt, net::IpAddr};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    config::Fragment,
    control::{
        course::Transition,
        difference::Difference,
        overrides::AddedServer,
        standing::{Override, ServerName, Why},
    },
    health::book::Entry,
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
    /// Servers get another weight.
    Weight(WeightChange),
    /// A server joins a pool.
    Add(Addition),
    /// A server leaves its pool.
    Remove(Removal),
    /// A listener uses another pool.
    Switch(Switch),
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
    /// The pool's name.
    pub pool: String,
    /// Even if nobody of that pool takes new flows.
    #[serde(default)]
    pub force: bool,
}

impl Request {
    /// Its method and path.
    pub const fn path(&self) -> (&'static str, &'static str) {
        match self {
            Self::Servers => ("GET", "/v1/servers"),
            Self::Details => ("GET", "/v1/servers/details"),
            Self::Metrics => ("GET", "/v1/metrics"),
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
            Self::Weight(_) => ("POST", "/v1/weight"),
            Self::Add(_) => ("POST", "/v1/servers/add"),
            Self::Remove(_) => ("POST", "/v1/servers/remove"),
            Self::Switch(_) => ("POST", "/v1/switch"),
        }
    }

    /// Whether it changes something, which readers may not.
    pub const fn is_change(&self) -> bool {
        match self {
            Self::Servers | Self::Details | Self::Metrics | Self::Overrides | Self::History | Self::Events(_) | Self::Diff(_) => false,
            Self::Apply(_)
            | Self::Confirm
            | Self::Rollback(_)
            | Self::Drain(_)
            | Self::Maint(_)
            | Self::Ready(_)
            | Self::Weight(_)
            | Self::Add(_)
            | Self::Remove(_)
            | Self::Switch(_) => true,
        }
    }

    /// Its body.
    ///
    /// # Errors
    /// Never for these types.
    pub fn body(&self) -> serde_json::Result<Option<String>> {
        let body = match self {
            Self::Servers | Self::Details | Self::Metrics | Self::Overrides | Self::History | Self::Events(_) | Self::Confirm => {
                return Ok(None);
            }
            Self::Diff(body) => serde_json::to_string(body),
            Self::Apply(body) => serde_json::to_string(body),
            Self::Rollback(body) => serde_json::to_string(body),
            Self::Drain(body) | Self::Maint(body) | Self::Ready(body) => serde_json::to_string(body),
            Self::Weight(body) => serde_json::to_string(body),
            Self::Add(body) => serde_json::to_string(body),
            Self::Remove(body) => serde_json::to_string(body),
            Self::Switch(body) => serde_json::to_string(body),
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
            Self::Details => f.write_str("status"),
            Self::Metrics => f.write_str("metrics"),
            Self::Overrides => f.write_str("overrides"),
            Self::History => f.write_str("history"),
            Self::Events(_) => f.write_str("events"),
            Self::Diff(_) => f.write_str("diff"),
            Self::Apply(Apply { name, confirm_s, .. }) => {
                f.write_str("apply")?;
                name.as_ref().map_or(Ok(()), |name| write!(f, " {name}"))?;
                confirm_s.map_or(Ok(()), |seconds| write!(f, " --confirm {seconds}s"))
            }
            Self::Confirm => f.write_str("apply --confirmed"),
            Self::Rollback(Rollback { to: Some(to) }) => write!(f, "rollback {to}"),
            Self::Rollback(Rollback { to: None }) => f.write_str("rollback"),
            Self::Drain(which) => write!(f, "drain {}{}", which.servers, force(which.force)),
            Self::Maint(which) => write!(f, "maint {}{}", which.servers, force(which.force)),
            Self::Ready(which) => write!(f, "ready {}", which.servers),
            Self::Weight(WeightChange { servers, weight: Some(weight), force: is_forced, save: is_saved }) => {
                write!(f, "weight {servers} {weight}{}{}", force(*is_forced), save(*is_saved))
            }
            Self::Weight(WeightChange { servers, weight: None, .. }) => write!(f, "weight {servers} default"),
            Self::Add(Addition { server, added, save: is_saved }) => write!(f, "server add {server} {}{}", added.address, save(*is_saved)),
            Self::Remove(Removal { server, force: is_forced, save: is_saved }) => {
                write!(f, "server remove {server}{}{}", force(*is_forced), save(*is_saved))
            }
            Self::Switch(Switch { listener, pool, force: is_forced }) => write!(f, "switch {listener} {pool}{}", force(*is_forced)),
        }
    }
}

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
