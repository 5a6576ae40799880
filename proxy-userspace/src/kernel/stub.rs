//! Stands in for the programs' socket storage until they bring it.

use std::{
    os::fd::{AsFd as _, BorrowedFd},
    sync::LazyLock,
};

use nix::sys::eventfd::EventFd;

use super::Kernel;

#[allow(clippy::unwrap_used, reason = "a stand-in")]
static NOTHING: LazyLock<EventFd> = LazyLock::new(|| EventFd::new().unwrap());

impl Kernel {
    /// Nothing yet.
    pub fn tracked_map_fd(&self) -> BorrowedFd<'_> {
        NOTHING.as_fd()
    }
}
