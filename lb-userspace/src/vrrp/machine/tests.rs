#![allow(clippy::disallowed_methods, reason = "an instant can be had from the clock alone")]

mod model;
mod properties;
mod table;

use super::*;
use crate::vrrp::{
    packet::Advert,
    refusal::Refusal,
    settings::{Announcing, Claims, Preempt, Reach},
    terms::{Interval, RouterId, Version},
};

const INTERVAL: Duration = Duration::from_millis(100);

fn ip(last: u8) -> IpAddr {
    IpAddr::from([192, 0, 2, last])
}

fn priority(number: u8) -> Priority {
    Priority::new(number).unwrap()
}

fn list(lasts: &[u8]) -> AddressList {
    AddressList::new(&lasts.iter().map(|last| ip(*last)).collect::<Vec<_>>()).unwrap()
}

fn identity() -> Identity {
    Identity { router: RouterId::new(51).unwrap(), version: Version::V3 }
}

fn settings() -> Settings {
    Settings {
        primary: ip(5),
        interval: Interval::new(INTERVAL, Version::V3).unwrap(),
        reach: Reach::Multicast,
        preempt: Preempt::AtOnce,
        start_delay: Duration::ZERO,
        yield_hold: Some(Duration::from_secs(60)),
        announcing: Announcing::default(),
        claims: Claims::Alone,
    }
}

/// A router of priority 100 at 192.0.2.5 with address 192.0.2.100, and its time.
struct Bench {
    router: Router,
    now: Instant,
}

impl Bench {
    fn new(settings: Settings) -> Self {
        let now = Instant::now();
        Self { router: Router::new(identity(), settings, priority(100), list(&[100]), now).unwrap(), now }
    }

    fn started(settings: Settings) -> Self {
        let mut bench = Self::new(settings);
        bench.router.handle_start(&[], bench.now);
        bench.said();
        bench
    }

    fn active(settings: Settings) -> Self {
        let mut bench = Self::started(settings);
        bench.until_due();
        assert_eq!(bench.router.state(), State::Active);
        bench
    }

    /// What was put out since, in words.
    fn said(&mut self) -> Vec<String> {
        std::iter::from_fn(|| self.router.poll_output()).map(|output| words(&output)).collect()
    }

    /// Waits for what is due.
    fn until_due(&mut self) -> Vec<String> {
        self.now = self.router.poll_timeout().expect("nothing is due");
        self.router.handle_timeout(self.now);
        self.said()
    }

    fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        while let Some(at) = self.router.poll_timeout().filter(|at| *at <= until) {
            self.now = at;
            self.router.handle_timeout(at);
        }
        self.now = until;
    }

    fn hears(&mut self, last: u8, number: u8) -> Vec<String> {
        self.router.handle_advert(ip(last), &advert(number), self.now).unwrap();
        self.said()
    }

    /// How long until something is due.
    fn due_in(&self) -> Duration {
        self.router.poll_timeout().unwrap() - self.now
    }
}

fn advert(number: u8) -> Advert {
    Advert {
        version: Version::V3,
        router: identity().router,
        priority: number.into(),
        interval: settings().interval,
        addresses: list(&[100]),
    }
}

fn words(output: &Output) -> String {
    let lasts = |addresses: &[IpAddr]| {
        addresses.iter().map(|address| address.to_string().rsplit('.').next().unwrap().to_owned()).collect::<Vec<_>>().join(" ")
    };
    match output {
        Output::Send { advert, .. } => format!("advert {}", advert.priority.number()),
        Output::AddAddresses(addresses) => format!("add {}", lasts(addresses)),
        Output::RemoveAddresses(addresses) => format!("remove {}", lasts(addresses)),
        Output::Announce(addresses) => format!("announce {}", lasts(addresses)),
        Output::Transition(Transition { from, to, reason }) => format!("{from:?} to {to:?} ({reason})"),
        Output::Conflict(peer, conflict) => format!("conflict {peer} {conflict:?}"),
        Output::ConflictOver(peer, conflict) => format!("conflict over {peer} {conflict:?}"),
    }
}

