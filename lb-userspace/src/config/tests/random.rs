use proptest::prelude::*;

use super::{super::ConfigText, read};

const FULL: &str = include_str!("../../../../conf/l4-full.toml");

/// Parses, and shows whatever was found in every form.
fn exercise(text: &str) {
    let found = match read(text) {
        Ok((_, found)) | Err(found) => found,
    };
    let source = ConfigText::new("weir.toml", text);
    for finding in found {
        let located = finding.located(&source);
        let rendered = finding.render(&source);
        assert!(rendered.contains(&format!("weir.toml:{}:", located.line)), "{rendered}");
    }
}

/// The text with some bytes range replaced, cut at character boundaries.
fn replaced(text: &str, at: usize, length: usize, with: &str) -> String {
    let start = text.floor_char_boundary(at % (text.len() + 1));
    let end = text.ceil_char_boundary((start + length).min(text.len()));
    format!("{}{with}{}", &text[..start], &text[end..])
}

fn line_without(text: &str, line: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let removed = line % lines.len();
    lines.iter().enumerate().filter(|(index, _)| *index != removed).map(|(_, line)| format!("{line}\n")).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_text_is_parsed_without_panic(text in any::<String>()) {
        exercise(&text);
    }

    #[test]
    fn text_that_looks_like_toml_is_parsed_without_panic(text in "([a-z]{1,4}|node|listener|pool|servers|bind|[\\[\\]{}=.,'\"#\n ]|[0-9:/*-]{1,3}|\u{e9}){0,80}") {
        exercise(&text);
    }

    #[test]
    fn a_mutated_file_is_parsed_without_panic(
        edits in prop::collection::vec((any::<usize>(), 0usize..12, "[\\[\\]{}=.,'\"#\n a-z0-9:/\\\\*\u{e9}-]{0,6}"), 1..4)
    ) {
        exercise(&edits.iter().fold(FULL.to_owned(), |text, (at, length, with)| replaced(&text, *at, *length, with)));
    }

    #[test]
    fn a_value_of_any_kind_in_any_place_is_parsed_without_panic(line in any::<usize>(), value in "-?[0-9]{1,24}|true|\\[\\[\\]\\]|\\{a=1\\}|'[ -&(-~]{0,20}'|1979-05-27|0x[0-9a-f]{1,20}|inf") {
        let lines: Vec<&str> = FULL.lines().collect();
        let at = line % lines.len();
        let changed = lines[at].split_once('=').map_or(lines[at].to_owned(), |(key, _)| format!("{key}= {value}"));
        exercise(&lines.iter().enumerate().map(|(index, line)| if index == at { format!("{changed}\n") } else { format!("{line}\n") }).collect::<String>());
    }

    #[test]
    fn a_file_lacking_a_line_is_parsed_without_panic(line in any::<usize>()) {
        exercise(&line_without(FULL, line));
    }
}

#[test]
fn deep_nesting_is_an_error_and_no_overflow() {
    assert!(read(&format!("a = {}", "[".repeat(100_000))).is_err());
    assert!(read(&format!("a = {}", "{a=".repeat(100_000))).is_err());
}

#[test]
fn large_files_of_mistakes_are_read_without_panic() {
    for unit in ["x\n", "[x]\ny = \n", "[[", "\"", "a.a.a.a = 1\n", "[pool.a]\n", "{,", "\u{e9} = [\n"] {
        exercise(&unit.repeat((256 << 10) / unit.len()));
    }
}
