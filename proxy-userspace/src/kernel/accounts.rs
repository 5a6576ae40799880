//! `ACCOUNTS`: what connections count; the daemon reads, and deletes what is over.

use std::{
    io,
    os::fd::{AsFd as _, AsRawFd as _},
    ptr,
    sync::atomic::{AtomicU64, AtomicUsize, Ordering},
};

use aya::maps::{HashMap as BpfHash, IterableMap as _, MapData, MapError};
use nix::libc;
use proxy_common::direct::{Account, AccountKey};

use super::error::Error;

const NAME: &str = "ACCOUNTS";
/// Accounts that one system call brings.
const BATCH: usize = 4096;
const BPF_MAP_LOOKUP_BATCH: libc::c_int = 24;

/// The map.
pub(super) struct Accounts {
    map: BpfHash<MapData, AccountKey, Account>,
    /// How often somebody has read all of it for the sake of the numbers.
    reads: AtomicU64,
    /// How many there were when somebody looked last.
    seen: AtomicUsize,
}

impl Accounts {
    pub(super) fn new(map: BpfHash<MapData, AccountKey, Account>) -> Self {
        Self { map, reads: AtomicU64::new(0), seen: AtomicUsize::new(0) }
    }

    /// Every account, for somebody who keeps the numbers.
    pub(super) fn read(&self) -> Result<Vec<(AccountKey, Account)>, Error> {
        let all = self.all()?;
        self.reads.fetch_add(1, Ordering::Relaxed);
        Ok(all)
    }

    pub(super) fn reads(&self) -> u64 {
        self.reads.load(Ordering::Relaxed)
    }

    /// How many accounts there were when they were read last.
    pub(super) fn seen(&self) -> usize {
        self.seen.load(Ordering::Relaxed)
    }

    /// Every account. One that is made or deleted meanwhile may be missing; none comes twice.
    pub(super) fn all(&self) -> Result<Vec<(AccountKey, Account)>, Error> {
        let mut all = Vec::new();
        let (mut place, mut room) = (None, BATCH);
        loop {
            let mut keys = vec![AccountKey::default(); room];
            let mut values = vec![Account::default(); room];
            let (count, next) = match self.batch(place, &mut keys, &mut values) {
                Ok(found) => found,
                // More of them share one bucket than there was room for.
                Err(error) if error.raw_os_error() == Some(libc::ENOSPC) && room < BATCH << 8 => {
                    room *= 4;
                    continue;
                }
                Err(error) => return Err(Error::file("reading the table", NAME)(error)),
            };
            all.extend(keys.into_iter().zip(values).take(count));
            match next {
                Some(_) => place = next,
                None => {
                    self.seen.store(all.len(), Ordering::Relaxed);
                    return Ok(all);
                }
            }
        }
    }

    /// The accounts from the bucket `place` on: how many, and where to go on.
    fn batch(
        &self,
        place: Option<u32>,
        keys: &mut [AccountKey],
        values: &mut [Account],
    ) -> io::Result<(usize, Option<u32>)> {
        let (from, mut next) = (place.unwrap_or_default(), 0_u32);
        let mut attributes = Batch {
            in_batch: place.map_or(ptr::null(), |_| &raw const from),
            out_batch: &raw mut next,
            keys: keys.as_mut_ptr(),
            values: values.as_mut_ptr(),
            count: u32::try_from(keys.len().min(values.len())).unwrap_or(u32::MAX),
            map: self.map.map().fd().as_fd().as_raw_fd().cast_unsigned(),
            flags: [0; 2],
        };
        // SAFETY: the kernel reads these attributes and writes at most `count` keys and values, a place and a count,
        // all of which live until the call returns.
        let status = unsafe {
            libc::syscall(libc::SYS_bpf, BPF_MAP_LOOKUP_BATCH, &raw mut attributes, size_of::<Batch>())
        };
        let error = (status < 0).then(io::Error::last_os_error);
        let count = attributes.count as usize;
        match error {
            None => Ok((count, Some(next))),
            Some(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok((count, None)),
            Some(error) => Err(error),
        }
    }

    /// Deletes an account; one that is not there is no error.
    pub(super) fn remove(&mut self, key: AccountKey) -> Result<(), Error> {
        match self.map.remove(&key) {
            Ok(()) | Err(MapError::KeyNotFound) => Ok(()),
            Err(source) => Err(Error::Map { name: NAME, source }),
        }
    }
}

/// The kernel's `union bpf_attr` for batches.
#[repr(C)]
struct Batch {
    in_batch: *const u32,
    out_batch: *mut u32,
    keys: *mut AccountKey,
    values: *mut Account,
    count: u32,
    map: u32,
    flags: [u64; 2],
}
