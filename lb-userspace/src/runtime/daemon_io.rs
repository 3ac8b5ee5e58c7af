//! What the daemon keeps, and what it does on each event: converge the maps with the configuration and the network, and tell what it found.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "the part of the daemon that meets the world")]

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    path::{Path, PathBuf},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use lb_common::maps::OwnMacs;
use tracing::{info, warn};

use super::{
    addresses::AddressPlan,
    admin_io::AdminSocket,
    authorities_io::Authorities,
    checks_io::Checks,
    config_io::{First, found},
    driver::RunError,
    health_io::Compared,
    keep_io::{self, HistoryKeeper},
    lookup_io::Lookups,
    metrics::Tallies,
    names_io::recall_names,
    own_macs::own_macs,
    readback,
    record_io::Record,
    registry_io,
    report::{Report, in_words},
    report_io::{self, Prepared},
    silence_io::Looks,
    vrrp_io::Vrrp,
    ways_io::Detours,
};
use crate::{
    config::{Parser, model::Config},
    control::{
        desired::{Desired, node_slot_key},
        event::{Events, What},
        history::History,
        installed::{Capacity, Installed},
        names::{Names, expand::expand, hold::Held},
        overrides::Overrides,
        plan::{self},
        slot,
        standing::{ServerName, View},
    },
    dataplane::{self, Dataplane, DroppedPacket, Features, Origin, PinDir, Request, Samples, SlotRules},
    health::book::Book,
    netlink::{AddressError, Change, Netlink, NextHops},
    path_mtu::{Heard, PathMtus, TooBig},
    speaker::apart_io::Apart,
};

/// How slots live, for the data plane.
const SLOT_RULES: SlotRules = SlotRules { change: |word, member, now| slot::change(word, member, now).word, ripen: slot::ripen };

/// What is forgone where this process has to mount the BPF file system.
const OWN_MOUNT: &str = "no BPF file system was mounted, so that weir mounted one, in its own mount namespace: nobody outside may see the pins, and \
                         they may vanish with that namespace (ip netns exec makes one; nsenter --net=/run/netns/NAME does not; or mount -t bpf bpf \
                         /sys/fs/bpf before)";

/// Dropped packets taken from the ring at a time.
const SAMPLES_AT_ONCE: usize = 64;

/// What a daemon starts with.
pub(super) struct Beginning<'a> {
    /// The configuration's file.
    pub(super) config_path: &'a Path,
    /// What it says, or what is in force instead.
    pub(super) first: First,
    /// What the daemon has to do without already.
    pub(super) forgone: Vec<String>,
    /// What of interfaces that do not exist.
    pub(super) absent: Absent,
}

/// What a fresh load does about interfaces that do not exist.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Absent {
    /// Fails: a name may be wrong.
    Refused,
    /// Leaves them out; they are taken when they appear.
    Awaited,
}

/// What is said beside the configuration.
struct Said {
    overrides: Overrides,
    names: Names,
}

