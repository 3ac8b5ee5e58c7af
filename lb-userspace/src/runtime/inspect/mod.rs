//! What the maps and the daemon's record tell, for whoever asks: the admin API, and the commands where no daemon answers. Reads only.
//!
//! | file | what |
//! |---|---|
//! | `status` | a node as it is |
//! | `problems` | what is wrong with it, in words, the gravest first. Pure |
//! | `part` | servers, pools and listeners with all that is known of them |
//! | `flows` | who is connected where |
//! | `explain` | where a packet would go, and why |
//! | `maps` | the maps as they are |

mod explain;
mod flows;
mod maps;
mod part;
mod problems;
mod status;

use super::report::{Report, in_words};
use crate::{
    admin::{
        answer::{Explanation, FlowsView, MapEntries, MapView, Refusal, ServerDetail},
        api::{EntriesQuestion, FlowsQuestion, PacketQuestion},
        node::{Part, Status},
    },
    dataplane::{Access, PinDir, Tables, TablesError},
};

/// Why there is nothing to tell.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    /// Nothing is called so.
    #[error("no {kind} is {name:?}\nhint: {hint}")]
    NoSuch {
        /// What it would be.
        kind: &'static str,
        /// As it was asked for.
        name: String,
        /// What is like it, or what there is.
        hint: String,
    },
    /// What was asked for makes no sense.
    #[error("{0}")]
    Question(String),
    /// No data plane is loaded, or its tables may not be read.
    #[error(transparent)]
    Tables(#[from] TablesError),
    /// The kernel refuses.
    #[error("{0:#}")]
    Read(anyhow::Error),
}

impl InspectError {
    fn read(error: impl Into<anyhow::Error>) -> Self {
        Self::Read(error.into())
    }

    /// Whether somebody with more rights could read it.
    pub fn is_denied(&self) -> bool {
        matches!(self, Self::Tables(error) if error.is_denied())
    }
}

impl From<InspectError> for Refusal {
    fn from(error: InspectError) -> Self {
        match error {
            InspectError::Tables(error) => Self::text(in_words(&error)),
            InspectError::NoSuch { .. } | InspectError::Question(_) | InspectError::Read(_) => Self::of(&error),
        }
    }
}

/// Reads the pinned tables of one node, with the names that the daemon's record gives to what they know by number.
#[derive(Clone, Debug)]
pub struct Inspector {
    pins: PinDir,
    report: Report,
    /// The daemon's process, if it runs.
    daemon: Option<u32>,
}

impl Inspector {
    /// Of the tables that are pinned there.
    pub const fn new(pins: PinDir, report: Report, daemon: Option<u32>) -> Self {
        Self { pins, report, daemon }
    }

    fn tables(&self) -> Result<Tables, TablesError> {
        Tables::open(&self.pins, Access::ReadOnly)
    }

    /// The node as it is. `now_ms` is the time in milliseconds of the Unix epoch.
    ///
    /// # Errors
    /// [`InspectError`].
    pub fn status(&self, now_ms: u64) -> Result<Status, InspectError> {
        status::gather(&self.tables()?, &self.pins, &self.report, self.daemon, now_ms).map_err(InspectError::Read)
    }

    /// The part of the node that `target` names, with what the daemon tells of its servers; `not_told` is why it tells nothing.
    ///
    /// # Errors
    /// [`InspectError`].
    pub fn part(&self, target: &str, details: Vec<ServerDetail>, not_told: Option<String>, now_ms: u64) -> Result<Part, InspectError> {
        part::part(target, self.status(now_ms)?, &self.report, details, not_told)
    }

    /// Who is connected where.
    ///
    /// # Errors
    /// [`InspectError`].
    pub fn flows(&self, question: &FlowsQuestion) -> Result<FlowsView, InspectError> {
        flows::flows(&self.tables()?, &self.pins, &self.report, question)
    }

    /// Where the packet would go, by the decision that the kernel program makes, on the tables that it reads.
    ///
    /// # Errors
    /// [`InspectError`].
    pub fn explain(&self, packet: &PacketQuestion) -> Result<Explanation, InspectError> {
        explain::explain(&self.tables()?, &self.pins, &self.report, packet)
    }

    /// Every map.
    ///
    /// # Errors
    /// [`InspectError`].
    pub fn maps(&self) -> Result<Vec<MapView>, InspectError> {
        maps::list(&self.tables()?, &self.pins)
    }

    /// Entries of one map.
    ///
    /// # Errors
    /// [`InspectError`].
    pub fn entries(&self, question: &EntriesQuestion) -> Result<MapEntries, InspectError> {
        maps::entries(&self.tables()?, &self.pins, question)
    }
}
