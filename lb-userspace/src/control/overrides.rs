//! What the operator says beside the configuration: states, weights, servers that come and go, listeners that use another pool. It outlives the daemon
//! until it is cleared, and never changes the file.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::standing::{AdminState, Override, ServerName, View, standings};
use crate::config::{
    self, alike,
    model::{Config, Forward, Pool, Server, ServerState},
};

/// Everything that the operator says.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct Overrides {
    /// Of servers. Those of a server that the configuration has no more wait for its return.
    pub servers: BTreeMap<ServerName, Override>,
    /// The pool that a listener uses instead of its own.
    pub switched: BTreeMap<String, String>,
    /// Servers beside those of the configuration.
    pub added: BTreeMap<ServerName, AddedServer>,
    /// Servers of the configuration that are left out.
    pub removed: BTreeSet<ServerName>,
    /// The connection rate of a source at a listener, as its `conn_rate` would say it.
    pub limits: BTreeMap<String, String>,
}

/// A server that the configuration does not have.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct AddedServer {
    /// Its address.
    #[schema(value_type = String, example = "192.0.2.10")]
    pub address: IpAddr,
    /// Its port; none keeps the packet's.
    #[serde(default)]
    pub port: Option<u16>,
    /// Its share, 0 to 1 000.
    #[serde(default = "one")]
    pub weight: u16,
    /// Used only while no primary server is up.
    #[serde(default)]
    pub backup: bool,
}

const fn one() -> u16 {
    1
}

/// Why the operator's word is refused.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum OverrideError {
    /// The pattern is none.
    #[error("{0:?} is no pattern\nhint: write POOL/SERVER, with `*` and `?` for any letters")]
    Pattern(String),
    /// It fits no server.
    #[error("no server is {name:?}\nhint: {hint}")]
    NoServer {
        /// What was asked for.
        name: String,
        /// What is like it.
        hint: String,
    },
    /// There is no such pool.
    #[error("there is no pool {name:?}\nhint: {hint}")]
    NoPool {
        /// What was asked for.
        name: String,
        /// What is like it.
        hint: String,
    },
    /// There is no such listener.
    #[error("there is no listener {name:?}\nhint: {hint}")]
    NoListener {
        /// What was asked for.
        name: String,
        /// What is like it.
        hint: String,
    },
    /// The pool has a server of that name.
    #[error("{0} is there already\nhint: weir server list shows it; weir weight changes its weight, weir server remove takes it out")]
    Exists(ServerName),
    /// The pool has a server of that address.
    #[error("{server} would have the address of {other}\nhint: a pool has an address and port once; weir weight gives {other} more")]
    SameAddress {
        /// The one to be added.
        server: ServerName,
        /// The one that has it.
        other: String,
    },
    /// A pool cannot be without servers.
    #[error("{0} is the last server of its pool\nhint: weir maint takes it out of use")]
    OnlyServer(ServerName),
    /// Nobody would serve the pool.
    #[error("no server of {} would take new flows\nhint: --force does it nevertheless", .0.join(", "))]
    LastServer(Vec<String>),
    /// The name is none.
    #[error("{0:?} is no name of a server\nhint: letters, digits, `-`, `_` and `.`, at most 64")]
    Name(String),
    /// The address is nobody's.
    #[error("{server} does not fit: {why}")]
    Address {
        /// The server.
        server: ServerName,
        /// What is wrong with it.
        why: String,
    },
    /// The weight is beyond what weights are.
    #[error("weights are from 0 to 1000, not {0}")]
    Weight(u16),
    /// The rate is none.
    #[error("{0}\nhint: \"100/10s\", \"off\", or `default` for that of the configuration")]
    Rate(String),
    /// The server does not fit the pool's forward mode.
    #[error("{server} does not fit: {why}")]
    Unfit {
        /// The server.
        server: ServerName,
        /// What does not.
        why: &'static str,
    },
}

impl OverrideError {
    fn no_server(config: &Config, name: &str) -> Self {
        let names: Vec<String> =
            config.pools.iter().flat_map(|(pool, section)| section.servers.keys().map(move |server| format!("{pool}/{server}"))).collect();
        Self::NoServer { hint: alike(name, &names.iter().map(String::as_str).collect::<Vec<_>>()), name: name.to_owned() }
    }

    fn no_pool(config: &Config, name: &str) -> Self {
        Self::NoPool { hint: alike(name, &config.pools.keys().map(String::as_str).collect::<Vec<_>>()), name: name.to_owned() }
    }

