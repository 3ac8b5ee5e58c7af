//! Asks the DNS. A lookup takes a bounded time, whatever the servers do.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "asks name servers")]

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use hickory_resolver::{
    Resolver, TokioResolver,
    config::{ConnectionConfig, NameServerConfig, ResolverConfig},
    net::{DnsError, NetError, runtime::TokioRuntimeProvider},
    proto::{
        op::ResponseCode,
        rr::{RData, RecordType, rdata::SRV},
    },
};
use tokio::{task::JoinSet, time::timeout};

use crate::{
    config::model::{Dns, Families, Question},
    control::names::{Answer, Found, MOST_FOUND},
};

/// The most that a weight may be.
const MOST_WEIGHT: u32 = 1000;

/// Lookups under way.
#[derive(Default)]
pub(super) struct Lookups {
    running: JoinSet<(u64, Question, Result<Answer, String>)>,
    /// The number of the last lookup of each name that is asked.
    last: BTreeMap<Question, u64>,
    numbers: u64,
}

impl Lookups {
    /// Begins one. An earlier one of the same name counts for nothing.
    pub(super) fn begin(&mut self, question: Question, families: Families, dns: &Dns) {
        let dns = dns.clone();
        self.numbers += 1;
        let number = self.numbers;
        self.last.insert(question.clone(), number);
        self.running.spawn(async move {
            let within = dns.timeout;
            let answer = match timeout(within, answer(&question, families, &dns)).await {
                Ok(answer) => answer,
                Err(_) => Err(format!("no answer within {}", humantime::format_duration(within))),
            };
            (number, question, answer)
        });
    }

    /// Ends those that are under way, without an answer.
    pub(super) fn abandon(&mut self) {
        self.running.abort_all();
        self.last.clear();
    }

    /// What came of the next one that ends; none ever while none is under way. Cancel safe: an ended one stays until it is returned.
    pub(super) async fn answered(&mut self) -> (Question, Result<Answer, String>) {
        loop {
            match self.running.join_next().await {
                Some(Ok((number, question, answer))) if self.last.get(&question) == Some(&number) => {
                    self.last.remove(&question);
                    return (question, answer);
                }
                Some(Ok(_)) => {}
                // One that panicked told so: its name is asked again when other name servers are. Others were ended.
                Some(Err(_)) => {}
                None => std::future::pending().await,
            }
        }
    }
}

async fn answer(question: &Question, families: Families, dns: &Dns) -> Result<Answer, String> {
    let resolver = resolver(dns)?;
    let (mut found, ttl_s) = match question {
        Question::Host(name) => {
            let (addresses, ttl_s) = addresses(&resolver, name, families).await?;
            let found = addresses.into_iter().map(|address| Found { address, port: None, weight: None, backup: false });
            (found.collect(), ttl_s)
        }
        Question::Service(name) => service(&resolver, name, families).await?,
    };
    if found.is_empty() {
        return Err("the answer has no address".into());
    }
    while found.len() > MOST_FOUND {
        found.pop_last();
    }
    Ok(Answer { found, ttl: Duration::from_secs(ttl_s.into()) })
}

/// Made for each lookup, so that `/etc/resolv.conf` is read as it is then.
fn resolver(dns: &Dns) -> Result<TokioResolver, String> {
    let mut builder = if dns.nameservers.is_empty() {
        Resolver::builder_tokio().map_err(|error| format!("failed to read /etc/resolv.conf: {error}; or name them in dns.nameservers"))?
    } else {
        let config = ResolverConfig::from_parts(None, Vec::new(), dns.nameservers.iter().map(nameserver).collect());
        Resolver::builder_with_config(config, TokioRuntimeProvider::default())
    };
    let options = builder.options_mut();
    // The daemon keeps the answers, and asks when their TTL has ended.
    options.cache_size = 0;
    // Two tries of each server within the time, and some to spare.
    options.timeout = dns.timeout.mul_f64(0.4);
    options.attempts = 2;
    builder.build().map_err(|error| format!("failed to set up a resolver: {error}"))
}

fn nameserver(address: &SocketAddr) -> NameServerConfig {
    let at_port = |mut connection: ConnectionConfig| {
        connection.port = address.port();
        connection
    };
    NameServerConfig::new(address.ip(), true, vec![at_port(ConnectionConfig::udp()), at_port(ConnectionConfig::tcp())])
}

