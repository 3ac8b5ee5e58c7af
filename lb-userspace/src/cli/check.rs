//! `weir check FILE`: what the daemon would say of a configuration. Needs no privileges and changes nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Serialize;

use super::{Exit, Format};
use crate::{
    config::{self, ConfigText, Diagnostic, LoadError, LocatedDiagnostic, Severity, model::Config},
    health::{probe::authorities, target::targets},
};

/// What was found of a file: the document of `-o json`.
#[derive(Serialize, Debug)]
struct Verdict {
    ok: bool,
    /// None if the file has errors.
    #[serde(flatten)]
    counts: Option<Counts>,
    diagnostics: Vec<LocatedDiagnostic>,
    /// How long a failed server of each pool that is checked stays in use at most, milliseconds.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    detection_ms: BTreeMap<String, u64>,
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize, Debug)]
struct Counts {
    listeners: usize,
    services: usize,
    servers: usize,
    /// Names that are looked up while the daemon runs, each for any number of servers.
    #[serde(skip_serializing_if = "is_none")]
    names: usize,
    #[serde(skip_serializing_if = "is_none")]
    virtual_routers: usize,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
const fn is_none(count: &usize) -> bool {
    *count == 0
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
    let (counts, detection, findings) = match config::parse(&text, &config::host_name()) {
        Ok((config, mut warnings)) => {
            warnings.extend(config::missing_programs(&config, &text));
            warnings.extend(unusable_authorities(&config, &text));
            (Some(Counts::of(&config)), detection(&config), warnings)
        }
        Err(findings) => (None, BTreeMap::new(), findings),
    };
    match format {
        Format::Text => write_text(counts, &detection, &findings, &text, out, err)?,
        Format::Json => write_json(counts, &detection, &findings, &text, out)?,
    }
    Ok(if counts.is_some() { Exit::Fine } else { Exit::Refused })
}

/// Files of certificate authorities that checks could not use: a warning each, at the first place that names it.
fn unusable_authorities(config: &Config, text: &ConfigText) -> Vec<Diagnostic> {
    let files = config.pools.values().filter_map(|pool| pool.check.as_ref()?.tls.as_ref()?.ca.as_ref());
    let files: BTreeSet<&PathBuf> = files.collect();
    let finding = |file: &PathBuf| {
        let failure = authorities(file).err()?;
        let start = file.to_str().and_then(|file| text.text.find(file).map(|start| start..start + file.len()));
        Some(Diagnostic {
            severity: Severity::Warning,
            span: start.unwrap_or(0..0),
            message: format!("{}: checks cannot be made until it is there", failure.text),
            hint: Some("it is read on the machine that runs the daemon, and again when it changes".into()),
        })
    };
    files.into_iter().filter_map(finding).collect()
}

/// By pool, the longest time until a failed server is out of use.
fn detection(config: &Config) -> BTreeMap<String, Duration> {
    let targets = targets(config);
    let is_checked = |pool: &str| targets.keys().any(|server| server.pool == pool);
    let pools = config.pools.iter().filter(|(name, pool)| pool.servers.is_empty() || is_checked(name));
    pools.filter_map(|(name, pool)| Some((name.clone(), pool.check.as_ref()?.pace.detection()))).collect()
}

impl Counts {
    fn of(config: &Config) -> Self {
        Self {
            listeners: config.listeners.len(),
            services: config.binds().count(),
            servers: config.pools.values().map(|pool| pool.servers.len()).sum(),
            names: config.pools.values().map(|pool| pool.names.len()).sum(),
            virtual_routers: config.vrrp.len(),
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
    detection: &BTreeMap<String, Duration>,
    findings: &[Diagnostic],
    text: &ConfigText,
    out: &mut impl Write,
    err: &mut impl Write,
) -> io::Result<()> {
    for finding in findings {
        writeln!(err, "{}\n", finding.render(text))?;
    }
    match counts {
        Some(Counts { listeners, services, servers, names, virtual_routers }) => {
            let names = if names > 0 { format!(", {} to look up", count(names, "name")) } else { String::new() };
            let routers = if virtual_routers > 0 { format!(", {}", count(virtual_routers, "virtual router")) } else { String::new() };
            let (listeners, services) = (count(listeners, "listener"), count(services, "service"));
            writeln!(out, "ok: {listeners}, {services}, {}{names}{routers}", count(servers, "server"))?;
            detection.iter().try_for_each(|(pool, time)| {
                writeln!(out, "pool {pool}: a server that fails is out of use within {}", humantime::format_duration(*time))
            })
        }
        None => {
            let errors = findings.iter().filter(|finding| finding.severity == Severity::Error).count();
            writeln!(err, "{}: {}", text.file, count(errors, "error"))
        }
    }
}

fn write_json(
    counts: Option<Counts>,
    detection: &BTreeMap<String, Duration>,
    findings: &[Diagnostic],
    text: &ConfigText,
    out: &mut impl Write,
) -> io::Result<()> {
    let diagnostics = findings.iter().map(|finding| finding.located(text)).collect();
    let detection_ms = detection.iter().map(|(pool, time)| (pool.clone(), time.as_millis() as u64)).collect();
    let verdict = Verdict { ok: counts.is_some(), counts, diagnostics, detection_ms };
    serde_json::to_writer_pretty(&mut *out, &verdict)?;
    writeln!(out)
}

fn count(number: usize, what: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {what}{plural}")
}

#[cfg(test)]
mod tests;