    pub(crate) fn no_listener(config: &Config, name: &str) -> Self {
        Self::NoListener { hint: alike(name, &config.listeners.keys().map(String::as_str).collect::<Vec<_>>()), name: name.to_owned() }
    }
}

impl Overrides {
    /// The configuration as the operator has it.
    pub fn effective(&self, config: &Config) -> Config {
        let mut config = config.clone();
        for (listener, pool) in &self.switched {
            if let Some(listener) = config.listeners.get_mut(listener)
                && config.pools.contains_key(pool)
                && listener.pool != *pool
            {
                listener.set_aside = Some(std::mem::replace(&mut listener.pool, pool.clone()));
            }
        }
        for (listener, rate) in &self.limits {
            if let (Some(listener), Ok(rate)) = (config.listeners.get_mut(listener), config::rate(rate)) {
                listener.conn_rate = rate;
            }
        }
        let touched: BTreeSet<&String> = self.added.keys().chain(&self.removed).map(|name| &name.pool).collect();
        for (name, pool) in config.pools.iter_mut().filter(|(name, _)| touched.contains(name)) {
            let servers = self.servers_of(name, &pool.servers);
            if servers != pool.servers {
                Arc::make_mut(pool).servers = servers;
            }
        }
        config
    }

    /// The servers of a pool that has `configured` ones. One that was added has no effect beside a configured one of its name or address, unless that is
    /// left out. The last server of a pool stays.
    fn servers_of(&self, pool: &str, configured: &BTreeMap<String, Server>) -> BTreeMap<String, Server> {
        let mut left_out: Vec<(&String, &Server)> = Vec::new();
        let mut servers: BTreeMap<String, Server> = BTreeMap::new();
        for (name, server) in configured {
            if self.removed.contains(&ServerName::new(pool, name)) {
                left_out.push((name, server));
            } else {
                servers.insert(name.clone(), *server);
            }
        }
        for (name, added) in self.added.iter().filter(|(name, _)| name.pool == pool) {
            let has_address = servers.values().any(|server| (server.address, server.port) == (added.address, added.port));
            if !has_address {
                servers.entry(name.server.clone()).or_insert(added.server());
            }
        }
        if servers.is_empty() {
            servers.extend(left_out.pop().map(|(name, server)| (name.clone(), *server)));
        }
        servers
    }

