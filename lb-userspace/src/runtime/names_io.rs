//! What the daemon does about names: has them looked up, and takes what the DNS says of them.
#![allow(clippy::disallowed_methods, reason = "reads the clock for the daemon")]

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use tokio::time::timeout_at;
use tracing::{info, warn};

use super::{daemon_io::Daemon, keep_io, report::in_words};
use crate::{
    config::model::{Config, Dns, Families, Question},
    control::{
        event::What,
        names::{Answer, Outcome, expand::expand},
    },
};

/// A configuration with names of which nothing is known waits so long for their first answers, at most.
const FIRST_ANSWERS: Duration = Duration::from_secs(2);

impl Daemon {
    /// When a name is to be asked.
    pub(super) fn next_lookup(&self) -> Option<Instant> {
        self.names.poll_timeout()
    }

    /// Asks what is due.
    pub(super) fn begin_lookups(&mut self) {
        let dns = self.written.dns.clone();
        self.begin_lookups_by(&dns);
    }

    fn begin_lookups_by(&mut self, dns: &Dns) {
        while let Some((question, families)) = self.names.poll_question(Instant::now()) {
            self.lookups.begin(question, families, dns);
        }
    }

    /// A lookup ended.
    pub(super) async fn handle_answered(&mut self, question: &Question, answer: Result<Answer, String>) {
        let dns = self.written.dns.clone();
        if self.take_answer(question, answer, &dns) {
            // The maps follow, as they do when the file has other servers.
            if let Err(error) = self.take_written().await {
                warn!(error = in_words(&error), "what the DNS says is not in force");
            }
        }
        self.write_report();
    }

    /// Whether other servers are known now.
    fn take_answer(&mut self, question: &Question, answer: Result<Answer, String>, dns: &Dns) -> bool {
        let name = question.to_string();
        match self.names.handle_answer(question, answer, dns, Instant::now()) {
            Outcome::Same => false,
            Outcome::Changed { came, went } => {
                info!(name, ?came, ?went, "the DNS has another answer");
                self.keep_names();
                self.tell(What::NameChanged { name, came, went });
                true
            }
            Outcome::Failed(cause) => {
                warn!(name, cause, "the lookup of a name fails; what was known stays");
                self.tell(What::NameFailed { name, cause });
                false
            }
        }
    }

    pub(super) fn keep_names(&mut self) {
        let kept = keep_io::keep(&self.config.node.state_dir, keep_io::NAMES, &self.names.kept());
        self.tell_keeping("what the DNS says is not kept", kept);
    }

    /// Has the names of a configuration asked, and waits a while for first answers: else a service would be without servers until they come.
    pub(super) async fn ask_names(&mut self, config: &Config) {
        let questions: BTreeMap<Question, Families> = config.questions();
        let mut unknown: BTreeSet<Question> = self.names.want(&questions, Instant::now());
        if config.dns != self.written.dns {
            self.names.ask_again(Instant::now());
        }
        let until = Instant::now() + FIRST_ANSWERS;
        while !unknown.is_empty() {
            self.begin_lookups_by(&config.dns);
            let Ok((question, answer)) = timeout_at(until.into(), self.lookups.answered()).await else { break };
            self.take_answer(&question, answer, &config.dns);
            unknown.remove(&question);
        }
    }

    /// Before the maps follow for the first time.
    pub(super) async fn ask_first(&mut self) {
        let written = self.written.clone();
        self.ask_names(&written).await;
        (self.configured, self.left_out) = expand(&written, &self.names);
        self.config = self.overrides.effective(&self.configured);
        self.names.want_only(&written.questions());
    }
}
