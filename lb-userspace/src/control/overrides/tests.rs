use super::*;
use crate::{
    config::{ConfigText, parse},
    control::standing::{AdminState, Health},
};

fn config() -> Config {
    let text = "
[node]
interfaces = 'eth0'
slot_seed = 's'
[listener.web]
mode = 'l4'
bind = '192.0.2.1:80'
pool = 'blue'
[listener.six]
mode = 'l4'
bind = '[2001:db8::1]:80'
pool = 'six'
[pool.blue]
servers = { a = '10.0.0.1', b = '10.0.0.2:8080' }
[pool.green]
servers = { a = '10.0.1.1' }
[pool.six]
forward = 'dsr'
servers = { x1 = '2001:db8:1::1', x2 = '2001:db8:1::2' }
";
    parse(&ConfigText::new("weir.toml", text), "host").unwrap().0
}

fn name(text: &str) -> ServerName {
    text.parse().unwrap()
}

fn added(address: &str) -> AddedServer {
    AddedServer { address: address.parse().unwrap(), port: None, weight: 5, backup: false }
}

fn selected(pattern: &str) -> Vec<String> {
    select(&config(), pattern).unwrap().iter().map(ToString::to_string).collect()
}

#[test]
fn a_pattern_names_servers_within_and_across_pools() {
    assert_eq!(selected("blue/a"), ["blue/a"]);
    assert_eq!(selected("*/a"), ["blue/a", "green/a"]);
    assert_eq!(selected("six/x?"), ["six/x1", "six/x2"]);
    assert_eq!(selected("*/*").len(), 5);
    assert_eq!(select(&config(), "blue/c"), Err(OverrideError::NoServer { name: "blue/c".into(), hint: "did you mean `blue/a`?".into() }));
    for bad in ["blue", "/a", "blue/", "a/b/c", "[/a"] {
        assert_eq!(select(&config(), bad), Err(OverrideError::Pattern(bad.into())));
    }
}

#[test]
fn what_says_nothing_is_forgotten() {
    let mut overrides = Overrides::default();
    overrides.say(&name("blue/a"), |said| said.weight = Some(3));
    overrides.say(&name("blue/a"), |said| said.state = Some(AdminState::Drain));
    overrides.say(&name("blue/a"), |said| said.weight = None);
    assert_eq!(overrides.servers.len(), 1);
    overrides.say(&name("blue/a"), |said| said.state = None);
    assert_eq!(overrides, Overrides::default());
}

#[test]
fn servers_are_added_and_left_out_beside_the_file() {
    let (config, mut overrides) = (config(), Overrides::default());
    overrides.add(&config, name("blue/c"), added("10.0.0.3")).unwrap();
    overrides.remove(&config, &name("blue/a")).unwrap();
    let servers = |overrides: &Overrides| overrides.effective(&config).pools["blue"].servers.keys().cloned().collect::<Vec<_>>();
    assert_eq!(servers(&overrides), ["b", "c"]);
    overrides.remove(&config, &name("blue/b")).unwrap();
    assert_eq!(overrides.remove(&config, &name("blue/c")), Err(OverrideError::OnlyServer(name("blue/c"))));
    overrides.add(&config, name("blue/a"), AddedServer { weight: 1, ..added("10.0.0.1") }).unwrap();
    overrides.remove(&config, &name("blue/c")).unwrap();
    assert_eq!(servers(&overrides), ["a"], "the file's own again");
    assert_eq!((overrides.added.len(), overrides.removed.len()), (0, 1));
}

#[test]
fn what_does_not_fit_is_refused() {
    let (config, mut overrides) = (config(), Overrides::default());
    let mut refused = |server: &str, added: AddedServer| overrides.add(&config, name(server), added).unwrap_err().to_string();
    assert_eq!(refused("red/a", added("10.0.0.9")), "there is no pool \"red\"\nhint: there are `blue`, `green`, `six`");
    assert!(refused("blue/a", added("10.0.0.9")).starts_with("blue/a is there already\nhint: "));
    assert!(refused("blue/c", added("10.0.0.1")).starts_with("blue/c would have the address of a\nhint: "));
    assert_eq!(refused("blue/c", added("192.0.2.1")), "blue/c does not fit: its address is a VIP");
    assert_eq!(
        refused("blue/c", added("2001:db8::9")),
        "blue/c does not fit: its address is of the other family than the VIP, which nat and dsr keep"
    );
    assert_eq!(refused("six/c", AddedServer { port: Some(81), ..added("2001:db8::9") }), "six/c does not fit: only nat rewrites ports");
    assert_eq!(refused("blue/c", AddedServer { weight: 1001, ..added("10.0.0.9") }), "weights are from 0 to 1000, not 1001");
}

