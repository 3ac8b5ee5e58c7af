//! What the daemon leaves in its state directory for whoever asks: names, next hops, errors, and a reading of the counters to compute rates from.

use std::{
    collections::{BTreeMap, BTreeSet},
    error::Error,
    fmt,
    net::IpAddr,
    path::PathBuf,
};

use serde::{Deserialize, Serialize};

use crate::{
    config::{
        ConfigText, Diagnostic, LoadError, Severity,
        model::{Config, Protocol},
    },
    control::{
        ServiceKey,
        course::Courses,
        standing::{ServerName, Why},
    },
    health::book::Entry,
    speaker::order::{Memory, RouterView},
};

/// What the next speaker, and the next daemon, have to know of virtual routers.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct VrrpKept {
    /// Of each with keys, the numbers of its adverts and of those it heard.
    pub vrrp_numbers: BTreeMap<String, Memory>,
    /// Those that were told to yield, and not that they are ready.
    pub vrrp_holds: BTreeSet<String>,
    /// The state of each, as it was told last.
    pub vrrp_states: BTreeMap<String, String>,
}

/// What is wrong with virtual routers, in words.
pub fn troubles(routers: &[RouterView]) -> Vec<String> {
    let faults = routers
        .iter()
        .filter(|router| router.state == "fault")
        .map(|router| format!("virtual router {}: {}", router.router, router.faults.join(", ")));
    let conflicts = routers
        .iter()
        .flat_map(|router| router.peers.iter().map(move |peer| (router, peer)))
        .flat_map(|(router, peer)| peer.conflicts.iter().map(move |what| (router, peer, what)))
        .map(|(router, peer, what)| format!("virtual router {}, peer {}: {what}", router.router, peer.address));
    let refused = routers
        .iter()
        .flat_map(|router| router.refusing.iter().map(move |refused| (&router.router, refused)))
        .map(|(router, refused)| format!("virtual router {router}: adverts of {} count for nothing: {}", refused.source, refused.why));
    let strays =
        routers.iter().flat_map(|router| router.strays.iter().map(move |stray| format!("virtual router {}: {stray}", router.router)));
    let claims = routers
        .iter()
        .flat_map(|router| router.claims.iter().map(move |claim| format!("virtual router {}: {}", router.router, claim.what)));
    faults.chain(conflicts).chain(refused).chain(claims).chain(strays).collect()
}

/// The daemon's record, `state.json`. Everything that the maps themselves tell is left to them. What another version did not write is empty.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Report {
    /// The daemon's process; 0 once it has ended.
    pub pid: u32,
    /// When that process started, in the kernel's ticks since boot: another one may get its number.
    pub pid_started_at: u64,
    /// The inode of its network namespace, in which the interfaces are; 0: not known.
    pub namespace: u64,
    /// Its version.
    pub version: String,
    /// The node's name.
    pub node: String,
    /// Seconds of the Unix epoch at which it started.
    pub started_at: u64,
    /// Whether it found the data plane in place or made it: `fresh` or `adopted`.
    pub origin: String,
    /// Where its data plane is pinned.
    pub pin_dir: PathBuf,
    /// Where its configuration is.
    pub config: PathBuf,
    /// Seconds of the Unix epoch at which the configuration in force was taken.
    pub config_taken_at: u64,
    /// What is wrong with the file as it is now; the one in force stays.
    pub config_errors: Vec<String>,
    /// Warnings about the configuration in force.
    pub config_warnings: Vec<String>,
    /// Virtual routers as they are.
    pub vrrp: Vec<RouterView>,
    /// What the next speaker has to know.
    #[serde(flatten)]
    pub vrrp_kept: VrrpKept,
    /// What is wrong with them.
    pub vrrp_troubles: Vec<String>,
    /// Where its admin API is.
    pub admin_socket: Option<PathBuf>,
    /// What the daemon has to do without, and why.
    pub forgone: Vec<String>,
    /// What of the operator's words and the configurations would not outlive this daemon, and why.
    pub unkept: Option<String>,
    /// Why the record on disk is an older one than this.
    pub unwritten: Option<String>,
    /// What keeps the maps from being as they should be.
    pub apply_error: Option<String>,
    /// Changes that wait for a restart or never come, in words.
    pub held_back: Vec<String>,
    /// By interface: `native` or `generic`.
    pub interfaces: BTreeMap<String, String>,
    /// Interfaces of the configuration that take or send nothing, and why.
    pub troubled_interfaces: BTreeMap<String, Trouble>,
    /// Servers whose answers to translated packets meet no program, and why.
    pub unanswered: BTreeMap<IpAddr, String>,
    /// Servers that answer no new connection.
    pub silences: BTreeMap<ServerName, Silence>,
    /// Why checks through the data path are not made, or not by an interface.
    pub ways_errors: Vec<String>,
    /// Addresses that Weir added, with their interface's index.
    pub added_addresses: Vec<(IpAddr, u32)>,
    /// Addresses that could not be added or removed, and why.
    pub address_errors: Vec<String>,
    /// Next hops that are missing, by server, and why.
    pub unresolved: BTreeMap<IpAddr, String>,
    /// What checks found, by `POOL/SERVER`.
    pub health: BTreeMap<ServerName, Entry>,
    /// Why each server takes new flows or does not, by `POOL/SERVER`.
    pub standings: BTreeMap<ServerName, Why>,
    /// How each server came to be what it is, by `POOL/SERVER`.
    pub courses: Courses,
    /// What the operator says beside the configuration, in words.
    pub overrides: Vec<String>,
    /// The number of the configuration in force.
    pub generation: u64,
    /// What is in force instead of the file, and what waits to be confirmed, in words.
    pub config_notes: Vec<String>,
    /// What is wrong with the path MTU of ways to servers.
    pub narrow_ways: Vec<String>,
    /// What is wrong with files that the configuration refers to.
    pub file_troubles: Vec<String>,
    /// What is wrong with names of the DNS, and what of their answers is left out.
    pub name_troubles: Vec<String>,
    /// Names of what the maps know by number.
    pub services: Vec<ServiceName>,
    /// The counters at [`Self::read_at_ms`].
    pub packets: BTreeMap<u16, (u64, u64)>,
    /// Milliseconds of the Unix epoch.
    pub read_at_ms: u64,
}

