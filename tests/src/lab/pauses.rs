//! A machine that stands still, as a virtual one does whose host has other work. What is promised within milliseconds is not to be had there.

use std::{env, fs, path::Path, process::Command, time::Duration};

use anyhow::Context as _;

use super::{Folder, Process};

const SOON: Duration = Duration::from_secs(20);
const ROUNDS: usize = 5;

/// What `round` gives of the first of at most five rounds in which no processor stood still for `limit` between [`Stopwatch::start`] and
/// [`Stopwatch::stop`], or the round's end.
///
/// # Panics
/// If there is none, or what measures does not work.
pub fn without_pauses<T>(limit: Duration, mut round: impl FnMut(&mut Stopwatch) -> T) -> T {
    let mut pauses = Vec::new();
    while pauses.len() < ROUNDS {
        let mut stopwatch = Stopwatch { running: None, longest: None };
        let result = round(&mut stopwatch);
        stopwatch.stop();
        let pause = stopwatch.longest.expect("a round starts its stopwatch");
        if pause < limit {
            return result;
        }
        eprintln!("the machine stood still for {pause:?}: this round does not count");
        pauses.push(pause);
    }
    panic!("the machine stood still for {limit:?} in every round: {pauses:?}");
}

/// Tells how long any processor stood still. Who loads a program, as a daemon that starts, has one stand still.
#[derive(Debug)]
pub struct Stopwatch {
    running: Option<(Process, Folder)>,
    longest: Option<Duration>,
}

impl Stopwatch {
    /// From here on it counts.
    ///
    /// # Panics
    /// If it does not run.
    pub fn start(&mut self) {
        self.running = Some(Self::begun().expect("a stopwatch runs"));
    }

    /// Until here.
    ///
    /// # Panics
    /// If it did not run.
    pub fn stop(&mut self) {
        if let Some((process, folder)) = self.running.take() {
            let pause = Self::read(process, &folder).expect("a stopwatch is read");
            self.longest = self.longest.max(Some(pause));
        }
    }

    fn begun() -> anyhow::Result<(Process, Folder)> {
        let folder = Folder::new("stopwatch")?;
        let binary = env::var_os("WEIR_PEER").context("WEIR_PEER does not name the weir-peer binary\nhint: run `cargo xtask test`")?;
        let mut command = Command::new("chrt");
        // Above all that is measured.
        command.args(["--fifo", "60"]).arg(Path::new(&binary)).args(["stopwatch", "--until"]).arg(folder.path().join("end"));
        Ok((Process::start("stopwatch", command)?, folder))
    }

    fn read(mut process: Process, folder: &Folder) -> anyhow::Result<Duration> {
        fs::write(folder.path().join("end"), "").context("failed to end a stopwatch")?;
        process.wait(SOON)?;
        let said = process.stdout();
        serde_json::from_str(&said).with_context(|| format!("a stopwatch said {said:?}: {}", process.stderr()))
    }
}
