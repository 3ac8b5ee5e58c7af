//! The demo and the standing lab.

use std::io::stdout;

use clap::{Parser, Subcommand};
use weir_tests::{demo, standing};

#[derive(Parser)]
#[command(about = "Weir's lab of network namespaces")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Show Weir balancing.
    Demo,
    /// Start a lab that stays.
    Up,
    /// Remove it.
    Down,
    /// Be the process that holds it.
    #[command(hide = true)]
    Hold,
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().task {
        Task::Demo => demo::run(&mut stdout()),
        Task::Up => standing::up(&mut stdout()),
        Task::Down => standing::down(),
        Task::Hold => standing::hold(&mut stdout()),
    }
}