#[test]
fn an_advert_with_a_long_interval_is_forgotten_when_another_one_turns_out_to_be_active() {
    let mut bench = Bench::active(settings());
    let long = Advert { interval: Interval::from_centiseconds(4095).unwrap(), ..advert(255) };
    bench.router.handle_advert(ip(9), &long, bench.now).unwrap();
    assert_eq!(bench.router.state(), State::Backup);
    bench.pass(Duration::from_secs(1));
    bench.hears(6, 50);
    // RFC 9568 s6.4.2 would have it wait for 123 s, though it has precedence over the one that is there.
    bench.pass(INTERVAL * 2);
    bench.hears(6, 50);
    assert_eq!(bench.router.state(), State::Backup);
    bench.pass(INTERVAL * 2);
    assert_eq!((bench.router.state(), bench.router.since().1), (State::Active, Reason::Preempts));
}

#[test]
fn a_refresh_that_is_chosen_later_counts_from_then_on() {
    let never = Announcing { again_after: None, every: None, ..Announcing::default() };
    let mut bench = Bench::active(Settings { announcing: never, ..settings() });
    bench.said();
    let often = Announcing { every: Some(Duration::from_secs(1)), ..never };
    bench.router.handle_settings(Settings { announcing: often, ..settings() }, bench.now).unwrap();
    let mut announced = 0;
    for _ in 0..31 {
        bench.pass(INTERVAL);
        announced += bench.said().iter().filter(|said| *said == "announce 100").count();
    }
    assert_eq!(announced, 3);
}

#[test]
fn a_backup_that_hears_two_active_routers_says_so_until_one_is_left() {
    let mut bench = Bench::started(settings());
    let mut said = Vec::new();
    for _ in 0..5 {
        said.extend(bench.hears(6, 150));
        said.extend(bench.hears(7, 140));
        bench.pass(INTERVAL / 2);
    }
    assert_eq!(said, ["conflict 192.0.2.7 Beside", "conflict 192.0.2.6 Beside"]);
    // A hand-over has two for an advert or so.
    bench.pass(INTERVAL * 2);
    assert_eq!(bench.hears(6, 150), [] as [String; 0]);
    assert!(bench.router.peers().all(|(_, peer)| peer.conflicts.is_empty() || peer.heard_at < bench.now));
    let mut over = Vec::new();
    for _ in 0..110 {
        bench.pass(INTERVAL);
        over.extend(bench.hears(6, 150));
    }
    assert_eq!(over, ["conflict over 192.0.2.6 Beside", "conflict over 192.0.2.7 Beside"]);
    let mut bench = Bench::started(settings());
    bench.hears(6, 150);
    bench.hears(7, 160);
    assert_eq!([bench.hears(6, 150), bench.hears(7, 160)].concat(), [] as [String; 0]);
}

#[test]
fn a_flood_of_forged_sources_pushes_no_peer_out_and_is_forgotten() {
    let mut bench = Bench::started(settings());
    for _ in 0..5 {
        bench.hears(6, 150);
    }
    for forged in 0..300_u16 {
        let source = IpAddr::from([10, 0, (forged >> 8) as u8, forged as u8]);
        bench.router.handle_advert(source, &advert(150), bench.now).unwrap();
    }
    bench.hears(6, 150);
    let adverts = |bench: &Bench| bench.router.peers().find(|(source, _)| **source == ip(6)).map(|(_, peer)| peer.adverts);
    assert_eq!((adverts(&bench), bench.router.peers().count()), (Some(6), 64));
    bench.pass(Duration::from_secs(61));
    bench.hears(6, 150);
    assert_eq!((adverts(&bench), bench.router.peers().count()), (Some(7), 1));
}

#[test]
fn backup_takes_over_after_active_down_interval() {
    let mut bench = Bench::started(settings());
    bench.hears(9, 200);
    assert_eq!(bench.due_in(), 3 * INTERVAL + INTERVAL * 156 / 256);
    assert_eq!(bench.until_due(), ["add 100", "announce 100", "advert 100", "Backup to Active (no active router was heard)"]);
}

#[test]
fn backup_takes_over_after_its_skew_when_the_active_router_resigns() {
    let mut bench = Bench::started(settings());
    bench.hears(9, 200);
    bench.hears(9, 0);
    assert_eq!(bench.due_in(), INTERVAL * 156 / 256);
    // Said once more, it takes no longer.
    bench.pass(Duration::from_millis(30));
    bench.hears(9, 0);
    assert_eq!(bench.due_in(), INTERVAL * 156 / 256 - Duration::from_millis(30));
    assert_eq!(bench.until_due()[3], "Backup to Active (the active router resigned)");
}