/// What a server left unanswered.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Silence {
    /// How many SYNs, at the last look.
    pub unanswered: u32,
    /// Since when it has answered none, in seconds before that look.
    pub within_s: u64,
}

/// Why an interface takes or sends nothing.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Trouble {
    /// It does not exist, or no longer.
    Absent,
    /// It is there, and was refused.
    Refused(String),
    /// The administrator has it down.
    Down,
    /// The layer below is not there.
    NoCarrier,
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => f.write_str("does not exist: it is taken when it appears"),
            Self::Refused(why) => write!(f, "is not taken: {why}"),
            Self::Down => f.write_str("is down: no packet comes or goes by it (ip link set up)"),
            Self::NoCarrier => f.write_str("has no carrier: no packet comes or goes by it"),
        }
    }
}

/// A service's names.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ServiceName {
    /// The listener.
    pub listener: String,
    /// The pool.
    pub pool: String,
    /// Its VIP.
    pub vip: IpAddr,
    /// Its port, 0 for every one.
    pub port: u16,
    /// 6 or 17.
    pub protocol: u8,
    /// The pool's servers: name, address, and port or 0.
    pub servers: Vec<(String, IpAddr, u16)>,
}

/// The names of every service.
pub(super) fn names_of(config: &Config) -> Vec<ServiceName> {
    config
        .binds()
        .map(|(bind, listener, name)| {
            let key = ServiceKey { vip: bind.address, port: bind.port.unwrap_or(0), protocol: bind.protocol };
            let servers = config.pools.get(&listener.pool).into_iter().flat_map(|pool| &pool.servers);
            let servers = servers.map(|(name, server)| (name.clone(), server.address, server.port.unwrap_or(0)));
            ServiceName {
                listener: name.into(),
                pool: listener.pool.clone(),
                vip: key.vip,
                port: key.port,
                protocol: if key.protocol == Protocol::Tcp { 6 } else { 17 },
                servers: servers.collect(),
            }
        })
        .collect()
}

/// Findings that are told one by one: who has more of them has the same one again and again.
const MOST_FINDINGS: usize = 20;

/// Findings as lines of text, the gravest first if there are too many.
pub(super) fn warnings(findings: &[Diagnostic], text: &ConfigText) -> Vec<String> {
    let mut told: Vec<&Diagnostic> = findings.iter().collect();
    if told.len() > MOST_FINDINGS {
        told.sort_by_key(|finding| finding.severity);
    }
    let more = told.len().saturating_sub(MOST_FINDINGS);
    told.truncate(MOST_FINDINGS);
    let more = (more > 0).then(|| format!("{}: {more} more of the kind: weir check tells them all", text.file));
    told.into_iter().map(|finding| finding.render_line(text)).chain(more).collect()
}

/// What is wrong with a text, a line each, without what is only hardly meant.
pub(super) fn errors_of(mut findings: Vec<Diagnostic>, text: &ConfigText) -> Vec<String> {
    findings.retain(|finding| finding.severity == Severity::Error);
    warnings(&findings, text)
}

/// Why a file cannot be loaded, a line each.
pub(super) fn load_errors(error: &LoadError) -> Vec<String> {
    match error {
        LoadError::Invalid { text, findings } => errors_of(findings.clone(), text),
        LoadError::Read { .. } | LoadError::TooLarge { .. } | LoadError::Empty { .. } | LoadError::TooMany { .. } => vec![in_words(error)],
    }
}

/// An error, its causes and its hints, in one line.
pub(crate) fn in_words(error: &(dyn Error + 'static)) -> String {
    let (mut words, mut hints) = (String::new(), String::new());
    let mut next = Some(error);
    while let Some(error) = next {
        let text = error.to_string();
        let mut lines = text.split("\nhint: ");
        let cause = lines.next().unwrap_or_default().replace('\n', " ");
        if words.is_empty() {
            words = cause;
        } else if !words.contains(&cause) {
            words = format!("{words}: {cause}");
        }
        lines.for_each(|hint| hints += &format!("; {hint}"));
        next = error.source();
    }
    words + &hints
}