/// The hosts of the records, with the least TTL of all that led to them, in seconds. Those of the least priority are primaries, the others backups.
async fn service(resolver: &TokioResolver, name: &str, families: Families) -> Result<(BTreeSet<Found>, u32), String> {
    let Some((records, mut ttl_s)) = lookup(resolver, name, RecordType::SRV).await? else { return Err(none_such(name)) };
    let mut hosts: Vec<SRV> = Vec::new();
    for record in records {
        if let RData::SRV(srv) = record
            && !srv.target.is_root()
        {
            hosts.push(srv);
        }
    }
    hosts.sort_by(|a, b| (a.priority, &a.target, a.port).cmp(&(b.priority, &b.target, b.port)));
    hosts.truncate(MOST_FOUND);
    let least = hosts.first().map_or(0, |srv| srv.priority);
    let heaviest = hosts.iter().map(|srv| u32::from(srv.weight)).max().unwrap_or(0);
    let mut found: BTreeSet<Found> = BTreeSet::new();
    for srv in hosts {
        // A host that does not exist is none of its servers; one of which it is not known fails the whole, so that what is known stays.
        let Some((addresses, host_ttl_s)) = addresses_or_none(resolver, &srv.target.to_ascii(), families).await? else { continue };
        ttl_s = ttl_s.min(host_ttl_s);
        let weight = Some(weight(srv.weight, heaviest));
        for address in addresses {
            let is_known = found.iter().any(|known| (known.address, known.port) == (address, Some(srv.port)));
            if !is_known && srv.port != 0 {
                found.insert(Found { address, port: Some(srv.port), weight, backup: srv.priority != least });
            }
        }
    }
    Ok((found, ttl_s))
}

/// In proportion to the others', 1 000 at most; one of 0 has a very small share (RFC 2782), 1.
fn weight(weight: u16, heaviest: u32) -> u16 {
    let scaled = if heaviest > MOST_WEIGHT { u32::from(weight) * MOST_WEIGHT / heaviest } else { u32::from(weight) };
    u16::try_from(scaled).unwrap_or(u16::MAX).max(1)
}

async fn addresses(resolver: &TokioResolver, name: &str, families: Families) -> Result<(BTreeSet<IpAddr>, u32), String> {
    addresses_or_none(resolver, name, families).await?.ok_or_else(|| none_such(name))
}

/// None if there are none. If one family fails all does, so that its servers stay.
async fn addresses_or_none(resolver: &TokioResolver, name: &str, families: Families) -> Result<Option<(BTreeSet<IpAddr>, u32)>, String> {
    let (mut addresses, mut ttl_s) = (BTreeSet::new(), u32::MAX);
    for (is_wanted, kind) in [(families.v4, RecordType::A), (families.v6, RecordType::AAAA)] {
        if !is_wanted {
            continue;
        }
        let Some((records, records_ttl_s)) = lookup(resolver, name, kind).await? else { continue };
        ttl_s = ttl_s.min(records_ttl_s);
        for record in records {
            if let RData::A(address) = record {
                addresses.insert(IpAddr::V4(address.0));
            } else if let RData::AAAA(address) = record {
                addresses.insert(IpAddr::V6(address.0));
            }
        }
    }
    Ok((!addresses.is_empty()).then_some((addresses, ttl_s)))
}

/// The records of an answer, those of aliases too, and the least of their TTLs in seconds; none if there are none.
async fn lookup(resolver: &TokioResolver, name: &str, kind: RecordType) -> Result<Option<(Vec<RData>, u32)>, String> {
    // With the final dot no other domain is tried.
    let absolute = format!("{}.", name.trim_end_matches('.'));
    match resolver.lookup(absolute, kind).await {
        Ok(found) => {
            let ttl_s = found.answers().iter().map(|record| record.ttl).min().unwrap_or(0);
            Ok(Some((found.answers().iter().map(|record| record.data.clone()).collect(), ttl_s)))
        }
        Err(NetError::Dns(DnsError::NoRecordsFound(none))) if is_negative(none.response_code) => Ok(None),
        Err(NetError::Dns(DnsError::NoRecordsFound(none))) => Err(format!("{name}: the name server answers {}", none.response_code)),
        Err(NetError::Dns(DnsError::ResponseCode(code))) => Err(format!("{name}: the name server answers {code}")),
        Err(NetError::Timeout) => Err(format!("{name}: no name server answers")),
        Err(error) => Err(format!("{name}: {error}")),
    }
}

/// The name has no such records, or does not exist: an answer, too.
fn is_negative(code: ResponseCode) -> bool {
    [ResponseCode::NoError, ResponseCode::NXDomain].contains(&code)
}

fn none_such(name: &str) -> String {
    format!("{name} has no address, or does not exist")
}
