//! Stands in for the programs' ring buffer and socket storage until they bring them.

use std::{
    os::fd::{AsFd as _, BorrowedFd},
    sync::LazyLock,
};

use nix::sys::eventfd::EventFd;
use proxy_common::direct::Event;

use super::{Error, Kernel};

#[allow(clippy::unwrap_used, reason = "a stand-in")]
static NOTHING: LazyLock<EventFd> = LazyLock::new(|| EventFd::new().unwrap());

impl Kernel {
    /// Nothing yet.
    pub fn sync_health(&mut self) -> Result<usize, Error> {
        Ok(0)
    }

    /// Nothing yet.
    pub fn events_fd(&self) -> BorrowedFd<'_> {
        NOTHING.as_fd()
    }

    /// Nothing yet.
    pub fn events(&mut self, _each: impl FnMut(&Event)) {}

    /// Nothing yet.
    pub fn tracked_map_fd(&self) -> BorrowedFd<'_> {
        NOTHING.as_fd()
    }
}
