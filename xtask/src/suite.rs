//! `cargo xtask test`: builds the tests once and the release binaries once, then runs every test program in order of cost.

use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, bail};

use crate::{
    fuzz, release, step,
    step::{Count, Ledger},
    style,
};

/// How long one test program may run.
const LIMIT: &str = "20m";
const LONG_LIMIT: &str = "12h";
/// How long each fuzz target runs, so that none rots. Who looks for more runs `cargo xtask fuzz`.
const FUZZED_FOR: Duration = Duration::from_secs(60);
const LONG: &str = "WEIR_TEST_LONG";

pub(crate) fn run(long: bool) -> anyhow::Result<()> {
    if !is_root() {
        bail!("the tests make network namespaces and load XDP programs\nhint: run them as root");
    }
    let mut ledger = Ledger::default();
    style(&mut ledger, true);
    let programs = unit_tests(&mut ledger);
    let mut environment = Vec::new();
    ledger.step("release build", || {
        let release = release::build()?;
        environment = vec![("WEIR_BIN", release.weir()), ("WEIR_PEER", release.peer())];
        Ok(())
    });
    if long {
        environment.push((LONG, "1".into()));
    }
    for kind in [Kind::Root, Kind::EndToEnd] {
        for program in programs.iter().filter(|program| program.kind == kind) {
            ledger.tests(&program.title(), || program.run(&environment));
        }
    }
    if long {
        fuzz::steps(&mut ledger, FUZZED_FOR);
    }
    ledger.close()
}

/// Builds all test programs and runs those that need neither root nor the lab. Returns all of them.
pub(crate) fn unit_tests(ledger: &mut Ledger) -> Vec<TestProgram> {
    let mut programs = Vec::new();
    ledger.step("build of the tests", || {
        programs = build()?;
        Ok(())
    });
    for program in programs.iter().filter(|program| program.kind == Kind::Unit) {
        ledger.tests(&program.title(), || program.run(&[]));
    }
    programs
}

pub(crate) fn target_dir() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| step::root().join("target"), PathBuf::from)
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    /// Beside the code it tests.
    Unit,
    /// Needs namespaces or the kernel's BPF: `tests/tests/*.rs`.
    Root,
    /// Needs the `weir` binary too: `tests/tests/e2e_*.rs`.
    EndToEnd,
}

/// A built test program.
pub(crate) struct TestProgram {
    kind: Kind,
    package: String,
    target: String,
    executable: PathBuf,
    folder: PathBuf,
}

impl TestProgram {
    /// Reads one line of cargo's JSON; none if it does not announce a test program.
    fn of_message(line: &str) -> Option<Self> {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        if message["reason"] != "compiler-artifact" || message["profile"]["test"] != true {
            return None;
        }
        let folder = Path::new(message["manifest_path"].as_str()?).parent()?.to_owned();
        let target = message["target"]["name"].as_str()?.to_owned();
        let is_integration = message["target"]["kind"][0] == "test";
        let kind = match (is_integration, target.starts_with("e2e_")) {
            (false, _) => Kind::Unit,
            (true, false) => Kind::Root,
            (true, true) => Kind::EndToEnd,
        };
        let package = folder.file_name()?.to_string_lossy().into_owned();
        Some(Self { kind, package, target, executable: message["executable"].as_str()?.into(), folder })
    }

    fn title(&self) -> String {
        let kind = match self.kind {
            Kind::Unit => "unit",
            Kind::Root => "root",
            Kind::EndToEnd => "end to end",
        };
        format!("{kind}: {}/{}", self.package, self.target)
    }

    /// Runs it and shows its output while counting. A program that dies without a result line is an error.
    fn run(&self, environment: &[(&str, PathBuf)]) -> anyhow::Result<Count> {
        // A test that hangs must not hold up the others for ever.
        let limit = if environment.iter().any(|(name, _)| *name == LONG) { LONG_LIMIT } else { LIMIT };
        let mut command = Command::new("timeout");
        command.args(["--kill-after=10", limit]).arg(&self.executable);
        command.current_dir(&self.folder).envs(environment.iter().map(|(name, value)| (name, value))).stdout(Stdio::piped());
        // A failed `unwrap` shows the panic's backtrace; the error's own would be a second copy of it.
        command.env("RUST_LIB_BACKTRACE", "0");
        let mut child = command.spawn().with_context(|| format!("failed to start {}", self.executable.display()))?;
        let mut text = String::new();
        for line in BufReader::new(child.stdout.take().expect("stdout is piped above")).lines() {
            let line = line.with_context(|| format!("failed to read the output of {}", self.title()))?;
            println!("{line}");
            text.push_str(&line);
            text.push('\n');
        }
        let status = child.wait()?;
        let count = Count::of_output(&text);
        if !status.success() && count.failed == 0 {
            bail!("died with {status}");
        }
        Ok(count)
    }
}

fn build() -> anyhow::Result<Vec<TestProgram>> {
    let mut cargo = step::cargo();
    cargo.args(["test", "--no-run", "--quiet", "--locked", "--message-format", "json-render-diagnostics"]).stdout(Stdio::piped());
    let output = cargo.spawn().and_then(std::process::Child::wait_with_output).context("failed to start cargo test")?;
    if !output.status.success() {
        bail!("failed to build the tests");
    }
    let mut programs: Vec<_> = String::from_utf8_lossy(&output.stdout).lines().filter_map(TestProgram::of_message).collect();
    programs.sort_by(|a, b| (&a.package, &a.target).cmp(&(&b.package, &b.target)));
    Ok(programs)
}

fn is_root() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    status.lines().find_map(|line| line.strip_prefix("Uid:")).is_some_and(|ids| ids.split_whitespace().nth(1) == Some("0"))
}

#[cfg(test)]
mod tests {
    use super::{Kind, TestProgram};

    fn message(kind: &str, name: &str, test: bool) -> String {
        format!(
            r#"{{"reason":"compiler-artifact","manifest_path":"/w/tests/Cargo.toml","target":{{"kind":["{kind}"],"name":"{name}"}},
            "profile":{{"test":{test}}},"executable":"/w/target/debug/deps/{name}-1"}}"#
        )
    }

    #[test]
    fn programs_are_sorted_into_unit_root_and_end_to_end() {
        let kind = |kind: &str, name: &str| TestProgram::of_message(&message(kind, name, true)).map(|program| program.kind);
        assert_eq!(kind("lib", "weir_tests"), Some(Kind::Unit));
        assert_eq!(kind("test", "lab"), Some(Kind::Root));
        assert_eq!(kind("test", "e2e_nat"), Some(Kind::EndToEnd));
    }

    #[test]
    fn other_artifacts_and_other_lines_are_no_test_programs() {
        assert!(TestProgram::of_message(&message("lib", "weir_tests", false)).is_none());
        assert!(TestProgram::of_message("not json").is_none());
    }
}
