//! What somebody removed from the pin directory of a data plane that runs, and the remaking of what no program uses.

use std::collections::BTreeSet;

use aya::EbpfLoader;

use super::{
    abi,
    attach::interface_index,
    layout::{Features, MapSize, map_sizes},
    load::LoadError,
    naming,
    object::object,
    pins_io::{PinDir, PinDirError},
};
use crate::config::model::Limits;

/// What is missing of the pins of a data plane.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Missing {
    /// Pins without which it cannot be adopted.
    pub needed: Vec<&'static str>,
    /// Maps that no program uses, since their feature is off.
    pub idle: Vec<&'static str>,
    /// Of the interfaces asked for, those that exist and have no link.
    pub links: Vec<String>,
    /// Whether it is unsaid where the daemon leaves its record.
    pub is_record_unsaid: bool,
}

/// What is missing for a program with these features on these interfaces.
///
/// # Errors
/// What the file system refuses.
pub fn missing<'a>(pins: &PinDir, features: Features, interfaces: impl Iterator<Item = &'a String>) -> Result<Missing, PinDirError> {
    let names = pins.names()?;
    let is_absent = |name: &str| names.binary_search_by(|known| known.as_str().cmp(name)).is_err();
    let sizes = map_sizes(&Limits::default(), features);
    let (used, idle): (Vec<MapSize>, Vec<MapSize>) = sizes.into_iter().partition(|size| size.feature == 0 || features.has(size.feature));
    let needed = [naming::ABI, naming::PROGRAM, naming::CLOCK].into_iter().chain(used.iter().map(|size| size.name));
    let links = interfaces.filter(|name| is_absent(&naming::link(name)) && interface_index(name).is_ok());
    Ok(Missing {
        needed: needed.filter(|name| is_absent(name)).collect(),
        idle: idle.iter().map(|size| size.name).filter(|name| is_absent(name)).collect(),
        links: links.cloned().collect::<BTreeSet<_>>().into_iter().collect(),
        is_record_unsaid: is_absent(naming::STATE),
    })
}

/// Makes and pins the maps that are missing of features that are off.
///
/// # Errors
/// [`LoadError`]; the maps that are there stay.
pub fn remake_idle(pins: &PinDir, features: Features) -> Result<(), LoadError> {
    let limits = abi::read(pins)?.limits();
    let mut loader = EbpfLoader::new();
    for size in map_sizes(&limits, features) {
        loader.map_max_entries(size.name, size.entries).map_pin_path(size.name, pins.pin(size.name));
    }
    loader.load(object()?).map(drop).map_err(LoadError::from_object)
}
