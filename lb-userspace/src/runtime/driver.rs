//! `weir run`: the loop over files, signals, netlink and time.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "owns the event loop, its timers and its sockets")]

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::{MissedTickBehavior, interval, sleep_until, timeout},
};
use tracing::{info, warn};

use super::{
    anew_io::{Remnant, is_taken},
    config_io::First,
    daemon_io::{Absent, Beginning, Daemon},
    files_io::{FileWatch, Stamp},
    readback::ReadBackError,
    report::in_words,
    report_io::ReportError,
};
use crate::{
    config::LoadError as ConfigLoadError,
    dataplane::{AttachError, LoadError, PinDirError, SWEEP_INTERVAL, TablesError},
    netlink::{OpenError, RefreshError, RequestError, WatchError, Watcher},
    path_mtu::{
        TooBig,
        driver::{ListenError, Listener},
    },
};

/// A file is looked at once it has been quiet for so long, so that a write in several steps is read when it is whole.
const FILE_SETTLES: Duration = Duration::from_millis(15);

/// Somebody may write it all the time.
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
    /// The node has a data plane already.
    #[error("the data plane of this node is loaded in {}, not in node.pin_dir\nhint: weir stop removes it; or let node.pin_dir name it", .pin_dir.display())]
    LoadedElsewhere {
        /// Where.
        pin_dir: PathBuf,
    },
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
    let first = First::of(&config_path)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        // Subscribed before the first reading, so that nothing changes unnoticed in between.
        let signals = Signals::new()?;
        let watcher = Watcher::subscribe()?;
        let routers = Listener::open();
        let mut file = ConfigFile::new(config_path, stamp);
        let forgone = routers.as_ref().err().map(|error| in_words(error)).into_iter().chain(file.arm()).collect();
        let beginning = Beginning { config_path: &file.path, first, forgone, absent: Absent::Refused };
        let daemon = Daemon::start(beginning).await?;
        serve(daemon, signals, watcher, routers.ok(), file).await
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
    mut routers: Option<Listener>,
    mut file: ConfigFile,
) -> Result<(), RunError> {
    let mut second = ticker(Duration::from_secs(1));
    let mut reread = ticker(REREAD_INTERVAL);
    let mut sweep = ticker(SWEEP_INTERVAL);
    // It may have changed between the first reading and the watch.
    let mut is_file_due = true;
    loop {
        if is_file_due && !file.is_being_written() {
            is_file_due = false;
            if file.has_changed() {
                daemon.reload(false).await;
            }
        }
        let (ramp, report, lookup) = (daemon.next_ramp_step(), daemon.report_due(), daemon.next_lookup());
        // Every arm is cancel safe: signals and ticks stay pending, the watchers keep what they have until it is returned.
        tokio::select! {
            _ = signals.terminate.recv() => break,
            _ = signals.interrupt.recv() => break,
            _ = signals.hangup.recv() => {
                file.has_changed();
                info!("told to read the configuration again");
                daemon.reload(true).await;
            }
            () = file.event() => {
                file.settle().await;
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
            news = daemon.checks.news() => daemon.handle_health(news).await,
            news = daemon.vrrp.news() => daemon.handle_vrrp(news).await,
            ask = daemon.admin.asked() => daemon.handle_ask(ask).await,
            (question, answer) = daemon.lookups.answered() => daemon.handle_answered(&question, answer).await,
            () = at(lookup) => daemon.begin_lookups(),
            () = at(ramp) => daemon.handle_ramp_step(),
            () = at(report) => daemon.write_report_now(),
            said = too_big(routers.as_ref()) => match said {
                Ok(said) => daemon.handle_too_big(said),
                Err(error) => {
                    warn!(%error, "routers are listened to anew");
                    routers = Listener::open().map_err(|error| daemon.forgo(in_words(&error))).ok();
                }
            },
            _ = second.tick() => {
                if let Some(lost) = daemon.mend_pins() {
                    let Some(anew) = load_anew(daemon.into_remnant(&lost), &mut signals).await? else { return Ok(()) };
                    daemon = anew;
                }
                daemon.handle_second().await;
                daemon.follow_vrrp().await;
                // Whatever the watch missed is found now.
                is_file_due = true;
            }
            _ = reread.tick() => daemon.reread_network().await,
            _ = sweep.tick() => daemon.sweep(),
        }
    }
    daemon.leave().await;
    info!("the daemon ends; the data plane goes on");
    Ok(())
}

/// Tries each second until the data plane is loaded. None once the process is told to end.
///
/// # Errors
/// [`RunError`] if another process has the pin directory.
async fn load_anew(mut remnant: Remnant, signals: &mut Signals) -> Result<Option<Daemon>, RunError> {
    let mut second = ticker(Duration::from_secs(1));
    loop {
        // Every arm is cancel safe, as in `serve`.
        tokio::select! {
            _ = signals.terminate.recv() => break,
            _ = signals.interrupt.recv() => break,
            _ = second.tick() => match remnant.start().await {
                Ok(daemon) => return Ok(Some(daemon)),
                Err(error) if is_taken(&error) => return Err(error),
                Err(error) => remnant.tell(&error),
            },
        }
    }
    remnant.leave();
    Ok(None)
}

/// The configuration file as it was last looked at, and the watch on it.
struct ConfigFile {
    path: PathBuf,
    stamp: Stamp,
    watch: Option<FileWatch>,
}

impl ConfigFile {
    fn new(path: PathBuf, stamp: Stamp) -> Self {
        Self { path, stamp, watch: None }
    }

    /// Watches the way that the path takes now. Says what is forgone if that cannot be.
    fn arm(&mut self) -> Option<String> {
        let is_armed = self.watch.as_ref().is_some_and(FileWatch::is_on_the_way);
        if is_armed {
            return None;
        }
        match FileWatch::new(&self.path) {
            Ok(watch) => {
                self.watch = Some(watch);
                None
            }
            Err(error) => Some(format!("the configuration file is not watched, but looked at each second: {error}")),
        }
    }

    /// Whether it is another one than at the last look.
    fn has_changed(&mut self) -> bool {
        // Before the look: what changes later is told.
        let _ = self.arm();
        let now = Stamp::of(&self.path);
        let has_changed = now != self.stamp;
        self.stamp = now;
        has_changed
    }

    fn is_being_written(&self) -> bool {
        self.watch.as_ref().is_some_and(FileWatch::is_being_written)
    }

    async fn event(&mut self) {
        match &mut self.watch {
            Some(watch) => watch.changed().await,
            None => std::future::pending().await,
        }
    }

    /// Waits until it has been quiet, or for long enough where it never is.
    async fn settle(&mut self) {
        let quiet = async { while timeout(FILE_SETTLES, self.event()).await.is_ok() {} };
        let _ = timeout(FILE_SETTLES_AT_MOST, quiet).await;
    }
}

async fn too_big(routers: Option<&Listener>) -> Result<TooBig, ListenError> {
    match routers {
        Some(routers) => routers.too_big().await,
        None => std::future::pending().await,
    }
}

async fn at(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}

fn ticker(period: Duration) -> tokio::time::Interval {
    let mut ticker = interval(period);
    ticker.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticker
}
