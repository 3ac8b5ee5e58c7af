//! What the daemon does about names: has them looked up, and takes what the DNS says of them.
#![allow(clippy::disallowed_methods, reason = "reads the clock for the daemon")]

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use tokio::time::timeout_at;
use tracing::{info, warn};

use super::{
    daemon_io::Daemon,
    keep_io,
    report::{Report, in_words},
};
use crate::{
    balance::Endpoint,
    config::model::{Config, Dns, Families, Question},
    control::{
        ServiceKey,
        event::What,
        installed::{Installed, InstalledMember},
        names::{
            Answer, Names, Outcome,
            expand::expand,
            hold::{Before, Held},
            recall::{Loaded, recall},
        },
        number,
    },
};

/// A daemon that starts waits so long for the first answers of names of which nothing is known, at most. Later ones are not waited for: the loop goes on.
const FIRST_ANSWERS: Duration = Duration::from_secs(2);

/// A configuration with the servers of its names.
pub(super) struct Named {
    pub(super) configured: Config,
    /// What of them is left out, and who stays for the time being, in words.
    pub(super) left_out: Vec<String>,
    pub(super) held: Held,
}

/// Lets names be known by the servers of a loaded data plane. `record` is what the earlier daemon left.
pub(super) fn recall_names(names: &mut Names, written: &Config, installed: &Installed, record: &Report) {
    let loaded = |member: &InstalledMember| {
        let service = ServiceKey::of(&installed.services.get(&member.service)?.record)?;
        let Endpoint { address, port } = member.endpoint();
        let protocol = number(service.protocol);
        let known = record.services.iter().find(|known| (known.vip, known.port, known.protocol) == (service.vip, service.port, protocol));
        let server = known.and_then(|known| known.servers.iter().find(|(_, ip, of)| (*ip, *of) == (address, port)));
        let name = server.map(|(name, ..)| name.clone());
        Some(Loaded { service, address, port, weight: member.info.weight, name })
    };
    let in_use = installed.members.values().filter(|member| member.info.retired_at == 0);
    let known = recall(written, names, &in_use.filter_map(loaded).collect::<Vec<_>>());
    for kept in &known {
        info!(name = %kept.question, servers = kept.found.len(), "what the name stands for is known by the loaded data plane alone");
    }
    names.recall(known);
}

impl Daemon {
    /// When a name is to be asked.
    pub(super) fn next_lookup(&self) -> Option<Instant> {
        self.names.poll_timeout()
    }

    /// Asks what is due.
    pub(super) fn begin_lookups(&mut self) {
        while let Some((question, families)) = self.names.poll_question(Instant::now()) {
            self.lookups.begin(question, families, &self.written.dns);
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

    /// Has the names of a configuration asked from now on. Gives those of which nothing is known.
    pub(super) fn ask_names(&mut self, config: &Config) -> BTreeSet<Question> {
        let questions: BTreeMap<Question, Families> = config.questions();
        let unknown = self.names.want(&questions, Instant::now());
        if config.dns != self.written.dns {
            self.lookups.abandon();
            self.names.ask_again(Instant::now());
        }
        unknown
    }

    /// The servers that names stand for, and those that stay until they are looked up.
    pub(super) fn with_names(&self, written: &Config) -> Named {
        let (mut configured, mut left_out) = expand(written, &self.names);
        let before = Before { written: &self.written, configured: &self.configured };
        let held = self.held.follow(before, written, &self.names);
        left_out.extend(held.add_to(&mut configured));
        Named { configured, left_out, held }
    }

    /// Before the maps follow for the first time: waits a while for first answers, else a service would be without servers until they come.
    pub(super) async fn ask_first(&mut self) {
        let written = self.written.clone();
        let mut unknown = self.ask_names(&written);
        let until = Instant::now() + FIRST_ANSWERS;
        while !unknown.is_empty() {
            self.begin_lookups();
            let Ok((question, answer)) = timeout_at(until.into(), self.lookups.answered()).await else { break };
            self.take_answer(&question, answer, &written.dns);
            unknown.remove(&question);
        }
        (self.configured, self.left_out) = expand(&written, &self.names);
        self.config = self.overrides.effective(&self.configured);
        self.names.want_only(&written.questions());
    }
}
