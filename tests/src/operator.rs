//! The operator's commands in tests: what they say, and what they have to.

use std::process::Output;

use serde_json::Value;

use crate::lab::Weir;

/// A command's exit code, and what it wrote, its errors last.
pub fn said(output: &Output) -> (Option<i32>, String) {
    (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr))
}

/// What a command says that has to succeed.
///
/// # Panics
/// If it does not.
pub fn done(weir: &Weir<'_>, arguments: &[&str]) -> String {
    let (code, text) = said(&weir.operate(arguments).expect("weir starts"));
    assert_eq!(code, Some(0), "{arguments:?}: {text}\n{}", weir.stderr());
    text
}

/// A command that has to be refused with these words.
///
/// # Panics
/// If it is not.
pub fn refused(weir: &Weir<'_>, arguments: &[&str], words: &str) {
    let (code, text) = said(&weir.operate(arguments).expect("weir starts"));
    assert!(code == Some(1) && text.contains(words), "{arguments:?}: {code:?} {text}");
}

/// What a command prints with `-o json`.
///
/// # Panics
/// If that is none.
pub fn json(weir: &Weir<'_>, arguments: &[&str]) -> Value {
    let output = weir.operate(&[arguments, &["-o", "json"]].concat()).expect("weir starts");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{arguments:?}: {error} {:?}", said(&output)))
}

/// The servers as `weir server list` has them, by name.
///
/// # Panics
/// If the list is not one.
pub fn servers(weir: &Weir<'_>) -> std::collections::BTreeMap<String, Value> {
    let servers = json(weir, &["server", "list"]);
    servers.as_array().unwrap().iter().map(|server| (server["server"].as_str().unwrap().to_owned(), server.clone())).collect()
}
