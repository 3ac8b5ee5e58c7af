//! `weir-bench`: what the packet path costs. Needs root.

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use weir_tests::bench::{control, failover, harness, l4, live};

#[derive(Parser)]
#[command(about = "What Weir's packet path costs")]
struct Cli {
    /// The harness object, as the build of lb-userspace leaves it.
    #[arg(long, global = true)]
    harness: Option<PathBuf>,
    #[command(subcommand)]
    bench: Bench,
}

#[derive(Subcommand)]
enum Bench {
    /// The time of single packets, as multiples of a program that does nothing.
    L4 {
        /// Write the results there.
        #[arg(long)]
        json: Option<PathBuf>,
        /// Rounds of each case.
        #[arg(long, default_value_t = 11)]
        rounds: usize,
        /// Only configurations and cases whose names contain this.
        #[arg(long)]
        only: Option<String>,
    },
    /// Frames that cross a machine: Weir's NAT beside nftables and plain forwarding, on one CPU.
    Live,
    /// How soon a change is in force, and what checks cost, beside HAProxy.
    Control {
        /// Only this part.
        #[arg(long)]
        only: Option<control::Part>,
    },
    /// What a client notices of hand-overs of a virtual address, beside keepalived.
    Failover,
    /// Loads the packet program with each of these sets of features, to see what the verifier says.
    Load {
        /// As in `Settings`.
        #[arg(default_values_t = [0, 1, 2, 4, 8, 16, 32, 64, 127])]
        features: Vec<u32>,
    },
}

fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    let harness = || cli.harness.clone().map_or_else(harness::default_object, Ok);
    let mut out = std::io::stdout();
    match cli.bench {
        Bench::L4 { json, rounds, only } => l4::run(&l4::Options { harness: harness()?, rounds, only, json }, &mut out),
        Bench::Control { only } => control::run(only, &mut out),
        Bench::Failover => failover::run(&mut out),
        Bench::Live => live::run(&harness()?, &mut out),
        Bench::Load { features } => l4::load_every(&features.into_iter().collect(), &mut out),
    }
}
