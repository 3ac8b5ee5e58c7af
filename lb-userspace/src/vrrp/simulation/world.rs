//! Nodes with their kernels' addresses, the network between them, and what a client sees.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::IpAddr,
    time::{Duration, Instant},
};

use crate::vrrp::{
    addresses::AddressList,
    auth::{Epoch, Key, KeyId, Keys, Opener, Sealer},
    machine::{Output, Router, State, Transition},
    packet::{Authentication, ChecksumForm, Ends, Received, decode},
    refusal::Refusal,
    settings::{Announcing, Claims, Identity, Preempt, Reach, Settings},
    terms::{Interval, Priority, RouterId, Version},
};

/// A stopped process loses what does not fit its socket.
const SOCKET_QUEUE: usize = 64;

/// The same numbers for the same seed (splitmix64).
pub(in crate::vrrp) struct Random(pub(in crate::vrrp) u64);

impl Random {
    /// A number below `bound`.
    pub(in crate::vrrp) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}

pub(super) struct Node {
    /// None while its process is dead.
    pub(super) router: Option<Router>,
    seals: Option<(Sealer, Opener)>,
    pub(super) settings: Settings,
    pub(super) priority: u8,
    /// The kernel's addresses, which outlive the process.
    pub(super) kernel: BTreeSet<IpAddr>,
    pub(super) is_suspended: bool,
    /// Which part of the network it is in.
    pub(super) island: u64,
    queue: VecDeque<Flight>,
    /// How late it does what is due next.
    lag: Duration,
}

struct Flight {
    to: usize,
    ends: Ends,
    payload: Vec<u8>,
}

/// What the nodes speak.
#[derive(Clone)]
pub(super) struct Wire {
    pub(super) version: Version,
    pub(super) authentication: Authentication,
    pub(super) keys: Option<Keys>,
}

impl Wire {
    pub(super) fn plain() -> Self {
        Self { version: Version::V3, authentication: Authentication::None, keys: None }
    }

    pub(super) fn keyed() -> Self {
        let id = KeyId::new(1);
        let keys = Keys::new(BTreeMap::from([(id, Key::new(&[7; 32]).unwrap())]), id).unwrap();
        Self { keys: Some(keys), ..Self::plain() }
    }

    pub(super) fn version_2() -> Self {
        Self { version: Version::V2, authentication: Authentication::Password(*b"password"), keys: None }
    }
}

pub(super) struct World {
    wire: Wire,
    pub(super) now: Instant,
    pub(super) start: Instant,
    pub(super) random: Random,
    pub(super) nodes: Vec<Node>,
    pub(super) loss_pct: u64,
    pub(super) delay_us: u64,
    pub(super) lag_us: u64,
    /// Transitions since the start.
    pub(super) log: Vec<(Duration, usize, Transition)>,
    /// Who told the link last that the addresses are there.
    pub(super) link: Option<usize>,
    /// Since when a client has no answer, and the longest such time.
    unserved_since: Option<Instant>,
    pub(super) longest_gap: Duration,
    /// At some moment nobody had the addresses.
    pub(super) was_unheld: bool,
    flights: BTreeMap<(Instant, u64), Flight>,
    flown: u64,
}

pub(super) fn settings(node: usize, interval_ms: u64) -> Settings {
    Settings {
        primary: IpAddr::from([192, 0, 2, node as u8 + 1]),
        interval: Interval::new(Duration::from_millis(interval_ms), Version::V3).unwrap(),
        reach: Reach::Multicast,
        preempt: Preempt::AtOnce,
        start_delay: Duration::ZERO,
        yield_hold: Some(Duration::from_secs(2)),
        announcing: Announcing { every: None, ..Announcing::default() },
        claims: Claims::Alone,
    }
}

pub(super) fn vips() -> AddressList {
    AddressList::new(&[IpAddr::from([192, 0, 2, 100]), IpAddr::from([192, 0, 2, 101])]).unwrap()
}

impl World {
    pub(super) fn new(seed: u64, nodes: impl IntoIterator<Item = (Settings, u8)>) -> Self {
        Self::of(Wire::plain(), seed, nodes)
    }