    /// The servers of which `other` says something else.
    pub fn servers_said_otherwise<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = &'a ServerName> {
        let of = |one: &'a Self, two: &'a Self| {
            one.servers.iter().filter(|(name, said)| two.servers.get(name) != Some(said)).map(|(name, _)| name)
        };
        of(self, other).chain(of(other, self))
    }

    /// A line for each thing that is said beside `config`, which is as configured; with what would clear it if it has no effect.
    pub fn in_words(&self, config: &Config) -> Vec<String> {
        let idle = |why: &str, name: &ServerName, command: &str| format!(", without effect: {why}; weir {command} {name} clears it");
        let state = |name: &ServerName, said: &Override| {
            let state = said.state.map(|state| match state {
                AdminState::Ready => "ready".to_owned(),
                AdminState::Drain => "drained".to_owned(),
                AdminState::Maint => "in maintenance".to_owned(),
            });
            let weight = said.weight.map(|weight| format!("of weight {weight}"));
            let words: Vec<String> = state.into_iter().chain(weight).collect();
            let is_there = config.server(&name.pool, &name.server).is_some() || self.added.contains_key(name);
            let idle = if is_there { String::new() } else { idle("there is no such server", name, "clear") };
            format!("{name} is {}{idle}", words.join(", "))
        };
        let servers = self.servers.iter().map(|(name, said)| state(name, said));
        let added = self.added.iter().map(|(name, added)| {
            let idle = self.hidden(config, name, added).map(|why| idle(&why, name, "server remove")).unwrap_or_default();
            format!("{name} is added{idle}")
        });
        let removed = self.removed.iter().map(|name| {
            let configured = config.server(&name.pool, &name.server);
            let servers = config.pools.get(&name.pool).map(|pool| self.servers_of(&name.pool, &pool.servers));
            let is_there = configured.is_some() && servers.as_ref().and_then(|servers| servers.get(&name.server)) == configured;
            match (configured, is_there) {
                (None, _) => format!("{name} is removed{}", idle("there is no such server", name, "clear")),
                (Some(_), true) => format!("{name} is removed{}", idle("it is the last server of its pool", name, "clear")),
                (Some(_), false) => format!("{name} is removed"),
            }
        });
        let switched = self.switched.iter().map(|(listener, pool)| {
            let why = match config.listeners.get(listener) {
                None => Some("listener"),
                Some(_) => (!config.pools.contains_key(pool)).then_some("pool"),
            };
            let idle = why.map(|what| format!(", without effect: there is no such {what}; weir switch {listener} clears it"));
            format!("listener {listener} uses pool {pool}{}", idle.unwrap_or_default())
        });
        let limits = self.limits.iter().map(|(listener, rate)| {
            let is_there = config.listeners.contains_key(listener);
            let idle = if is_there { "" } else { ", without effect: there is no such listener" };
            let clears = if is_there { String::new() } else { format!("; weir limit {listener} default clears it") };
            format!("listener {listener} has conn_rate {rate}{idle}{clears}")
        });
        servers.chain(added).chain(removed).chain(switched).chain(limits).collect()
    }

    /// Why a server that was added is not in its pool.
    fn hidden(&self, config: &Config, name: &ServerName, added: &AddedServer) -> Option<String> {
        let Some(pool) = config.pools.get(&name.pool) else { return Some("there is no such pool".into()) };
        let servers = self.servers_of(&name.pool, &pool.servers);
        if servers.get(&name.server) == Some(&added.server()) {
            return None;
        }
        let of_configuration =
            |server: &String| pool.servers.contains_key(server) && !self.removed.contains(&ServerName::new(&name.pool, server));
        if of_configuration(&name.server) {
            return Some("the configuration has a server of that name".into());
        }
        let has_address = |server: &Server| (server.address, server.port) == (added.address, added.port);
        let other = servers.iter().find(|(_, server)| has_address(server));
        other.map(|(other, _)| format!("the configuration's {}/{other} has its address", name.pool))
    }

    /// Has the configuration decide on the servers that a pattern fits, by their states and weights, and those that it has and that were left out are
    /// back. One that was added stays, unless it has no effect. Gives their names.
    ///
    /// # Errors
    /// [`OverrideError::Pattern`], or [`OverrideError::NoServer`] if it fits none.
    pub fn clear(&mut self, config: &Config, pattern: &str) -> Result<Vec<ServerName>, OverrideError> {
        let fit = Pattern::new(pattern)?;
        let mut fitting = fit.servers(&self.effective(config));
        let is_hidden = |name: &ServerName, added: &AddedServer| fit.fits(name) && self.hidden(config, name, added).is_some();
        let hidden: Vec<ServerName> =
            self.added.iter().filter(|(name, added)| is_hidden(name, added)).map(|(name, _)| name.clone()).collect();
        let said: Vec<ServerName> = self.servers.keys().chain(&self.removed).filter(|name| fit.fits(name)).cloned().collect();
        for name in &said {
            self.servers.remove(name);
            self.removed.remove(name);
        }
        self.added.retain(|name, _| !hidden.contains(name));
        fitting.extend(said.into_iter().chain(hidden));
        if fitting.is_empty() { Err(OverrideError::no_server(config, pattern)) } else { Ok(fitting.into_iter().collect()) }
    }

    /// With what `change` says of a server; what is no difference to the configuration any more is forgotten.
    pub fn say(&mut self, name: &ServerName, change: impl FnOnce(&mut Override)) {
        let said = self.servers.entry(name.clone()).or_default();
        change(said);
        if said.is_empty() {
            self.servers.remove(name);
        }
    }

    /// Adds a server to a pool of `config`, which is as configured.
    ///
    /// # Errors
    /// [`OverrideError`] if the pool has it already, or it does not fit.
    pub fn add(&mut self, config: &Config, name: ServerName, added: AddedServer) -> Result<(), OverrideError> {
        let effective = self.effective(config);
        let pool = effective.pools.get(&name.pool).ok_or_else(|| OverrideError::no_pool(&effective, &name.pool))?;
        if pool.servers.contains_key(&name.server) {
            return Err(OverrideError::Exists(name));
        }
        let is_fit = config::is_name(&name.server);
        if !is_fit {
            return Err(OverrideError::Name(name.server));
        }
        let endpoint = (added.address, added.port);
        if let Some((other, _)) = pool.servers.iter().find(|(_, server)| (server.address, server.port) == endpoint) {
            return Err(OverrideError::SameAddress { server: name, other: other.clone() });
        }
        if let Err(why) = config::check_server(added.address) {
            return Err(OverrideError::Address { server: name, why });
        }
        if added.port == Some(0) {
            return Err(OverrideError::Unfit { server: name, why: "0 is no port" });
        }
        if added.weight > 1000 {
            return Err(OverrideError::Weight(added.weight));
        }
        if let Some(why) = unfit(&effective, &name.pool, pool, endpoint) {
            return Err(OverrideError::Unfit { server: name, why });
        }
        // One of the configuration that had been left out comes back; with another address its name is another server's from now on.
        let is_configured = config.pools.get(&name.pool).and_then(|pool| pool.servers.get(&name.server)) == Some(&added.server());
        if is_configured {
            self.removed.remove(&name);
        } else {
            self.added.insert(name, added);
        }
        Ok(())
    }

    /// Takes a server out of its pool.
    ///
    /// # Errors
    /// [`OverrideError`] if there is none, or no other.
    pub fn remove(&mut self, config: &Config, name: &ServerName) -> Result<(), OverrideError> {
        if let Some(added) = self.added.get(name)
            && self.hidden(config, name, added).is_some()
        {
            // The configuration's of that name, if there is one, is another server.
            self.added.remove(name);
            return Ok(());
        }
        let effective = self.effective(config);
        let pool = effective.pools.get(&name.pool).ok_or_else(|| OverrideError::no_pool(&effective, &name.pool))?;
        if !pool.servers.contains_key(&name.server) {
            return Err(OverrideError::no_server(&effective, &name.to_string()));
        }
        if pool.servers.len() == 1 {
            return Err(OverrideError::OnlyServer(name.clone()));
        }
        self.servers.remove(name);
        if self.added.remove(name).is_none() && config.pools.get(&name.pool).is_some_and(|pool| pool.servers.contains_key(&name.server)) {
            self.removed.insert(name.clone());
        }
        Ok(())
    }

    /// The configuration says of a server what was said here: nothing is said beside it any more, but for its state.
    pub fn is_written(&mut self, name: &ServerName) {
        self.added.remove(name);
        self.removed.remove(name);
        self.say(name, |said| said.weight = None);
    }

    /// The configuration has a server no more: nothing is said of it.
    pub fn is_gone(&mut self, name: &ServerName) {
        self.is_written(name);
        self.servers.remove(name);
    }

    /// Whether this is the name of a server that something is said of and that neither the configuration nor the operator has.
    pub fn is_of_absent(&self, config: &Config, name: &str) -> bool {
        let Ok(name) = name.parse::<ServerName>() else { return false };
        let is_said = self.servers.contains_key(&name) || self.removed.contains(&name);
        // One that was added is there with its pool.
        let is_added = self.added.contains_key(&name);
        let is_absent = config.server(&name.pool, &name.server).is_none() && !(is_added && config.pools.contains_key(&name.pool));
        (is_said || is_added) && is_absent
    }

    /// Forgets what was said of such a server; gives its name.
    pub fn forget(&mut self, name: &str) -> Vec<ServerName> {
        let name = name.parse::<ServerName>().ok();
        name.iter().for_each(|name| {
            self.servers.remove(name);
            self.removed.remove(name);
            self.added.remove(name);
        });
        name.into_iter().collect()
    }

    /// Gives a listener another connection rate; none: that of the configuration.
    ///
    /// # Errors
    /// [`OverrideError`] if there is no such listener, or the rate is none.
    pub fn limit(&mut self, config: &Config, listener: &str, rate: Option<&str>) -> Result<(), OverrideError> {
        let Some(rate) = rate else {
            let is_said = self.limits.remove(listener).is_some();
            return if is_said || config.listeners.contains_key(listener) {
                Ok(())
            } else {
                Err(OverrideError::no_listener(config, listener))
            };
        };
        if !config.listeners.contains_key(listener) {
            return Err(OverrideError::no_listener(config, listener));
        }
        let meant = config::rate(rate).map_err(OverrideError::Rate)?;
        self.limits.insert(listener.to_owned(), meant.map_or_else(|| "off".to_owned(), |rate| rate.to_string()));
        Ok(())
    }

    /// Has a listener use another pool; its own again if that is the one of the configuration, or none is named.
    ///
    /// # Errors
    /// [`OverrideError`] if either does not exist, or a server of the pool does not fit the listener.
    pub fn switch(&mut self, config: &Config, listener: &str, pool: Option<&str>) -> Result<(), OverrideError> {
        let Some(pool) = pool else {
            let is_said = self.switched.remove(listener).is_some();
            return if is_said || config.listeners.contains_key(listener) {
                Ok(())
            } else {
                Err(OverrideError::no_listener(config, listener))
            };
        };
        let configured = config.listeners.get(listener).ok_or_else(|| OverrideError::no_listener(config, listener))?;
        if !config.pools.contains_key(pool) {
            return Err(OverrideError::no_pool(config, pool));
        }
        if configured.pool == pool {
            self.switched.remove(listener);
            return Ok(());
        }
        self.switched.insert(listener.to_owned(), pool.to_owned());
        // Those of a pool that nobody used were held against no VIP.
        let effective = self.effective(config);
        let servers = effective.pools.get(pool).into_iter().flat_map(|section| section.servers.iter().map(move |server| (section, server)));
        for (section, (server, Server { address, port, .. })) in servers {
            if let Some(why) = unfit(&effective, pool, section, (*address, *port)) {
                return Err(OverrideError::Unfit { server: ServerName::new(pool, server), why });
            }
        }
        Ok(())
    }
}

