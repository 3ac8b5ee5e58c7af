//! What a server is at the moment: what the configuration says of it, what the operator says, and what its checks found, as weight and state.
//!
//! | says | wins over |
//! |---|---|
//! | operator's override (`weir drain`, `maint`, `ready`, `weight`) | configuration |
//! | checks: down | both, but for maintenance, which is down already, and panic |
//! | panic: too few are up | checks |

use std::{collections::BTreeMap, fmt};

use lb_common::words::MemberWord;
use serde::{Deserialize, Serialize};
use utoipa::{PartialSchema, ToSchema, openapi};

use crate::config::model::{OnDown, Pool, Server, ServerState};

/// A server by its names: `POOL/SERVER`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct ServerName {
    /// The pool's name.
    pub pool: String,
    /// The server's name in it.
    pub server: String,
}

impl ServerName {
    /// The server `server` of `pool`.
    pub fn new(pool: impl Into<String>, server: impl Into<String>) -> Self {
        Self { pool: pool.into(), server: server.into() }
    }
}

impl fmt::Display for ServerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.pool, self.server)
    }
}

/// A text that names no server.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0:?} does not name a server\nhint: write POOL/SERVER")]
pub struct NotAServer(String);

impl PartialSchema for ServerName {
    fn schema() -> openapi::RefOr<openapi::Schema> {
        let text = openapi::ObjectBuilder::new().schema_type(openapi::schema::Type::String);
        let text = text.description(Some("A server: `POOL/SERVER`.")).pattern(Some("^[^/]+/[^/]+$"));
        text.examples(["web/a"]).into()
    }
}

impl ToSchema for ServerName {}

impl std::str::FromStr for ServerName {
    type Err = NotAServer;

    fn from_str(text: &str) -> Result<Self, NotAServer> {
        match text.split_once('/') {
            Some((pool, server)) if !pool.is_empty() && !server.is_empty() && !server.contains('/') => Ok(Self::new(pool, server)),
            Some(_) | None => Err(NotAServer(text.to_owned())),
        }
    }
}

impl TryFrom<String> for ServerName {
    type Error = NotAServer;

    fn try_from(text: String) -> Result<Self, NotAServer> {
        text.parse()
    }
}

impl From<ServerName> for String {
    fn from(name: ServerName) -> Self {
        name.to_string()
    }
}

/// What the operator says of a server, beside the configuration.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct Override {
    /// Its state.
    pub state: Option<AdminState>,
    /// Its weight.
    pub weight: Option<u16>,
}

impl Override {
    /// Whether it says nothing.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// A state that the operator gives a server.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum AdminState {
    /// It takes flows, whatever the configuration says.
    Ready,
    /// It takes no new flow and keeps those that it has.
    Drain,
    /// It counts as down, whatever its checks say.
    Maint,
}

/// What is known of servers beside the configuration. A server that is in neither map is up and has no override.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct View {
    /// What their checks found.
    pub health: BTreeMap<ServerName, Health>,
    /// What the operator says.
    pub overrides: BTreeMap<ServerName, Override>,
}

/// What a server's checks found, as far as it decides on its flows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Health {
    /// Whether it is up.
    pub is_up: bool,
    /// Whether a check has found it so; else it is taken for it.
    pub is_checked: bool,
    /// The part of its weight that it has while it comes back, in thousandths.
    pub ramp_permille: u16,
}

impl Health {
    /// Up, with its whole weight.
    pub const UP: Self = Self { is_up: true, is_checked: true, ramp_permille: 1000 };
}

/// What a server is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Standing {
    /// Its weight; 0 takes no new flow.
    pub weight: u16,
    /// What the slots are apportioned by: in proportion to the weights, but for servers that are coming back.
    pub share: u16,
    /// A union of the `MemberWord` states.
    pub state: u8,
    /// The reason.
    pub why: Why,
}

/// Why a server takes flows, or does not.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Why {
    /// It is up.
    Up,
    /// It is up, and on its way to its whole weight.
    SlowStart,
    /// It is down, and used because too few others are up.
    Panic,
    /// It is a backup, and primaries are up.
    Backup,
    /// Its weight is 0.
    WeightZero,
    /// The configuration drains it.
    Drain,
    /// The operator drains it.
    DrainedByOperator,
    /// The configuration has it down.
    Down,
    /// The operator has it in maintenance.
    Maintenance,
    /// Its checks fail.
    Unhealthy,
}

impl Why {
    /// Every one.
    pub const ALL: [Self; 10] = [
        Self::Up,
        Self::SlowStart,
        Self::Panic,
        Self::Backup,
        Self::WeightZero,
        Self::Drain,
        Self::DrainedByOperator,
        Self::Down,
        Self::Maintenance,
        Self::Unhealthy,
    ];