    pub(super) fn of(wire: Wire, seed: u64, nodes: impl IntoIterator<Item = (Settings, u8)>) -> Self {
        #[allow(clippy::disallowed_methods, reason = "an instant can be had from the clock alone; all others are counted from it")]
        let now = Instant::now();
        let nodes = nodes.into_iter().map(|(settings, priority)| Node {
            router: None,
            seals: None,
            settings,
            priority,
            kernel: BTreeSet::new(),
            is_suspended: false,
            island: 0,
            queue: VecDeque::new(),
            lag: Duration::ZERO,
        });
        let mut world = Self {
            wire,
            now,
            start: now,
            random: Random(seed),
            nodes: nodes.collect(),
            loss_pct: 0,
            delay_us: 200,
            lag_us: 100,
            log: Vec::new(),
            link: None,
            unserved_since: None,
            longest_gap: Duration::ZERO,
            was_unheld: false,
            flights: BTreeMap::new(),
            flown: 0,
        };
        (0..world.nodes.len()).for_each(|node| world.start(node));
        world
    }

    /// Starts a node's process, if it does not run.
    pub(super) fn start(&mut self, node: usize) {
        let identity = Identity { router: RouterId::new(7).unwrap(), version: self.wire.version };
        let at = &mut self.nodes[node];
        if at.router.is_none() {
            let held: Vec<IpAddr> = at.kernel.iter().copied().collect();
            let mut router = Router::new(identity, at.settings.clone(), Priority::new(at.priority).unwrap(), vips(), self.now).unwrap();
            router.handle_start(&held, self.now);
            at.router = Some(router);
            let clock = self.now - self.start;
            at.seals = self.wire.keys.clone().map(|keys| (Sealer::new(keys.clone(), Epoch::after(None, clock)), Opener::new(keys)));
            at.is_suspended = false;
            at.queue.clear();
            self.drain(node);
        }
    }

    /// kill -9: the addresses stay.
    pub(super) fn kill(&mut self, node: usize) {
        self.nodes[node].router = None;
    }

    /// The power fails.
    pub(super) fn power_off(&mut self, node: usize) {
        self.kill(node);
        self.nodes[node].kernel.clear();
        self.see();
    }

    pub(super) fn resume(&mut self, node: usize) {
        self.nodes[node].is_suspended = false;
        for flight in std::mem::take(&mut self.nodes[node].queue) {
            self.deliver(&flight);
        }
    }

    /// A whole machine was paused: nothing waits in its socket.
    pub(super) fn resume_deaf(&mut self, node: usize) {
        self.nodes[node].queue.clear();
        self.resume(node);
    }

    /// Gives a running node's router something to handle.
    pub(super) fn tell(&mut self, node: usize, what: impl FnOnce(&mut Router, Instant)) {
        let at = &mut self.nodes[node];
        if let Some(router) = at.router.as_mut().filter(|_| !at.is_suspended) {
            what(router, self.now);
            self.drain(node);
        }
    }

    pub(super) fn run(&mut self, time: Duration) {
        let until = self.now + time;
        while let Some(at) = self.next().filter(|at| *at <= until) {
            self.now = self.now.max(at);
            if let Some(flight) = self.flights.first_key_value().filter(|((time, _), _)| *time <= self.now).map(|(key, _)| *key) {
                let flight = self.flights.remove(&flight).unwrap();
                self.deliver(&flight);
            } else {
                let due = (0..self.nodes.len()).filter(|node| self.due(*node).is_some_and(|at| at <= self.now));
                for node in due.collect::<Vec<_>>() {
                    self.tell(node, |router, now| router.handle_timeout(now));
                }
            }
        }
        self.now = until;
        self.see();
    }

    /// Runs until something holds; how long it took.
    pub(super) fn run_until(&mut self, holds: impl Fn(&Self) -> bool, most: Duration) -> Option<Duration> {
        let start = self.now;
        while !holds(self) {
            let next = self.next().filter(|next| *next - start <= most)?;
            self.run(next.saturating_duration_since(self.now));
        }
        Some(self.now - start)
    }

    pub(super) fn in_state(&self, state: State) -> Vec<usize> {
        let is_so = |node: &usize| self.nodes[*node].router.as_ref().is_some_and(|router| router.state() == state);
        (0..self.nodes.len()).filter(is_so).collect()
    }