impl AddedServer {
    /// As a configuration would have it.
    pub fn server(&self) -> Server {
        let Self { address, port, weight, backup } = *self;
        Server { address, port, weight, backup, state: ServerState::Ready }
    }
}

/// What speaks against a server in a pool; as for those of a file.
pub(super) fn unfit(config: &Config, name: &str, pool: &Pool, (address, port): (IpAddr, Option<u16>)) -> Option<&'static str> {
    let binds = || config.binds().filter(|(_, listener, _)| listener.pool == name).map(|(bind, ..)| bind);
    if config.binds().any(|(bind, ..)| bind.address == address) {
        return Some("its address is a VIP");
    }
    let keeps_family = matches!(pool.forward, Forward::Nat { .. } | Forward::Dsr);
    if keeps_family && binds().any(|bind| bind.address.is_ipv4() != address.is_ipv4()) {
        return Some("its address is of the other family than the VIP, which nat and dsr keep");
    }
    let keeps_port = !matches!(pool.forward, Forward::Nat { .. });
    if keeps_port && port.is_some_and(|port| binds().any(|bind| bind.port != Some(port))) {
        return Some("only nat rewrites ports");
    }
    if let Forward::Nat { snat } = &pool.forward
        && !snat.is_empty()
        && !snat.iter().any(|snat| snat.is_ipv4() == address.is_ipv4())
    {
        return Some("no SNAT address of the pool is of its family");
    }
    None
}

