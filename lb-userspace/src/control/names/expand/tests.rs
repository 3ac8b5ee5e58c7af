use std::time::Instant;

use super::*;
use crate::{
    config::{
        ConfigText,
        model::{Dns, Question},
        parse,
    },
    control::names::Answer,
};

fn epoch() -> Instant {
    #[allow(clippy::disallowed_methods, reason = "an instant can be had from the clock alone; all others are counted from it")]
    Instant::now()
}

fn config(pool: &str) -> Config {
    let text = format!(
        "[node]\ninterfaces = \"eth0\"\n[listener.web]\nmode = \"l4\"\nbind = \"192.0.2.1:80\"\npool = \"web\"\n[pool.web]\n{pool}\n"
    );
    parse(&ConfigText::new("weir.toml", text), "host").unwrap().0
}

fn found(address: &str, port: Option<u16>, weight: Option<u16>, backup: bool) -> Found {
    Found { address: address.parse().unwrap(), port, weight, backup }
}

fn names(config: &Config, question: &Question, found: &[Found]) -> Names {
    let mut names = Names::default();
    names.want(&config.questions(), epoch());
    let answer = Answer { found: found.iter().copied().collect(), ttl: std::time::Duration::ZERO };
    while names.poll_question(epoch()).is_some() {}
    names.handle_answer(question, Ok(answer), &Dns::default(), epoch());
    names
}

/// Name, port, weight and whether it is a backup.
fn servers(config: &Config) -> Vec<(&str, Option<u16>, u16, bool)> {
    config.pools["web"].servers.iter().map(|(name, server)| (name.as_str(), server.port, server.weight, server.backup)).collect()
}

#[test]
fn each_address_is_a_server_with_the_keys_of_its_entry() {
    let config = config("servers.a = \"10.0.0.9\"\nservers.api = { name = \"api.example.org\", port = 8080, weight = 3 }");
    let question = Question::Host("api.example.org".into());
    let names = names(&config, &question, &[found("10.0.0.1", None, None, false), found("2001:db8::1", None, None, false)]);
    let (expanded, troubles) = expand(&config, &names);
    assert_eq!(servers(&expanded), [("a", None, 1, false), ("api@10.0.0.1", Some(8080), 3, false)]);
    assert_eq!(troubles, Vec::<String>::new(), "nat takes the family of its VIP");
    assert_eq!(unknown(&config, &names), BTreeSet::new());
    assert_eq!(unknown(&config, &Names::default()), ["api.example.org".to_owned()].into());
}

#[test]
fn srv_records_give_ports_weights_and_backups() {
    let config = config("servers.db = { srv = \"_db._tcp.example.org\" }");
    let all = [found("10.0.0.1", Some(5432), Some(10), false), found("10.0.0.2", Some(5433), Some(1), true)];
    let (expanded, _) = expand(&config, &names(&config, &Question::Service("_db._tcp.example.org".into()), &all));
    assert_eq!(servers(&expanded), [("db@10.0.0.1:5432", Some(5432), 10, false), ("db@10.0.0.2:5433", Some(5433), 1, true)]);
}

#[test]
fn addresses_that_no_server_can_have_are_left_out_and_told() {
    let config = config("servers.a = \"10.0.0.9\"\nservers.api = { name = \"api\" }");
    let question = Question::Host("api".into());
    let all = ["127.0.0.1", "192.0.2.1", "10.0.0.9", "224.0.0.1", "10.0.0.1"].map(|address| found(address, None, None, false));
    let (expanded, troubles) = expand(&config, &names(&config, &question, &all));
    assert_eq!(servers(&expanded), [("a", None, 1, false), ("api@10.0.0.1", None, 1, false)]);
    assert_eq!(
        troubles,
        [
            "web/api@10.0.0.9 is left out: a has its address and port",
            "web/api@127.0.0.1 is left out: no server can have this address",
            "web/api@192.0.2.1 is left out: its address is a VIP",
            "web/api@224.0.0.1 is left out: no server can have this address",
        ]
    );
}
