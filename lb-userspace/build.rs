//! Builds the XDP object and hands its path to the crate as `WEIR_XDP_OBJECT`.
//!
//! One switch: the environment variable `WEIR_EBPF`. Unset, the object is built here. A path takes that file instead. `none` embeds an
//! empty object, so that everything but the data plane builds and is tested without an eBPF toolchain.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "a build script runs programs and writes files")]

#[path = "../xtask/src/toolchain.rs"]
mod toolchain;

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};

use crate::toolchain::{Toolchain, rust_flags};

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
        .env("CARGO_ENCODED_RUSTFLAGS", rust_flags(&env::var("CARGO_CFG_TARGET_ARCH")?));
    if toolchain.builds_core() {
        cargo.args(["-Z", "build-std=core"]);
    }
    let status = cargo.status().with_context(|| format!("failed to start {cargo:?}"))?;
    if !status.success() {
        bail!(
            "failed to build the XDP object with {}\nhint: scripts/setup installs what it needs; WEIR_EBPF=none builds without it",
            toolchain.name()
        );
    }
    Ok(target_dir.join(target).join("release/weir-xdp"))
}

fn target_dir(root: &Path) -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from)
}
