//! `LEASE`: until when direct listeners may be used without a word from the daemon.

use std::time::Duration;

use aya::maps::{Array, MapData};
use nix::time::{ClockId, clock_gettime};

use super::error::Error;

const NAME: &str = "LEASE";
/// What the programs take as "for ever".
const FOR_EVER: u64 = 0;

/// The map, and how long one renewal lasts.
pub(super) struct Lease {
    map: Array<MapData, u64>,
    length: Duration,
}

impl Lease {
    /// A `length` of 0 never ends.
    pub(super) fn new(map: Array<MapData, u64>, length: Duration) -> Self {
        Self { map, length }
    }

    /// From now on for one length.
    pub(super) fn renew(&mut self) -> Result<(), Error> {
        let until = match self.length.is_zero() {
            true => FOR_EVER,
            // The programs' clock.
            false => {
                let now = clock_gettime(ClockId::CLOCK_MONOTONIC)
                    .map_err(|error| Error::file("reading the clock for the table", NAME)(error.into()))?;
                let until = Duration::from(now).saturating_add(self.length);
                u64::try_from(until.as_nanos()).unwrap_or(u64::MAX)
            }
        };
        self.map.set(0, until, 0).map_err(|source| Error::Map { name: NAME, source })
    }
}
