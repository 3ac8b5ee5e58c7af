//! Asks as the daemon does: within the target's time.

use std::{net::SocketAddr, path::Path, time::Duration};

use lb_userspace::{
    config::model::{CheckTls, Probe},
    health::{
        outcome::Failure,
        probe::{Kit, Progress, run},
        target::{Route, Target},
    },
};

/// Long enough for any answer of a server that is well.
const LONG: Duration = Duration::from_secs(10);
const SHORT: Duration = Duration::from_millis(500);

pub(crate) fn target(address: SocketAddr, probe: Probe) -> Target {
    Target { seat: address, address: address.ip(), port: address.port(), route: Route::Direct, probe, tls: None, timeout: LONG }
}

/// The same with TLS whose certificate is not looked at.
pub(crate) fn within_tls(target: Target) -> Target {
    Target { tls: Some(CheckTls { verify: false, ca: None, sni: None }), ..target }
}

/// The same with TLS whose certificate has to be of this authority, for this name.
pub(crate) fn verified(target: Target, ca: &Path, sni: Option<&str>) -> Target {
    Target { tls: Some(CheckTls { verify: true, ca: Some(ca.to_owned()), sni: sni.map(str::to_owned) }), ..target }
}

/// The same with a time that is soon over.
pub(crate) fn briefly(target: Target) -> Target {
    Target { timeout: SHORT, ..target }
}

pub(crate) fn ask(target: &Target) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (kit, progress) = (Kit::new(), Progress::new());
        match tokio::time::timeout(target.timeout, run(target, &kit, &progress)).await {
            Ok(verdict) => verdict.map(drop),
            Err(_) => Err(progress.timeout(target)),
        }
    })
}

/// The text of the failure that a question comes to.
#[track_caller]
pub(crate) fn failure(target: &Target) -> String {
    ask(target).unwrap_err().to_string()
}