#[test]
fn a_listener_is_switched_to_another_pool_and_back() {
    let (config, mut overrides) = (config(), Overrides::default());
    overrides.switch(&config, "web", Some("green")).unwrap();
    assert_eq!(overrides.effective(&config).listeners["web"].pool, "green");
    overrides.switch(&config, "web", Some("blue")).unwrap();
    assert_eq!(overrides, Overrides::default());
    assert_eq!(
        overrides.switch(&config, "wep", Some("green")),
        Err(OverrideError::NoListener { name: "wep".into(), hint: "did you mean `web`?".into() })
    );
    assert_eq!(
        overrides.switch(&config, "web", Some("red")),
        Err(OverrideError::NoPool { name: "red".into(), hint: "there are `blue`, `green`, `six`".into() })
    );
}

#[test]
fn what_names_nothing_of_a_later_file_does_no_harm() {
    let mut overrides = Overrides::default();
    overrides.switched.insert("web".into(), "gone".into());
    overrides.added.insert(name("gone/a"), added("10.0.0.9"));
    overrides.added.insert(name("blue/z"), AddedServer { port: None, ..added("10.0.0.1") });
    overrides.removed.insert(name("green/a"));
    assert_eq!(overrides.effective(&config()), config());
}

#[test]
fn a_pool_that_would_lose_its_last_server_is_named() {
    let drain = |servers: &[&str]| {
        let said = Override { state: Some(AdminState::Drain), weight: None };
        View { overrides: servers.iter().map(|server| (name(server), said)).collect(), ..View::default() }
    };
    assert_eq!(deserted((&config(), &View::default()), (&config(), &drain(&["blue/a"]))), Vec::<String>::new());
    assert_eq!(deserted((&config(), &View::default()), (&config(), &drain(&["blue/a", "blue/b", "green/a"]))), ["pool blue", "pool green"]);
    assert_eq!(deserted((&config(), &drain(&["green/a"])), (&config(), &drain(&["green/a"]))), Vec::<String>::new(), "it had none before");
    let sick = Health { is_up: false, is_checked: true, ramp_permille: 1000 };
    let without_b = |mut view: View| {
        view.health.insert(name("blue/b"), sick);
        view
    };
    assert_eq!(
        deserted((&config(), &without_b(View::default())), (&config(), &without_b(drain(&["blue/a"])))),
        ["pool blue"],
        "the other is down"
    );
}

#[test]
fn overrides_are_kept_as_json() {
    let (config, mut overrides) = (config(), Overrides::default());
    overrides.say(&name("blue/a"), |said| said.state = Some(AdminState::Maint));
    overrides.add(&config, name("blue/c"), added("10.0.0.3")).unwrap();
    overrides.remove(&config, &name("six/x1")).unwrap();
    overrides.switch(&config, "web", Some("green")).unwrap();
    let text = serde_json::to_string(&overrides).unwrap();
    assert_eq!(
        text,
        r#"{"servers":{"blue/a":{"state":"maint","weight":null}},"switched":{"web":"green"},"added":{"blue/c":{"address":"10.0.0.3","port":null,"weight":5,"backup":false}},"removed":["six/x1"],"limits":{}}"#
    );
    assert_eq!(serde_json::from_str::<Overrides>(&text).unwrap(), overrides);
    assert_eq!(serde_json::from_str::<Overrides>("{}").unwrap(), Overrides::default());
}

#[test]
fn what_is_cleared_is_the_configurations_again() {
    let (config, mut overrides) = (config(), Overrides::default());
    overrides.say(&name("blue/a"), |said| said.state = Some(AdminState::Ready));
    overrides.say(&name("gone/a"), |said| said.weight = Some(3));
    overrides.remove(&config, &name("blue/b")).unwrap();
    overrides.add(&config, name("green/c"), added("10.0.0.3")).unwrap();
    assert_eq!(overrides.clear(&config, "blue/*").unwrap(), [name("blue/a"), name("blue/b")]);
    assert_eq!(overrides.clear(&config, "gone/*").unwrap(), [name("gone/a")]);
    assert_eq!(overrides.clear(&config, "green/*").unwrap(), [name("green/a"), name("green/c")]);
    assert_eq!(
        (overrides.servers.len(), overrides.removed.len(), overrides.added.len()),
        (0, 0, 1),
        "what was added is removed by its own word"
    );
    assert!(matches!(overrides.clear(&config, "gone/*"), Err(OverrideError::NoServer { .. })));
}

#[test]
fn what_has_no_effect_is_told_with_the_command_that_clears_it() {
    let (config, mut overrides) = (config(), Overrides::default());
    overrides.add(&config, name("blue/c"), added("10.0.0.3")).unwrap();
    overrides.switch(&config, "web", Some("green")).unwrap();
    overrides.say(&name("green/a"), |said| said.weight = Some(3));
    let effective = ["green/a is of weight 3", "blue/c is added", "listener web uses pool green"];
    assert_eq!(overrides.in_words(&config), effective);

    // The file has the added server's address by another name, and neither the listener nor the other pool.
    let text = "
[node]
interfaces = 'eth0'
slot_seed = 's'
[listener.other]
mode = 'l4'
bind = '192.0.2.1:80'
pool = 'blue'
[pool.blue]
servers = { a = '10.0.0.1', z = '10.0.0.3' }
";
    let later = parse(&ConfigText::new("weir.toml", text), "host").unwrap().0;
    let told = [
        "green/a is of weight 3, without effect: there is no such server; weir clear green/a clears it",
        "blue/c is added, without effect: the configuration's blue/z has its address; weir server remove blue/c clears it",
        "listener web uses pool green, without effect: there is no such listener; weir switch web clears it",
    ];
    assert_eq!(overrides.in_words(&later), told);
    overrides.remove(&later, &name("blue/c")).unwrap();
    overrides.switch(&later, "web", None).unwrap();
    overrides.clear(&later, "green/a").unwrap();
    assert_eq!(overrides, Overrides::default());
    assert!(matches!(overrides.switch(&later, "web", None), Err(OverrideError::NoListener { .. })));
}

