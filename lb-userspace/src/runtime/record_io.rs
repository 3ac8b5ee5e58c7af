//! When the daemon's record is written, and what it tells.
#![allow(clippy::disallowed_methods, reason = "the daemon's look at its tables and the clock")]

use std::time::{Duration, Instant};

use lb_common::words::MemberId;
use tracing::warn;

use super::{
    daemon_io::{Daemon, unix_ms, unix_time},
    report::{in_words, names_of},
    report_io::{self, ReportError},
};
use crate::control::standing::ServerName;

/// A record that is written so fast is written whenever it changes.
const SHORT_WRITE: Duration = Duration::from_millis(10);
/// A longer one waits so long for the answer that comes with it.
const AFTERWARDS: Duration = Duration::from_millis(20);

/// How the daemon's record is kept.
pub(super) struct Record {
    is_refused: bool,
    /// What it tells is not all that is known.
    is_due: bool,
    asked: Option<Instant>,
    written: Instant,
    took: Duration,
}

impl Record {
    /// Not written yet.
    pub(super) fn due() -> Self {
        Self { is_refused: false, is_due: true, asked: None, written: Instant::now(), took: Duration::ZERO }
    }

    /// Whether it may be written only because time has passed: for a fiftieth of the time.
    pub(super) fn is_aged(&self) -> bool {
        self.written.elapsed() >= self.took * 50
    }
}

impl Daemon {
    /// A record that takes long to write is written seldom, for a tenth of the time at most, and after what it tells of.
    pub(super) fn write_report(&mut self) {
        self.record.asked = (!self.record.is_due).then(Instant::now).or(self.record.asked);
        self.record.is_due = true;
        if self.report_due().is_some_and(|at| at <= Instant::now()) {
            self.write_report_now();
        }
    }

    /// When the record is to be written, if it is.
    pub(super) fn report_due(&self) -> Option<Instant> {
        if self.record.took < SHORT_WRITE {
            return self.record.is_due.then_some(self.record.written);
        }
        let asked = self.record.asked.unwrap_or(self.record.written);
        self.record.is_due.then(|| (self.record.written + self.record.took * 10).max(asked + AFTERWARDS))
    }

    pub(super) fn write_report_now(&mut self) {
        // It stands in the log and in `unwritten`.
        let _ = self.write_record();
    }

    /// For who has to know whether it is written.
    pub(super) fn write_record(&mut self) -> Result<(), ReportError> {
        let began = Instant::now();
        self.follow_in_report();
        self.count_in_report();
        let written = report_io::write(&self.config.node.state_dir, &self.report);
        if let Err(error) = &written
            && !self.record.is_refused
        {
            warn!(error = in_words(error), "weir status will not know this daemon");
        }
        self.record.is_refused = written.is_err();
        self.report.unwritten = written.as_ref().err().map(|error| format!("what weir status reads is old: {}", in_words(error)));
        self.record.is_due = false;
        self.record.written = Instant::now();
        self.record.took = began.elapsed();
        written
    }

    /// For whoever is answered from the report: all that is known stands in it, though the record may be written later.
    pub(super) fn follow_report(&mut self) {
        if self.record.is_due { self.follow_in_report() } else { self.follow_standings() }
    }

    /// Everything but the counters, of which there is one a server.
    fn follow_in_report(&mut self) {
        self.report.services = names_of(&self.config);
        self.report.health.clone_from(self.book.entries());
        self.follow_standings();
        self.report.overrides = self.overrides.in_words(&self.configured);
        self.report.generation = self.history.in_force;
        self.report.name_troubles = self.names.troubles().into_iter().chain(self.left_out.iter().cloned()).collect();
        self.report.config_notes = self.history.notes();
        self.report.narrow_ways = self.path_mtus.troubles();
        (self.report.vrrp_troubles, self.report.vrrp) = (self.vrrp_trouble(), self.vrrp.view.routers.clone());
    }

    fn count_in_report(&mut self) {
        self.report.read_at_ms = unix_time().as_millis() as u64;
        self.report.packets = self.installed.members.keys().filter_map(|id| Some((id.number(), self.traffic(*id)?))).collect();
    }

    /// Why each server takes flows or does not, and since when.
    pub(super) fn follow_standings(&mut self) {
        self.report.standings = self.standings();
        let cause = |name: &ServerName| self.book.entries().get(name).and_then(|entry| entry.cause.as_deref());
        self.report.courses.observe(&self.report.standings, cause, unix_ms());
    }

    fn traffic(&self, id: MemberId) -> Option<(u64, u64)> {
        let traffic = self.dataplane.tables().traffic(id).ok()?;
        Some((traffic.packets, traffic.bytes))
    }
}
