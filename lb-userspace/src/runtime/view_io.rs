//! What the daemon knows, for whoever asks: servers as they are, and what another configuration would change.
#![allow(clippy::disallowed_methods, reason = "the daemon's look at its tables and the clock")]

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::Instant,
};

use lb_common::words::{MemberId, ServiceId};

use super::{
    daemon_io::{Daemon, unix_time},
    names_io::Named,
    readback,
    reload::{cut_off, restart_only, with_fixed},
    report::{in_words, warnings},
};
use crate::{
    admin::api::{Candidate, DiffView, Refusal, ServerView},
    balance::Endpoint,
    config::{
        self,
        model::{Config, Pool},
    },
    control::{
        ServiceKey,
        desired::Desired,
        difference::difference,
        installed::InstalledMember,
        names::expand::unknown,
        overrides::deserted,
        plan::{self, Freeable},
        settings,
        standing::{ServerName, View, Why, standings},
    },
};

impl Daemon {
    /// Live flows by member.
    fn flows(&self) -> Result<BTreeMap<MemberId, u64>, Refusal> {
        let failed = |error: &(dyn std::error::Error + 'static)| Refusal::text(in_words(error));
        let now = self.dataplane.tick().map_err(|error| failed(&error))?;
        let tables = self.dataplane.tables();
        let cached = tables.flows_by_member(now).map_err(|error| failed(&error))?;
        let translated = readback::nat_flows(tables, now).map_err(|error| failed(&error))?;
        let mut flows = BTreeMap::new();
        for (member, count) in cached.into_iter().chain(translated.connected) {
            *flows.entry(member).or_insert(0) += u64::from(count);
        }
        Ok(flows)
    }

    /// Why each server takes new flows, or does not.
    pub(super) fn standings(&self) -> BTreeMap<ServerName, Why> {
        let view = self.view();
        let of_pool = |(pool, section): (&String, &Arc<Pool>)| -> Vec<(ServerName, Why)> {
            let names = section.servers.keys().map(|server| ServerName::new(pool, server));
            names.zip(standings(pool, section, &view)).map(|(name, standing)| (name, standing.why)).collect()
        };
        self.config.pools.iter().flat_map(of_pool).collect()
    }

    /// Every server with its standing, checks, override and live flows.
    pub(super) fn servers_as_they_are(&self) -> Result<Vec<ServerView>, Refusal> {
        let flows = self.flows_by_server()?;
        let view = self.view();
        let mut servers = Vec::new();
        for (pool, section) in &self.config.pools {
            for ((server, configured), standing) in section.servers.iter().zip(standings(pool, section, &view)) {
                let name = ServerName::new(pool, server);
                let checked = self.book.entries().get(&name);
                servers.push(ServerView {
                    address: configured.address,
                    port: configured.port,
                    backup: configured.backup,
                    why: standing.why,
                    takes_new_flows: standing.state == 0 && standing.weight > 0,
                    weight: standing.weight,
                    configured_weight: self.configured.server(pool, server).map(|server| server.weight),
                    check: checked.cloned(),
                    said: self.overrides.servers.get(&name).copied(),
                    added: self.overrides.added.contains_key(&name),
                    flows: flows.get(&name).copied().unwrap_or(0),
                    server: name,
                });
            }
        }
        Ok(servers)
    }

    fn flows_by_server(&self) -> Result<BTreeMap<ServerName, u64>, Refusal> {
        let names = self.servers_of_members();
        let mut flows = BTreeMap::new();
        for (member, count) in self.flows()? {
            if let Some(name) = names.get(&member) {
                *flows.entry(name.clone()).or_insert(0) += count;
            }
        }
        Ok(flows)
    }

    /// Which server each member is; those that the configuration does not have are left out.
    pub(super) fn servers_of_members(&self) -> BTreeMap<MemberId, ServerName> {
        let ids: BTreeMap<ServiceKey, ServiceId> =
            self.installed.services.iter().filter_map(|(id, service)| Some((ServiceKey::of(&service.record)?, *id))).collect();
        let pools: BTreeMap<ServiceId, &str> = self
            .config
            .binds()
            .filter_map(|(bind, listener, _)| {
                let key = ServiceKey { vip: bind.address, port: bind.port.unwrap_or(0), protocol: bind.protocol };
                Some((*ids.get(&key)?, listener.pool.as_str()))
            })
            .collect();
        let names: BTreeMap<(&str, Endpoint), &str> = self
            .config
            .pools
            .iter()
            .flat_map(|(pool, section)| {
                section.servers.iter().map(move |(name, server)| {
                    ((pool.as_str(), Endpoint { address: server.address, port: server.port.unwrap_or(0) }), name.as_str())
                })
            })
            .collect();
        let of_member = |(id, installed): (&MemberId, &InstalledMember)| {
            let pool = *pools.get(&ServiceId(installed.info.service))?;
            let server = *names.get(&(pool, installed.endpoint()))?;
            Some((*id, ServerName::new(pool, server)))
        };
        self.installed.members.iter().filter_map(of_member).collect()
    }

    /// What the maps would have otherwise if this were the configuration.
    pub(super) fn diff(&mut self, candidate: Candidate) -> Result<DiffView, Refusal> {
        let text = self.candidate(candidate)?;
        let (config, findings) = config::parse(&text, &config::host_name())
            .map_err(|findings| Refusal { details: warnings(&findings, &text), ..Refusal::text("it is no configuration") })?;
        let waits = restart_only(&self.written, &config);
        let written = with_fixed(&self.written, config);
        let Named { configured, left_out, .. } = self.with_names(&written);
        let config = self.overrides.effective(&configured);
        let unknown = unknown(&written, &self.names).into_iter();
        let names = unknown.map(|name| format!("{name} is looked up when it is applied: its servers are not among these"));
        let unresolved = self.unknown_next_hops(&config);
        let host = self.host();
        let now = unix_time().as_secs();
        // What is known of servers goes with their addresses, as it would if this were applied.
        let mut book = self.book.clone();
        book.checks(&config, &self.overrides.servers);
        let followed = View { health: book.health(&config, Instant::now()), overrides: self.overrides.servers.clone() };
        let planned = |config: &Config, view: &View| {
            let desired = Desired::from_config(config, view, &host);
            let mut after = self.installed.clone();
            let plan = plan::plan(&desired, &self.installed, now, &Freeable::default(), &mut || 0);
            plan.ops.iter().for_each(|op| after.apply(op));
            (plan, after)
        };
        // What changes of itself, as while a server comes back, is no difference.
        let ((_, before), (plan, after)) = (planned(&self.config, &self.view()), planned(&config, &followed));
        let difference = difference(&before, &after, &self.flows()?);
        let lost = deserted((&self.config, &self.view()), (&config, &followed)).into_iter();
        let is_used = |what: &String| what.strip_prefix("pool ").is_none_or(|pool| config.listeners.values().any(|one| one.pool == pool));
        let lost = lost.filter(is_used).map(|what| format!("{what} has nobody who takes new flows then"));
        Ok(DiffView {
            difference,
            sections: settings::sections(&self.config, &config),
            ends: cut_off(&self.config, &config),
            operations: plan.ops.len(),
            waits_for_start: waits,
            no_room: plan::in_words(&plan.unplaced, self.installed.capacity),
            not_resolved_yet: unresolved,
            warnings: warnings(&findings, &text).into_iter().chain(left_out).chain(names).chain(lost).collect(),
        })
    }

    /// Servers that the configuration in force does not have: whether packets can reach them is found out when it is applied.
    fn unknown_next_hops(&self, config: &Config) -> Vec<String> {
        let known = self.servers();
        let servers = config.pools.values().flat_map(|pool| pool.servers.values()).map(|server| server.address);
        let unknown: BTreeSet<IpAddr> = servers.filter(|address| !known.contains(address)).collect();
        unknown.into_iter().map(|address| address.to_string()).collect()
    }
}
