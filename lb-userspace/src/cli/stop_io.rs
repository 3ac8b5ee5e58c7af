//! What `weir stop` does: signals the daemon, waits for its end, removes pins, addresses and neighbour entries.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "signals a process, waits for it, and writes to netlink")]

use std::{
    collections::BTreeSet,
    net::IpAddr,
    thread::sleep,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

use super::{
    place_io::Place,
    stop::{EndError, Ground, is_another_attached, ours},
};
use crate::{
    config::model::Node,
    netlink::{AddressError, Netlink, NextHops},
    runtime::report::{Report, in_words},
};

/// How long a daemon may take to end.
pub(super) const DAEMON_ENDS: Duration = Duration::from_secs(10);

/// Asks the daemon to end, and waits until it has.
///
/// # Errors
/// [`EndError`].
pub(super) fn end_daemon(place: &Place) -> Result<(), EndError> {
    let Some(pid) = place.daemon() else { return Ok(()) };
    if let Some(process) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        match kill_process(process, Signal::TERM) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => {}
            Err(source) => return Err(EndError::Signal { pid, source }),
        }
    }
    let began = Instant::now();
    while place.daemon() == Some(pid) {
        if began.elapsed() > DAEMON_ENDS {
            return Err(EndError::Timeout { pid });
        }
        sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// Removes our addresses and neighbour entries, and says what could not be.
pub(super) fn take_back(node: &Node, report: &Report, ground: Ground) -> Vec<String> {
    match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(take_back_all(node, report, ground)),
        Err(error) => vec![in_words(&error)],
    }
}

async fn take_back_all(node: &Node, report: &Report, ground: Ground) -> Vec<String> {
    let mut netlink = match Netlink::open() {
        Ok(netlink) => netlink,
        Err(error) => return vec![in_words(&error)],
    };
    let mut problems = Vec::new();
    let assigned = match (netlink.links().await, netlink.addresses().await) {
        (Ok(links), Ok(_)) if ground == Ground::MarksAlone && is_another_attached(node, &links) => return problems,
        (Ok(links), Ok(assigned)) => ours(node, &links, &assigned),
        (Err(error), _) | (_, Err(error)) => {
            problems.push(in_words(&error));
            BTreeSet::new()
        }
    };
    let added: BTreeSet<(IpAddr, u32)> = report.added_addresses.iter().copied().chain(assigned).collect();
    for (address, ifindex) in added {
        match netlink.remove_address(address, ifindex).await {
            Ok(()) | Err(AddressError::NotAssigned { .. } | AddressError::NoLink { .. }) => {}
            Err(error) => problems.push(in_words(&error)),
        }
    }
    match NextHops::new(netlink).await {
        Ok(mut hops) => problems.extend(hops.release().await.err().map(|error| in_words(&error))),
        Err(error) => problems.push(in_words(&error)),
    }
    problems
}
