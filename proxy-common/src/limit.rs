//! Counting connections against a limit: states of one connection's place, and what each step decides.
//!
//! A place is reserved by adding first and comparing after, so that no two racers both take the last one, and given
//! back by whoever exchanges the state for [`FREE`]: exactly once, whichever of the socket's ends comes first.

/// Nothing is held.
pub const FREE: u64 = 0;
/// A place is held; the kernel has not begun to connect.
pub const RESERVED: u64 = 1;
/// A place is held, and the socket's way to CLOSE will be seen.
pub const ARMED: u64 = 2;

/// Whether the place that an addition took is within the limit: `before` is what the addition found. If not, it must
/// be subtracted again and the connection is refused.
#[inline(always)]
#[must_use]
pub const fn admits(before: u64, max_connections: u32) -> bool {
    max_connections == crate::direct::Cluster::UNLIMITED || before < max_connections as u64
}

/// The state that follows when the kernel begins to connect; to be stored by comparing and exchanging with `state`.
/// What was never reserved, or was released meanwhile, stays free.
#[inline(always)]
#[must_use]
pub const fn armed(state: u64) -> u64 {
    if state == RESERVED { ARMED } else { state }
}

/// Whether whoever exchanged `taken` for [`FREE`] must subtract one from the account.
#[inline(always)]
#[must_use]
pub const fn releases(taken: u64) -> bool {
    taken != FREE
}
