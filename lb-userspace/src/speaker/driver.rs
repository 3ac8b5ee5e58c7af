//! The loop of the process that speaks VRRP.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "owns sockets and the clock")]

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, Write as _},
    net::IpAddr,
    path::Path,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    thread::set_name,
};

use super::{
    NAME,
    clock_io::{Clock, boot_time},
    control_io::{Came, Control},
    desk::{Desk, Doing, LinkState},
    frames::{advert, announcement},
    heir_io::{Heir, Inheritance, await_inheritance},
    kernel_io::{Kernel, News, RENEWED_EVERY, is_somebody_elses, sender_on},
    leases::Leases,
    macvlan_io::Macvlans,
    order::{AddressOrder, Hello, Order, Said, Told},
    place_io::{Held, Place},
    urgency_io::{Locking, become_urgent, catch_signals, is_terminated},
    visit_io::build,
    wire_io::Wire,
};
use crate::{
    dataplane::{self, PinDir, attached},
    vrrp::terms::Family,
};

/// The daemon sees everything so often, beside at changes.
const TOLD_EVERY: Duration = Duration::from_secs(1);
/// Of hundreds of routers that change one after the other it sees everything so often.
const TOLD_GAP: Duration = Duration::from_millis(100);
/// What it said last is believed for so long by its heir.
const FRESH_FOR: Duration = Duration::from_millis(1500);
/// What the kernel refused is tried again so seldom: meanwhile another node serves, and each trial may take the addresses from it.
const RETRIED_EVERY: Duration = Duration::from_secs(30);
/// A speaker that nobody tells anything for so long ends.
const ORDERED_WITHIN: Duration = Duration::from_secs(30);
/// Packets of a socket that are read at once.
const MOST_PACKETS: usize = 1024;
/// Addresses are waited for so often, and so long each time.
const LOCAL_TRIALS: u32 = 20;
const LOCAL_TRIAL: Duration = Duration::from_micros(250);
/// A node that has handed over keeps the addresses so long.
const LINGERS: Duration = Duration::from_millis(50);
/// And the other one announces them once more when that is over.
const ANNOUNCED_AGAIN_AFTER: Duration = Duration::from_millis(100);
/// A take-over's announcements are sent so often in a row: a switch that is busy may lose one.
const BURST: usize = 2;

/// Speaks until it is told to stop.
///
/// # Errors
/// If another speaker is there, or the kernel gives no socket.
pub fn run(socket: &Path) -> io::Result<()> {
    // A session of its own: what ends the daemon's does not end it.
    let _is_leader_already = rustix::process::setsid();
    catch_signals();
    let kernel = Kernel::open()?;
    let lacks = become_urgent(Locking::All);
    // Whoever started it waits for a line.
    writeln!(io::stdout(), "ready")?;
    // The one before has its place until it has left its addresses.
    let place = Place::take(socket)?;
    let control = Control::listen(socket)?;
    Speaker::new(place, control, kernel, lacks).serve()
}

/// Waits for the end of the speaker that started this process. If that was killed, goes on in its place, as it was told.
///
/// # Errors
/// As [`run`].
pub fn inherit(socket: &Path) -> io::Result<()> {
    let _is_leader_already = rustix::process::setsid();
    // It has to be fast at a moment that nobody knows.
    let lacks = become_urgent(Locking::Used);
    let Some(Inheritance { mut order, alive_ms }) = await_inheritance()? else { return Ok(()) };
    let kernel = Kernel::open()?;
    let Some(place) = Place::inherit(socket)? else { return Ok(()) };
    catch_signals();
    let now_ms = boot_time().as_millis() as u64;
    // One that hung before it was killed has been succeeded by another node.
    let is_fresh = now_ms.saturating_sub(alive_ms) <= FRESH_FOR.as_millis() as u64;
    for router in order.routers.values_mut().filter(|_| is_fresh) {
        // Others wait three intervals from the last advert, which was at most one ago.
        let resume = router.resume.get_or_insert_default();
        resume.active_until_ms = Some(now_ms + 2 * router.interval_ms);
    }
    let control = Control::listen(socket)?;
    let mut speaker = Speaker::new(place, control, kernel, lacks);
    speaker.take_order(order);
    speaker.serve()
}