#[test]
fn backup_adopts_the_interval_of_the_active_router() {
    for version in [Version::V3, Version::V2] {
        let second = Interval::new(Duration::from_secs(1), version).unwrap();
        let two = Interval::new(Duration::from_secs(2), version).unwrap();
        let of = Settings { interval: second, ..settings() };
        let mut bench = Bench::new(of.clone());
        bench.router = Router::new(Identity { version, ..identity() }, of, priority(192), list(&[100]), bench.now).unwrap();
        bench.router.handle_start(&[], bench.now);
        bench.said();
        bench.router.handle_advert(ip(9), &Advert { version, interval: two, ..advert(200) }, bench.now).unwrap();
        assert_eq!(bench.said(), ["conflict 192.0.2.9 Interval"]);
        // The skew of version 2 is a part of a second.
        let skew = if version == Version::V3 { 500 } else { 250 };
        assert_eq!(bench.due_in(), Duration::from_millis(6000 + skew));
    }
}

#[test]
fn addresses_are_kept_until_the_taker_adverts() {
    let mut bench = Bench::active(settings());
    bench.router.handle_yield(bench.now);
    assert_eq!(bench.said(), ["advert 0", "Active to Yielding (told to yield)"]);
    assert_eq!(bench.until_due(), ["advert 0"]);
    assert_eq!(bench.hears(9, 0), [""; 0]);
    assert_eq!(bench.hears(9, 50), ["remove 100", "Yielding to Backup (192.0.2.9 took over)"]);
    // It does not preempt straight back, but serves if the taker dies.
    for _ in 0..50 {
        bench.pass(INTERVAL);
        assert_eq!(bench.hears(9, 50), [""; 0]);
    }
    bench.pass(4 * INTERVAL);
    assert_eq!(bench.router.state(), State::Active);
}

#[test]
fn a_router_that_yielded_preempts_when_it_is_ready_or_its_hold_ends() {
    for is_told in [true, false] {
        let hold = if is_told { None } else { Some(Duration::from_secs(1)) };
        let mut bench = Bench::active(Settings { yield_hold: hold, ..settings() });
        bench.router.handle_yield(bench.now);
        bench.hears(9, 50);
        for _ in 0..9 {
            bench.pass(INTERVAL);
            bench.hears(9, 50);
            assert_eq!(bench.router.state(), State::Backup);
        }
        if is_told {
            bench.router.handle_ready(bench.now);
        }
        assert!(!bench.router.is_on_hold(bench.now + INTERVAL));
        let takes = (0..6).find(|_| {
            bench.pass(INTERVAL);
            bench.hears(9, 50);
            bench.router.state() == State::Active
        });
        // The last advert that was taken came after 900 ms.
        assert_eq!(takes, Some(3), "{is_told}");
    }
}

#[test]
fn a_router_that_nobody_relieves_stays_active_or_ends_as_it_was_told() {
    let mut bench = Bench::active(settings());
    bench.router.handle_yield(bench.now);
    bench.said();
    let asked = bench.now;
    let said: Vec<_> = std::iter::from_fn(|| (bench.router.state() == State::Yielding).then(|| bench.until_due())).flatten().collect();
    assert_eq!(said, ["advert 0", "advert 0", "advert 0", "announce 100", "advert 100", "Yielding to Active (nobody took over)"]);
    assert_eq!(bench.now - asked, 3 * INTERVAL + INTERVAL * 255 / 256);
    assert!(!bench.router.is_on_hold(bench.now));

    bench.router.handle_stop(bench.now);
    assert_eq!(bench.said(), ["advert 0", "Active to Yielding (stopped)"]);
    bench.pass(4 * INTERVAL);
    assert_eq!(bench.said(), ["advert 0", "advert 0", "advert 0", "remove 100", "Yielding to Initialize (nobody took over)"]);
    assert_eq!(bench.router.poll_timeout(), None);
}

