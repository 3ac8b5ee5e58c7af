use proptest::prelude::*;

use super::*;
use crate::health::outcome::Layer;

const MS: fn(u64) -> Duration = Duration::from_millis;
const PACE: Pace = Pace {
    interval: Duration::from_millis(1000),
    interval_unsure: Duration::from_millis(200),
    interval_down: Duration::from_millis(3000),
    timeout: Duration::from_millis(200),
    rise: 2,
    fall: 3,
};

fn web() -> ServerName {
    ServerName::new("web", "a")
}

fn epoch() -> Instant {
    #[allow(clippy::disallowed_methods, reason = "an instant can be had from the clock alone; all others are counted from it")]
    Instant::now()
}

/// A monitor of one server, and a server that answers after a time.
struct Trial {
    start: Instant,
    now: Instant,
    monitor: Monitor,
    starts: Vec<u64>,
    changes: Vec<(u64, bool, u16)>,
    notes: Vec<(u64, Note)>,
    /// How it is well.
    sign: Sign,
}

impl Trial {
    fn new(presumption: Presumption) -> Self {
        let start = epoch();
        let mut monitor = Monitor::new(7);
        monitor.set(&[(web(), PACE)].into(), |_| presumption, start);
        Self { start, now: start, monitor, starts: Vec::new(), changes: Vec::new(), notes: Vec::new(), sign: Sign::Answer }
    }

    fn at(&self) -> u64 {
        (self.now - self.start).as_millis() as u64
    }

    /// Runs until `until`, milliseconds from the start; each check takes `took` and finds what `is_good` says of the time of its start.
    fn run(&mut self, until: u64, took: u64, is_good: impl Fn(u64) -> bool) {
        while let Some(at) = self.monitor.poll_timeout().filter(|at| *at <= self.start + MS(until)) {
            self.now = at;
            self.monitor.handle_timeout(at);
            while let Some(output) = self.monitor.poll_output() {
                match output {
                    Output::Check { server, number } => {
                        self.starts.push(self.at());
                        let good = is_good(self.at());
                        self.now += MS(took);
                        let failure = (!good).then(|| Failure::new(Layer::L4, "refused"));
                        self.monitor.handle_outcome(&server, number, &Outcome { failure, sign: self.sign, took: MS(took) }, self.now);
                    }
                    Output::Changed { is_up, results, .. } => self.changes.push((self.at(), is_up, results)),
                    Output::Noted { note, .. } => self.notes.push((self.at(), note)),
                }
            }
        }
    }
}

#[test]
fn a_well_server_is_checked_once_an_interval() {
    let mut trial = Trial::new(Presumption::Up);
    trial.run(5_500, 50, |_| true);
    assert!(trial.starts.windows(2).all(|pair| pair[1] - pair[0] == 1000), "{:?}", trial.starts);
    assert_eq!(trial.changes, []);
    assert!(!trial.monitor.of(&web()).unwrap().is_unsure);
}

#[test]
fn fall_bad_results_in_a_row_make_it_down_and_rise_good_ones_up_again() {
    let mut trial = Trial::new(Presumption::Up);
    trial.run(1_500, 10, |_| true);
    let first = trial.starts[0];
    trial.run(10_000, 10, |at| at >= 6_000);
    let bad = first + 1000 * ((1_500 - first) / 1000 + 1);
    assert_eq!(trial.changes[0], (bad + 410, false, 3), "unsure checks follow each other faster");
    let back = trial.starts.iter().find(|at| **at >= 6_000).unwrap();
    assert_eq!(trial.changes[1..], [(back + 210, true, 2)]);
    let downs: Vec<u64> = trial.starts.iter().copied().filter(|at| (bad + 400..=*back).contains(at)).collect();
    assert!(downs.windows(2).all(|pair| pair[1] - pair[0] == 3000), "{downs:?}");
}

#[test]
fn one_bad_result_among_good_ones_changes_nothing() {
    let mut trial = Trial::new(Presumption::Up);
    trial.run(900, 10, |_| true);
    let third = trial.starts[0] + 2000;
    trial.run(8_000, 10, |at| at != third);
    assert_eq!(trial.changes, []);
    assert_eq!(trial.monitor.of(&web()).unwrap().failure, Some(Failure::new(Layer::L4, "refused")), "what was wrong last is kept");
}

#[test]
fn the_first_result_decides_alone() {
    for (presumption, good) in [(Presumption::Up, false), (Presumption::Down, true)] {
        let mut trial = Trial::new(presumption);
        trial.run(1_000, 10, |_| good);
        assert_eq!(trial.changes, [(trial.starts[0] + 10, good, 1)]);
    }
}

#[test]
fn a_first_result_that_agrees_is_told_once() {
    let refused = || Failure::new(Layer::L4, "refused");
    for (presumption, note) in [(Presumption::Up, Note::FoundUp), (Presumption::Down, Note::FoundDown(refused()))] {
        let mut trial = Trial::new(presumption);
        trial.run(9_000, 10, |_| presumption.is_up());
        assert_eq!((&trial.changes[..], &trial.notes[..]), (&[][..], &[(trial.starts[0] + 10, note)][..]));
        assert!(trial.starts.len() > 2);
    }
}

