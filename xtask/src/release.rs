//! The release binaries: `weir`, and of the tests crate those that the lab runs. One package set, hence one feature set and one build.

use std::path::PathBuf;

use crate::{
    step::{cargo, run},
    suite::target_dir,
};

/// Where the binaries are.
pub(crate) struct Release {
    folder: PathBuf,
}

impl Release {
    pub(crate) fn weir(&self) -> PathBuf {
        self.folder.join("weir")
    }

    pub(crate) fn peer(&self) -> PathBuf {
        self.folder.join("weir-peer")
    }

    pub(crate) fn bench(&self) -> PathBuf {
        self.folder.join("weir-bench")
    }

    pub(crate) fn lab(&self) -> PathBuf {
        self.folder.join("weir-lab")
    }
}

pub(crate) fn build() -> anyhow::Result<Release> {
    run(cargo().args(["build", "--quiet", "--locked", "--release", "-p", "lb-userspace", "-p", "weir-tests", "--bins"]))?;
    let release = Release { folder: target_dir().join("release") };
    println!("{}", release.weir().display());
    Ok(release)
}
