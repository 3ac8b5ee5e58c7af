//! The operator's commands, one file each. A command writes data to stdout and words for people to stderr, both given as `impl Write`.

pub mod api;
pub mod apply;
pub mod bpf;
pub mod check;
mod complete;
mod detail;
pub mod doctor;
pub mod events;
pub mod explain;
pub mod flows;
mod follow_io;
pub mod limit;
mod look_io;
pub mod man_io;
pub mod operate;
mod place_io;
mod render;
pub mod server_setup;
pub mod status;
pub mod stop;
mod stop_io;
pub mod vrrp;
mod wait_io;
mod watch_io;
mod yield_io;

use std::{
    error::Error,
    io::{self, Write},
    path::Path,
};

use crate::config::{self, LoadError, model::Node};

/// The configuration file of a command that names none.
pub const CONFIG_FILE: &str = "/etc/weir/weir.toml";
/// The environment variable that names another one.
pub const CONFIG_VARIABLE: &str = "WEIR_CONFIG";

/// How a command shows what it has to say: `-o`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum Format {
    /// For people.
    #[value(name = "table", alias = "text")]
    Text,
    /// One JSON document.
    Json,
}

/// How a command ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Exit {
    /// All is well: 0.
    Fine,
    /// Something is unhealthy, or was refused: 1.
    Refused,
    /// The command cannot be carried out as it was given: 2.
    Usage,
}

impl Exit {
    /// The process's exit status.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Fine => 0,
            Self::Refused => 1,
            Self::Usage => 2,
        }
    }
}

/// The node's section of a configuration, for commands that only have to find its directories. A file that was broken while the daemon runs
/// must not hide what it does, so the other sections are not judged.
///
/// # Errors
///
/// [`LoadError`] if the file cannot be read, or its node cannot be understood.
pub(crate) fn node_of(path: &Path) -> Result<Node, LoadError> {
    let host_name = config::host_name();
    let text = config::read_text(path)?;
    match config::node_section(&text, &host_name) {
        Some(node) => Ok(node),
        None => config::load(path, &host_name).map(|(config, ..)| config.node),
    }
}

/// Whether the system refused for want of privileges.
fn is_denied(error: &dyn Error) -> bool {
    let is_refusal = |cause: &(dyn Error + 'static)| {
        cause.downcast_ref::<io::Error>().is_some_and(|cause| cause.kind() == io::ErrorKind::PermissionDenied)
    };
    let mut next = error.source();
    while let Some(cause) = next {
        if is_refusal(cause) {
            return true;
        }
        next = cause.source();
    }
    false
}

/// Writes an error and what caused it, a line each.
pub(crate) fn tell(err: &mut impl Write, error: &dyn Error, exit: Exit) -> io::Result<Exit> {
    write_error(err, error)?;
    Ok(exit)
}

/// Writes an error and what caused it. The hint that an error's text may end with comes last.
///
/// # Errors
///
/// Those of writing.
pub fn write_error(err: &mut impl Write, error: &dyn Error) -> io::Result<()> {
    let text = error.to_string();
    let (text, hint) = text.split_once("\nhint: ").map_or((text.as_str(), None), |(text, hint)| (text, Some(hint)));
    write!(err, "error: {text}")?;
    let mut hints: Vec<String> = hint.map(str::to_owned).into_iter().collect();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        let (cause_text, hint) = cause_text.split_once("\nhint: ").map_or((cause_text.as_str(), None), |(text, hint)| (text, Some(hint)));
        if !text.contains(cause_text) {
            write!(err, ": {cause_text}")?;
        }
        hints.extend(hint.map(str::to_owned));
        source = cause.source();
    }
    writeln!(err)?;
    if hints.is_empty() && is_denied(error) {
        hints.push("run as root".into());
    }
    for hint in hints {
        writeln!(err, "hint: {hint}")?;
    }
    Ok(())
}
