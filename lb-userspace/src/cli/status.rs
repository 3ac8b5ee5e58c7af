//! `weir status`: shows a node as it is, or a part of it in detail; once, or again and again.

use std::{
    collections::BTreeMap,
    io::{self, Write},
    path::Path,
    time::Duration,
};

use clap::Args;
use clap_complete::ArgValueCompleter;

use super::{
    Exit, Format, complete, detail,
    operate::{asked, refuse},
    place_io::Place,
    render, tell, watch_io,
};
use crate::{
    admin::api::{Request, StatusView},
    dataplane::{Access, Tables, TablesError},
    runtime::{
        report::Report,
        report_io,
        status::{Status, gather},
    },
};

/// `weir status`.
#[derive(Args, Debug)]
pub struct StatusArgs {
    /// What to show in detail; `*` and `?` stand for any letters. Everything in short, if nothing is named.
    #[arg(value_name = "POOL|POOL/SERVER|LISTENER", add = ArgValueCompleter::new(complete::targets))]
    target: Option<String>,
    /// Shows it again each so many seconds, until it is interrupted.
    #[arg(short, long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "1", value_parser = seconds)]
    watch: Option<Duration>,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().filter(|seconds| (0.1..=86400.0).contains(seconds));
    seconds.map(Duration::from_secs_f64).ok_or_else(|| "seconds are from 0.1 to 86400; what is to be shown comes before --watch".into())
}

/// Where a command's output goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Screen {
    /// A terminal, which can be cleared.
    Terminal,
    /// Anything else.
    Stream,
}

/// A daemon that runs writes its record more often, but for the largest nodes: to ask it does no harm.
const OLD_MS: u64 = 3000;

/// Clears a terminal (ECMA-48: CUP, ED).
const CLEAR: &str = "\x1b[H\x1b[J";

/// The counters at an earlier look, to compute rates from.
#[derive(Debug, Default)]
struct Earlier {
    at_ms: u64,
    packets: BTreeMap<u16, u64>,
}

impl Earlier {
    /// Gives each member the rate since then, if there was a look, and keeps this one.
    fn follow(&mut self, status: &mut Status, now_ms: u64) {
        let elapsed_ms = now_ms.saturating_sub(self.at_ms);
        let members = || status.services.iter().flat_map(|service| &service.members);
        let packets = members().map(|member| (member.id, member.packets)).collect();
        for member in status.services.iter_mut().flat_map(|service| &mut service.members) {
            if let Some(&before) = self.packets.get(&member.id).filter(|_| self.at_ms != 0 && elapsed_ms > 0) {
                member.packets_per_second = Some(member.packets.saturating_sub(before) as f64 * 1000.0 / elapsed_ms as f64);
            }
        }
        *self = Self { at_ms: now_ms, packets };
    }
}

/// How it is shown.
#[derive(Clone, Copy, Debug)]
struct Manner {
    format: Format,
    /// One JSON document is one line.
    is_line: bool,
}

impl Manner {
    fn document(self, value: &impl serde::Serialize, out: &mut impl Write) -> io::Result<()> {
        if self.is_line {
            serde_json::to_writer(&mut *out, value)?;
        } else {
            serde_json::to_writer_pretty(&mut *out, value)?;
        }
        writeln!(out)
    }
}

/// Reads and shows the status of the node that `config` describes. `now_ms` is the time in milliseconds of the Unix epoch.
///
/// Ends as [`Exit::Refused`] if the node is not ready, no daemon runs, the configuration file is not the one in force, nobody serves a service, a server that is
/// shown in detail fails its checks, or there is nothing of that name. What is watched ends as [`Exit::Fine`].
///
/// # Errors
///
/// Those of writing to `out` and `err`.
pub fn status(
    config: &Path,
    arguments: &StatusArgs,
    (format, screen): (Format, Screen),
    now_ms: u64,
    out: &mut impl Write,
    err: &mut impl Write,
) -> io::Result<Exit> {
    let (target, mut earlier) = (arguments.target.as_deref(), Earlier::default());
    let Some(interval) = arguments.watch else {
        return look(config, target, Manner { format, is_line: false }, now_ms, &mut earlier, out, err);
    };
    watch_io::each(interval, |now_ms| {
        let mut block = Vec::new();
        let exit = look(config, target, Manner { format, is_line: true }, now_ms, &mut earlier, &mut block, err)?;
        match (format, screen) {
            (Format::Json, Screen::Terminal | Screen::Stream) => {}
            (Format::Text, Screen::Terminal) => out.write_all(CLEAR.as_bytes())?,
            (Format::Text, Screen::Stream) => block.push(b'\n'),
        }
        out.write_all(&block)?;
        out.flush()?;
        Ok(exit)
    })
}

