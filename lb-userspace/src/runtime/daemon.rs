//! What the daemon keeps, and what it does on each event: converge the maps with the configuration and the network, and tell what it found.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "the part of the daemon that meets the world")]

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    path::PathBuf,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use lb_common::{maps::LinkInfo, words::MemberId};
use tracing::{error, info, warn};

use super::{
    driver::RunError,
    readback,
    report::{Report, ServiceName},
    report_io,
};
use crate::{
    config::{
        self, ConfigText, Diagnostic, LoadError as ConfigLoadError,
        model::{AddressPolicy, Config, Forward, Protocol},
    },
    control::{
        ServiceKey,
        desired::{Desired, Host},
        header,
        installed::{Capacity, Installed},
        plan::{self, Freeable},
        slot,
    },
    dataplane::{self, Dataplane, DroppedPacket, Features, Origin, PinDir, Request, Samples, SlotRules},
    netlink::{Change, Netlink, NextHops, links::Xdp, sysctl_io},
    path_mtu::{PathMtus, TooBig},
};

/// How slots live, for the data plane.
const SLOT_RULES: SlotRules = SlotRules { change: |word, member, now| slot::change(word, member, now).word, ripen: slot::ripen };

/// Dropped packets taken from the ring at a time.
const SAMPLES_AT_ONCE: usize = 64;

/// The daemon.
pub(super) struct Daemon {
    config_path: PathBuf,
    config: Config,
    dataplane: Dataplane,
    installed: Installed,
    netlink: Netlink,
    next_hops: NextHops,
    path_mtus: PathMtus,
    /// Addresses of this host that are not there for us alone.
    own_addresses: BTreeSet<IpAddr>,
    samples: Samples,
    /// Packets whose drop was sampled, by reason, since the last summary.
    dropped: BTreeMap<&'static str, DroppedPacket>,
    report: Report,
    retired_wait: bool,
}

impl Daemon {
    /// Loads or adopts the data plane, takes the addresses, and converges once.
    pub(super) async fn start(config_path: PathBuf, config: Config, warnings: Vec<String>) -> Result<Self, RunError> {
        report_io::prepare(&config.node.state_dir)?;
        let request = Request {
            pin_dir: &config.node.pin_dir,
            limits: &config.limits,
            features: Features::of(&config),
            interfaces: &config.node.interfaces,
            mode: config.node.xdp,
            rules: SLOT_RULES,
        };
        let earlier = report_io::read(&config.node.state_dir).ok().flatten();
        let (dataplane, origin) = Dataplane::start(&request)?;
        let installed = readback::installed(dataplane.tables(), Capacity::of(&config.limits))?;
        let samples = Samples::open(&PinDir::at(&config.node.pin_dir))?;
        let mut next_hops = NextHops::new(Netlink::open()?).await?;
        let report = Report {
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").into(),
            node: config.node.name.clone(),
            started_at: unix_time().as_secs(),
            origin: if origin == Origin::Adopted { "adopted".into() } else { "fresh".into() },
            config: config_path.clone(),
            config_taken_at: unix_time().as_secs(),
            config_warnings: warnings,
            added_addresses: earlier.map_or_else(Vec::new, |report| report.added_addresses),
            ..Report::default()
        };
        next_hops.set_servers(&servers_of(&config, &installed)).await?;
        let mut daemon = Self {
            config_path,
            config,
            dataplane,
            installed,
            netlink: Netlink::open()?,
            next_hops,
            path_mtus: PathMtus::default(),
            own_addresses: BTreeSet::new(),
            samples,
            dropped: BTreeMap::new(),
            report,
            retired_wait: true,
        };
        daemon.take_links().await?;
        daemon.take_addresses().await?;
        let desired = daemon.desired();
        plan::recognise(&mut daemon.installed, &desired);
        daemon.converge();
        info!(origin = %daemon.report.origin, services = daemon.installed.services.len(), "the data plane forwards");
        Ok(daemon)
    }

    /// Reads the file again. A bad one leaves the configuration in force as it is, and is reported.
    pub(super) async fn reload(&mut self) {
        match config::load(&self.config_path, &config::host_name()) {
            Ok((config, findings, text)) => {
                if let Err(error) = self.take_config(config, warnings(&findings, &text)).await {
                    error!(%error, "the new configuration is not taken");
                    self.report.config_errors = vec![error.to_string()];
                }
            }
            Err(error) => {
                self.report.config_errors = load_errors(&error);
                for line in &self.report.config_errors {
                    error!("{line}");
                }
                warn!("the configuration in force stays");
            }
        }
        self.write_report();
    }

