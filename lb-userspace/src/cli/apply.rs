//! `weir apply`, `confirm`, `diff`, `rollback` and `history`: which configuration is in force, and what another one would change.

use std::{
    io::{self, Write},
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use clap::Args;
use clap_complete::ArgValueCompleter;

use super::{
    Exit, Format, complete,
    operate::{asked, json, refuse},
    render::table,
    tell,
};
use crate::{
    admin::api::{Applied, Apply, Candidate, DiffView, HistoryView, InForce, Request, Rollback},
    config::{LoadError, model::Protocol, read_text},
    control::{
        difference::{Change, Fate, ServiceDifference},
        settings::SectionDifference,
    },
};

/// `weir apply`.
#[derive(Args, Debug)]
pub struct ApplyArgs {
    /// The configuration; that of the daemon if none is named.
    file: Option<PathBuf>,
    /// Rolls back after this time unless `weir confirm` is called, or sooner if all servers of a pool go down.
    #[arg(long, value_name = "DURATION", value_parser = confirm_time)]
    confirm: Option<Duration>,
}

fn confirm_time(text: &str) -> Result<Duration, String> {
    let time = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if time < Duration::from_secs(1) { Err("a confirmation is awaited for a second at least".into()) } else { Ok(time) }
}

/// Performs `weir apply`.
///
/// # Errors
/// Those of writing.
pub fn apply(config: &Path, arguments: &ApplyArgs, format: Format, out: &mut impl Write, err: &mut impl Write) -> io::Result<Exit> {
    let Candidate { text, name, fragments } = match candidate(arguments.file.as_deref()) {
        Ok(candidate) => candidate,
        Err(error) => return tell(err, &error, Exit::Usage),
    };
    let request = Request::Apply(Apply { text, name, fragments, confirm_s: arguments.confirm.map(|time| time.as_secs().max(1)) });
    let applied: Applied = match asked(config, &request) {
        Ok(applied) => applied,
        Err(error) => return refuse(err, &error),
    };
    match format {
        Format::Json => json(&applied, out)?,
        Format::Text => {
            let same = if applied.generation == applied.was { ", as before" } else { "" };
            writeln!(out, "configuration {} is in force{same}", applied.generation)?;
            applied.warnings.iter().chain(&applied.held_back).try_for_each(|line| writeln!(out, "! {line}"))?;
            if let (Some(until_ms), Some(otherwise)) = (applied.confirm_until_ms, applied.otherwise) {
                writeln!(out, "it gives way to configuration {otherwise} at {} unless you `weir confirm`", time(until_ms))?;
            }
        }
    }
    Ok(Exit::Fine)
}

/// Performs `weir confirm`.
///
/// # Errors
/// Those of writing.
pub fn confirm(config: &Path, format: Format, out: &mut impl Write, err: &mut impl Write) -> io::Result<Exit> {
    in_force(config, &Request::Confirm, "stays", format, out, err)
}

/// What completes the number of an earlier configuration.
#[must_use]
pub fn generations() -> ArgValueCompleter {
    ArgValueCompleter::new(complete::generations)
}

/// Performs `weir rollback`.
///
/// # Errors
/// Those of writing.
pub fn rollback(config: &Path, to: Option<u64>, format: Format, out: &mut impl Write, err: &mut impl Write) -> io::Result<Exit> {
    let words = "is in force; the file stays as it is until it is changed or applied";
    in_force(config, &Request::Rollback(Rollback { to }), words, format, out, err)
}

/// Tells which configuration is in force now, and in these words how.
fn in_force(config: &Path, request: &Request, words: &str, format: Format, out: &mut impl Write, err: &mut impl Write) -> io::Result<Exit> {
    let answer: InForce = match asked(config, request) {
        Ok(answer) => answer,
        Err(error) => return refuse(err, &error),
    };
    match format {
        Format::Json => json(&answer, out)?,
        Format::Text => writeln!(out, "configuration {} {words}", answer.generation)?,
    }
    Ok(Exit::Fine)
}

/// Performs `weir history`.
///
/// # Errors
/// Those of writing.
pub fn history(config: &Path, format: Format, out: &mut impl Write, err: &mut impl Write) -> io::Result<Exit> {
    let history: HistoryView = match asked(config, &Request::History) {
        Ok(history) => history,
        Err(error) => return refuse(err, &error),
    };
    match format {
        Format::Json => json(&history, out)?,
        Format::Text => {
            let row = |entry: &crate::admin::api::HistoryEntry| {
                let state = match (entry.in_force, history.confirm_until_ms) {
                    (true, Some(until)) => format!("in force, to be confirmed by {}", time(until)),
                    (true, None) => "in force".to_owned(),
                    (false, _) if history.otherwise == Some(entry.generation) => "in force again otherwise".to_owned(),
                    (false, _) => String::new(),
                };
                vec![entry.generation.to_string(), time(entry.at_ms), entry.by.clone(), entry.file.clone(), state]
            };
            let rows: Vec<Vec<String>> = history.entries.iter().map(row).collect();
            table(&["NUMBER", "APPLIED", "BY", "FILE", ""], &rows, out)?;
        }
    }
    Ok(Exit::Fine)
}

/// Performs `weir diff`. Ends as [`Exit::Refused`] if the configuration is none, not because it differs.
///
/// # Errors
/// Those of writing.
pub fn diff(config: &Path, file: Option<&Path>, format: Format, out: &mut impl Write, err: &mut impl Write) -> io::Result<Exit> {
    let candidate = match candidate(file) {
        Ok(candidate) => candidate,
        Err(error) => return tell(err, &error, Exit::Usage),
    };
    let diff: DiffView = match asked(config, &Request::Diff(candidate)) {
        Ok(diff) => diff,
        Err(error) => return refuse(err, &error),
    };
    match format {
        Format::Json => json(&diff, out)?,
        Format::Text => show_diff(&diff, out)?,
    }
    Ok(Exit::Fine)
}

/// The text is sent: the daemon may not be allowed to read the file, nor know where it is.
fn candidate(file: Option<&Path>) -> Result<Candidate, LoadError> {
    let text = file.map(read_text).transpose()?;
    Ok(text.map_or_else(Candidate::default, |text| Candidate { text: Some(text.text), name: Some(text.file), fragments: text.fragments }))
}

fn show_diff(diff: &DiffView, out: &mut impl Write) -> io::Result<()> {
    if diff.difference.services.is_empty() {
        writeln!(out, "no service changes")?;
    }
    diff.difference.services.iter().try_for_each(|service| show_service(service, out))?;
    for SectionDifference { section, change, keys } in &diff.sections {
        let keys = if keys.is_empty() { String::new() } else { format!(": {}", keys.join(", ")) };
        writeln!(out, "{} {section}{keys}", mark(*change))?;
    }
    let flows = &diff.difference;
    writeln!(
        out,
        "flows: {} untouched, {} finish with a server that takes no new ones, {} end",
        flows.flows_untouched, flows.flows_finishing, flows.flows_ending
    )?;
    let mut notes = diff.ends.iter().chain(&diff.waits_for_start).chain(&diff.no_room).chain(&diff.warnings);
    notes.try_for_each(|line| writeln!(out, "! {line}"))?;
    if !diff.not_resolved_yet.is_empty() {
        writeln!(out, "! whether packets can reach {} is found out when it is applied", diff.not_resolved_yet.join(", "))?;
    }
    Ok(())
}

fn show_service(service: &ServiceDifference, out: &mut impl Write) -> io::Result<()> {
    let endpoint = address(service.vip, service.port);
    let protocol = match service.protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
    };
    writeln!(out, "{} {endpoint}/{protocol}  {:.1}% of its slots move", mark(service.change), 100.0 * service.slots_moved)?;
    for server in &service.servers {
        let fate = match server.fate {
            Fate::Untouched => "go on",
            Fate::Finishing => "finish",
            Fate::Closed => "are closed",
            Fate::Lost => "are lost",
        };
        let flows = if server.flows == 0 { String::new() } else { format!(", its {} flows {fate}", server.flows) };
        let address = address(server.address, server.port);
        writeln!(
            out,
            "  {} {address}  share {:.1}% -> {:.1}%{flows}",
            mark(server.change),
            100.0 * server.share_before,
            100.0 * server.share_after
        )?;
    }
    Ok(())
}

fn mark(change: Change) -> &'static str {
    match change {
        Change::Added => "+",
        Change::Removed => "-",
        Change::Changed => "~",
    }
}

fn address(address: IpAddr, port: Option<u16>) -> String {
    port.map_or_else(|| address.to_string(), |port| SocketAddr::new(address, port).to_string())
}

/// RFC 3339, in UTC.
pub(super) fn time(at_ms: u64) -> String {
    humantime::format_rfc3339_seconds(std::time::UNIX_EPOCH + Duration::from_millis(at_ms)).to_string()
}
