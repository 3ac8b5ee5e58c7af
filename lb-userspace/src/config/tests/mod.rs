//! Behaviour of the reader: what is accepted, and the exact words for what is not.

mod accepted;
mod checks;
mod errors;
mod fragments;
mod lints;
mod names;
mod random;
mod vrrp;

use super::{ConfigText, Diagnostic, model::Config, parse};

/// What a file needs beside what a test is about.
const NODE: &str = "[node]\ninterfaces = [\"eth0\"]\nslot_seed = \"s\"\n";

/// A file that everybody may read.
fn file(text: &str) -> ConfigText {
    ConfigText { exposed: ["weir.toml".to_owned()].into(), ..ConfigText::new("weir.toml", text) }
}

fn read(text: &str) -> Result<(Config, Vec<Diagnostic>), Vec<Diagnostic>> {
    parse(&file(text), "host")
}

/// A file of which nothing is said.
#[track_caller]
fn accepted(text: &str) -> Config {
    let source = ConfigText::new("weir.toml", text);
    match read(text) {
        Ok((config, warnings)) => {
            assert_eq!(lines(&warnings, &source), Vec::<String>::new());
            config
        }
        Err(errors) => panic!("{}", lines(&errors, &source).join("\n")),
    }
}

/// `line:column: severity: message | hint` of everything found.
#[track_caller]
fn findings(text: &str) -> Vec<String> {
    let source = ConfigText::new("weir.toml", text);
    match read(text) {
        Ok((_, warnings)) => lines(&warnings, &source),
        Err(errors) => lines(&errors, &source),
    }
}

fn lines(diagnostics: &[Diagnostic], source: &ConfigText) -> Vec<String> {
    let line = |diagnostic: &Diagnostic| {
        let hint = diagnostic.hint.as_ref().map(|hint| format!(" | {hint}")).unwrap_or_default();
        let line = diagnostic.render_line(source);
        format!("{}{hint}", line.strip_prefix("weir.toml:").expect("begins with the file's name"))
    };
    diagnostics.iter().map(line).collect()
}
