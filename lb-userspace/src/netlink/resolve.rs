//! From a server's address to what a frame toward it needs: interface, MAC addresses, MTU. Pure: no socket, no clock.
//!
//! ```text
//! server ─RTM_GETROUTE→ route (interface, next hop) ─RTM_GETNEIGH→ neighbour ─not kept by anybody→ hold it, read it again
//!                         └ link (up, MAC, MTU)                        └ no server needs it any more → release it
//! ```
//! [`super::NextHops`] drives it: it performs each output of [`Resolver::poll_output`] and hands the answer back before it polls again.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    net::IpAddr,
};

use thiserror::Error;

use super::{
    Change, Link, Mac, Neighbour, NeighbourKey,
    links::VlanTag,
    neighbours::{Keeper, Resolution},
    routes::{Route, UnicastRoute},
};

/// What a frame toward a server needs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NextHop {
    /// The interface it leaves through: of a VLAN interface the one below.
    pub ifindex: u32,
    /// The VLAN whose 802.1Q tag it carries there; none for a frame without a tag.
    pub vlan: Option<u16>,
    /// The MAC address of the route's interface.
    pub source_mac: Mac,
    /// The MAC address of the server or of the gateway toward it.
    pub target_mac: Mac,
    /// The largest IP packet that reaches the server as far as the kernel knows: the least of link, route and learned path MTU, in bytes.
    pub mtu: u16,
    /// The source address that the kernel would choose.
    pub source: IpAddr,
    /// The name of the route's interface.
    pub interface: String,
}

/// Why a server has no next hop. The text is for `weir status`.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum Unresolved {
    /// No route, or one that refuses.
    #[error("no route to the server")]
    NoRoute,
    /// The kernel has not been asked yet.
    #[error("the route to the server has not been read")]
    RoutePending,
    /// The route encapsulates by itself.
    #[error("the route to the server encapsulates packets, which the data plane cannot do")]
    EncapsulatingRoute,
    /// The interface is down or has no carrier.
    #[error("interface {interface} toward the server is down")]
    LinkDown {
        /// Its name.
        interface: String,
    },
    /// The next hop's MAC address is being asked for.
    #[error("waiting for the MAC address of {address} on {interface}")]
    NeighbourPending {
        /// The next hop.
        address: IpAddr,
        /// The interface.
        interface: String,
    },
    /// The next hop does not answer.
    #[error("{address} does not answer on {interface}")]
    NeighbourFailed {
        /// The next hop.
        address: IpAddr,
        /// The interface.
        interface: String,
    },
    /// The interface has no MAC address: it is not an Ethernet.
    #[error("interface {interface} toward the server has no MAC address")]
    NoSourceMac {
        /// Its name.
        interface: String,
    },
    /// Frames toward the server carry two VLAN tags, or one of a provider.
    #[error("interface {interface} toward the server needs more than one 802.1Q tag, which the data plane cannot write")]
    StackedVlan {
        /// The VLAN interface's name.
        interface: String,
    },
    /// The interface below a VLAN interface is not in this network namespace.
    #[error("the parent of VLAN interface {interface} toward the server is not in this network namespace")]
    VlanParentElsewhere {
        /// The VLAN interface's name.
        interface: String,
    },
    /// The host has no address to send from.
    #[error("interface {interface} toward the server has no address to send from")]
    NoSourceAddress {
        /// Its name.
        interface: String,
    },
    /// The server's address is one of this host.
    #[error("the server is this host")]
    LocalAddress,
}

/// Something for the driver to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Output {
    /// Read all links, answer by [`Resolver::handle_links`].
    ReadLinks,
    /// Ask for the route to a server, answer by [`Resolver::handle_route`].
    ReadRoute(IpAddr),
    /// Read one neighbour entry, answer by [`Resolver::handle_neighbour`].
    ReadNeighbour(NeighbourKey),
    /// Ask the kernel to keep the neighbour resolved, then read its entry, answer by [`Resolver::handle_neighbour`].
    Hold(NeighbourKey),
    /// Stop keeping it; an entry that is not resolved is deleted. No answer.
    Release(NeighbourKey, Resolution),
}

/// The state machine.
#[derive(Default, Debug)]
pub struct Resolver {
    /// Every server, with the kernel's answer once there is one.
    routes: BTreeMap<IpAddr, Option<Route>>,
    links: BTreeMap<u32, Link>,
    /// The neighbours that the routes need, and those left by an earlier daemon until the first servers are known.
    neighbours: BTreeMap<NeighbourKey, Watched>,
    /// Those that may have a step due.
    neighbours_due: BTreeSet<NeighbourKey>,
    links_are_due: bool,
    routes_due: BTreeSet<IpAddr>,
    neighbours_are_unsettled: bool,
    releases: Vec<(NeighbourKey, Resolution)>,
}