    async fn take_config(&mut self, config: Config, warnings: Vec<String>) -> Result<(), RunError> {
        self.report.config_errors.clear();
        if config == self.config {
            self.report.config_warnings = warnings;
            return Ok(());
        }
        self.report.held_back = restart_only(&self.config, &config);
        let config = with_fixed(&self.config, config);
        let features = Features(Features::of(&config).0 | self.dataplane.features().0);
        if features != self.dataplane.features() {
            self.dataplane.rebuild(features)?;
        }
        self.take_interfaces(&config)?;
        self.next_hops.set_servers(&servers_of(&config, &self.installed)).await?;
        self.config = config;
        self.report.config_warnings = warnings;
        self.report.config_taken_at = unix_time().as_secs();
        self.take_links().await?;
        self.take_addresses().await?;
        self.converge();
        info!("the configuration is taken");
        Ok(())
    }

    fn take_interfaces(&mut self, config: &Config) -> Result<(), RunError> {
        for name in &config.node.interfaces {
            if !self.dataplane.interfaces().contains_key(name) {
                self.dataplane.add_interface(name)?;
            }
        }
        let gone: Vec<String> = self.dataplane.interfaces().keys().filter(|name| !config.node.interfaces.contains(name)).cloned().collect();
        for name in gone {
            self.dataplane.remove_interface(&name)?;
        }
        Ok(())
    }

    /// Something changed in the network: next hops are resolved again and the maps follow.
    pub(super) async fn handle_network(&mut self, change: &Change) -> Result<(), RunError> {
        if change.links || change.is_incomplete {
            self.take_links().await?;
        }
        if change.addresses || change.is_incomplete {
            self.take_addresses().await?;
        }
        self.next_hops.update(change).await?;
        self.converge();
        Ok(())
    }

    /// A router cannot pass a tunnelled packet on: the server's header follows, and clients are told the next time.
    pub(super) fn handle_too_big(&mut self, said: TooBig) {
        let servers = servers_of(&self.config, &self.installed);
        if self.path_mtus.handle_too_big(said, servers, Instant::now()) {
            info!(server = %said.server, mtu = said.mtu, "a router on the way to a server passes smaller packets only");
            self.converge();
        }
    }

    /// Asks the kernel for everything again: a learned path MTU is told to nobody.
    pub(super) async fn reread_network(&mut self) -> Result<(), RunError> {
        self.next_hops.reread().await?;
        self.path_mtus.handle_timeout(Instant::now());
        self.converge();
        Ok(())
    }

    /// Each second: slots ripen, drops are told, rates are taken, and retired members go when they may.
    pub(super) fn handle_second(&mut self) {
        let ripened = self
            .dataplane
            .tick()
            .map_err(|error| error.to_string())
            .and_then(|now| self.dataplane.applier().ripen_all(now).map_err(|error| error.to_string()));
        if let Err(error) = ripened {
            warn!(error, "slots do not ripen");
        }
        self.tell_drops();
        if self.retired_wait {
            self.converge();
        }
        self.write_report();
    }

    /// Empties dead flows, so that their times cannot wrap round and look fresh.
    pub(super) fn sweep(&mut self) {
        let swept = self
            .dataplane
            .tick()
            .map_err(|error| error.to_string())
            .and_then(|now| dataplane::sweep(self.dataplane.tables(), now).map_err(|error| error.to_string()));
        if let Err(error) = swept {
            warn!(error, "dead flows are not swept");
        }
    }

    fn tell_drops(&mut self) {
        for packet in self.samples.drain(SAMPLES_AT_ONCE) {
            self.dropped.entry(packet.reason.word()).or_insert(packet);
        }
        for (reason, packet) in std::mem::take(&mut self.dropped) {
            let shown: String = packet.frame.iter().take(64).map(|byte| format!("{byte:02x}")).collect();
            tracing::debug!(reason, service = packet.service.0, ifindex = packet.ifindex, bytes = %shown, "a packet was dropped");
        }
    }

