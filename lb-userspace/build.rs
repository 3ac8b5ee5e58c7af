//! Builds the XDP object and hands its path to the crate as `WEIR_XDP_OBJECT`.
//!
//! One switch: the environment variable `WEIR_EBPF`. Unset, the object is built here. A path takes that file instead. `none` embeds an
//! empty object, so that everything but the data plane builds and is tested without an eBPF toolchain.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "a build script runs programs and writes files")]

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, bail};

const SWITCH: &str = "WEIR_EBPF";

fn main() -> anyhow::Result<()> {
    println!("cargo:rerun-if-env-changed={SWITCH}");
    let object = PathBuf::from(env::var("OUT_DIR").context("OUT_DIR is not set")?).join("weir-xdp");
    match env::var(SWITCH) {
        Err(_) => {
            let built = build_object()?;
            fs::copy(&built, &object).with_context(|| format!("failed to copy {}", built.display()))?;
        }
        Ok(switch) if switch == "none" => fs::write(&object, [])?,
        Ok(path) => {
            println!("cargo:rerun-if-changed={path}");
            fs::copy(&path, &object).with_context(|| format!("failed to copy {path}"))?;
        }
    }
    println!("cargo:rustc-env=WEIR_XDP_OBJECT={}", object.display());
    Ok(())
}

/// Every unit set (build, clippy, test) runs this script; they share one target directory, so the object is compiled once.
fn build_object() -> anyhow::Result<PathBuf> {
    let manifest = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?);
    let root = manifest.parent().context("lb-userspace has no parent folder")?;
    for input in ["lb-ebpf/src", "lb-ebpf/Cargo.toml", "lb-common/src", "lb-common/Cargo.toml", "Cargo.toml"] {
        println!("cargo:rerun-if-changed={}", root.join(input).display());
    }
    let endian = if env::var("CARGO_CFG_TARGET_ENDIAN")? == "big" { "eb" } else { "el" };
    let target = format!("bpf{endian}-unknown-none");
    let target_dir = target_dir(root).join("ebpf");
    let toolchain = Toolchain::find()?;
    let mut cargo = toolchain.cargo();
    cargo
        .current_dir(root.join("lb-ebpf"))
        .args(["build", "--release", "--bins", "--target", &target, "--target-dir"])
        .arg(&target_dir)
        .env("CARGO_ENCODED_RUSTFLAGS", rust_flags()?)
        // The outer compiler's wrappers and paths are not the inner one's.
        .env_remove("RUSTC")
        .env_remove("RUSTC_WORKSPACE_WRAPPER")
        .env_remove("CLIPPY_ARGS")
        .env_remove("RUSTUP_TOOLCHAIN")
        .env_remove("CARGO");
    if toolchain.builds_core() {
        cargo.args(["-Z", "build-std=core"]).env("RUSTC_BOOTSTRAP", "1");
    } else {
        cargo.env("RUSTC_BOOTSTRAP", "aya_ebpf,weir_xdp");
    }
    let status = cargo.status().with_context(|| format!("failed to start {cargo:?}"))?;
    if !status.success() {
        bail!(
            "failed to build the XDP object with {}\nhint: scripts/setup installs what it needs; WEIR_EBPF=none builds without it",
            toolchain.name
        );
    }
    Ok(target_dir.join(target).join("release/weir-xdp"))
}

fn target_dir(root: &Path) -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from)
}

/// `target-cpu=v3` (kernel 5.12) has the atomic compare-and-swap; bpf-linker writes the maps' BTF.
fn rust_flags() -> anyhow::Result<String> {
    let arch = env::var("CARGO_CFG_TARGET_ARCH")?;
    Ok([&format!("--cfg=bpf_target_arch=\"{arch}\""), "-Cdebuginfo=2", "-Ctarget-cpu=v3", "-Clink-arg=--btf"].join("\x1f"))
}

/// A Rust toolchain that can compile for the BPF target, as `scripts/setup` leaves it.
struct Toolchain {
    name: &'static str,
    /// The `rustup` toolchain to name, or none for the plain `cargo` on the path.
    rustup: Option<&'static str>,
    core_is_prebuilt: bool,
}

impl Toolchain {
    /// Takes, in this order: a linked toolchain `bpf` (the distribution's compiler beside rustup), a compiler on the path with `core`
    /// prebuilt for the BPF target, and nightly with its sources.
    fn find() -> anyhow::Result<Self> {
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
        let Ok(output) = self.command("rustc").args(["--print", "sysroot"]).env_remove("RUSTUP_TOOLCHAIN").output() else {
            return false;
        };
        let sysroot = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
        let needed = if self.core_is_prebuilt { "lib/rustlib/bpfel-unknown-none/lib" } else { "lib/rustlib/src/rust/library/core" };
        output.status.success() && sysroot.join(needed).exists()
    }

    fn builds_core(&self) -> bool {
        !self.core_is_prebuilt
    }

    fn cargo(&self) -> Command {
        self.command("cargo")
    }

    fn command(&self, program: &str) -> Command {
        match self.rustup {
            Some(toolchain) => {
                let mut command = Command::new("rustup");
                command.args(["run", toolchain, program]);
                command
            }
            None => Command::new(program),
        }
    }
}
