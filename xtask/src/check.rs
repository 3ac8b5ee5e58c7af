//! `cargo xtask check`: what every commit passes.

use crate::{
    step::{self, Ledger},
    style, suite,
    toolchain::{Toolchain, rust_flags},
};

pub(crate) fn run(deny: bool) -> anyhow::Result<()> {
    let mut ledger = Ledger::default();
    style(&mut ledger, deny);
    suite::unit_tests(&mut ledger);
    ledger.close()
}

pub(crate) fn format() -> anyhow::Result<()> {
    step::run(step::cargo().args(["fmt", "--all", "--check"]))?;
    step::run(step::cargo().args(["fmt", "--manifest-path", "tests/fuzz/Cargo.toml", "--check"]))
}

pub(crate) fn clippy() -> anyhow::Result<()> {
    step::run(step::cargo().args(["clippy", "--quiet", "--locked", "--all-targets", "--", "-D", "warnings"]))
}

/// The programs for the kernel, with the toolchain that builds them. Nightly's clippy would first build `core`, so there only the build judges.
pub(crate) fn clippy_ebpf() -> anyhow::Result<()> {
    let toolchain = Toolchain::find()?;
    if toolchain.builds_core() {
        println!("left to the build: {} has no core for the BPF target", toolchain.name());
        return Ok(());
    }
    let mut cargo = toolchain.cargo();
    cargo
        .current_dir(step::root().join("lb-ebpf"))
        .args(["clippy", "--quiet", "--locked", "--release", "-p", "lb-ebpf", "--bins", "--target", "bpfel-unknown-none", "--target-dir"])
        .arg(suite::target_dir().join("ebpf"))
        .args(["--", "-D", "warnings"])
        .env("CARGO_ENCODED_RUSTFLAGS", rust_flags(std::env::consts::ARCH));
    step::run(&mut cargo)
}
