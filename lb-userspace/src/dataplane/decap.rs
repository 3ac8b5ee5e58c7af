//! `weir_decap` on a server's interface: loaded, pinned so that it outlives the command that loads it, changed in place, counted, removed.
//!
//! The pin directory is its own, not the packet path's. Its maps are pinned before the link, so a live link means that all of it is there.

use std::{collections::BTreeSet, net::IpAddr};

use aya::{
    Ebpf,
    maps::{HashMap, Map, MapData, MapError, PerCpuArray},
    programs::Xdp,
};
use lb_common::{
    address::Address,
    maps::{DECAP_VIPS_MAX, DecapSettings, Traffic},
    reason::Decap,
};

use super::{
    attach::{self, AttachError},
    cell::Cell,
    clock_io::smallest_loader,
    load::{LoadError, load_program, program},
    mapped::Access,
    naming,
    object::object,
    pins_io::{PinDir, PinDirError},
    stop::{LinkState, attached},
    syscall::open_pin,
};
use crate::config::model::XdpMode;

/// Why tunnels cannot be opened on an interface.
#[derive(Debug, thiserror::Error)]
pub enum DecapError {
    /// The program cannot be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The program cannot be attached.
    #[error(transparent)]
    Attach(#[from] AttachError),
    /// The pin directory is unusable.
    #[error(transparent)]
    PinDir(#[from] PinDirError),
    /// One of its maps cannot be used.
    #[error("failed to use the map {name}")]
    Map {
        /// The map.
        name: &'static str,
        /// The refusal.
        source: Box<MapError>,
    },
    /// More VIPs than the map holds.
    #[error("{wanted} VIPs are more than the {DECAP_VIPS_MAX} that tunnels can be opened for")]
    TooManyVips {
        /// How many.
        wanted: usize,
    },
}

/// How many packets came to this, and their frame bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DecapCount {
    /// To what.
    pub outcome: Decap,
    /// How many.
    pub traffic: Traffic,
}

/// The loaded program, attached nowhere.
#[derive(Debug)]
pub struct Decapsulator {
    object: Ebpf,
}

impl Decapsulator {
    /// Loads the program for these tunnels and VIPs.
    ///
    /// # Errors
    /// [`DecapError`]; nothing stays behind.
    pub fn load(settings: DecapSettings, vips: &BTreeSet<IpAddr>) -> Result<Self, DecapError> {
        let settings = Cell(settings);
        let mut loader = smallest_loader();
        loader.override_global("DECAP", &settings, true);
        let mut object = loader.load(object()?).map_err(LoadError::from_object)?;
        load_program(&mut object, naming::DECAP_PROGRAM)?;
        let map = object.map_mut(naming::DECAP_VIPS).expect("the object defines every map that naming has");
        set_vips(HashMap::try_from(map).map_err(unusable(naming::DECAP_VIPS))?, vips)?;
        Ok(Self { object })
    }

    /// The program, for running packets through it.
    ///
    /// # Errors
    /// [`LoadError::Program`] if the object has none.
    pub fn program(&mut self) -> Result<&mut Xdp, LoadError> {
        program(&mut self.object, naming::DECAP_PROGRAM)
    }

