//! `weir-bench l4`: the time of single packets.

use std::{
    collections::BTreeSet,
    io::Write,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use lb_userspace::dataplane::Features;
use rustix::thread::{CpuSet, sched_setaffinity};

use super::{
    cases::{self, Case, Group, State},
    frame::{Frame, Segment},
    harness::Harness,
    memory::dependent_read_ns,
    report::{Measured, MemoryWait, ProgramSize, Report, write_head},
    template::Template,
    world::{LOOPBACK, World},
};

/// How to measure.
#[derive(Debug)]
pub struct Options {
    /// The harness object.
    pub harness: PathBuf,
    /// Rounds of each case, each beside one of the no-op.
    pub rounds: usize,
    /// Only configurations and cases whose names, together, contain this.
    pub only: Option<String>,
    /// Where the results are written.
    pub json: Option<PathBuf>,
}

/// Runs of a round at least.
const RUNS: u32 = 1 << 17;
/// A round is split, so that a run and that of the no-op which it is compared with lie milliseconds apart.
const PARTS: u32 = 4;
const MACS: [[u8; 6]; 2] = [LOOPBACK.mac, [2, 0, 0, 0, 0, 9]];

/// Measures every case and prints the table.
///
/// # Errors
/// If the data plane or the harness cannot be loaded or run.
pub fn run(options: &Options, out: &mut impl Write) -> anyhow::Result<()> {
    stay_on_one_cpu()?;
    let mut harness = Harness::load(&options.harness)?;
    let mut report = Report { kernel: rustix::system::uname().release().to_string_lossy().into_owned(), ..Report::default() };
    write_head(out)?;
    for group in cases::all() {
        measure_group(&mut harness, &group, options, &mut report, out)?;
    }
    measure_memory(options, &mut report, out)?;
    if let Some(path) = &options.json {
        write_json(path, &report)?;
    }
    Ok(())
}

/// Beside what the last case's no-op took: the flow cache's size, and that of the NAT tables at 131k flows.
fn measure_memory(options: &Options, report: &mut Report, out: &mut impl Write) -> anyhow::Result<()> {
    const SIZES: [usize; 2] = [8 << 20, 24 << 20];
    let Some(noop_ns) = report.cases.last().map(|case| case.noop_ns).filter(|_| options.only.is_none()) else { return Ok(()) };
    writeln!(out, "memory of this machine")?;
    for bytes in SIZES {
        let read_ns = dependent_read_ns(bytes);
        let wait = MemoryWait { bytes, read_ns, multiple: read_ns / noop_ns };
        wait.write(out)?;
        report.memory.push(wait);
    }
    Ok(())
}

/// The clock of the machine's CPUs, and the counters, are each CPU's own.
pub(crate) fn stay_on_one_cpu() -> anyhow::Result<()> {
    let mut cpus = CpuSet::new();
    cpus.set(rustix::thread::sched_getcpu());
    sched_setaffinity(None, &cpus).context("failed to stay on one CPU")
}

fn write_json(path: &Path, report: &Report) -> anyhow::Result<()> {
    let json = serde_json::to_vec_pretty(report)?;
    std::fs::write(path, json).with_context(|| format!("failed to write {}", path.display()))
}

fn measure_group(harness: &mut Harness, group: &Group, options: &Options, report: &mut Report, out: &mut impl Write) -> anyhow::Result<()> {
    let is_wanted = |case: &&Case| options.only.as_ref().is_none_or(|only| format!("{} {}", group.name, case.name).contains(only.as_str()));
    let cases: Vec<&Case> = group.cases.iter().filter(is_wanted).collect();
    if cases.is_empty() {
        return Ok(());
    }
    let mut world = World::load(&group.limits, Features(group.features), &[], LOOPBACK)?;
    for service in &group.services {
        world.install(service, group.slots)?;
    }
    let program = world.dataplane().program()?;
    let info = program.info().context("failed to ask for the program's size")?;
    let size = ProgramSize {
        group: group.name,
        features: group.features,
        verified_instructions: info.verified_instruction_count().unwrap_or(0),
        translated_bytes: info.size_translated().unwrap_or(0),
        jited_bytes: info.size_jitted(),
    };
    harness.put(program.fd()?)?;
    size.write(out)?;
    report.programs.push(size);
    for case in cases {
        let measured = measure(harness, &world, group, case, options.rounds).with_context(|| format!("{}: {}", group.name, case.name))?;
        measured.write(out)?;
        report.cases.push(measured);
    }
    Ok(())
}

/// Measures one case: the program under test and the no-op by turns, so that what disturbs one disturbs the other.
fn measure(harness: &mut Harness, world: &World, group: &Group, case: &Case, rounds: usize) -> anyhow::Result<Measured> {
    let template = case.frame.template(MACS, case.flows, 0);
    let runs = RUNS.max(case.flows);
    warm_up(harness, case, &template)?;
    let (mut raw, mut noop, mut multiples) = (Vec::new(), Vec::new(), Vec::new());
    let mut sent = 0;
    for _ in 0..rounds {
        if let State::Emptied(tables) = case.state {
            world.empty(tables)?;
        }
        let before = world.sent()?;
        for part in 0..PARTS {
            let template = Template { next: part * (runs / PARTS) % case.flows, ..template };
            let base = nanoseconds(harness.noop(&template, runs / PARTS)?);
            let time = nanoseconds(harness.tested(&template, runs / PARTS)?);
            noop.push(base);
            raw.push(time);
            multiples.push(time / base);
        }
        sent += world.sent()? - before;
    }
    let (raw_ns, noop_ns) = (median(&mut raw), median(&mut noop));
    let forwarded = if case.is_forwarded { sent as f64 / (rounds as f64 * f64::from(runs)) } else { 1.0 };
    anyhow::ensure!(forwarded > 0.8, "only {:.2} % of the packets reached a server", forwarded * 100.0);
    Ok(Measured {
        group: group.name,
        name: case.name,
        raw_ns,
        noop_ns,
        net_ns: raw_ns - noop_ns,
        multiple: median(&mut multiples),
        target: case.target,
        rival: case.rival,
        forwarded,
    })
}

fn warm_up(harness: &mut Harness, case: &Case, template: &Template) -> anyhow::Result<()> {
    if case.state == State::Opened {
        let syn = Frame { segment: Segment::Syn, ..case.frame };
        harness.tested(&syn.template(MACS, case.flows, 0), case.flows)?;
    }
    harness.tested(template, case.flows.max(1000))?;
    Ok(())
}

fn nanoseconds(run: super::harness::Run) -> f64 {
    run.each.as_nanos() as f64
}

/// The middle one, or the mean of the middle two.
pub(crate) fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    let (low, high) = ((values.len() - 1) / 2, values.len() / 2);
    (values[low] + values[high]) / 2.0
}

/// Loads the packet program for each of these sets of features.
///
/// # Errors
/// If the kernel refuses one.
pub fn load_every(features: &BTreeSet<u32>, out: &mut impl Write) -> anyhow::Result<()> {
    for &features in features {
        let mut world = World::load(&lb_userspace::config::model::Limits::default(), Features(features), &[], LOOPBACK)?;
        let info = world.dataplane().program()?.info().context("failed to ask for the program's size")?;
        let (verified, jited) = (info.verified_instruction_count().unwrap_or(0), info.size_jitted());
        writeln!(out, "features {features:3}: verifier {verified:7}, {jited:6} bytes jited")?;
    }
    Ok(())
}
