//! What `l4` prints and writes.

use std::io::{self, Write};

use serde::Serialize;

/// Everything that was measured.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// The kernel's release.
    pub kernel: String,
    /// In the order of the table.
    pub cases: Vec<Measured>,
    /// One for each set of features.
    pub programs: Vec<ProgramSize>,
    /// What waiting for memory costs.
    pub memory: Vec<MemoryWait>,
}

/// The time of a read that waits for the one before it.
#[derive(Debug, Serialize)]
pub struct MemoryWait {
    /// Size of the memory that is read at random.
    pub bytes: usize,
    /// Nanoseconds of one read.
    pub read_ns: f64,
    /// `read_ns` over the time of the no-op.
    pub multiple: f64,
}

impl MemoryWait {
    /// Writes it as a row of the table.
    ///
    /// # Errors
    /// If `out` refuses.
    pub fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let Self { bytes, read_ns, multiple } = self;
        let name = format!("one read in {} MiB after another", bytes >> 20);
        writeln!(out, "  {name:36} {read_ns:6.0} {:>6} {:>6} {multiple:8.2} {:>7} {:>7}", "", "", "-", "-")
    }
}

/// One case; medians over the rounds.
#[derive(Debug, Serialize)]
pub struct Measured {
    /// The configuration.
    pub group: &'static str,
    /// The case.
    pub name: &'static str,
    /// Nanoseconds of a run, harness included.
    pub raw_ns: f64,
    /// Nanoseconds of a run of the no-op, harness included, in the same rounds.
    pub noop_ns: f64,
    /// Nanoseconds of the program under test alone, resizing undone included.
    pub net_ns: f64,
    /// `raw_ns` over `noop_ns`.
    pub multiple: f64,
    /// What `multiple` should stay below.
    pub target: Option<f64>,
    /// Katran's `multiple`.
    pub rival: Option<f64>,
    /// Share of the packets that reached a server, of those that should.
    pub forwarded: f64,
}

/// How large a program is.
#[derive(Debug, Serialize)]
pub struct ProgramSize {
    /// The configuration.
    pub group: &'static str,
    /// Its features.
    pub features: u32,
    /// Instructions that the verifier looked at.
    pub verified_instructions: u32,
    /// Bytes of the translated program.
    pub translated_bytes: u32,
    /// Bytes of machine code.
    pub jited_bytes: u32,
}

impl Measured {
    /// Whether it stays below its target; so does what has none.
    pub fn is_met(&self) -> bool {
        self.target.is_none_or(|target| self.multiple <= target)
    }

    /// Writes the case as a row of the table.
    ///
    /// # Errors
    /// If `out` refuses.
    pub fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let number = |number: Option<f64>| number.map_or_else(|| "-".to_owned(), |number| format!("{number:.1}"));
        let mark = if self.is_met() { "" } else { "  over target" };
        let lost = if self.forwarded >= 1.0 { String::new() } else { format!("  {:.2} % forwarded", self.forwarded * 100.0) };
        let Self { name, raw_ns, noop_ns, net_ns, multiple, .. } = self;
        let (target, rival) = (number(self.target), number(self.rival));
        writeln!(out, "  {name:36} {raw_ns:6.0} {noop_ns:6.0} {net_ns:6.0} {multiple:8.2} {target:>7} {rival:>7}{mark}{lost}")
    }
}

/// Writes the head of the table.
///
/// # Errors
/// If `out` refuses.
pub fn write_head(out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "  {:36} {:>6} {:>6} {:>6} {:>8} {:>7} {:>7}", "CASE", "RAW", "NO-OP", "NET", "MULTIPLE", "TARGET", "KATRAN")
}

impl ProgramSize {
    /// Writes it as a line above its configuration's cases.
    ///
    /// # Errors
    /// If `out` refuses.
    pub fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let Self { group, features, verified_instructions, translated_bytes, jited_bytes } = self;
        let instructions = translated_bytes / 8;
        writeln!(
            out,
            "{group} (features {features}: {instructions} instructions, {jited_bytes} bytes jited, verifier {verified_instructions})"
        )
    }
}
