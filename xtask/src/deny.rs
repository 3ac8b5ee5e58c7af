//! Licences, bans and sources of the dependencies, judged by cargo-deny and `deny.toml`. Advisories need a database from the network, so
//! they are not part of the tests.

use std::process::Command;

use crate::step;

const VERSION: &str = "0.20.2";

pub(crate) fn check() -> anyhow::Result<()> {
    if !is_installed() {
        println!("building cargo-deny {VERSION}");
        step::run(step::cargo().args(["install", "cargo-deny", "--quiet", "--locked", "--version", VERSION]))?;
    }
    step::run(step::cargo().args(["deny", "--locked", "check", "--hide-inclusion-graph", "bans", "licenses", "sources"]))
}

fn is_installed() -> bool {
    let expected = format!("cargo-deny {VERSION}");
    Command::new("cargo-deny").arg("--version").output().is_ok_and(|output| String::from_utf8_lossy(&output.stdout).trim() == expected)
}
