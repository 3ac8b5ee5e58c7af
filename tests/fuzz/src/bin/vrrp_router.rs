//! A virtual router and whatever befalls it: the model of its own properties holds after every event, nothing is due for ever, and where nobody else
//! speaks it becomes active.
#![no_main]

use std::{
    collections::BTreeSet,
    net::IpAddr,
    time::{Duration, Instant},
};

use lb_userspace::vrrp::{
    addresses::AddressList,
    machine::{FaultCause, Link, MOST_REMEMBERED, Output, Router, State},
    packet::Advert,
    settings::{Announcing, Claims, Identity, Preempt, Reach, Settings},
    terms::{Interval, Priority, RouterId, Version},
};
use libfuzzer_sys::{
    arbitrary::{Result, Unstructured},
    fuzz_target,
};

use self::model::Model;

#[path = "../../../../lb-userspace/src/vrrp/machine/tests/model.rs"]
mod model;

/// More would only repeat themselves.
const MOST_EVENTS: usize = 400;
/// So often at most something is due before a router that hears nobody is active, or has ended: each is an advert or a timer of its own.
const MOST_TIMERS: usize = 100;
/// Longer than the times below, the longest interval and three of what is heard.
const LONG_ENOUGH: Duration = Duration::from_hours(1);
const NUMBER: u8 = 51;

struct Bench {
    router: Router,
    model: Model,
    now: Instant,
    version: Version,
    is_v6: bool,
}

impl Bench {
    /// What was put out, held against the model.
    fn check(&mut self, before: State) {
        let outputs: Vec<Output> = std::iter::from_fn(|| self.router.poll_output()).collect();
        self.model.take(before, &outputs, &self.router);
        assert!(self.router.peers().count() <= MOST_REMEMBERED);
    }

    fn wait_until(&mut self, at: Instant) {
        let before = self.model.state();
        self.now = self.now.max(at);
        self.router.handle_timeout(self.now);
        assert!(self.router.poll_timeout().is_none_or(|at| at > self.now), "it is due for ever");
        self.check(before);
    }

    /// Goes from timer to timer, as a driver does, until so much time has passed.
    fn pass(&mut self, time: Duration, is_over: impl Fn(&Router) -> bool) {
        let until = self.now + time;
        for _ in 0..MOST_TIMERS {
            match self.router.poll_timeout().filter(|at| *at <= until) {
                Some(at) if !is_over(&self.router) => self.wait_until(at),
                Some(_) | None => return,
            }
        }
        panic!("{:?} after {MOST_TIMERS} timers", self.router.state());
    }
}

fn address(is_v6: bool, last: u8) -> IpAddr {
    if is_v6 { IpAddr::from([0xfe80, 0, 0, 0, 0, 0, 0, last.into()]) } else { IpAddr::from([192, 0, 2, last]) }
}

/// Addresses 100 to 107 as a mask.
fn list(is_v6: bool, mask: u8) -> AddressList {
    let addresses: Vec<IpAddr> = (0..8).filter(|bit| mask & 1 << bit != 0).map(|bit| address(is_v6, 100 + bit)).collect();
    AddressList::new(&addresses).expect("they differ and are of one family")
}

fn interval(version: Version, number: u8) -> Interval {
    let number = number.max(1);
    match version {
        Version::V2 => Interval::from_seconds(number),
        // From 10 ms to 40.95 s.
        Version::V3 => Interval::from_centiseconds((u16::from(number) * u16::from(number) / 16).max(1)),
    }
    .expect("it is not 0")
}

fn seconds(number: u8) -> Duration {
    Duration::from_secs(number.into())
}

fn settings(bytes: &mut Unstructured<'_>, version: Version, is_v6: bool) -> Result<Settings> {
    let switches: u8 = bytes.arbitrary()?;
    let is = |bit: u8| switches & 1 << bit != 0;
    Ok(Settings {
        primary: address(is_v6, if is(0) { 5 } else { 6 }),
        interval: interval(version, bytes.arbitrary()?),
        reach: if is(1) { Reach::Unicast([4, 6, 7].map(|last| address(is_v6, last)).into()) } else { Reach::Multicast },
        preempt: match (is(2), is(3)) {
            (false, false) => Preempt::AtOnce,
            (true, false) => Preempt::Never,
            (_, true) => Preempt::After(seconds(bytes.arbitrary()?)),
        },
        start_delay: if is(4) { seconds(bytes.arbitrary()?) } else { Duration::ZERO },
        yield_hold: if is(5) { Some(seconds(bytes.arbitrary()?)) } else { None },
        announcing: if is(6) {
            let [again, every, gap]: [u8; 3] = bytes.arbitrary()?;
            let some = |number| (number != 0).then(|| seconds(number));
            Announcing { again_after: some(again), every: some(every), least_gap: Duration::from_millis(gap.into()) }
        } else {
            Announcing::default()
        },
        claims: if is(7) { Claims::WithGroup } else { Claims::Alone },
    })
}

