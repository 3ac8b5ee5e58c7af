//! Reads the host, makes the changes of a record and takes them back.
#![allow(clippy::disallowed_methods, reason = "runs the netlink socket to completion, and waits for the kernel")]

use std::{
    collections::BTreeSet,
    io,
    net::IpAddr,
    path::PathBuf,
    time::{Duration, Instant},
};

use thiserror::Error;

use super::{
    advice::{self, Outer},
    plan::{Facts, Refusal, Request, Tunnel, Way, changes, plan, setting_names},
    record::{ChangedSetting, Record},
    record_io::{self, RecordError},
    status::Status,
};
use crate::{
    dataplane::{DecapError, PinDir, PinDirError, attached, decap_counts, start_decap, stop_decap},
    netlink::{
        AddressError, Link, Netlink, OpenError, RequestError,
        routes::Route,
        sysctl_io::{self, SysctlError},
    },
};

/// How long the kernel may take to make an address local; milliseconds, when it is idle.
const LOCAL_TIMEOUT: Duration = Duration::from_secs(5);
const LOCAL_POLL: Duration = Duration::from_millis(2);

/// Where a setup keeps what outlives the command.
#[derive(Clone, Debug)]
pub struct Places {
    /// The record's file.
    pub record: PathBuf,
    /// The pin directory of `weir_decap`.
    pub pins: PathBuf,
}

impl Places {
    /// The same, with the pins where the record has them, whatever this command was told.
    fn of(&self, record: Option<&Record>) -> Self {
        let recorded = record.map(|record| &record.pins).filter(|pins| !pins.as_os_str().is_empty());
        Self { record: self.record.clone(), pins: recorded.unwrap_or(&self.pins).clone() }
    }
}

