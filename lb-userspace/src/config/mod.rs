//! `weir.toml` → typed model with no invalid state. Pure but for `load_io`.
//!
//! | file | what |
//! |---|---|
//! | `model` | what comes out |
//! | `diagnostic` | one finding, and how it is shown |
//! | `report` | the list of findings |
//! | `tree` | the syntax tree: that of a file, or of a directory's fragments as one |
//! | `reader` | typed access to the syntax tree |
//! | `value` | durations, rates, binds and other small languages |
//! | `node`, `dns`, `listener`, `pool`, `check`, `server`, `vrrp` | one section each |
//! | `keepalived` | its words for what a virtual router has |
//! | `relations`, `vrrp_relations` | what sections require of each other: errors |
//! | `lint` | what is allowed and hardly meant: warnings and advice |
//! | `revision` | reads again what of a later version differs |
//! | `edit` | changes a text where it speaks of a server |
//! | `load_io` | reads the file |

mod admin;
mod check;
mod diagnostic;
mod dns;
pub mod edit;
mod keepalived;
mod lint;
mod listener;
mod load_io;
pub mod model;
mod node;
mod pool;
mod reader;
mod relations;
mod report;
mod revision;
mod server;
#[cfg(test)]
mod tests;
mod tree;
mod value;
mod vrrp;
mod vrrp_relations;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    path::PathBuf,
};

use toml::{Spanned, de::DeTable};

pub use self::{
    diagnostic::{ConfigText, Diagnostic, Fragment, LocatedDiagnostic, Position, Severity, Span},
    load_io::{LoadError, fragments_of, host_name, is_fragment_name, load, missing_programs, read_regular_text, read_text},
    node::unconfigured_node,
    revision::Parser,
};
use self::{
    listener::{ListenerKeys, ListenerSection},
    model::{Admin, Bind, Config, Dns, Listener, Probe, Rate, Server},
    node::{LimitsSection, NodeSection},
    pool::{PoolKeys, PoolSection},
    reader::{Item, Table},
    report::{Report, Reported},
    vrrp::VrrpSection,
};

/// The configuration that a text describes, and the warnings and advice about it, in the order of the text.
///
/// `host_name` is the node's name where the text gives none.
///
/// # Errors
///
/// Everything found, the warnings too, if any of it is an error: each syntax error (one a line), unknown key, bad value and contradiction.
/// Sections with a syntax error, and what is missing or contradictory in a text that has one, are not judged.
pub fn parse(text: &ConfigText, host_name: &str) -> Parsed {
    let (tree, mut report) = tree::read(text);
    judge(&Document::read(&tree, host_name, &mut report), text, report)
}

/// The configuration with warnings and advice, or all that was found.
pub type Parsed = Result<(Config, Vec<Diagnostic>), Vec<Diagnostic>>;

/// What sections require of each other, and what is hardly meant.
fn judge(document: &Document, text: &ConfigText, mut report: Report) -> Parsed {
    if report.text_is_whole() {
        relations::check(document, &mut report);
    }
    if !report.has_errors() {
        lint::advise(document, text, &mut report);
    }
    match (document.config(), report.has_errors()) {
        (Ok(config), false) => Ok((config, report.into_findings())),
        (Ok(_) | Err(_), _) => Err(report.into_findings()),
    }
}

/// The `[node]` section of a text whose other sections may be broken: what commands need to find the daemon's directories. None if it cannot
/// be understood.
pub fn node_section(text: &ConfigText, host_name: &str) -> Option<model::Node> {
    let (tree, mut report) = tree::read(text);
    let node = Table::root(&tree).child("node", &mut report);
    node::read_node(node, host_name, &mut report).model.ok()
}

/// What can be guessed of a `[node]` section that is broken: a node with the directories that it names, or those that are taken where none are.
pub fn node_directories(text: &ConfigText, host_name: &str) -> model::Node {
    let (tree, mut report) = tree::read(text);
    let node = Table::root(&tree).child("node", &mut report);
    node::directories(node, host_name, &mut report)
}