    /// Lets packets leave by every link of this host, and learns how ours are attached.
    async fn take_links(&mut self) -> Result<(), RunError> {
        let links = self.netlink.links().await?;
        self.report.interfaces.clear();
        for link in &links {
            let Some(mac) = link.mac.filter(|_| !link.is_loopback) else { continue };
            let words = [0, 2, 4].map(|at| u16::from_ne_bytes([mac[at], mac[at + 1]]));
            let mtu = u16::try_from(link.mtu).unwrap_or(u16::MAX);
            if let Err(error) = self.dataplane.applier().allow_interface(link.ifindex, LinkInfo { mac: words, mtu }) {
                warn!(interface = link.name, %error, "no packet can leave by this interface");
            }
            if self.dataplane.interfaces().contains_key(&link.name) {
                let mode = match link.xdp {
                    Some(Xdp::Native) => "native",
                    Some(Xdp::Generic) => "generic",
                    None => "detached",
                };
                self.report.interfaces.insert(link.name.clone(), mode.into());
            }
        }
        Ok(())
    }

    /// Adds the VIPs and SNAT addresses that no interface has, and removes those that we added and nobody needs.
    async fn take_addresses(&mut self) -> Result<(), RunError> {
        let assigned = self.netlink.addresses().await?;
        let wanted = addresses_of(&self.config);
        self.own_addresses = assigned.iter().filter(|one| !one.is_ours).map(|one| one.address).collect();
        if self.config.node.addresses == AddressPolicy::Leave {
            return Ok(());
        }
        let links = self.netlink.links().await?;
        let first = self.config.node.interfaces.first().and_then(|name| links.iter().find(|link| link.name == *name));
        let Some(first) = first.map(|link| link.ifindex) else { return Ok(()) };
        for address in &wanted {
            if assigned.iter().any(|one| one.address == *address) {
                continue;
            }
            match self.netlink.add_address(*address, first).await {
                Ok(()) => self.report.added_addresses.push((*address, first)),
                Err(error) => warn!(%address, %error, "the address is not added"),
            }
        }
        let stale: Vec<_> = self.report.added_addresses.iter().copied().filter(|(address, _)| !wanted.contains(address)).collect();
        for (address, ifindex) in stale {
            if let Err(error) = self.netlink.remove_address(address, ifindex).await {
                warn!(%address, %error, "the address is not removed");
            }
            self.report.added_addresses.retain(|(other, _)| *other != address);
        }
        Ok(())
    }

    fn desired(&mut self) -> Desired {
        let resolved = self.next_hops.next_hops();
        self.report.unresolved = resolved.iter().filter_map(|(server, hop)| Some((*server, hop.as_ref().err()?.to_string()))).collect();
        let learned = |server| self.path_mtus.mtu(server).unwrap_or(u16::MAX);
        let next_hops = resolved.into_iter().filter_map(|(server, hop)| Some((server, next_hop(hop.ok()?, learned(server))))).collect();
        let ephemeral_ports = sysctl_io::local_port_range().unwrap_or(32_768..=60_999);
        Desired::from_config(&self.config, &Host { next_hops, own_addresses: self.own_addresses.clone(), ephemeral_ports })
    }

    /// Plans from what the maps hold to what they should, and performs the plan. After a failure the maps are read back, and the next event
    /// plans again.
    pub(super) fn converge(&mut self) {
        match self.try_converge() {
            Ok(()) => self.report.apply_error = None,
            Err(error) => {
                let text = format!("{error:#}");
                if self.report.apply_error.as_ref() != Some(&text) {
                    error!(error = text, "the maps are not as they should be");
                }
                self.report.apply_error = Some(text);
                match readback::installed(self.dataplane.tables(), self.installed.capacity) {
                    Ok(installed) => self.installed = installed,
                    Err(error) => error!(%error, "the maps cannot be read back"),
                }
                self.retired_wait = true;
            }
        }
        self.write_report();
    }

    fn try_converge(&mut self) -> anyhow::Result<()> {
        let desired = self.desired();
        let now = self.dataplane.tick()?;
        let wants_free = self.installed.members.values().any(|member| member.info.retired_at != 0)
            || self.installed.planes.len() > desired.services.values().flat_map(|s| s.members.values()).map(|m| m.planes.len()).sum();
        let freeable = if wants_free { readback::freeable(self.dataplane.tables(), &self.installed, now)? } else { Freeable::default() };
        let mut random = || random_u64().unwrap_or_else(|| unix_time().as_nanos() as u64);
        let ops = plan::plan(&desired, &self.installed, unix_time().as_secs(), &freeable, &mut random)?;
        for op in &ops {
            self.dataplane.applier().apply(op, now)?;
            self.installed.apply(op);
        }
        self.retired_wait = self.installed.members.values().any(|member| member.info.retired_at != 0);
        self.report.held_back.extend(
            plan::held_back(&self.installed, &desired)
                .into_iter()
                .map(|key| format!("{} {}: its slots stay as they were made", key.vip, key.port))
                .filter(|text| !self.report.held_back.contains(text))
                .collect::<Vec<_>>(),
        );
        if !ops.is_empty() {
            info!(operations = ops.len(), "the maps follow");
        }
        Ok(())
    }