fn look(
    config: &Path,
    target: Option<&str>,
    manner: Manner,
    now_ms: u64,
    earlier: &mut Earlier,
    out: &mut impl Write,
    err: &mut impl Write,
) -> io::Result<Exit> {
    let place = match Place::of(config) {
        Ok(place) => place,
        Err(error) => return tell(err, &error, Exit::Usage),
    };
    let (daemon, differences) = (place.daemon(), place.differences());
    let Place { pins, report, .. } = place;
    let report = match report {
        Ok(report) => report,
        Err(error) => return tell(err, &error, Exit::Refused),
    };
    let is_old = report_io::is_running(&report) && now_ms.saturating_sub(report.read_at_ms) > OLD_MS;
    if is_old {
        match target {
            // What it cannot write it can tell.
            None => {
                if let Ok(view) = asked(config, &Request::Status) {
                    return show_view(view, manner, out);
                }
            }
            Some(_) => writeln!(err, "warning: the daemon's record is {} s old", (now_ms - report.read_at_ms) / 1000)?,
        }
    }
    let tables = match Tables::open(&pins, Access::ReadOnly) {
        Ok(tables) => tables,
        Err(error) if error.is_denied() => return asked_of_daemon(config, target, &error, manner, out, err),
        Err(error) => return not_loaded(&error, &report, daemon, manner, out, err),
    };
    let mut status = match gather(&tables, &pins, &report, daemon, now_ms) {
        Ok(status) => status,
        Err(error) => {
            writeln!(err, "error: {error:#}")?;
            return Ok(Exit::Refused);
        }
    };
    earlier.follow(&mut status, now_ms);
    let Some(target) = target else {
        status.problems.extend(differences);
        match manner.format {
            Format::Json => manner.document(&status, out)?,
            Format::Text => render::status(&status, out)?,
        }
        return Ok(if status.is_healthy() { Exit::Fine } else { Exit::Refused });
    };
    let part = match detail::part(config, target, status, &report) {
        Ok(part) => part,
        Err(error) => return tell(err, &error, Exit::Refused),
    };
    match manner.format {
        Format::Json => manner.document(&part, out)?,
        Format::Text => detail::show(&part, now_ms, out)?,
    }
    Ok(if part.is_healthy() { Exit::Fine } else { Exit::Refused })
}

/// For whoever may not read the maps, and may ask the daemon, which does.
fn asked_of_daemon(
    config: &Path,
    target: Option<&str>,
    denied: &TablesError,
    manner: Manner,
    out: &mut impl Write,
    err: &mut impl Write,
) -> io::Result<Exit> {
    if target.is_some() {
        tell(err, denied, Exit::Refused)?;
        writeln!(
            err,
            "hint: root may read the kernel's maps, which the details are read from; weir status and weir server list ask the daemon"
        )?;
        return Ok(Exit::Refused);
    }
    match asked(config, &Request::Status) {
        Ok(view) => show_view(view, manner, out),
        Err(error) => refuse(err, &error),
    }
}

/// As the daemon sees itself.
fn show_view(view: StatusView, manner: Manner, out: &mut impl Write) -> io::Result<Exit> {
    match manner.format {
        Format::Json => manner.document(&view.status, out)?,
        Format::Text => {
            let status: Status = serde_json::from_value(view.status)?;
            render::status(&status, out)?;
        }
    }
    Ok(if view.healthy { Exit::Fine } else { Exit::Refused })
}

fn not_loaded(
    error: &TablesError,
    report: &Report,
    daemon: Option<u32>,
    manner: Manner,
    out: &mut impl Write,
    err: &mut impl Write,
) -> io::Result<Exit> {
    let problems = daemon.map_or_else(Vec::new, |pid| without_data_plane(report, pid));
    if manner.format == Format::Json {
        let daemon = serde_json::json!({ "running": daemon.is_some(), "pid": daemon.unwrap_or(0) });
        let document = serde_json::json!({ "ready": false, "error": error.to_string(), "daemon": daemon, "problems": problems });
        manner.document(&document, out)?;
    }
    for problem in problems {
        writeln!(err, "{problem}")?;
    }
    tell(err, error, Exit::Refused)
}

/// What a daemon does whose data plane is not there.
fn without_data_plane(report: &Report, pid: u32) -> Vec<String> {
    if !report_io::is_running(report) {
        return vec![format!("a daemon starts: process {pid}")];
    }
    let of_daemon = match &report.apply_error {
        Some(error) => format!("the daemon, process {pid}, has no data plane, and tries again each second: {error}"),
        None => format!("the daemon, process {pid}, runs, but pins of its are not here: if somebody removed them, it loads all anew"),
    };
    std::iter::once(of_daemon).chain(report.forgone.iter().cloned()).collect()
}
