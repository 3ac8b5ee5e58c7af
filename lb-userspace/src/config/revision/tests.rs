use proptest::prelude::*;

use super::{
    super::{ConfigText, parse},
    Parser,
};

const HOST: &str = "host";

/// Sections of every shape, with something to say about some.
const TEXT: &str = r#"# A node.
[node]
interfaces = ["eth0"]
slot_seed = "s"

[defaults]
mode = "l4"
check.tcp = true
deny = ["192.0.2.0/24"]

[listener.a]
bind = ["198.51.100.1:80", "198.51.100.1:53/udp"]
pool = "a"
allow = ["192.0.0.0/8"]

# The pool of a.
[pool.a]
forward = "nat"
snat = ["203.0.113.9"]
servers.s1 = "10.0.0.1"
servers.s2 = { address = "10.0.0.2", weight = 3 }

[listener.b]
bind = "198.51.100.2:80"
pool = "b"
slots = 256
[pool.b]
forward = "ipip"
balance = "least-conn"
[pool.b.check]
http = "GET /"
[pool.b.servers.s1]
address = "10.0.1.1"
weight = 1000
[pool.b.servers.s2]
address = "10.0.1.2"
[pool.b.servers.s3]
name = "b.example"

[pool.unused]
forward = "dsr"
servers = { s1 = "10.0.2.1:80", s2 = "10.0.2.2:80" }
"#;

/// What may be put in.
const LINES: &[&str] = &[
    "servers.s3 = \"10.0.3.1\"",
    "servers.s3 = { name = \"c.example\", port = 80 }",
    "servers.s1 = \"198.51.100.2\"",
    "pool = \"a\"",
    "pool = \"nobody\"",
    "bind = \"198.51.100.1:80\"",
    "bind = \"198.51.100.9:80\"",
    "slots = 512",
    "allow = [\"192.0.2.1/24\"]",
    "deny = []",
    "[listener.c]",
    "[listener.a]",
    "[pool.c]",
    "[pool.b]",
    "[pool]",
    "[limits]",
    "[node]",
    "[pool.a.check]",
    "[\"pool\".a]",
    "[[pool.a]]",
    "[ pool . c ]",
    "  [pool.d]",
    "pool.e.servers.s1 = \"10.0.4.1\"",
    "members = 2",
    "x = \"\"\"",
    "\"\"\"",
    "x = [",
    "]",
    "# a comment",
    "",
    "forward = \"gue\"",
    "weight = 0",
    "check = false",
    "a = { b = [ [\"[pool.a]\"],",
    "]}",
];

#[derive(Clone, Debug)]
enum Edit {
    /// A line goes.
    Without(usize),
    /// A line comes.
    With(usize, usize),
    /// A line is another one.
    Instead(usize, usize),
    /// A line is there once more, elsewhere.
    Again(usize, usize),
    /// Some lines move.
    Moved(usize, usize, usize),
    /// Bytes are others.
    Bytes(usize, usize, String),
    /// All is as it was in the beginning.
    Restored,
}

fn edit() -> impl Strategy<Value = Edit> {
    prop_oneof![
        any::<usize>().prop_map(Edit::Without),
        (any::<usize>(), any::<usize>()).prop_map(|(at, line)| Edit::With(at, line)),
        (any::<usize>(), any::<usize>()).prop_map(|(at, line)| Edit::Instead(at, line)),
        (any::<usize>(), any::<usize>()).prop_map(|(at, line)| Edit::Again(at, line)),
        (any::<usize>(), 1usize..9, any::<usize>()).prop_map(|(at, count, to)| Edit::Moved(at, count, to)),
        (any::<usize>(), 0usize..4, "[0-9a-c\"\\[\\]. \n]{0,3}").prop_map(|(at, length, with)| Edit::Bytes(at, length, with)),
        Just(Edit::Restored),
    ]
}

fn edited(text: &str, edit: &Edit) -> String {
    let mut lines: Vec<&str> = text.split('\n').collect();
    let count = lines.len();
    match edit {
        Edit::Without(at) => drop(lines.remove(at % count)),
        Edit::With(at, line) => lines.insert(at % (count + 1), LINES[line % LINES.len()]),
        Edit::Instead(at, line) => lines[at % count] = LINES[line % LINES.len()],
        Edit::Again(at, line) => lines.insert(at % (count + 1), lines[line % count]),
        Edit::Moved(at, moved, to) => {
            let at = at % count;
            let moving: Vec<&str> = lines.drain(at..(at + moved).min(count)).collect();
            let to = to % (lines.len() + 1);
            lines.splice(to..to, moving);
        }
        Edit::Bytes(at, length, with) => {
            let start = at % (text.len() + 1);
            let end = (start + length).min(text.len());
            return format!("{}{with}{}", &text[..start], &text[end..]);
        }
        Edit::Restored => return TEXT.to_owned(),
    }
    lines.join("\n")
}

