//! A configuration's text, of one file or a directory, and versions of it one after the other. Whatever is said of one points into it and can be shown;
//! what only differs in part is read as the whole is; what is accepted is so again, and can be edited.
#![no_main]

use lb_userspace::config::{
    ConfigText, Parsed, Parser,
    edit::{Edit, edit},
    model::Config,
    node_directories, node_section, parse,
};
use libfuzzer_sys::fuzz_target;

/// Ends a version; a control character, which TOML has no use for.
const NEXT_VERSION: char = '\u{1}';
/// Ends a fragment.
const NEXT_FRAGMENT: char = '\u{2}';
const HOST: &str = "host";
const WEIGHT: u16 = 7;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut parser = Parser::default();
    for version in text.split(NEXT_VERSION) {
        let text = text_of(version);
        let parsed = parse(&text, HOST);
        assert_eq!(parser.parse(&text, HOST), parsed);
        told(&text, &parsed);
        node_directories(&text, HOST);
        let node = node_section(&text, HOST);
        if let Ok((config, _)) = &parsed {
            assert_eq!(node.as_ref(), Some(&config.node));
            assert_eq!(parse(&text, HOST), parsed);
            edited(&text, config);
        }
    }
});

fn text_of(version: &str) -> ConfigText {
    if !version.contains(NEXT_FRAGMENT) {
        return ConfigText::new("weir.toml", version);
    }
    let fragment = |(number, text): (usize, &str)| (format!("conf.d/{number}.toml"), text.to_owned());
    ConfigText::joined("conf.d", version.split(NEXT_FRAGMENT).enumerate().map(fragment))
}

fn told(text: &ConfigText, parsed: &Parsed) {
    let (Ok((_, findings)) | Err(findings)) = parsed;
    assert!(parsed.is_ok() || !findings.is_empty(), "refused without a word");
    for finding in findings {
        let span = finding.span.clone();
        assert!(span.start <= span.end && text.text.get(span).is_some(), "{finding:?}");
        let located = finding.located(text);
        let place = format!("{}:{}:", located.file, located.line);
        assert!(finding.render(text).contains(&place) && finding.render_line(text).starts_with(&place));
    }
}

/// The first server of each pool gets another weight: the text then says so, and nothing else.
fn edited(text: &ConfigText, config: &Config) {
    for (pool, server) in config.pools.iter().filter_map(|(name, pool)| Some((name, pool.servers.keys().next()?))) {
        // Not all that is said of a server can be changed where it is said; then the reason is told.
        let Ok(edited) = edit(text, HOST, pool, server, &Edit::Weight(WEIGHT)) else { continue };
        let (after, _) = parse(&edited.text, HOST).expect("an edited text was judged");
        let mut expected = config.clone();
        let changed = std::sync::Arc::make_mut(expected.pools.get_mut(pool).expect("it is there"));
        changed.servers.get_mut(server).expect("it is there").weight = WEIGHT;
        assert_eq!(after, expected);
    }
}
