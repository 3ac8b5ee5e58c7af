//! Drives [`Resolver`]: performs its outputs on a request socket.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "owns a netlink socket")]

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::{Duration, Instant},
};

use thiserror::Error;

use super::{
    Change, NeighbourKey, Netlink, NextHop, RequestError, Resolver, Unresolved,
    neighbours::{Keeper, Resolution},
    resolve::Output,
};

/// What is wrong with many neighbours, and for long, is said again after this time.
const TELL_INTERVAL: Duration = Duration::from_secs(600);

/// The next hops of a set of servers, kept up to date by the changes it is told. Every future here may be dropped: the next call reads everything again.
pub struct NextHops {
    netlink: Netlink,
    resolver: Resolver,
    /// An output was taken and not performed: an error, or a caller who dropped the future.
    was_interrupted: bool,
    /// Neighbours that the kernel would not keep resolved, of those asked for since the last telling.
    unheld: Vec<(NeighbourKey, RequestError)>,
    /// When such were told last.
    told_at: Option<Instant>,
}

/// Why the next hops could not be read or kept; those known stay, and the next call reads everything again.
#[derive(Debug, Error)]
pub enum RefreshError {
    /// The neighbours left by an earlier daemon.
    #[error("failed to read the neighbour entries of this host")]
    LeftBehind(#[source] RequestError),
    /// The links.
    #[error("failed to read the network interfaces")]
    Links(#[source] RequestError),
    /// A route.
    #[error("failed to read the route to {server}")]
    Route {
        /// The server.
        server: IpAddr,
        /// Why.
        source: RequestError,
    },
    /// A neighbour entry.
    #[error("failed to read the neighbour {address}")]
    Neighbour {
        /// The next hop.
        address: IpAddr,
        /// Why.
        source: RequestError,
    },
    /// A neighbour entry that should be ordinary again.
    #[error("failed to release the neighbour {address}")]
    Release {
        /// The next hop.
        address: IpAddr,
        /// Why.
        source: RequestError,
    },
}

impl NextHops {
    /// No servers yet. Neighbours that an earlier daemon held and left are found here, and released by the first [`Self::set_servers`] that does not need them.
    ///
    /// # Errors
    /// [`RefreshError::LeftBehind`].
    pub async fn new(mut netlink: Netlink) -> Result<Self, RefreshError> {
        let left = netlink.neighbours().await.map_err(RefreshError::LeftBehind)?;
        let mut resolver = Resolver::default();
        resolver.handle_left_behind(left.into_iter().filter(|(_, neighbour)| neighbour.keeper == Keeper::Weir));
        Ok(Self { netlink, resolver, was_interrupted: false, unheld: Vec::new(), told_at: None })
    }

    /// These are the servers from here on: reads their routes, holds the neighbours they need, releases the others.
    ///
    /// # Errors
    /// See [`RefreshError`].
    pub async fn set_servers(&mut self, servers: &BTreeSet<IpAddr>) -> Result<(), RefreshError> {
        self.resolver.set_servers(servers);
        self.perform().await
    }

    /// Takes in what [`super::Watcher::changed`] reported. Neighbour changes cost no system call; a route is read again only if its prefix changed.
    ///
    /// # Errors
    /// See [`RefreshError`].
    pub async fn update(&mut self, change: &Change) -> Result<(), RefreshError> {
        self.resolver.handle_change(change);
        self.perform().await
    }

    /// Reads everything again: the only way to see a path MTU that was learned or forgotten, and to refresh neighbours on kernels before 5.16. 30 s is a good period.
    ///
    /// # Errors
    /// See [`RefreshError`].
    pub async fn reread(&mut self) -> Result<(), RefreshError> {
        self.resolver.reread();
        self.perform().await
    }

    /// Releases every neighbour we hold. For a stop, not for a hand-over: the next daemon adopts them.
    ///
    /// # Errors
    /// See [`RefreshError`].
    pub async fn release(&mut self) -> Result<(), RefreshError> {
        self.set_servers(&BTreeSet::new()).await
    }

    /// Every server's next hop, or why it has none.
    #[must_use]
    pub fn next_hops(&self) -> BTreeMap<IpAddr, Result<NextHop, Unresolved>> {
        self.resolver.next_hops()
    }

    async fn perform(&mut self) -> Result<(), RefreshError> {
        if std::mem::replace(&mut self.was_interrupted, true) {
            self.resolver.reread();
        }
        while let Some(output) = self.resolver.poll_output() {
            self.perform_one(output).await?;
        }
        self.was_interrupted = false;
        self.tell_unheld();
        Ok(())
    }

    /// In one line however many there are, and not more often than each [`TELL_INTERVAL`].
    fn tell_unheld(&mut self) {
        let unheld = std::mem::take(&mut self.unheld);
        if let Some((key, error)) = unheld.first()
            && self.told_at.is_none_or(|at| at.elapsed() >= TELL_INTERVAL)
        {
            let (others, hint) = (unheld.len() - 1, error.hint());
            tracing::warn!(address = %key.address, ifindex = key.ifindex, others, %error, "failed to keep neighbours resolved{hint}");
            self.told_at = Some(Instant::now());
        }
    }

    async fn perform_one(&mut self, output: Output) -> Result<(), RefreshError> {
        match output {
            Output::ReadLinks => {
                let links = self.netlink.links().await.map_err(RefreshError::Links)?;
                self.resolver.handle_links(links);
            }
            Output::ReadRoute(server) => {
                let route = self.netlink.route(server).await.map_err(|source| RefreshError::Route { server, source })?;
                self.resolver.handle_route(server, route);
            }
            Output::Hold(key) => {
                // The link may have gone a moment ago; without the right to write, entries that others resolve still serve.
                if let Err(error) = self.netlink.hold_neighbour(key).await {
                    self.unheld.push((key, error));
                }
                self.read_neighbour(key).await?;
            }
            Output::ReadNeighbour(key) => self.read_neighbour(key).await?,
            Output::Release(key, Resolution::Resolved(_)) => {
                let released = self.netlink.release_neighbour(key).await;
                released.map_err(|source| RefreshError::Release { address: key.address, source })?;
            }
            // Written as an ordinary entry it would be asked for once more.
            Output::Release(key, Resolution::Pending | Resolution::Failed) => {
                let released = self.netlink.delete_neighbour(key).await;
                released.map_err(|source| RefreshError::Release { address: key.address, source })?;
            }
        }
        Ok(())
    }

    async fn read_neighbour(&mut self, key: NeighbourKey) -> Result<(), RefreshError> {
        let neighbour = self.netlink.neighbour(key).await;
        let neighbour = neighbour.map_err(|source| RefreshError::Neighbour { address: key.address, source })?;
        self.resolver.handle_neighbour(key, neighbour);
        Ok(())
    }
}