/// The daemon.
pub(super) struct Daemon {
    pub(super) config_path: PathBuf,
    /// What read it last.
    pub(super) parser: Parser,
    /// As the file, or whoever applied it, has it.
    pub(super) written: Config,
    /// With the servers that its names stand for.
    pub(super) configured: Config,
    /// As the operator's overrides make it: the one in force.
    pub(super) config: Config,
    pub(super) dataplane: Dataplane,
    pub(super) installed: Installed,
    /// Whether that is what the maps hold; else they are read before they are changed.
    pub(super) is_read: bool,
    /// What the maps follow, nothing having to wait: a plan starts from there.
    pub(super) settled: Option<Desired>,
    /// Of the configuration in force: then what becomes known of a pool concerns that pool alone.
    pub(super) is_config_followed: bool,
    pub(super) netlink: Netlink,
    pub(super) next_hops: NextHops,
    pub(super) path_mtus: PathMtus,
    pub(super) checks: Checks,
    pub(super) book: Book,
    /// Servers whose checks rest; none before there are any.
    pub(super) maintained: Option<BTreeSet<ServerName>>,
    /// What the operator says beside the configuration.
    pub(super) overrides: Overrides,
    /// What the DNS says.
    pub(super) names: Names,
    pub(super) lookups: Lookups,
    /// Servers that stay until names are looked up.
    pub(super) held: Held,
    pub(super) authorities: Authorities,
    /// What of that is left out, in words.
    pub(super) left_out: Vec<String>,
    /// The configurations that were in force.
    pub(super) history: History,
    pub(super) history_keeper: HistoryKeeper,
    pub(super) events: Events,
    pub(super) tallies: Tallies,
    pub(super) admin: AdminSocket,
    /// Operations on the maps since the start.
    pub(super) operations: usize,
    /// The names of this host's links, by index.
    pub(super) links: BTreeMap<u32, String>,
    /// The indexes of those that the configuration names.
    pub(super) taken: BTreeSet<u32>,
    /// Addresses of this host that are not there for us alone.
    pub(super) own_addresses: BTreeSet<IpAddr>,
    /// The checks that take the data path.
    pub(super) detours: Detours,
    /// The looks at new connections.
    pub(super) looks: Looks,
    pub(super) vrrp: Vrrp,
    samples: Samples,
    /// Packets whose drop was sampled, by reason, since the last summary.
    dropped: BTreeMap<&'static str, DroppedPacket>,
    pub(super) report: Report,
    /// The pin directory that this process has locked.
    pub(super) pins: Option<(u64, u64)>,
    /// The names of the links among which the file, though sound, was refused.
    pub(super) refused_among: Option<BTreeMap<u32, String>>,
    /// What the configuration file says that waits for another start.
    pub(super) waits_for_start: Vec<String>,
    /// When to look for what can be freed, in seconds of the Unix epoch.
    pub(super) next_look: Option<u64>,
    /// The network could not be read whole, and has to be again.
    pub(super) is_network_stale: bool,
    /// The record could not be written, which has been told.
    pub(super) record: Record,
}

impl Daemon {
    /// Loads or adopts the data plane, takes the addresses, and converges once. If it fails, what was loaded afresh is removed.
    pub(super) async fn start(beginning: Beginning<'_>) -> Result<Self, RunError> {
        let Beginning { config_path, first, forgone, absent } = beginning;
        let state_dir = first.config.node.state_dir.clone();
        let prepared = report_io::prepare(&state_dir)?;
        let mounts = PinDir::at(&first.config.node.pin_dir).mounts();
        let started = Self::start_prepared(config_path, first, absent).await;
        if started.is_err() {
            report_io::unprepare(&state_dir, prepared);
        }
        let mut daemon = started?;
        if prepared == Prepared::Refused {
            warn!("{} takes nothing: until it does the daemon keeps nothing of what it says and is told", state_dir.display());
        }
        if let Err(error) = registry_io::register(config_path, &state_dir) {
            warn!(%error, "commands find this daemon by its configuration file alone");
        }
        forgone.into_iter().chain(mounts.then(|| OWN_MOUNT.into())).for_each(|what| daemon.forgo(what));
        daemon.write_report_now();
        Ok(daemon)
    }

    async fn start_prepared(config_path: &Path, first: First, absent: Absent) -> Result<Self, RunError> {
        let mut lost = first.lost.clone();
        let overrides: Overrides = found(&first.config.node.state_dir, keep_io::OVERRIDES, &mut lost).unwrap_or_default();
        let names = Names::new(found(&first.config.node.state_dir, keep_io::NAMES, &mut lost).unwrap_or_default());
        let config = overrides.effective(&expand(&first.config, &names).0);
        let earlier = report_io::earlier(&config.node)?;
        let links = Netlink::open()?.links().await?;
        let is_asked_for = |name: &&String| absent == Absent::Refused || links.iter().any(|link| link.name == **name);
        let interfaces: Vec<String> = config.node.interfaces.iter().filter(is_asked_for).cloned().collect();
        let request = Request {
            pin_dir: &config.node.pin_dir,
            limits: &config.limits,
            slot_key: node_slot_key(&config.node.slot_seed),
            features: Features::of(&config),
            macs: own_macs(&config, &links),
            interfaces: &interfaces,
            mode: config.node.xdp,
            rules: SLOT_RULES,
        };
        let (dataplane, origin) = {
            let _apart = Apart::begin();
            Dataplane::start(&request)?
        };
        let pins = PinDir::at(&config.node.pin_dir);
        let mut started = Self::take_over(config_path, first, Said { overrides, names }, dataplane, origin, earlier).await;
        if let Ok(daemon) = &mut started {
            daemon.tell_lost(lost);
        }
        if started.is_err() && origin == Origin::Fresh {
            // The first failure is the one to report.
            let _ = dataplane::stop(&pins);
        }
        started
    }

