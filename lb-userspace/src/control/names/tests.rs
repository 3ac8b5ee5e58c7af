use super::*;

fn epoch() -> Instant {
    #[allow(clippy::disallowed_methods, reason = "an instant can be had from the clock alone; all others are counted from it")]
    Instant::now()
}

fn host(name: &str) -> Question {
    Question::Host(name.into())
}

fn wanted(names: &[&str]) -> BTreeMap<Question, Families> {
    names.iter().map(|name| (host(name), Families { v4: true, v6: false })).collect()
}

fn found(addresses: &[&str]) -> BTreeSet<Found> {
    addresses.iter().map(|address| Found { address: address.parse().unwrap(), port: None, weight: None, backup: false }).collect()
}

fn answer(addresses: &[&str], ttl_s: u64) -> Result<Answer, String> {
    Ok(Answer { found: found(addresses), ttl: Duration::from_secs(ttl_s) })
}

/// An answer to whoever was asked just now.
fn answered(names: &mut Names, name: &str, answer: Result<Answer, String>, now: Instant) -> Outcome {
    while names.poll_question(now).is_some() {}
    names.handle_answer(&host(name), answer, &Dns::default(), now)
}

fn known(names: &Names, name: &str) -> BTreeSet<Found> {
    names.found(&host(name)).collect()
}

#[test]
fn a_name_is_asked_again_when_its_ttl_ends_within_bounds() {
    let (dns, start) = (Dns { ttl_min: Duration::from_secs(5), ttl_max: Duration::from_secs(60), ..Dns::default() }, epoch());
    for (ttl_s, asked_after_s) in [(0, 5), (30, 30), (9999, 60)] {
        let mut names = Names::default();
        assert_eq!(names.want(&wanted(&["a"]), start), [host("a")].into());
        assert_eq!(names.poll_question(start).unwrap().0, host("a"));
        assert_eq!((names.poll_question(start), names.poll_timeout()), (None, None), "it is being asked");
        let outcome = names.handle_answer(&host("a"), answer(&["10.0.0.1"], ttl_s), &dns, start);
        assert_eq!(outcome, Outcome::Changed { came: vec!["10.0.0.1".parse().unwrap()], went: vec![] });
        assert_eq!(names.poll_timeout(), Some(start + Duration::from_secs(asked_after_s)));
        assert_eq!(names.poll_question(start), None);
    }
}

#[test]
fn failures_keep_what_is_known_and_are_told_once_and_tried_less_and_less_often() {
    let mut now = epoch();
    let mut names = Names::default();
    names.want(&wanted(&["a"]), now);
    answered(&mut names, "a", answer(&["10.0.0.1"], 30), now);
    now += Duration::from_secs(30);
    let mut waits = Vec::new();
    for turn in 0..8 {
        let outcome = answered(&mut names, "a", Err("SERVFAIL".into()), now);
        assert_eq!(outcome, if turn == 0 { Outcome::Failed("SERVFAIL".into()) } else { Outcome::Same });
        let due = names.poll_timeout().unwrap();
        waits.push((due - now).as_secs());
        now = due;
    }
    assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
    assert_eq!(known(&names, "a"), found(&["10.0.0.1"]));
    assert_eq!(names.troubles(), ["the lookup of a fails: SERVFAIL; it is tried again, the last answer stays, with 1 servers"]);
    assert_eq!(answered(&mut names, "a", Err("NXDOMAIN".into()), now), Outcome::Failed("NXDOMAIN".into()));
    now += Duration::from_secs(60);
    let outcome = answered(&mut names, "a", answer(&["10.0.0.2"], 30), now);
    let [one, two] = ["10.0.0.1", "10.0.0.2"].map(|address| vec![address.parse().unwrap()]);
    assert_eq!(outcome, Outcome::Changed { came: two, went: one });
    assert_eq!(names.troubles(), Vec::<String>::new());
}

