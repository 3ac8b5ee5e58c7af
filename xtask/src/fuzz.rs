//! `cargo xtask fuzz`: builds the targets of `tests/fuzz` with coverage counters, by the stable compiler, and runs each for some time.
//!
//! libFuzzer keeps inputs that reach new code in `target/fuzz-corpus`, so that the next run goes on from there, and those that break something in
//! `target/fuzz-crashes`.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, bail};

use crate::{
    step::{self, Ledger},
    suite::target_dir,
};

/// What `cargo fuzz -s none` passes: counters of edges, and comparisons, of whose operands libFuzzer makes inputs. Overflow is a panic.
const FLAGS: [&str; 9] = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "--cfg",
    "fuzzing",
    "-Cdebug-assertions",
    "-Coverflow-checks=yes",
];
/// One input takes microseconds; some texts of configurations milliseconds.
const INPUT_LIMIT: Duration = Duration::from_secs(5);
const MEMORY_MB: u32 = 2048;

/// Builds the targets, runs one of them or all, and shows what they reached.
///
/// # Errors
/// If there is no such target, it does not build, or an input breaks it.
pub(crate) fn run(name: Option<&str>, time: Duration) -> anyhow::Result<()> {
    let targets = Target::all()?;
    let chosen: Vec<&Target> = targets.iter().filter(|target| name.is_none_or(|name| target.name == name)).collect();
    if chosen.is_empty() {
        let known: Vec<&str> = targets.iter().map(|target| target.name.as_str()).collect();
        bail!("there is no such fuzz target\nhint: there are {}", known.join(", "));
    }
    let programs = build()?;
    let mut runs = Vec::new();
    for target in chosen {
        println!("{}: {} s", target.name, time.as_secs());
        runs.push((target, target.run(&programs, time)?));
    }
    println!("\n{:<16} {:>12} {:>9} {:>9} {:>9}  RESULT", "TARGET", "RUNS", "RUNS/S", "COV START", "COV END");
    for (target, Run { figures, broken }) in &runs {
        let Figures { runs, runs_each_second, first_coverage, last_coverage } = figures;
        let result = broken.as_ref().map_or("ok", |_| "BROKEN");
        println!("{:<16} {runs:>12} {runs_each_second:>9} {first_coverage:>9} {last_coverage:>9}  {result}", target.name);
    }
    let broken: Vec<&str> = runs.iter().filter_map(|(_, run)| run.broken.as_deref()).collect();
    if !broken.is_empty() {
        bail!("{}", broken.join("\n"));
    }
    Ok(())
}

/// Whether the lockfile of the targets is that of what they stand on: it is not the workspace's, and all but the long tests would do without.
///
/// # Errors
/// If it is not.
pub(crate) fn check_lockfile() -> anyhow::Result<()> {
    let mut cargo = step::cargo();
    cargo.args(["metadata", "--locked", "--format-version", "1", "--manifest-path", "tests/fuzz/Cargo.toml"]).stdout(Stdio::null());
    step::run(&mut cargo).context("tests/fuzz/Cargo.lock is behind\nhint: cargo update --workspace --manifest-path tests/fuzz/Cargo.toml")
}

/// A step for the build and one a target.
pub(crate) fn steps(ledger: &mut Ledger, time: Duration) {
    let mut built = None;
    ledger.step("build of the fuzz targets", || {
        built = Some((Target::all()?, build()?));
        Ok(())
    });
    let Some((targets, programs)) = built else { return };
    for target in targets {
        ledger.step(&format!("fuzz: {}", target.name), || match target.run(&programs, time)? {
            Run { broken: Some(broken), .. } => bail!(broken),
            Run { figures, broken: None } => {
                println!("{} runs, coverage {} to {}", figures.runs, figures.first_coverage, figures.last_coverage);
                Ok(())
            }
        });
    }
}

/// A program of `tests/fuzz/src/bin`.
struct Target {
    name: String,
}

struct Run {
    figures: Figures,
    /// What is said of the input that broke it.
    broken: Option<String>,
}

impl Target {
    fn all() -> anyhow::Result<Vec<Self>> {
        let folder = crate_folder().join("src/bin");
        let mut names = Vec::new();
        for entry in fs::read_dir(&folder).with_context(|| format!("failed to list {}", folder.display()))? {
            let path = entry?.path();
            names.extend(path.file_stem().map(|stem| stem.to_string_lossy().into_owned()));
        }
        names.sort();
        Ok(names.into_iter().map(|name| Self { name }).collect())
    }

