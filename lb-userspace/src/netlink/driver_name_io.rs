//! Which driver an interface has (`ethtool -i`). Netlink does not tell, and `/sys/class/net` shows the namespace of its mount.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, unsafe_code, reason = "SIOCETHTOOL, which no crate of ours wraps")]

use std::{
    ffi::{c_char, c_int},
    io,
    os::fd::AsRawFd as _,
};

use rustix::net::{AddressFamily, SocketType};
use thiserror::Error;

/// linux include/uapi/linux/ethtool.h
const ETHTOOL_GDRVINFO: u32 = 3;

/// Why a driver's name could not be read.
#[derive(Debug, Error)]
pub enum DriverNameError {
    /// Longer than the kernel's 15 bytes.
    #[error("failed to read the driver of {interface}: no interface has so long a name")]
    NameTooLong {
        /// The interface.
        interface: String,
    },
    /// The kernel refused: no such interface (ENODEV), or a driver that does not tell (EOPNOTSUPP).
    #[error("failed to read the driver of {interface}")]
    Refused {
        /// The interface.
        interface: String,
        /// Why.
        source: io::Error,
    },
}

/// The driver's name, such as `ixgbe`, `virtio_net`, `veth`, of an interface in the calling thread's network namespace.
///
/// # Errors
/// See [`DriverNameError`].
pub fn driver_name(interface: &str) -> Result<String, DriverNameError> {
    let refused = |source| DriverNameError::Refused { interface: interface.into(), source };
    let mut info = DriverInfo { command: ETHTOOL_GDRVINFO, driver: [0; 32], rest: [0; 160] };
    let mut request = EthtoolRequest { name: [0; libc::IFNAMSIZ], info: &raw mut info, padding: [0; 16] };
    if interface.len() >= request.name.len() {
        return Err(DriverNameError::NameTooLong { interface: interface.into() });
    }
    for (target, byte) in request.name.iter_mut().zip(interface.bytes()) {
        *target = c_char::from_ne_bytes([byte]);
    }
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::DGRAM, None).map_err(|error| refused(error.into()))?;
    // SAFETY: `request` is as long as `struct ifreq` at least, its name ends with a zero (checked above), and it points to a whole
    // `struct ethtool_drvinfo` that outlives the call.
    let result: c_int = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL, &raw mut request) };
    if result < 0 {
        return Err(refused(io::Error::last_os_error()));
    }
    let name = info.driver.split(|byte| *byte == 0).next().unwrap_or_default();
    Ok(String::from_utf8_lossy(name).into_owned())
}

/// `struct ethtool_drvinfo`, 196 bytes.
#[repr(C)]
struct DriverInfo {
    command: u32,
    driver: [u8; 32],
    rest: [u8; 160],
}

/// `struct ifreq` (40 bytes where pointers have 8) with its union as a pointer.
#[repr(C)]
struct EthtoolRequest {
    name: [c_char; libc::IFNAMSIZ],
    info: *mut DriverInfo,
    padding: [u8; 16],
}

const _: () = assert!(size_of::<DriverInfo>() == 196 && size_of::<EthtoolRequest>() >= size_of::<libc::ifreq>());
