//! What the daemon answers to its admin API, and the socket's life.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "the daemon's end of a socket")]

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use nix::unistd::{Uid, User};
use serde_json::Value;
use tokio::{
    sync::{broadcast, mpsc},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{
    daemon_io::{Daemon, unix_ms},
    keep_io::{self, KeepError},
    reload::cut_off,
    report::in_words,
    vrrp_hold::Word,
};
use crate::{
    admin::{
        admission::Role,
        api::{
            Applied, Apply, Candidate, HistoryEntry, HistoryView, InForce, Refusal, Request, Selection, ServerView, Switch, Switched,
            WeightChange,
        },
        server_io::{Access, Ask, Caller, ListenError, Socket, SocketFile},
    },
    config::{
        self, ConfigText, Fragment,
        model::{Config, ServerState},
    },
    control::{
        event::{Event, What},
        history::Entry,
        overrides::{OverrideError, Overrides, deserted, select},
        standing::{AdminState, Override, ServerName, View, standings},
    },
};

/// Requests that may wait.
const QUEUE: usize = 64;
/// Events that one who follows them may be late by.
const LATE: usize = 1024;
/// An apply is confirmed within so long, at most.
const MOST_CONFIRM_S: u64 = 24 * 3600;

/// The daemon's first socket was made then: those that it makes later are the same daemon's.
static STARTED_MS: OnceLock<u64> = OnceLock::new();

/// The admin API's socket.
pub(super) struct AdminSocket {
    asks: mpsc::Receiver<Ask>,
    followers: broadcast::Sender<Event>,
    open: Result<Open, String>,
    /// Why others than root do not get in, though the configuration says that they may.
    lacks: Option<String>,
}

/// Where it is, and what serves it.
struct Open {
    path: PathBuf,
    file: SocketFile,
    task: JoinHandle<()>,
    /// Cancelled by whatever ends it.
    end: CancellationToken,
}

fn access(config: &Config) -> Access {
    Access { group: config.admin.group.clone(), admins: config.admin.users.clone() }
}

impl AdminSocket {
    /// Listens where the configuration says. Without it the daemon goes on, and says why.
    pub(super) fn listen(config: &Config) -> Self {
        let (to_daemon, asks) = mpsc::channel(QUEUE);
        let (followers, _) = broadcast::channel(LATE);
        let path = config.admin_socket();
        let access = access(config);
        let mut lacks = None;
        let listened = Socket::listen(&path, &access).or_else(|error| match error {
            ListenError::Unknown { .. } => {
                lacks = Some(format!("only root can operate the daemon: {}", in_words(&error)));
                Socket::listen(&path, &Access::default())
            }
            ListenError::Io { .. } | ListenError::NoSocket(_) | ListenError::Taken(_) => Err(error),
        });
        let open = match listened {
            Ok((socket, file)) => {
                let (events, end) = (followers.clone(), CancellationToken::new());
                let task = tokio::spawn(socket.serve(to_daemon, events, *STARTED_MS.get_or_init(unix_ms), end.clone()));
                Ok(Open { path, file, task, end })
            }
            Err(error) => Err(format!("nobody can operate the daemon: {}", in_words(&error))),
        };
        Self { asks, followers, open, lacks }
    }

    /// Where it is.
    pub(super) fn path(&self) -> Option<PathBuf> {
        self.open.as_ref().ok().map(|open| open.path.clone())
    }

    /// Whether one that is not for all, as the configuration names who is not there, could be by now.
    fn could_be_for_all(&self, config: &Config) -> bool {
        self.lacks.is_some() && access(config).numbers().is_ok()
    }

    /// Why there is none, or not for all.
    pub(super) fn refusal(&self) -> Option<String> {
        self.open.as_ref().err().or(self.lacks.as_ref()).cloned()
    }

    /// The next request; none ever without a socket.
    pub(super) async fn asked(&mut self) -> Ask {
        match self.asks.recv().await {
            Some(ask) => ask,
            None => std::future::pending().await,
        }
    }

    /// Removes the socket. Who waits for an answer that is on its way gets it, within a bound; the task that is given ends then.
    pub(super) fn close(&mut self) -> Option<JoinHandle<()>> {
        let Open { file, task, end, .. } = std::mem::replace(&mut self.open, Err("closed".into())).ok()?;
        drop(file);
        end.cancel();
        self.asks.close();
        // Whoever asked what is not begun is told that this is over.
        while self.asks.try_recv().is_ok() {}
        Some(task)
    }
}

impl Drop for AdminSocket {
    fn drop(&mut self) {
        if let Ok(open) = &self.open {
            open.end.cancel();
        }
    }
}

pub(super) type Answer = Result<Value, Refusal>;

impl Daemon {
    /// Keeps an event and tells it to whoever follows.
    pub(super) fn tell(&mut self, what: What) {
        self.tell_of(what, unix_ms());
    }

    /// The same of something that was at `at_ms`, milliseconds of the Unix epoch.
    pub(super) fn tell_of(&mut self, what: What, at_ms: u64) {
        self.tallies.count(&what, at_ms);
        let event = self.events.add(what, at_ms);
        // Nobody needs to follow.
        let _ = self.admin.followers.send(event);
    }

    /// Answers a request.
    pub(super) async fn handle_ask(&mut self, ask: Ask) {
        let Ask { request, by, reply } = ask;
        let role = by.role;
        if request == Request::Metrics {
            return self.handle_scrape(reply).await;
        }
        if let Request::Look(look) = request {
            return self.handle_look(look, reply).await;
        }
        // Whoever has given up does not expect a change any more.
        if request.is_change() && reply.is_closed() {
            return;
        }
        let by = name_of(&by);
        let command = request.to_string();
        let is_change = request.is_change();
        let answer = self.answer(request, &by, role).await;
        if is_change {
            match &answer {
                Ok(_) => {
                    info!(by, command, "the operator's word is taken");
                    self.tell(What::Operated { by, command });
                    self.write_report();
                }
                Err(refusal) => warn!(by, command, error = refusal.error, "the operator's word is refused"),
            }
        }
        // Who asked may have gone.
        let _ = reply.send(answer);
    }

    async fn answer(&mut self, request: Request, by: &str, role: Role) -> Answer {
        match request {
            Request::Servers => serialised(&self.servers_as_they_are()?),
            Request::Details => serialised(&self.details().await?),
            Request::Metrics | Request::Look(_) => Err(Refusal::text("this is answered elsewhere")),
            Request::Overrides => serialised(&self.overrides),
            Request::History => serialised(&self.history_as_it_is()),
            Request::Events(since) => serialised(&self.events.since(since.since).collect::<Vec<_>>()),
            Request::Diff(candidate) => serialised(&self.diff(candidate)?),
            Request::Apply(apply) => self.apply_asked(apply, by, role).await,
            Request::Confirm => {
                self.history.confirm().map_err(|error| Refusal::of(&error))?;
                self.keep_history();
                serialised(&InForce { generation: self.history.in_force })
            }
            Request::Rollback(rollback) => {
                self.history.earlier(rollback.to).map_err(|error| Refusal::of(&error))?;
                let generation = self
                    .roll_back(rollback.to, &format!("{by} wanted it"))
                    .await
                    .map_err(|errors| refused("the configuration in force stays", errors))?;
                serialised(&InForce { generation })
            }
            Request::Drain(selection) => self.set_state(&selection, |_| Some(AdminState::Drain)).await,
            Request::Maint(selection) => self.set_state(&selection, |_| Some(AdminState::Maint)).await,
            Request::Ready(selection) if self.overrides.is_of_absent(&self.configured, &selection.servers) => {
                serialised(&self.say(|overrides| Ok(overrides.forget(&selection.servers)), true).await?)
            }
            Request::Ready(selection) => self.set_state(&selection, |is_ready| (!is_ready).then_some(AdminState::Ready)).await,
            Request::Clear(selection) => {
                let configured = self.configured.clone();
                serialised(&self.say(|overrides| overrides.clear(&configured, &selection.servers), selection.force).await?)
            }
            Request::Weight(change) if change.save => self.save_weight(&change).await,
            Request::Weight(change) => self.set_weight(&change).await,
            Request::Add(addition) if addition.save => self.save_added(addition).await,
            Request::Add(addition) => {
                let (configured, server) = (self.configured.clone(), addition.server.clone());
                let add = |overrides: &mut Overrides| overrides.add(&configured, addition.server, addition.added).map(|()| vec![server]);
                serialised(&self.say(add, true).await?)
            }
            Request::Remove(removal) if removal.save => self.save_removed(&removal).await,
            Request::Remove(removal) => {
                let configured = self.configured.clone();
                serialised(&self.say(|overrides| overrides.remove(&configured, &removal.server).map(|()| Vec::new()), removal.force).await?)
            }
            Request::Switch(switch) => self.switch(switch).await,
            Request::Limits => serialised(&self.limits()?),
            Request::Limit(limit) => self.limit(limit).await,
            Request::Watched(source) => serialised(&self.watched(source.source)?),
            Request::Forget(forget) => self.forget_rates(&forget),
            Request::Vrrp => serialised(&self.vrrp.view),
            Request::VrrpYield(which) => self.tell_routers(&which, Word::Yield).await,
            Request::VrrpReady(which) => self.tell_routers(&which, Word::Ready).await,
        }
    }

    async fn switch(&mut self, Switch { listener, pool, force }: Switch) -> Answer {
        let configured = self.configured.clone();
        let was = self.config.listeners.get(&listener).map(|listener| listener.pool.clone()).unwrap_or_default();
        let own = || configured.listeners.get(&listener).map(|listener| listener.pool.clone()).unwrap_or_default();
        let used = pool.clone().unwrap_or_else(own);
        let names =
            self.config.pools.get(&used).map(|section| section.servers.keys().map(|server| ServerName::new(&used, server)).collect());
        let mut switched = self.overrides.clone();
        let ends =
            switched.switch(&configured, &listener, pool.as_deref()).map(|()| cut_off(&self.config, &switched.effective(&configured)));
        let ends = ends.map_err(|error| Refusal::of(&error))?;
        if !ends.is_empty() && !force {
            let hint = Some("--force does it all the same".to_owned());
            return Err(Refusal { details: ends, hint, ..Refusal::text("live connections would end") });
        }
        self.refuse_unchecked(&used).or_else(|refusal| if force || used == was { Ok(()) } else { Err(refusal) })?;
        let servers = self
            .say(
                |overrides| {
                    Ok({
                        *overrides = switched;
                        names.unwrap_or_default()
                    })
                },
                force,
            )
            .await?;
        serialised(&Switched { listener, was, pool: used, servers, ends })
    }

    /// Whether servers of a pool that has a check would take flows without one.
    fn refuse_unchecked(&self, pool: &str) -> Result<(), Refusal> {
        let Some(section) = self.config.pools.get(pool).filter(|section| section.check.is_some()) else { return Ok(()) };
        let standings = standings(pool, section, &self.view());
        let names = section.servers.keys().map(|server| ServerName::new(pool, server));
        let is_unchecked = |name: &ServerName| !self.book.entries().get(name).is_some_and(|entry| entry.is_checked);
        let unchecked: Vec<String> = names
            .zip(standings)
            .filter(|(name, standing)| standing.weight > 0 && is_unchecked(name))
            .map(|(name, _)| format!("{name} has not been checked"))
            .collect();
        if unchecked.is_empty() {
            return Ok(());
        }
        let hint =
            "servers with a port of their own, or a check with one, are checked before a listener uses them; --force switches all the same";
        Err(Refusal { details: unchecked, hint: Some(hint.into()), ..Refusal::text(format!("nobody knows whether pool {pool} serves")) })
    }

    async fn set_state(&mut self, selection: &Selection, state: impl Fn(bool) -> Option<AdminState>) -> Answer {
        self.say_of(&selection.servers, selection.force, |is_ready, said| said.state = state(is_ready)).await
    }

    async fn set_weight(&mut self, change: &WeightChange) -> Answer {
        if let Some(weight) = change.weight.filter(|weight| *weight > 1000) {
            return Err(Refusal::of(&OverrideError::Weight(weight)));
        }
        self.say_of(&change.servers, change.force, |_, said| said.weight = change.weight).await
    }

    /// Says something of every server that the pattern fits. `change` is told whether the configuration has the server ready.
    async fn say_of(&mut self, pattern: &str, is_forced: bool, change: impl Fn(bool, &mut Override)) -> Answer {
        let names = select(&self.config, pattern).map_err(|error| Refusal::of(&error))?;
        let is_ready = |config: &Config, name: &ServerName| {
            config.server(&name.pool, &name.server).is_none_or(|server| server.state == ServerState::Ready)
        };
        let ready: Vec<bool> = names.iter().map(|name| is_ready(&self.config, name)).collect();
        let said = names.clone();
        let say = move |overrides: &mut Overrides| {
            for (name, is_ready) in said.iter().zip(ready) {
                overrides.say(name, |said| change(is_ready, said));
            }
            Ok(said)
        };
        serialised(&self.say(say, is_forced).await?)
    }

    /// Takes what the operator says, unless nobody would serve a pool then; has it kept before it is in force. Answers with the servers concerned.
    pub(super) async fn say(
        &mut self,
        change: impl FnOnce(&mut Overrides) -> Result<Vec<ServerName>, OverrideError>,
        is_forced: bool,
    ) -> Result<Vec<ServerView>, Refusal> {
        let mut overrides = self.overrides.clone();
        let concerned = change(&mut overrides).map_err(|error| Refusal::of(&error))?;
        self.refuse_desertion(&overrides, is_forced)?;
        keep_io::keep(&self.config.node.state_dir, keep_io::OVERRIDES, &overrides)
            .map_err(|error| Refusal { hint: Some("nothing has been changed".into()), ..Refusal::text(in_words(&error)) })?;
        let before = std::mem::replace(&mut self.overrides, overrides);
        if let Err(error) = self.take_overrides(&before).await {
            self.overrides = before;
            let kept = keep_io::keep(&self.config.node.state_dir, keep_io::OVERRIDES, &self.overrides);
            self.tell_keeping("overrides are not kept", kept);
            return Err(Refusal::text(in_words(&error)));
        }
        if let Some(error) = &self.report.apply_error {
            return Err(Refusal { hint: Some("it is tried again each second".into()), ..Refusal::text(error.clone()) });
        }
        let mut servers = self.servers_as_they_are()?;
        servers.retain(|server| concerned.contains(&server.server));
        Ok(servers)
    }

    /// Whether nobody would serve a pool if this were said.
    pub(super) fn refuse_desertion(&self, overrides: &Overrides, is_forced: bool) -> Result<(), Refusal> {
        let after = View { overrides: overrides.servers.clone(), ..self.view() };
        let lost = deserted((&self.config, &self.view()), (&overrides.effective(&self.configured), &after));
        if lost.is_empty() || is_forced { Ok(()) } else { Err(Refusal::of(&OverrideError::LastServer(lost))) }
    }

    async fn apply_asked(&mut self, apply: Apply, by: &str, role: Role) -> Answer {
        if let Some(seconds) = apply.confirm_s.filter(|seconds| !(1..=MOST_CONFIRM_S).contains(seconds)) {
            return Err(Refusal::text(format!("a confirmation is awaited for 1 s to 24 h, not {seconds} s")));
        }
        let is_own = apply.text.is_none();
        let text = self.candidate(Candidate { text: apply.text, name: apply.name, fragments: apply.fragments })?;
        if !is_own && role != Role::Root {
            self.refuse_programs(&text)?;
        }
        let (before, waited) = (self.history.in_force, self.history.awaited());
        let ruined_before = self.ruined_pools();
        let own_before = is_own.then(|| std::mem::replace(&mut self.history.own_text, text.text.clone()));
        let generation = match self.apply(&text, by).await {
            Ok(generation) => generation,
            Err(errors) => {
                own_before.into_iter().for_each(|before| self.history.own_text = before);
                return Err(refused("the configuration is refused, the one in force stays", errors));
            }
        };
        if let Some(seconds) = apply.confirm_s {
            let Some(otherwise) = self.history.otherwise(before, waited, unix_ms()) else {
                let hint = Some("edit the file, or name another one, then: weir apply --confirm".into());
                return Err(Refusal { hint, ..Refusal::text("it has been in force already: there is nothing to take back") });
            };
            self.history.await_confirmation(unix_ms() + seconds * 1000, otherwise);
            self.keep_history();
            if let Some(pool) = self.ruined_pools().difference(&ruined_before).next() {
                let why = format!("all servers of pool {pool} are down under the later one");
                self.go_back(otherwise, &why).await;
                let in_force = format!("configuration {} is in force", self.history.in_force);
                return Err(Refusal { details: vec![why], ..Refusal::text(format!("it was taken back at once: {in_force}")) });
            }
        }
        serialised(&Applied {
            generation,
            was: before,
            confirm_until_ms: self.history.confirm_until_ms,
            otherwise: self.history.awaited(),
            warnings: self.report.config_warnings.iter().chain(&self.report.unkept).cloned().collect(),
            held_back: self.report.held_back.clone(),
        })
    }

    /// Programs run as the daemon does: whoever is not root may have those of its file run, and of what is in force, and no others.
    fn refuse_programs(&self, text: &ConfigText) -> Result<(), Refusal> {
        // What is wrong with a text is told when it is applied.
        let Ok((config, _)) = config::parse(text, &config::host_name()) else { return Ok(()) };
        let file = self.candidate(Candidate::default()).ok();
        let of_file = file.and_then(|file| config::parse(&file, &config::host_name()).ok()).map(|(config, _)| config);
        let known: BTreeSet<&[String]> = of_file.iter().chain([&self.written]).flat_map(Config::programs).collect();
        match config.programs().find(|argv| !known.contains(argv)) {
            None => Ok(()),
            Some(argv) => {
                let hint = Some("root may: with weir apply, or in the daemon's file".into());
                Err(Refusal { hint, ..Refusal::text(format!("only root may have another program run as root: {}", argv.join(" "))) })
            }
        }
    }

    /// The text of a request, or the daemon's file as it is.
    pub(super) fn candidate(&self, candidate: Candidate) -> Result<ConfigText, Refusal> {
        match candidate.text {
            Some(text) if Fragment::are_of(&candidate.fragments, &text) => {
                Ok(ConfigText::with_fragments(candidate.name.unwrap_or_else(|| "request".into()), text, candidate.fragments))
            }
            Some(_) => Err(Refusal::text("`fragments` do not begin one after another in `text`, the first at 0")),
            None => config::read_regular_text(&self.config_path).map_err(|error| Refusal::text(in_words(&error))),
        }
    }

    fn history_as_it_is(&self) -> HistoryView {
        let entry = |entry: &Entry| HistoryEntry {
            generation: entry.generation,
            at_ms: entry.at_ms,
            by: entry.by.clone(),
            file: entry.file.clone(),
            in_force: entry.generation == self.history.in_force,
        };
        HistoryView {
            entries: self.history.entries.iter().map(entry).collect(),
            confirm_until_ms: self.history.confirm_until_ms,
            otherwise: self.history.awaited(),
        }
    }

    /// Says what could not be kept, once, and as long as it is so in the record.
    pub(super) fn tell_keeping(&mut self, what: &str, kept: Result<(), KeepError>) {
        let unkept = kept.err().map(|error| format!("{what}: {}", in_words(&error)));
        if unkept != self.report.unkept {
            unkept.iter().for_each(|unkept| warn!("{unkept}"));
        }
        self.report.unkept = unkept;
    }

    /// Each second: somebody may have removed the socket, or made room on the disk.
    pub(super) async fn see_to_state_dir(&mut self) {
        if self.report.unkept.is_some() {
            self.keep_history();
            if self.report.unkept.is_none() {
                self.keep_names();
            }
        }
        let is_lost = |name: &str| !self.config.node.state_dir.join(name).exists();
        let (are_overrides_lost, is_history_lost) =
            (self.overrides != Overrides::default() && is_lost(keep_io::OVERRIDES), is_lost(keep_io::HISTORY));
        if self.report.unkept.is_none() && (are_overrides_lost || is_history_lost) {
            warn!("somebody removed what is kept in node.state_dir: it is written again");
            let kept = keep_io::keep(&self.config.node.state_dir, keep_io::OVERRIDES, &self.overrides);
            self.tell_keeping("overrides are not kept", kept);
            self.keep_history();
            self.keep_names();
        }
        let is_gone = |path: PathBuf| !path.exists() && path.parent().is_some_and(Path::exists);
        if self.admin.path().is_some_and(is_gone) {
            warn!("somebody removed the admin socket");
            self.open_admin();
        }
        if self.admin.open.is_err() {
            let again = AdminSocket::listen(&self.config);
            if again.refusal() != self.admin.refusal() {
                self.use_admin(again);
            }
        } else if self.admin.could_be_for_all(&self.config) {
            self.open_admin();
        }
    }

    /// Opens the socket that the configuration asks for. What was said of the one before is over.
    pub(super) fn open_admin(&mut self) {
        // The answer to whoever wanted this is still on its way: the task ends by itself.
        let before = self.admin.refusal();
        drop(self.admin.close());
        self.report.forgone.retain(|line| Some(line) != before.as_ref());
        let opened = AdminSocket::listen(&self.config);
        self.use_admin(opened);
    }

    fn use_admin(&mut self, opened: AdminSocket) {
        let before = self.admin.refusal();
        self.report.forgone.retain(|line| Some(line) != before.as_ref());
        self.admin = opened;
        self.report.admin_socket = self.admin.path();
        self.admin.refusal().into_iter().for_each(|why| self.forgo(why));
    }
}

pub(super) fn serialised(value: &impl serde::Serialize) -> Answer {
    serde_json::to_value(value).map_err(|error| Refusal::text(error.to_string()))
}

pub(super) fn refused(what: &str, details: Vec<String>) -> Refusal {
    Refusal { details, ..Refusal::text(what) }
}

/// The user's name, or number.
fn name_of(by: &Caller) -> String {
    User::from_uid(Uid::from_raw(by.uid)).ok().flatten().map_or_else(|| format!("user {}", by.uid), |user| user.name)
}
