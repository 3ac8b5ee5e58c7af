//! What the daemon has to do with virtual routers: tells the speaker what is to be, and everybody else what is.
#![allow(clippy::disallowed_methods, reason = "reads the clock and files for the daemon")]

use std::{collections::BTreeSet, path::Path, time::Instant};

use tracing::{info, warn};

use super::{
    admin_io::{Answer, serialised},
    daemon_io::{Daemon, unix_ms},
    report::{VrrpKept, troubles},
    speaker_io::{News, Speaking},
    vrrp_hold::{Unheard, Word},
    vrrp_order::{Known, order},
    vrrp_track_io::{Failure, Notice, Telling, Watching, is_there},
};
use crate::{
    admin::api::{Refusal, VrrpView, Which},
    config::{
        alike,
        model::{Tracked, TrackedCommand},
    },
    control::event::What,
    speaker::order::{Changed, Hello, Order, RouterView, Said, Told},
};

/// The daemon's part of VRRP.
pub(super) struct Vrrp {
    speaking: Speaking,
    pub(super) watching: Watching,
    telling: Telling,
    /// The last process that spoke.
    spoke: Option<u32>,
    /// What the speaker was told last.
    ordered: Option<Order>,
    unheard: Unheard,
    /// What is known.
    pub(super) view: VrrpView,
}

/// Something came.
pub(super) enum VrrpNews {
    /// Of the speaker.
    Speaker(News),
    /// A program that is watched tells something else.
    Watched,
    /// A program that is told failed.
    Untold(Failure),
}

impl Vrrp {
    pub(super) fn start(state_dir: &Path, kept: &VrrpKept) -> Self {
        Self {
            speaking: Speaking::start(state_dir, kept),
            spoke: None,
            watching: Watching::default(),
            telling: Telling::default(),
            ordered: None,
            unheard: Unheard::default(),
            view: VrrpView::default(),
        }
    }

    /// Waits for something. Cancel safe: both are.
    pub(super) async fn news(&mut self) -> VrrpNews {
        tokio::select! {
            news = self.speaking.news() => VrrpNews::Speaker(news),
            () = self.watching.changed() => VrrpNews::Watched,
            failure = self.telling.failed() => VrrpNews::Untold(failure),
        }
    }
}

impl Daemon {
    /// Something may be otherwise: the speaker is told if it is.
    pub(super) async fn follow_vrrp(&mut self) {
        if self.config.vrrp.is_empty() && self.vrrp.ordered.as_ref().is_some_and(|order| order.routers.is_empty()) {
            return;
        }
        let commands: BTreeSet<&TrackedCommand> = self.config.vrrp.values().flat_map(|router| &router.track).filter_map(command).collect();
        self.vrrp.watching.set(&commands);
        if !self.vrrp.watching.is_ready() {
            // What is not known yet would be a fault.
            return;
        }
        let view = self.view();
        let known = Known { view: &view, is_there: &is_there, failure: &|command| self.vrrp.watching.failure(command) };
        let order = order(&self.config, &known);
        if self.vrrp.ordered.as_ref() != Some(&order) {
            self.vrrp.speaking.order(order.clone()).await;
            self.vrrp.ordered = Some(order);
            let routers = &self.config.vrrp;
            self.vrrp.view.routers.retain(|view| routers.contains_key(&view.router));
            // One that ends with its section begins without a hold.
            self.report.vrrp_kept.vrrp_holds.retain(|name| routers.contains_key(name));
        }
    }

    pub(super) async fn handle_vrrp(&mut self, news: VrrpNews) {
        match news {
            VrrpNews::Watched => self.follow_vrrp().await,
            VrrpNews::Speaker(news) => self.handle_speaker(news),
            VrrpNews::Untold(Failure { router, what }) => {
                warn!(router, what, "the program that is told of a virtual router failed");
                self.tell(What::VrrpNotify { router, what });
            }
        }
    }

