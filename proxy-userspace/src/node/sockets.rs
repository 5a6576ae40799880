//! Sockets inside a namespace: the listeners that steered connections arrive at, and sockets to dial with.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener},
    os::fd::{AsRawFd as _, OwnedFd, RawFd},
    sync::PoisonError,
};

use nix::{
    libc,
    sys::socket::{
        AddressFamily, Backlog, SockFlag, SockProtocol, SockType, SockaddrStorage, bind, listen, socket,
    },
};

use super::Namespace;

/// Sockets that one trip into a namespace brings back: the trip costs about as much as making ten of them.
const BATCH: usize = 16;
/// Steered connections that wait to be accepted; what does not fit shows as a one-second delay in the application.
const BACKLOG: i32 = 4096;
/// `IPV6_TRANSPARENT` of linux/in6.h.
pub(super) const IPV6_TRANSPARENT: libc::c_int = 75;

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// The listeners of one namespace, on ports that the kernel chose on loopback.
#[derive(Debug)]
pub struct Listeners {
    /// On 127.0.0.1.
    pub v4: TcpListener,
    /// On ::1, or why there is none; a namespace without IPv6 is served all the same.
    pub v6: Result<TcpListener, String>,
}

/// Fresh sockets that wait to be dialled with.
#[derive(Debug, Default)]
pub(super) struct Pools {
    v4: Vec<OwnedFd>,
    v6: Vec<OwnedFd>,
}

impl Namespace {
    /// Opens the listeners for steered connections inside the namespace.
    ///
    /// # Errors
    /// When the namespace cannot be entered, or the IPv4 listener cannot be opened.
    pub fn listen(&self) -> io::Result<Listeners> {
        self.enter(|| {
            let v4 = transparent_listener(Family::V4).map_err(|error| {
                let text = format!("no listener on 127.0.0.1 (is `lo` up in the namespace?): {error}");
                io::Error::new(error.kind(), text)
            })?;
            let v6 = transparent_listener(Family::V6).map_err(|error| format!("no listener on ::1: {error}"));
            Ok(Listeners { v4, v6 })
        })?
    }

    /// A fresh TCP socket of the namespace, non-blocking and close-on-exec. The caller must run in the namespace
    /// of the thread that opened this value.
    ///
    /// # Errors
    /// When there is no room for another descriptor, or the family does not exist.
    pub fn socket(&self, family: Family) -> io::Result<OwnedFd> {
        if self.is_own {
            return tcp_socket(family);
        }
        if let Some(ready) = self.with_pool(family, Vec::pop) {
            return Ok(ready);
        }
        let mut fresh = self.step_in(|| (0..BATCH).map(|_| tcp_socket(family)).collect::<Vec<_>>())?;
        // One socket is what was asked for; a failure among the others shows up when their turn comes.
        let wanted = fresh.swap_remove(0)?;
        self.with_pool(family, |pool| pool.extend(fresh.into_iter().flatten()));
        Ok(wanted)
    }

    fn with_pool<T>(&self, family: Family, work: impl FnOnce(&mut Vec<OwnedFd>) -> T) -> T {
        let mut pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        work(match family {
            Family::V4 => &mut pools.v4,
            Family::V6 => &mut pools.v6,
        })
    }
}

/// The cookie of the calling thread's network namespace.
pub(super) fn netns_cookie() -> io::Result<u64> {
    let probe = tcp_socket(Family::V4).or_else(|_| tcp_socket(Family::V6))?;
    let mut cookie = 0_u64;
    let mut length = size_of::<u64>() as libc::socklen_t;
    // SAFETY: the socket is open; value and length point at initialised variables of the stated size.
    let status = unsafe {
        libc::getsockopt(
            probe.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    if status == 0 { Ok(cookie) } else { Err(io::Error::last_os_error()) }
}

fn tcp_socket(family: Family) -> io::Result<OwnedFd> {
    let family = match family {
        Family::V4 => AddressFamily::Inet,
        Family::V6 => AddressFamily::Inet6,
    };
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    Ok(socket(family, SockType::Stream, flags, SockProtocol::Tcp)?)
}

/// A listener that may answer for addresses that are not the machine's own: without that the kernel has no route
/// for the SYN-ACK and counts a ListenDrop.
fn transparent_listener(family: Family) -> io::Result<TcpListener> {
    let socket = tcp_socket(family)?;
    let fd = socket.as_raw_fd();
    let address: SocketAddr = match family {
        Family::V4 => {
            switch_on(fd, libc::SOL_IP, libc::IP_TRANSPARENT)?;
            (Ipv4Addr::LOCALHOST, 0).into()
        }
        Family::V6 => {
            switch_on(fd, libc::SOL_IPV6, libc::IPV6_V6ONLY)?;
            switch_on(fd, libc::SOL_IPV6, IPV6_TRANSPARENT)?;
            (Ipv6Addr::LOCALHOST, 0).into()
        }
    };
    bind(fd, &SockaddrStorage::from(address))?;
    listen(&socket, Backlog::new(BACKLOG)?)?;
    Ok(socket.into())
}

pub(super) fn switch_on(fd: RawFd, level: libc::c_int, option: libc::c_int) -> io::Result<()> {
    set(fd, level, option, 1)
}

pub(super) fn set(fd: RawFd, level: libc::c_int, option: libc::c_int, value: libc::c_int) -> io::Result<()> {
    let length = size_of_val(&value) as libc::socklen_t;
    // SAFETY: the socket is open, and the value is an initialised int of the stated size.
    let status = unsafe { libc::setsockopt(fd, level, option, (&raw const value).cast(), length) };
    if status == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
