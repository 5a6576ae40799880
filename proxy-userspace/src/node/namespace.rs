//! A network namespace: held by a file descriptor, known by its cookie, entered for as long as a closure runs.
//!
//! No thread that other code uses ever stays in a foreign namespace: [`Namespace::enter`] takes a thread of its own,
//! and the in-place way of `sockets` goes there and back without a chance to wait in between.

use std::{
    collections::BTreeSet,
    fs::File,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::{
        fd::{AsFd, AsRawFd as _, BorrowedFd},
        linux::fs::MetadataExt as _,
        unix::fs::OpenOptionsExt as _,
    },
    path::Path,
    sync::Mutex,
    thread,
};

use nix::{
    ifaddrs::getifaddrs,
    libc,
    sched::{CloneFlags, setns},
    sys::socket::SockaddrStorage,
};

use super::sockets::{self, Pools};

/// The network namespace of the calling thread.
const OWN: &str = "/proc/thread-self/ns/net";

/// A network namespace. It lives at least as long as this value.
#[derive(Debug)]
pub struct Namespace {
    file: File,
    cookie: u64,
    inode: u64,
    /// Whether it is the one of the thread that opened it, so that sockets need no way there.
    pub(super) is_own: bool,
    pub(super) pools: Mutex<Pools>,
}

impl Namespace {
    /// The namespace of the calling thread.
    ///
    /// # Errors
    /// When /proc is not mounted, or there is no room for another descriptor.
    pub fn current() -> io::Result<Self> {
        Self::open(Path::new(OWN))
    }

    /// The namespace at `path`: `/run/netns/NAME` or `/proc/PID/ns/net`.
    ///
    /// # Errors
    /// When the path does not exist, is no network namespace, or may not be entered.
    pub fn open(path: &Path) -> io::Result<Self> {
        let about = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
        // A pipe that somebody names by mistake must not keep us waiting.
        let file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path).map_err(about)?;
        let inode = file.metadata().map_err(about)?.st_ino();
        let is_own = inode == File::open(OWN)?.metadata()?.st_ino();
        let cookie = visit(file.as_fd(), sockets::netns_cookie).and_then(|cookie| cookie).map_err(about)?;
        Ok(Self { file, cookie, inode, is_own, pools: Mutex::default() })
    }

    /// `SO_NETNS_COOKIE`: never given twice while the machine is up, unlike the inode.
    #[must_use]
    pub fn cookie(&self) -> u64 {
        self.cookie
    }

    /// The number in `net:[NUMBER]`.
    #[must_use]
    pub fn inode(&self) -> u64 {
        self.inode
    }

    /// The first IPv4 and the first IPv6 address of the namespace that reach beyond one link: where its connections
    /// leave from, unless there are several.
    ///
    /// # Errors
    /// When the namespace cannot be entered, or its addresses cannot be listed.
    pub fn addresses(&self) -> io::Result<(Option<Ipv4Addr>, Option<Ipv6Addr>)> {
        let all = self.listed_addresses()?;
        let v4 = all.iter().filter_map(|one| if let IpAddr::V4(v4) = one { Some(*v4) } else { None });
        let v6 = all.iter().filter_map(|one| if let IpAddr::V6(v6) = one { Some(*v6) } else { None });
        let v4 = v4.into_iter().find(|ip| !ip.is_loopback() && !ip.is_link_local());
        Ok((v4, v6.into_iter().find(|ip| !ip.is_loopback() && !ip.is_unicast_link_local())))
    }

    /// Every address of every interface: what is sent there never leaves the namespace.
    ///
    /// # Errors
    /// As [`Self::addresses`].
    pub fn own_addresses(&self) -> io::Result<BTreeSet<IpAddr>> {
        Ok(self.listed_addresses()?.into_iter().collect())
    }

    /// In the order of the interfaces.
    fn listed_addresses(&self) -> io::Result<Vec<IpAddr>> {
        let ip = |one: SockaddrStorage| {
            let v4 = one.as_sockaddr_in().map(|v4| v4.ip().into());
            v4.or_else(|| one.as_sockaddr_in6().map(|v6| v6.ip().into()))
        };
        Ok(self.enter(|| getifaddrs().map(|all| all.filter_map(|one| ip(one.address?)).collect()))??)
    }

    /// Runs `work` inside the namespace, on a thread of its own, and waits for it.
    ///
    /// # Errors
    /// When the namespace may not be entered (it takes CAP_SYS_ADMIN).
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> io::Result<T> {
        visit(self.file.as_fd(), work)
    }

    /// Moves the calling thread into the namespace for good: for a process that is about to become another program.
    ///
    /// # Errors
    /// When the namespace may not be entered (it takes CAP_SYS_ADMIN).
    pub fn join(&self) -> io::Result<()> {
        Ok(setns(&self.file, CloneFlags::CLONE_NEWNET)?)
    }

    /// Runs `work` inside the namespace on the calling thread, and comes back. `work` must not wait.
    pub(super) fn step_in<T>(&self, work: impl FnOnce() -> T) -> io::Result<T> {
        let home = File::open(OWN)?;
        setns(&self.file, CloneFlags::CLONE_NEWNET)?;
        let way_back = WayBack(home);
        let result = work();
        drop(way_back);
        Ok(result)
    }
}

impl AsFd for Namespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Takes the thread home, even when the work panics.
struct WayBack(File);

impl Drop for WayBack {
    fn drop(&mut self) {
        // SAFETY: the descriptor is open, and the call changes this thread alone.
        if unsafe { libc::setns(self.0.as_raw_fd(), libc::CLONE_NEWNET) } != 0 {
            // Sockets of other workloads would be made in the wrong place: nothing is safe to go on with.
            tracing::error!(error = %io::Error::last_os_error(), "cannot return to the own network namespace");
            std::process::abort();
        }
    }
}

/// Runs `work` in the namespace behind `fd` on a thread that ends with it.
fn visit<T: Send>(fd: BorrowedFd<'_>, work: impl FnOnce() -> T + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let visitor = thread::Builder::new().name("netns".into()).spawn_scoped(scope, || {
            setns(fd, CloneFlags::CLONE_NEWNET)?;
            Ok(work())
        })?;
        visitor.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