    fn handle_speaker(&mut self, news: News) {
        match news {
            News::Said(Said::Hello(Hello { pid, lacks, .. })) => {
                info!(pid, "a process of its own speaks vrrp");
                lacks.iter().for_each(|what| self.forgo(format!("vrrp: {what}")));
                if let Some(before) = self.vrrp.spoke.replace(pid).filter(|before| *before != pid) {
                    self.tell(What::VrrpSpeaker { pid, before });
                }
                self.vrrp.view.speaker_pid = Some(pid);
                self.vrrp.view.trouble = None;
            }
            News::Said(Said::View(mut routers)) => {
                // One that the file does not name any more hands over, and is none of it.
                routers.retain(|view| self.config.vrrp.contains_key(&view.router));
                let numbers = routers.iter().filter_map(|view| Some((view.router.clone(), view.memory.clone()?)));
                self.report.vrrp_kept.vrrp_numbers.extend(numbers);
                self.vrrp.unheard.follow(&routers, &mut self.report.vrrp_kept.vrrp_holds, Instant::now());
                self.tell_missed(&routers);
                self.vrrp.view.routers = routers;
                self.write_report();
            }
            News::Said(Said::Changed(changed)) => self.handle_router_changed(changed, unix_ms()),
            News::Said(Said::Conflict(conflict)) => {
                let (router, peer, what, is_over) = (conflict.router, conflict.peer, conflict.what, conflict.is_over);
                let source = peer.map(tracing::field::display);
                warn!(router, peer = source, what, is_over, "somebody on a virtual router's link is not as it should be");
                self.tell(What::VrrpConflict { router, peer, what, is_over });
            }
            News::Gone(why) => {
                self.vrrp.view.speaker_pid = None;
                self.vrrp.view.routers.retain(|view| self.config.vrrp.contains_key(&view.router));
                self.show_untold();
                self.vrrp.view.routers.iter_mut().for_each(|view| view.forget(&why));
                if !self.config.vrrp.is_empty() && self.vrrp.view.trouble.as_ref() != Some(&why) {
                    warn!("{why}");
                    self.vrrp.view.trouble = Some(why);
                }
                self.write_report();
            }
        }
    }

    /// Those that no speaker has told of yet are in the view, too.
    fn show_untold(&mut self) {
        let Some(order) = &self.vrrp.ordered else { return };
        let views = &mut self.vrrp.view.routers;
        let is_untold = |name: &str| views.iter().all(|view| view.router != name);
        let since_ms = unix_ms();
        let untold = order.routers.iter().filter(|(name, _)| is_untold(name));
        let untold: Vec<RouterView> = untold.map(|(name, router)| RouterView { since_ms, ..RouterView::of(name, router) }).collect();
        views.extend(untold);
    }

    /// The speaker goes on without a daemon: what became of its routers meanwhile is told by the next one.
    fn tell_missed(&mut self, routers: &[RouterView]) {
        let known = &self.report.vrrp_kept.vrrp_states;
        let missed: Vec<(Changed, u64)> = routers
            .iter()
            .filter_map(|view| {
                // A daemon that was killed at once kept nothing of it: rather told twice than never.
                let from = known.get(&view.router).map_or("stopped", String::as_str);
                let (router, from, to, priority) = (view.router.clone(), from.to_owned(), view.state.clone(), view.priority);
                let reason = format!("{}, while no daemon listened", view.why);
                (from != to).then_some((Changed { router, from, to, reason, priority }, view.since_ms))
            })
            .collect();
        missed.into_iter().for_each(|(changed, at_ms)| self.handle_router_changed(changed, at_ms));
        self.report.vrrp_kept.vrrp_states = routers.iter().map(|view| (view.router.clone(), view.state.clone())).collect();
    }