#[derive(Debug)]
struct Watched {
    neighbour: Option<Neighbour>,
    step: Step,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Step {
    ReadDue,
    Reading,
    HoldDue,
    Holding,
    Settled,
}

impl Resolver {
    /// These are the servers from here on. Neighbours that none of them needs are released.
    pub fn set_servers(&mut self, servers: &BTreeSet<IpAddr>) {
        self.routes.retain(|server, _| servers.contains(server));
        self.routes_due.retain(|server| servers.contains(server));
        for &server in servers {
            if let Entry::Vacant(unknown) = self.routes.entry(server) {
                unknown.insert(None);
                self.routes_due.insert(server);
            }
        }
        self.links_are_due |= self.links.is_empty() && !servers.is_empty();
        self.neighbours_are_unsettled = true;
    }

    /// Entries with our mark that are there before we start: those that no server needs are released after the next [`Self::set_servers`].
    pub fn handle_left_behind(&mut self, left: impl IntoIterator<Item = (NeighbourKey, Neighbour)>) {
        let settled = |neighbour| Watched { neighbour: Some(neighbour), step: Step::Settled };
        self.neighbours.extend(left.into_iter().map(|(key, neighbour)| (key, settled(neighbour))));
    }

    /// Something changed in the kernel.
    pub fn handle_change(&mut self, change: &Change) {
        if change.is_incomplete {
            return self.reread();
        }
        if change.links {
            self.links_are_due = true;
        }
        if change.links || change.addresses || change.rules {
            self.routes_due.extend(self.routes.keys());
        } else {
            let touched = self.routes.keys().filter(|server| change.routes.iter().any(|prefix| prefix.contains(*server)));
            self.routes_due.extend(touched);
        }
        for (key, neighbour) in &change.neighbours {
            self.handle_neighbour_event(*key, *neighbour);
        }
    }

    /// Nothing known is to be trusted: everything is due to be read again.
    pub fn reread(&mut self) {
        self.links_are_due = true;
        self.routes_due.extend(self.routes.keys());
        self.reread_neighbours();
    }

    fn reread_neighbours(&mut self) {
        self.neighbours.values_mut().for_each(|watched| watched.step = Step::ReadDue);
        self.neighbours_due.extend(self.neighbours.keys());
    }

    /// All links, as they are.
    pub fn handle_links(&mut self, links: impl IntoIterator<Item = Link>) {
        self.links = links.into_iter().map(|link| (link.ifindex, link)).collect();
        // A link that went down has lost its neighbours, one that came up can have them again.
        self.reread_neighbours();
        self.neighbours_are_unsettled = true;
    }

    /// The kernel's route to a server.
    pub fn handle_route(&mut self, server: IpAddr, route: Route) {
        if let Some(known) = self.routes.get_mut(&server) {
            *known = Some(route);
            self.neighbours_are_unsettled = true;
        }
    }

    /// The entry of a neighbour that was read or held; none: there is none.
    pub fn handle_neighbour(&mut self, key: NeighbourKey, neighbour: Option<Neighbour>) {
        let can_hold = self.links.get(&key.ifindex).is_some_and(Link::is_usable);
        let Some(watched) = self.neighbours.get_mut(&key) else { return };
        watched.neighbour = neighbour;
        let needs_hold = watched.step == Step::Reading && can_hold && is_kept_by_nobody(neighbour);
        watched.step = if needs_hold { Step::HoldDue } else { Step::Settled };
        if needs_hold {
            self.neighbours_due.insert(key);
        }
    }

    /// What to do next; none: wait for a change.
    pub fn poll_output(&mut self) -> Option<Output> {
        if std::mem::take(&mut self.links_are_due) {
            return Some(Output::ReadLinks);
        }
        if let Some(server) = self.routes_due.pop_first() {
            return Some(Output::ReadRoute(server));
        }
        if std::mem::take(&mut self.neighbours_are_unsettled) {
            self.settle_neighbours();
        }
        if let Some((key, resolution)) = self.releases.pop() {
            return Some(Output::Release(key, resolution));
        }
        while let Some(key) = self.neighbours_due.pop_first() {
            if let Some(output) = self.neighbours.get_mut(&key).and_then(|watched| watched.advance(key)) {
                return Some(output);
            }
        }
        None
    }

    /// Every server's next hop, or why it has none.
    #[must_use]
    pub fn next_hops(&self) -> BTreeMap<IpAddr, Result<NextHop, Unresolved>> {
        self.routes.iter().map(|(server, route)| (*server, self.next_hop(route.as_ref()))).collect()
    }

    /// A kernel that cannot manage neighbours lets a held entry age; each change of its state is the moment to ask again.
    fn handle_neighbour_event(&mut self, key: NeighbourKey, neighbour: Option<Neighbour>) {
        let can_hold = self.links.get(&key.ifindex).is_some_and(Link::is_usable);
        let Some(watched) = self.neighbours.get_mut(&key) else { return };
        watched.neighbour = neighbour;
        if watched.step == Step::Settled && can_hold && is_kept_by_nobody(neighbour) {
            watched.step = Step::HoldDue;
            self.neighbours_due.insert(key);
        }
    }

