//! `weir run`: the loop over files, signals, netlink and time.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "owns the event loop, its timers and its sockets")]

use std::{path::PathBuf, time::Duration};

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::{MissedTickBehavior, interval, timeout},
};
use tracing::{info, warn};

use super::{
    daemon_io::Daemon,
    files_io::{FileWatch, Stamp},
    readback::ReadBackError,
    report::warnings,
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

/// Others may write in that folder all the time.
const FILE_SETTLES_AT_MOST: Duration = Duration::from_millis(300);

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
    let stamp = Stamp::of(&config_path);
    let (config, findings, text) = config::load(&config_path, &config::host_name())?;
    let told = warnings(&findings, &text);
    for line in &told {
        warn!("{line}");
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        // Subscribed before the first reading, so that nothing changes unnoticed in between.
        let signals = Signals::new()?;
        let watcher = Watcher::subscribe()?;
        let daemon = Daemon::start(&config_path, config, told).await?;
        serve(daemon, signals, watcher, config_path, stamp).await
    })
}

struct Signals {
    hangup: Signal,
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> Result<Self, std::io::Error> {
        Ok(Self {
            hangup: signal(SignalKind::hangup())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }
}

async fn serve(
    mut daemon: Daemon,
    mut signals: Signals,
    mut watcher: Watcher,
    config_path: PathBuf,
    mut stamp: Stamp,
) -> Result<(), RunError> {
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
    // It may have changed between the first reading and the watch.
    let mut is_file_due = true;
    loop {
        if std::mem::take(&mut is_file_due) {
            let now = Stamp::of(&config_path);
            if now != stamp {
                stamp = now;
                // A symlink may lead elsewhere now.
                file = FileWatch::new(&config_path).ok().or(file);
                daemon.reload().await;
            }
        }
        // Every arm is cancel safe: signals and ticks stay pending, the watchers keep what they have until it is returned.
        tokio::select! {
            _ = signals.terminate.recv() => break,
            _ = signals.interrupt.recv() => break,
            _ = signals.hangup.recv() => {
                stamp = Stamp::of(&config_path);
                info!("told to read the configuration again");
                daemon.reload().await;
            }
            () = file_event(file.as_mut()) => {
                settle(file.as_mut()).await;
                is_file_due = true;
            }
            change = watcher.changed() => match change {
                Ok(change) => daemon.handle_network(&change).await,
                Err(error) => {
                    warn!(%error, "the network is watched anew");
                    watcher = Watcher::subscribe()?;
                    daemon.reread_network().await;
                }
            },
            said = routers.too_big() => match said {
                Ok(said) => daemon.handle_too_big(said),
                Err(error) => {
                    warn!(%error, "routers are listened to anew");
                    routers = Listener::open()?;
                }
            },
            _ = second.tick() => daemon.handle_second().await,
            _ = reread.tick() => daemon.reread_network().await,
            _ = sweep.tick() => daemon.sweep(),
        }
    }
    daemon.leave();
    info!("the daemon ends; the data plane goes on");
    Ok(())
}

/// Waits until the folder has been quiet, or for long enough where it never is.
async fn settle(mut file: Option<&mut FileWatch>) {
    let quiet = async { while timeout(FILE_SETTLES, file_event(file.as_deref_mut())).await.is_ok() {} };
    let _ = timeout(FILE_SETTLES_AT_MOST, quiet).await;
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
