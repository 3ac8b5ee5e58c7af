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
    look_io::{PATIENCE, answered, inspector},
    operate::{OperateError, refuse},
    place_io::Place,
    render, tell,
    watch_io::{self, Shown},
};
use crate::{
    admin::{
        api::{Look, PartQuestion, Request, StatusView},
        client_io::AskError,
        node::{Member, Part},
    },
    dataplane::TablesError,
    runtime::{inspect::InspectError, report::Report, report_io},
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
    fn follow<'m>(&mut self, members: impl Iterator<Item = &'m mut Member>, now_ms: u64) {
        let elapsed_ms = now_ms.saturating_sub(self.at_ms);
        let mut packets = BTreeMap::new();
        for member in members {
            if let Some(&before) = self.packets.get(&member.id).filter(|_| self.at_ms != 0 && elapsed_ms > 0) {
                member.packets_per_second = Some(member.packets.saturating_sub(before) as f64 * 1000.0 / elapsed_ms as f64);
            }
            packets.insert(member.id, member.packets);
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
/// Ends as [`Exit::Refused`] if the node is not ready, no daemon runs, the configuration file is not the one in force, nobody serves a service, a virtual router is in
/// fault or nobody tells how it is, a server that is shown in detail fails its checks, or there is nothing of that name. What is watched ends as [`Exit::Fine`].
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
    let mut is_first = true;
    watch_io::each(interval, |now_ms| {
        let mut block = Vec::new();
        let exit = look(config, target, Manner { format, is_line: true }, now_ms, &mut earlier, &mut block, err)?;
        if std::mem::take(&mut is_first) && block.is_empty() {
            return Ok(Shown::Nothing(exit));
        }
        match (format, screen) {
            (Format::Json, Screen::Terminal | Screen::Stream) => {}
            (Format::Text, Screen::Terminal) => out.write_all(CLEAR.as_bytes())?,
            (Format::Text, Screen::Stream) => block.push(b'\n'),
        }
        out.write_all(&block)?;
        out.flush()?;
        Ok(if exit == Exit::Usage { Shown::Nothing(exit) } else { Shown::Something })
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
    match target {
        None => look_at_all(place, manner, now_ms, earlier, out, err),
        Some(target) => look_at_part(place, target, manner, now_ms, earlier, out, err),
    }
}

fn look_at_all(
    place: Place,
    manner: Manner,
    now_ms: u64,
    earlier: &mut Earlier,
    out: &mut impl Write,
    err: &mut impl Write,
) -> io::Result<Exit> {
    let (daemon, differences) = (place.daemon(), place.differences());
    // While nobody checks servers, or nobody knows, it is not well.
    let (mut status, is_healthy) = match answered::<StatusView>(&place, &Request::Look(Look::Status), PATIENCE) {
        Ok(StatusView { healthy, status }) => (status, healthy),
        Err(unanswered) => {
            let report = match &place.report {
                Ok(report) => report.clone(),
                Err(error) => return tell(err, error, Exit::Refused),
            };
            match inspector(place).status(now_ms) {
                Ok(mut status) => {
                    if let Some(pid) = daemon {
                        status.ready = false;
                        status.problems.insert(0, not_answering(pid, &unanswered));
                    }
                    (status, false)
                }
                Err(error) if error.is_denied() => return refuse(err, &unanswered),
                Err(InspectError::Tables(error)) => return not_loaded(&error, &report, daemon, manner, out, err),
                Err(error) => return tell(err, &error, Exit::Refused),
            }
        }
    };
    earlier.follow(status.services.iter_mut().flat_map(|service| &mut service.members), now_ms);
    status.problems.extend(differences);
    match manner.format {
        Format::Json => manner.document(&status, out)?,
        Format::Text => render::status(&status, out)?,
    }
    Ok(if is_healthy { Exit::Fine } else { Exit::Refused })
}

fn look_at_part(
    place: Place,
    target: &str,
    manner: Manner,
    now_ms: u64,
    earlier: &mut Earlier,
    out: &mut impl Write,
    err: &mut impl Write,
) -> io::Result<Exit> {
    let request = Request::Look(Look::Part(PartQuestion { target: target.to_owned() }));
    let part: Result<Part, _> = answered(&place, &request, PATIENCE);
    let mut part = match part {
        Ok(part) => part,
        Err(refused @ OperateError::Ask(AskError::Refused(_))) => return refuse(err, &refused),
        Err(unanswered) => {
            let not_told = place.daemon().map(|_| unanswered.to_string().replace("\nhint: ", "; "));
            if let Err(error) = &place.report {
                return tell(err, error, Exit::Refused);
            }
            match inspector(place).part(target, Vec::new(), not_told, now_ms) {
                Ok(part) => part,
                Err(error) if error.is_denied() => return refuse(err, &unanswered),
                Err(error) => return tell(err, &error, Exit::Refused),
            }
        }
    };
    let of_services = part.services.iter_mut().flat_map(|service| &mut service.members);
    let of_servers = part.servers.iter_mut().flat_map(|server| server.members.iter_mut().map(|placement| &mut placement.member));
    earlier.follow(of_services.chain(of_servers), now_ms);
    match manner.format {
        Format::Json => manner.document(&part, out)?,
        Format::Text => detail::show(&part, now_ms, out)?,
    }
    Ok(if part.is_healthy() { Exit::Fine } else { Exit::Refused })
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

/// What it means that a daemon that is there does not answer.
fn not_answering(pid: u32, why: &OperateError) -> String {
    let why = why.to_string();
    let why = why.lines().next().unwrap_or_default();
    format!(
        "the daemon, process {pid}, does not answer, so that nobody knows whether servers are checked and what it does is as it last wrote it: {why}"
    )
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