#[test]
fn a_router_that_sleeps_longer_than_any_backup_waits_does_not_serve_on() {
    let late = timing::late_after(Version::V3, INTERVAL);
    let nanosecond = Duration::from_nanos(1);
    let mut bench = Bench::active(settings());
    bench.now = bench.router.poll_timeout().unwrap() + late;
    bench.router.handle_timeout(bench.now);
    assert_eq!(bench.said(), ["advert 100"]);

    for hears_first in [false, true] {
        let mut bench = Bench::active(settings());
        bench.now = bench.router.poll_timeout().unwrap() + late + nanosecond;
        if hears_first {
            // What came meanwhile is read first.
            assert_eq!(bench.hears(9, 50), ["remove 100", "Active to Backup (woke too late to go on)"]);
        } else {
            bench.router.handle_timeout(bench.now);
            assert_eq!(bench.said(), ["remove 100", "Active to Backup (woke too late to go on)"]);
        }
        assert_eq!(bench.due_in(), 3 * INTERVAL + INTERVAL * 156 / 256);
    }
}

#[test]
fn a_backup_that_slept_has_not_listened() {
    let mut bench = Bench::started(settings());
    bench.now = bench.router.poll_timeout().unwrap() + Duration::from_secs(1);
    bench.router.handle_timeout(bench.now);
    assert_eq!(bench.said(), [""; 0]);
    assert_eq!(bench.due_in(), 3 * INTERVAL + INTERVAL * 156 / 256);
}

#[test]
fn addresses_of_an_earlier_process_stay_until_a_peer_is_heard() {
    let mut bench = Bench::new(settings());
    bench.router.handle_start(&[ip(100), ip(101)], bench.now);
    assert_eq!(bench.said(), ["remove 101", "Initialize to HeldOver (started)"]);
    assert_eq!(bench.until_due(), ["announce 100", "advert 100", "HeldOver to Active (no active router was heard)"]);

    let mut bench = Bench::new(settings());
    bench.router.handle_start(&[ip(100)], bench.now);
    bench.said();
    assert_eq!(bench.hears(9, 50), ["advert 1", "remove 100", "HeldOver to Backup (192.0.2.9 is active)"]);
    // It has precedence, and preempts when it has listened.
    assert_eq!(bench.until_due()[3], "Backup to Active (the active router has a lower priority)");
}

#[test]
fn no_preempt_leaves_a_lower_priority_alone_and_an_owner_does_not() {
    for (number, becomes) in [(100, State::Backup), (255, State::Active)] {
        let mut bench = Bench::new(Settings { preempt: Preempt::Never, ..settings() });
        bench.router.handle_start(&[], bench.now);
        bench.router.handle_priority(priority(number), bench.now);
        for _ in 0..6 {
            bench.hears(9, 50);
            bench.pass(INTERVAL);
        }
        assert_eq!(bench.router.state(), becomes);
    }
}

#[test]
fn preempt_delay_counts_from_the_first_advert_of_lower_priority() {
    let mut bench = Bench::started(Settings { preempt: Preempt::After(Duration::from_secs(1)), ..settings() });
    let mut took = Duration::ZERO;
    while bench.router.state() == State::Backup {
        bench.hears(9, 50);
        bench.pass(INTERVAL);
        took += INTERVAL;
    }
    // The last advert that was taken came after 900 ms.
    assert_eq!(took, Duration::from_millis(1300));
    // If the other dies, nothing is waited for but its silence.
    let mut bench = Bench::started(Settings { preempt: Preempt::After(Duration::from_secs(1)), ..settings() });
    bench.hears(9, 50);
    assert_eq!(bench.due_in(), 3 * INTERVAL + INTERVAL * 156 / 256);
}

#[test]
fn nothing_is_claimed_before_the_start_delay_has_passed() {
    for number in [100, 255] {
        let mut bench = Bench::new(Settings { start_delay: Duration::from_secs(2), ..settings() });
        bench.router.handle_priority(priority(number), bench.now);
        bench.router.handle_start(&[], bench.now);
        bench.hears(9, 0);
        assert_eq!(bench.due_in(), Duration::from_secs(2));
        assert!(bench.until_due()[3].starts_with("Backup to Active"));
    }
}

