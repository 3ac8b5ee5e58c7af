use super::*;
use crate::config::{ConfigText, parse};

fn epoch() -> Instant {
    #[allow(clippy::disallowed_methods, reason = "an instant can be had from the clock alone; all others are counted from it")]
    Instant::now()
}

fn config(servers: &[&str]) -> Config {
    let servers: String = servers.iter().zip(1..).map(|(name, last)| format!("servers.{name} = '10.0.0.{last}'\n")).collect();
    let text = format!(
        "[node]\ninterfaces = 'eth0'\nslot_seed = 's'\n[listener.web]\nmode = 'l4'\nbind = '192.0.2.1:80'\npool = 'web'\n[pool.web]\ncheck.tcp = true\nslow_start = '40s'\n{servers}"
    );
    parse(&ConfigText::new("weir.toml", text), "host").unwrap().0
}

fn name(server: &str) -> ServerName {
    ServerName::new("web", server)
}

fn presumed(book: &mut Book, config: &Config, overrides: &BTreeMap<ServerName, Override>) -> Vec<(String, bool)> {
    let checks = book.checks(config, overrides);
    checks.into_iter().map(|(name, (.., presumption))| (name.server, presumption.is_up())).collect()
}

fn up_or_down(server: &str, is_up: bool) -> Changed {
    Changed { server: name(server), is_up, cause: None, results: 1 }
}

fn seat(text: &str) -> Option<SocketAddr> {
    Some(text.parse().unwrap())
}

fn said(state: AdminState) -> BTreeMap<ServerName, Override> {
    [(name("b"), Override { state: Some(state), weight: None })].into()
}

#[test]
fn servers_count_as_an_earlier_process_knew_them_else_as_up() {
    let known = [(
        name("a"),
        Entry { is_up: false, since_ms: 5, cause: Some("L4 refused".into()), is_checked: true, seat: seat("10.0.0.1:0"), not_made: None },
    )];
    let mut book = Book::new(known.clone().into());
    assert_eq!(presumed(&mut book, &config(&["a", "b"]), &BTreeMap::new()), [("a".into(), false), ("b".into(), true)]);
    assert_eq!(book.entries()[&name("a")], known[0].1);
}

#[test]
fn what_checks_found_is_known_to_the_next_process_and_what_was_presumed_is_not() {
    let config = config(&["a", "b", "c"]);
    let presumptions = |book: &mut Book| book.checks(&config, &BTreeMap::new()).into_values().map(|(.., it)| it).collect::<Vec<_>>();
    let mut book = Book::default();
    assert_eq!(presumptions(&mut book), [Presumption::Up; 3]);
    book.handle_noted(&name("a"), &Note::FoundUp, 1);
    book.handle_changed(&up_or_down("b", false), &config, epoch(), 2);
    let expected = [Presumption::KnownUp, Presumption::KnownDown, Presumption::Up];
    assert_eq!(presumptions(&mut book), expected);
    let kept = serde_json::to_string(book.entries()).unwrap();
    assert_eq!(presumptions(&mut Book::new(serde_json::from_str(&kept).unwrap())), expected);
}

#[test]
fn who_is_down_is_so_for_what_its_last_checks_found() {
    let (mut book, config) = (Book::default(), config(&["a", "b"]));
    presumed(&mut book, &self::config(&["a"]), &BTreeMap::new());
    presumed(&mut book, &config, &BTreeMap::new());
    let failure = |text: &str| crate::health::outcome::Failure::new(crate::health::outcome::Layer::L4, text);
    book.handle_noted(&name("b"), &Note::FoundDown(failure("refused")), 7);
    let entry = |text: &str| Entry {
        is_up: false,
        since_ms: 7,
        cause: Some(text.into()),
        is_checked: true,
        seat: seat("10.0.0.2:0"),
        not_made: None,
    };
    assert_eq!(book.entries()[&name("b")], entry("L4 refused"));
    book.handle_noted(&name("b"), &Note::Cause(failure("timeout")), 9);
    assert_eq!(book.entries()[&name("b")], entry("L4 timeout"));
}

#[test]
fn a_server_that_is_added_waits_for_its_first_check_while_others_are_up() {
    let mut book = Book::default();
    presumed(&mut book, &config(&["a"]), &BTreeMap::new());
    assert_eq!(presumed(&mut book, &config(&["a", "b"]), &BTreeMap::new()), [("a".into(), true), ("b".into(), false)]);

    let mut alone = Book::default();
    presumed(&mut alone, &config(&["a"]), &BTreeMap::new());
    alone.handle_changed(&up_or_down("a", false), &config(&["a"]), epoch(), 1);
    assert_eq!(
        presumed(&mut alone, &config(&["a", "b"]), &BTreeMap::new()),
        [("a".into(), false), ("b".into(), true)],
        "nobody else serves"
    );
}

