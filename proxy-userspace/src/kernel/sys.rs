//! The few system calls on links that aya does not offer: a link made, pinned, found by its pin, and given another
//! program without a moment without one.

use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

use nix::libc;

const OBJ_PIN: libc::c_int = 6;
const OBJ_GET: libc::c_int = 7;
const LINK_CREATE: libc::c_int = 28;
const LINK_UPDATE: libc::c_int = 29;

/// The attributes of the pin commands.
#[repr(C)]
struct PinAttributes {
    path: u64,
    fd: u32,
    flags: u32,
}

/// Attaches `program` to the cgroup; the link stands beside other people's (kernel 5.7).
pub(super) fn link(program: BorrowedFd<'_>, cgroup: BorrowedFd<'_>, hook: u32) -> io::Result<OwnedFd> {
    new(LINK_CREATE, &[number(program), number(cgroup), hook, 0])
}

/// Puts `program` in the place of the one behind `link`, in one step.
pub(super) fn exchange(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    call(LINK_UPDATE, &[number(link), number(program), 0, 0]).map(drop)
}

/// Gives `link` a name that outlives this process.
pub(super) fn pin(link: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let name = CString::new(path.as_os_str().as_bytes())?;
    let attributes = PinAttributes { path: name.as_ptr() as u64, fd: number(link), flags: 0 };
    call(OBJ_PIN, &attributes).map(drop)
}

/// What is pinned at `path`.
pub(super) fn pinned(path: &Path) -> io::Result<OwnedFd> {
    let name = CString::new(path.as_os_str().as_bytes())?;
    new(OBJ_GET, &PinAttributes { path: name.as_ptr() as u64, fd: 0, flags: 0 })
}

fn number(fd: BorrowedFd<'_>) -> u32 {
    // An open descriptor is never negative.
    fd.as_raw_fd().cast_unsigned()
}

/// A call that gives a descriptor.
fn new<A>(command: libc::c_int, attributes: &A) -> io::Result<OwnedFd> {
    let fd = call(command, attributes)?;
    // SAFETY: the kernel has just opened it for us, so nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

fn call<A>(command: libc::c_int, attributes: &A) -> io::Result<libc::c_long> {
    let (address, length) = (std::ptr::from_ref(attributes), size_of::<A>());
    // SAFETY: `length` initialised bytes of plain integers, which the kernel only reads; what they point at lives as
    // long as our caller's borrow.
    let status = unsafe { libc::syscall(libc::SYS_bpf, command, address, length) };
    if status < 0 { Err(io::Error::last_os_error()) } else { Ok(status) }
}
