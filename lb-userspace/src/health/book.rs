//! What the daemon knows of its servers' health: it outlives the daemon, and says by which part of their weight servers that come back are used. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    driver::Changed,
    monitor::{Note, Presumption},
    target::targets,
};
use crate::{
    config::model::{Config, Pace},
    control::standing::{AdminState, Health, Override, ServerName},
    health::target::Target,
};

/// Steps of a slow start.
const STEPS: u32 = 40;

/// What is kept of a server.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = CheckEntry)]
pub struct Entry {
    /// Whether it is up.
    pub is_up: bool,
    /// Milliseconds of the Unix epoch at which it went up or down.
    pub since_ms: u64,
    /// Why it is down, or was before.
    pub cause: Option<String>,
    /// Whether a check has found it so; else it is taken for it.
    #[serde(default = "of_earlier_version")]
    pub is_checked: bool,
    /// The server as flows were sent to it, its port 0 if it has none of its own.
    #[serde(default)]
    #[schema(value_type = Option<String>, example = "192.0.2.7:80")]
    pub seat: Option<SocketAddr>,
    /// Why its checks cannot be made, if they cannot: it stays what it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_made: Option<String>,
}

impl Entry {
    fn new(seat: SocketAddr, is_up: bool) -> Self {
        Self { is_up, since_ms: 0, cause: None, is_checked: false, seat: Some(seat), not_made: None }
    }

    /// An earlier version did not say.
    fn is_of(&self, seat: SocketAddr) -> bool {
        self.seat.is_none_or(|own| own == seat)
    }
}

/// Who did not say it had checked its servers, but for a moment after its start.
const fn of_earlier_version() -> bool {
    true
}

/// The servers that are to be checked: what each is asked, how often, and what it is taken for until its first result.
pub type Wanted = BTreeMap<ServerName, (Target, Pace, Presumption)>;

/// The health of all servers that are checked.
#[derive(Clone, Debug, Default)]
pub struct Book {
    entries: BTreeMap<ServerName, Entry>,
    /// When servers that come back began to.
    ramps: BTreeMap<ServerName, Instant>,
    /// The servers that were configured and not in maintenance at the last look; none before the first.
    served: Option<BTreeSet<ServerName>>,
}

impl Book {
    /// With what an earlier process knew.
    pub fn new(mut entries: BTreeMap<ServerName, Entry>) -> Self {
        // What that process could not do this one may.
        entries.values_mut().for_each(|entry| entry.not_made = None);
        Self { entries, ramps: BTreeMap::new(), served: None }
    }

    /// What is kept of every server, by its name.
    pub fn entries(&self) -> &BTreeMap<ServerName, Entry> {
        &self.entries
    }

    /// Whether this server is called so now.
    pub fn is_of(&self, name: &ServerName, seat: SocketAddr) -> bool {
        self.entries.get(name).is_some_and(|entry| entry.is_of(seat))
    }

    /// What is checked from now on: every server with a check that is not in maintenance. One that comes into a pool whose other servers are up counts
    /// as down until it was checked; one that was there counts as before, or as up. A server is the same one as long as flows are sent to the same address
    /// and port, whatever its pool calls it.
    pub fn checks(&mut self, config: &Config, overrides: &BTreeMap<ServerName, Override>) -> Wanted {
        let is_maintained = |name: &ServerName| overrides.get(name).is_some_and(|said| said.state == Some(AdminState::Maint));
        let names = config.pools.iter().flat_map(|(pool, section)| section.servers.keys().map(move |server| ServerName::new(pool, server)));
        let served: BTreeSet<ServerName> = names.filter(|name| !is_maintained(name)).collect();
        let targets: BTreeMap<ServerName, (Target, Pace)> = targets(config).into_iter().filter(|(name, _)| served.contains(name)).collect();
        let seats = targets.iter().map(|(name, (target, _))| (name, target.seat)).collect();
        let known = self.known(&seats);
        let others = self.served.as_ref().map_or_else(BTreeSet::new, |before| served.difference(before).cloned().collect());
        let is_newcomer = |name: &ServerName| match seats.get(name) {
            Some(_) => !known.contains_key(name) && self.served.is_some(),
            None => others.contains(name),
        };
        let newcomers: BTreeSet<ServerName> = served.iter().filter(|name| is_newcomer(name)).cloned().collect();
        let is_up = |name: &ServerName| known.get(name).is_none_or(|entry| entry.is_up);
        let others_up: BTreeSet<&str> =
            served.iter().filter(|name| !newcomers.contains(*name) && is_up(name)).map(|name| name.pool.as_str()).collect();
        let presume = |name: &ServerName| if newcomers.contains(name) { !others_up.contains(name.pool.as_str()) } else { is_up(name) };
        let mut checks = BTreeMap::new();
        let mut entries = BTreeMap::new();
        for (name, (target, pace)) in &targets {
            let is_up = presume(name);
            let known = known.get(name).filter(|entry| entry.is_up == is_up).copied().cloned();
            entries.insert(name.clone(), Entry { seat: Some(target.seat), ..known.unwrap_or_else(|| Entry::new(target.seat, is_up)) });
            let presumption = match (is_up, entries[name].is_checked) {
                (true, true) => Presumption::KnownUp,
                (false, true) => Presumption::KnownDown,
                (true, false) => Presumption::Up,
                (false, false) => Presumption::Down,
            };
            checks.insert(name.clone(), (target.clone(), *pace, presumption));
        }
        self.ramps.retain(|name, _| {
            entries.get(name).is_some_and(|entry| self.entries.get(name).is_some_and(|before| before.seat == entry.seat))
        });
        self.entries = entries;
        self.served = Some(served);
        checks
    }

