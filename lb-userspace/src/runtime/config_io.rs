//! Which configuration is in force: the file's, one that the operator applied, or an earlier one. A bad one leaves that in force as it is.
#![allow(clippy::disallowed_methods, reason = "reads the configuration file and the clock")]

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    time::Instant,
};

use tracing::{error, info, warn};

use super::{
    admin_io::AdminSocket,
    daemon_io::{Convergence, Daemon, unix_ms, unix_time},
    driver::RunError,
    health_io::Compared,
    keep_io,
    names_io::Named,
    own_macs::own_macs,
    registry_io,
    reload::{cut_off, restart_only, with_fixed},
    report::{errors_of, in_words, load_errors, warnings},
    report_io,
};
use crate::{
    config::{self, ConfigText, LoadError, Parser, model::Config},
    control::{
        event::What,
        history::{Entry, History, HistoryError},
        overrides::Overrides,
    },
    dataplane::{Features, PinDir},
    speaker::apart_io::Apart,
};

/// Who applies what the file says.
pub(super) const FILE: &str = "file";

/// What a daemon starts with.
pub(super) struct First {
    pub(super) config: Config,
    /// Warnings about it, a line each.
    pub(super) warnings: Vec<String>,
    /// What is wrong with the file, if it is another configuration that the daemon starts with.
    pub(super) errors: Vec<String>,
    /// What was in force before, and this one.
    pub(super) history: History,
    /// What read it.
    pub(super) parser: Parser,
    /// What an earlier daemon kept and cannot be understood.
    pub(super) lost: Vec<String>,
    /// The admin API, where it is open already.
    pub(super) admin: Option<AdminSocket>,
}

impl First {
    /// What the file says; or what was in force, if the operator applied that and the file has not changed since, or if the file is broken and a data
    /// plane is loaded.
    ///
    /// # Errors
    /// [`LoadError`] if neither is a configuration.
    pub(super) fn of(path: &Path) -> Result<Self, LoadError> {
        let host_name = config::host_name();
        let (text, unread) = match config::read_text(path) {
            Ok(text) => (text, None),
            Err(error) => (ConfigText::new(path.display().to_string(), String::new()), Some(error)),
        };
        let mut parser = Parser::default();
        let parsed = parser.parse(&text, &host_name);
        let node = parsed.as_ref().ok().map(|(config, _)| config.node.clone()).or_else(|| config::node_section(&text, &host_name));
        let mut node = node.unwrap_or_else(|| config::node_directories(&text, &host_name));
        if parsed.is_err() && !PinDir::at(&node.pin_dir).is_loaded() {
            registered(path).into_iter().for_each(|(state_dir, pin_dir)| (node.state_dir, node.pin_dir) = (state_dir, pin_dir));
        }
        let mut lost = Vec::new();
        let mut history: History = or_lost(keep_io::find_history(&node.state_dir), &mut lost).unwrap_or_default();
        let kept = |entry: Option<&Entry>| {
            let text = entry.map(Entry::config_text)?;
            let (config, findings) = config::parse(&text, &host_name).ok()?;
            let is_here = (&node.pin_dir, &node.state_dir) == (&config.node.pin_dir, &config.node.state_dir);
            is_here.then(|| (config, warnings(&findings, &text)))
        };
        let (config, told, errors) = match parsed {
            Ok((config, findings)) => match kept(history.instead_of(&text.text)) {
                Some((kept, told)) => {
                    let generation = history.in_force;
                    warn!(
                        generation,
                        "the file has not changed since another configuration was applied, which stays: weir apply takes the file's"
                    );
                    (kept, told, Vec::new())
                }
                None => {
                    history.apply(&text, FILE, unix_ms());
                    (config, warnings(&findings, &text), Vec::new())
                }
            },
            Err(findings) => {
                let is_loaded = PinDir::at(&node.pin_dir).is_loaded();
                let Some((kept, told)) = kept(history.current()).filter(|_| is_loaded) else {
                    return Err(unread.unwrap_or(LoadError::Invalid { text, findings }));
                };
                let errors = unread.map_or_else(|| warnings(&findings, &text), |error| vec![in_words(&error)]);
                errors.iter().for_each(|line| error!("{line}"));
                warn!(generation = history.in_force, "the file is broken: the configuration that was in force stays");
                (kept, told, errors)
            }
        };
        told.iter().for_each(|line| warn!("{line}"));
        history.own_text = text.text;
        Ok(Self { config, warnings: told, errors, history, parser, lost, admin: None })
    }
}

/// Where the last daemon of this file kept its record, and where its data plane is.
fn registered(path: &Path) -> Option<(PathBuf, PathBuf)> {
    let state_dir = registry_io::find(path)?;
    let report = report_io::read(&state_dir).ok()??;
    let is_of_path = std::path::absolute(&report.config).ok()? == std::path::absolute(path).ok()?;
    is_of_path.then_some((state_dir, report.pin_dir))
}

