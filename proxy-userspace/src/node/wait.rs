//! Waiting for a descriptor to have something to read, without reading it.

use std::{io, os::fd::OwnedFd};

use tokio::io::{Interest, unix::AsyncFd};

/// A descriptor that somebody waits for. Needs a tokio runtime.
#[derive(Debug)]
pub struct Readable(AsyncFd<OwnedFd>);

impl Readable {
    /// Watches `fd`, which may be a duplicate of the one that is read.
    ///
    /// # Errors
    /// When it cannot be waited for.
    pub fn watch(fd: OwnedFd) -> io::Result<Self> {
        // SAFETY: an `OwnedFd` always gives the same open descriptor, and closes it after it was let go here.
        let watched = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) };
        Ok(Self(watched.map_err(io::Error::from)?))
    }

    /// Waits until the descriptor becomes readable; once for each time that it does. Dropping the future loses nothing.
    pub async fn ready(&self) {
        match self.0.readable().await {
            Ok(mut ready) => ready.clear_ready(),
            // The runtime ends, and everybody who waits with it.
            Err(_) => std::future::pending().await,
        }
    }
}
