//! Attaching the program to interfaces by pinned links, which outlive this process and take a new program in place.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
};

use aya::{
    pin::PinError,
    programs::{
        ProgramError, Xdp,
        links::{FdLink, LinkError, PinnedLink},
        xdp::{XdpError, XdpLink, XdpMode as Flags},
    },
};
use aya_obj::programs::XdpAttachType;
use rustix::{
    io::Errno,
    net::{AddressFamily, SocketFlags, SocketType, netdevice::name_to_index, socket_with},
};

use super::{
    load::causes,
    naming,
    pins_io::{PinDir, PinDirError, link_ifindex},
    privileges_io,
};
use crate::config::model::XdpMode;

/// Why the program could not be attached to an interface.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// There is no such interface.
    #[error("interface {name} does not exist\nhint: node.interfaces names those that packets come in by; see ip link")]
    UnknownInterface {
        /// Its configured name.
        name: String,
    },
    /// The interface cannot be looked up.
    #[error("failed to look up interface {name}")]
    LookUp {
        /// Its configured name.
        name: String,
        /// The refusal.
        source: io::Error,
    },
    /// Another program has the interface.
    #[error(
        "interface {name} has an XDP program of somebody else\nhint: see ip link show {name}; ip link set {name} xdp off removes one without a link"
    )]
    Occupied {
        /// The interface.
        name: String,
        /// The refusal.
        source: Box<ProgramError>,
    },
    /// The kernel denies it.
    #[error("not permitted to attach to {name}\nhint: {}", privileges_io::HINT)]
    Permission {
        /// The interface.
        name: String,
        /// The refusal.
        source: Box<ProgramError>,
    },
    /// The interface does not take the program.
    #[error("failed to attach xdp to {name} in {mode} mode{}", hint_for(mode))]
    Refused {
        /// The interface.
        name: String,
        /// `native` or `generic`.
        mode: &'static str,
        /// The refusal.
        source: Box<ProgramError>,
    },
    /// A link cannot be used.
    #[error("failed to use the link of {name}")]
    Link {
        /// The interface.
        name: String,
        /// The refusal.
        source: LinkError,
    },
    /// A link cannot be pinned.
    #[error("failed to pin the link of {name}")]
    Pin {
        /// The interface.
        name: String,
        /// The refusal.
        source: Box<PinError>,
    },
    /// A pinned link cannot take the new program.
    #[error("failed to replace the program on {name}")]
    Update {
        /// The interface.
        name: String,
        /// The refusal.
        source: Box<ProgramError>,
    },
    /// The pin directory is unusable.
    #[error(transparent)]
    PinDir(#[from] PinDirError),
}

fn hint_for(mode: &str) -> &'static str {
    if mode == NATIVE { "\nhint: node.xdp = \"generic\" works on every interface, slower" } else { "" }
}

const NATIVE: &str = "native";
const GENERIC: &str = "generic";

/// Refuses names of interfaces that do not exist.
pub(crate) fn check_interfaces(names: &[String]) -> Result<(), AttachError> {
    names.iter().try_for_each(|name| interface_index(name).map(drop))
}

/// The interface's index.
///
/// # Errors
/// [`AttachError::UnknownInterface`].
pub(crate) fn interface_index(name: &str) -> Result<u32, AttachError> {
    let refused = |errno: Errno| AttachError::LookUp { name: name.to_owned(), source: errno.into() };
    let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None).map_err(refused)?;
    match name_to_index(socket, name) {
        Err(Errno::NODEV) => Err(AttachError::UnknownInterface { name: name.to_owned() }),
        index => index.map_err(refused),
    }
}

/// Makes `program` the one on exactly these interfaces: attached where it was not, swapped in where an earlier one is, then detached from all
/// others. Returns the index of each interface. One that does not exist is left out: what is attached by its name, since it was renamed, stays so.
///
/// # Errors
/// [`AttachError`]; what was attached before then has its earlier program, and nothing else is attached.
pub(crate) fn attach_all(
    pins: &PinDir,
    program: &mut Xdp,
    interfaces: &[String],
    mode: XdpMode,
) -> Result<BTreeMap<String, u32>, AttachError> {
    let (mut wanted, mut absent) = (BTreeMap::new(), BTreeSet::new());
    for name in interfaces {
        match interface_index(name) {
            Ok(ifindex) => drop(wanted.insert(name.clone(), ifindex)),
            Err(AttachError::UnknownInterface { .. }) => drop(absent.insert(name.clone())),
            Err(error) => return Err(error),
        }
    }
    let linked = pins.linked_interfaces()?;
    let is_kept = |name: &String| absent.contains(name) || is_live(pins, name, wanted.get(name));
    let (kept, stale): (Vec<_>, Vec<_>) = linked.into_iter().partition(is_kept);
    for name in stale.iter().filter(|name| wanted.contains_key(*name)) {
        pins.remove_link(name)?;
    }
    let added: Vec<&String> = wanted.keys().filter(|name| !kept.contains(name)).collect();
    let attached = attach_each(pins, program, &added, mode).and_then(|()| update_links(pins, program, &kept));
    if let Err(error) = attached {
        for name in added {
            pins.remove_link(name)?;
        }
        return Err(error);
    }
    for name in stale.iter().filter(|name| !wanted.contains_key(*name)) {
        pins.remove_link(name)?;
    }
    Ok(wanted)
}

