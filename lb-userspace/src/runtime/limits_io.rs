//! The connection rates of listeners, and the sources that they are watched for: what the admin API says of them and does.
#![allow(clippy::disallowed_methods, reason = "reads the tables at the packet path's clock")]

use std::net::IpAddr;

use lb_common::{
    address::Address,
    maps::{Service, WORDS_PER_LINE},
    rate::{self, Watched},
    reason::{Drop, Note},
    tables::Tables as _,
    words::ServiceId,
};

use super::{
    admin_io::{Answer, serialised},
    daemon_io::Daemon,
    report::in_words,
};
use crate::{
    admin::api::{Forget, Limit, LimitView, Refusal, SourceView, TableView},
    config::model::{Bind, Listener},
    control::{ServiceKey, overrides::OverrideError},
    dataplane::{self, Observer, PinDir},
};

fn failed(error: &(dyn std::error::Error + 'static)) -> Refusal {
    Refusal::text(in_words(error))
}

impl Daemon {
    /// Of every listener.
    pub(super) fn limits(&self) -> Result<Vec<LimitView>, Refusal> {
        let services = self.dataplane.tables().services().map_err(|error| failed(&error))?;
        self.config.listeners.iter().map(|(name, listener)| self.limit_of(name, listener, &services)).collect()
    }

    fn limit_of(&self, name: &str, listener: &Listener, services: &[(ServiceId, Service)]) -> Result<LimitView, Refusal> {
        let (mut refused, mut no_room) = (0, 0);
        let tables = self.dataplane.tables();
        for (id, _) in services.iter().filter(|(_, service)| listener.binds.iter().any(|bind| is_of(service, *bind))) {
            let drops = tables.drops(*id).map_err(|error| failed(&error))?;
            let notes = tables.notes(*id).map_err(|error| failed(&error))?;
            refused += drops.iter().filter(|(reason, _)| *reason == Drop::ConnRate).map(|(_, count)| count).sum::<u64>();
            no_room += notes.iter().filter(|(note, _)| *note == Note::RateNoRoom).map(|(_, count)| count).sum::<u64>();
        }
        let words = |listener: &Listener| listener.conn_rate.map(|rate| rate.to_string());
        Ok(LimitView {
            listener: name.to_owned(),
            conn_rate: words(listener),
            configured: self.configured.listeners.get(name).and_then(words),
            is_said: self.overrides.limits.contains_key(name),
            refused,
            no_room,
        })
    }

    /// Gives a listener another rate.
    pub(super) async fn limit(&mut self, Limit { listener, conn_rate }: Limit) -> Answer {
        let configured = self.configured.clone();
        self.say(|overrides| overrides.limit(&configured, &listener, conn_rate.as_deref()).map(|()| Vec::new()), true).await?;
        let there = self.limits()?.into_iter().find(|view| view.listener == listener);
        // What was said of one that has gone is forgotten.
        let gone = LimitView { listener, conn_rate: None, configured: None, is_said: false, refused: 0, no_room: 0 };
        serialised(&there.unwrap_or(gone))
    }

    /// How many sources are watched, and what is known of one.
    pub(super) fn watched(&self, source: Option<IpAddr>) -> Result<TableView, Refusal> {
        let observer = self.observer()?;
        let (now_us, source) = (observer.micros(), source.map(|source| source.to_canonical()));
        let rates = &self.dataplane.tables().rates;
        let words = (0..rates.len()).filter_map(|line| rates.record(line).ok()).flatten();
        let mut of_source = Vec::new();
        for (service, name, bind, listener) in source.map(|source| self.limited(source)).transpose()?.into_iter().flatten() {
            let Some((source, rate)) = source.zip(listener.conn_rate) else { continue };
            let found = rate::watched(&observer, &service, &Address::from(source));
            let (interval_us, tolerance_us) = (u64::from(service.rate_interval_us).max(1), u64::from(service.rate_tolerance_us));
            let ahead_us = found.map_or(0, |found| found.ahead_us);
            of_source.push(SourceView {
                listener: name.to_owned(),
                bind: bind.to_string(),
                conn_rate: rate.to_string(),
                is_watched: found.is_some_and(|found| rate::is_watching(found.word, now_us)),
                left: tolerance_us.checked_sub(ahead_us).map_or(0, |spare_us| (spare_us / interval_us) as u32 + 1),
                wait_ms: ahead_us.saturating_sub(tolerance_us).div_ceil(1000),
            });
        }
        Ok(TableView {
            watched: words.filter(|word| rate::is_watching(*word, now_us)).count() as u64,
            most: u64::from(rates.len()) * WORDS_PER_LINE as u64,
            source: of_source,
        })
    }

    /// Forgets earlier connections of a source, or of all.
    pub(super) fn forget_rates(&self, Forget { source, listener, all }: &Forget) -> Answer {
        let rates = &self.dataplane.tables().rates;
        let source = source.map(|source| source.to_canonical());
        match (&source, listener) {
            (None, None) if !all => {
                return Err(Refusal::text("`source` says whose connections are forgotten, or `all` that those of every client are"));
            }
            (None, Some(_)) => return Err(Refusal::text("the table does not know listeners: name a source as well, or no listener")),
            (None, None) => {
                for line in 0..rates.len() {
                    for place in 0..WORDS_PER_LINE {
                        rates.store_word(line, place, 0).map_err(|error| failed(&error))?;
                    }
                }
            }
            (Some(source), listener) => {
                if let Some(name) = listener
                    && !self.config.listeners.contains_key(name)
                {
                    return Err(Refusal::of(&OverrideError::no_listener(&self.config, name)));
                }
                let observer = self.observer()?;
                for (service, name, ..) in self.limited(*source)? {
                    if listener.as_ref().is_some_and(|listener| listener != name) {
                        continue;
                    }
                    if let Some(Watched { line, place, .. }) = rate::watched(&observer, &service, &Address::from(*source)) {
                        rates.store_word(line, place, 0).map_err(|error| failed(&error))?;
                    }
                }
            }
        }
        serialised(&self.watched(source)?)
    }

    /// The services of the source's family whose sources have a rate, with their listeners.
    fn limited(&self, source: IpAddr) -> Result<Vec<(Service, &str, Bind, &Listener)>, Refusal> {
        let services = self.dataplane.tables().services().map_err(|error| failed(&error))?;
        let limited =
            self.config.binds().filter(|(bind, listener, _)| listener.conn_rate.is_some() && bind.address.is_ipv4() == source.is_ipv4());
        let found = |bind: Bind| services.iter().find(|(_, service)| is_of(service, bind)).map(|(_, service)| *service);
        Ok(limited.filter_map(|(bind, listener, name)| Some((found(bind)?, name, bind, listener))).collect())
    }

    fn observer(&self) -> Result<Observer<'_>, Refusal> {
        let now = dataplane::moment(&PinDir::at(&self.config.node.pin_dir)).map_err(|error| failed(&error))?;
        Ok(Observer::new(self.dataplane.tables(), now))
    }
}

fn is_of(service: &Service, bind: Bind) -> bool {
    let key = ServiceKey { vip: bind.address, port: bind.port.unwrap_or(0), protocol: bind.protocol };
    ServiceKey::of(service) == Some(key)
}