    fn handle_router_changed(&mut self, Changed { router, from, to, reason, priority }: Changed, at_ms: u64) {
        info!(router, from, to, reason, priority, "a virtual router's state is another");
        if let Some(section) = self.configured.vrrp.get(&router).filter(|section| !section.notify.is_empty()) {
            let addresses: Vec<String> = section.addresses.iter().map(|one| one.address.to_string()).collect();
            let environment = [
                ("ROUTER", router.clone()),
                ("STATE", to.clone()),
                ("FROM", from.clone()),
                ("REASON", reason.clone()),
                ("PRIORITY", priority.to_string()),
                ("INTERFACE", section.interface.clone()),
                ("ADDRESSES", addresses.join(" ")),
            ];
            let environment = environment.map(|(name, value)| (format!("WEIR_VRRP_{name}"), value)).into();
            self.vrrp.telling.tell(&router, Notice { argv: section.notify.clone(), environment });
        }
        self.report.vrrp_kept.vrrp_states.insert(router.clone(), to.clone());
        self.tell_of(What::Vrrp { router, from, to, why: reason }, at_ms);
    }

    /// Has routers hand over, or preempt again. Those of a sync group go together.
    pub(super) async fn tell_routers(&mut self, which: &Which, word: Word) -> Answer {
        let names: Vec<&str> = self.config.vrrp.keys().map(String::as_str).collect();
        if let Some(router) = which.router.as_ref().filter(|router| !self.config.vrrp.contains_key(*router)) {
            let hint = Some(alike(router, &names));
            return Err(Refusal { hint, ..Refusal::text(format!("there is no virtual router {router:?}")) });
        }
        if names.is_empty() {
            return Err(Refusal::text("there is no virtual router"));
        }
        if self.vrrp.view.speaker_pid.is_none() {
            return Err(Refusal::text(self.vrrp.view.trouble.clone().unwrap_or_else(|| "nobody speaks vrrp yet".into())));
        }
        let group = |name: &str| self.config.vrrp.get(name).and_then(|router| router.group.as_deref());
        let is_meant = |name: &&str| match &which.router {
            None => true,
            Some(router) => router == name || group(router).is_some_and(|of| group(name) == Some(of)),
        };
        let meant: Vec<String> = names.into_iter().filter(is_meant).map(str::to_owned).collect();
        self.keep_word(word, &meant)?;
        self.vrrp.unheard.say(word, &meant, &self.vrrp.view.routers, Instant::now());
        let told = match word {
            Word::Yield => Told::Yield(meant),
            Word::Ready => Told::Ready(meant),
        };
        self.vrrp.speaking.tell(told).await;
        serialised(&self.vrrp.view)
    }

    /// What the operator says outlives all processes: also those that are killed before the speaker has said what came of it.
    fn keep_word(&mut self, word: Word, names: &[String]) -> Result<(), Refusal> {
        let holds = &mut self.report.vrrp_kept.vrrp_holds;
        let before = holds.clone();
        let hint = match word {
            Word::Yield => {
                holds.extend(names.iter().cloned());
                "nothing has been changed; weir stop hands over, too"
            }
            Word::Ready => {
                holds.retain(|name| !names.contains(name));
                "nothing has been changed"
            }
        };
        self.write_record().map_err(|error| {
            self.report.vrrp_kept.vrrp_holds = before;
            Refusal { hint: Some(hint.into()), ..Refusal::of_chain(&error) }
        })
    }

    /// Before the process ends: the routers hand over.
    pub(super) async fn leave_vrrp(&mut self) {
        let mut ended = self.vrrp.speaking.end().await;
        while let Some(news) = self.vrrp.speaking.news_until(&mut ended).await {
            self.handle_speaker(news);
        }
        self.vrrp.telling.finish().await;
        self.vrrp.view = VrrpView::default();
    }

    /// For the record.
    pub(super) fn vrrp_trouble(&self) -> Vec<String> {
        self.vrrp.view.trouble.iter().cloned().chain(troubles(&self.vrrp.view.routers)).collect()
    }
}

fn command(track: &crate::config::model::Track) -> Option<&TrackedCommand> {
    match &track.what {
        Tracked::Command(command) => Some(command),
        Tracked::Interface(_) | Tracked::Pool { .. } | Tracked::File(_) | Tracked::DataPlane => None,
    }
}