fn advert(bytes: &mut Unstructured<'_>, version: Version, is_v6: bool) -> Result<(u8, Advert)> {
    let [from, priority, number, mask]: [u8; 4] = bytes.arbitrary()?;
    let router = if from & 0x80 == 0 { NUMBER } else { 1 };
    let advert = Advert {
        version: if from & 0x40 == 0 { version } else { Version::V2 },
        router: RouterId::new(router).expect("it is not 0"),
        priority: priority.into(),
        interval: interval(version, number),
        addresses: list(is_v6, mask),
    };
    Ok((from & 0x3f, advert))
}

fn cause(number: u8) -> FaultCause {
    [FaultCause::Tracked, FaultCause::Group, FaultCause::Driver][usize::from(number) % 3]
}

/// One event, by the byte that names it and those that follow.
fn event(bench: &mut Bench, bytes: &mut Unstructured<'_>) -> Result<()> {
    let before = bench.model.state();
    let (version, is_v6, now) = (bench.version, bench.is_v6, bench.now);
    let router = &mut bench.router;
    match bytes.arbitrary::<u8>()? % 18 {
        0 => {
            let ms: u16 = bytes.arbitrary()?;
            bench.wait_until(now + Duration::from_millis(ms.into()));
        }
        1 | 2 => {
            if let Some(at) = router.poll_timeout() {
                bench.wait_until(at);
            }
        }
        3 => {
            let held = list(is_v6, bytes.arbitrary()?);
            if before == State::Initialize {
                bench.model.finds(held.as_slice());
            }
            router.handle_start(held.as_slice(), now);
        }
        4 => router.handle_stop(now),
        5 => router.handle_halt(now),
        6 => router.handle_yield(now),
        7 => router.handle_ready(now),
        8 => router.handle_grant(now),
        9 => router.handle_resign(now),
        10 => router.handle_link(Link::Down, now),
        11 => router.handle_link(Link::Up, now),
        12 => router.handle_fault(cause(bytes.arbitrary()?), now),
        13 => router.handle_fault_over(cause(bytes.arbitrary()?), now),
        14 => router.handle_priority(Priority::new(bytes.arbitrary()?).unwrap_or(Priority::LOWEST), now),
        15 => router.handle_addresses(list(is_v6, bytes.arbitrary()?), now).expect("they are of the family"),
        16 => router.handle_settings(settings(bytes, version, is_v6)?, now).expect("they fit"),
        _ => {
            let (from, advert) = advert(bytes, version, is_v6)?;
            let (heard, state) = (router.tally().heard, router.state());
            let source = address(is_v6, from);
            match router.handle_advert(source, &advert, now) {
                Ok(()) => assert_eq!(router.tally().heard, heard + 1),
                // What counts for nothing changes nothing but what time alone changes.
                Err(_) => assert!(router.tally().heard == heard && (router.state() == state || state.holds_addresses())),
            }
        }
    }
    bench.check(before);
    Ok(())
}

/// A router that is well and hears nobody is active in the end, or asks its group; one that stops, has ended.
fn ends_well(bench: &mut Bench) {
    let is_settled = |router: &Router| matches!(router.state(), State::Initialize | State::Active) || router.is_claiming();
    bench.pass(LONG_ENOUGH, is_settled);
    let router = &bench.router;
    assert!(is_settled(router) || router.state() == State::Fault, "{:?}", router.state());
    let held = router.held().clone();
    let state = bench.model.state();
    if state == State::Active {
        assert_eq!(held, bench.router.addresses().as_slice().iter().copied().collect());
        assert_eq!(bench.router.active_router(), Some(bench.router.settings().primary));
    }
    bench.router.handle_halt(bench.now);
    bench.check(state);
    assert_eq!((bench.router.state(), bench.router.poll_timeout()), (State::Initialize, None));
}

fn run(bytes: &mut Unstructured<'_>) -> Result<()> {
    let [form, priority, mask]: [u8; 3] = bytes.arbitrary()?;
    let (version, is_v6) = [(Version::V3, false), (Version::V3, true), (Version::V2, false)][usize::from(form) % 3];
    let identity = Identity { router: RouterId::new(NUMBER).expect("it is not 0"), version };
    let settings = settings(bytes, version, is_v6)?;
    let priority = Priority::new(priority).unwrap_or(Priority::LOWEST);
    let now = Instant::now();
    let router = Router::new(identity, settings, priority, list(is_v6, mask), now).expect("they fit");
    let mut bench = Bench { router, model: Model::default(), now, version, is_v6 };
    for _ in 0..MOST_EVENTS {
        if bytes.is_empty() || event(&mut bench, bytes).is_err() {
            break;
        }
    }
    ends_well(&mut bench);
    Ok(())
}

fuzz_target!(|data: &[u8]| {
    // An input too short to make a router of is none.
    _ = run(&mut Unstructured::new(data));
});
