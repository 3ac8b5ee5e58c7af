//! The maps are made to follow the configuration, the checks, the operator and the network.
#![allow(clippy::disallowed_methods, reason = "the daemon's look at its tables and the clock")]

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    ops::RangeInclusive,
    sync::Arc,
    time::Instant,
};

use tracing::{error, info};

use super::{
    daemon_io::{Daemon, random_u64, unix_time},
    fault_io,
    readback::{self, ReadBackError},
    report::in_words,
    retirement,
};
use crate::{
    config::model::Forward,
    control::{
        desired::{Desired, Host},
        header,
        installed::Installed,
        op::Op,
        plan::{self, Freeable, Plan},
        standing::View,
    },
    netlink::{NextHop, Unresolved, sysctl_io},
    path_mtu::tunnel::Tunnel,
};

/// The kernel's default of `net.ipv4.ip_local_port_range`.
const EPHEMERAL_PORTS: RangeInclusive<u16> = 32_768..=60_999;

impl Daemon {
    pub(super) fn desired(&mut self) -> Desired {
        let host = self.host();
        Desired::from_config(&self.config, &self.view(), &host)
    }

    /// What this host knows of its network.
    pub(super) fn host(&mut self) -> Host {
        let resolved = self.next_hops.next_hops();
        self.report.unresolved = resolved.iter().filter_map(|(server, hop)| Some((*server, hop.as_ref().err()?.to_string()))).collect();
        self.report.unanswered = self.unanswered(&resolved);
        let next_hops: BTreeMap<IpAddr, header::NextHop> = resolved
            .into_iter()
            .filter_map(|(server, hop)| Some((server, next_hop(hop.ok()?, self.path_mtus.mtu(server).unwrap_or(u16::MAX)))))
            .collect();
        let ephemeral_ports = sysctl_io::local_port_range().unwrap_or(EPHEMERAL_PORTS);
        let next_hops = match &self.settled {
            Some(settled) if *settled.next_hops == next_hops => Arc::clone(&settled.next_hops),
            Some(_) | None => Arc::new(next_hops),
        };
        Host { next_hops, own_addresses: self.own_addresses.clone(), ephemeral_ports }
    }

    /// The servers of NAT whose answers, if they come the way that packets go, come by an interface without the program.
    fn unanswered(&self, resolved: &BTreeMap<IpAddr, Result<NextHop, Unresolved>>) -> BTreeMap<IpAddr, String> {
        let used = self.config.binds().filter_map(|(_, listener, _)| self.config.pools.get(&listener.pool));
        let nat = used.filter(|pool| matches!(pool.forward, Forward::Nat { .. }));
        let servers: BTreeSet<IpAddr> = nat.flat_map(|pool| pool.servers.values()).map(|server| server.address).collect();
        let hops =
            resolved.iter().filter(|(server, _)| servers.contains(server)).filter_map(|(server, hop)| Some((server, hop.as_ref().ok()?)));
        hops.filter(|(_, hop)| !self.taken.contains(&hop.ifindex))
            .map(|(server, hop)| {
                let name = self.links.get(&hop.ifindex).map_or_else(|| format!("number {}", hop.ifindex), Clone::clone);
                (*server, format!("its answers come by interface {name}, which node.interfaces does not name, and are not translated"))
            })
            .collect()
    }

    /// Plans from what the maps hold to what they should, and performs the plan. After a failure the maps are read back, and the next second
    /// plans again.
    pub(super) fn converge(&mut self) {
        self.converge_to(None);
    }

    /// The same, where something became known of servers of these pools, and nothing else.
    pub(super) fn converge_pools(&mut self, pools: &BTreeSet<String>) {
        self.converge_to(Some(pools));
    }

    fn converge_to(&mut self, pools: Option<&BTreeSet<String>>) {
        match self.try_converge(pools) {
            Ok(()) => self.report.apply_error = None,
            Err(error) => {
                let text = format!("{error:#}");
                if self.report.apply_error.as_ref() != Some(&text) {
                    error!(error = text, "the maps are not as they should be");
                }
                self.report.apply_error = Some(text);
                self.next_look = Some(0);
                self.settled = None;
                if let Err(error) = self.read_back() {
                    error!(error = in_words(&error), "the maps cannot be read back");
                }
            }
        }
        self.write_report();
    }