#[test]
fn who_was_known_goes_up_or_down_by_rise_and_fall_alone() {
    for (presumption, results) in [(Presumption::KnownUp, 3), (Presumption::KnownDown, 2)] {
        let mut trial = Trial::new(presumption);
        trial.run(4_000, 10, |_| !presumption.is_up());
        let gap = PACE.interval_unsure.as_millis() as u64;
        let first = trial.starts[0];
        assert_eq!(trial.changes, [(first + 10 + gap * (u64::from(results) - 1), !presumption.is_up(), results)]);
        assert_eq!(trial.notes, []);
    }
}

#[test]
fn another_question_needs_fall_bad_results() {
    let mut trial = Trial::new(Presumption::Up);
    trial.run(1_500, 10, |_| true);
    trial.monitor.restart(&web(), trial.now);
    trial.run(4_000, 10, |_| false);
    assert_eq!(trial.changes.iter().map(|(_, is_up, results)| (*is_up, *results)).collect::<Vec<_>>(), [(false, 3)]);
}

#[test]
fn another_reason_of_who_is_down_is_told() {
    let mut trial = Trial::new(Presumption::KnownDown);
    for (text, is_told) in [("refused", true), ("refused", false), ("timeout", true), ("timeout", false)] {
        let at = trial.monitor.poll_timeout().unwrap();
        trial.monitor.handle_timeout(at);
        let Some(Output::Check { server, number }) = trial.monitor.poll_output() else { panic!("a check is due") };
        let failure = Failure::new(Layer::L4, text);
        trial.monitor.handle_outcome(&server, number, &Outcome::bad(failure.clone(), MS(0)), at);
        let told = is_told.then_some(Output::Noted { server: server.as_ref().clone(), note: Note::Cause(failure) });
        assert_eq!(trial.monitor.poll_output(), told);
    }
}

#[test]
fn a_silent_server_is_down_within_the_time_that_is_told() {
    for fall in 1..=5 {
        let pace = Pace { fall, ..PACE };
        let mut trial = Trial::new(Presumption::Up);
        trial.monitor = Monitor::new(3);
        trial.monitor.set(&[(web(), pace)].into(), |_| Presumption::Up, trial.start);
        trial.run(1_100, 5, |_| true);
        let last_good = *trial.starts.last().unwrap();
        trial.run(20_000, 200, |_| false);
        let took = trial.changes[0].0 - last_good;
        assert!(MS(took) <= pace.detection(), "fall {fall}: {took} ms");
        assert!(MS(took) + MS(10) >= pace.detection(), "fall {fall}: {took} ms, told are {:?}", pace.detection());
    }
}

#[test]
fn a_check_that_this_machine_cannot_make_says_nothing_of_the_server() {
    let mut trial = Trial::new(Presumption::Up);
    trial.run(900, 10, |_| true);
    let mut check = |failure: Option<&str>| {
        let at = trial.monitor.poll_timeout().unwrap();
        trial.monitor.handle_timeout(at);
        let Some(Output::Check { server, number }) = trial.monitor.poll_output() else { panic!("a check is due") };
        let outcome = failure.map_or(Outcome::good(MS(0)), |text| Outcome::bad(Failure::new(Layer::Local, text), MS(0)));
        trial.monitor.handle_outcome(&server, number, &outcome, at);
        let told = trial.monitor.poll_output();
        (trial.monitor.of(&web()).unwrap().is_up, told)
    };
    let noted = |note| (true, Some(Output::Noted { server: web(), note }));
    let not_made = |text: &str| noted(Note::NotMade(Failure::new(Layer::Local, text)));
    assert_eq!(check(Some("no file descriptor is left")), not_made("no file descriptor is left"));
    (0..10).for_each(|_| assert_eq!(check(Some("no file descriptor is left")), (true, None)));
    assert_eq!(check(Some("no program")), not_made("no program"));
    assert_eq!(check(None), noted(Note::Made));
    assert_eq!(check(None), (true, None));
}

#[test]
fn silence_soon_after_a_refusal_proves_nothing() {
    for (presumption, told) in
        [(Presumption::KnownUp, Some(0)), (Presumption::KnownDown, Some(0)), (Presumption::Up, None), (Presumption::Down, None)]
    {
        let mut trial = Trial::new(presumption);
        trial.sign = Sign::Silence;
        // Of a closed port one check in four seconds is told.
        let told = std::cell::Cell::new(told);
        let is_silent = |at| told.get().is_some_and(|last| at - last < 4000) || told.replace(Some(at)).is_some_and(|last| at - last < 4000);
        trial.run(60_000, 10, is_silent);
        assert!(!trial.monitor.of(&web()).unwrap().is_up && trial.changes.iter().all(|(_, is_up, _)| !is_up), "{presumption:?}");
        trial.run(90_000, 10, |_| true);
        assert!(trial.monitor.of(&web()).unwrap().is_up, "silence for long is a sign");
    }
}