    fn write_report(&mut self) {
        self.report.services = names_of(&self.config);
        self.report.read_at_ms = unix_time().as_millis() as u64;
        self.report.packets = self.installed.members.keys().filter_map(|id| Some((id.number(), self.traffic(*id)?))).collect();
        if let Err(error) = report_io::write(&self.config.node.state_dir, &self.report) {
            warn!(%error, "weir status will not know this daemon");
        }
    }

    fn traffic(&self, id: MemberId) -> Option<(u64, u64)> {
        let traffic = self.dataplane.tables().traffic(id).ok()?;
        Some((traffic.packets, traffic.bytes))
    }

    /// Before the process ends: the record stays, for the data plane does too.
    pub(super) fn leave(&mut self) {
        self.report.pid = 0;
        self.write_report();
    }
}

fn unix_time() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

fn random_u64() -> Option<u64> {
    let mut bytes = [0; 8];
    let filled = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()).ok()?;
    (filled == bytes.len()).then(|| u64::from_ne_bytes(bytes))
}

/// A next hop whose path takes packets of at most `learned` bytes.
fn next_hop(hop: crate::netlink::NextHop, learned: u16) -> header::NextHop {
    let mtu = hop.mtu.min(learned);
    header::NextHop { ifindex: hop.ifindex, source_mac: hop.source_mac, target_mac: hop.target_mac, mtu, source: hop.source }
}

/// The servers of the configuration, and those whose members are still in the maps.
fn servers_of(config: &Config, installed: &Installed) -> BTreeSet<IpAddr> {
    let configured = config.pools.values().flat_map(|pool| pool.servers.values()).map(|server| server.address);
    configured.chain(installed.members.values().map(|member| member.endpoint().address)).collect()
}

/// Every VIP and SNAT address.
fn addresses_of(config: &Config) -> BTreeSet<IpAddr> {
    let vips = config.binds().map(|(bind, ..)| bind.address);
    let snat = config.pools.values().filter_map(|pool| match &pool.forward {
        Forward::Nat { snat } => Some(snat),
        Forward::Dsr | Forward::Ipip | Forward::Gue { .. } => None,
    });
    vips.chain(snat.flatten().copied()).collect()
}

fn names_of(config: &Config) -> Vec<ServiceName> {
    config
        .binds()
        .map(|(bind, listener, name)| {
            let pool = &config.pools[&listener.pool];
            let key = ServiceKey { vip: bind.address, port: bind.port.unwrap_or(0), protocol: bind.protocol };
            let servers = pool.servers.iter().map(|(name, server)| (name.clone(), server.address, server.port.unwrap_or(0)));
            ServiceName {
                listener: name.into(),
                pool: listener.pool.clone(),
                vip: key.vip,
                port: key.port,
                protocol: if key.protocol == Protocol::Tcp { 6 } else { 17 },
                servers: servers.collect(),
            }
        })
        .collect()
}

/// Keys that take effect at the next start only, where they differ.
fn restart_only(old: &Config, new: &Config) -> Vec<String> {
    let mut held = Vec::new();
    let mut compare = |differs: bool, what: &str| {
        if differs {
            held.push(format!("{what} differs from what the data plane was made with: `weir stop`, then start, to change it"));
        }
    };
    compare(old.limits != new.limits, "limits");
    compare(old.node.pin_dir != new.node.pin_dir, "node.pin_dir");
    compare(old.node.state_dir != new.node.state_dir, "node.state_dir");
    compare(old.node.xdp != new.node.xdp, "node.xdp");
    held
}

fn with_fixed(old: &Config, mut new: Config) -> Config {
    new.limits = old.limits;
    new.node.pin_dir.clone_from(&old.node.pin_dir);
    new.node.state_dir.clone_from(&old.node.state_dir);
    new.node.xdp = old.node.xdp;
    new
}

/// Findings as lines of text.
pub(super) fn warnings(findings: &[Diagnostic], text: &ConfigText) -> Vec<String> {
    findings.iter().map(|finding| finding.render_line(text)).collect()
}

fn load_errors(error: &ConfigLoadError) -> Vec<String> {
    match error {
        ConfigLoadError::Invalid { text, findings } => warnings(findings, text),
        ConfigLoadError::Read { .. } | ConfigLoadError::TooLarge { .. } => vec![error.to_string()],
    }
}