/// Attaches to one interface, unless a link of ours is there. Returns its index.
pub(crate) fn attach_pinned(pins: &PinDir, program: &mut Xdp, name: &str, mode: XdpMode) -> Result<u32, AttachError> {
    let ifindex = interface_index(name)?;
    if !is_live(pins, name, Some(&ifindex)) {
        pins.remove_link(name)?;
        let link = attach(program, name, ifindex, mode)?;
        link.pin(pins.link(name)).map_err(|source| AttachError::Pin { name: name.to_owned(), source: Box::new(source) })?;
    }
    Ok(ifindex)
}

/// Whether the pinned link is on the interface that has its name; the kernel empties the link of an interface that is deleted.
fn is_live(pins: &PinDir, name: &str, ifindex: Option<&u32>) -> bool {
    let attached_to = link_ifindex(&pins.link(name));
    ifindex.is_some_and(|&ifindex| attached_to.is_ok_and(|attached_to| attached_to == ifindex))
}

fn attach_each(pins: &PinDir, program: &mut Xdp, names: &[&String], mode: XdpMode) -> Result<(), AttachError> {
    names.iter().try_for_each(|name| attach_pinned(pins, program, name, mode).map(drop))
}

/// Swaps `program` in on the pinned links of these interfaces, all or none. The link of an interface that is deleted is skipped.
pub(crate) fn update_links(pins: &PinDir, program: &mut Xdp, names: &[String]) -> Result<(), AttachError> {
    for (done, name) in names.iter().enumerate() {
        if let Err(error) = update_link(pins, program, name) {
            revert_links(pins, &names[..done]);
            return Err(error);
        }
    }
    Ok(())
}

/// Puts the pinned program back. What fails here has the new program, which works on the same maps.
fn revert_links(pins: &PinDir, names: &[String]) {
    if let Ok(mut earlier) = Xdp::from_pin(pins.pin(naming::PROGRAM), XdpAttachType::Interface) {
        for name in names {
            let _ = update_link(pins, &mut earlier, name);
        }
    }
}

fn update_link(pins: &PinDir, program: &mut Xdp, name: &str) -> Result<(), AttachError> {
    let unusable = |source| AttachError::Link { name: name.to_owned(), source };
    let pinned = PinnedLink::from_pin(pins.link(name)).map_err(unusable)?;
    let link = XdpLink::try_from(FdLink::from(pinned)).map_err(unusable)?;
    let updated = program.attach_to_link(link).and_then(|id| program.take_link(id));
    match updated {
        Err(_) if link_ifindex(&pins.link(name)).is_ok_and(|ifindex| ifindex == 0) => Ok(()),
        // The pin keeps the link; this handle may go.
        updated => updated.map(drop).map_err(|source| AttachError::Update { name: name.to_owned(), source: Box::new(source) }),
    }
}

/// Attaches by a link, in the first mode that the interface takes.
fn attach(program: &mut Xdp, name: &str, ifindex: u32, mode: XdpMode) -> Result<FdLink, AttachError> {
    match mode {
        XdpMode::Native => attach_as(program, name, ifindex, NATIVE, Flags::Driver),
        XdpMode::Generic => attach_as(program, name, ifindex, GENERIC, Flags::Skb),
        XdpMode::Auto => match attach_as(program, name, ifindex, NATIVE, Flags::Driver) {
            Err(error @ (AttachError::Refused { .. } | AttachError::Link { .. })) => {
                let reason = causes(&error).last().map(ToString::to_string);
                tracing::warn!(interface = name, reason, "no native xdp here: attaching in generic mode");
                attach_as(program, name, ifindex, GENERIC, Flags::Skb)
            }
            attached => attached,
        },
    }
}

fn attach_as(program: &mut Xdp, name: &str, ifindex: u32, mode: &'static str, flags: Flags) -> Result<FdLink, AttachError> {
    let name = name.to_owned();
    let attached = program.attach_to_if_index(ifindex, flags).and_then(|id| program.take_link(id));
    match attached {
        // Where links are refused aya attaches without one; that cannot be pinned, and ends with this handle.
        Ok(link) => FdLink::try_from(link).map_err(|source| AttachError::Link { name, source }),
        Err(error) => {
            let source = Box::new(error);
            Err(match os_error(&source) {
                Some(libc::EBUSY | libc::EEXIST) => AttachError::Occupied { name, source },
                Some(libc::EPERM) => AttachError::Permission { name, source },
                _ => AttachError::Refused { name, mode, source },
            })
        }
    }
}

fn os_error(error: &ProgramError) -> Option<i32> {
    if let ProgramError::XdpError(XdpError::NetlinkError(error)) | ProgramError::NetlinkError(error) = error {
        return error.raw_os_error();
    }
    causes(error).find_map(|cause| cause.downcast_ref::<io::Error>()?.raw_os_error())
}
