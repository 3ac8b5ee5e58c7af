//! The harness program in the kernel, and how it is run.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context as _;
use aya::{
    Ebpf, EbpfLoader, TestRun as _, TestRunOptions,
    maps::{Array, MapData, ProgramArray},
    programs::{ProgramFd, Xdp},
};

use super::template::Template;

/// `Template` as aya takes it.
type Words = [u64; size_of::<Template>() / 8];

const TESTED: u32 = 0;
const NOOP: u32 = 1;

/// The loaded harness.
pub struct Harness {
    object: Ebpf,
    template: Array<MapData, Words>,
    programs: ProgramArray<MapData>,
}

/// What some runs in a row came to.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    /// The last verdict.
    pub verdict: u32,
    /// Mean time of a run, to whole nanoseconds.
    pub each: Duration,
}

/// Where the build leaves the harness object: beside the folder of the running program.
pub fn default_object() -> anyhow::Result<PathBuf> {
    let exe = std::env::current_exe().context("failed to find this program's path")?;
    let target = exe.parent().and_then(Path::parent).context("this program is not in a target folder")?;
    let endian = if cfg!(target_endian = "big") { "eb" } else { "el" };
    Ok(target.join(format!("ebpf/bpf{endian}-unknown-none/release/weir-xdp-bench")))
}

impl Harness {
    /// Loads the harness from its object.
    ///
    /// # Errors
    /// If the object cannot be read or the kernel refuses it.
    pub fn load(path: &Path) -> anyhow::Result<Self> {
        let bytes = std::fs::read(path).with_context(|| format!("failed to read the bench object {}", path.display()))?;
        let mut object = EbpfLoader::new().load(&bytes).context("failed to load the bench object")?;
        for name in ["weir_bench", "weir_noop"] {
            program(&mut object, name)?.load().with_context(|| format!("failed to load {name}"))?;
        }
        let template = object.take_map("BENCH_TEMPLATE").context("the bench object has no template")?.try_into()?;
        let mut programs = ProgramArray::try_from(object.take_map("BENCH_PROGRAMS").context("the bench object has no program array")?)?;
        programs.set(NOOP, program(&mut object, "weir_noop")?.fd()?, 0)?;
        Ok(Self { object, template, programs })
    }

    /// Puts a program to the test from now on.
    ///
    /// # Errors
    /// If the kernel refuses: a program with fragments goes with a harness with fragments only.
    pub fn put(&mut self, tested: &ProgramFd) -> anyhow::Result<()> {
        self.programs.set(TESTED, tested, 0).context("failed to put the program to the test")
    }

    /// Runs the program under test `times`.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub(crate) fn tested(&mut self, template: &Template, times: u32) -> anyhow::Result<Run> {
        self.run(Template { program: TESTED, ..*template }, times)
    }

    /// Runs the program that does nothing.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub(crate) fn noop(&mut self, template: &Template, times: u32) -> anyhow::Result<Run> {
        self.run(Template { program: NOOP, ..*template }, times)
    }

    fn run(&mut self, template: Template, times: u32) -> anyhow::Result<Run> {
        self.template.set(0, bytemuck::cast::<Template, Words>(template), 0)?;
        let frame = &bytemuck::bytes_of(&template)[2..2 + template.frame_bytes as usize];
        let options = TestRunOptions { data_in: Some(frame), repeat: times, ..TestRunOptions::new() };
        let run = program(&mut self.object, "weir_bench")?.test_run(options).context("failed to run the harness")?;
        Ok(Run { verdict: run.return_value, each: run.duration })
    }
}

fn program<'a>(object: &'a mut Ebpf, name: &str) -> anyhow::Result<&'a mut Xdp> {
    Ok(object.program_mut(name).with_context(|| format!("the bench object has no program {name}"))?.try_into()?)
}
