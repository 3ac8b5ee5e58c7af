//! Removes the data plane: links first, so that packets pass; then the mark of completeness, so that a stop that is interrupted is taken up by
//! the next start or stop; then the rest.

use super::{
    attach::interface_index,
    layout::{Features, map_sizes},
    naming,
    pins_io::{PinDir, PinDirError, link_ifindex},
};
use crate::config::model::Limits;

/// What a stop removed.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Stopped {
    /// The interfaces that packets were taken from.
    pub interfaces: Vec<String>,
    /// Other pins, among them the maps.
    pub pins: usize,
}

/// Detaches from every interface and removes all pins and the pin directory. Fine if nothing, or only a part, is there.
///
/// # Errors
/// [`PinDirError::InUse`] while a daemon runs, [`PinDirError::NotBpf`] for a directory that Weir cannot have made; else what the file system refuses.
pub fn stop(pins: &PinDir) -> Result<Stopped, PinDirError> {
    if !pins.exists() {
        return Ok(Stopped::default());
    }
    pins.check_bpf_fs()?;
    let lock = pins.lock()?;
    let interfaces = pins.linked_interfaces()?;
    let others = pins.names()?.len() - interfaces.len();
    remove_all(pins)?;
    drop(lock);
    Ok(Stopped { interfaces, pins: others })
}

/// The interfaces that a loaded program takes packets from, by the pins alone: name, and whether the link is alive.
///
/// # Errors
/// What the file system refuses.
pub fn attached(pins: &PinDir) -> Result<Vec<(String, LinkState)>, PinDirError> {
    let state = |name: &str| match (link_ifindex(&pins.link(name)), interface_index(name)) {
        (Ok(attached), Ok(ifindex)) if attached == ifindex => LinkState::Attached,
        _ => LinkState::Gone,
    };
    Ok(pins.linked_interfaces()?.into_iter().map(|name| (name.clone(), state(&name))).collect())
}

/// The same of interfaces in another network namespace than the caller's, where their names cannot be looked up: one that was renamed counts as
/// attached.
///
/// # Errors
/// What the file system refuses.
pub fn attached_elsewhere(pins: &PinDir) -> Result<Vec<(String, LinkState)>, PinDirError> {
    // The link of a deleted interface has none (linux net/core/dev.c, `bpf_xdp_link_show_fdinfo`).
    let state = |name: &str| match link_ifindex(&pins.link(name)) {
        Ok(ifindex) if ifindex != 0 => LinkState::Attached,
        _ => LinkState::Gone,
    };
    Ok(pins.linked_interfaces()?.into_iter().map(|name| (name.clone(), state(&name))).collect())
}

/// Whether a pinned link does anything.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum LinkState {
    /// Packets of the interface meet the program.
    Attached,
    /// The interface was deleted, or renamed, since.
    Gone,
    /// There is none.
    #[default]
    Missing,
}

/// Removes everything, without the lock.
pub(crate) fn remove_all(pins: &PinDir) -> Result<(), PinDirError> {
    for interface in pins.linked_interfaces()? {
        pins.remove_link(&interface)?;
    }
    remove_pins(pins)?;
    pins.remove_directory()
}

/// Removes every pin of ours but links.
pub(crate) fn remove_pins(pins: &PinDir) -> Result<(), PinDirError> {
    pins.remove(naming::STATE)?;
    for name in [naming::ABI, naming::PROGRAM, naming::CLOCK] {
        pins.remove(name)?;
        pins.remove(&naming::replacement(name))?;
    }
    map_sizes(&Limits::default(), Features::default()).iter().try_for_each(|size| pins.remove(size.name))
}
