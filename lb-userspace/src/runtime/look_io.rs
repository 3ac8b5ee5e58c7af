//! Answers whoever looks at the node from its maps. What only the daemon knows is taken at once; the maps, of millions of entries, are read by
//! another thread, so that nothing waits for it.
#![allow(clippy::disallowed_methods, reason = "has a thread read the maps")]

use tokio::{
    sync::{Semaphore, oneshot},
    task::spawn_blocking,
};

use super::{
    admin_io::{Answer, serialised},
    daemon_io::{Daemon, unix_ms},
    inspect::Inspector,
};
use crate::{
    admin::{
        answer::{Refusal, ServerDetail, StatusView},
        api::{Look, MOST_ENTRIES},
    },
    dataplane::PinDir,
};

/// Maps are read for so many at once; who comes later waits.
static LOOKS: Semaphore = Semaphore::const_new(2);

impl Daemon {
    /// Answers from the maps. The task ends by itself, after one reading.
    pub(super) async fn handle_look(&mut self, look: Look, reply: oneshot::Sender<Answer>) {
        self.follow_report();
        let details = if matches!(look, Look::Part(_)) { self.details().await } else { Ok(Vec::new()) };
        let inspector = Inspector::new(PinDir::at(&self.config.node.pin_dir), self.report.clone(), Some(self.report.pid));
        tokio::spawn(async move {
            let Ok(turn) = LOOKS.acquire().await else { return };
            if reply.is_closed() {
                return;
            }
            spawn_blocking(move || {
                // Who asked may have gone.
                let _ = reply.send(seen(&inspector, look, details));
                drop(turn);
            });
        });
    }
}

fn seen(inspector: &Inspector, look: Look, details: Result<Vec<ServerDetail>, Refusal>) -> Answer {
    match look {
        Look::Part(question) => {
            let (details, not_told) = details.map_or_else(|error| (Vec::new(), Some(error.error)), |details| (details, None));
            serialised(&inspector.part(&question.target, details, not_told, unix_ms())?)
        }
        Look::Flows(question) => {
            refuse_too_many(question.limit)?;
            serialised(&inspector.flows(&question)?)
        }
        Look::Explain(packet) => serialised(&inspector.explain(&packet)?),
        Look::Maps => serialised(&inspector.maps()?),
        Look::Entries(question) => {
            refuse_too_many(question.limit)?;
            serialised(&inspector.entries(&question)?)
        }
        Look::Status => {
            let status = inspector.status(unix_ms())?;
            serialised(&StatusView { healthy: status.is_healthy(), status })
        }
    }
}

fn refuse_too_many(limit: usize) -> Result<(), Refusal> {
    if limit <= MOST_ENTRIES {
        return Ok(());
    }
    let hint = Some("root reads more from the kernel's maps, with the command".into());
    Err(Refusal { hint, ..Refusal::text(format!("an answer has at most {MOST_ENTRIES} entries, not {limit}")) })
}
