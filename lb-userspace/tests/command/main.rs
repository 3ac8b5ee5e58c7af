//! The `weir` binary as an operator calls it, where neither the kernel nor privileges matter.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "a test writes files and starts processes")]
#![allow(missing_docs)]

mod logs;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
};

/// A temporary folder, removed on drop.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("weir-command-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    /// A configuration whose `[node]` begins with `node` and is followed by `rest`.
    fn config(&self, node: &str, rest: &str) -> PathBuf {
        let path = self.0.join("weir.toml");
        fs::write(&path, format!("[node]\ninterfaces = \"lo\"\n{node}\n{rest}")).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

fn weir(command: &str, config: &Path) -> Command {
    let mut weir = Command::new(env!("CARGO_BIN_EXE_weir"));
    weir.arg(command).arg("--config").arg(config);
    weir
}