/// Why a host could not be set up, or not be looked at.
#[derive(Debug, Error)]
pub enum SetupError {
    /// It cannot be as requested.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The record.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// A netlink socket.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A netlink request.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// An address.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// A setting.
    #[error(transparent)]
    Setting(#[from] SysctlError),
    /// The program that opens tunnels.
    #[error(transparent)]
    Decap(#[from] Box<DecapError>),
    /// Its pins.
    #[error(transparent)]
    Pins(#[from] PinDirError),
    /// The loopback interface has gone.
    #[error("this host has no loopback interface")]
    NoLoopback,
    /// A rule or route stands before the address.
    #[error("packets for {vip} are not taken though it is an address of this host\nhint: see ip route get {vip} and ip rule")]
    NotLocal {
        /// The VIP.
        vip: IpAddr,
    },
    /// No event loop.
    #[error("failed to start an event loop")]
    Runtime(#[source] io::Error),
}

/// Sets the host up, or adds VIPs to what it is set up for; whatever of it is missing is made again. Returns what is left to the operator. Waits
/// while another command adds or removes.
/// `outer`: the family of the addresses that tunnels run between; none: IPv4 if the interface has an IPv4 address.
///
/// # Errors
/// [`SetupError`]; what this call changed is then taken back.
pub fn add(places: &Places, request: &Request, outer: Option<Outer>) -> Result<Vec<String>, SetupError> {
    let _lock = record_io::lock(&places.record)?;
    block_on(async {
        let mut netlink = Netlink::open()?;
        let facts = read_facts(&mut netlink, &request.interface).await?;
        let earlier = record_io::read(&places.record)?;
        let places = &places.of(earlier.as_ref());
        let planned = plan(request, &facts, earlier.as_ref())?;
        let record = Record { pins: places.pins.clone(), outer: outer.or(planned.outer), ..planned };
        record_io::write(&places.record, &record)?;
        if let Err(error) = make(&mut netlink, places, &record, &facts).await {
            // The first failure is the one to report.
            let _ = take_back(&mut netlink, places, &record, earlier.as_ref()).await;
            return Err(error);
        }
        advise(&mut netlink, &record, &facts, outer).await
    })
}

/// What was taken back.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Removed {
    /// Whether the host was set up.
    pub was_set_up: bool,
    /// Settings that somebody changed since, and that stay as they are.
    pub left: Vec<String>,
}

/// Takes back what was changed, and nothing else. Fine if nothing is set up, or only a part.
///
/// # Errors
/// [`SetupError`]; the record is kept, so that it can be repeated.
pub fn remove(places: &Places) -> Result<Removed, SetupError> {
    let _lock = record_io::lock(&places.record)?;
    block_on(async {
        let Some(record) = record_io::read(&places.record)? else {
            stop_decap(&PinDir::at(&places.pins))?;
            return Ok(Removed::default());
        };
        let left = take_back(&mut Netlink::open()?, &places.of(Some(&record)), &record, None).await?;
        Ok(Removed { was_set_up: true, left })
    })
}

/// Whether the host is as it was set up, and what is left to the operator; none if it is not set up.
///
/// # Errors
/// [`SetupError`].
pub fn status(places: &Places, outer: Option<Outer>) -> Result<Option<(Status, Vec<String>)>, SetupError> {
    block_on(async {
        let Some(record) = record_io::read(&places.record)? else { return Ok(None) };
        let mut netlink = Netlink::open()?;
        let facts = read_facts(&mut netlink, &record.interface).await?;
        let pins = PinDir::at(&places.of(Some(&record)).pins);
        let links = attached(&pins)?;
        let counts = if links.is_empty() { vec![] } else { decap_counts(&pins).map_err(Box::new)? };
        let status = Status::of(&record, &facts, &links, &counts);
        Ok(Some((status, advise(&mut netlink, &record, &facts, outer).await?)))
    })
}

fn block_on<T>(future: impl Future<Output = Result<T, SetupError>>) -> Result<T, SetupError> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(SetupError::Runtime)?.block_on(future)
}

async fn read_facts(netlink: &mut Netlink, interface: &str) -> Result<Facts, SetupError> {
    let mut facts = Facts { links: netlink.links().await?, addresses: netlink.addresses().await?, ..Facts::default() };
    // Only the name of an interface may become a part of a path.
    if facts.links.iter().any(|link| link.name == interface) {
        for name in setting_names(interface) {
            if let Some(value) = sysctl_io::setting(&name)? {
                facts.settings.insert(name, value);
            }
        }
    }
    Ok(facts)
}

/// Settings first: once an address is there, it is answered for.
async fn make(netlink: &mut Netlink, places: &Places, record: &Record, facts: &Facts) -> Result<(), SetupError> {
    for ChangedSetting { name, after, .. } in changes(&record.interface, &record.vips, &facts.settings) {
        sysctl_io::set(&name, after)?;
    }
    let loopback = loopback(&facts.links)?;
    for &vip in &record.added {
        match netlink.add_address(vip, loopback).await {
            Err(AddressError::AlreadyAssigned { .. }) => {}
            added => added?,
        }
    }
    until_local(netlink, &record.added).await?;
    if let (Some(settings), Way::Xdp) = (record.tunnel.decap_settings(), record.way) {
        start_decap(&PinDir::at(&places.pins), &record.interface, settings, &record.vips).map_err(Box::new)?;
    }
    Ok(())
}

/// Waits until packets for these addresses are taken: the kernel makes an IPv6 address local some time after it has added it (linux
/// net/ipv6/addrconf.c, `addrconf_dad_work`).
async fn until_local(netlink: &mut Netlink, vips: &BTreeSet<IpAddr>) -> Result<(), SetupError> {
    let deadline = Instant::now() + LOCAL_TIMEOUT;
    for &vip in vips {
        while netlink.route(vip).await? != Route::Local {
            if Instant::now() > deadline {
                return Err(SetupError::NotLocal { vip });
            }
            tokio::time::sleep(LOCAL_POLL).await;
        }
    }
    Ok(())
}

fn loopback(links: &[Link]) -> Result<u32, SetupError> {
    links.iter().find(|link| link.is_loopback).map(|link| link.ifindex).ok_or(SetupError::NoLoopback)
}

/// Takes back what `record` has beyond `earlier`, which is the record again then. Returns the settings that are left as they are.
async fn take_back(netlink: &mut Netlink, places: &Places, record: &Record, earlier: Option<&Record>) -> Result<Vec<String>, SetupError> {
    let (added, settings) = match earlier {
        Some(earlier) => record.since(earlier),
        None => (record.added.clone(), record.settings.clone()),
    };
    let pins = PinDir::at(&places.pins);
    match (earlier, record.tunnel.decap_settings()) {
        (Some(earlier), Some(tunnels)) if record.way == Way::Xdp => {
            start_decap(&pins, &earlier.interface, tunnels, &earlier.vips).map_err(Box::new)?;
        }
        (Some(_), _) => {}
        (None, _) => stop_decap(&pins)?,
    }
    remove_addresses(netlink, &added).await?;
    let left = restore(&settings)?;
    match earlier {
        Some(earlier) => record_io::write(&places.record, earlier)?,
        None => record_io::forget(&places.record)?,
    }
    Ok(left)
}

async fn remove_addresses(netlink: &mut Netlink, added: &BTreeSet<IpAddr>) -> Result<(), SetupError> {
    let loopback = loopback(&netlink.links().await?)?;
    for &vip in added {
        match netlink.remove_address(vip, loopback).await {
            Err(AddressError::NotAssigned { .. }) => {}
            removed => removed?,
        }
    }
    Ok(())
}

/// Gives settings their earlier values, but those that somebody changed since: their names are returned.
fn restore(settings: &[ChangedSetting]) -> Result<Vec<String>, SetupError> {
    let mut left = vec![];
    for ChangedSetting { name, before, after } in settings.iter().rev() {
        match sysctl_io::setting(name)? {
            Some(value) if value == *after => sysctl_io::set(name, *before)?,
            Some(value) if value != *before => left.push(name.clone()),
            // As before, or gone with its interface.
            Some(_) | None => {}
        }
    }
    Ok(left)
}

async fn advise(netlink: &mut Netlink, record: &Record, facts: &Facts, outer: Option<Outer>) -> Result<Vec<String>, SetupError> {
    let Some(link) = facts.links.iter().find(|link| link.name == record.interface) else { return Ok(vec![]) };
    if record.tunnel == Tunnel::Dsr {
        return Ok(vec![]);
    }
    let has_v4 = facts.addresses.iter().any(|assigned| assigned.ifindex == link.ifindex && assigned.address.is_ipv4());
    let outer = outer.or(record.outer).unwrap_or(if has_v4 { Outer::Ipv4 } else { Outer::Ipv6 });
    let mut lines = advice::on_devices(record.tunnel, record.way, outer, &record.vips);
    let routes = netlink.default_routes().await?;
    lines.extend(advice::on_mss(link, record.tunnel, outer, &record.vips, &routes, &facts.links));
    Ok(lines)
}
