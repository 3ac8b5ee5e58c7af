//! The entry of all probes.

use super::{
    Progress, by, command_io, dialogue_io, http_io,
    kit_io::{Alpn, Kit},
    mysql_io, pgsql_io,
    stream_io::{Talk, knock},
    udp_io,
};
use crate::{
    config::model::Probe,
    health::{
        outcome::{Failure, Layer, Sign},
        target::{Route, Target},
    },
};

/// Asks a target, and says by what it is well, without a limit of time: the caller stops waiting after the target's timeout, tells it by [`Progress::timeout`], and drops the future,
/// which closes sockets and kills processes. Needs a tokio runtime with I/O and time.
///
/// # Errors
/// The server is not well, or could not be asked.
pub async fn run(target: &Target, kit: &Kit, progress: &Progress) -> Result<Sign, Failure> {
    let mut sign = Sign::Answer;
    let Route::Datapath(paths) = &target.route else { return ask(target, kit, progress).await };
    for (index, path) in paths.iter().enumerate() {
        progress.takes(index);
        let one = Target { port: path.port, route: Route::Datapath(vec![*path]), ..target.clone() };
        let asked = Box::pin(ask(&one, kit, progress)).await;
        let found = asked.map_err(|failure| match failure.layer {
            Layer::Local => failure,
            layer @ (Layer::L4 | Layer::L6 | Layer::L7) => Failure::new(layer, by(path, &failure.text)),
        })?;
        if found == Sign::Silence {
            sign = Sign::Silence;
        }
    }
    Ok(sign)
}

/// Asks by the first of the target's ways.
async fn ask(target: &Target, kit: &Kit, progress: &Progress) -> Result<Sign, Failure> {
    let asked = match &target.probe {
        // The bare connection is the common case: the others are boxed so that their state does not make its future big.
        Probe::Tcp(steps) if steps.is_empty() && target.tls.is_none() => knock(target, kit, progress).await,
        Probe::Tcp(steps) => Box::pin(dialogue_io::run(target, steps, kit, progress)).await,
        Probe::Tls => Box::pin(hello(target, kit, progress)).await,
        Probe::Http(probe) => Box::pin(http_io::run(target, probe, kit, progress)).await,
        Probe::Grpc { service } => Box::pin(http_io::run_grpc(target, service, kit, progress)).await,
        Probe::Mysql { user } => Box::pin(mysql_io::run(target, user.as_deref(), kit, progress)).await,
        Probe::Pgsql { user } => Box::pin(pgsql_io::run(target, user, kit, progress)).await,
        Probe::Udp { send, expect } => return Box::pin(udp_io::run(target, send, expect.as_deref(), kit, progress)).await,
        Probe::Command { argv } => Box::pin(command_io::run(target, argv, progress)).await,
    };
    asked.map(|()| Sign::Answer)
}

/// The TLS handshake alone.
async fn hello(target: &Target, kit: &Kit, progress: &Progress) -> Result<(), Failure> {
    if target.tls.is_none() {
        return Err(Failure::new(Layer::Local, "no TLS is configured"));
    }
    Talk::open(target, kit, Alpn::None, progress).await.map(drop)
}
