//! The loaded data plane: started fresh or taken over from the pins of a process that ended, at any instant it may have ended.
//!
//! | found in the pin directory | meaning | done |
//! |---|---|---|
//! | no `abi`, no links | nothing, or an interrupted first load or stop | cleaned, loaded afresh |
//! | no `abi`, links | not made by Weir | refused |
//! | `abi` of other version or limits | an earlier Weir or configuration | refused |
//! | `abi` | a complete set of maps, with any number of links | adopted |
//!
//! Adoption loads a new program against the pinned maps and swaps it in by link update, so every packet meets one program or the other. The
//! maps of a feature that was off have one entry and no program uses them: when the feature is on they are replaced before the load.

use std::{collections::BTreeMap, error::Error, io, path::Path};

use aya::{
    Ebpf, EbpfError, EbpfLoader, TestRun as _, TestRunOptions,
    maps::MapInfo,
    pin::PinError,
    programs::{ProgramError, Xdp},
};
use lb_common::{
    maps::{OwnMacs, Settings},
    words::Tick,
};

use super::{
    abi::{self, AbiError, AbiRecord, Keys},
    apply::{Applier, ApplyError},
    attach::{self, AttachError},
    cell::Cell,
    clock_io::{self, ClockError, KernelClock},
    layout::{self, FREE_RING_HEAD, Features, MapSize, map_sizes},
    mapped::{Access, Mapped},
    naming,
    object::object,
    pins_io::{PinDir, PinDirError, PinLock},
    privileges_io, refusal,
    slots::SlotRules,
    stop,
    syscall::open_pin,
    tables::{Tables, TablesError},
};
use crate::config::model::{Limits, XdpMode};

