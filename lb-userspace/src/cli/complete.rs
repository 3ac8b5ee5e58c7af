//! Names for the shell's completion: servers, pools, listeners, virtual routers, asked of the daemon that runs or read in its record, and maps.

use std::{env, ffi::OsStr, path::PathBuf, time::Duration};

use clap_complete::CompletionCandidate;
use serde::de::DeserializeOwned;

use super::{CONFIG_FILE, CONFIG_VARIABLE, look_io::answered, place_io::Place};
use crate::{
    admin::api::{HistoryView, Request, ServerView},
    dataplane,
    runtime::report::{Report, ServiceName},
};

/// Whoever types does not wait longer.
const PATIENCE: Duration = Duration::from_secs(1);

/// The file that `--config` would name: what stands on the line so far is not known here.
fn config() -> PathBuf {
    env::var_os(CONFIG_VARIABLE).map_or_else(|| CONFIG_FILE.into(), PathBuf::from)
}

fn asked<T: DeserializeOwned>(request: &Request) -> Option<T> {
    answered(&Place::of(&config()).ok()?, request, PATIENCE).ok()
}

fn fitting(names: impl Iterator<Item = String>, typed: &OsStr) -> Vec<CompletionCandidate> {
    let typed = typed.to_string_lossy();
    names.filter(|name| name.starts_with(&*typed)).map(CompletionCandidate::new).collect()
}

/// `POOL/SERVER` of every server; none without a daemon.
pub(super) fn servers(typed: &OsStr) -> Vec<CompletionCandidate> {
    let servers: Vec<ServerView> = asked(&Request::Servers).unwrap_or_default();
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

/// The configurations that were in force, by number.
pub(super) fn generations(typed: &OsStr) -> Vec<CompletionCandidate> {
    let history: Option<HistoryView> = asked(&Request::History);
    let numbers =
        history.into_iter().flat_map(|history| history.entries).filter(|entry| !entry.in_force).map(|entry| entry.generation.to_string());
    fitting(numbers, typed)
}

/// The maps of the kernel, however they are typed.
pub(super) fn maps(typed: &OsStr) -> Vec<CompletionCandidate> {
    fitting(dataplane::all_map_names().into_iter().map(str::to_owned), &typed.to_ascii_uppercase())
}

/// The pools that some server is in.
pub(super) fn pools(typed: &OsStr) -> Vec<CompletionCandidate> {
    let servers: Vec<ServerView> = asked(&Request::Servers).unwrap_or_default();
    let mut pools: Vec<String> = servers.into_iter().map(|server| server.server.pool).collect();
    pools.dedup();
    fitting(pools.into_iter(), typed)
}

/// The virtual routers of the daemon's record.
pub(super) fn routers(typed: &OsStr) -> Vec<CompletionCandidate> {
    routers_of(&recorded(), typed)
}

fn routers_of(report: &Report, typed: &OsStr) -> Vec<CompletionCandidate> {
    fitting(report.vrrp.iter().map(|router| router.router.clone()), typed)
}

fn names(typed: &OsStr, name: impl Fn(&ServiceName) -> String) -> Vec<CompletionCandidate> {
    let mut names: Vec<String> = recorded().services.iter().map(name).collect();
    names.dedup();
    fitting(names.into_iter(), typed)
}

fn recorded() -> Report {
    Place::of(&config()).ok().and_then(|place| place.report.ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::speaker::order::RouterView;

    #[test]
    fn virtual_routers_are_completed() {
        let router = |name: &str| RouterView { router: name.into(), ..RouterView::default() };
        let report = Report { vrrp: ["mail", "web", "www"].map(router).into(), ..Report::default() };
        let names = |typed: &str| routers_of(&report, typed.as_ref()).iter().map(|one| one.get_value().to_owned()).collect::<Vec<_>>();
        assert_eq!((names("w"), names("")), (vec!["web".into(), "www".into()], vec!["mail".into(), "web".into(), "www".into()]));
    }
}
