//! `weir stop`: ends the daemon, detaches the data plane and takes back the addresses that Weir added.

use std::{
    collections::BTreeSet,
    io::{self, Write},
    net::IpAddr,
    path::Path,
};

use super::{
    Exit,
    place_io::Place,
    stop_io::{DAEMON_ENDS, end_daemon, take_back},
    tell,
};
use crate::{
    config::model::Node,
    dataplane::{self, Stopped},
    netlink::{AssignedAddress, Link},
    runtime::{registry_io, report::Report, report_io},
    speaker,
};

/// Ends the daemon if one runs, detaches from every interface, removes all pins, and removes the addresses that Weir added.
///
/// # Errors
///
/// Those of writing to `out` and `err`.
pub fn stop(config: &Path, out: &mut impl Write, err: &mut impl Write) -> io::Result<Exit> {
    let place = match Place::of(config) {
        Ok(place) => place,
        Err(error) => return tell(err, &error, Exit::Usage),
    };
    for difference in place.differences() {
        writeln!(err, "warning: {difference}: that one is stopped")?;
    }
    if let Err(error) = end_daemon(&place) {
        return tell(err, &error, Exit::Refused);
    }
    // It may have outlived its daemon.
    speaker::visit_io::end(&place.state_dir);
    let Place { node, pins, state_dir, report } = place;
    let report = report.unwrap_or_default();
    let had_record = report != Report::default();
    let stopped = match dataplane::stop(&pins) {
        Ok(stopped) => stopped,
        Err(error) => return tell(err, &error, Exit::Refused),
    };
    let ground = if had_record || stopped != Stopped::default() { Ground::Known } else { Ground::MarksAlone };
    for problem in take_back(&node, &report, ground) {
        writeln!(err, "warning: {problem}")?;
    }
    if let Err(error) = report_io::remove(&state_dir) {
        return tell(err, &error, Exit::Refused);
    }
    registry_io::forget(config);
    match stopped.interfaces.as_slice() {
        [] => writeln!(out, "nothing was loaded")?,
        interfaces => writeln!(out, "stopped; detached from {}", interfaces.join(", "))?,
    }
    Ok(Exit::Fine)
}

/// Why the daemon does not end.
#[derive(Debug, thiserror::Error)]
pub(super) enum EndError {
    /// It may not be signalled.
    #[error("failed to end the daemon, process {pid}\nhint: run as root")]
    Signal {
        /// Its process.
        pid: u32,
        /// Why.
        source: rustix::io::Errno,
    },
    /// It goes on.
    #[error("the daemon, process {pid}, has not ended within {DAEMON_ENDS:?}")]
    Timeout {
        /// Its process.
        pid: u32,
    },
}

/// Why marked addresses are taken for those of the node that is stopped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Ground {
    /// Its data plane was there, or its record.
    Known,
    /// There was nothing: the marks may be those of another node on the same interfaces.
    MarksAlone,
}

/// Whether somebody else's program takes packets from one of the node's interfaces: what is marked is then that one's.
pub(super) fn is_another_attached(node: &Node, links: &[Link]) -> bool {
    links.iter().any(|link| node.interfaces.contains(&link.name) && link.xdp.is_some())
}

/// The marked addresses on the node's interfaces, with the interfaces' indexes: those of a daemon whose record is lost.
pub(super) fn ours(node: &Node, links: &[Link], assigned: &[AssignedAddress]) -> BTreeSet<(IpAddr, u32)> {
    let interfaces: BTreeSet<u32> = links.iter().filter(|link| node.interfaces.contains(&link.name)).map(|link| link.ifindex).collect();
    let ours = assigned.iter().filter(|one| one.is_ours && interfaces.contains(&one.ifindex));
    ours.map(|one| (one.address, one.ifindex)).collect()
}
