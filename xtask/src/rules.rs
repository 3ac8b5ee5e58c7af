//! The house rules that no lint knows: where clocks and sockets may be used, and how long a file may be.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};

use crate::step::root;

/// Lines of a file before its tests.
const MAX_LINES: usize = 600;
const SOURCES: [&str; 6] = ["lb-common/src", "lb-ebpf/src", "lb-userspace/src", "tests/src", "tests/fuzz/src", "xtask/src"];

pub(crate) fn check() -> anyhow::Result<()> {
    let mut broken = Vec::new();
    for folder in SOURCES {
        for path in rust_files(&root().join(folder))? {
            let text = fs::read_to_string(&path).with_context(|| format!("failed to read {}", path.display()))?;
            broken.extend(broken_rules(&path, &text).into_iter().map(|rule| format!("{}: {rule}", path.display())));
        }
    }
    if !broken.is_empty() {
        bail!("rules broken:\n{}", broken.join("\n"));
    }
    Ok(())
}

fn broken_rules(path: &Path, text: &str) -> Vec<String> {
    let mut broken = Vec::new();
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let is_test = name == "tests.rs"
        || path.components().any(|part| part.as_os_str() == "tests") && !path.components().any(|part| part.as_os_str() == "src");
    let is_driver = name == "driver.rs" || name.ends_with("_io.rs");
    // Spelled in two parts, or this file would break its own rule.
    let allow = concat!("#![allow(", "clippy::disallowed");
    if !is_driver && !is_test && text.lines().any(|line| line.trim_start().starts_with(allow)) {
        broken.push("only driver.rs and *_io.rs may allow clocks, sockets and tasks".to_owned());
    }
    let lines = text.lines().position(|line| line.trim() == "#[cfg(test)]").unwrap_or_else(|| text.lines().count());
    if !is_test && lines > MAX_LINES {
        broken.push(format!("{lines} lines before its tests, more than {MAX_LINES}"));
    }
    broken
}

fn rust_files(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("failed to list {}", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            files.extend(rust_files(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{MAX_LINES, broken_rules};

    fn allow() -> String {
        ["#![allow(", "clippy::disallowed_methods, reason = \"sleeps\")]\n"].concat()
    }

    #[test]
    fn a_driver_may_use_the_clock_and_a_module_root_may_not() {
        assert_eq!(broken_rules(Path::new("health/driver.rs"), &allow()), Vec::<String>::new());
        assert_eq!(broken_rules(Path::new("config/load_io.rs"), &allow()), Vec::<String>::new());
        assert_eq!(broken_rules(Path::new("health/mod.rs"), &allow()).len(), 1);
    }

    #[test]
    fn tests_at_the_end_do_not_count_toward_the_length_of_a_file() {
        let code = "fn f() {}\n".repeat(MAX_LINES);
        let tests = format!("#[cfg(test)]\n{}", "// test\n".repeat(500));
        assert_eq!(broken_rules(Path::new("a.rs"), &format!("{code}{tests}")), Vec::<String>::new());
        assert_eq!(broken_rules(Path::new("a.rs"), &format!("{code}{code}")), ["1200 lines before its tests, more than 600"]);
    }
}
