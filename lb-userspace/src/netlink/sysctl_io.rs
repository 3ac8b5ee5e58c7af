//! Reads and writes network settings below `/proc/sys/net`, of the calling thread's network namespace.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "reads and writes files of /proc/sys")]

use std::{fs, io, ops::RangeInclusive, path::PathBuf};

use thiserror::Error;

/// How the kernel checks that packets come from where it would send to (RFC 3704).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum RpFilter {
    /// 0
    Off,
    /// 1
    Strict,
    /// 2
    Loose,
}

/// The settings of an interface that decide about packets which XDP passes, combined with those of `all` as the kernel does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct InterfaceSettings {
    /// The larger of the interface's and `all`'s.
    pub rp_filter: RpFilter,
    /// A source address of this host is accepted from the wire: the interface's or `all`'s.
    pub accepts_local: bool,
    /// IPv4 packets that enter here are forwarded.
    pub forwards_v4: bool,
    /// IPv6 packets that enter here are forwarded; false where IPv6 is off.
    pub forwards_v6: bool,
}

/// Why a setting could not be read or written.
#[derive(Debug, Error)]
pub enum SysctlError {
    /// The file.
    #[error("failed to read {path}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file, written.
    #[error("failed to write {path}")]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Its content.
    #[error("failed to understand {path}: {content:?}")]
    Content {
        /// Which.
        path: PathBuf,
        /// What it says.
        content: String,
    },
    /// Not the name of an interface.
    #[error("{name:?} cannot be the name of an interface")]
    Name {
        /// The name.
        name: String,
    },
}

/// The ports that the host gives to its own connections (`net.ipv4.ip_local_port_range`, for both families), in host order.
///
/// # Errors
/// See [`SysctlError`].
pub fn local_port_range() -> Result<RangeInclusive<u16>, SysctlError> {
    let (path, content) = read("ipv4/ip_local_port_range")?;
    let mut ports = content.split_ascii_whitespace().map(str::parse::<u16>);
    match (ports.next(), ports.next(), ports.next()) {
        (Some(Ok(first)), Some(Ok(last)), None) => Ok(first..=last),
        _ => Err(SysctlError::Content { path, content }),
    }
}

/// The settings of one interface.
///
/// # Errors
/// See [`SysctlError`].
pub fn interface_settings(interface: &str) -> Result<InterfaceSettings, SysctlError> {
    if interface.is_empty() || interface.contains('/') || interface == "." || interface == ".." {
        return Err(SysctlError::Name { name: interface.into() });
    }
    let v4 = |device: &str, setting: &str| number(&format!("ipv4/conf/{device}/{setting}"));
    let rp_filter = match v4("all", "rp_filter")?.max(v4(interface, "rp_filter")?) {
        0 => RpFilter::Off,
        1 => RpFilter::Strict,
        _ => RpFilter::Loose,
    };
    Ok(InterfaceSettings {
        rp_filter,
        accepts_local: v4("all", "accept_local")? != 0 || v4(interface, "accept_local")? != 0,
        forwards_v4: v4(interface, "forwarding")? != 0,
        forwards_v6: setting(&format!("ipv6/conf/{interface}/forwarding"))?.is_some_and(|value| value != 0),
    })
}

/// One setting, such as `ipv4/conf/all/rp_filter`; none if there is no such setting, for its interface is gone or its family off.
///
/// # Errors
/// See [`SysctlError`].
pub fn setting(name: &str) -> Result<Option<u32>, SysctlError> {
    match number(name) {
        Err(SysctlError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
        found => found.map(Some),
    }
}

/// Writes one setting.
///
/// # Errors
/// [`SysctlError::Write`].
pub fn set(name: &str, value: u32) -> Result<(), SysctlError> {
    let path = PathBuf::from("/proc/sys/net").join(name);
    fs::write(&path, value.to_string()).map_err(|source| SysctlError::Write { path, source })
}

fn number(setting: &str) -> Result<u32, SysctlError> {
    let (path, content) = read(setting)?;
    let Ok(number) = content.trim().parse() else { return Err(SysctlError::Content { path, content }) };
    Ok(number)
}

fn read(setting: &str) -> Result<(PathBuf, String), SysctlError> {
    let path = PathBuf::from("/proc/sys/net").join(setting);
    match fs::read_to_string(&path) {
        Ok(content) => Ok((path, content)),
        Err(source) => Err(SysctlError::Read { path, source }),
    }
}
