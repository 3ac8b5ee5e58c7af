//! `cargo xtask demo` and `cargo xtask lab`: hand over to `weir-lab` of the tests crate with the release binaries.

use std::process;

use clap::Subcommand;

use crate::{release, step};

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Build and start it; prints how to enter its namespaces.
    Up,
    /// Remove it.
    Down,
}

pub(crate) fn demo() -> anyhow::Result<()> {
    hand_over("demo")
}

pub(crate) fn run(command: &Command) -> anyhow::Result<()> {
    match command {
        Command::Up => hand_over("up"),
        Command::Down => hand_over("down"),
    }
}

fn hand_over(subcommand: &str) -> anyhow::Result<()> {
    let release = release::build()?;
    step::run(process::Command::new(release.lab()).arg(subcommand).env("WEIR_BIN", release.weir()).env("WEIR_PEER", release.peer()))
}