/// The servers of `config` that a pattern of [`ServerName`] fits: `web/a`, `web/*`, `*/db?`.
///
/// # Errors
/// [`OverrideError::Pattern`], or [`OverrideError::NoServer`] if it fits none.
pub fn select(config: &Config, pattern: &str) -> Result<Vec<ServerName>, OverrideError> {
    let selected = Pattern::new(pattern)?.servers(config);
    if selected.is_empty() { Err(OverrideError::no_server(config, pattern)) } else { Ok(selected.into_iter().collect()) }
}

/// Of [`ServerName`]s.
struct Pattern {
    pool: glob::Pattern,
    server: glob::Pattern,
}

impl Pattern {
    fn new(text: &str) -> Result<Self, OverrideError> {
        let whole = || OverrideError::Pattern(text.to_owned());
        let (pool, server) = text.split_once('/').ok_or_else(whole)?;
        Ok(Self { pool: glob(pool).ok_or_else(whole)?, server: glob(server).ok_or_else(whole)? })
    }

    fn fits(&self, name: &ServerName) -> bool {
        self.pool.matches(&name.pool) && self.server.matches(&name.server)
    }

    fn servers(&self, config: &Config) -> BTreeSet<ServerName> {
        let pools = config.pools.iter().filter(|(name, _)| self.pool.matches(name));
        let servers = pools.flat_map(|(pool, section)| section.servers.keys().map(move |server| ServerName::new(pool, server)));
        servers.filter(|name| self.server.matches(&name.server)).collect()
    }
}

fn glob(text: &str) -> Option<glob::Pattern> {
    if text.is_empty() || text.contains('/') { None } else { glob::Pattern::new(text).ok() }
}

/// The pools and listeners with a server that takes new flows before, and none after: those of `before` as they were seen, and of `after`.
pub fn deserted(before: (&Config, &View), after: (&Config, &View)) -> Vec<String> {
    let serves = |name: &str, (config, view): (&Config, &View)| {
        config.pools.get(name).is_some_and(|pool| standings(name, pool, view).iter().any(|standing| standing.weight > 0))
    };
    let pools = before.0.pools.keys().filter(|name| serves(name, before) && !serves(name, after)).map(|name| format!("pool {name}"));
    let switched = after.0.listeners.iter().filter(|(name, listener)| {
        let was = before.0.listeners.get(*name).map(|listener| listener.pool.as_str());
        was.is_some_and(|was| was != listener.pool && serves(was, before)) && !serves(&listener.pool, after)
    });
    pools.chain(switched.map(|(name, _)| format!("listener {name}"))).collect()
}

#[cfg(test)]
mod tests;
