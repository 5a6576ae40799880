//! `EVENTS`: what the programs tell about single connections.

use std::os::fd::{AsRawFd as _, BorrowedFd};

use aya::maps::{MapData, RingBuf};
use proxy_common::direct::Event;

/// The ring buffer, read from the place where it was left.
pub(super) struct Events {
    ring: RingBuf<MapData>,
}

impl Events {
    pub(super) fn new(ring: RingBuf<MapData>) -> Self {
        Self { ring }
    }

    /// Readable when there is something to read.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the ring buffer's descriptor, which is open as long as the ring buffer is borrowed.
        unsafe { BorrowedFd::borrow_raw(self.ring.as_raw_fd()) }
    }

    /// Everything that has been told since.
    pub(super) fn each(&mut self, mut each: impl FnMut(&Event)) {
        while let Some(record) = self.ring.next() {
            // Records of another length are another version's.
            if record.len() == size_of::<Event>() {
                // SAFETY: as long as an event, of which every bit pattern is valid; records are aligned to 8 bytes,
                // and a copy needs no alignment at all.
                let event = unsafe { record.as_ptr().cast::<Event>().read_unaligned() };
                each(&event);
            }
        }
    }
}