struct Speaker {
    place: Place,
    clock: Clock,
    control: Control,
    kernel: Kernel,
    desk: Desk,
    wires: BTreeMap<(String, Family), Wire>,
    leases: Leases,
    macvlans: Macvlans,
    /// Routers whose macvlan the kernel refuses.
    without_macvlan: BTreeSet<String>,
    /// What is put off, and until when.
    later: Vec<(Instant, Later)>,
    /// What it was told last.
    order: Option<Order>,
    heir: Option<Heir>,
    lacks: Vec<String>,
    began: Instant,
    renew_at: Instant,
    retry_at: Instant,
    tell_at: Instant,
    told_at: Option<Instant>,
    stage: Stage,
    are_links_old: bool,
    are_macvlans_old: bool,
}

/// What is put off.
#[derive(Debug)]
enum Later {
    /// Programs of this host answer what they were asked before another node had the address.
    GiveUp(Vec<AddressOrder>),
    /// Who asked for an address meanwhile may have heard either node.
    Announce(Vec<AddressOrder>),
}

/// How far its life is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    Serving,
    /// It ends when its routers have.
    Stopping,
    /// It ends at once and leaves the addresses.
    Released,
}

impl Speaker {
    fn new(place: Place, control: Control, kernel: Kernel, lacks: Vec<String>) -> Self {
        let clock = Clock::start();
        let now = clock.now();
        let macvlans = Macvlans::of(place.socket());
        Self {
            place,
            clock,
            control,
            kernel,
            desk: Desk::default(),
            wires: BTreeMap::new(),
            leases: Leases::default(),
            macvlans,
            without_macvlan: BTreeSet::new(),
            later: Vec::new(),
            order: None,
            heir: None,
            lacks,
            began: now,
            renew_at: now,
            retry_at: now,
            tell_at: now,
            told_at: None,
            stage: Stage::Serving,
            are_links_old: true,
            are_macvlans_old: false,
        }
    }

    fn serve(mut self) -> io::Result<()> {
        let _keeps_its_name = set_name(NAME);
        loop {
            self.hear();
            let now = self.clock.now();
            self.desk.handle_timeout(now);
            self.perform();
            if self.desk.takes_order_again() && self.stage == Stage::Serving {
                self.take_order_again();
            }
            self.do_later();
            self.renew();
            if self.stage == Stage::Serving && is_terminated() {
                self.stage = Stage::Stopping;
                self.desk.handle_stop(self.clock.now());
            }
            match self.stage {
                Stage::Stopping if self.desk.is_empty() && !self.later.iter().any(|(_, later)| matches!(later, Later::GiveUp(_))) => break,
                Stage::Released => break,
                Stage::Serving | Stage::Stopping => {}
            }
            self.tell();
            self.wait()?;
        }
        if let Some(heir) = self.heir.take() {
            heir.dismiss();
        }
        if self.stage == Stage::Stopping {
            self.read_links();
            self.set_macvlans();
        }
        self.control.flush();
        Ok(())
    }