    /// Goes on without something that other things do not need, and says so.
    pub(super) fn forgo(&mut self, what: String) {
        warn!("{what}");
        if !self.report.forgone.contains(&what) {
            self.report.forgone.push(what);
        }
    }

    fn tell_lost(&mut self, lost: Vec<String>) {
        for cause in lost {
            self.forgo(format!("what an earlier daemon kept cannot be had: {cause}"));
            self.tell(What::Lost { cause });
        }
    }

    async fn take_over(
        config_path: &Path,
        first: First,
        said: Said,
        dataplane: Dataplane,
        origin: Origin,
        earlier: Report,
    ) -> Result<Self, RunError> {
        let First { config: written, warnings, errors, history, parser, admin, .. } = first;
        let Said { overrides, mut names } = said;
        dataplane.follow_record(&written.node.state_dir)?;
        let installed = readback::installed(dataplane.tables(), Capacity::of(&written.limits))?;
        recall_names(&mut names, &written, &installed, &earlier);
        let (configured, left_out) = expand(&written, &names);
        let config = overrides.effective(&configured);
        let samples = Samples::open(&PinDir::at(&config.node.pin_dir))?;
        let next_hops = NextHops::new(Netlink::open()?).await?;
        let report = Report {
            pid: std::process::id(),
            pid_started_at: report_io::process_started(std::process::id()).unwrap_or_default(),
            namespace: report_io::network_namespace().unwrap_or_default(),
            version: env!("CARGO_PKG_VERSION").into(),
            node: config.node.name.clone(),
            started_at: unix_time().as_secs(),
            origin: if origin == Origin::Adopted { "adopted".into() } else { "fresh".into() },
            pin_dir: config.node.pin_dir.clone(),
            config: config_path.to_owned(),
            config_taken_at: unix_time().as_secs(),
            config_warnings: warnings,
            config_errors: errors,
            added_addresses: earlier.added_addresses,
            courses: earlier.courses,
            vrrp_kept: earlier.vrrp_kept.clone(),
            ..Report::default()
        };
        let pins = PinDir::at(&config.node.pin_dir).identity();
        let vrrp = Vrrp::start(&config.node.state_dir, &earlier.vrrp_kept);
        let mut daemon = Self {
            config_path: config_path.to_owned(),
            parser,
            written,
            configured,
            admin: admin.unwrap_or_else(|| AdminSocket::listen(&config)),
            config,
            dataplane,
            installed,
            is_read: true,
            settled: None,
            is_config_followed: false,
            netlink: Netlink::open()?,
            next_hops,
            path_mtus: PathMtus::default(),
            checks: Checks::start(random_u64().unwrap_or_default())?,
            book: Book::new(earlier.health),
            maintained: None,
            overrides,
            names,
            lookups: Lookups::default(),
            held: Held::default(),
            authorities: Authorities::default(),
            left_out,
            history,
            history_keeper: HistoryKeeper::default(),
            events: Events::default(),
            tallies: Tallies::default(),
            operations: 0,
            links: BTreeMap::new(),
            taken: BTreeSet::new(),
            own_addresses: BTreeSet::new(),
            detours: Detours::default(),
            looks: Looks::default(),
            vrrp,
            samples,
            dropped: BTreeMap::new(),
            report,
            pins,
            refused_among: None,
            waits_for_start: Vec::new(),
            next_look: Some(0),
            is_network_stale: false,
            record: Record::due(),
        };
        daemon.ask_first().await;
        daemon.next_hops.set_servers(&daemon.servers()).await?;
        daemon.set_checks(Compared::Differs).await;
        daemon.follow_network(Convergence::First).await?;
        daemon.keep_history();
        daemon.report.admin_socket = daemon.admin.path();
        if let Some(why) = daemon.admin.refusal() {
            daemon.forgo(why);
        }
        daemon.tell(What::Started { origin: daemon.report.origin.clone() });
        info!(origin = %daemon.report.origin, services = daemon.installed.services.len(), "the data plane forwards");
        Ok(daemon)
    }

