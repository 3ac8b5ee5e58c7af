//! `weir events`: what happened, and what happens.

use std::{
    io::{self, Write},
    net::IpAddr,
    path::Path,
};

use clap::Args;

use super::{
    Exit, Format,
    apply::time,
    follow_io,
    operate::{asked, refuse},
};
use crate::{
    admin::api::{Request, Since},
    control::event::{Event, What},
};

/// `weir events`.
#[derive(Args, Debug)]
pub struct EventsArgs {
    /// Goes on with those to come, over ends and starts of the daemon, until it is interrupted.
    #[arg(short, long)]
    follow: bool,
    /// Only those after this number.
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    since: u64,
}

/// Performs `weir events`.
///
/// # Errors
/// Those of writing.
pub fn events(config: &Path, arguments: &EventsArgs, format: Format, out: &mut impl Write, err: &mut impl Write) -> io::Result<Exit> {
    let since = Since { since: arguments.since, follow: arguments.follow };
    if !arguments.follow {
        return match asked::<Vec<Event>>(config, &Request::Events(since)) {
            Ok(events) => {
                events.iter().try_for_each(|event| show(event, format, out))?;
                Ok(Exit::Fine)
            }
            Err(error) => refuse(err, &error),
        };
    }
    follow_io::follow(config, arguments.since, |event, out| show(event, format, out), out, err)
}

fn show(event: &Event, format: Format, out: &mut impl Write) -> io::Result<()> {
    match format {
        Format::Json => {
            serde_json::to_writer(&mut *out, event)?;
            writeln!(out)
        }
        Format::Text => writeln!(out, "{}  {}  {}", event.number, time(event.at_ms), in_words(&event.what)),
    }
}

fn in_results(results: u16) -> String {
    if results == 1 { "1 result".to_owned() } else { format!("{results} results") }
}

fn in_words(what: &What) -> String {
    let because = |cause: &Option<String>| cause.as_ref().map(|cause| format!(": {cause}")).unwrap_or_default();
    match what {
        What::Started { origin } => format!("the daemon took charge, data plane {origin}"),
        What::ServerUp { server, cause, results } => {
            let before = cause.as_ref().map(|cause| format!("; it was down: {cause}")).unwrap_or_default();
            format!("{server} is up after {}{before}", in_results(*results))
        }
        What::ServerSilent { server, unanswered, within_s } => {
            format!("{server} has answered none of {unanswered} SYNs within the last {within_s} s; it is checked at once")
        }
        What::CheckNotMade { server, cause } => format!("checks of {server} cannot be made, it stays what it is: {cause}"),
        What::CheckMade { server } => format!("checks of {server} are made again"),
        What::ServerDown { server, cause, results } => format!("{server} is down after {}{}", in_results(*results), because(cause)),
        What::Applied { generation, by, operations } => {
            format!("configuration {generation} is in force, by {by}, with {operations} operations")
        }
        What::Refused { by, errors } => format!("a configuration by {by} was refused: {}", errors.join("; ")),
        What::Operated { by, command } => format!("{by}: weir {command}"),
        What::NameChanged { name, came, went } => {
            let list = |words: &str, all: &[IpAddr]| {
                let all: Vec<String> = all.iter().map(ToString::to_string).collect();
                (!all.is_empty()).then(|| format!("{words} {}", all.join(", ")))
            };
            let words: Vec<String> = list("came", came).into_iter().chain(list("went", went)).collect();
            let words = if words.is_empty() { "ports or weights changed".to_owned() } else { words.join("; ") };
            format!("the DNS has another answer for {name}: {words}")
        }
        What::NameFailed { name, cause } => format!("the lookup of {name} fails, its servers stay: {cause}"),
        What::Missed { count } => format!("{count} events are lost: they were not read while the daemon kept them"),
        What::NotAwaited { generation, otherwise, by } => {
            format!(
                "configuration {generation} waits to be confirmed no more, by {by}: the way back to {otherwise} is weir rollback {otherwise}"
            )
        }
        What::Vrrp { router, from, to, why } => format!("virtual router {router} is {to}, it was {from}: {why}"),
        What::VrrpConflict { router, peer, what, is_over } => {
            let peer = peer.map(|peer| format!(", peer {peer}")).unwrap_or_default();
            format!("virtual router {router}{peer}: {what}{}", if *is_over { ", which is over" } else { "" })
        }
        What::VrrpSpeaker { pid, before } => format!("process {pid} speaks for virtual routers, {before} has ended"),
        What::VrrpNotify { router, what } => format!("virtual router {router} is not told of as it should be: {what}"),
        What::Lost { cause } => format!("what an earlier daemon kept cannot be had: {cause}"),
        What::RolledBack { generation, why } => format!("configuration {generation} is in force again: {why}"),
    }
}
