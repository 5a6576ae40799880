//! Addresses as the kernel takes them, byte for byte, and the two calls that take such bytes: with these a socket can be told
//! things that no library lets one say.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd as _, BorrowedFd};

use nix::libc;

/// The `sockaddr_in` or `sockaddr_in6` of `to`.
pub(crate) fn bytes(to: SocketAddr) -> Vec<u8> {
    match to.ip() {
        IpAddr::V4(v4) => with_family(libc::AF_INET, to.port(), &v4.octets(), 8),
        IpAddr::V6(v6) => {
            // The flow label, the address, the scope.
            let rest = [&[0; 4][..], &v6.octets(), &[0; 4]].concat();
            with_family(libc::AF_INET6, to.port(), &rest, 0)
        }
    }
}

/// `to`, but its family is said to be none.
pub(crate) fn unspecified(to: SocketAddr) -> Vec<u8> {
    let mut address = bytes(to);
    address[..2].fill(0);
    address
}

fn with_family(family: i32, port: u16, rest: &[u8], padding: usize) -> Vec<u8> {
    let family = (family as u16).to_ne_bytes();
    [&family[..], &port.to_be_bytes(), rest, &vec![0; padding]].concat()
}

/// `connect()` to any address at all.
pub(crate) fn connect(socket: BorrowedFd<'_>, address: &[u8]) -> io::Result<()> {
    // SAFETY: the kernel only reads, and only so many bytes as `address` has.
    let result = unsafe { libc::connect(socket.as_raw_fd(), address.as_ptr().cast(), address.len() as u32) };
    outcome(result as isize).map(drop)
}

/// `sendto()` to any address at all.
pub(crate) fn send(socket: BorrowedFd<'_>, data: &[u8], flags: i32, address: &[u8]) -> io::Result<usize> {
    let (from, size) = (data.as_ptr().cast(), data.len());
    let (to, length) = (address.as_ptr().cast(), address.len() as u32);
    // SAFETY: the kernel only reads, and only so many bytes as the slices have.
    outcome(unsafe { libc::sendto(socket.as_raw_fd(), from, size, flags, to, length) })
}

fn outcome(result: isize) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}
