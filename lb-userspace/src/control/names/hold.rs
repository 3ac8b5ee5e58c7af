//! Servers that a pool keeps while names of its are looked up for the first time: a service is not without servers because its pool turned to names. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::{Names, expand::add};
use crate::{
    config::model::{Config, Server},
    control::standing::ServerName,
};

/// The servers that stay for the time being.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Held(BTreeMap<ServerName, Server>);

/// A configuration as it is written, and with the servers of its names and those that are held.
#[derive(Clone, Copy, Debug)]
pub struct Before<'a> {
    /// As the file has it.
    pub written: &'a Config,
    /// As it was in force, but for what the operator says.
    pub configured: &'a Config,
}

impl Held {
    /// What is held when `written` follows `before`: what a pool had and `written` does not speak of, from when it has a name that was not there before until the last of its names has
    /// been answered. A pool that is new has what the pools had that its listeners used.
    #[must_use]
    pub fn follow(&self, before: Before<'_>, written: &Config, names: &Names) -> Self {
        let mut held = BTreeMap::new();
        for (name, pool) in &written.pools {
            let unanswered = || pool.names.values().filter(|named| names.found(&named.question).next().is_none());
            if unanswered().next().is_none() {
                continue;
            }
            let earlier = earlier_pools(before.written, written, name);
            let asked: BTreeSet<_> = earlier
                .iter()
                .filter_map(|pool| before.written.pools.get(*pool))
                .flat_map(|pool| pool.names.values())
                .map(|named| &named.question)
                .collect();
            let is_new = unanswered().any(|named| !asked.contains(&named.question));
            let had: Vec<(String, Server)> = if is_new {
                let pools = earlier.into_iter().filter_map(|pool| before.configured.pools.get(pool));
                pools.flat_map(|pool| &pool.servers).map(|(server, about)| (server.clone(), *about)).collect()
            } else {
                self.0.iter().filter(|(server, _)| server.pool == *name).map(|(server, about)| (server.server.clone(), *about)).collect()
            };
            let is_said = |server: &str| {
                let entry = server.split_once('@').map_or(server, |(entry, _)| entry);
                pool.servers.contains_key(server) || pool.names.contains_key(entry)
            };
            held.extend(
                had.into_iter().filter(|(server, _)| !is_said(server)).map(|(server, about)| (ServerName::new(name, server), about)),
            );
        }
        Self(held)
    }

    /// Puts them into a configuration that lacks them. Says so, a line a pool.
    pub fn add_to(&self, config: &mut Config) -> Vec<String> {
        let mut added: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (name, server) in &self.0 {
            let is_there = config.pools.get(&name.pool).is_none_or(|pool| pool.servers.contains_key(&name.server));
            // One that is not of the pool's kind is of no use to it.
            if !is_there && add(config, &name.pool, &name.server, *server).is_ok() {
                added.entry(&name.pool).or_default().push(&name.server);
            }
        }
        let line = |(pool, servers): (&str, Vec<&str>)| format!("pool {pool} keeps {} until its names are looked up", servers.join(", "));
        added.into_iter().map(line).collect()
    }
}

/// The pools of `before` that a pool of `written` takes the place of.
fn earlier_pools<'a>(before: &'a Config, written: &Config, name: &'a str) -> BTreeSet<&'a str> {
    if before.pools.contains_key(name) {
        return [name].into();
    }
    let listeners = written.listeners.iter().filter(|(_, listener)| listener.pool == name);
    listeners.filter_map(|(listener, _)| before.listeners.get(listener)).map(|listener| listener.pool.as_str()).collect()
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::{
        config::{
            ConfigText,
            model::{Dns, Question},
            parse,
        },
        control::names::{Answer, Found, expand::expand},
    };

    fn epoch() -> Instant {
        #[allow(clippy::disallowed_methods, reason = "an instant can be had from the clock alone; all others are counted from it")]
        Instant::now()
    }

    fn config(pool: &str, servers: &str) -> Config {
        let text = format!(
            "[node]\ninterfaces = \"eth0\"\n[listener.web]\nmode = \"l4\"\nbind = \"192.0.2.1:80\"\npool = \"{pool}\"\n[pool.{pool}]\n{servers}\n"
        );
        parse(&ConfigText::new("weir.toml", text), "host").unwrap().0
    }

    /// A daemon, as far as this goes.
    struct World {
        names: Names,
        held: Held,
        written: Config,
        configured: Config,
    }

    impl World {
        fn new(written: Config) -> Self {
            Self { names: Names::default(), held: Held::default(), configured: written.clone(), written }
        }

        /// The servers in force, and what is said.
        fn take(&mut self, written: &Config) -> (Vec<String>, Vec<String>) {
            self.names.want(&written.questions(), epoch());
            let mut configured = expand(written, &self.names).0;
            self.held = self.held.follow(Before { written: &self.written, configured: &self.configured }, written, &self.names);
            let said = self.held.add_to(&mut configured);
            (self.written, self.configured) = (written.clone(), configured);
            (self.configured.pools.values().flat_map(|pool| pool.servers.keys().cloned()).collect(), said)
        }

        fn answer(&mut self, name: &str, address: &str) {
            let found = Found { address: address.parse().unwrap(), port: None, weight: None, backup: false };
            let answer = Answer { found: [found].into(), ttl: Duration::from_secs(1) };
            while self.names.poll_question(epoch() + Duration::from_secs(3600)).is_some() {}
            self.names.handle_answer(&Question::Host(name.into()), Ok(answer), &Dns::default(), epoch());
        }
    }

    #[test]
    fn a_pool_that_turns_to_names_keeps_its_servers_until_all_are_answered() {
        let mut world = World::new(config("web", "servers.a = '10.0.0.1'\nservers.b = '10.0.0.2'"));
        let named = config("web", "servers.b = '10.0.0.2'\nservers.x.name = 'x.lab'\nservers.y.name = 'y.lab'");
        let (servers, said) = world.take(&named);
        assert_eq!((servers, said), (vec!["a".into(), "b".into()], vec!["pool web keeps a until its names are looked up".into()]));
        world.answer("x.lab", "10.0.0.3");
        assert_eq!(world.take(&named).0, ["a", "b", "x@10.0.0.3"]);
        let fewer = config("web", "servers.x.name = 'x.lab'\nservers.y.name = 'y.lab'");
        assert_eq!(world.take(&fewer).0, ["a", "x@10.0.0.3"], "who is taken out later goes");
        world.answer("x.lab", "10.0.0.4");
        assert_eq!(world.take(&fewer).0, ["a", "x@10.0.0.4"], "the answers are followed meanwhile");
        world.answer("y.lab", "10.0.0.5");
        assert_eq!(world.take(&fewer), (vec!["x@10.0.0.4".into(), "y@10.0.0.5".into()], vec![]));
    }

    #[test]
    fn a_listener_that_turns_to_a_pool_of_names_keeps_the_earlier_servers() {
        let mut world = World::new(config("web", "servers.a = '10.0.0.1'"));
        let named = config("other", "servers.x.name = 'x.lab'");
        assert_eq!(world.take(&named).0, ["a"]);
        assert_eq!(world.take(&named).0, ["a"], "said again");
        assert_eq!(world.take(&config("other", "servers.z = '10.0.0.9'")).0, ["z"], "no name, no wait");
    }

    #[test]
    fn who_has_the_address_of_another_is_not_kept() {
        let mut world = World::new(config("web", "servers.a = '10.0.0.1'"));
        assert_eq!(world.take(&config("web", "servers.b = '10.0.0.1'\nservers.x.name = 'x.lab'")).0, ["b"]);
    }
}