    fn run(&self, programs: &Path, time: Duration) -> anyhow::Result<Run> {
        let program = programs.join(&self.name);
        let mut command = Command::new(&program);
        // New inputs go to the first of the folders.
        command.arg(made(target_dir().join("fuzz-corpus").join(&self.name))?);
        let seeds = crate_folder().join("seeds").join(&self.name);
        command.args(seeds.is_dir().then_some(seeds));
        let dictionary = crate_folder().join(&self.name).with_extension("dict");
        command.args(dictionary.is_file().then(|| format!("-dict={}", dictionary.display())));
        let crashes = made(target_dir().join("fuzz-crashes").join(&self.name))?;
        command.arg(format!("-artifact_prefix={}/", crashes.display()));
        command.arg(format!("-max_total_time={}", time.as_secs()));
        command.arg(format!("-timeout={}", INPUT_LIMIT.as_secs()));
        command.arg(format!("-rss_limit_mb={MEMORY_MB}"));
        command.args(["-print_final_stats=1", "-reload=0"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("failed to start {}", program.display()))?;
        let mut figures = Figures::default();
        let mut input = None;
        for line in BufReader::new(child.stderr.take().expect("stderr is piped above")).split(b'\n') {
            let line = line.with_context(|| format!("failed to read the output of {}", self.name))?;
            let line = String::from_utf8_lossy(&line);
            figures.take(&line);
            input = kept_input(&line).or(input);
            if !is_progress(&line) {
                println!("{line}");
            }
        }
        let status = child.wait()?;
        let broken = (!status.success()).then(|| match input {
            Some(input) => format!("{} is broken by {input}\nhint: {} {input}", self.name, program.display()),
            None => format!("{} died with {status}", self.name),
        });
        Ok(Run { figures, broken })
    }
}

/// What libFuzzer counted.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
struct Figures {
    /// Inputs that were tried.
    runs: u64,
    runs_each_second: u64,
    /// Edges that the inputs of before reach.
    first_coverage: u64,
    /// Edges that those of now reach.
    last_coverage: u64,
}

impl Figures {
    fn take(&mut self, line: &str) {
        let number = |text: &str| text.split_whitespace().next().and_then(|word| word.parse().ok());
        if let Some(runs) = line.strip_prefix("stat::number_of_executed_units:").and_then(number) {
            self.runs = runs;
        } else if let Some(runs) = line.strip_prefix("stat::average_exec_per_sec:").and_then(number) {
            self.runs_each_second = runs;
        } else if let Some((_, coverage)) = line.split_once(" cov: ").filter(|_| line.starts_with('#')) {
            self.last_coverage = number(coverage).unwrap_or(self.last_coverage);
            if line.contains("\tINITED ") {
                self.first_coverage = self.last_coverage;
            }
        }
    }
}

/// Where libFuzzer says that it left the input that broke something.
fn kept_input(line: &str) -> Option<String> {
    line.split_once("Test unit written to ").map(|(_, path)| path.trim().to_owned())
}

/// What libFuzzer says while all is well.
fn is_progress(line: &str) -> bool {
    // The warnings are of what only sanitizers have.
    const PROGRESS: [&str; 8] = ["#", "INFO:", "WARNING: Failed to find function", "Dictionary:", "\tNEW_FUNC", "stat::", "\"", "Done "];
    line.is_empty() || PROGRESS.iter().any(|beginning| line.starts_with(beginning))
}

/// Builds all targets; gives the folder of the programs.
fn build() -> anyhow::Result<PathBuf> {
    let host = host()?;
    let folder = target_dir().join("fuzz");
    let mut cargo = step::cargo();
    // With a target named the flags are not those of build scripts and macros. No target needs the data plane's object.
    cargo
        .args(["build", "--quiet", "--locked", "--release", "--target", &host, "--manifest-path"])
        .arg(crate_folder().join("Cargo.toml"))
        .arg("--target-dir")
        .arg(&folder)
        .env("CARGO_ENCODED_RUSTFLAGS", FLAGS.join("\x1f"))
        .env("WEIR_EBPF", "none");
    step::run(&mut cargo)?;
    Ok(folder.join(host).join("release"))
}

/// The machine's target triple.
fn host() -> anyhow::Result<String> {
    let output = Command::new("rustc").arg("-vV").current_dir(step::root()).output().context("failed to start rustc")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("rustc does not say its host")?.to_owned())
}

fn crate_folder() -> PathBuf {
    step::root().join("tests/fuzz")
}

fn made(folder: PathBuf) -> anyhow::Result<PathBuf> {
    fs::create_dir_all(&folder).with_context(|| format!("failed to make {}", folder.display()))?;
    Ok(folder)
}

#[cfg(test)]
mod tests {
    use super::{Figures, is_progress, kept_input};

    #[test]
    fn figures_are_read_from_what_the_fuzzer_says() {
        let mut figures = Figures::default();
        for line in [
            "INFO: seed corpus: files: 8 min: 299b max: 3727b total: 7791b rss: 33Mb",
            "#8\tINITED cov: 4695 ft: 10111 corp: 7/7791b exec/s: 0 rss: 33Mb",
            "#15521\tDONE   cov: 7804 ft: 26403 corp: 1168/1580Kb lim: 3727 exec/s: 1724 rss: 44Mb",
            "stat::number_of_executed_units: 15521",
            "stat::average_exec_per_sec:     1724",
        ] {
            assert!(is_progress(line), "{line}");
            figures.take(line);
        }
        assert_eq!(figures, Figures { runs: 15521, runs_each_second: 1724, first_coverage: 4695, last_coverage: 7804 });
    }

    #[test]
    fn the_input_that_broke_something_is_named() {
        let line = "artifact_prefix='target/fuzz-crashes/frame/'; Test unit written to target/fuzz-crashes/frame/crash-1f";
        assert_eq!(kept_input(line).as_deref(), Some("target/fuzz-crashes/frame/crash-1f"));
        assert_eq!(kept_input("thread panicked at src/bin/frame.rs:1:1"), None);
        assert!(!is_progress("thread panicked at src/bin/frame.rs:1:1"));
    }
}
