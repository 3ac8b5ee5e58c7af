//! `weir check FILE`: what the daemon would say of a configuration. Needs no privileges and changes nothing.

use std::{
    io::{self, Write},
    path::Path,
};

use serde::Serialize;

use super::{Exit, Format};
use crate::config::{self, ConfigText, Diagnostic, LoadError, LocatedDiagnostic, Severity, model::Config};

/// What was found of a file: the document of `-o json`.
#[derive(Serialize, Debug)]
struct Verdict {
    ok: bool,
    /// None if the file has errors.
    #[serde(flatten)]
    counts: Option<Counts>,
    diagnostics: Vec<LocatedDiagnostic>,
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize, Debug)]
struct Counts {
    listeners: usize,
    services: usize,
    servers: usize,
}

/// Reads the file at `path` and says whether it is a configuration: on `out` the counts of what it configures or, with [`Format::Json`], one
/// document; on `err`, with [`Format::Text`], everything found.
///
/// Ends as [`Exit::Refused`] if the file has errors, as [`Exit::Usage`] if it cannot be read.
///
/// # Errors
///
/// Those of writing to `out` and `err`.
pub fn check(path: &Path, format: Format, out: &mut impl Write, err: &mut impl Write) -> io::Result<Exit> {
    let text = match config::read_text(path) {
        Ok(text) => text,
        Err(error) => {
            write_load_error(&error, err)?;
            return Ok(Exit::Usage);
        }
    };
    let (counts, findings) = match config::parse(&text, &config::host_name()) {
        Ok((config, warnings)) => (Some(Counts::of(&config)), warnings),
        Err(findings) => (None, findings),
    };
    match format {
        Format::Text => write_text(counts, &findings, &text, out, err)?,
        Format::Json => write_json(counts, &findings, &text, out)?,
    }
    Ok(if counts.is_some() { Exit::Fine } else { Exit::Refused })
}

impl Counts {
    fn of(config: &Config) -> Self {
        Self {
            listeners: config.listeners.len(),
            services: config.binds().count(),
            servers: config.pools.values().map(|pool| pool.servers.len()).sum(),
        }
    }
}

fn write_load_error(error: &LoadError, err: &mut impl Write) -> io::Result<()> {
    write!(err, "error: {error}")?;
    if let Some(source) = std::error::Error::source(error) {
        write!(err, ": {source}")?;
    }
    writeln!(err)
}

fn write_text(
    counts: Option<Counts>,
    findings: &[Diagnostic],
    text: &ConfigText,
    out: &mut impl Write,
    err: &mut impl Write,
) -> io::Result<()> {
    for finding in findings {
        writeln!(err, "{}\n", finding.render(text))?;
    }
    match counts {
        Some(Counts { listeners, services, servers }) => {
            writeln!(out, "ok: {}, {}, {}", count(listeners, "listener"), count(services, "service"), count(servers, "server"))
        }
        None => {
            let errors = findings.iter().filter(|finding| finding.severity == Severity::Error).count();
            writeln!(err, "{}: {}", text.file, count(errors, "error"))
        }
    }
}

fn write_json(counts: Option<Counts>, findings: &[Diagnostic], text: &ConfigText, out: &mut impl Write) -> io::Result<()> {
    let diagnostics = findings.iter().map(|finding| finding.located(text)).collect();
    let verdict = Verdict { ok: counts.is_some(), counts, diagnostics };
    serde_json::to_writer_pretty(&mut *out, &verdict)?;
    writeln!(out)
}

fn count(number: usize, what: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {what}{plural}")
}

#[cfg(test)]
mod tests;
