//! Pipes for splice(2), pooled per worker thread. A pipe in the pool is empty; a pipe that holds bytes belongs to
//! one direction of one connection, and is closed with it.

use std::{cell::RefCell, io, os::fd::OwnedFd};

use nix::fcntl::{FcntlArg, OFlag, fcntl};

/// What a pipe may hold. 64 KiB costs a quarter of the throughput, 1 MiB gains nothing.
pub(super) const CAPACITY: usize = 256 * 1024;
/// Pipes kept per thread for the next burst: more are only ever in use at once when many receivers are slow.
const POOLED: usize = 64;

thread_local! {
    static POOL: RefCell<Vec<Pipe>> = const { RefCell::new(Vec::new()) };
}

/// Both ends of a pipe.
pub(super) struct Pipe {
    pub(super) reader: OwnedFd,
    pub(super) writer: OwnedFd,
}

impl Pipe {
    /// An empty pipe.
    pub(super) fn take() -> io::Result<Self> {
        POOL.with_borrow_mut(Vec::pop).map_or_else(Self::new, Ok)
    }

    /// Back to the pool. Only for a pipe that was drained.
    pub(super) fn give_back(self) {
        POOL.with_borrow_mut(|pool| {
            if pool.len() < POOLED {
                pool.push(self);
            }
        });
    }

    fn new() -> io::Result<Self> {
        let (reader, writer) = nix::unistd::pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
        // Refused beyond the user's pipe budget: a smaller pipe is slower, not wrong.
        let _ = fcntl(&writer, FcntlArg::F_SETPIPE_SZ(CAPACITY as i32));
        Ok(Self { reader, writer })
    }
}
