//! A directory of fragments is one configuration, and what is wrong with it is told where it stands.

use super::{super::Fragment, ConfigText, NODE, parse};

const WEB: &str = "[listener.web]\nmode = \"l4\"\nbind = \"192.0.2.1:80\"\npool = \"web\"\n";
const POOL: &str = "[pool.web]\nservers.a = \"10.0.0.1\"\n";

fn joined(fragments: &[(&str, &str)]) -> ConfigText {
    ConfigText::joined("conf.d", fragments.iter().map(|(name, text)| (format!("conf.d/{name}"), (*text).to_owned())))
}

/// A line for each thing found.
fn findings(fragments: &[(&str, &str)]) -> Vec<String> {
    let text = joined(fragments);
    let found = parse(&text, "host").map_or_else(|errors| errors, |(_, warnings)| warnings);
    found.iter().map(|finding| finding.render_line(&text)).collect()
}

#[test]
fn fragments_are_read_as_one_file() {
    let text = joined(&[("1.toml", NODE), ("2.toml", WEB), ("3.toml", POOL), ("4.toml", "")]);
    let (config, warnings) = parse(&text, "host").unwrap();
    assert_eq!(warnings, []);
    assert_eq!(config, parse(&ConfigText::new("weir.toml", format!("{NODE}{WEB}{POOL}")), "host").unwrap().0);
}

#[test]
fn a_table_may_go_on_in_another_fragment() {
    let more = "[pool.web.servers]\nb = \"10.0.0.2\"\n[pool.web.server]\nweight = 3";
    let (config, _) = parse(&joined(&[("1", NODE), ("2", WEB), ("3", POOL), ("4", more)]), "host").unwrap();
    let weights: Vec<_> = config.pools["web"].servers.iter().map(|(name, server)| (name.as_str(), server.weight)).collect();
    assert_eq!(weights, [("a", 3), ("b", 3)]);
}

#[test]
fn a_key_that_two_fragments_give_is_told_with_both_places() {
    let found = findings(&[("1", NODE), ("2", WEB), ("3", POOL), ("4", "# again\n[pool.web]\nservers.a = \"10.0.0.2\"\n")]);
    assert_eq!(found, ["conf.d/4:3:9: error: `pool.web.servers.a` is given twice: conf.d/3:2:9 has it already"]);
}

#[test]
fn errors_name_the_fragment_and_its_line() {
    let found = findings(&[("1", NODE), ("2", &WEB.replace("\"web\"", "\"wep\"")), ("3", &POOL.replace("servers", "sarvers"))]);
    assert_eq!(
        found,
        [
            "conf.d/2:4:8: error: there is no pool `wep`",
            "conf.d/3:1:1: error: a pool needs a server",
            "conf.d/3:2:1: error: unknown key `sarvers` in [pool.web]",
        ]
    );
    let text = joined(&[("1", NODE), ("2", &WEB.replace("\"l4\"", "\"l5\"")), ("3", POOL)]);
    let errors = parse(&text, "host").unwrap_err();
    let shown = errors[0].render(&text);
    assert!(shown.contains("--> conf.d/2:2:8\n") && shown.contains("2 | mode = \"l5\""), "{shown}");
    assert_eq!(errors[0].located(&text).file, "conf.d/2");
}

#[test]
fn a_syntax_error_stays_in_its_fragment() {
    let found = findings(&[("1", NODE), ("2", "[pool.db]\nservers = [\n"), ("3", "[pool.web]\nweight = 1\nservers.a = \"10.0.0.1\"\n")]);
    assert!(found[0].starts_with("conf.d/2:"), "{found:?}");
    assert!(
        found.iter().all(|line| line.starts_with("conf.d/2:") || line.starts_with("conf.d/3:2:1: error: unknown key `weight`")),
        "{found:?}"
    );
}

#[test]
fn what_is_missing_in_all_fragments_is_said_of_the_directory() {
    assert_eq!(findings(&[("1", WEB), ("2", POOL)])[0], "conf.d:1:1: error: missing key `interfaces` in [node]");
}

#[test]
fn fragments_that_make_no_sense_are_left_out() {
    let fragment = |start| Fragment { file: "f".into(), start };
    for starts in [vec![1], vec![0, 3, 2], vec![0, 99], vec![0, 0]] {
        let text = ConfigText::with_fragments("x", "\n[node]\n", starts.into_iter().map(fragment).collect());
        assert_eq!(text.fragments, []);
    }
    let text = joined(&[("a", "ä"), ("b", "")]);
    assert_eq!(ConfigText::with_fragments("conf.d", text.text.clone(), text.fragments.clone()), text);
}
