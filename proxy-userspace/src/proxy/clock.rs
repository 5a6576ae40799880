//! The one clock that connections are measured by and that outlier detection goes by.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// CLOCK_MONOTONIC: comparable with the kernel's stamps in events, and the `now` of everybody who reports to or sweeps
/// a cluster's state.
#[must_use]
pub fn now() -> Duration {
    // Fails only for a clock that does not exist.
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(Duration::ZERO, Duration::from)
}
