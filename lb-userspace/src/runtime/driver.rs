//! `weir run`: the loop over files, signals, netlink and time.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "owns the event loop, its timers and its sockets")]

use std::{path::PathBuf, time::Duration};

use tokio::{
    signal::unix::{SignalKind, signal},
    time::{MissedTickBehavior, interval, sleep},
};
use tracing::{info, warn};

use super::{
    daemon::{Daemon, warnings},
    files_io::{FileWatch, Stamp},
    readback::ReadBackError,
    report_io::ReportError,
};
use crate::{
    config::{self, LoadError as ConfigLoadError},
    dataplane::{AttachError, LoadError, PinDirError, SWEEP_INTERVAL, TablesError},
    netlink::{OpenError, RefreshError, RequestError, WatchError, Watcher},
    path_mtu::driver::{ListenError, Listener},
};

/// A file is looked at once its folder has been quiet for so long, so that a write in several steps is read when it is whole.
const FILE_SETTLES: Duration = Duration::from_millis(15);

/// How often the kernel is asked for what it tells nobody.
const REREAD_INTERVAL: Duration = Duration::from_secs(30);

/// Why the daemon does not run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The configuration is not one.
    #[error(transparent)]
    Config(#[from] ConfigLoadError),
    /// The data plane.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The pins.
    #[error(transparent)]
    Pins(#[from] PinDirError),
    /// The interfaces.
    #[error(transparent)]
    Attach(#[from] AttachError),
    /// The maps.
    #[error(transparent)]
    Tables(#[from] TablesError),
    /// What the maps hold.
    #[error(transparent)]
    ReadBack(#[from] ReadBackError),
    /// The state directory.
    #[error(transparent)]
    Report(#[from] ReportError),
    /// Netlink.
    #[error(transparent)]
    Netlink(#[from] OpenError),
    /// A netlink request.
    #[error("failed to ask the kernel about the network")]
    Request(#[from] RequestError),
    /// Next hops.
    #[error(transparent)]
    NextHops(#[from] RefreshError),
    /// Notifications.
    #[error(transparent)]
    Watch(#[from] WatchError),
    /// Routers.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The runtime, or a signal handler.
    #[error("failed to set up the event loop")]
    Loop(#[from] std::io::Error),
}

/// Runs the daemon until SIGTERM or SIGINT. What it loaded goes on forwarding then.
///
/// # Errors
/// [`RunError`] if it cannot start; nothing is half-applied then.
pub fn run(config_path: PathBuf) -> Result<(), RunError> {
    let (config, findings, text) = config::load(&config_path, &config::host_name())?;
    let told = warnings(&findings, &text);
    for line in &told {
        warn!("{line}");
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        // Subscribed before the first reading, so that nothing changes unnoticed in between.
        let watcher = Watcher::subscribe()?;
        let stamp = Stamp::of(&config_path);
        let daemon = Daemon::start(config_path.clone(), config, told).await?;
        serve(daemon, watcher, config_path, stamp).await
    })
}

async fn serve(mut daemon: Daemon, mut watcher: Watcher, config_path: PathBuf, mut stamp: Stamp) -> Result<(), RunError> {
    let mut hangup = signal(SignalKind::hangup())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut file = match FileWatch::new(&config_path) {
        Ok(file) => Some(file),
        Err(error) => {
            warn!(%error, "the configuration file is not watched: send SIGHUP after a change");
            None
        }
    };
    let mut routers = Listener::open()?;
    let mut second = ticker(Duration::from_secs(1));
    let mut reread = ticker(REREAD_INTERVAL);
    let mut sweep = ticker(SWEEP_INTERVAL);
    loop {
        // Every arm is cancel safe: signals and ticks stay pending, the watchers keep what they have until it is returned.
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hangup.recv() => {
                stamp = Stamp::of(&config_path);
                info!("told to read the configuration again");
                daemon.reload().await;
            }
            () = file_event(file.as_mut()) => {
                sleep(FILE_SETTLES).await;
                let now = Stamp::of(&config_path);
                if now != stamp {
                    stamp = now;
                    // A symlink may lead elsewhere now.
                    file = FileWatch::new(&config_path).ok().or(file);
                    daemon.reload().await;
                }
            }
            change = watcher.changed() => match change {
                Ok(change) => tell(daemon.handle_network(&change).await),
                Err(error) => {
                    warn!(%error, "the network is watched anew");
                    watcher = Watcher::subscribe()?;
                    tell(daemon.reread_network().await);
                }
            },
            said = routers.too_big() => match said {
                Ok(said) => daemon.handle_too_big(said),
                Err(error) => {
                    warn!(%error, "routers are listened to anew");
                    routers = Listener::open()?;
                }
            },
            _ = second.tick() => daemon.handle_second(),
            _ = reread.tick() => tell(daemon.reread_network().await),
            _ = sweep.tick() => daemon.sweep(),
        }
    }
    daemon.leave();
    info!("the daemon ends; the data plane goes on");
    Ok(())
}

fn ticker(period: Duration) -> tokio::time::Interval {
    let mut ticker = interval(period);
    ticker.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticker
}

async fn file_event(file: Option<&mut FileWatch>) {
    match file {
        Some(file) => file.changed().await,
        None => std::future::pending().await,
    }
}

fn tell(done: Result<(), RunError>) {
    if let Err(error) = done {
        warn!(%error, "the network could not be read; it is tried again");
    }
}
