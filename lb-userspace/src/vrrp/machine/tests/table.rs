//! Every state, every input: what is put out, and which state follows. The table is `table.txt`.

use super::*;

#[derive(Clone, Copy, Debug)]
enum Input {
    Start,
    StartHeld,
    Stop,
    Halt,
    Yield,
    Ready,
    Grant,
    Resign,
    LinkDown,
    LinkUp,
    Fault,
    FaultOver,
    PriorityUp,
    AddAddress,
    NoAddresses,
    OtherAddress,
    LongerInterval,
    HearsResigns,
    HearsLower,
    HearsEqualBelow,
    HearsEqualAbove,
    HearsHigher,
    HearsOwnAddress,
    TimeoutEarly,
    TimeoutDue,
    TimeoutLate,
}

const INPUTS: [Input; 26] = {
    use Input::*;
    [
        Start,
        StartHeld,
        Stop,
        Halt,
        Yield,
        Ready,
        Grant,
        Resign,
        LinkDown,
        LinkUp,
        Fault,
        FaultOver,
        PriorityUp,
        AddAddress,
        NoAddresses,
        OtherAddress,
        LongerInterval,
        HearsResigns,
        HearsLower,
        HearsEqualBelow,
        HearsEqualAbove,
        HearsHigher,
        HearsOwnAddress,
        TimeoutEarly,
        TimeoutDue,
        TimeoutLate,
    ]
};

const SETUPS: [&str; 12] = [
    "Initialize",
    "Fault",
    "Fault, link",
    "Backup",
    "Backup, no preempt",
    "Backup, claiming",
    "HeldOver",
    "Active",
    "Yielding",
    "Yielding, to stop",
    "Yielding, for its group",
    "Yielding, for a fault",
];

fn setup(name: &str) -> Bench {
    let mut bench = match name {
        "Initialize" | "HeldOver" => Bench::new(settings()),
        "Backup, no preempt" => Bench::started(Settings { preempt: Preempt::Never, ..settings() }),
        "Backup, claiming" => Bench::started(Settings { claims: Claims::WithGroup, ..settings() }),
        "Backup" | "Fault" | "Fault, link" => Bench::started(settings()),
        _ => Bench::active(settings()),
    };
    let (router, now) = (&mut bench.router, bench.now);
    match name {
        "Fault" => router.handle_fault(FaultCause::Tracked, now),
        "Fault, link" => router.handle_fault(FaultCause::Link, now),
        "HeldOver" => router.handle_start(&[ip(100)], now),
        "Yielding" => router.handle_yield(now),
        "Yielding, to stop" => router.handle_stop(now),
        "Yielding, for its group" => router.handle_resign(now),
        "Yielding, for a fault" => router.handle_fault(FaultCause::Tracked, now),
        "Backup, claiming" => drop(bench.until_due()),
        _ => {}
    }
    bench.said();
    bench.now += Duration::from_millis(10);
    bench
}

fn apply(bench: &mut Bench, input: Input) {
    let (router, now) = (&mut bench.router, bench.now);
    let mut hears = |last, number| _ = router.handle_advert(ip(last), &advert(number), now);
    match input {
        Input::HearsResigns => hears(9, 0),
        Input::HearsLower => hears(9, 99),
        Input::HearsEqualBelow => hears(4, 100),
        Input::HearsEqualAbove => hears(6, 100),
        Input::HearsHigher => hears(4, 101),
        Input::HearsOwnAddress => hears(5, 101),
        Input::Start => router.handle_start(&[], now),
        Input::StartHeld => router.handle_start(&[ip(100), ip(101)], now),
        Input::Stop => router.handle_stop(now),
        Input::Halt => router.handle_halt(now),
        Input::Yield => router.handle_yield(now),
        Input::Ready => router.handle_ready(now),
        Input::Grant => router.handle_grant(now),
        Input::Resign => router.handle_resign(now),
        Input::LinkDown => router.handle_link(Link::Down, now),
        Input::LinkUp => router.handle_link(Link::Up, now),
        Input::Fault => router.handle_fault(FaultCause::Tracked, now),
        Input::FaultOver => router.handle_fault_over(FaultCause::Tracked, now),
        Input::PriorityUp => router.handle_priority(priority(110), now),
        Input::AddAddress => router.handle_addresses(list(&[100, 101]), now).unwrap(),
        Input::NoAddresses => router.handle_addresses(list(&[]), now).unwrap(),
        Input::OtherAddress => router.handle_addresses(list(&[101]), now).unwrap(),
        Input::LongerInterval => {
            let interval = Interval::new(2 * INTERVAL, Version::V3).unwrap();
            router.handle_settings(Settings { interval, ..router.settings().clone() }, now).unwrap();
        }
        Input::TimeoutEarly => router.handle_timeout(now),
        Input::TimeoutDue => router.handle_timeout(router.poll_timeout().unwrap_or(now)),
        Input::TimeoutLate => router.handle_timeout(router.poll_timeout().unwrap_or(now) + 4 * INTERVAL),
    }
}

#[test]
fn every_input_in_every_state_does_what_the_table_says() {
    let mut table = String::new();
    for name in SETUPS {
        for input in INPUTS {
            let mut bench = setup(name);
            apply(&mut bench, input);
            let said = bench.said();
            let claims = if bench.router.is_claiming() { ", claiming" } else { "" };
            let line = format!(
                "{name:24}| {:16}| {:22}| {}",
                format!("{input:?}"),
                format!("{:?}{claims}", bench.router.state()),
                said.join("; ")
            );
            table += line.trim_end();
            table.push('\n');
        }
    }
    let expected = include_str!("table.txt");
    let wrong: Vec<_> = table.lines().zip(expected.lines()).filter(|(is, expected)| is != expected).collect();
    assert!(wrong.is_empty() && table.lines().count() == expected.lines().count(), "{wrong:#?}\n{table}");
}