/// What was kept. What cannot be understood is put aside, and told in `lost`.
pub(super) fn found<T: serde::de::DeserializeOwned>(state_dir: &Path, name: &str, lost: &mut Vec<String>) -> Option<T> {
    or_lost(keep_io::find(state_dir, name), lost)
}

fn or_lost<T>(found: Result<Option<T>, keep_io::KeepError>, lost: &mut Vec<String>) -> Option<T> {
    found.unwrap_or_else(|error| {
        let aside = error.put_aside().map(|aside| format!("; it is {} now", aside.display())).unwrap_or_default();
        let line = format!("{}{aside}", in_words(&error));
        error!(error = line, "what an earlier daemon kept cannot be had");
        lost.push(line);
        None
    })
}

impl Daemon {
    /// The file may have changed. One that says the same as when another configuration was applied changes nothing, unless the daemon is told to take it.
    pub(super) async fn reload(&mut self, is_told: bool) {
        self.refused_among = None;
        match config::read_regular_text(&self.config_path) {
            Ok(text) => {
                let is_same = text.text == self.history.own_text;
                if is_told || !is_same || self.history.current().is_some_and(|entry| entry.text == text.text) {
                    self.history.own_text.clone_from(&text.text);
                    // What is wrong is told.
                    let _ = self.apply(&text, FILE).await;
                }
            }
            Err(error) => drop(self.refuse_config(load_errors(&error), FILE)),
        }
        self.write_report();
    }

    /// Has a text in force, and gives its generation; or says what is wrong with it.
    pub(super) async fn apply(&mut self, text: &ConfigText, by: &str) -> Result<u64, Vec<String>> {
        let (config, findings) = match self.parser.parse(text, &config::host_name()) {
            Ok(parsed) => parsed,
            Err(findings) => return Err(self.refuse_config(errors_of(findings, text), by)),
        };
        let operations = self.operations;
        self.names.ask_failing(Instant::now());
        let cut_off = match self.take_config(config).await {
            Ok(cut_off) => cut_off,
            Err(error) => {
                if by == FILE {
                    self.refused_among = Some(self.links.clone());
                }
                return Err(self.refuse_config(vec![in_words(&error)], by));
            }
        };
        self.refused_among = None;
        // What is wrong with the file stays until that is sound.
        if by == FILE || text.text == self.history.own_text {
            self.report.config_errors.clear();
        }
        self.report.config_warnings = warnings(&findings, text);
        self.report.config_warnings.extend(cut_off);
        let (before, awaited) = (self.history.in_force, self.history.awaited());
        let generation = self.history.apply(text, by, unix_ms());
        if generation == before {
            self.tallies.count_same(unix_ms());
        } else {
            self.tell(What::Applied { generation, by: by.to_owned(), operations: self.operations - operations });
        }
        if let Some(otherwise) = awaited.filter(|_| self.history.awaited().is_none()) {
            let line = format!(
                "configuration {before} waited to be confirmed, or {otherwise} would have followed: it is waited for no more, {generation} is in its place"
            );
            warn!("{line}");
            self.report.config_warnings.push(line);
            self.tell(What::NotAwaited { generation: before, otherwise, by: by.to_owned() });
        }
        self.keep_history();
        Ok(generation)
    }

    /// Has an earlier configuration in force.
    pub(super) async fn roll_back(&mut self, to: Option<u64>, why: &str) -> Result<u64, Vec<String>> {
        let entry = self.history.earlier(to).map_err(|error: HistoryError| vec![error.to_string()])?.clone();
        let text = entry.config_text();
        let (config, findings) = self.parser.parse(&text, &config::host_name()).map_err(|findings| warnings(&findings, &text))?;
        let cut_off = self.take_config(config).await.map_err(|error| vec![in_words(&error)])?;
        self.report.config_warnings = warnings(&findings, &text);
        self.report.config_warnings.extend(cut_off);
        self.refused_among = None;
        self.history.go_back(entry.generation);
        self.keep_history();
        warn!(generation = entry.generation, why, "an earlier configuration is in force again");
        self.tell(What::RolledBack { generation: entry.generation, why: why.to_owned() });
        Ok(entry.generation)
    }

    /// Each second: goes back if nobody confirmed in time.
    pub(super) async fn see_to_confirmation(&mut self) {
        if let Some(generation) = self.history.unconfirmed(unix_ms()) {
            self.go_back(generation, "nobody confirmed the later one").await;
        }
    }

    /// By itself.
    pub(super) async fn go_back(&mut self, generation: u64, why: &str) {
        if let Err(errors) = self.roll_back(Some(generation), why).await {
            errors.iter().for_each(|line| error!("{line}"));
            // It would be tried each second.
            let _ = self.history.confirm();
            error!(generation, "the earlier configuration cannot be in force again");
        }
    }

