//! `weir stop`: ends the daemon, detaches the data plane and takes back the addresses that Weir added.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "signals a process, waits for it, and writes to netlink")]

use std::{
    io::{self, Write},
    path::Path,
    thread::sleep,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

use super::{Exit, node_of, tell};
use crate::{
    dataplane::{self, PinDir, PinDirError},
    netlink::{AddressError, Netlink, NextHops},
    runtime::{
        report::Report,
        report_io::{self, is_running},
    },
};

/// How long a daemon may take to end.
const DAEMON_ENDS: Duration = Duration::from_secs(10);

/// Ends the daemon if one runs, detaches from every interface, removes all pins, and removes the addresses that Weir added.
///
/// # Errors
///
/// Those of writing to `out` and `err`.
pub fn stop(config: &Path, out: &mut impl Write, err: &mut impl Write) -> io::Result<Exit> {
    let node = match node_of(config) {
        Ok(node) => node,
        Err(error) => return tell(err, &error, Exit::Usage),
    };
    let report = report_io::read(&node.state_dir).ok().flatten().unwrap_or_default();
    if let Err(error) = end_daemon(&report) {
        return tell(err, &error, Exit::Refused);
    }
    let stopped = match stop_data_plane(&PinDir::at(&node.pin_dir)) {
        Ok(stopped) => stopped,
        Err(error) => return tell(err, &error, Exit::Refused),
    };
    for problem in take_back(&report) {
        writeln!(err, "warning: {problem}")?;
    }
    if let Err(error) = report_io::remove(&node.state_dir) {
        return tell(err, &error, Exit::Refused);
    }
    match stopped.interfaces.as_slice() {
        [] => writeln!(out, "nothing was loaded")?,
        interfaces => writeln!(out, "stopped; detached from {}", interfaces.join(", "))?,
    }
    Ok(Exit::Fine)
}

/// Why the daemon does not end.
#[derive(Debug, thiserror::Error)]
enum EndError {
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

fn end_daemon(report: &Report) -> Result<(), EndError> {
    let pid = report.pid;
    if !is_running(pid) {
        return Ok(());
    }
    if let Some(process) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        match kill_process(process, Signal::TERM) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => {}
            Err(source) => return Err(EndError::Signal { pid, source }),
        }
    }
    let began = Instant::now();
    while is_running(pid) {
        if began.elapsed() > DAEMON_ENDS {
            return Err(EndError::Timeout { pid });
        }
        sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// A daemon that was killed may hold the lock for the moment that the kernel needs to close its files.
fn stop_data_plane(pins: &PinDir) -> Result<dataplane::Stopped, PinDirError> {
    let began = Instant::now();
    loop {
        match dataplane::stop(pins) {
            Err(PinDirError::InUse { .. }) if began.elapsed() < Duration::from_secs(1) => sleep(Duration::from_millis(10)),
            stopped => return stopped,
        }
    }
}

/// Removes our addresses and neighbour entries, and says what could not be.
fn take_back(report: &Report) -> Vec<String> {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return vec![error.to_string()],
    };
    runtime.block_on(async {
        let mut problems = Vec::new();
        let mut netlink = match Netlink::open() {
            Ok(netlink) => netlink,
            Err(error) => return vec![error.to_string()],
        };
        for (address, ifindex) in &report.added_addresses {
            match netlink.remove_address(*address, *ifindex).await {
                Ok(()) | Err(AddressError::NotAssigned { .. } | AddressError::NoLink { .. }) => {}
                Err(error) => problems.push(error.to_string()),
            }
        }
        match NextHops::new(netlink).await {
            Ok(mut hops) => problems.extend(hops.release().await.err().map(|error| error.to_string())),
            Err(error) => problems.push(error.to_string()),
        }
        problems
    })
}