#[test]
fn equal_priorities_are_decided_by_the_address() {
    let mut bench = Bench::active(settings());
    assert_eq!(bench.hears(4, 100), ["advert 100", "announce 100"]);
    let said = bench.hears(6, 100);
    assert_eq!(said, ["advert 100", "remove 100", "Active to Backup (192.0.2.6 has the same priority and a greater address)"]);
}

#[test]
fn an_owner_stays_whoever_else_says_to_be_one() {
    let mut bench = Bench::new(settings());
    bench.router.handle_priority(Priority::OWNER, bench.now);
    bench.router.handle_start(&[], bench.now);
    let began = ["add 100", "announce 100", "advert 255", "Initialize to Active (started as the owner of the addresses)"];
    assert_eq!(bench.said(), began);
    assert_eq!(bench.hears(4, 255), ["conflict 192.0.2.4 Owner", "announce 100"]);
    assert_eq!(bench.hears(6, 255), ["conflict 192.0.2.6 Owner", "announce 100"]);
    assert_eq!(bench.hears(6, 254), ["advert 255", "announce 100"]);
    assert_eq!(bench.router.state(), State::Active);
    bench.router.handle_yield(bench.now);
    bench.said();
    bench.hears(6, 254);
    assert_eq!(bench.router.state(), State::Backup);
}

#[test]
fn what_can_be_no_router_is_not_believed() {
    let hear = |source: IpAddr, number: u8| {
        let mut bench = Bench::active(settings());
        let heard = bench.router.handle_advert(source, &advert(number), bench.now);
        assert_eq!(bench.router.tally().heard, u64::from(heard.is_ok()));
        heard
    };
    for source in ["0.0.0.0", "224.0.0.18", "255.255.255.255", "127.0.0.1", "192.0.2.100"] {
        assert_eq!(hear(source.parse().unwrap(), 200), Err(Refusal::Source), "{source}");
    }
    // The owner of an address speaks from there.
    assert_eq!([hear(ip(100), 255), hear(ip(100), 0)], [Ok(()), Ok(())]);

    let identity = Identity { version: Version::V3, ..identity() };
    let v6 = |last: u16| IpAddr::from([0xfe80, 0, 0, 0, 0, 0, 0, last]);
    let global = |last: u16| IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, last]);
    let addresses = AddressList::new(&[v6(100), global(100)]).unwrap();
    let now = Instant::now();
    let group = Settings { primary: v6(5), ..settings() };
    let unicast = Settings { reach: Reach::Unicast([global(9)].into()), ..group.clone() };
    for (settings, heard) in [(group, [Ok(()), Err(Refusal::Source)]), (unicast, [Err(Refusal::NotAPeer), Ok(())])] {
        let mut router = Router::new(identity, settings, priority(100), addresses.clone(), now).unwrap();
        router.handle_start(&[], now);
        let advert = Advert { addresses: addresses.clone(), ..advert(200) };
        assert_eq!([v6(9), global(9)].map(|source| router.handle_advert(source, &advert, now)), heard);
        assert!([v6(100), global(100), "::".parse().unwrap()].iter().all(|source| router.handle_advert(*source, &advert, now).is_err()));
    }
}

#[test]
fn conflicts_are_told_once_and_end() {
    let mut bench = Bench::active(settings());
    let other = Advert { addresses: list(&[100, 101]), ..advert(200) };
    for expected in
        [&["conflict 192.0.2.9 Addresses", "advert 100", "remove 100", "Active to Backup (192.0.2.9 has a higher priority)"][..], &[]]
    {
        bench.router.handle_advert(ip(9), &other, bench.now).unwrap();
        assert_eq!(bench.said(), expected);
    }
    bench.router.handle_addresses(list(&[101, 100]), bench.now).unwrap();
    bench.router.handle_advert(ip(9), &other, bench.now).unwrap();
    assert_eq!(bench.said(), [] as [String; 0]);
    assert!(bench.router.peers().all(|(_, peer)| peer.conflicts.is_empty()));
    for _ in 0..101 {
        bench.pass(INTERVAL);
        bench.router.handle_advert(ip(9), &other, bench.now).unwrap();
    }
    assert_eq!(bench.said(), ["conflict over 192.0.2.9 Addresses"]);

    let own = bench.router.handle_advert(ip(5), &other, bench.now);
    assert_eq!((own, bench.said()), (Err(Refusal::OwnAddress), vec!["conflict 192.0.2.5 SameAddress".to_owned()]));
    bench.pass(104 * INTERVAL);
    assert!(bench.said().contains(&"conflict over 192.0.2.5 SameAddress".to_owned()));
}