#[test]
fn silence_does_not_decide_alone() {
    let mut trial = Trial::new(Presumption::Down);
    trial.sign = Sign::Silence;
    trial.run(4_000, 10, |_| true);
    assert_eq!(trial.changes, [(trial.starts[1] + 10, true, 2)]);
}

#[test]
fn a_hint_has_the_server_checked_at_once_and_faster_until_it_is_known() {
    let mut trial = Trial::new(Presumption::Up);
    trial.run(900, 10, |_| true);
    let first = trial.starts[0];
    trial.now = trial.start + MS(first + 300);
    trial.monitor.handle_hint(&web(), trial.now);
    trial.run(first + 900, 10, |_| false);
    assert_eq!(trial.starts[1..], [first + 300, first + 500, first + 700]);
    assert_eq!(trial.changes, [(first + 710, false, 3)]);
}

#[test]
fn who_is_doubted_stays_unsure_while_its_checks_are_good() {
    let mut trial = Trial::new(Presumption::Up);
    trial.run(900, 10, |_| true);
    let first = trial.starts[0];
    assert_eq!(trial.starts.len(), 1, "it is checked each second");
    trial.now = trial.start + MS(first + 100);
    trial.monitor.handle_doubts(&[web()].into(), trial.now);
    trial.run(first + 750, 10, |_| true);
    assert_eq!(trial.starts[1..], [first + 300, first + 500, first + 700], "as often as who is unsure");
    assert!(trial.monitor.of(&web()).unwrap().is_unsure && trial.changes.is_empty());
    trial.monitor.handle_doubts(&BTreeSet::new(), trial.now);
    trial.run(first + 2000, 10, |_| true);
    assert_eq!(trial.starts.len(), 6, "{:?}", trial.starts);
    assert!(!trial.monitor.of(&web()).unwrap().is_unsure);
}

#[test]
fn results_of_a_question_that_is_asked_no_more_count_for_nothing() {
    let mut trial = Trial::new(Presumption::Up);
    let at = trial.monitor.poll_timeout().unwrap();
    trial.monitor.handle_timeout(at);
    let Some(Output::Check { server, number }) = trial.monitor.poll_output() else { panic!("a check is due") };
    trial.monitor.restart(&server, at);
    trial.monitor.handle_outcome(&server, number, &Outcome::bad(Failure::new(Layer::L4, "refused"), MS(1)), at);
    assert_eq!(trial.monitor.poll_output(), None);
    assert!(trial.monitor.poll_timeout().is_some(), "it is asked again");
    trial.monitor.set(&BTreeMap::new(), |_| Presumption::Up, at);
    assert_eq!(trial.monitor.poll_timeout(), None);
}

#[test]
fn the_first_checks_of_many_servers_are_spread() {
    let start = epoch();
    let mut monitor = Monitor::new(11);
    let servers = (0..5000).map(|number| (ServerName::new("web", number.to_string()), PACE)).collect();
    monitor.set(&servers, |_| Presumption::Up, start);
    let mut most = 0;
    for tenth in 1..=10 {
        monitor.handle_timeout(start + MS(100 * tenth));
        most = most.max(std::iter::from_fn(|| monitor.poll_output()).count());
    }
    assert!((500..600).contains(&most), "{most} of 5000 in a tenth of the second");
}

proptest! {
    /// Whatever comes in whatever order, a server is up or down by its last results alone, and one check at most is under way.
    #[test]
    fn state_follows_from_the_results(results in prop::collection::vec((any::<bool>(), any::<bool>()), 1..80), up in any::<bool>()) {
        let start = epoch();
        let mut monitor = Monitor::new(1);
        monitor.set(&[(web(), PACE)].into(), |_| if up { Presumption::Up } else { Presumption::Down }, start);
        let (mut is_up, mut against, mut is_first) = (up, 0, true);
        for (good, is_hinted) in results {
            let at = monitor.poll_timeout().unwrap();
            monitor.handle_timeout(at);
            let Some(Output::Check { server, number }) = monitor.poll_output() else { panic!("a check is due") };
            prop_assert_eq!(monitor.poll_timeout(), None);
            if is_hinted {
                monitor.handle_hint(&server, at);
            }
            let failure = (!good).then(|| Failure::new(Layer::L7, "status 500"));
            monitor.handle_outcome(&server, number, &failure.map_or(Outcome::good(MS(1)), |failure| Outcome::bad(failure, MS(1))), at + MS(1));
            against = if good == is_up { 0 } else { against + 1 };
            let needed = if is_first { 1 } else if is_up { 3 } else { 2 };
            let flips = against >= needed;
            if flips {
                is_up = good;
                against = 0;
            }
            is_first = false;
            let outputs: Vec<Output> = std::iter::from_fn(|| monitor.poll_output()).collect();
            prop_assert_eq!(matches!(outputs[..], [Output::Changed { .. }]), flips);
            prop_assert!(outputs.len() <= 1);
            prop_assert_eq!(monitor.of(&web()).unwrap().is_up, is_up);
        }
    }
}
