//! What holds whatever happens.

use proptest::prelude::*;

use super::{model::Model, *};

#[derive(Clone, Debug)]
enum Step {
    Wait(u64),
    Due,
    Start(bool),
    Stop,
    Halt,
    Yield,
    Ready,
    Grant,
    Resign,
    Link(bool),
    Fault(bool),
    GroupFault(bool),
    Priority(u8),
    Addresses(Vec<u8>),
    Settings(u64, u8),
    Hears(u8, u8, u16),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..500_u64).prop_map(Step::Wait),
        8 => Just(Step::Due),
        2 => any::<bool>().prop_map(Step::Start),
        1 => Just(Step::Stop),
        1 => Just(Step::Halt),
        1 => Just(Step::Yield),
        1 => Just(Step::Ready),
        1 => Just(Step::Grant),
        1 => Just(Step::Resign),
        1 => any::<bool>().prop_map(Step::Link),
        1 => any::<bool>().prop_map(Step::Fault),
        1 => any::<bool>().prop_map(Step::GroupFault),
        1 => (1..=255_u8).prop_map(Step::Priority),
        1 => prop::collection::btree_set(100..104_u8, 0..4).prop_map(|lasts| Step::Addresses(lasts.into_iter().collect())),
        1 => (1..60_u64, 0..3_u8).prop_map(|(tens, preempt)| Step::Settings(tens, preempt)),
        6 => (3..8_u8, any::<u8>(), 1..60_u16).prop_map(|(last, number, centiseconds)| Step::Hears(last, number, centiseconds)),
    ]
}

fn run(router: &mut Router, now: &mut Instant, step: &Step) {
    match step {
        Step::Wait(ms) => {
            *now += Duration::from_millis(*ms);
            router.handle_timeout(*now);
            assert!(router.poll_timeout().is_none_or(|at| at > *now), "it is due for ever");
        }
        Step::Due => {
            *now = router.poll_timeout().map_or(*now, |at| at.max(*now));
            router.handle_timeout(*now);
            assert!(router.poll_timeout().is_none_or(|at| at > *now), "it is due for ever");
        }
        Step::Start(is_held) => {
            let held: Vec<IpAddr> = router.addresses().as_slice().iter().copied().filter(|_| *is_held).collect();
            router.handle_start(&held, *now);
        }
        Step::Stop => router.handle_stop(*now),
        Step::Halt => router.handle_halt(*now),
        Step::Yield => router.handle_yield(*now),
        Step::Ready => router.handle_ready(*now),
        Step::Grant => router.handle_grant(*now),
        Step::Resign => router.handle_resign(*now),
        Step::Link(is_up) => router.handle_link(if *is_up { Link::Up } else { Link::Down }, *now),
        Step::Fault(true) => router.handle_fault(FaultCause::Tracked, *now),
        Step::Fault(false) => router.handle_fault_over(FaultCause::Tracked, *now),
        Step::GroupFault(true) => router.handle_fault(FaultCause::Group, *now),
        Step::GroupFault(false) => router.handle_fault_over(FaultCause::Group, *now),
        Step::Priority(number) => router.handle_priority(priority(*number), *now),
        Step::Addresses(lasts) => router.handle_addresses(list(lasts), *now).unwrap(),
        Step::Settings(tens, preempt) => {
            let interval = Interval::new(Duration::from_millis(tens * 10), Version::V3).unwrap();
            let preempt = [Preempt::AtOnce, Preempt::Never, Preempt::After(Duration::from_millis(300))][usize::from(*preempt)];
            router.handle_settings(Settings { interval, preempt, ..router.settings().clone() }, *now).unwrap();
        }
        Step::Hears(last, number, centiseconds) => {
            let interval = Interval::from_centiseconds(*centiseconds).unwrap();
            _ = router.handle_advert(ip(*last), &Advert { interval, ..advert(*number) }, *now);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn outputs_say_what_the_router_is(
        steps in prop::collection::vec(step(), 1..120),
        with_group: bool,
        is_unicast: bool,
        start_delay in prop_oneof![Just(0_u64), 1..1000_u64],
    ) {
        let settings = Settings {
            claims: if with_group { Claims::WithGroup } else { Claims::Alone },
            reach: if is_unicast { Reach::Unicast([ip(4), ip(6)].into()) } else { Reach::Multicast },
            start_delay: Duration::from_millis(start_delay),
            yield_hold: Some(Duration::from_secs(1)),
            ..settings()
        };
        let mut bench = Bench::new(settings);
        let mut model = Model::default();
        for step in &steps {
            let before = model.state();
            if let (Step::Start(true), State::Initialize) = (step, before) {
                model.finds(bench.router.addresses().as_slice());
            }
            run(&mut bench.router, &mut bench.now, step);
            let outputs: Vec<Output> = std::iter::from_fn(|| bench.router.poll_output()).collect();
            model.take(before, &outputs, &bench.router);
        }
    }
}
