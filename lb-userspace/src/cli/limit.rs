//! `weir limit` and `weir table`: how fast sources may open connections, and what is known of those that do.

use std::{
    io::{self, Write},
    net::IpAddr,
    path::Path,
};

use clap::Args;
use clap_complete::ArgValueCompleter;

use super::{
    Exit, Format, complete,
    operate::{asked, json, refuse},
    render::table,
};
use crate::admin::api::{Forget, Limit, LimitView, Request, Source, SourceView, TableView};

/// `weir limit`.
#[derive(Args, Debug)]
pub struct LimitArgs {
    /// The listener; all are listed, if none is named.
    #[arg(add = ArgValueCompleter::new(complete::listeners))]
    listener: Option<String>,
    /// Its `conn_rate` from now on, as `100/10s`; `off` for none, `default` for that of the configuration.
    #[arg(value_name = "RATE", requires = "listener")]
    rate: Option<String>,
}

/// `weir table`.
#[derive(Args, Debug)]
pub struct TableArgs {
    /// A client's address: what it may still open at each listener with a `conn_rate`. Of an IPv6 address its /64 is meant.
    source: Option<IpAddr>,
    /// Forgets its earlier connections, or those of every source with --all.
    #[arg(long)]
    clear: bool,
    /// Of every source.
    #[arg(long, requires = "clear", conflicts_with = "source")]
    all: bool,
    /// At this listener only.
    #[arg(long, requires = "clear", requires = "source", add = ArgValueCompleter::new(complete::listeners))]
    listener: Option<String>,
}

/// Performs `weir limit`.
///
/// # Errors
/// Those of writing.
pub fn limit(
    config: &Path,
    LimitArgs { listener, rate }: LimitArgs,
    format: Format,
    out: &mut impl Write,
    err: &mut impl Write,
) -> io::Result<Exit> {
    let views: Vec<LimitView> = match (listener, rate) {
        (Some(listener), Some(rate)) => {
            let conn_rate = (rate != "default").then_some(rate);
            match asked::<LimitView>(config, &Request::Limit(Limit { listener, conn_rate })) {
                Ok(view) if format == Format::Text && view.configured.is_none() && view.conn_rate.is_none() && !view.is_said => {
                    return writeln!(out, "nothing is said of the rate of listener {} any more, and it has none", view.listener)
                        .map(|()| Exit::Fine);
                }
                Ok(view) => vec![view],
                Err(error) => return refuse(err, &error),
            }
        }
        (listener, _) => match asked::<Vec<LimitView>>(config, &Request::Limits) {
            Ok(mut views) => {
                views.retain(|view| listener.as_ref().is_none_or(|listener| *listener == view.listener));
                if let Some(listener) = listener.filter(|_| views.is_empty()) {
                    writeln!(err, "error: there is no listener {listener:?}\nhint: weir limit lists them")?;
                    return Ok(Exit::Refused);
                }
                views
            }
            Err(error) => return refuse(err, &error),
        },
    };
    match format {
        Format::Json => json(&views, out)?,
        Format::Text => {
            let row = |view: &LimitView| {
                let rate = |rate: &Option<String>| rate.clone().unwrap_or_else(|| "off".into());
                let said = if view.is_said { format!("by the operator, configured {}", rate(&view.configured)) } else { "-".into() };
                vec![view.listener.clone(), rate(&view.conn_rate), said, view.refused.to_string(), view.no_room.to_string()]
            };
            table(&["LISTENER", "CONN RATE", "SAID", "REFUSED", "NO ROOM"], &views.iter().map(row).collect::<Vec<_>>(), out)?;
        }
    }
    Ok(Exit::Fine)
}

/// Performs `weir table`.
///
/// # Errors
/// Those of writing.
pub fn sources(config: &Path, arguments: TableArgs, format: Format, out: &mut impl Write, err: &mut impl Write) -> io::Result<Exit> {
    let TableArgs { source, clear, all, listener } = arguments;
    if clear && !all && source.is_none() {
        writeln!(err, "error: nothing is named to be cleared\nhint: weir table SOURCE --clear, or weir table --clear --all")?;
        return Ok(Exit::Usage);
    }
    let request = if clear { Request::Forget(Forget { source, listener, all }) } else { Request::Watched(Source { source }) };
    let view: TableView = match asked(config, &request) {
        Ok(view) => view,
        Err(error) => return refuse(err, &error),
    };
    match format {
        Format::Json => json(&view, out)?,
        Format::Text => {
            writeln!(out, "{} sources are watched, {} can be", view.watched, view.most)?;
            let row = |one: &SourceView| {
                let next = if one.wait_ms == 0 { "now".to_owned() } else { format!("in {} ms", one.wait_ms) };
                vec![one.listener.clone(), one.bind.clone(), one.conn_rate.clone(), one.left.to_string(), next]
            };
            if source.is_some() && view.source.is_empty() {
                writeln!(out, "no listener of its family has a conn_rate")?;
            } else if source.is_some() {
                table(&["LISTENER", "BIND", "CONN RATE", "LEFT", "NEXT"], &view.source.iter().map(row).collect::<Vec<_>>(), out)?;
            }
        }
    }
    Ok(Exit::Fine)
}