    /// What the maps hold is found out from them.
    fn read_back(&mut self) -> Result<(), ReadBackError> {
        self.is_read = false;
        self.installed = readback::installed(self.dataplane.tables(), self.installed.capacity)?;
        self.is_read = true;
        Ok(())
    }

    /// What is desired if but for these pools it is what the maps follow.
    fn desired_of(&self, pools: &BTreeSet<String>) -> Option<Desired> {
        let settled = self.settled.as_ref().filter(|_| self.is_config_followed)?;
        let health = self.book.health_of(pools, &self.config, Instant::now());
        let host = Host {
            next_hops: Arc::clone(&settled.next_hops),
            own_addresses: self.own_addresses.clone(),
            ephemeral_ports: sysctl_io::local_port_range().unwrap_or(EPHEMERAL_PORTS),
        };
        Some(settled.with_pools(pools, &self.config, &View { health, overrides: self.overrides.servers.clone() }, &host))
    }

    fn try_converge(&mut self, pools: Option<&BTreeSet<String>>) -> anyhow::Result<()> {
        if !self.is_read {
            self.read_back()?;
        }
        let desired = match pools.and_then(|pools| self.desired_of(pools)) {
            Some(desired) => desired,
            None => self.desired(),
        };
        let now = self.dataplane.tick()?;
        let now_unix_s = unix_time().as_secs();
        let is_look_due = self.next_look.is_some_and(|at| at <= now_unix_s);
        let looks = is_look_due && retirement::next_look(&self.installed, &desired, now_unix_s).is_some();
        let freeable = if looks { readback::freeable(self.dataplane.tables(), &self.installed, now)? } else { Freeable::default() };
        readback::look_at_planes(self.dataplane.tables(), &mut self.installed)?;
        let mut random = || random_u64().unwrap_or_else(|| unix_time().as_nanos() as u64);
        let settled = self.settled.take().filter(|_| !looks);
        let is_whole = settled.is_none();
        // Planned from what there is instead of a copy: it is large. Until all operations are done it is not what the maps hold.
        self.is_read = false;
        let installed = Installed::new(self.installed.capacity);
        let installed = std::mem::replace(&mut self.installed, installed);
        let (Plan { ops, unplaced }, installed) = match settled {
            Some(settled) => plan::change_from(installed, &settled, &desired, now_unix_s, &mut random),
            None => plan::plan_from(installed, &desired, now_unix_s, &freeable, &mut random),
        };
        for op in &ops {
            fault_io::before_operation(self.operations);
            self.operations += 1;
            self.dataplane.applier().apply(op, now)?;
        }
        (self.installed, self.is_read) = (installed, true);
        if is_whole || ops.iter().any(|op| matches!(op, Op::SetHeader { .. } | Op::FreeMember { .. })) {
            let headers = self.installed.members.values().filter_map(|member| member.header.as_deref());
            self.path_mtus.set_tunnels(headers.filter_map(Tunnel::of_header));
        }
        if is_look_due || !ops.is_empty() {
            self.next_look = retirement::next_look(&self.installed, &desired, now_unix_s);
        }
        if !unplaced.is_empty() && !ops.is_empty() {
            // What was done may have made room.
            self.next_look = Some(0);
        }
        let has_room = unplaced.is_empty();
        let unplaced = plan::in_words(&unplaced, self.installed.capacity);
        for line in unplaced.iter().filter(|line| !self.report.held_back.contains(line)) {
            error!("{line}");
        }
        let kept = plan::held_back(&self.installed, &desired)
            .into_iter()
            .map(|key| format!("{} port {}: its slots stay as they were made", key.vip, key.port));
        self.report.held_back = self.waits_for_start.iter().cloned().chain(kept).chain(unplaced).collect();
        self.settled = has_room.then_some(desired);
        self.is_config_followed = true;
        if !ops.is_empty() {
            info!(operations = ops.len(), "the maps follow");
        }
        Ok(())
    }
}

/// A next hop whose path takes packets of at most `learned` bytes.
fn next_hop(hop: NextHop, learned: u16) -> header::NextHop {
    let mtu = hop.mtu.min(learned);
    let NextHop { ifindex, vlan, source_mac, target_mac, source, .. } = hop;
    header::NextHop { ifindex, vlan, source_mac, target_mac, mtu, source }
}
