//! Reads `servers.NAME` of a pool, and the `server` tables that it inherits from.

use std::net::IpAddr;

use toml::Spanned;

use super::{
    diagnostic::Span,
    model::{Server, ServerState},
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
pub(super) fn read(item: &Item<'_>, defaults: &ServerKeys, report: &mut Report) -> Result<ServerSection, Reported> {
    if item.is_string() {
        let endpoint = Spanned::new(item.span.clone(), item.parsed(value::endpoint, report)?);
        return build(endpoint, Ok(None), defaults.clone());
    }
    let mut table = item.table(report)?;
    let hint = "an IP address, with a port or without: \"10.0.1.11:80\"";
    let endpoint = table.required("address", hint, report, |item, report| item.parsed(value::endpoint, report));
    let state = table.optional("state", report, |item, report| item.word(STATES, report));
    let keys = ServerKeys::read(&mut table, report);
    table.finish(report);
    if let (Ok(endpoint), Ok(Some(port))) = (&endpoint, &keys.port)
        && endpoint.get_ref().1.is_some()
    {
        report.error(port.span(), "the port is given twice: `address` has one");
    }
    build(endpoint?, state, keys.inheriting(defaults))
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