    /// Something changed in the network: next hops are resolved again and the maps follow.
    pub(super) async fn handle_network(&mut self, change: &Change) {
        let known = self.next_hops.update(change).await.map_err(RunError::from);
        self.or_again(known);
        if change.links || change.addresses || change.is_incomplete {
            let followed = self.follow_network(Convergence::Other).await;
            self.or_again(followed);
            self.retry_refused().await;
        } else {
            self.attach_ways();
            self.converge();
        }
    }

    /// A router cannot pass a tunnelled packet on: the server's header follows, and clients are told the next time.
    pub(super) fn handle_too_big(&mut self, said: TooBig) {
        if self.path_mtus.handle_too_big(said, Instant::now()) == Heard::Learned {
            info!(server = %said.outer.server, mtu = said.mtu, "a router on the way to a server passes smaller packets only");
            self.converge();
        }
    }

    /// Asks the kernel for everything again: a learned path MTU is told to nobody.
    pub(super) async fn reread_network(&mut self) {
        self.path_mtus.handle_timeout(Instant::now());
        self.is_network_stale = false;
        let known = self.next_hops.reread().await.map_err(RunError::from);
        self.or_again(known);
        let followed = self.follow_network(Convergence::Other).await;
        self.or_again(followed);
        self.retry_refused().await;
    }

    /// Each second: slots ripen, drops are told, rates are taken, what failed is tried again, and retired members go when they may.
    pub(super) async fn handle_second(&mut self) {
        let ripened = self
            .dataplane
            .tick()
            .map_err(|error| in_words(&error))
            .and_then(|now| self.dataplane.applier().ripen_all(now).map_err(|error| in_words(&error)));
        if let Err(error) = ripened {
            warn!(error, "slots do not ripen");
        }
        self.tell_drops();
        self.look_for_silence().await;
        self.look_at_authorities();
        self.see_to_confirmation().await;
        self.see_to_state_dir().await;
        if self.is_network_stale {
            self.reread_network().await;
        } else if self.report.apply_error.is_some() || self.next_look.is_some_and(|at| at <= unix_time().as_secs()) {
            self.converge();
        }
        // Rates and times may be a little old where a record takes long.
        if self.record.is_aged() {
            self.write_report();
        }
    }

    /// Empties dead flows, so that their times cannot wrap round and look fresh.
    pub(super) fn sweep(&mut self) {
        let swept = self
            .dataplane
            .tick()
            .map_err(|error| in_words(&error))
            .and_then(|now| dataplane::sweep(self.dataplane.tables(), now).map_err(|error| in_words(&error)));
        if let Err(error) = swept {
            warn!(error, "dead flows are not swept");
        }
    }