#[test]
fn a_server_that_the_file_names_too_is_not_removed_with_the_one_that_was_added() {
    let (config, mut overrides) = (config(), Overrides::default());
    overrides.added.insert(name("blue/a"), added("10.0.0.9"));
    overrides.remove(&config, &name("blue/a")).unwrap();
    assert_eq!(overrides, Overrides::default());
    overrides.remove(&config, &name("blue/a")).unwrap();
    assert_eq!(overrides.removed.len(), 1);
}

#[test]
fn a_listener_gets_no_pool_whose_servers_do_not_fit_it() {
    let (config, mut overrides) = (config(), Overrides::default());
    assert!(matches!(overrides.switch(&config, "web", Some("six")), Err(OverrideError::Unfit { .. })), "dsr keeps the family");
    // Nobody used the pool when the server was added, so that no port was wrong.
    let text = "
[node]
interfaces = 'eth0'
slot_seed = 's'
[listener.web]
mode = 'l4'
bind = '192.0.2.1:80'
pool = 'blue'
[pool.blue]
servers = { a = '10.0.0.1' }
[pool.direct]
forward = 'dsr'
servers = { a = '10.0.0.1' }
";
    let config = parse(&ConfigText::new("weir.toml", text), "host").unwrap().0;
    overrides.add(&config, name("direct/b"), AddedServer { port: Some(8080), ..added("10.0.0.2") }).unwrap();
    let refused = OverrideError::Unfit { server: name("direct/b"), why: "only nat rewrites ports" };
    assert_eq!(overrides.clone().switch(&config, "web", Some("direct")), Err(refused));
    overrides.remove(&config, &name("direct/b")).unwrap();
    overrides.switch(&config, "web", Some("direct")).unwrap();
}

#[test]
fn a_listener_has_another_rate_until_it_is_cleared() {
    let (config, mut overrides) = (config(), Overrides::default());
    overrides.limit(&config, "web", Some("10/1m")).unwrap();
    overrides.limit(&config, "six", Some("off")).unwrap();
    let rate =
        |overrides: &Overrides, listener: &str| overrides.effective(&config).listeners[listener].conn_rate.map(|rate| rate.to_string());
    assert_eq!((rate(&overrides, "web").as_deref(), rate(&overrides, "six")), (Some("10/1m"), None));
    assert_eq!(overrides.in_words(&config)[1], "listener web has conn_rate 10/1m");
    assert!(matches!(overrides.limit(&config, "web", Some("10")), Err(OverrideError::Rate(_))));
    assert!(matches!(overrides.limit(&config, "wep", Some("off")), Err(OverrideError::NoListener { .. })));
    overrides.limits.insert("gone".into(), "off".into());
    assert!(overrides.in_words(&config)[0].contains("no such listener; weir limit gone default clears it"));
    for listener in ["web", "six", "gone"] {
        overrides.limit(&config, listener, None).unwrap();
    }
    assert_eq!(overrides, Overrides::default());
}

#[test]
fn what_was_left_out_gives_way_to_what_is_added_in_its_place() {
    let (config, mut overrides) = (config(), Overrides::default());
    let servers = |overrides: &Overrides| {
        let servers = overrides.effective(&config).pools["blue"].servers.clone();
        servers.into_iter().map(|(name, server)| format!("{name} {}", server.address)).collect::<Vec<_>>()
    };
    overrides.remove(&config, &name("blue/a")).unwrap();
    overrides.add(&config, name("blue/a"), added("10.0.0.9")).unwrap();
    assert_eq!(servers(&overrides), ["a 10.0.0.9", "b 10.0.0.2"]);
    overrides.add(&config, name("blue/z"), added("10.0.0.1")).unwrap();
    assert_eq!(servers(&overrides), ["a 10.0.0.9", "b 10.0.0.2", "z 10.0.0.1"]);
    assert!(matches!(overrides.add(&config, name("blue/y"), added("10.0.0.1")), Err(OverrideError::SameAddress { .. })));
    assert!(overrides.in_words(&config).iter().all(|line| !line.contains("without effect")), "{:?}", overrides.in_words(&config));
    overrides.remove(&config, &name("blue/a")).unwrap();
    assert_eq!(servers(&overrides), ["b 10.0.0.2", "z 10.0.0.1"], "the file's own is still left out");
    // Once the file decides again, its own come before what was added.
    overrides.clear(&config, "blue/a").unwrap();
    assert_eq!(servers(&overrides), ["a 10.0.0.1", "b 10.0.0.2"]);
}
