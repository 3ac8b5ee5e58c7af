//! The record pinned beside the maps that says what they were made for. It is pinned last, so its presence says that the maps are complete.

use std::os::fd::AsFd as _;

use aya::maps::{Array, Map, MapData, MapError};
use bytemuck::{Pod, Zeroable};
use lb_common::maps::ABI_VERSION;

use super::{
    cell::Cell,
    mapped::Access,
    naming,
    pins_io::PinDir,
    syscall::{first_value, open_pin},
};
use crate::config::model::Limits;

/// Why pinned maps are not ours to use.
#[derive(Debug, thiserror::Error)]
pub enum AbiError {
    /// Nothing is loaded, or its first load was interrupted.
    #[error("no data plane is loaded in {path}\nhint: start the daemon: weir run", path = .path.display())]
    NotLoaded {
        /// The pin directory.
        path: std::path::PathBuf,
    },
    /// Another version of Weir made them.
    #[error(
        "the loaded data plane is of layout {found}, this weir needs {ABI_VERSION}\nhint: weir stop, then start again; connections are lost"
    )]
    Version {
        /// Their version.
        found: u32,
    },
    /// They are of another size.
    #[error(
        "the loaded data plane has other limits: {found:?}, configured are {wanted:?}\nhint: limits change only by weir stop and a new start"
    )]
    Limits {
        /// What they were made for.
        found: Box<Limits>,
        /// What is configured.
        wanted: Box<Limits>,
    },
    /// Its slots are chosen otherwise.
    #[error("the loaded data plane has another slot_seed\nhint: slot_seed changes only by weir stop and a new start; connections are lost")]
    SlotSeed,
    /// The record cannot be read or written.
    #[error("failed to use the record of the layout")]
    Map(#[from] MapError),
    /// Its pin is refused.
    #[error("failed to open the record of the layout")]
    Pin(#[source] std::io::Error),
}

/// The keys that a data plane keeps for its life.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
pub(crate) struct Keys {
    /// Of every local table.
    pub(crate) table: u64,
    /// Of the choice of slots.
    pub(crate) slot: u64,
}

/// What the maps were made for. Its first field is the version in every version.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
pub(crate) struct AbiRecord {
    version: u32,
    /// Jiffies a second.
    pub(crate) hertz: u32,
    /// Keys of hashes.
    pub(crate) keys: Keys,
    /// In the order of [`Limits`].
    limits: [u32; 7],
    reserved: u32,
}

const _: () = assert!(size_of::<AbiRecord>() == 56);

impl AbiRecord {
    pub(crate) fn new(limits: &Limits, hertz: u32, keys: Keys) -> Self {
        let Limits { services, members, flows, nat_flows, nat_planes, rate_sources, fragments } = *limits;
        let limits = [services, members, flows, nat_flows, nat_planes, rate_sources, fragments];
        Self { version: ABI_VERSION, hertz, keys, limits, reserved: 0 }
    }

    /// The limits that the maps were made for.
    pub(crate) fn limits(&self) -> Limits {
        let [services, members, flows, nat_flows, nat_planes, rate_sources, fragments] = self.limits;
        Limits { services, members, flows, nat_flows, nat_planes, rate_sources, fragments }
    }

    /// Refuses to choose slots otherwise than the connections that live were given theirs.
    pub(crate) fn check_slot_key(&self, wanted: u64) -> Result<(), AbiError> {
        if self.keys.slot == wanted { Ok(()) } else { Err(AbiError::SlotSeed) }
    }

    /// Refuses maps made for other limits.
    pub(crate) fn check_limits(&self, wanted: &Limits) -> Result<(), AbiError> {
        let found = self.limits();
        if found == *wanted { Ok(()) } else { Err(AbiError::Limits { found: Box::new(found), wanted: Box::new(*wanted) }) }
    }
}

/// Reads the record.
///
/// # Errors
/// [`AbiError::NotLoaded`] or [`AbiError::Version`]; limits are not compared.
pub(crate) fn read(pins: &PinDir) -> Result<AbiRecord, AbiError> {
    let fd = open_pin(&pins.pin(naming::ABI), Access::ReadOnly).map_err(|error| {
        let is_absent = error.kind() == std::io::ErrorKind::NotFound;
        if is_absent { AbiError::NotLoaded { path: pins.path().to_path_buf() } } else { AbiError::Pin(error) }
    })?;
    let map = MapData::from_fd(fd)?;
    let value_bytes = map.info()?.value_size();
    if value_bytes as usize != size_of::<AbiRecord>() {
        let record = first_value(map.fd().as_fd(), value_bytes).map_err(AbiError::Pin)?;
        let version = record.first_chunk().map_or(0, |bytes| u32::from_ne_bytes(*bytes));
        return Err(AbiError::Version { found: version });
    }
    let array: Array<_, Cell<AbiRecord>> = Map::from_map_data(map)?.try_into()?;
    let Cell(record) = array.get(&0, 0)?;
    if record.version == ABI_VERSION { Ok(record) } else { Err(AbiError::Version { found: record.version }) }
}

/// Makes and pins the record.
///
/// # Errors
/// What the kernel refuses.
pub(crate) fn write(pins: &PinDir, record: AbiRecord) -> Result<(), AbiError> {
    let mut array: Array<_, Cell<AbiRecord>> = Array::create(1, 0)?;
    array.set(0, Cell(record), 0)?;
    let pin = array.pin(pins.pin(naming::ABI));
    pin.map_err(|error| AbiError::Map(MapError::PinError { name: Some(naming::ABI.to_owned()), error }))
}