    /// Takes all that waits, so that a busy moment does not look like silence.
    fn hear(&mut self) {
        for news in self.kernel.news() {
            match news {
                News::Carrier(name, has_carrier) => {
                    let at = self.clock.moment();
                    self.desk.handle_carrier(&name, has_carrier, at);
                    self.are_links_old = true;
                }
                News::Changed => self.are_links_old = true,
                // Somebody removed it, or its lease ended while this process was stopped.
                News::Lost => self.renew_at = self.clock.now(),
            }
        }
        for ((interface, _), wire) in &self.wires {
            for _ in 0..MOST_PACKETS {
                let mut take = |received: &crate::vrrp::packet::Received<'_>| {
                    let now = self.clock.now();
                    self.desk.handle_packet(interface, received, now);
                };
                // An interface that went away has its socket closed when links are read.
                if !matches!(wire.receive(&mut take), Ok(true)) {
                    break;
                }
            }
        }
        // After the adverts: who takes over has said so by now, perhaps.
        self.desk.handle_claims(&self.kernel.ears.claims(self.clock.now()), self.clock.now());
        for came in self.control.came() {
            self.obey(came);
        }
        if std::mem::take(&mut self.are_links_old) {
            self.read_links();
            self.set_macvlans();
        }
    }

    fn obey(&mut self, came: Came) {
        let at = self.clock.moment();
        match came {
            Came::Daemon => {
                let hello = Hello { build: build(), pid: std::process::id(), lacks: self.lacks.clone() };
                self.control.say(&Said::Hello(hello));
                self.tell_at = at.now;
            }
            Came::Told(Told::Order(order)) => {
                if self.stage == Stage::Serving {
                    self.take_order(order);
                }
            }
            Came::Told(Told::Yield(names)) => self.desk.handle_yield(&names, at.now),
            Came::Told(Told::Ready(names)) => self.desk.handle_ready(&names, at.now),
            Came::Told(Told::Stop) => {
                self.stage = Stage::Stopping;
                self.desk.handle_stop(at.now);
            }
            Came::Told(Told::Halt) => {
                self.stage = Stage::Stopping;
                self.desk.handle_halt(at.now);
            }
            Came::Told(Told::Release) => {
                self.stage = Stage::Released;
                self.desk.handle_release(at.now);
                self.renew_at = at.now;
            }
        }
    }

    fn take_order(&mut self, order: Order) {
        self.read_links();
        let at = self.clock.moment();
        self.order = Some(order.clone());
        if let Some(heir) = &mut self.heir {
            heir.tell_order(&order);
        }
        self.desk.handle_order(order, at);
        self.open_wires();
        // A router that ends, for it is to be another, says so by the socket that it had.
        self.perform();
        self.close_wires();
        self.set_macvlans();
        self.tell_at = at.now;
    }

    /// Routers that handed over begin as what they are to be.
    fn take_order_again(&mut self) {
        let Some(mut order) = self.order.clone() else { return };
        order.routers.values_mut().for_each(|router| router.resume = None);
        self.take_order(order);
    }

    /// Has somebody go on if this process is killed.
    fn keep_heir(&mut self) {
        if self.stage != Stage::Serving || self.heir.as_mut().is_some_and(Heir::is_alive) {
            return;
        }
        let Some(order) = &self.order else { return };
        // Without one the daemon starts another speaker, as long as there is a daemon.
        self.heir = Heir::start(self.place.socket()).ok();
        if let Some(heir) = &mut self.heir {
            heir.tell_order(order);
        }
    }

    fn read_links(&mut self) {
        let at = self.clock.moment();
        if let Ok(mut links) = self.kernel.links() {
            if self.desk.watches_data_plane() {
                note_strangers(&mut links, &PinDir::at(self.desk.pin_dir()));
            }
            self.desk.handle_links(links, at);
            self.close_wires();
            self.open_wires();
        }
    }

    /// A socket for each interface and family where a router speaks.
    fn open_wires(&mut self) {
        for place in self.desk.places() {
            let Some(link) = self.desk.link(&place.0) else { continue };
            if !self.wires.contains_key(&place)
                && let Ok(wire) = Wire::open(&place.0, link.ifindex, place.1)
            {
                self.wires.insert(place, wire);
            }
        }
    }

    /// Those of routers that are not there any more, and of interfaces.
    fn close_wires(&mut self) {
        let (places, desk) = (self.desk.places(), &self.desk);
        self.wires.retain(|place, wire| places.contains(place) && desk.link(&place.0).is_some_and(|link| link.ifindex == wire.ifindex));
    }

    /// Does what has to be done, and then away with macvlans that are not needed any more: the kernel takes 15 ms to remove one.
    fn perform(&mut self) {
        self.perform_all();
        while std::mem::take(&mut self.are_macvlans_old) {
            self.set_macvlans();
            self.perform_all();
        }
    }

    /// Does what has to be done, in its order.
    fn perform_all(&mut self) {
        while let Some(doing) = self.desk.poll_doing() {
            match doing {
                Doing::Transmit { interface, mac, ends, payload } => {
                    let frame = mac.and_then(|mac| advert(ends, &payload, mac)).zip(self.desk.link(&interface));
                    if frame.is_some_and(|(frame, link)| self.kernel.send_frame(&frame, link.ifindex).is_ok()) {
                        continue;
                    }
                    // A link that is down takes nothing; others notice the silence.
                    let wire = self.wires.get(&(interface, Family::of(ends.source)));
                    let _ = wire.map(|wire| wire.send(ends, &payload));
                }
                Doing::Add { router, addresses } => {
                    if addresses.iter().any(|address| self.desk.link(&address.device).is_none()) {
                        self.set_macvlans();
                    }
                    let refused = addresses.iter().find_map(|address| self.lease(address).err().map(|error| (address, error)));
                    self.await_local(&addresses);
                    // The kernel speaks from a macvlan as soon as that is on, and draws frames here: addresses are there by then.
                    if addresses.iter().any(|address| self.desk.link(&address.device).is_some_and(|link| link.macvlan_on.is_some())) {
                        self.set_macvlans();
                    }
                    if let Some((address, error)) = refused {
                        let words = format!("address {} is refused on {}: {error}", address.address, address.device);
                        let now = self.clock.now();
                        self.desk.handle_trouble(&router, Some(words), now);
                    }
                }
                Doing::Remove { addresses, is_handed_over: true } => {
                    for address in &addresses {
                        if let Some(link) = self.desk.link(&address.device).filter(|link| link.macvlan_on.is_some()) {
                            self.macvlans.silence(&address.device, link.ifindex, &mut self.kernel);
                        }
                    }
                    self.later.push((self.clock.now() + LINGERS, Later::GiveUp(addresses)));
                }
                Doing::Remove { addresses, is_handed_over: false } => {
                    addresses.iter().for_each(|address| self.give_up(address));
                    self.are_macvlans_old = true;
                }
                Doing::Announce { addresses } => {
                    self.announce(&addresses);
                    self.later.push((self.clock.now() + ANNOUNCED_AGAIN_AFTER, Later::Announce(addresses)));
                }
                Doing::Say(said) => {
                    self.control.say(&said);
                    let now = self.clock.now();
                    self.tell_at = self.told_at.map_or(now, |told_at| now.max(told_at + TOLD_GAP)).min(self.tell_at);
                }
            }
        }
    }

    /// Does what was put off, unless it is out of date.
    fn do_later(&mut self) {
        let now = self.clock.now();
        let due: Vec<Later> = self.later.extract_if(.., |(at, _)| *at <= now).map(|(_, later)| later).collect();
        if due.is_empty() {
            return;
        }
        let held: BTreeSet<IpAddr> = self.desk.held().iter().map(|one| one.address).collect();
        for later in due {
            match later {
                Later::GiveUp(addresses) => {
                    addresses.iter().filter(|one| !held.contains(&one.address)).for_each(|one| self.give_up(one));
                    self.set_macvlans();
                }
                Later::Announce(mut addresses) => {
                    addresses.retain(|one| held.contains(&one.address));
                    self.announce(&addresses);
                }
            }
        }
    }

    /// Gives the host an address, or renews it. One that it has for itself stays as it is.
    fn lease(&mut self, address: &AddressOrder) -> io::Result<()> {
        let link = self.desk.link(&address.device).ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        if is_somebody_elses(link, address.address) {
            return Ok(());
        }
        if link.macvlan_on.is_some()
            && let Some(owner) = self.desk.owner_of(address.address)
        {
            return Err(io::Error::new(
                io::ErrorKind::AddrInUse,
                format!("it is {owner}'s own, whose link-layer address neighbours would learn"),
            ));
        }
        self.kernel.lease(address, link)?;
        self.leases.note(address);
        Ok(())
    }

    /// Addresses of IPv6 are the host's only when a worker of the kernel has been there (linux v6.18 net/ipv6/addrconf.c, addrconf_dad_work): what the link
    /// is told before brings packets that nobody takes.
    fn await_local(&mut self, addresses: &[AddressOrder]) {
        let mut trials = 0;
        for address in addresses.iter().filter(|one| one.address.is_ipv6()) {
            let Some(link) = self.desk.link(&address.device) else { continue };
            while trials < LOCAL_TRIALS && !self.kernel.is_local(address.address, link.ifindex) {
                // The worker needs this CPU, perhaps.
                std::thread::sleep(LOCAL_TRIAL);
                trials += 1;
            }
        }
    }

    fn give_up(&mut self, address: &AddressOrder) {
        let given = self.leases.take(address);
        let Some(link) = self.desk.link(&given.device) else { return };
        if !is_somebody_elses(link, given.address) {
            let ifindex = link.ifindex;
            // What stays goes with its lease.
            let _ = self.kernel.remove(&given, ifindex);
        }
    }

    fn set_macvlans(&mut self) {
        let mut outcome = self.macvlans.set(&self.desk, &mut self.kernel);
        // What was made has to be turned on, too.
        for _ in 0..2 {
            if !outcome.has_changed {
                break;
            }
            self.read_links();
            outcome = self.macvlans.set(&self.desk, &mut self.kernel);
        }
        let now = self.clock.now();
        let before = std::mem::take(&mut self.without_macvlan);
        self.without_macvlan = outcome.refused.iter().map(|(router, _)| router.clone()).collect();
        // Its interface is there at last: it need not wait until all is tried again.
        for router in before.difference(&self.without_macvlan) {
            self.desk.handle_trouble(router, None, now);
        }
        for (router, words) in outcome.refused {
            self.desk.handle_trouble(&router, Some(words), now);
        }
    }

    fn announce(&self, addresses: &[AddressOrder]) {
        for _ in 0..BURST {
            for address in addresses {
                let Some(link) = self.desk.link(&address.device) else { continue };
                let Some(mac) = link.mac else { continue };
                for frame in announcement(address.address, mac, sender_on(&address.device)) {
                    let _ = self.kernel.send_frame(&frame, link.ifindex);
                }
            }
        }
    }

    /// Each second: addresses are renewed; now and then what the kernel refused is tried again.
    fn renew(&mut self) {
        let now = self.clock.now();
        if now < self.renew_at {
            return;
        }
        self.renew_at = now + RENEWED_EVERY;
        if now >= self.retry_at {
            self.retry_at = now + RETRIED_EVERY;
            for name in self.desk.troubled() {
                self.desk.handle_trouble(&name, None, now);
            }
        }
        self.macvlans.doubt();
        self.set_macvlans();
        for address in self.desk.held() {
            // Another one is tried in a second.
            let _ = self.lease(&address);
        }
        match self.place.keep() {
            Held::Ours => self.control.mend(),
            // Two of them would both answer for this node, and hear nothing of each other.
            Held::Anothers => {
                self.control.leave_name();
                self.stage = Stage::Released;
            }
        }
        self.desk.handle_silence(now);
        self.keep_heir();
        if self.order.is_none() && now.saturating_duration_since(self.began) > ORDERED_WITHIN {
            // Whoever started it has found another one.
            self.stage = Stage::Released;
        }
        // XDP programs come and go without a notification, and so do memberships.
        self.wires.retain(|_, wire| wire.is_joined());
        self.are_links_old = true;
        self.perform();
    }

    fn tell(&mut self) {
        let at = self.clock.moment();
        if at.now >= self.tell_at {
            (self.tell_at, self.told_at) = (at.now + TOLD_EVERY, Some(at.now));
            self.kernel.ears.listen_for(self.desk.watches());
            let view = self.desk.view(at);
            if let Some(heir) = &mut self.heir {
                heir.tell_views(&view);
            }
            self.control.say(&Said::View(view));
        }
    }

    fn wait(&self) -> io::Result<()> {
        let now = self.clock.now();
        let until = self
            .desk
            .poll_timeout()
            .into_iter()
            .chain([self.renew_at, self.tell_at])
            .chain(self.later.iter().map(|(at, _)| *at))
            .chain(self.kernel.ears.poll_timeout())
            .min()
            .unwrap_or(now);
        let timeout = if self.are_links_old { Duration::ZERO } else { until.saturating_duration_since(now) };
        let timeout = Timespec { tv_sec: timeout.as_secs() as i64, tv_nsec: i64::from(timeout.subsec_nanos()) };
        let sockets = self.wires.values().map(|wire| PollFd::new(wire, PollFlags::IN));
        let control: Vec<_> = self.control.fds().chain(self.kernel.ears.fds()).collect();
        let control = control.iter().map(|fd| PollFd::new(fd, PollFlags::IN));
        let news = self.kernel.news_fd();
        let mut fds: Vec<PollFd<'_>> = sockets.chain(control).chain([PollFd::new(&news, PollFlags::IN)]).collect();
        match poll(&mut fds, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// An XDP program that is not the one of the pins does nothing for us.
fn note_strangers(links: &mut BTreeMap<String, LinkState>, pins: &PinDir) {
    // While the pins are made anew, only the interface itself can be asked.
    let Some(attached) = Some(pins).filter(|pins| pins.is_loaded()).and_then(|pins| attached(pins).ok()) else { return };
    for (name, link) in links {
        let is_ours = attached.iter().any(|(one, state)| one == name && *state == dataplane::LinkState::Attached);
        link.has_xdp &= is_ours;
    }
}
