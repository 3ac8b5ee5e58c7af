//! Servers that the configuration knows by a name of the DNS only, and `[dns]`.

use std::{collections::BTreeMap, fmt, net::SocketAddr, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

use super::{Config, Forward, Pool, ServerState};

/// `[dns]`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Dns {
    /// Who is asked; those of `/etc/resolv.conf` if none.
    pub nameservers: Vec<SocketAddr>,
    /// An answer is good for so long at least, whatever its TTL.
    pub ttl_min: Duration,
    /// And for so long at most.
    pub ttl_max: Duration,
    /// The whole time that a lookup may take.
    pub timeout: Duration,
}

impl Default for Dns {
    fn default() -> Self {
        Self {
            nameservers: Vec::new(),
            ttl_min: Duration::from_secs(5),
            ttl_max: Duration::from_secs(3600),
            timeout: Duration::from_secs(5),
        }
    }
}

/// What the DNS is asked. Names are absolute, in lower case, without a final dot.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Question {
    /// The addresses of a host: A and AAAA.
    Host(String),
    /// The hosts of a service with their ports and weights: SRV (RFC 2782).
    Service(String),
}

impl fmt::Display for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host(name) => f.write_str(name),
            Self::Service(name) => write!(f, "SRV {name}"),
        }
    }
}

/// Which addresses are of use.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Families {
    /// IPv4.
    pub v4: bool,
    /// IPv6.
    pub v6: bool,
}

/// `pool.NAME.servers.SERVER` with `name` or `srv`: as many servers as the answer has.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NamedServer {
    /// What is asked.
    pub question: Question,
    /// Their port; none keeps the packet's, or is the answer's.
    pub port: Option<u16>,
    /// The share of each, 0 to 1 000; none: 1, or the answer's.
    pub weight: Option<u16>,
    /// Used only while no primary server is up.
    pub backup: bool,
    /// What the operator says of them.
    pub state: ServerState,
}

impl Config {
    /// What the DNS has to be asked, and which addresses are of use: those of the VIPs' family where the pool keeps it.
    pub fn questions(&self) -> BTreeMap<Question, Families> {
        let mut questions: BTreeMap<Question, Families> = BTreeMap::new();
        for (_, pool, families) in self.named_pools() {
            for named in pool.names.values() {
                let wanted = questions.entry(named.question.clone()).or_default();
                (wanted.v4, wanted.v6) = (wanted.v4 || families.v4, wanted.v6 || families.v6);
            }
        }
        questions
    }

    /// The pools that the DNS knows servers of, each with its name and the families that its servers can have.
    pub fn named_pools(&self) -> Vec<(&str, &Pool, Families)> {
        let is_named = |(_, pool): &(&String, &Arc<Pool>)| !pool.names.is_empty();
        if self.pools.values().all(|pool| pool.names.is_empty()) {
            return Vec::new();
        }
        let binds = self.binds_by_pool();
        let families = |name: &str, pool: &Pool| {
            let keeps_family = matches!(pool.forward, Forward::Nat { .. } | Forward::Dsr);
            let has_bind = |is_v4: bool| binds.get(name).is_some_and(|binds| binds.iter().any(|bind| bind.address.is_ipv4() == is_v4));
            let (v4, v6) = (has_bind(true), has_bind(false));
            if keeps_family && (v4 || v6) { Families { v4, v6 } } else { Families { v4: true, v6: true } }
        };
        self.pools.iter().filter(is_named).map(|(name, pool)| (name.as_str(), pool.as_ref(), families(name, pool))).collect()
    }
}
