//! The kernel's jiffies clock, read by running `weir_clock` once: ticks are the packet path's seconds, and mean the same in daemon and kernel.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "waits between two readings of the clock")]

use std::{path::Path, thread::sleep, time::Duration};

use aya::{Ebpf, EbpfLoader, TestRun as _, TestRunOptions, programs::Xdp};
use aya_obj::programs::XdpAttachType;
use lb_common::{maps::Settings, words::Tick};
use rustix::time::{ClockId, clock_gettime};

use super::{
    abi,
    layout::{Features, MapKind, map_sizes},
    load::{LoadError, load_program},
    naming,
    object::object,
    pins_io::PinDir,
    tables::TablesError,
};
use crate::config::model::Limits;

/// The smallest frame that BPF_PROG_TEST_RUN takes.
const FRAME_BYTES: usize = 64;
/// Between the two readings that give the rate: 6 ticks at 100 Hz, and the nearest rates are a fifth apart.
const CALIBRATION: Duration = Duration::from_millis(60);
/// A virtual machine that is not run for a while makes up for lost ticks later: then it is measured again.
const CALIBRATION_TRIES: u32 = 10;
/// A reading that took longer was interrupted: half a tick at the highest rate.
const READING: Duration = Duration::from_micros(500);
const READING_TRIES: u32 = 50;
/// The values of CONFIG_HZ that x86 and arm64 offer; linux kernel/Kconfig.hz.
const RATES: [u32; 4] = [100, 250, 300, 1000];

/// Why the kernel's clock cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ClockError {
    /// The program did not run.
    #[error("failed to run the clock program")]
    Run(#[from] aya::programs::ProgramError),
    /// The clock does not run at a rate that kernels are built for.
    #[error("the kernel's clock made {ticks} ticks in {elapsed:?}, at no rate kernels are built for")]
    Rate {
        /// Ticks counted.
        ticks: u64,
        /// In this time.
        elapsed: Duration,
    },
}

/// The kernel's clock.
#[derive(Debug)]
pub struct KernelClock {
    program: Xdp,
    hertz: u32,
}

impl KernelClock {
    /// The clock pinned at `path`, which makes `hertz` jiffies a second.
    pub(crate) fn open(path: &Path, hertz: u32) -> Result<Self, ClockError> {
        Ok(Self { program: Xdp::from_pin(path, XdpAttachType::Interface)?, hertz })
    }

    /// Seconds on the kernel's clock.
    ///
    /// # Errors
    /// [`ClockError::Run`] if the kernel does not run the program.
    pub fn tick(&self) -> Result<Tick, ClockError> {
        Ok(self.moment()?.tick)
    }

    fn moment(&self) -> Result<Moment, ClockError> {
        Ok(Moment::new(jiffies(&self.program)?, self.hertz))
    }

    /// Jiffies a second.
    pub fn hertz(&self) -> u32 {
        self.hertz
    }
}

/// A time on the kernel's clock, as the packet path tells it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Moment {
    /// In seconds.
    pub tick: Tick,
    /// In microseconds, as coarse as a jiffy.
    pub micros: u64,
}

impl Moment {
    fn new(jiffies: u64, hertz: u32) -> Self {
        let (tick_factor, jiffy_us) = Settings::clock(hertz);
        Self { tick: Settings::seconds(jiffies, tick_factor), micros: jiffies * u64::from(jiffy_us) }
    }
}

/// The kernel's time now, for those who look at pinned tables without a daemon's hold on them.
///
/// # Errors
/// [`TablesError`] if nothing is loaded, or the kernel does not run the clock.
pub fn moment(pins: &PinDir) -> Result<Moment, TablesError> {
    let abi = abi::read(pins)?;
    Ok(KernelClock::open(&pins.pin(naming::CLOCK), abi.hertz)?.moment()?)
}