    pub(super) fn holders(&self) -> Vec<usize> {
        (0..self.nodes.len()).filter(|node| !self.nodes[*node].kernel.is_empty()).collect()
    }

    /// From now on, gaps are measured anew.
    pub(super) fn watch(&mut self) {
        self.longest_gap = Duration::ZERO;
        self.unserved_since = None;
        self.was_unheld = false;
        self.see();
    }

    fn next(&self) -> Option<Instant> {
        let flight = self.flights.first_key_value().map(|((at, _), _)| *at);
        (0..self.nodes.len()).filter_map(|node| self.due(node)).chain(flight).min()
    }

    fn due(&self, node: usize) -> Option<Instant> {
        let node = &self.nodes[node];
        let router = node.router.as_ref().filter(|_| !node.is_suspended)?;
        Some(router.poll_timeout()? + node.lag)
    }

    fn deliver(&mut self, flight: &Flight) {
        let node = &mut self.nodes[flight.to];
        if node.is_suspended {
            if node.queue.len() < SOCKET_QUEUE {
                node.queue.push_back(Flight { payload: flight.payload.clone(), ..*flight });
            }
            return;
        }
        let mut received = Received { ends: flight.ends, hop_limit: 255, payload: &flight.payload };
        if let Some((_, opener)) = &mut node.seals {
            match opener.open(&received) {
                Ok(opened) => received = opened,
                // Another one overtook it, or its sender has restarted since.
                Err(refusal) => return assert!(matches!(refusal, Refusal::Replayed | Refusal::Stale), "{refusal}"),
            }
        }
        let advert = decode(&received, self.wire.version, self.wire.authentication).unwrap();
        self.tell(flight.to, |router, now| _ = router.handle_advert(flight.ends.source, &advert, now));
    }

    fn drain(&mut self, node: usize) {
        self.nodes[node].lag = Duration::from_micros(self.random.below(self.lag_us + 1));
        while let Some(output) = self.nodes[node].router.as_mut().and_then(Router::poll_output) {
            let at = &mut self.nodes[node];
            match output {
                Output::Send { advert, to } => {
                    let ends = Ends { source: at.settings.primary, destination: to };
                    let message = advert.encode(ends, ChecksumForm::Message, self.wire.authentication);
                    let payload = match &mut at.seals {
                        Some((sealer, _)) => sealer.seal(message, ends),
                        None => message,
                    };
                    let others = (0..self.nodes.len()).filter(|other| *other != node);
                    let hearing = others.filter(|other| to.is_multicast() || to == self.nodes[*other].settings.primary);
                    hearing.collect::<Vec<_>>().into_iter().for_each(|other| self.fly(node, other, ends, &payload));
                }
                Output::AddAddresses(addresses) => at.kernel.extend(addresses),
                Output::RemoveAddresses(addresses) => at.kernel.retain(|address| !addresses.contains(address)),
                Output::Announce(_) => self.link = Some(node),
                Output::Transition(transition) => self.log.push((self.now - self.start, node, transition)),
                Output::Conflict(..) | Output::ConflictOver(..) => {}
            }
            self.see();
        }
        if self.nodes[node].router.as_ref().is_some_and(|router| router.state() == State::Initialize) {
            self.nodes[node].router = None;
        }
    }

    fn fly(&mut self, from: usize, to: usize, ends: Ends, payload: &[u8]) {
        let is_lost = self.random.below(100) < self.loss_pct;
        let delay = Duration::from_micros(self.random.below(self.delay_us + 1));
        if !is_lost && self.nodes[from].island == self.nodes[to].island {
            self.flown += 1;
            self.flights.insert((self.now + delay, self.flown), Flight { to, ends, payload: payload.to_vec() });
        }
    }

    /// A client asks where the link tells it to.
    fn see(&mut self) {
        self.was_unheld |= self.holders().is_empty();
        let is_served = self.link.is_some_and(|node| self.nodes[node].kernel.len() == vips().as_slice().len());
        match (is_served, self.unserved_since) {
            (true, Some(since)) => {
                self.longest_gap = self.longest_gap.max(self.now - since);
                self.unserved_since = None;
            }
            (false, None) => self.unserved_since = Some(self.now),
            (false, Some(since)) => self.longest_gap = self.longest_gap.max(self.now - since),
            (true, None) => {}
        }
    }
}