/// Why the data plane could not be loaded or changed. Whatever was forwarding before still is.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The binary has no XDP object.
    #[error("this weir was built without its data plane\nhint: build it without WEIR_EBPF=none")]
    NotBuiltIn,
    /// The pin directory is unusable.
    #[error(transparent)]
    PinDir(#[from] PinDirError),
    /// What is loaded is of another version or size.
    #[error(transparent)]
    Abi(#[from] AbiError),
    /// The pinned tables cannot be opened.
    #[error(transparent)]
    Tables(#[from] TablesError),
    /// The pin directory holds what Weir did not make.
    #[error("{path} holds links or maps that this weir did not make: {what}\nhint: weir stop removes them", path = .path.display())]
    Unrecognised {
        /// The pin directory.
        path: std::path::PathBuf,
        /// Which.
        what: String,
    },
    /// The kernel denies what loading needs.
    #[error("not permitted to load the data plane\nhint: {}", privileges_io::HINT)]
    Permission {
        /// The refusal.
        source: Box<EbpfError>,
    },
    /// This process may not do what forwarding needs.
    #[error("not permitted to forward: {} missing\nhint: {}", .names.join(", "), privileges_io::HINT)]
    Privileges {
        /// The missing capabilities.
        names: Vec<&'static str>,
    },
    /// The kernel refuses a program: most often its verifier does.
    #[error("the kernel refused the program {program}: {}\nhint: {}", refusal::in_words(.refusal, .log), refusal::hint(.refusal, .log))]
    Verifier {
        /// The program.
        program: &'static str,
        /// The kernel's error.
        refusal: io::Error,
        /// The last lines of the verifier's log; empty if there is none.
        log: String,
    },
    /// The object cannot be loaded.
    #[error("failed to load the XDP object")]
    Object {
        /// What is wrong.
        source: Box<EbpfError>,
    },
    /// A program cannot be loaded.
    #[error("failed to load the program {program}")]
    Program {
        /// The program.
        program: &'static str,
        /// The refusal.
        source: Box<ProgramError>,
    },
    /// A loaded program does not do what every packet path must.
    #[error("the new program answered a frame that is for nobody with verdict {verdict} instead of passing it: it is not used")]
    Unproven {
        /// Its verdict.
        verdict: u32,
    },
    /// An object cannot be pinned.
    #[error("failed to pin {name}")]
    Pin {
        /// Its name.
        name: &'static str,
        /// The refusal.
        source: Box<PinError>,
    },
    /// The kernel's clock cannot be read.
    #[error(transparent)]
    Clock(#[from] ClockError),
    /// No random key.
    #[error("failed to draw a random key")]
    Random(#[source] io::Error),
    /// An interface cannot be taken.
    #[error(transparent)]
    Attach(#[from] AttachError),
    /// A table cannot be filled.
    #[error(transparent)]
    Fill(#[from] ApplyError),
}

impl LoadError {
    pub(crate) fn from_object(source: EbpfError) -> Self {
        let source = Box::new(source);
        if is_denied(source.as_ref()) { Self::Permission { source } } else { Self::Object { source } }
    }
}

/// Whether a refusal for want of privilege lies at the bottom of `error`.
pub(crate) fn is_denied(error: &(dyn Error + 'static)) -> bool {
    causes(error).any(|cause| cause.downcast_ref::<io::Error>().is_some_and(|io| io.raw_os_error() == Some(libc::EPERM)))
}

/// An error, what caused it, and so on.
pub(crate) fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    let source = |error: &&'a (dyn Error + 'static)| {
        let error: &'a (dyn Error + 'static) = *error;
        error.source()
    };
    std::iter::successors(Some(error), source)
}

/// What to load, and where.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The pin directory.
    pub pin_dir: &'a Path,
    /// Sizes of the tables.
    pub limits: &'a Limits,
    /// The key of the hash that chooses slots: see [`node_slot_key`](crate::control::desired::node_slot_key).
    pub slot_key: u64,
    /// What the program is built for.
    pub features: Features,
    /// The link-layer addresses that it takes frames by.
    pub macs: OwnMacs,
    /// Where packets come in.
    pub interfaces: &'a [String],
    /// How the program is attached; links that are adopted stay as they are.
    pub mode: XdpMode,
    /// How slots change.
    pub rules: SlotRules,
}

/// Where a started data plane comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Origin {
    /// Its tables are empty.
    Fresh,
    /// Its tables are those of an earlier process; every learning timer has been restarted.
    Adopted,
}

/// The data plane, owned by this process. Dropping it leaves everything in place, for the next process to adopt.
#[derive(Debug)]
pub struct Dataplane {
    pins: PinDir,
    object: Ebpf,
    clock: KernelClock,
    features: Features,
    macs: OwnMacs,
    mode: XdpMode,
    /// Interface index by name.
    interfaces: BTreeMap<String, u32>,
    applier: Applier,
    _lock: PinLock,
}

impl Dataplane {
    /// Loads the data plane, or adopts the one that is pinned, even though some of the interfaces have gone: [`Self::interfaces`] tells.
    ///
    /// # Errors
    /// [`LoadError`]. A fresh load that fails leaves nothing behind (but a BPF file system mounted on /sys/fs/bpf); an adoption that fails leaves
    /// the old program forwarding on the old interfaces.
    pub fn start(request: &Request<'_>) -> Result<(Self, Origin), LoadError> {
        object()?;
        let names = privileges_io::missing().needed;
        if !names.is_empty() {
            return Err(LoadError::Privileges { names });
        }
        let pins = PinDir::at(request.pin_dir);
        if !pins.has(naming::ABI) {
            attach::check_interfaces(request.interfaces)?;
        }
        pins.create()?;
        let lock = pins.lock()?;
        match abi::read(&pins) {
            Ok(abi) => {
                abi.check_limits(request.limits)?;
                abi.check_slot_key(request.slot_key)?;
                let object = load_object(&pins, &abi, request.features)?;
                Ok((Self::take(request, pins, lock, abi, object)?, Origin::Adopted))
            }
            Err(AbiError::NotLoaded { .. }) => {
                clean_interrupted(&pins)?;
                let fresh = Self::load_fresh(request, pins.clone(), lock);
                if fresh.is_err() {
                    // The first failure is the one to report; whoever took the directory meanwhile cleans it himself.
                    let _ = pins.lock().and_then(|_lock| stop::remove_all(&pins));
                }
                Ok((fresh?, Origin::Fresh))
            }
            Err(error) => Err(error.into()),
        }
    }

    fn load_fresh(request: &Request<'_>, pins: PinDir, lock: PinLock) -> Result<Self, LoadError> {
        let keys = Keys { table: random_key()?, slot: request.slot_key };
        let abi = AbiRecord::new(request.limits, clock_io::measure_hertz()?, keys);
        let object = load_object(&pins, &abi, request.features)?;
        abi::write(&pins, abi)?;
        Self::take(request, pins, lock, abi, object)
    }

    /// Puts the loaded object to work on the interfaces.
    fn take(request: &Request<'_>, pins: PinDir, lock: PinLock, abi: AbiRecord, mut object: Ebpf) -> Result<Self, LoadError> {
        let clock = load_program(&mut object, naming::CLOCK_PROGRAM)?;
        PendingPin::new(&pins, clock, naming::CLOCK)?.commit()?;
        let clock = KernelClock::open(&pins.pin(naming::CLOCK), abi.hertz)?;
        let tables = Tables::open(&pins, Access::ReadWrite)?;
        tables.macs.write(0, &request.macs).map_err(ApplyError::from)?;
        let applier = Applier::new(tables, request.rules, clock.tick()?)?;
        let program = load_program(&mut object, naming::PACKET_PROGRAM)?;
        prove(program)?;
        let pin = PendingPin::new(&pins, program, naming::PROGRAM)?;
        let interfaces = attach::attach_all(&pins, program, request.interfaces, request.mode)?;
        pin.commit()?;
        let Request { features, macs, mode, .. } = *request;
        Ok(Self { pins, object, clock, features, macs, mode, interfaces, applier, _lock: lock })
    }

    /// Takes frames by these link-layer addresses from now on.
    ///
    /// # Errors
    /// [`LoadError`] never for a table of the right size.
    pub fn set_macs(&mut self, macs: OwnMacs) -> Result<(), LoadError> {
        self.tables().macs.write(0, &macs).map_err(ApplyError::from)?;
        self.macs = macs;
        Ok(())
    }

    /// Loads a program built for `features`, and swaps it in on every interface, without losing a packet.
    ///
    /// # Errors
    /// [`LoadError`]; the old program then stays.
    pub fn rebuild(&mut self, features: Features) -> Result<(), LoadError> {
        let abi = self.applier.tables().abi;
        let mut object = load_object(&self.pins, &abi, features)?;
        let tables = Tables::open(&self.pins, Access::ReadWrite)?;
        let program = load_program(&mut object, naming::PACKET_PROGRAM)?;
        prove(program)?;
        let pin = PendingPin::new(&self.pins, program, naming::PROGRAM)?;
        let linked = self.pins.linked_interfaces().map_err(AttachError::PinDir)?;
        attach::update_links(&self.pins, program, &linked)?;
        pin.commit()?;
        self.applier.replace_tables(tables);
        self.object = object;
        self.features = features;
        Ok(())
    }

    /// Begins to take packets from an interface; fine if it does already.
    ///
    /// # Errors
    /// [`LoadError::Attach`]; nothing has changed then.
    pub fn add_interface(&mut self, name: &str) -> Result<(), LoadError> {
        let program = packet_program(&mut self.object)?;
        let ifindex = attach::attach_pinned(&self.pins, program, name, self.mode)?;
        self.interfaces.insert(name.to_owned(), ifindex);
        Ok(())
    }

    /// Stops taking packets from an interface. Packets may still leave by it.
    ///
    /// # Errors
    /// [`PinDirError`] if the link cannot be removed.
    pub fn remove_interface(&mut self, name: &str) -> Result<(), PinDirError> {
        self.pins.remove_link(name)?;
        self.interfaces.remove(name);
        Ok(())
    }

    /// The interfaces that packets are taken from, by name, with their indexes when they were attached.
    pub fn interfaces(&self) -> &BTreeMap<String, u32> {
        &self.interfaces
    }

    /// Leaves word beside the pins of where this process leaves its record.
    ///
    /// # Errors
    /// [`PinDirError`] if that cannot be.
    pub fn follow_record(&self, state_dir: &Path) -> Result<(), PinDirError> {
        self.pins.set_state_dir(state_dir)
    }

    /// What the program is built for.
    pub fn features(&self) -> Features {
        self.features
    }

    /// The link-layer addresses that frames are taken by.
    pub fn macs(&self) -> OwnMacs {
        self.macs
    }

    /// The tables, for reading.
    pub fn tables(&self) -> &Tables {
        self.applier.tables()
    }

    /// The tables, for changing.
    pub fn applier(&mut self) -> &mut Applier {
        &mut self.applier
    }

    /// The kernel's clock.
    pub fn clock(&self) -> &KernelClock {
        &self.clock
    }

    /// The kernel's time now.
    ///
    /// # Errors
    /// [`ClockError`] if the kernel does not run the clock program.
    pub fn tick(&self) -> Result<Tick, ClockError> {
        self.clock.tick()
    }

    /// The packet path's program, for running packets through it.
    ///
    /// # Errors
    /// [`LoadError::Program`] if the object has none.
    pub fn program(&mut self) -> Result<&mut Xdp, LoadError> {
        packet_program(&mut self.object)
    }
}

/// Refuses a directory that others use and removes what an interrupted first load or stop left.
fn clean_interrupted(pins: &PinDir) -> Result<(), LoadError> {
    let links = pins.linked_interfaces()?;
    if !links.is_empty() {
        return Err(LoadError::Unrecognised { path: pins.path().to_path_buf(), what: links.join(", ") });
    }
    Ok(stop::remove_pins(pins)?)
}

/// Loads the object against the pinned maps, making and pinning those that are missing.
fn load_object(pins: &PinDir, abi: &AbiRecord, features: Features) -> Result<Ebpf, LoadError> {
    let mut sizes = map_sizes(&abi.limits(), features);
    for size in &mut sizes {
        fit_to_pinned(pins, size)?;
    }
    let settings = Cell(layout::settings(&sizes, features, abi.hertz, abi.keys));
    let mut loader = EbpfLoader::new();
    loader.override_global("SETTINGS", &settings, true);
    for size in &sizes {
        loader.map_max_entries(size.name, size.entries).map_pin_path(size.name, pins.pin(size.name));
    }
    let loaded = loader.load(object()?).map_err(LoadError::from_object)?;
    if features.has(Settings::NAT) {
        fill_free_ring(pins, layout::nat_chunks(&abi.limits()))?;
    }
    Ok(loaded)
}

/// Takes a pinned map's size where it is larger than needed; drops the pin of a map that a feature needs larger.
fn fit_to_pinned(pins: &PinDir, size: &mut MapSize) -> Result<(), LoadError> {
    let path = pins.pin(size.name);
    if !pins.has(size.name) {
        return Ok(());
    }
    let info = MapInfo::from_pin(&path).map_err(|source| TablesError::Map { name: size.name, source })?;
    let pinned = info.max_entries();
    if size.feature != 0 && pinned < size.entries {
        pins.remove(size.name)?;
    } else if size.feature != 0 {
        size.entries = pinned;
    } else if pinned != size.entries {
        return Err(LoadError::Unrecognised { path: pins.path().to_path_buf(), what: size.name.to_owned() });
    }
    Ok(())
}

/// Fills the ring of free chunks with all of them, once: its tail is written last and never returns to 0.
fn fill_free_ring(pins: &PinDir, chunks: u32) -> Result<(), LoadError> {
    const TAIL: u32 = 1;
    let name = "NAT_FREE";
    let fd = open_pin(&pins.pin(name), Access::ReadWrite).map_err(|source| TablesError::Pin { name, source })?;
    let map = aya::maps::MapData::from_fd(fd).map_err(|source| TablesError::Map { name, source })?;
    let ring = Mapped::<u64>::open(name, &map, Access::ReadWrite).map_err(TablesError::Open)?;
    if ring.word(TAIL, 0).map_err(ApplyError::Access)? != 0 {
        return Ok(());
    }
    for chunk in 0..chunks {
        ring.store_word(FREE_RING_HEAD + chunk, 0, u64::from(chunk)).map_err(ApplyError::Access)?;
    }
    Ok(ring.store_word(TAIL, 0, u64::from(chunks)).map_err(ApplyError::Access)?)
}

fn packet_program(object: &mut Ebpf) -> Result<&mut Xdp, LoadError> {
    program(object, naming::PACKET_PROGRAM)
}

pub(crate) fn program<'a>(object: &'a mut Ebpf, name: &'static str) -> Result<&'a mut Xdp, LoadError> {
    let refused = |source| LoadError::Program { program: name, source: Box::new(source) };
    object.program_mut(name).ok_or_else(|| refused(ProgramError::NotLoaded))?.try_into().map_err(refused)
}

/// Hands a program of the object to the kernel.
pub(crate) fn load_program<'a>(object: &'a mut Ebpf, name: &'static str) -> Result<&'a mut Xdp, LoadError> {
    let program = program(object, name)?;
    let mut loaded = program.load();
    for _ in 1..LOADS_MAX {
        if !loaded.as_ref().is_err_and(is_interrupted) {
            break;
        }
        loaded = program.load();
    }
    loaded.map_err(|error| refusal_of_program(name, error))?;
    Ok(program)
}

/// The verifier gives up when the process has a signal to take (linux kernel/bpf/verifier.c, `do_check`); libbpf tries as often.
const LOADS_MAX: u32 = 5;

fn is_interrupted(error: &ProgramError) -> bool {
    matches!(error, ProgramError::LoadError { io_error, .. } if io_error.kind() == io::ErrorKind::WouldBlock)
}

#[expect(clippy::wildcard_enum_match_arm, reason = "aya's errors are open-ended")]
pub(crate) fn refusal_of_program(program: &'static str, error: ProgramError) -> LoadError {
    let (io_error, verifier_log) = match error {
        ProgramError::LoadError { io_error, verifier_log } => (io_error, verifier_log),
        error if is_denied(&error) => return LoadError::Permission { source: Box::new(error.into()) },
        error => return LoadError::Program { program, source: Box::new(error) },
    };
    let log = refusal::last_words(&verifier_log.to_string());
    if log.is_empty() && io_error.raw_os_error() == Some(libc::EPERM) {
        // Without a word of the verifier it is the privilege to load that is missing.
        return LoadError::Permission { source: Box::new(ProgramError::LoadError { io_error, verifier_log }.into()) };
    }
    LoadError::Verifier { program, refusal: io_error, log }
}

/// Runs a frame of no known protocol through the program, which must pass it untouched.
fn prove(program: &Xdp) -> Result<(), LoadError> {
    const XDP_PASS: u32 = 2;
    let frame = [0x5a; 64];
    let options = TestRunOptions { data_in: Some(&frame), ..TestRunOptions::new() };
    let run = program.test_run(options);
    let run = run.map_err(|source| LoadError::Program { program: naming::PACKET_PROGRAM, source: Box::new(source) })?;
    if run.return_value == XDP_PASS { Ok(()) } else { Err(LoadError::Unproven { verdict: run.return_value }) }
}

/// A program pinned under a name that it waits with, to take its own without a gap.
struct PendingPin<'a> {
    pins: &'a PinDir,
    name: &'static str,
}

impl<'a> PendingPin<'a> {
    fn new(pins: &'a PinDir, program: &mut Xdp, name: &'static str) -> Result<Self, LoadError> {
        let waiting = naming::replacement(name);
        pins.remove(&waiting)?;
        program.pin(pins.pin(&waiting)).map_err(|source| LoadError::Pin { name, source: Box::new(source) })?;
        Ok(Self { pins, name })
    }

    fn commit(self) -> Result<(), PinDirError> {
        self.pins.rename(&naming::replacement(self.name), self.name)
    }
}

impl Drop for PendingPin<'_> {
    fn drop(&mut self) {
        // Nothing is there after a commit; what cannot be removed now is before the next pin.
        let _ = self.pins.remove(&naming::replacement(self.name));
    }
}