#[test]
fn a_flood_of_conflicts_is_not_told_as_a_flood() {
    let mut bench = Bench::active(settings());
    let mut said = Vec::new();
    for number in 0..5000_u16 {
        bench.pass(Duration::from_millis(1));
        // One whose addresses come and go, and others of which each speaks twice.
        let other = Advert { addresses: list(&[100, 101]), interval: Interval::from_centiseconds(10).unwrap(), ..advert(50) };
        let first = if number % 2 == 0 { other.clone() } else { advert(50) };
        bench.router.handle_advert(ip(9), &first, bench.now).unwrap();
        let [high, low] = (number / 2).to_be_bytes();
        bench.router.handle_advert(IpAddr::from([192, 1, high, low]), &other, bench.now).unwrap();
        said.extend(bench.said().into_iter().filter(|said| said.contains("conflict")));
    }
    assert!(said.len() <= 16, "{} {said:?}", said.len());
    assert!(said.contains(&"conflict 192.0.2.9 Addresses".to_owned()));
}

#[test]
fn a_peer_that_stays_active_without_precedence_is_told() {
    let mut bench = Bench::active(settings());
    let said: Vec<_> = (0..6)
        .flat_map(|_| {
            bench.pass(INTERVAL);
            bench.hears(9, 50)
        })
        .filter(|said| said.contains("conflict"))
        .collect();
    assert_eq!(said, ["conflict 192.0.2.9 DoesNotHear"]);
}

#[test]
fn lower_priorities_are_answered_at_once_and_announced_against_once_a_second() {
    let mut bench = Bench::active(settings());
    let start = bench.now;
    let mut announced = Vec::new();
    while bench.now - start < Duration::from_millis(3900) {
        bench.pass(Duration::from_millis(50));
        let said = [bench.said(), bench.hears(9, 50)].concat();
        assert!(said.contains(&"advert 100".to_owned()));
        if said.contains(&"announce 100".to_owned()) {
            announced.push((bench.now - start).as_millis());
        }
    }
    // Sixteen at once, then those that have been put off.
    assert_eq!((announced[..16].last(), &announced[16..]), (Some(&800), &[1050, 2050, 3050][..]));
    // A router that answers answers is not answered without end.
    let answers: usize = (0..1000).map(|_| bench.hears(9, 50).iter().filter(|said| *said == "advert 100").count()).sum();
    assert_eq!(answers, 0);
}

#[test]
fn addresses_are_announced_again_and_refreshed() {
    let mut bench = Bench::active(settings());
    let start = bench.now;
    let mut times = Vec::new();
    while bench.now - start < Duration::from_secs(130) {
        if bench.until_due().contains(&"announce 100".to_owned()) {
            times.push((bench.now - start).as_secs());
        }
    }
    assert_eq!(times, [5, 65, 125]);
}

#[test]
fn what_was_owed_to_the_link_before_a_yield_is_told_with_the_return() {
    let mut bench = Bench::active(settings());
    // The seventeenth has to wait for a second.
    let answers: Vec<String> = (0..17).flat_map(|_| bench.hears(9, 50)).collect();
    assert_eq!(answers.iter().filter(|said| *said == "announce 100").count(), 16);
    bench.pass(7 * INTERVAL);
    bench.router.handle_yield(bench.now);
    bench.said();
    while bench.router.state() == State::Yielding {
        bench.until_due();
    }
    assert!(bench.due_in() > Duration::ZERO, "it is told twice");
}

#[test]
fn a_link_that_comes_up_under_an_active_router_is_told_at_once() {
    let mut bench = Bench::active(settings());
    bench.router.handle_link(Link::Up, bench.now);
    assert_eq!(bench.said(), ["announce 100", "advert 100"]);
}