    /// What became of the packets so far.
    ///
    /// # Errors
    /// [`DecapError::Map`].
    pub fn counts(&self) -> Result<Vec<DecapCount>, DecapError> {
        let map = self.object.map(naming::DECAP_STATS).expect("the object defines every map that naming has");
        counts(&PerCpuArray::try_from(map).map_err(unusable(naming::DECAP_STATS))?)
    }
}

/// Opens tunnels on an interface, in native mode where it takes that. Where the program is attached already its VIPs become these; its settings
/// stay.
///
/// # Errors
/// [`DecapError`]; a first start that fails leaves nothing behind (but a BPF file system mounted on /sys/fs/bpf).
pub fn start_decap(pins: &PinDir, interface: &str, settings: DecapSettings, vips: &BTreeSet<IpAddr>) -> Result<(), DecapError> {
    attach::interface_index(interface)?;
    pins.create()?;
    let lock = pins.lock()?;
    if attached(pins)?.contains(&(interface.to_owned(), LinkState::Attached)) {
        let map = pinned(pins, naming::DECAP_VIPS, Access::ReadWrite)?;
        return set_vips(HashMap::try_from(map).map_err(unusable(naming::DECAP_VIPS))?, vips);
    }
    remove_pins(pins)?;
    let started = Decapsulator::load(settings, vips).and_then(|decapsulator| install(pins, decapsulator, interface));
    if started.is_err() {
        // The first failure is the one to report.
        let _ = remove_pins(pins).and_then(|()| pins.remove_directory());
    }
    drop(lock);
    started
}

fn install(pins: &PinDir, mut decapsulator: Decapsulator, interface: &str) -> Result<(), DecapError> {
    for name in [naming::DECAP_VIPS, naming::DECAP_STATS] {
        let map = decapsulator.object.map(name).expect("the object defines every map that naming has");
        map.pin(pins.pin(name)).map_err(|source| LoadError::Pin { name, source: Box::new(source) })?;
    }
    attach::attach_pinned(pins, decapsulator.program()?, interface, XdpMode::Auto)?;
    Ok(())
}

/// Opens no more tunnels, and removes all pins and the pin directory. Fine if nothing, or only a part, is there.
///
/// # Errors
/// [`PinDirError`].
pub fn stop_decap(pins: &PinDir) -> Result<(), PinDirError> {
    if !pins.path().exists() {
        return Ok(());
    }
    pins.check_bpf_fs()?;
    let _lock = pins.lock()?;
    remove_pins(pins)?;
    pins.remove_directory()
}

/// What became of the packets so far: one count for each outcome.
///
/// # Errors
/// [`DecapError::Map`], also if no tunnels are opened.
pub fn decap_counts(pins: &PinDir) -> Result<Vec<DecapCount>, DecapError> {
    let map = pinned(pins, naming::DECAP_STATS, Access::ReadOnly)?;
    counts(&PerCpuArray::try_from(map).map_err(unusable(naming::DECAP_STATS))?)
}

fn remove_pins(pins: &PinDir) -> Result<(), PinDirError> {
    pins.linked_interfaces()?.iter().try_for_each(|interface| pins.remove_link(interface))?;
    [naming::DECAP_VIPS, naming::DECAP_STATS].iter().try_for_each(|name| pins.remove(name))
}

fn pinned(pins: &PinDir, name: &'static str, access: Access) -> Result<Map, DecapError> {
    let fd = open_pin(&pins.pin(name), access).map_err(|source| pins.io(&pins.pin(name), source))?;
    MapData::from_fd(fd).and_then(Map::from_map_data).map_err(unusable(name))
}

fn unusable(name: &'static str) -> impl Fn(MapError) -> DecapError {
    move |source| DecapError::Map { name, source: Box::new(source) }
}

/// Makes these the VIPs of the map.
fn set_vips<T: std::borrow::BorrowMut<MapData>>(
    mut map: HashMap<T, Cell<Address>, u32>,
    vips: &BTreeSet<IpAddr>,
) -> Result<(), DecapError> {
    if vips.len() > DECAP_VIPS_MAX as usize {
        return Err(DecapError::TooManyVips { wanted: vips.len() });
    }
    let unusable = unusable(naming::DECAP_VIPS);
    let present: Vec<Cell<Address>> = map.keys().collect::<Result<_, _>>().map_err(&unusable)?;
    for key in present.iter().filter(|key| !vips.contains(&key.0.ip())) {
        map.remove(key).map_err(&unusable)?;
    }
    vips.iter().try_for_each(|&vip| map.insert(Cell(Address::from(vip)), 1, 0)).map_err(&unusable)
}

fn counts<T: std::borrow::Borrow<MapData>>(map: &PerCpuArray<T, Cell<Traffic>>) -> Result<Vec<DecapCount>, DecapError> {
    let total = |&outcome: &Decap| {
        let cpus = map.get(&outcome.index(), 0).map_err(unusable(naming::DECAP_STATS))?;
        let sum = |of: fn(&Traffic) -> u64| cpus.iter().map(|Cell(traffic)| of(traffic)).sum();
        Ok(DecapCount { outcome, traffic: Traffic { packets: sum(|t| t.packets), bytes: sum(|t| t.bytes) } })
    };
    Decap::ALL.iter().map(total).collect()
}
