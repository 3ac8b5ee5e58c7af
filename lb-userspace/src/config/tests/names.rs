//! Servers that are looked up, and `[dns]`.

use std::time::Duration;

use super::{
    super::model::{Dns, Families, NamedServer, Question, ServerState},
    NODE, accepted, findings,
};

const WEB: &str = "[listener.web]\nmode = 'l4'\nbind = '192.0.2.1:80'\npool = 'web'\n";

#[test]
fn a_server_may_have_a_name_instead_of_an_address() {
    let config = accepted(&format!(
        "{NODE}{WEB}[pool.web]\nserver.weight = 5\nservers.a = '10.0.0.1'\nservers.api = {{ name = 'API.example.org.', port = 8080, backup = true }}\n\
         servers.db = {{ srv = '_db._tcp.example.org', weight = 7, state = 'drain' }}\n"
    ));
    let pool = &config.pools["web"];
    assert_eq!(pool.servers.keys().collect::<Vec<_>>(), ["a"]);
    let question = Question::Host("api.example.org".into());
    let api = NamedServer { question: question.clone(), port: Some(8080), weight: Some(5), backup: true, state: ServerState::Ready };
    assert_eq!(pool.names["api"], api);
    let service = Question::Service("_db._tcp.example.org".into());
    let db = NamedServer { question: service.clone(), port: None, weight: Some(7), backup: false, state: ServerState::Drain };
    assert_eq!(pool.names["db"], db);
    let v4 = Families { v4: true, v6: false };
    assert_eq!(config.questions(), [(question, v4), (service, v4)].into(), "nat takes the family of its VIP");
    let tunnelled = accepted(&format!("{NODE}{WEB}[pool.web]\nforward = 'ipip'\nservers.a.name = 'a'\n"));
    assert_eq!(tunnelled.named_pools()[0].2, Families { v4: true, v6: true });
}

#[test]
fn who_is_asked_and_for_how_long_answers_are_good_may_be_said() {
    assert_eq!(accepted(&format!("{NODE}{WEB}[pool.web]\nservers.a = '10.0.0.1'\n")).dns, Dns::default());
    let more = "[dns]\nnameservers = ['127.0.0.53', '10.0.0.1:5353', '[2001:db8::1]:53', '2001:db8::2']\nttl_min = '1s'\nttl_max = '1m'\ntimeout = '500ms'\n";
    let dns = accepted(&format!("{NODE}{more}{WEB}[pool.web]\nservers.a = '10.0.0.1'\n")).dns;
    let asked: Vec<String> = dns.nameservers.iter().map(ToString::to_string).collect();
    assert_eq!(asked, ["127.0.0.53:53", "10.0.0.1:5353", "[2001:db8::1]:53", "[2001:db8::2]:53"]);
    assert_eq!((dns.ttl_min, dns.ttl_max, dns.timeout), (Duration::from_secs(1), Duration::from_secs(60), Duration::from_millis(500)));
}

#[test]
fn what_makes_no_sense_about_names_is_told() {
    let pool = "[pool.web]\nservers.a = { address = '10.0.0.1', name = 'a' }\nservers.b = {}\nservers.c = { name = 'not a name' }\n\
                servers.d = { srv = 's', port = 0 }\n";
    let found = findings(&format!("{NODE}{WEB}{pool}[dns]\nttl_min = '2m'\nttl_max = '1m'\nnameservers = 'x'\ntimeout = '1h'\n"));
    let lines: Vec<&str> = found.iter().map(|line| line.split(" | ").next().unwrap()).collect();
    assert_eq!(
        lines,
        [
            "9:44: error: a server has one of `address`, `name` and `srv`",
            "10:13: error: missing key `address` in [pool.web.servers.b]",
            "11:22: error: bad value for `pool.web.servers.c.name`: \"not a name\" is not the name of a host",
            "12:33: error: `pool.web.servers.d.port` must be from 1 to 65535, not 0",
            "15:11: error: dns.ttl_min is 2m, more than dns.ttl_max, which is 1m",
            "16:15: error: bad value for `dns.nameservers`: \"x\" is not an IP address",
            "17:11: error: bad value for `dns.timeout`: \"1h\" is not from 100ms to 1m",
        ]
    );
}

#[test]
fn names_meet_the_rules_of_their_pool() {
    let found = findings(&format!(
        "{NODE}{WEB}[pool.web]\nforward = 'dsr'\nservers.a = {{ name = 'a', port = 81 }}\nservers.b = {{ name = 'a', port = 81 }}\n"
    ));
    let lines: Vec<&str> = found.iter().map(|line| line.split(" | ").next().unwrap()).collect();
    assert_eq!(
        lines,
        [
            "10:34: error: port 81 differs from 192.0.2.1:80/tcp of listener `web`: dsr does not rewrite ports",
            "11:22: error: server `a` is looked up by this name already",
            "11:34: error: port 81 differs from 192.0.2.1:80/tcp of listener `web`: dsr does not rewrite ports",
        ]
    );
    let backup = findings(&format!("{NODE}{WEB}[pool.web]\nservers.a = {{ name = 'a', backup = true }}\n"));
    assert_eq!(backup, ["8:1: warning: every server of pool `web` is a backup | leave `backup` out for some"]);
}