/// A hint for a name that is not among `known`: the one most like it, or all of them if they are few.
pub fn alike(name: &str, known: &[&str]) -> String {
    const MOST: usize = 12;
    match reader::suggestion(name, known) {
        hint if hint.starts_with("there are") && known.len() > MOST => {
            let some: Vec<String> = known[..MOST].iter().map(|name| format!("`{name}`")).collect();
            format!("there are {} and {} more", some.join(", "), known.len() - MOST)
        }
        hint => hint,
    }
}

/// Whether the text can be the name of a server, a pool or a listener.
pub fn is_name(text: &str) -> bool {
    value::check_name(text).is_ok()
}

/// Whether packets can be sent to this address as to a server's, or why not.
///
/// # Errors
/// Why not, in words.
pub fn check_server(address: IpAddr) -> Result<(), String> {
    value::check_unicast(address, &address.to_string()).map(drop).map_err(|error| error.to_string())
}

/// `100/10s`, or `off`: none.
///
/// # Errors
/// What is wrong with the text, in words.
pub fn rate(text: &str) -> Result<Option<Rate>, String> {
    value::rate(text).map_err(|error| error.to_string())
}

/// `IP`, `IP:PORT` or `[IPv6]:PORT`.
///
/// # Errors
/// What is wrong with the text, in words.
pub fn endpoint(text: &str) -> Result<(IpAddr, Option<u16>), String> {
    value::endpoint(text).map_err(|error| error.to_string())
}

impl Config {
    /// The addresses of virtual routers: VRRP alone decides whether this node has them.
    pub fn virtual_addresses(&self) -> BTreeSet<IpAddr> {
        self.vrrp.values().flat_map(|router| &router.addresses).map(|address| address.address).collect()
    }

    /// The programs that are run, with their arguments.
    pub fn programs(&self) -> impl Iterator<Item = &[String]> {
        self.check_programs().chain(self.tracked_programs()).chain(self.told_programs())
    }

    fn tracked_programs(&self) -> impl Iterator<Item = &[String]> {
        self.vrrp.values().flat_map(|router| &router.track).filter_map(|track| match &track.what {
            model::Tracked::Command(command) => Some(command.argv.as_slice()),
            model::Tracked::Interface(_) | model::Tracked::Pool { .. } | model::Tracked::File(_) | model::Tracked::DataPlane => None,
        })
    }

    /// Those of `notify`.
    fn told_programs(&self) -> impl Iterator<Item = &[String]> {
        self.vrrp.values().map(|router| router.notify.as_slice()).filter(|argv| !argv.is_empty())
    }

    fn check_programs(&self) -> impl Iterator<Item = &[String]> {
        let checks = self.pools.values().filter_map(|pool| pool.check.as_ref());
        checks.filter_map(|check| match &check.probe {
            Probe::Command { argv } => Some(argv.as_slice()),
            Probe::Tcp(_)
            | Probe::Tls
            | Probe::Http(_)
            | Probe::Grpc { .. }
            | Probe::Mysql { .. }
            | Probe::Pgsql { .. }
            | Probe::Udp { .. } => None,
        })
    }

    /// The socket of the admin API.
    pub fn admin_socket(&self) -> PathBuf {
        self.admin.socket.clone().unwrap_or_else(|| self.node.state_dir.join("admin.sock"))
    }

    /// The server of this name in the pool of that name.
    pub fn server(&self, pool: &str, server: &str) -> Option<&Server> {
        self.pools.get(pool)?.servers.get(server)
    }

    /// The binds of the listeners that use each pool.
    pub fn binds_by_pool(&self) -> BTreeMap<&str, BTreeSet<Bind>> {
        let mut binds: BTreeMap<&str, BTreeSet<Bind>> = BTreeMap::new();
        self.binds().for_each(|(bind, listener, _)| _ = binds.entry(&listener.pool).or_default().insert(bind));
        binds
    }