fn jiffies(program: &Xdp) -> Result<u64, ClockError> {
    let frame = [0; FRAME_BYTES];
    let mut out = [0; FRAME_BYTES];
    let options = TestRunOptions { data_in: Some(&frame), data_out: Some(&mut out), ..TestRunOptions::new() };
    program.test_run(options)?;
    Ok(u64::from_ne_bytes(bytemuck::pod_read_unaligned(&out[..size_of::<u64>()])))
}

/// Loads the object with the smallest maps, for its clock only.
pub(crate) fn load_smallest() -> Result<Ebpf, LoadError> {
    smallest_loader().load(object()?).map_err(LoadError::from_object)
}

/// A loader that gives every map of the packet path one entry, or as few as its kind allows.
pub(crate) fn smallest_loader<'a>() -> EbpfLoader<'a> {
    let limits = Limits { services: 1, members: 1, flows: 8, nat_flows: 1, nat_planes: 1, rate_sources: 8, fragments: 8 };
    let sizes = map_sizes(&limits, Features::default());
    let mut loader = EbpfLoader::new();
    for size in &sizes {
        let entries = if matches!(size.kind, MapKind::Ring) { size.entries } else { 1 };
        loader.map_max_entries(size.name, entries);
    }
    loader
}

/// Measures CONFIG_HZ. Takes [`CALIBRATION`].
pub(crate) fn measure_hertz() -> Result<u32, LoadError> {
    let mut object = load_smallest()?;
    let program = load_program(&mut object, "weir_clock")?;
    let mut measured = Err(ClockError::Rate { ticks: 0, elapsed: Duration::ZERO });
    for _ in 0..CALIBRATION_TRIES {
        let (first, began) = reading(program)?;
        sleep(CALIBRATION);
        let (second, ended) = reading(program)?;
        measured = nearest_rate(second.wrapping_sub(first), ended - began);
        if measured.is_ok() {
            break;
        }
    }
    Ok(measured?)
}

/// Jiffies and the time they were read, to within [`READING`] unless the machine never lets us run that long.
fn reading(program: &Xdp) -> Result<(u64, Duration), ClockError> {
    let mut best = None;
    for _ in 0..READING_TRIES {
        let before = monotonic();
        let jiffies = jiffies(program)?;
        let took = monotonic() - before;
        if best.is_none_or(|(least, _)| took < least) {
            best = Some((took, (jiffies, before + took / 2)));
        }
        if took <= READING {
            break;
        }
    }
    Ok(best.expect("there is at least one try").1)
}

fn monotonic() -> Duration {
    let now = clock_gettime(ClockId::Monotonic);
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}

/// The rate that makes `ticks`, give or take one, in `elapsed`.
fn nearest_rate(ticks: u64, elapsed: Duration) -> Result<u32, ClockError> {
    let expected = |rate: u32| f64::from(rate) * elapsed.as_secs_f64();
    let distance = |rate: u32| (expected(rate) - ticks as f64).abs();
    let nearest = RATES.into_iter().min_by(|&a, &b| distance(a).total_cmp(&distance(b)));
    nearest.filter(|&rate| distance(rate) <= 1.5 + 0.02 * expected(rate)).ok_or(ClockError::Rate { ticks, elapsed })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rate_is_told_from_the_others_with_one_tick_of_error() {
        for rate in RATES {
            let exact = u64::from(rate) * 60 / 1000;
            for ticks in [exact - 1, exact, exact + 1] {
                assert_eq!(nearest_rate(ticks, CALIBRATION).unwrap(), rate, "{ticks} ticks");
            }
        }
    }

    #[test]
    fn a_moment_counts_seconds_and_jiffies() {
        assert_eq!(Moment::new(10_499, 1000), Moment { tick: 10, micros: 10_499_000 });
        assert_eq!(Moment::new(1_049, 100), Moment { tick: 10, micros: 10_490_000 });
    }

    #[test]
    fn a_clock_that_stands_still_is_refused() {
        assert!(matches!(nearest_rate(0, CALIBRATION), Err(ClockError::Rate { ticks: 0, .. })));
    }
}
