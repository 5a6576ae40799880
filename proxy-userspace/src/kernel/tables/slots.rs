//! The array `SLOTS` as memory: written without a system call.
//!
//! Slot 0 belongs to no region; it remembers which numbers were given away, so that a daemon that takes the maps over
//! gives none twice.

use std::{
    io,
    os::fd::{AsFd as _, AsRawFd as _},
    ptr::{self, NonNull},
};

use aya::maps::{Array, IterableMap as _, MapData};
use nix::libc;
use proxy_common::direct::Slot;

use super::{super::error::Error, regions::Region};

const NAME: &str = "SLOTS";

/// The mapped array.
pub(super) struct Slots {
    first: NonNull<Slot>,
    size: u32,
    _map: Array<MapData, Slot>,
}

// SAFETY: the memory is shared with the kernel and stays mapped as long as this lives; it belongs to no thread.
unsafe impl Send for Slots {}

/// What slot 0 says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Given {
    /// Slots from here on were never used.
    pub(super) touched: u32,
    /// The last number of a cluster.
    pub(super) clusters: u32,
    /// The last number of an endpoint.
    pub(super) endpoints: u32,
}

impl Slots {
    /// Maps the array.
    pub(super) fn map(map: Array<MapData, Slot>) -> Result<Self, Error> {
        let size = map.len();
        let failed = |error| Error::file("mapping the table", NAME)(error);
        // SAFETY: a new mapping, anywhere, of a descriptor that is open; nothing else is touched.
        let address = unsafe {
            libc::mmap(
                ptr::null_mut(),
                size as usize * size_of::<Slot>(),
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                map.map().fd().as_fd().as_raw_fd(),
                0,
            )
        };
        if address == libc::MAP_FAILED {
            return Err(failed(io::Error::last_os_error()));
        }
        let first =
            NonNull::new(address.cast()).ok_or_else(|| failed(io::Error::from_raw_os_error(libc::EFAULT)))?;
        Ok(Self { first, size, _map: map })
    }

    pub(super) fn size(&self) -> u32 {
        self.size
    }

    pub(super) fn given(&self) -> Given {
        let Slot { threshold: touched, own: clusters, alias: endpoints, .. } = self.get(0);
        Given { touched, clusters, endpoints }
    }

    pub(super) fn set_given(&mut self, given: Given) {
        let Given { touched, clusters, endpoints } = given;
        self.set(0, Slot { threshold: touched, own: clusters, alias: endpoints, padding: 0 });
    }

    /// Fills a region that nobody reads yet.
    pub(super) fn write(&mut self, region: Region, slots: &[Slot]) {
        for (at, slot) in (region.base..).zip(slots) {
            self.set(at, *slot);
        }
        let end = region.base + region.count;
        let given = self.given();
        if end > given.touched {
            self.set_given(Given { touched: end, ..given });
        }
    }

    /// Whether `region` holds just these slots.
    pub(super) fn holds(&self, region: Region, slots: &[Slot]) -> bool {
        region.count as usize == slots.len()
            && (region.base..).zip(slots).all(|(at, slot)| at < self.size && self.get(at) == *slot)
    }

    /// The slot at `at`, if there is one.
    pub(super) fn read(&self, at: u32) -> Option<Slot> {
        (at < self.size).then(|| self.get(at))
    }

    fn get(&self, at: u32) -> Slot {
        assert!(at < self.size);
        // SAFETY: inside the mapping; programs only read, and we are the only writer.
        unsafe { self.first.add(at as usize).read_volatile() }
    }

    fn set(&mut self, at: u32, slot: Slot) {
        assert!(at < self.size);
        // SAFETY: inside the mapping, which is writable; what programs read is published by a later system call.
        unsafe { self.first.add(at as usize).write_volatile(slot) }
    }
}

impl Drop for Slots {
    fn drop(&mut self) {
        // SAFETY: what `map` got, of that length, and nobody has a reference into it.
        unsafe { libc::munmap(self.first.as_ptr().cast(), self.size as usize * size_of::<Slot>()) };
    }
}
