//! The verdict *direct*: an arm, a place within the limit, an endpoint, and the call goes there instead.

use core::cell::Cell;

use proxy_common::{
    Counter, Destination, Workload,
    direct::{AccountKey, Balancing, Cluster, EventCause, LimitScope, Listener, Tracked},
    limit, pick,
};

use crate::{
    atomic::{fetch_add, swap},
    books::{self, add},
    connect::{Connect, random},
    maps,
};

/// What a connection to a direct listener meets.
pub(crate) enum Outcome {
    /// It goes where it wanted to go, counted.
    Original,
    /// It goes to this endpoint.
    Endpoint([u8; 16], [u8; 2]),
    /// `ECONNREFUSED`, counted.
    Refused,
    /// The tables do not say, for this reason; the failure policy decides.
    Undecided(Counter),
}

/// Draws an endpoint for one connection and opens its books. `source` is the address that it will leave from.
#[inline(always)]
pub(crate) fn route(
    connect: &Connect,
    netns_cookie: u64,
    listener: &Listener,
    destination: &Destination,
    source: impl Fn() -> [u8; 16],
) -> Outcome {
    let Some(number) = arm(listener) else { return Outcome::Undecided(Counter::TableFailed) };
    let Some(cluster) = maps::cluster(number) else { return Outcome::Undecided(Counter::TableFailed) };
    let memory = connect.track();
    if memory.is_null() {
        return Outcome::Undecided(Counter::Untracked);
    }
    // SAFETY: not null, and nobody else looks at the storage of a socket whose connect() has not begun.
    let tracked = unsafe { &mut *memory };
    begin(tracked, netns_cookie, number, cluster, destination);
    let Some(group) = maps::account(&books::group(netns_cookie, number, cluster.limit_scope)) else {
        return Outcome::Undecided(Counter::TableFailed);
    };
    if cluster.flags & Cluster::MISSING != 0 {
        add!(group, missing, 1);
        books::refused(tracked, Counter::Missing, EventCause::NoCluster);
        return Outcome::Refused;
    }
    // A part of an MPTCP connection that fails before it begins is never let go of: it is counted when it begins.
    let deferred = connect.is_mptcp();
    let limited = cluster.limit_scope != LimitScope::Endpoint as u8;
    if !deferred && limited && !enter(group, cluster.max_connections) {
        add!(group, overflowed, 1);
        books::refused(tracked, Counter::Overflowed, EventCause::Overflow);
        return Outcome::Refused;
    }
    todo(connect, tracked, cluster, group, deferred, source)
}