    /// The word shown to operators, as JSON has it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::SlowStart => "slow-start",
            Self::Panic => "panic",
            Self::Backup => "backup",
            Self::WeightZero => "weight-zero",
            Self::Drain => "drain",
            Self::DrainedByOperator => "drained-by-operator",
            Self::Down => "down",
            Self::Maintenance => "maintenance",
            Self::Unhealthy => "unhealthy",
        }
    }
}

/// By how much shares are finer than weights where a server comes back: 1 000, the most, still fits.
const FINENESS: u32 = 50;

/// The standing of each server of a pool, in the order of their names.
pub fn standings(name: &str, pool: &Pool, view: &View) -> Vec<Standing> {
    let judged: Vec<Judged> = pool.servers.iter().map(|(server, configured)| Judged::new(name, server, configured, view)).collect();
    let is_panic = is_panic(pool, &judged);
    let is_up = |judged: &Judged| judged.admin != AdminState::Maint && (judged.health.is_up || is_panic && judged.health.is_checked);
    let are_primaries_down = judged.iter().filter(|judged| !judged.server.backup).all(|judged| !is_up(judged));
    let is_any_ramping = judged.iter().any(|judged| is_up(judged) && judged.health.is_up && judged.health.ramp_permille < 1000);
    let down = match pool.on_down {
        OnDown::Keep => MemberWord::NO_NEW | MemberWord::DOWN,
        OnDown::CloseSessions => MemberWord::NO_NEW | MemberWord::DOWN | MemberWord::CLOSING,
    };
    let standing = |judged: &Judged| {
        let (state, why) = judged.state(is_up(judged), are_primaries_down, down);
        let weight = if state == 0 { judged.weight } else { 0 };
        let ramp = if judged.health.is_up { judged.health.ramp_permille } else { 1000 };
        Standing { weight, share: share(weight, ramp, is_any_ramping), state, why }
    };
    judged.iter().map(standing).collect()
}

fn share(weight: u16, ramp_permille: u16, is_any_ramping: bool) -> u16 {
    if !is_any_ramping || weight == 0 {
        return weight;
    }
    let share = u32::from(weight) * FINENESS * u32::from(ramp_permille.min(1000)) / 1000;
    u16::try_from(share.max(1)).unwrap_or(u16::MAX)
}

/// Whether fewer of the servers that could take flows are up than the pool's threshold. Who has not been checked yet is neither; and while no primary is up and a
/// backup is, that serves.
fn is_panic(pool: &Pool, judged: &[Judged]) -> bool {
    let usable = |is_backup: bool| {
        judged.iter().filter(move |judged| judged.admin == AdminState::Ready && judged.weight > 0 && judged.server.backup == is_backup)
    };
    let known = || usable(false).filter(|judged| judged.health.is_up || judged.health.is_checked);
    let (all, up) = (known().count(), known().filter(|judged| judged.health.is_up).count());
    let is_backed = up == 0 && usable(true).any(|judged| judged.health.is_up);
    all > 0 && !is_backed && up * 100 < all * usize::from(pool.panic_threshold_pct)
}

/// A server, with what all sides say of it.
struct Judged {
    server: Server,
    admin: AdminState,
    is_overridden: bool,
    weight: u16,
    health: Health,
}

impl Judged {
    fn new(pool: &str, name: &str, server: &Server, view: &View) -> Self {
        let key = ServerName::new(pool, name);
        let said = view.overrides.get(&key).copied().unwrap_or_default();
        let configured = match server.state {
            ServerState::Ready => AdminState::Ready,
            ServerState::Drain => AdminState::Drain,
            ServerState::Down => AdminState::Maint,
        };
        Self {
            server: *server,
            admin: said.state.unwrap_or(configured),
            is_overridden: said.state.is_some(),
            weight: said.weight.unwrap_or(server.weight),
            health: view.health.get(&key).copied().unwrap_or(Health::UP),
        }
    }

    fn state(&self, is_up: bool, are_primaries_down: bool, down: u8) -> (u8, Why) {
        match self.admin {
            AdminState::Maint if self.is_overridden => (down, Why::Maintenance),
            AdminState::Maint => (down, Why::Down),
            AdminState::Ready | AdminState::Drain if !is_up => (down, Why::Unhealthy),
            AdminState::Drain if self.is_overridden => (MemberWord::NO_NEW, Why::DrainedByOperator),
            AdminState::Drain => (MemberWord::NO_NEW, Why::Drain),
            AdminState::Ready if self.weight == 0 => (MemberWord::NO_NEW, Why::WeightZero),
            AdminState::Ready if self.server.backup && !are_primaries_down => (MemberWord::NO_NEW, Why::Backup),
            AdminState::Ready if !self.health.is_up => (0, Why::Panic),
            AdminState::Ready if self.health.ramp_permille < 1000 => (0, Why::SlowStart),
            AdminState::Ready => (0, Why::Up),
        }
    }
}

#[cfg(test)]
mod tests;
