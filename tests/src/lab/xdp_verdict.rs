//! The smallest XDP programs, those that give every frame one verdict. A veth delivers what its peer sends by XDP_TX only while it has a
//! program itself, so "pass" stands opposite every interface that will carry Weir; "drop" makes a silent partition.
#![allow(unsafe_code, reason = "bpf(2) has no safe wrapper for a program given as bytes")]

use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

use anyhow::Context as _;

use super::Namespace;

// linux/bpf.h
const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_LINK_CREATE: libc::c_long = 28;
const BPF_PROG_TYPE_XDP: u32 = 6;
const BPF_F_XDP_HAS_FRAGS: u32 = 1 << 5;
const BPF_XDP: u32 = 37;
const XDP_FLAGS_DRV_MODE: u32 = 1 << 2;

/// What becomes of every frame that an interface receives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Verdict {
    /// Lost without a sign.
    Drop = 1,
    /// On to the kernel.
    Pass = 2,
    /// Back where it came from, as it is.
    Reflect = 3,
}

/// The program is attached as long as this lives.
#[derive(Debug)]
pub struct XdpVerdict {
    _link: OwnedFd,
}

impl XdpVerdict {
    /// Attaches one in driver mode.
    pub fn attach(namespace: &Namespace, interface: &str, verdict: Verdict) -> anyhow::Result<Self> {
        let attach = || -> std::io::Result<OwnedFd> {
            let program = load(verdict)?;
            let index = rustix::net::netdevice::name_to_index(
                rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::DGRAM, None)?,
                interface,
            )?;
            let mut attributes = Attributes::default();
            attributes.put_u32(0, program.as_raw_fd().cast_unsigned());
            attributes.put_u32(4, index);
            attributes.put_u32(8, BPF_XDP);
            attributes.put_u32(12, XDP_FLAGS_DRV_MODE);
            attributes.call(BPF_LINK_CREATE)
        };
        let link =
            namespace.enter(attach).with_context(|| format!("failed to attach an XDP program to {interface} in {}", namespace.name()))?;
        Ok(Self { _link: link })
    }
}

fn load(verdict: Verdict) -> std::io::Result<OwnedFd> {
    // r0 = verdict; exit
    let program: [[u8; 8]; 2] = [[0xb7, 0, 0, 0, verdict as u8, 0, 0, 0], [0x95, 0, 0, 0, 0, 0, 0, 0]];
    let mut attributes = Attributes::default();
    attributes.put_u32(0, BPF_PROG_TYPE_XDP);
    attributes.put_u32(4, u32::try_from(program.len()).expect("two instructions"));
    attributes.put_u64(8, program.as_ptr().expose_provenance() as u64);
    attributes.put_u64(16, c"MIT".as_ptr().expose_provenance() as u64);
    attributes.put_u32(44, BPF_F_XDP_HAS_FRAGS);
    attributes.put_u32(68, BPF_XDP);
    attributes.call(BPF_PROG_LOAD)
}

/// `union bpf_attr`, offsets as in linux/bpf.h.
#[repr(C, align(8))]
struct Attributes([u8; 128]);

impl Default for Attributes {
    fn default() -> Self {
        Self([0; 128])
    }
}

impl Attributes {
    fn put_u32(&mut self, offset: usize, value: u32) {
        self.0[offset..offset + 4].copy_from_slice(&value.to_ne_bytes());
    }

    fn put_u64(&mut self, offset: usize, value: u64) {
        self.0[offset..offset + 8].copy_from_slice(&value.to_ne_bytes());
    }

    fn call(&self, command: libc::c_long) -> std::io::Result<OwnedFd> {
        // SAFETY: the kernel reads 128 bytes that live through the call, and through them only the two arrays that `load` keeps alive.
        let result = unsafe { libc::syscall(libc::SYS_bpf, command, self.0.as_ptr(), self.0.len()) };
        let fd = i32::try_from(result).ok().filter(|fd| *fd >= 0).ok_or_else(std::io::Error::last_os_error)?;
        // SAFETY: both commands return a new file descriptor that nothing else owns.
        Ok(unsafe { OwnedFd::from_raw_fd(fd) })
    }
}
