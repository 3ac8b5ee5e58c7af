//! Named steps: each is timed and counted, a failing one does not stop those after it, and the closing line sums them.

use std::{
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};

/// Tests that passed and failed, as libtest prints them.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(crate) struct Count {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) ignored: u64,
}

impl Count {
    /// Sums the lines `test result: ok. 3 passed; 1 failed; 0 ignored; ..` of a test program's output.
    pub(crate) fn of_output(output: &str) -> Self {
        let mut sum = Self::default();
        for line in output.lines().filter_map(|line| line.strip_prefix("test result: ")) {
            for part in line.split(['.', ';']) {
                let mut words = part.split_whitespace();
                let (Some(number), Some(what)) = (words.next().and_then(|word| word.parse::<u64>().ok()), words.next()) else { continue };
                match what {
                    "passed" => sum.passed += number,
                    "failed" => sum.failed += number,
                    "ignored" => sum.ignored += number,
                    _ => {}
                }
            }
        }
        sum
    }
}

/// What ran so far.
#[derive(Default)]
pub(crate) struct Ledger {
    rows: Vec<(String, Duration, Result<Count, String>)>,
}

impl Ledger {
    /// Runs `work` and records it as one row without tests of its own.
    pub(crate) fn step(&mut self, name: &str, work: impl FnOnce() -> anyhow::Result<()>) -> bool {
        self.tests(name, || work().map(|()| Count::default()))
    }

    /// Runs `work` and records the tests that it counted. True if nothing failed.
    pub(crate) fn tests(&mut self, name: &str, work: impl FnOnce() -> anyhow::Result<Count>) -> bool {
        println!("\n── {name}");
        let start = Instant::now();
        let outcome = work().map_err(|error| format!("{error:#}"));
        if let Err(error) = &outcome {
            println!("{name}: {error}");
        }
        let good = matches!(&outcome, Ok(count) if count.failed == 0);
        self.rows.push((name.to_owned(), start.elapsed(), outcome));
        good
    }

    /// Prints every row and the closing line `N passed, N failed`. A step that failed without counting tests counts as one failure.
    pub(crate) fn close(self) -> anyhow::Result<()> {
        println!("\n{:<40} {:>8}  RESULT", "STEP", "SECONDS");
        let mut sum = Count::default();
        for (name, time, outcome) in &self.rows {
            let result = match outcome {
                Ok(count) => {
                    sum.passed += count.passed;
                    sum.failed += count.failed;
                    sum.ignored += count.ignored;
                    describe(*count)
                }
                Err(_) => {
                    sum.failed += 1;
                    "FAILED".to_owned()
                }
            };
            println!("{name:<40} {:>8.1}  {result}", time.as_secs_f64());
        }
        if sum.ignored > 0 {
            println!("skipped: {} (see `ignored` above)", sum.ignored);
        }
        println!("\n{} passed, {} failed", sum.passed, sum.failed);
        if sum.failed > 0 {
            std::process::exit(1);
        }
        Ok(())
    }
}

fn describe(count: Count) -> String {
    if count == Count::default() { "ok".to_owned() } else { format!("{} passed, {} failed", count.passed, count.failed) }
}

/// Runs a command with our output and fails unless it succeeds.
pub(crate) fn run(command: &mut Command) -> anyhow::Result<()> {
    let status = command.status().with_context(|| format!("failed to start {command:?}"))?;
    if !status.success() {
        bail!("{} failed ({status})", command.get_program().to_string_lossy());
    }
    Ok(())
}

/// `cargo` of the toolchain that runs this.
pub(crate) fn cargo() -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(root());
    cargo
}

/// The workspace's folder.
pub(crate) fn root() -> &'static std::path::Path {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the workspace's folder")
}

#[cfg(test)]
mod tests {
    use super::Count;

    #[test]
    fn result_lines_of_several_programs_are_summed() {
        let output = "running 2 tests\ntest result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s\n\
                      test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 7 filtered out; finished in 1.20s\n";
        assert_eq!(Count::of_output(output), Count { passed: 4, failed: 2, ignored: 1 });
    }

    #[test]
    fn a_line_that_only_mentions_results_counts_nothing() {
        assert_eq!(Count::of_output("5 passed; 5 failed\nsome test result: ok. 1 passed"), Count::default());
    }
}
