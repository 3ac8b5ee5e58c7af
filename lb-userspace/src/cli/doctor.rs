//! `weir doctor`: whether this machine can run Weir, and what to do where it cannot.

use std::{
    collections::BTreeSet,
    error::Error,
    io::{self, Write},
    path::Path,
};

use serde::Serialize;

use super::{CONFIG_FILE, Exit, Format};
use crate::{
    config::{self, ConfigText, Diagnostic, LoadError, Severity, model::Config},
    dataplane::{Finding, PinDir, attached, examine},
    netlink::{AssignedAddress, Link, Netlink},
    speaker::{self, apart_io::Apart},
};

#[derive(Serialize, Debug)]
struct Shown {
    what: String,
    ok: bool,
    detail: String,
    hint: Option<&'static str>,
}

/// Examines the machine, and the interfaces of the configuration if there is one.
///
/// Ends as [`Exit::Refused`] if something is not as it should be.
///
/// # Errors
///
/// Those of writing to `out`.
pub fn doctor(path: &Path, format: Format, out: &mut impl Write) -> io::Result<Exit> {
    let (config, findings) = configuration(path);
    let (links, addresses) = network();
    let occupied: Vec<Finding> = config.iter().flat_map(|config| occupied(config, &links)).collect();
    let is_occupied = |finding: &Finding| occupied.iter().any(|other| other.what == finding.what);
    let mut all = findings;
    let machine = {
        let _apart = Apart::begin();
        examine(config.as_ref())
    };
    all.extend(machine.into_iter().filter(|finding| !is_occupied(finding)));
    all.extend(config.iter().flat_map(|config| speaker::examine_io::examine(config, &links, &addresses)));
    all.extend(occupied);
    let shown = |finding: Finding| Shown { what: finding.what, ok: finding.ok, detail: finding.detail, hint: finding.hint };
    let findings: Vec<Shown> = all.into_iter().map(shown).collect();
    match format {
        Format::Json => {
            serde_json::to_writer_pretty(&mut *out, &findings)?;
            writeln!(out)?;
        }
        Format::Text => {
            let width = findings.iter().map(|finding| finding.what.len()).max().unwrap_or(0);
            for finding in &findings {
                writeln!(out, "{:<4} {:<width$}  {}", if finding.ok { "ok" } else { "BAD" }, finding.what, finding.detail)?;
                if let Some(hint) = finding.hint {
                    writeln!(out, "     {:<width$}  hint: {hint}", "")?;
                }
            }
        }
    }
    Ok(if findings.iter().all(|finding| finding.ok) { Exit::Fine } else { Exit::Refused })
}

/// The host's links and addresses; none where the kernel does not tell.
fn network() -> (Vec<Link>, Vec<AssignedAddress>) {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return (Vec::new(), Vec::new()) };
    let read = async {
        let mut netlink = Netlink::open().ok()?;
        Some((netlink.links().await.ok()?, netlink.addresses().await.ok()?))
    };
    runtime.block_on(read).unwrap_or_default()
}

/// Interfaces of the configuration that somebody else's XDP program has.
fn occupied(config: &Config, links: &[Link]) -> Vec<Finding> {
    let ours: BTreeSet<String> =
        attached(&PinDir::at(&config.node.pin_dir)).unwrap_or_default().into_iter().map(|(name, _)| name).collect();
    let is_taken = |link: &&Link| link.xdp.is_some() && config.node.interfaces.contains(&link.name) && !ours.contains(&link.name);
    let finding = |link: &Link| Finding {
        what: format!("interface {}", link.name),
        ok: false,
        detail: "it has an XDP program of somebody else: weir run is refused".to_owned(),
        hint: Some("see ip link show; ip link set NAME xdp off removes one without a link"),
    };
    links.iter().filter(is_taken).map(finding).collect()
}

/// What is there to judge the machine by. A machine without any configuration yet is fine.
fn configuration(path: &Path) -> (Option<Config>, Vec<Finding>) {
    let finding = |ok, detail, hint| vec![Finding { what: "configuration".to_owned(), ok, detail, hint }];
    match config::load(path, &config::host_name()) {
        Ok((config, ..)) => (Some(config), finding(true, path.display().to_string(), None)),
        Err(LoadError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound && path == Path::new(CONFIG_FILE) => {
            (None, finding(true, format!("no {}: interfaces and memory are not looked at", path.display()), None))
        }
        Err(LoadError::Invalid { text, findings }) => (None, finding(false, first_error(&text, &findings), Some("weir check names all"))),
        Err(error) => (None, finding(false, config_error(&error), None)),
    }
}

/// The first error with its place, and how many there are.
fn first_error(text: &ConfigText, findings: &[Diagnostic]) -> String {
    let errors = || findings.iter().filter(|finding| finding.severity == Severity::Error);
    let first = errors().next().map_or_else(String::new, |finding| finding.render_line(text));
    match errors().count() {
        1 => first,
        count => format!("{count} errors, the first: {first}"),
    }
}

fn config_error(error: &dyn Error) -> String {
    error.source().map_or_else(|| error.to_string(), |source| format!("{error}: {source}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_bad_ends_with_1() {
        let mut out = Vec::new();
        let exit = doctor(Path::new("/nowhere/weir.toml"), Format::Text, &mut out).unwrap();
        assert_eq!(exit.code(), 1);
        assert!(out.starts_with(b"BAD  configuration "));
    }
}