#[test]
fn what_an_earlier_daemon_knew_is_known_until_the_name_is_not_wanted() {
    let now = epoch();
    let mut earlier = Names::default();
    earlier.want(&wanted(&["a", "b"]), now);
    answered(&mut earlier, "a", answer(&["10.0.0.1"], 30), now);
    let kept = serde_json::to_string(&earlier.kept()).unwrap();
    let mut names = Names::new(serde_json::from_str(&kept).unwrap());
    assert_eq!(known(&names, "a"), found(&["10.0.0.1"]));
    assert_eq!(names.want(&wanted(&["a", "b"]), now), [host("b")].into());
    assert_eq!(names.poll_timeout(), Some(now), "it may have changed meanwhile");
    names.want_only(&wanted(&["b"]));
    assert_eq!(known(&names, "a"), found(&[]));
}

#[test]
fn other_name_servers_are_asked_at_once_and_what_is_under_way_counts_for_nothing() {
    let now = epoch();
    let mut names = Names::default();
    names.want(&wanted(&["asked", "failing"]), now);
    answered(&mut names, "failing", Err("silence".into()), now);
    (0..5).for_each(|turn| drop(answered(&mut names, "failing", Err("silence".into()), now + Duration::from_secs(1 << turn))));
    let now = now + Duration::from_secs(17);
    assert!(names.poll_question(now).is_none(), "one is being asked, the other one waits");
    names.ask_again(now);
    assert_eq!(names.handle_answer(&host("asked"), Err("an earlier server's".into()), &Dns::default(), now), Outcome::Same);
    let asked: Vec<_> = std::iter::from_fn(|| names.poll_question(now)).map(|(question, _)| question).collect();
    assert_eq!(asked, [host("asked"), host("failing")]);
    names.handle_answer(&host("failing"), Err("silence".into()), &Dns::default(), now);
    assert_eq!(names.poll_timeout(), Some(now + FIRST_RETRY), "failures count anew");
}

#[test]
fn who_fails_is_asked_again_at_once_when_the_operator_wants_it() {
    let now = epoch();
    let mut names = Names::default();
    names.want(&wanted(&["failing", "good"]), now);
    answered(&mut names, "failing", Err("silence".into()), now);
    names.handle_answer(&host("good"), answer(&["10.0.0.1"], 30), &Dns::default(), now);
    names.ask_failing(now);
    let asked: Vec<_> = std::iter::from_fn(|| names.poll_question(now)).map(|(question, _)| question).collect();
    assert_eq!(asked, [host("failing")]);
}

#[test]
fn another_family_is_asked_for_though_the_name_is_being_asked() {
    let now = epoch();
    let mut names = Names::default();
    names.want(&wanted(&["a"]), now);
    assert!(names.poll_question(now).is_some());
    let both = Families { v4: true, v6: true };
    names.want(&[(host("a"), both)].into(), now);
    assert_eq!(names.poll_question(now), Some((host("a"), both)));
}

#[test]
fn silent_names_leave_places_to_those_that_answer() {
    let now = epoch();
    let mut names = Names::default();
    let all: Vec<String> = (0..4 * MOST_ASKED).map(|number| number.to_string()).collect();
    names.want(&wanted(&["good"]), now);
    answered(&mut names, "good", answer(&["10.0.0.1"], 30), now);
    names.want(&wanted(&all.iter().map(String::as_str).collect::<Vec<_>>()), now);
    let asked = std::iter::from_fn(|| names.poll_question(now)).count();
    assert_eq!(asked, MOST_DOUBTED);
    let due = names.poll_timeout().unwrap();
    assert_eq!((due, names.poll_question(due).map(|(question, _)| question)), (now + Duration::from_secs(30), Some(host("good"))));
}

#[test]
fn only_so_many_are_asked_at_once() {
    let now = epoch();
    let mut names = Names::default();
    let all: Vec<String> = (0..MOST_ASKED + 5).map(|number| number.to_string()).collect();
    let kept = all.iter().map(|name| Kept { question: host(name), found: found(&["10.0.0.1"]) }).collect();
    names.recall(kept);
    names.want(&wanted(&all.iter().map(String::as_str).collect::<Vec<_>>()), now);
    let mut asked = Vec::new();
    while let Some((question, _)) = names.poll_question(now) {
        asked.push(question);
    }
    assert_eq!((asked.len(), names.poll_timeout()), (MOST_ASKED, None));
    names.handle_answer(&asked[0], answer(&["10.0.0.1"], 30), &Dns::default(), now);
    assert!(names.poll_question(now).is_some());
}
