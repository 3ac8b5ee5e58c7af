//! What a loaded data plane still knows of names: its servers, from when their names were answered. So a restart without the DNS, and without what an earlier
//! daemon kept, takes no server away. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use super::{Found, Kept, Names};
use crate::{
    config::model::{Config, NamedServer, Question},
    control::{ServiceKey, names::MOST_FOUND},
};

/// A server in the maps that the configuration named when they were written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Loaded {
    /// Its service.
    pub service: ServiceKey,
    /// Its address.
    pub address: IpAddr,
    /// Its port; 0 keeps the packet's.
    pub port: u16,
    /// Its weight there.
    pub weight: u16,
    /// What the daemon's record calls it, if there is one.
    pub name: Option<String>,
}

/// What names stood for that nothing is known of otherwise: the servers of their pool's services that are no others of that pool.
pub fn recall(written: &Config, names: &Names, loaded: &[Loaded]) -> Vec<Kept> {
    let mut recalled: BTreeMap<Question, BTreeSet<Found>> = BTreeMap::new();
    let binds = written.binds_by_pool();
    for (pool_name, pool, _) in written.named_pools() {
        let services: BTreeSet<ServiceKey> = binds
            .get(pool_name)
            .into_iter()
            .flatten()
            .map(|bind| ServiceKey { vip: bind.address, port: bind.port.unwrap_or(0), protocol: bind.protocol })
            .collect();
        let is_written =
            |one: &Loaded| pool.servers.values().any(|server| (server.address, server.port.unwrap_or(0)) == (one.address, one.port));
        let of_pool: Vec<&Loaded> = loaded.iter().filter(|one| services.contains(&one.service) && !is_written(one)).collect();
        for (entry, named) in pool.names.iter().filter(|(_, named)| names.found(&named.question).next().is_none()) {
            let is_others = |one: &Loaded| entry_of(one).is_some_and(|of| of != entry && pool.names.contains_key(of));
            let found = of_pool.iter().filter(|one| !is_others(one)).filter_map(|one| found(named, one));
            recalled.entry(named.question.clone()).or_default().extend(found.take(MOST_FOUND));
        }
    }
    recalled.into_iter().filter(|(_, found)| !found.is_empty()).map(|(question, found)| Kept { question, found }).collect()
}

/// The entry whose name a server has: `ENTRY@ADDRESS`.
fn entry_of(loaded: &Loaded) -> Option<&str> {
    Some(loaded.name.as_deref()?.split_once('@')?.0)
}

/// What the DNS must have said, for the entry to stand for this server; none if it cannot.
fn found(named: &NamedServer, loaded: &Loaded) -> Option<Found> {
    let port = (loaded.port != 0).then_some(loaded.port);
    let (found_port, weight) = match &named.question {
        Question::Host(_) if named.port != port => return None,
        Question::Host(_) => (None, None),
        Question::Service(_) => (port, Some(loaded.weight.max(1))),
    };
    Some(Found { address: loaded.address, port: found_port, weight, backup: false })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::{ConfigText, model::Protocol, parse},
        control::names::expand::expand,
    };

    fn loaded(last: u8, port: u16, name: Option<&str>) -> Loaded {
        let service = ServiceKey { vip: [192, 0, 2, 1].into(), port: 80, protocol: Protocol::Tcp };
        Loaded { service, address: [10, 0, 0, last].into(), port, weight: 7, name: name.map(Into::into) }
    }

    /// The servers of a pool after a start that recalls these.
    fn servers(pool: &str, loaded: &[Loaded]) -> Vec<(String, Option<u16>, u16)> {
        let text = format!(
            "[node]\ninterfaces = \"eth0\"\n[listener.web]\nmode = \"l4\"\nbind = \"192.0.2.1:80\"\npool = \"web\"\n[pool.web]\n{pool}\n"
        );
        let written = parse(&ConfigText::new("weir.toml", text), "host").unwrap().0;
        let mut names = Names::default();
        names.recall(recall(&written, &names, loaded));
        let config = expand(&written, &names).0;
        config.pools["web"].servers.iter().map(|(name, server)| (name.clone(), server.port, server.weight)).collect()
    }

    fn one(name: &str, port: Option<u16>, weight: u16) -> (String, Option<u16>, u16) {
        (name.into(), port, weight)
    }

    #[test]
    fn servers_of_the_maps_are_those_of_the_name() {
        let loaded = [loaded(1, 0, None), loaded(2, 0, None), loaded(9, 0, None), loaded(3, 81, None)];
        let other = Loaded { service: ServiceKey { port: 81, ..loaded[0].service }, ..self::loaded(4, 0, None) };
        let found = servers("servers.s = '10.0.0.9'\nservers.x = { name = 'x.lab', weight = 3 }", &[&loaded[..], &[other]].concat());
        assert_eq!(found, [one("s", None, 1), one("x@10.0.0.1", None, 3), one("x@10.0.0.2", None, 3)]);
        assert_eq!(servers("servers.x.srv = 'x.lab'", &loaded[3..]), [one("x@10.0.0.3:81", Some(81), 7)]);
    }

    #[test]
    fn the_record_tells_names_apart_and_what_it_calls_otherwise_stays() {
        let loaded = [loaded(1, 0, Some("x@10.0.0.1")), loaded(2, 0, Some("y@10.0.0.2")), loaded(3, 0, Some("a"))];
        let found = servers("servers.x.name = 'x.lab'\nservers.y.name = 'y.lab'", &loaded);
        assert_eq!(found, [one("x@10.0.0.1", None, 1), one("x@10.0.0.3", None, 1), one("y@10.0.0.2", None, 1)]);
    }

    #[test]
    fn what_is_known_is_not_recalled() {
        let kept = Kept { question: Question::Host("x.lab".into()), found: [found_at(5)].into() };
        let text = "[node]\ninterfaces = \"eth0\"\n[listener.web]\nmode = \"l4\"\nbind = \"192.0.2.1:80\"\npool = \"web\"\n[pool.web]\nservers.x.name = 'x.lab'\n";
        let written = parse(&ConfigText::new("weir.toml", text), "host").unwrap().0;
        assert_eq!(recall(&written, &Names::new(vec![kept]), &[loaded(1, 0, None)]), []);
    }

    fn found_at(last: u8) -> Found {
        Found { address: [10, 0, 0, last].into(), port: None, weight: None, backup: false }
    }
}