    pub(super) fn keep_history(&mut self) {
        let kept = self.history_keeper.keep(&self.config.node.state_dir, &self.history);
        self.tell_keeping("the history of configurations is not kept", kept);
    }

    /// A sound file may have been refused for an interface that has come, or left, since.
    pub(super) async fn retry_refused(&mut self) {
        if self.refused_among.as_ref().is_some_and(|links| *links != self.links) {
            info!("the interfaces are others than when the configuration was refused: it is tried again");
            self.reload(true).await;
        }
    }

    fn refuse_config(&mut self, errors: Vec<String>, by: &str) -> Vec<String> {
        if by == FILE && errors == self.report.config_errors {
            return errors;
        }
        for line in &errors {
            error!("{line}");
        }
        warn!("the configuration in force stays");
        self.tell(What::Refused { by: by.to_owned(), errors: errors.clone() });
        if by == FILE {
            self.report.config_errors.clone_from(&errors);
        }
        errors
    }

    /// Says whose connections end.
    async fn take_config(&mut self, config: Config) -> Result<Vec<String>, RunError> {
        let waits_for_start = restart_only(&self.written, &config);
        for line in waits_for_start.iter().filter(|line| !self.waits_for_start.contains(line)) {
            warn!("{line}");
        }
        let written = with_fixed(&self.written, config);
        self.ask_names(&written);
        let Named { configured, left_out, held } = self.with_names(&written);
        let taken = self.take_effective(self.overrides.effective(&configured)).await;
        if taken.is_err() {
            self.names.want_only(&self.written.questions());
        }
        let cut_off = taken?;
        self.names.want_only(&written.questions());
        (self.configured, self.left_out, self.held) = (configured, left_out, held);
        if written != self.written {
            self.written = written;
            self.report.config_taken_at = unix_time().as_secs();
            info!("the configuration is taken");
        }
        self.waits_for_start = waits_for_start;
        self.next_look = Some(0);
        let servers = self.servers();
        let known = self.next_hops.set_servers(&servers).await.map_err(RunError::from);
        self.or_again(known);
        let followed = self.follow_network(Convergence::Other).await;
        self.or_again(followed);
        self.follow_vrrp().await;
        Ok(cut_off)
    }

    /// Takes the configuration as the operator's overrides make it. Says whose connections end.
    async fn take_effective(&mut self, config: Config) -> Result<Vec<String>, RunError> {
        let cut_off = cut_off(&self.config, &config);
        let compared = if config == self.config { Compared::Same } else { Compared::Differs };
        if compared == Compared::Differs {
            // More than is needed does no harm, and spares a rebuild when the feature comes back.
            let features = Features(Features::of(&config).0 | self.dataplane.features().0);
            let links = self.netlink.links().await?;
            if features != self.dataplane.features() {
                let _apart = Apart::begin();
                self.dataplane.rebuild(features)?;
            }
            self.take_macs(own_macs(&config, &links))?;
            self.take_interfaces(&config)?;
            let is_admin_same = config.admin == self.config.admin;
            self.config = config;
            self.is_config_followed = false;
            if !is_admin_same {
                self.open_admin();
            }
            self.report.node.clone_from(&self.config.node.name);
            cut_off.iter().for_each(|line| warn!("{line}"));
        }
        self.set_checks(compared).await;
        Ok(cut_off)
    }

    /// The operator said something: configuration and checks follow, and the maps.
    pub(super) async fn take_overrides(&mut self, before: &Overrides) -> Result<(), RunError> {
        let effective = self.overrides.effective(&self.configured);
        if effective != self.config {
            return self.take_written().await;
        }
        self.set_checks(Compared::Same).await;
        let pools = self.overrides.servers_said_otherwise(before).map(|name| name.pool.clone()).collect();
        self.converge_pools(&pools);
        Ok(())
    }

    /// What is written stands for other servers, or is overridden otherwise.
    pub(super) async fn take_written(&mut self) -> Result<(), RunError> {
        let written = self.written.clone();
        self.take_config(written).await.map(drop)
    }

    /// All of the new interfaces or none. One that was named before is taken when it appears, if it has gone.
    fn take_interfaces(&mut self, config: &Config) -> Result<(), RunError> {
        let named = self.config.node.interfaces.iter().chain(self.dataplane.interfaces().keys());
        let current: BTreeSet<String> = named.cloned().collect();
        let wanted: BTreeSet<String> = config.node.interfaces.iter().cloned().collect();
        for name in wanted.difference(&current) {
            if let Err(error) = self.dataplane.add_interface(name) {
                for added in wanted.difference(&current).take_while(|added| *added != name) {
                    self.dataplane.remove_interface(added)?;
                }
                return Err(error.into());
            }
        }
        for name in current.difference(&wanted) {
            self.dataplane.remove_interface(name)?;
        }
        Ok(())
    }
}
