//! The uses of bpf(2) that aya has none for. Numbers and layouts: linux include/uapi/linux/bpf.h, `enum bpf_cmd` and `union bpf_attr`.
#![allow(unsafe_code, reason = "system calls")]

use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

use super::mapped::Access;

const BPF_MAP_LOOKUP_ELEM: libc::c_long = 1;
const BPF_OBJ_GET: libc::c_long = 7;
const BPF_MAP_UPDATE_BATCH: libc::c_long = 26;
const BPF_LINK_DETACH: libc::c_long = 34;
const BPF_F_RDONLY: u32 = 1 << 3;

#[repr(C)]
struct ObjGet {
    pathname: u64,
    bpf_fd: u32,
    file_flags: u32,
}

#[repr(C)]
struct LinkDetach {
    link_fd: i32,
}

#[repr(C)]
struct Elem {
    map_fd: i32,
    reserved: u32,
    key: u64,
    value: u64,
    flags: u64,
}

#[repr(C)]
struct Batch {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: i32,
    elem_flags: u64,
    flags: u64,
}

/// Opens any pinned object.
pub(crate) fn open_pin(path: &Path, access: Access) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let file_flags = if access == Access::ReadOnly { BPF_F_RDONLY } else { 0 };
    let mut request = ObjGet { pathname: path.as_ptr() as u64, bpf_fd: 0, file_flags };
    // SAFETY: the only pointer in `request` is to `path`, which outlives the call.
    let fd = unsafe { bpf(BPF_OBJ_GET, &mut request) }?;
    // SAFETY: the kernel just made this descriptor (close-on-exec) and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Takes the program of a link off its interface.
pub(crate) fn detach(link: BorrowedFd<'_>) -> io::Result<()> {
    let mut request = LinkDetach { link_fd: link.as_raw_fd() };
    // SAFETY: `request` has no pointer.
    unsafe { bpf(BPF_LINK_DETACH, &mut request) }.map(drop)
}

/// The first entry of an array that no CPU has for itself, whose values have `value_bytes` bytes.
pub(crate) fn first_value(array: BorrowedFd<'_>, value_bytes: u32) -> io::Result<Vec<u8>> {
    let key = 0_u32;
    let mut value = vec![0; value_bytes as usize];
    let mut request =
        Elem { map_fd: array.as_raw_fd(), reserved: 0, key: &raw const key as u64, value: value.as_mut_ptr() as u64, flags: 0 };
    // SAFETY: `key` has the four bytes of an array's index, `value` as many as the kernel writes; both outlive the call.
    unsafe { bpf(BPF_MAP_LOOKUP_ELEM, &mut request) }?;
    Ok(value)
}

/// Puts the map `inner[i]` at index `first + i` of an array of maps, for all of them with one wait for the packets in flight.
pub(crate) fn set_inner_maps(outer: BorrowedFd<'_>, first: u32, inner: &[BorrowedFd<'_>]) -> io::Result<()> {
    let keys: Vec<u32> = (first..).take(inner.len()).collect();
    let values: Vec<i32> = inner.iter().map(|map| map.as_raw_fd()).collect();
    let mut request = Batch {
        in_batch: 0,
        out_batch: 0,
        keys: keys.as_ptr() as u64,
        values: values.as_ptr() as u64,
        count: inner.len() as u32,
        map_fd: outer.as_raw_fd(),
        elem_flags: 0,
        flags: 0,
    };
    // SAFETY: `keys` and `values` hold `count` keys and values of four bytes, as an array of maps has, and outlive the call.
    unsafe { bpf(BPF_MAP_UPDATE_BATCH, &mut request) }.map(drop)
}

/// # Safety
/// `request` must be what the kernel reads for `command`, its pointers valid for what the kernel does with them.
unsafe fn bpf<T>(command: libc::c_long, request: &mut T) -> io::Result<libc::c_long> {
    // SAFETY: the kernel writes at most into `request` (how far a batch got) and the size passed is that of `request`; the rest is the caller's promise.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(request), size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
