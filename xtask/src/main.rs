//! `cargo xtask`: builds, checks, tests and shows Weir. Each subcommand is one file here; `step` times and counts what they run.

mod check;
mod deny;
mod fuzz;
mod lab;
mod release;
mod rules;
mod step;
mod suite;
mod toolchain;

use std::time::Duration;

use clap::{Parser, Subcommand};

use crate::step::Ledger;

#[derive(Parser)]
#[command(about = "Build, check, test and show Weir")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Build the release binaries.
    Build,
    /// Format, lints, our own rules and unit tests: what every commit passes.
    Check {
        /// Also licences, bans and sources of the dependencies.
        #[arg(long)]
        deny: bool,
    },
    /// Everything: checks, unit tests, tests that need root, end-to-end tests in the lab.
    Test {
        /// Random, fuzz and soak tests run their long form.
        #[arg(long)]
        long: bool,
    },
    /// Show Weir balancing in a lab of network namespaces.
    Demo,
    /// Time the packet path: `l4` by itself, `live` beside nftables and the kernel's forwarding.
    Bench {
        /// What `weir-bench` is told.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, default_value = "l4")]
        arguments: Vec<String>,
    },
    /// Feed inputs made from what they reach to what reads bytes of strangers and operators.
    Fuzz {
        /// One of `tests/fuzz/src/bin`; all if left out.
        target: Option<String>,
        /// How long each runs.
        #[arg(long, default_value_t = 60)]
        seconds: u64,
    },
    /// Keep a lab standing to try things in.
    #[command(subcommand)]
    Lab(lab::Command),
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().task {
        Task::Build => release::build().map(drop),
        Task::Check { deny } => check::run(deny),
        Task::Test { long } => suite::run(long),
        Task::Demo => lab::demo(),
        Task::Bench { arguments } => bench(&arguments),
        Task::Fuzz { target, seconds } => fuzz::run(target.as_deref(), Duration::from_secs(seconds)),
        Task::Lab(command) => lab::run(&command),
    }
}

fn bench(arguments: &[String]) -> anyhow::Result<()> {
    let release = release::build()?;
    step::run(std::process::Command::new(release.bench()).args(arguments).env("WEIR_BIN", release.weir()).env("WEIR_PEER", release.peer()))
}

/// What `check` and `test` both run before any test.
fn style(ledger: &mut Ledger, deny: bool) {
    ledger.step("format", check::format);
    ledger.step("rules", rules::check);
    ledger.step("lockfile of the fuzz targets", fuzz::check_lockfile);
    ledger.step("clippy", check::clippy);
    ledger.step("clippy, eBPF", check::clippy_ebpf);
    if deny {
        ledger.step("dependencies", deny::check);
    }
}
