//! What the daemon does about pins that somebody removed: a link is made again where it was, and for anything else all is loaded anew, for nothing
//! else outlives this process or is found by a command.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "the part of the daemon that meets its pins")]

use std::path::PathBuf;

use tracing::{debug, error, info, warn};

use super::{
    admin_io::AdminSocket,
    config_io::First,
    daemon_io::{Absent, Beginning, Daemon},
    driver::RunError,
    report::{Report, Trouble, in_words},
    report_io,
};
use crate::{
    config::{Parser, model::Config},
    control::history::History,
    dataplane::{self, LoadError, Missing, PinDir, PinDirError},
    speaker,
};

impl Daemon {
    /// Mends what is missing of the pins. Gives in words what only loading anew mends.
    pub(super) fn mend_pins(&mut self) -> Option<String> {
        let pins = PinDir::at(&self.config.node.pin_dir);
        let found = pins.identity();
        if found.is_none() || found != self.pins {
            return Some("all of them".into());
        }
        // A directory that is removed at this moment is missed the next time.
        let missing = dataplane::missing(&pins, self.dataplane.features(), self.dataplane.interfaces().keys()).ok()?;
        if !missing.needed.is_empty() {
            return Some(missing.needed.join(", "));
        }
        self.mend_around(&pins, &missing);
        None
    }

    fn mend_around(&mut self, pins: &PinDir, missing: &Missing) {
        if missing.is_record_unsaid
            && let Err(error) = self.dataplane.follow_record(&self.config.node.state_dir)
        {
            warn!(error = in_words(&error), "the pins do not say where the record is");
        }
        if !missing.idle.is_empty() {
            match dataplane::remake_idle(pins, self.dataplane.features()) {
                Ok(()) => warn!(pins = missing.idle.join(", "), "pins of maps that nothing uses were missing, and are made again"),
                Err(error) => warn!(error = in_words(&error), "pins of maps that nothing uses are missing"),
            }
        }
        let is_told = |name: &String| matches!(self.report.troubled_interfaces.get(name), Some(Trouble::Refused(_)));
        for name in missing.links.iter().filter(|name| !is_told(name)) {
            error!(interface = name, "somebody removed the pinned link: the interface is taken again");
        }
        self.is_network_stale |= !missing.links.is_empty();
    }

    /// Lets go of a data plane whose pins are lost. `lost` says which.
    pub(super) fn into_remnant(self, lost: &str) -> Remnant {
        error!(
            pin_dir = %self.config.node.pin_dir.display(),
            lost,
            "somebody removed the pins: the data plane is loaded anew, its flows are lost"
        );
        let Self { config_path, written, history, admin, report, pins, .. } = self;
        Remnant { config_path, config: written, history, admin: Some(admin), report, rest: pins, told: None }
    }
}

/// What a daemon without a data plane knows.
pub(super) struct Remnant {
    config_path: PathBuf,
    config: Config,
    history: History,
    /// The admin API, until it is handed on.
    admin: Option<AdminSocket>,
    report: Report,
    /// The pin directory that may have pins left.
    rest: Option<(u64, u64)>,
    /// The last failure that was told.
    told: Option<String>,
}

impl Remnant {
    /// Loads everything anew: by the file, if that can be, so that it takes what waited for a start; or else by the configuration that was in force.
    /// Directories stay where they were.
    pub(super) async fn start(&mut self) -> Result<Daemon, RunError> {
        self.remove_rest()?;
        let mut daemon = match self.start_by_file().await {
            Some(started) => started?,
            None => {
                let (warnings, errors) = (self.report.config_warnings.clone(), self.report.config_errors.clone());
                let (config, history, parser) = (self.config.clone(), self.history.clone(), Parser::default());
                self.start_by(First { config, warnings, errors, history, parser, lost: Vec::new(), admin: None }).await?
            }
        };
        // Tells what is wrong with the file, or waits for a start.
        daemon.reload(false).await;
        Ok(daemon)
    }

    fn remove_rest(&mut self) -> Result<(), PinDirError> {
        let pins = PinDir::at(&self.config.node.pin_dir);
        if self.rest.is_some() && pins.identity() == self.rest {
            dataplane::stop(&pins)?;
        }
        self.rest = None;
        Ok(())
    }

    /// None if the file is none to start by.
    async fn start_by_file(&mut self) -> Option<Result<Daemon, RunError>> {
        let mut first = First::of(&self.config_path).ok().filter(|first| first.errors.is_empty())?;
        first.config.node.pin_dir.clone_from(&self.config.node.pin_dir);
        first.config.node.state_dir.clone_from(&self.config.node.state_dir);
        let is_another = first.config != self.config;
        match self.start_by(first).await {
            Err(error) if is_another && !is_taken(&error) => {
                debug!(error = in_words(&error), "the configuration that was in force is loaded, not the file");
                None
            }
            started => Some(started),
        }
    }

    async fn start_by(&mut self, first: First) -> Result<Daemon, RunError> {
        let forgone = self.report.forgone.clone();
        let first = First { admin: self.admin.take(), ..first };
        Daemon::start(Beginning { config_path: &self.config_path, first, forgone, absent: Absent::Awaited }).await
    }

    /// Tells a failure, and leaves it in the record.
    pub(super) fn tell(&mut self, error: &RunError) {
        let words = in_words(error);
        if self.told.as_ref() != Some(&words) {
            error!(error = words, "the data plane is not loaded; it is tried again each second");
        }
        self.report.apply_error = Some(words.clone());
        self.told = Some(words);
        self.write_report();
    }

    /// Before the process ends.
    pub(super) fn leave(mut self) {
        speaker::visit_io::end(&self.config.node.state_dir);
        self.report.pid = 0;
        self.write_report();
        info!("the daemon ends; no data plane is loaded");
    }

    fn write_report(&self) {
        if let Err(error) = report_io::write(&self.config.node.state_dir, &self.report) {
            warn!(error = in_words(&error), "weir status will not know this daemon");
        }
    }
}

/// Whether another process has the pin directory.
pub(super) fn is_taken(error: &RunError) -> bool {
    matches!(error, RunError::Pins(PinDirError::InUse { .. }) | RunError::Load(LoadError::PinDir(PinDirError::InUse { .. })))
}