    /// Has what failed tried again a second later.
    pub(super) fn or_again(&mut self, done: Result<(), RunError>) {
        if let Err(error) = done {
            warn!(error = in_words(&error), "the network could not be read; it is tried again");
            self.is_network_stale = true;
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

    pub(super) fn take_macs(&mut self, macs: OwnMacs) -> Result<(), RunError> {
        if macs != self.dataplane.macs() {
            self.dataplane.set_macs(macs)?;
            info!("frames are taken by the interfaces' new addresses");
        }
        Ok(())
    }

    /// Reads links and addresses, and converges: an address is there before a packet leaves with it, and gone or not yet there while the maps do
    /// not answer for it, for then the host would refuse its packets.
    pub(super) async fn follow_network(&mut self, convergence: Convergence) -> Result<(), RunError> {
        let links = self.netlink.links().await?;
        self.take_macs(own_macs(&self.config, &links))?;
        self.take_links(&links);
        let assigned = self.netlink.addresses().await?;
        let interfaces = links.iter().filter(|link| self.config.node.interfaces.contains(&link.name)).map(|link| link.ifindex).collect();
        let recorded = self.report.added_addresses.iter().copied().collect();
        let translating = self.installed.planes.values().map(|plane| plane.snat.ip()).collect();
        let plan = AddressPlan::new(&self.config, &assigned, &recorded, &interfaces, &translating);
        let are_new = plan.own != self.own_addresses;
        self.own_addresses = plan.own;
        self.report.added_addresses = plan.kept.into_iter().collect();
        self.report.address_errors.clear();
        for (address, ifindex) in plan.stale {
            match self.netlink.remove_address(address, ifindex).await {
                Ok(()) | Err(AddressError::NotAssigned { .. } | AddressError::NoLink { .. }) => {}
                Err(error) => {
                    self.report.added_addresses.push((address, ifindex));
                    self.report.address_errors.push(in_words(&error));
                }
            }
        }
        let first = self.config.node.interfaces.first().and_then(|name| links.iter().find(|link| link.name == *name));
        let first = first.map(|link| link.ifindex);
        self.add_addresses(&plan.snat, first).await;
        if convergence == Convergence::First {
            let desired = self.desired();
            plan::recognise(&mut self.installed, &desired);
        }
        self.converge();
        self.add_addresses(&plan.vips, first).await;
        self.follow_ways(&links);
        if are_new {
            // Which address a check may have has changed.
            self.set_checks(Compared::Differs).await;
        }
        self.write_report();
        Ok(())
    }

    async fn add_addresses(&mut self, addresses: &BTreeSet<IpAddr>, ifindex: Option<u32>) {
        let Some(ifindex) = ifindex else { return };
        for &address in addresses {
            match self.netlink.add_address(address, ifindex).await {
                Ok(()) | Err(AddressError::AlreadyAssigned { .. }) => self.report.added_addresses.push((address, ifindex)),
                Err(error) => {
                    warn!(%address, error = in_words(&error), "the address is not added");
                    self.report.address_errors.push(in_words(&error));
                }
            }
        }
    }

    /// The servers of the configuration, and those whose members are still in the maps.
    pub(super) fn servers(&self) -> BTreeSet<IpAddr> {
        let configured = self.config.pools.values().flat_map(|pool| pool.servers.values()).map(|server| server.address);
        configured.chain(self.installed.members.values().map(|member| member.endpoint().address)).collect()
    }

    /// What is known of servers beside the configuration.
    pub(super) fn view(&self) -> View {
        View { health: self.book.health(&self.config, Instant::now()), overrides: self.overrides.servers.clone() }
    }

    /// Before the process ends: the record stays, for the data plane does too.
    pub(super) async fn leave(&mut self) {
        if let Some(closed) = self.admin.close() {
            // It ends within its bound.
            let _ = closed.await;
        }
        self.leave_vrrp().await;
        self.report.admin_socket = None;
        self.report.pid = 0;
        self.write_report_now();
    }
}

/// Which time the maps are made to follow.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Convergence {
    /// By this process: the tables that are found may be those that would be computed.
    First,
    /// A later one.
    Other,
}

/// Milliseconds of the Unix epoch.
pub(super) fn unix_ms() -> u64 {
    unix_time().as_millis() as u64
}

pub(super) fn unix_time() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

pub(super) fn random_u64() -> Option<u64> {
    let mut bytes = [0; 8];
    let filled = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()).ok()?;
    (filled == bytes.len()).then(|| u64::from_ne_bytes(bytes))
}