fn random_key() -> Result<u64, LoadError> {
    let mut bytes = [0; size_of::<u64>()];
    let filled = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    filled.map_err(|errno| LoadError::Random(errno.into()))?;
    Ok(u64::from_ne_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use aya_obj::VerifierLog;

    use super::*;

    fn refused(errno: i32, log: &str) -> LoadError {
        let verifier_log = VerifierLog::new(log.to_owned());
        refusal_of_program("weir", ProgramError::LoadError { io_error: io::Error::from_raw_os_error(errno), verifier_log })
    }

    #[test]
    fn a_refused_program_is_told_with_the_kernels_error_the_verifiers_words_and_a_hint() {
        let error = refused(libc::E2BIG, "0: (b7) r0 = 0\n\nBPF program is too large. Processed 1000001 insn\n").to_string();
        let (words, hint) = error.split_once("\nhint: ").unwrap();
        assert_eq!(
            words,
            "the kernel refused the program weir: Argument list too long (os error 7); the verifier's last words:\n0: (b7) r0 = 0\nBPF program \
             is too large. Processed 1000001 insn"
        );
        assert!(hint.contains("newer kernel"), "{hint}");
        let error = refused(libc::ENOMEM, "").to_string();
        assert!(error.starts_with("the kernel refused the program weir: Cannot allocate memory (os error 12)\nhint: "), "{error}");
    }

    #[test]
    fn a_missing_privilege_is_told_apart_from_what_the_verifier_forbids() {
        assert!(matches!(refused(libc::EPERM, "\n"), LoadError::Permission { .. }));
        assert!(matches!(refused(libc::EPERM, "R1 leaks addr"), LoadError::Verifier { .. }));
    }
}