#[test]
fn addresses_change_under_an_active_router() {
    let mut bench = Bench::active(settings());
    bench.router.handle_addresses(list(&[101, 102]), bench.now).unwrap();
    assert_eq!(bench.said(), ["add 101 102", "announce 101 102", "remove 100", "advert 100"]);
    bench.router.handle_addresses(list(&[101, 102]), bench.now).unwrap();
    assert_eq!(bench.said(), [""; 0]);
    let six: IpAddr = "2001:db8::1".parse().unwrap();
    let wrong = bench.router.handle_addresses(AddressList::new(&[six]).unwrap(), bench.now);
    assert_eq!(wrong, Err(SetupError::Family(six)));
    bench.router.handle_addresses(list(&[]), bench.now).unwrap();
    assert_eq!(bench.said(), ["advert 0", "remove 101 102", "Active to Fault (there is no address)"]);
    bench.router.handle_addresses(list(&[7]), bench.now).unwrap();
    assert_eq!(bench.said(), ["Fault to Backup (the fault is over)"]);
}

#[test]
fn unicast_adverts_go_to_every_peer_and_come_from_them_alone() {
    let reach = Reach::Unicast([ip(8), ip(9)].into());
    let mut bench = Bench::active(Settings { reach, ..settings() });
    bench.now = bench.router.poll_timeout().unwrap();
    bench.router.handle_timeout(bench.now);
    let to: Vec<_> = std::iter::from_fn(|| bench.router.poll_output())
        .filter_map(|output| if let Output::Send { to, .. } = output { Some(to) } else { None })
        .collect();
    assert_eq!(to, [ip(8), ip(9)]);
    assert_eq!(bench.router.handle_advert(ip(7), &advert(200), bench.now), Err(Refusal::NotAPeer));
    assert_eq!(bench.hears(9, 200)[2], "remove 100");
    assert_eq!(bench.router.tally(), Tally { sent: 6, heard: 1, became_active: 1 });
}

#[test]
fn adverts_of_others_are_refused() {
    let mut bench = Bench::active(settings());
    let other = Advert { router: RouterId::new(52).unwrap(), ..advert(200) };
    assert_eq!(bench.router.handle_advert(ip(9), &other, bench.now), Err(Refusal::OtherRouter));
    let two = Advert { version: Version::V2, ..advert(200) };
    assert_eq!(bench.router.handle_advert(ip(9), &two, bench.now), Err(Refusal::Version));
    assert_eq!(bench.said(), [""; 0]);
}

#[test]
fn peers_are_bounded() {
    let mut bench = Bench::started(settings());
    for number in 0..200_u8 {
        bench.now += Duration::from_millis(1);
        bench.router.handle_advert(IpAddr::from([10, 0, 0, number]), &advert(200), bench.now).unwrap();
    }
    assert_eq!(bench.router.peers().count(), MOST_REMEMBERED);
    assert!(bench.router.peers().all(|(peer, _)| *peer >= IpAddr::from([10, 0, 0, 136])));
}

#[test]
fn a_longer_interval_begins_in_the_old_rhythm() {
    let mut bench = Bench::active(settings());
    let interval = Interval::new(Duration::from_secs(1), Version::V3).unwrap();
    bench.router.handle_settings(Settings { interval, ..settings() }, bench.now).unwrap();
    assert_eq!(bench.said(), ["advert 100"]);
    let waits: Vec<_> = (0..5)
        .map(|_| {
            let wait = bench.due_in();
            assert_eq!(bench.until_due(), ["advert 100"]);
            wait.as_millis()
        })
        .collect();
    assert_eq!(waits, [100, 100, 100, 1000, 1000]);
    bench.router.handle_settings(settings(), bench.now).unwrap();
    assert_eq!(bench.due_in(), INTERVAL);
}

#[test]
fn it_is_known_who_is_active() {
    let mut bench = Bench::started(settings());
    assert_eq!(bench.router.active_router(), None);
    bench.hears(9, 50);
    assert_eq!(bench.router.active_router(), Some(ip(9)));
    bench.hears(8, 0);
    assert_eq!(bench.router.active_router(), Some(ip(9)));
    bench.hears(9, 0);
    assert_eq!(bench.router.active_router(), None);
    bench.until_due();
    assert_eq!(bench.router.active_router(), Some(ip(5)));
    bench.hears(9, 200);
    assert_eq!(bench.router.active_router(), Some(ip(9)));
}
