//! `weir doctor`: whether this machine can run Weir, and what to do where it cannot.

use std::{
    io::{self, Write},
    path::Path,
};

use serde::Serialize;

use super::{Exit, Format, node_of};
use crate::dataplane::examine;

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
pub fn doctor(config: &Path, format: Format, out: &mut impl Write) -> io::Result<Exit> {
    let interfaces = node_of(config).map_or_else(|_| Vec::new(), |node| node.interfaces);
    let findings: Vec<Shown> = examine(&interfaces)
        .into_iter()
        .map(|finding| Shown { what: finding.what, ok: finding.ok, detail: finding.detail, hint: finding.hint })
        .collect();
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