    /// Every bind with its listener and the listener's name: one for each service.
    pub fn binds(&self) -> impl Iterator<Item = (Bind, &Listener, &str)> {
        self.listeners.iter().flat_map(|(name, listener)| listener.binds.iter().map(move |bind| (*bind, listener, name.as_str())))
    }
}

/// The sections of a file, as far as they could be read.
#[derive(Debug)]
struct Document {
    node: NodeSection,
    admin: Result<Admin, Reported>,
    dns: Result<Dns, Reported>,
    limits: LimitsSection,
    defaults: Defaults,
    listeners: BTreeMap<String, ListenerSection>,
    pools: BTreeMap<String, PoolSection>,
    vrrp: BTreeMap<String, VrrpSection>,
    /// Whether every listener, pool and virtual router is at least a table.
    sections: Result<(), Reported>,
}

impl Document {
    fn read<'d>(tree: &'d Spanned<DeTable<'d>>, host_name: &str, report: &mut Report) -> Self {
        let mut root = Table::root(tree);
        let node = node::read_node(root.child("node", report), host_name, report);
        let admin = admin::read(root.child("admin", report), report);
        let dns = dns::read(root.child("dns", report), report);
        let limits = node::read_limits(root.child("limits", report), report);
        let mut defaults = root.child("defaults", report);
        let inherited = Defaults { listener: ListenerKeys::read(&mut defaults, report), pool: PoolKeys::read(&mut defaults, report) };
        defaults.finish(report);
        let (listeners, pools) = read_listeners_and_pools(&mut root, &inherited, report);
        let vrrp = read_named(&mut root, "vrrp", report, vrrp::read);
        root.finish_knowing(keepalived::section_hint, report);
        let sections =
            listeners.as_ref().map(drop).and(pools.as_ref().map(drop)).and(vrrp.as_ref().map(drop)).map_err(|reported| *reported);
        Self {
            node,
            admin,
            dns,
            limits,
            defaults: inherited,
            listeners: listeners.unwrap_or_default(),
            pools: pools.unwrap_or_default(),
            vrrp: vrrp.unwrap_or_default(),
            sections,
        }
    }

    fn config(&self) -> Result<Config, Reported> {
        self.sections?;
        Ok(Config {
            node: self.node.model.clone()?,
            admin: self.admin.clone()?,
            dns: self.dns.clone()?,
            limits: self.limits.model?,
            listeners: self.listeners.iter().map(|(name, section)| Ok((name.clone(), section.model.clone()?))).collect::<Result<_, _>>()?,
            pools: self.pools.iter().map(|(name, section)| Ok((name.clone(), section.model.clone()?))).collect::<Result<_, _>>()?,
            vrrp: self.vrrp.iter().map(|(name, section)| Ok((name.clone(), section.model.clone()?))).collect::<Result<_, _>>()?,
        })
    }
}

/// What listeners and pools inherit.
#[derive(Debug)]
struct Defaults {
    listener: ListenerKeys,
    pool: PoolKeys,
}

/// By name; an error where there is something else.
type Named<T> = Result<BTreeMap<String, T>, Reported>;

fn read_listeners_and_pools(
    root: &mut Table<'_>,
    defaults: &Defaults,
    report: &mut Report,
) -> (Named<ListenerSection>, Named<PoolSection>) {
    let listeners = read_named(root, "listener", report, |item, report| listener::read(item, &defaults.listener, report));
    let pools = read_named(root, "pool", report, |item, report| pool::read(item, &defaults.pool, report));
    (listeners, pools)
}

fn read_named<'d, T>(
    root: &mut Table<'d>,
    key: &'static str,
    report: &mut Report,
    read: impl Fn(&Item<'d>, &mut Report) -> Option<T>,
) -> Named<T> {
    let items = root.named(key, report)?;
    Ok(items.into_iter().filter_map(|(name, item)| Some((name, read(&item, report)?))).collect())
}