#[test]
fn a_verdict_is_that_of_an_address_and_a_port_whatever_they_are_called() {
    let mut book = Book::default();
    let presumptions = |book: &mut Book, config: &Config| {
        let checks = book.checks(config, &BTreeMap::new());
        checks.into_iter().map(|(name, (.., presumption))| (name.server, presumption)).collect::<Vec<_>>()
    };
    presumed(&mut book, &config(&["a", "b"]), &BTreeMap::new());
    book.handle_noted(&name("a"), &Note::FoundUp, 1);
    book.handle_changed(&up_or_down("b", false), &config(&["a", "b"]), epoch(), 2);
    let swapped = [("a".to_owned(), Presumption::KnownDown), ("b".to_owned(), Presumption::KnownUp)];
    assert_eq!(presumptions(&mut book, &config(&["b", "a"])), swapped);
    let renamed = [("c".to_owned(), Presumption::KnownUp), ("d".to_owned(), Presumption::KnownDown)];
    assert_eq!(presumptions(&mut book, &config(&["c", "d"])), renamed);

    // All servers answer elsewhere: nothing is known of any, so that the first results decide.
    let ported = |port: u16| {
        let mut config = config(&["c", "d"]);
        let pool = config.pools.values_mut().next().unwrap();
        std::sync::Arc::make_mut(pool).servers.values_mut().for_each(|server| server.port = Some(port));
        config
    };
    let unknown = [("c".to_owned(), Presumption::Up), ("d".to_owned(), Presumption::Up)];
    assert_eq!(presumptions(&mut book, &ported(8099)), unknown);
    for server in ["c", "d"] {
        book.handle_changed(&up_or_down(server, false), &ported(8099), epoch(), 3);
    }
    assert_eq!(presumptions(&mut book, &ported(8080)), unknown, "what was found elsewhere");
    assert_eq!(book.entries()[&name("c")].cause, None);
    assert!(!book.is_of(&name("c"), seat("10.0.0.1:8099").unwrap()) && book.is_of(&name("c"), seat("10.0.0.1:8080").unwrap()));
}

#[test]
fn maintenance_is_not_checked_and_its_end_is() {
    let mut book = Book::default();
    let config = config(&["a", "b"]);
    presumed(&mut book, &config, &BTreeMap::new());
    assert_eq!(presumed(&mut book, &config, &said(AdminState::Maint)), [("a".into(), true)]);
    assert_eq!(presumed(&mut book, &config, &said(AdminState::Ready)), [("a".into(), true), ("b".into(), false)]);
}

#[test]
fn who_comes_back_regains_its_weight_along_the_ramp() {
    let (mut book, config, start) = (Book::default(), config(&["a", "b"]), epoch());
    presumed(&mut book, &config, &BTreeMap::new());
    let ramp_of = |book: &Book, at: Duration| book.health(&config, start + at)[&name("b")].ramp_permille;
    assert_eq!(ramp_of(&book, Duration::ZERO), 1000, "a daemon that starts ramps nobody");
    book.handle_changed(&up_or_down("b", false), &config, start, 1);
    book.handle_changed(&up_or_down("b", true), &config, start, 2);
    let mut at = Duration::ZERO;
    let mut steps = 0;
    while let Some(next) = book.poll_timeout(&config, start + at) {
        let is = f64::from(ramp_of(&book, at)) / 1000.0;
        let next = next - start;
        for moment in [at, next - Duration::from_millis(1)] {
            let should = moment.as_secs_f64() / 40.0;
            assert!((is - should).abs() <= 0.0135, "{is} at {moment:?}, where the ramp has {should}");
        }
        assert!(next > at);
        at = next;
        steps += 1;
        book.handle_timeout(&config, start + at);
    }
    assert_eq!((at, steps), (Duration::from_secs(40), 40));
    assert_eq!(ramp_of(&book, at), 1000);
}

#[test]
fn a_server_that_fails_on_its_way_back_begins_anew() {
    let (mut book, config, start) = (Book::default(), config(&["a", "b"]), epoch());
    presumed(&mut book, &config, &BTreeMap::new());
    for (second, is_up) in [(0, false), (1, true), (10, false), (20, true)] {
        book.handle_changed(&up_or_down("b", is_up), &config, start + Duration::from_secs(second), second);
    }
    assert_eq!(
        book.health(&config, start + Duration::from_secs(20))[&name("b")],
        Health { is_up: true, is_checked: true, ramp_permille: 12 }
    );
}