    fn settle_neighbours(&mut self) {
        let wanted: BTreeSet<NeighbourKey> = self.routes.values().flatten().filter_map(|route| self.neighbour_of(route)).collect();
        for (key, watched) in self.neighbours.extract_if(.., |key, _| !wanted.contains(key)) {
            if let Some(Neighbour { keeper: Keeper::Weir, resolution }) = watched.neighbour {
                self.releases.push((key, resolution));
            }
        }
        for key in wanted {
            if let Entry::Vacant(unknown) = self.neighbours.entry(key) {
                unknown.insert(Watched { neighbour: None, step: Step::ReadDue });
                self.neighbours_due.insert(key);
            }
        }
    }

    fn neighbour_of(&self, route: &Route) -> Option<NeighbourKey> {
        let Route::Unicast(UnicastRoute { ifindex, next_hop, .. }) = route else { return None };
        let link = self.links.get(ifindex)?;
        (!link.is_loopback && link.mac.is_some()).then_some(NeighbourKey { ifindex: *ifindex, address: *next_hop })
    }

    /// The link itself, or of a VLAN interface the one below, to which XDP programs are attached: a VLAN interface cannot be sent to by them.
    fn port(&self, link: &Link) -> Result<WirePort, Unresolved> {
        let Some(vlan) = link.vlan else { return Ok(WirePort { ifindex: link.ifindex, vlan: None, mtu: u16::MAX }) };
        let interface = link.name.clone();
        let parent = link.lower.filter(|_| !link.lower_is_elsewhere).and_then(|parent| self.links.get(&parent));
        let Some(parent) = parent else { return Err(Unresolved::VlanParentElsewhere { interface }) };
        if parent.vlan.is_some() || vlan.tag != VlanTag::Customer {
            return Err(Unresolved::StackedVlan { interface });
        }
        if !parent.is_usable() {
            return Err(Unresolved::LinkDown { interface: parent.name.clone() });
        }
        Ok(WirePort { ifindex: parent.ifindex, vlan: Some(vlan.id), mtu: u16::try_from(parent.mtu).unwrap_or(u16::MAX) })
    }

    fn next_hop(&self, route: Option<&Route>) -> Result<NextHop, Unresolved> {
        let route = match route {
            None => return Err(Unresolved::RoutePending),
            Some(Route::None) => return Err(Unresolved::NoRoute),
            Some(Route::Local) => return Err(Unresolved::LocalAddress),
            Some(Route::Encapsulating) => return Err(Unresolved::EncapsulatingRoute),
            Some(Route::Unicast(route)) => route,
        };
        // The link may have gone between the two answers.
        let link = self.links.get(&route.ifindex).ok_or(Unresolved::NoRoute)?;
        let interface = link.name.clone();
        if link.is_loopback {
            return Err(Unresolved::LocalAddress);
        }
        let Some(source_mac) = link.mac else { return Err(Unresolved::NoSourceMac { interface }) };
        if !link.is_usable() {
            return Err(Unresolved::LinkDown { interface });
        }
        let port = self.port(link)?;
        let Some(source) = route.source else { return Err(Unresolved::NoSourceAddress { interface }) };
        let address = route.next_hop;
        let watched = self.neighbours.get(&NeighbourKey { ifindex: route.ifindex, address });
        match watched.and_then(|watched| watched.neighbour).map(|neighbour| neighbour.resolution) {
            Some(Resolution::Resolved(target_mac)) => {
                let mtu = mtu(link, route).min(port.mtu);
                Ok(NextHop { ifindex: port.ifindex, vlan: port.vlan, source_mac, target_mac, mtu, source, interface })
            }
            Some(Resolution::Failed) => Err(Unresolved::NeighbourFailed { address, interface }),
            Some(Resolution::Pending) | None => Err(Unresolved::NeighbourPending { address, interface }),
        }
    }
}

/// Where frames of a link are put on a wire.
struct WirePort {
    ifindex: u32,
    vlan: Option<u16>,
    mtu: u16,
}

impl Watched {
    fn advance(&mut self, key: NeighbourKey) -> Option<Output> {
        let (step, output) = match self.step {
            Step::ReadDue => (Step::Reading, Output::ReadNeighbour(key)),
            Step::HoldDue => (Step::Holding, Output::Hold(key)),
            // Reading and Holding: the driver answers before it polls again.
            Step::Reading | Step::Holding | Step::Settled => return None,
        };
        self.step = step;
        Some(output)
    }
}

fn is_kept_by_nobody(neighbour: Option<Neighbour>) -> bool {
    neighbour.is_none_or(|neighbour| neighbour.keeper == Keeper::Nobody)
}

/// The IP length field has 16 bits; `lo` and some virtual links say more.
fn mtu(link: &Link, route: &UnicastRoute) -> u16 {
    let mtu = route.mtu.map_or(link.mtu, |mtu| mtu.min(link.mtu));
    u16::try_from(mtu).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests;
