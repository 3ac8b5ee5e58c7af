//! Names for the shell's completion: servers, pools, listeners, asked of the daemon that runs, and maps.

use std::{env, ffi::OsStr, path::PathBuf};

use clap_complete::CompletionCandidate;

use super::{CONFIG_FILE, CONFIG_VARIABLE, operate::asked, place_io::Place};
use crate::{
    admin::api::{Request, ServerView},
    dataplane,
};

/// The file that `--config` would name: what stands on the line so far is not known here.
fn config() -> PathBuf {
    env::var_os(CONFIG_VARIABLE).map_or_else(|| CONFIG_FILE.into(), PathBuf::from)
}

fn fitting(names: impl Iterator<Item = String>, typed: &OsStr) -> Vec<CompletionCandidate> {
    let typed = typed.to_string_lossy();
    names.filter(|name| name.starts_with(&*typed)).map(CompletionCandidate::new).collect()
}

/// `POOL/SERVER` of every server; none without a daemon.
pub(super) fn servers(typed: &OsStr) -> Vec<CompletionCandidate> {
    let servers: Vec<ServerView> = asked(&config(), &Request::Servers).unwrap_or_default();
    fitting(servers.into_iter().map(|server| server.server.to_string()), typed)
}

/// Whatever can be shown in detail: servers, pools and listeners.
pub(super) fn targets(typed: &OsStr) -> Vec<CompletionCandidate> {
    [servers(typed), pools(typed), listeners(typed)].into_iter().flatten().collect()
}

/// The listeners of the daemon's record.
pub(super) fn listeners(typed: &OsStr) -> Vec<CompletionCandidate> {
    names(typed, |service| service.listener.clone())
}

/// The maps of the kernel, however they are typed.
pub(super) fn maps(typed: &OsStr) -> Vec<CompletionCandidate> {
    fitting(dataplane::all_map_names().into_iter().map(str::to_owned), &typed.to_ascii_uppercase())
}

/// The pools that some server is in.
pub(super) fn pools(typed: &OsStr) -> Vec<CompletionCandidate> {
    let servers: Vec<ServerView> = asked(&config(), &Request::Servers).unwrap_or_default();
    let mut pools: Vec<String> = servers.into_iter().map(|server| server.server.pool).collect();
    pools.dedup();
    fitting(pools.into_iter(), typed)
}

fn names(typed: &OsStr, name: impl Fn(&crate::runtime::report::ServiceName) -> String) -> Vec<CompletionCandidate> {
    let report = Place::of(&config()).ok().and_then(|place| place.report.ok()).unwrap_or_default();
    let mut names: Vec<String> = report.services.iter().map(name).collect();
    names.dedup();
    fitting(names.into_iter(), typed)
}