    /// What was known of the servers at these seats: under their own name, or under another one of their pool.
    fn known(&self, seats: &BTreeMap<&ServerName, SocketAddr>) -> BTreeMap<ServerName, &Entry> {
        let by_seat: BTreeMap<(&str, SocketAddr), &Entry> =
            self.entries.iter().filter_map(|(name, entry)| Some(((name.pool.as_str(), entry.seat?), entry))).collect();
        let found = |(name, seat): (&&ServerName, &SocketAddr)| {
            let own = self.entries.get(*name).filter(|entry| entry.is_of(*seat));
            let entry = own.or_else(|| by_seat.get(&(name.pool.as_str(), *seat)).copied())?;
            Some(((*name).clone(), entry))
        };
        seats.iter().filter_map(found).collect()
    }

    /// A server went up or down. `now_ms` is in milliseconds of the Unix epoch.
    pub fn handle_changed(&mut self, changed: &Changed, config: &Config, now: Instant, now_ms: u64) {
        let Some(entry) = self.entries.get_mut(&changed.server) else { return };
        let is_back = changed.is_up && !entry.is_up;
        let cause = changed.cause.as_ref().map(ToString::to_string);
        *entry = Entry { is_up: changed.is_up, since_ms: now_ms, cause, is_checked: true, seat: entry.seat, not_made: None };
        if is_back && !slow_start(config, &changed.server).is_zero() {
            self.ramps.insert(changed.server.clone(), now);
        } else {
            self.ramps.remove(&changed.server);
        }
    }

    /// Something else is known of a server, which stays up or down.
    pub fn handle_noted(&mut self, server: &ServerName, note: &Note, now_ms: u64) {
        let Some(entry) = self.entries.get_mut(server) else { return };
        match note {
            Note::FoundUp => entry.is_checked = true,
            Note::FoundDown(cause) => {
                let cause = Some(cause.to_string());
                *entry = Entry { is_up: false, since_ms: now_ms, cause, is_checked: true, seat: entry.seat, not_made: None };
            }
            Note::Cause(cause) => entry.cause = Some(cause.to_string()),
            Note::NotMade(why) => entry.not_made = Some(why.text.clone()),
            Note::Made => entry.not_made = None,
        }
    }

    /// What the checks found, as far as it decides on flows.
    pub fn health(&self, config: &Config, now: Instant) -> BTreeMap<ServerName, Health> {
        self.entries.iter().map(|entry| self.health_one(entry, config, now)).collect()
    }

    /// The same of the servers of some pools.
    pub fn health_of(&self, pools: &BTreeSet<String>, config: &Config, now: Instant) -> BTreeMap<ServerName, Health> {
        let servers = |pool: &String| {
            let first = ServerName::new(pool.clone(), "");
            let pool = pool.clone();
            self.entries.range(first..).take_while(move |(name, _)| name.pool == pool)
        };
        pools.iter().flat_map(servers).map(|entry| self.health_one(entry, config, now)).collect()
    }

    fn health_one(&self, (name, entry): (&ServerName, &Entry), config: &Config, now: Instant) -> (ServerName, Health) {
        let ramp_permille = self.ramps.get(name).map_or(1000, |since| ramp(now - *since, slow_start(config, name)));
        (name.clone(), Health { is_up: entry.is_up, is_checked: entry.is_checked, ramp_permille })
    }

    /// The pools with servers that come back.
    pub fn ramping(&self) -> BTreeSet<String> {
        self.ramps.keys().map(|name| name.pool.clone()).collect()
    }

    /// When a slow start has its next step.
    pub fn poll_timeout(&self, config: &Config, now: Instant) -> Option<Instant> {
        let next = |(name, since): (&ServerName, &Instant)| {
            let whole = slow_start(config, name);
            let step = whole / STEPS;
            let done = ramp_steps(now - *since, whole);
            *since + step * (done + 1)
        };
        self.ramps.iter().map(next).min()
    }

    /// Forgets slow starts that are over.
    pub fn handle_timeout(&mut self, config: &Config, now: Instant) {
        self.ramps.retain(|name, since| ramp_steps(now - *since, slow_start(config, name)) < STEPS);
    }
}

fn slow_start(config: &Config, name: &ServerName) -> Duration {
    config.pools.get(&name.pool).map_or(Duration::ZERO, |pool| pool.slow_start)
}

/// The part of its weight that a server has some time after it came back, in thousandths: a step's first moment has what the ramp has at its middle.
fn ramp(elapsed: Duration, whole: Duration) -> u16 {
    let steps = ramp_steps(elapsed, whole);
    if steps >= STEPS { 1000 } else { ((2 * steps + 1) * 1000 / (2 * STEPS)) as u16 }
}

fn ramp_steps(elapsed: Duration, whole: Duration) -> u32 {
    if whole.is_zero() {
        return STEPS;
    }
    let steps = elapsed.as_nanos() * u128::from(STEPS) / whole.as_nanos();
    u32::try_from(steps).unwrap_or(STEPS).min(STEPS)
}

#[cfg(test)]
mod tests;
