//! Which Rust toolchain compiles for the BPF target. Shared with lb-userspace/build.rs, which includes this file.

use std::{path::PathBuf, process::Command};

use anyhow::Context as _;

/// What the object is compiled with, in the form of `CARGO_ENCODED_RUSTFLAGS`, for a machine of architecture `arch`.
/// `target-cpu=v3` (kernel 5.12) has the atomic compare-and-swap; bpf-linker writes the maps' BTF.
pub(crate) fn rust_flags(arch: &str) -> String {
    [&format!("--cfg=bpf_target_arch=\"{arch}\""), "-Cdebuginfo=2", "-Ctarget-cpu=v3", "-Clink-arg=--btf"].join("\x1f")
}

/// A Rust toolchain that can compile for the BPF target, as `scripts/setup` leaves it.
pub(crate) struct Toolchain {
    name: &'static str,
    /// The `rustup` toolchain to name, or none for the plain `cargo` on the path.
    rustup: Option<&'static str>,
    core_is_prebuilt: bool,
}

impl Toolchain {
    /// Takes, in this order: a linked toolchain `bpf` (the distribution's compiler beside rustup), a compiler on the path with `core`
    /// prebuilt for the BPF target, and nightly with its sources.
    pub(crate) fn find() -> anyhow::Result<Self> {
        let candidates = [
            Self { name: "rustup toolchain bpf", rustup: Some("bpf"), core_is_prebuilt: true },
            Self { name: "the system's cargo", rustup: None, core_is_prebuilt: true },
            Self { name: "rustup toolchain nightly", rustup: Some("nightly"), core_is_prebuilt: false },
        ];
        candidates.into_iter().find(Self::is_usable).context(
            "no Rust toolchain here can build for the BPF target\nhint: run scripts/setup; WEIR_EBPF=none builds without the data plane",
        )
    }

    fn is_usable(&self) -> bool {
        let Ok(output) = self.command("rustc").args(["--print", "sysroot"]).output() else {
            return false;
        };
        let sysroot = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
        let needed = if self.core_is_prebuilt { "lib/rustlib/bpfel-unknown-none/lib" } else { "lib/rustlib/src/rust/library/core" };
        output.status.success() && sysroot.join(needed).exists()
    }

    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    /// Whether `-Z build-std=core` is needed.
    pub(crate) fn builds_core(&self) -> bool {
        !self.core_is_prebuilt
    }

    /// Its cargo, allowed the features that are not stable in the crates that need them.
    pub(crate) fn cargo(&self) -> Command {
        let mut cargo = self.command("cargo");
        cargo.env("RUSTC_BOOTSTRAP", if self.core_is_prebuilt { "aya_ebpf,weir_xdp" } else { "1" });
        cargo
    }

    fn command(&self, program: &str) -> Command {
        let mut command = match self.rustup {
            Some(toolchain) => {
                let mut rustup = Command::new("rustup");
                rustup.args(["run", toolchain, program]);
                rustup
            }
            None => Command::new(program),
        };
        // The outer compiler's wrappers and paths are not the inner one's.
        for outer in ["RUSTC", "RUSTC_WORKSPACE_WRAPPER", "CLIPPY_ARGS", "RUSTUP_TOOLCHAIN", "CARGO"] {
            command.env_remove(outer);
        }
        command
    }
}
