//! Reads `servers.NAME` of a pool, which has an address or is looked up, and the `server` tables that it inherits from.

use std::net::IpAddr;

use toml::Spanned;

use super::{
    diagnostic::Span,
    model::{NamedServer, Question, Server, ServerState},
    reader::{Item, Key, Table, inherit, or},
    report::{Report, Reported},
    value,
};

const STATES: &[(&str, ServerState)] = &[("ready", ServerState::Ready), ("drain", ServerState::Drain), ("down", ServerState::Down)];

/// A server with what the checks and lints ask of it.
#[derive(Debug)]
pub(super) struct ServerSection {
    pub(super) address: Span,
    /// Where its port comes from, if it has one.
    pub(super) port: Option<Span>,
    pub(super) server: Server,
}

/// A server that is looked up, with what the checks ask of it.
#[derive(Debug)]
pub(super) struct NamedSection {
    pub(super) name: Span,
    /// Where its port comes from, if it has one.
    pub(super) port: Option<Span>,
    pub(super) named: NamedServer,
}

/// An entry of `servers`.
#[derive(Debug)]
pub(super) enum Entry {
    /// With an address.
    Server(ServerSection),
    /// With a name.
    Named(NamedSection),
}

/// The keys of a server that a `server` table may have too.
#[derive(Clone, Debug)]
pub(super) struct ServerKeys {
    weight: Key<u16>,
    backup: Key<bool>,
    port: Key<u16>,
}

impl ServerKeys {
    pub(super) fn read(table: &mut Table<'_>, report: &mut Report) -> Self {
        Self {
            weight: table.optional("weight", report, |item, report| item.short(0..=1000, report)),
            backup: table.optional("backup", report, |item, report| item.boolean(report)),
            port: table.optional("port", report, |item, report| item.short(1..=u16::MAX, report)),
        }
    }

    pub(super) fn inheriting(self, defaults: &Self) -> Self {
        Self {
            weight: inherit(self.weight, &defaults.weight),
            backup: inherit(self.backup, &defaults.backup),
            port: inherit(self.port, &defaults.port),
        }
    }
}

/// A table, or only the address.
pub(super) fn read(item: &Item<'_>, defaults: &ServerKeys, report: &mut Report) -> Result<Entry, Reported> {
    if item.is_string() {
        let endpoint = Spanned::new(item.span.clone(), item.parsed(value::endpoint, report)?);
        return build(endpoint, Ok(None), defaults.clone()).map(Entry::Server);
    }
    let mut table = item.table(report)?;
    let title = table.span.clone();
    let endpoint = table.optional("address", report, |item, report| item.parsed(value::endpoint, report));
    let host = table.optional("name", report, |item, report| item.parsed(value::host_name, report));
    let service = table.optional("srv", report, |item, report| item.parsed(value::host_name, report));
    let state = table.optional("state", report, |item, report| item.word(STATES, report));
    let keys = ServerKeys::read(&mut table, report);
    let (host, service) = (question(host, Question::Host), question(service, Question::Service));
    if let Some(second) = [span(&endpoint), span(&host), span(&service)].into_iter().flatten().nth(1) {
        report.error_hint(second, "a server has one of `address`, `name` and `srv`", "leave the others out");
    }
    if let (Ok(Some(endpoint)), Ok(Some(port))) = (&endpoint, &keys.port)
        && endpoint.get_ref().1.is_some()
    {
        report.error(port.span(), "the port is given twice: `address` has one");
    }
    let is_missing = [span(&endpoint), span(&host), span(&service)].iter().all(Option::is_none);
    let is_readable = endpoint.is_ok() && host.is_ok() && service.is_ok();
    let hint = "an IP address, with a port or without: \"10.0.1.11:80\"; or a `name` or `srv` to look up";
    let missing = (is_missing && is_readable).then(|| table.missing("address", hint, report));
    table.finish(report);
    if let Some(missing) = missing {
        return Err(missing);
    }
    let keys = keys.inheriting(defaults);
    let question = host?.or(service?);
    match (endpoint?, question) {
        (None, Some(question)) => build_named(question, state, keys).map(Entry::Named),
        (Some(endpoint), _) => build(endpoint, state, keys).map(Entry::Server),
        (None, None) => Err(report.error(title, "a server has an address or a name")),
    }
}

fn span<T>(key: &Key<T>) -> Option<Span> {
    key.as_ref().ok().and_then(Option::as_ref).map(Spanned::span)
}

fn question(key: Key<String>, kind: impl Fn(String) -> Question) -> Key<Question> {
    Ok(key?.map(|name| Spanned::new(name.span(), kind(name.into_inner()))))
}

fn build_named(question: Spanned<Question>, state: Key<ServerState>, keys: ServerKeys) -> Result<NamedSection, Reported> {
    let port = keys.port?;
    Ok(NamedSection {
        name: question.span(),
        port: port.as_ref().map(Spanned::span),
        named: NamedServer {
            question: question.into_inner(),
            port: port.map(Spanned::into_inner),
            weight: keys.weight?.map(Spanned::into_inner),
            backup: or(keys.backup, false)?,
            state: or(state, ServerState::Ready)?,
        },
    })
}

fn build(endpoint: Spanned<(IpAddr, Option<u16>)>, state: Key<ServerState>, keys: ServerKeys) -> Result<ServerSection, Reported> {
    let (address, own_port) = *endpoint.get_ref();
    let port = match own_port {
        Some(port) => Some(Spanned::new(endpoint.span(), port)),
        None => keys.port?,
    };
    Ok(ServerSection {
        address: endpoint.span(),
        port: port.as_ref().map(Spanned::span),
        server: Server {
            address,
            port: port.map(Spanned::into_inner),
            weight: or(keys.weight, 1)?,
            backup: or(keys.backup, false)?,
            state: or(state, ServerState::Ready)?,
        },
    })
}
