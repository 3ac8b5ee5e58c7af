//! Licences, bans and sources of the dependencies, judged by cargo-deny and `deny.toml`. Advisories need a database from the network, so
//! they are not part of the tests.

use std::process::Command;

use crate::step;

const VERSION: &str = "0.20.2";

pub(crate) fn check() -> anyhow::Result<()> {
    if !is_installed() {
        println!("building cargo-deny {VERSION}");
        // Measured on two cores: unoptimised it costs 130 s of processor time to build and 2 s to run; optimised, 366 s and 1 s.
        let mut install = step::cargo();
        install.args(["install", "cargo-deny", "--quiet", "--debug", "--locked", "--version", VERSION]).env("CARGO_PROFILE_DEV_DEBUG", "0");
        step::run(&mut install)?;
    }
    step::run(step::cargo().args(["deny", "--locked", "check", "--hide-inclusion-graph", "bans", "licenses", "sources"]))
}

fn is_installed() -> bool {
    let expected = format!("cargo-deny {VERSION}");
    Command::new("cargo-deny").arg("--version").output().is_ok_and(|output| String::from_utf8_lossy(&output.stdout).trim() == expected)
}