/// The text as one file, or as two or three fragments.
fn as_config(text: &str, cuts: &[usize]) -> ConfigText {
    if cuts.is_empty() {
        return ConfigText::new("weir.toml", text);
    }
    let headers: Vec<usize> = std::iter::once(0).chain(text.match_indices("\n[").map(|(newline, _)| newline + 1)).collect();
    let mut starts: Vec<usize> = cuts.iter().map(|cut| headers[cut % headers.len()]).chain([0]).collect();
    starts.sort_unstable();
    starts.dedup();
    let ends = starts.iter().skip(1).copied().chain([text.len()]);
    let fragments = starts.iter().zip(ends).enumerate();
    ConfigText::joined("dir", fragments.map(|(number, (start, end))| (format!("dir/{number}.toml"), text[*start..end].to_owned())))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_read_of_a_revision_is_what_is_read_of_all_of_it(
        edits in prop::collection::vec((edit(), 0usize..3), 1..24),
        cuts in prop::collection::vec(any::<usize>(), 0..3),
    ) {
        let mut parser = Parser::default();
        let mut text = TEXT.to_owned();
        prop_assert_eq!(parser.parse(&as_config(&text, &cuts), HOST), parse(&as_config(&text, &cuts), HOST));
        for (edit, returns) in &edits {
            let before = text.clone();
            text = edited(&text, edit);
            let config = as_config(&text, &cuts);
            prop_assert_eq!(parser.parse(&config, HOST), parse(&config, HOST), "{}", text);
            // Most edits are mistakes: without a way back everything would be wrong soon.
            if *returns > 0 && parse(&config, HOST).is_err() {
                text = before;
            }
        }
    }
}

/// Whether the second text is read as a revision of the first.
fn is_revision(first: &ConfigText, second: &ConfigText) -> bool {
    let mut parser = Parser::default();
    parser.parse(first, HOST).unwrap();
    parser.before.unwrap().change_to(second, HOST).is_some()
}

#[test]
fn only_the_sections_that_differ_are_read_again() {
    let revised = |from: &str, to: &str| {
        assert!(TEXT.contains(from));
        let second = TEXT.replacen(from, to, 1);
        let is_one = is_revision(&ConfigText::new("f", TEXT), &ConfigText::new("f", second.as_str()));
        let in_fragments = |text: &str| as_config(text, &[3, 5]);
        assert_eq!(is_revision(&in_fragments(TEXT), &in_fragments(&second)), is_one, "{to}");
        is_one
    };
    // Pools and listeners, whatever is said of them, come and gone.
    for (from, to) in [
        ("weight = 3", "weight = 4"),
        ("weight = 3", "weight = 100"),
        ("[pool.b.servers.s3]\nname = \"b.example\"\n", ""),
        ("[pool.unused]", "[pool.c]\nservers.s1 = \"10.9.9.9:80\"\n[pool.unused]"),
        ("[listener.b]\nbind = \"198.51.100.2:80\"\npool = \"b\"\nslots = 256\n", ""),
        ("pool = \"b\"", "pool = \"unused\""),
        ("\"10.0.2.2:80\" }\n", "\"10.0.2.3:80\" }"),
    ] {
        assert!(revised(from, to), "{to}");
    }
    // What concerns all, and mistakes.
    for (from, to) in [
        ("slot_seed = \"s\"", "slot_seed = \"t\""),
        ("check.tcp = true", "check.tcp = false"),
        ("weight = 3", "weight = -3"),
        ("weight = 3 }", "weight = 3"),
        ("[pool.unused]", "[limits]\n[pool.unused]"),
        ("[pool.unused]", "[pool.a]"),
    ] {
        assert!(!revised(from, to), "{to}");
    }
}

#[test]
fn a_mistake_does_not_make_the_next_revision_a_new_text() {
    let mut parser = Parser::default();
    parser.parse(&ConfigText::new("f", TEXT), HOST).unwrap();
    parser.parse(&ConfigText::new("f", TEXT.replace("weight = 3 }", "weight = ")), HOST).unwrap_err();
    assert!(parser.before.unwrap().change_to(&ConfigText::new("f", TEXT.replace("weight = 3", "weight = 2")), HOST).is_some());
}
