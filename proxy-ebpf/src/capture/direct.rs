//! The verdict *direct*: an arm, a place within the limit, an endpoint, and the call goes there instead.

use core::cell::Cell;

use proxy_common::{
    Counter, Destination,
    direct::{Account, AccountKey, Balancing, Cluster, EventCause, LimitScope, Listener, Tracked},
    limit, pick,
};

use crate::{
    atomic::swap,
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
    if !deferred && !enter(group, group_limit(cluster)) {
        add!(group, overflowed, 1);
        books::refused(tracked, Counter::Overflowed, EventCause::Overflow);
        return Outcome::Refused;
    }
    if cluster.balancing == Balancing::OriginalDestination as u8 {
        // The workload's account of the cluster is all there is; a group of all workloads is another one.
        if cluster.limit_scope == LimitScope::Node as u8 && !enter_own(tracked, deferred, Cluster::UNLIMITED) {
            books::leave(&books::group(netns_cookie, number, cluster.limit_scope));
            return Outcome::Undecided(Counter::TableFailed);
        }
        settle_down(connect, tracked, cluster, deferred);
        return Outcome::Original;
    }
    match choose(tracked, cluster, group, deferred, source) {
        Ok(()) => {
            settle_down(connect, tracked, cluster, deferred);
            tracked.flags |= Tracked::REWRITTEN;
            Outcome::Endpoint(tracked.endpoint_address, tracked.endpoint_port)
        }
        Err(counter) => {
            if !deferred {
                books::leave(&books::group(netns_cookie, number, cluster.limit_scope));
            }
            give_up(tracked, group, counter)
        }
    }
}

/// The cluster that one of the listener's arms gives.
#[inline(always)]
fn arm(listener: &Listener) -> Option<u32> {
    if listener.count == 1 {
        return maps::slot(listener.base).map(|slot| slot.own);
    }
    let place = pick::index(random(), listener.count);
    maps::slot(listener.base.wrapping_add(place)).map(|slot| pick::column(slot, random()))
}

/// What the socket remembers from here on.
#[inline(always)]
fn begin(tracked: &mut Tracked, netns_cookie: u64, number: u32, cluster: &Cluster, destination: &Destination) {
    tracked.netns_cookie = netns_cookie;
    tracked.started_ns = maps::now_ns();
    tracked.cluster = number;
    tracked.endpoint = 0;
    tracked.flags = if cluster.flags & Cluster::OUTLIER != 0 { Tracked::OUTLIER } else { 0 };
    tracked.original = destination.address;
    tracked.original_port = destination.port;
    tracked.limit_scope = cluster.limit_scope;
}

/// The limit of the cluster's connections together; none where each endpoint has its own.
#[inline(always)]
fn group_limit(cluster: &Cluster) -> u32 {
    if cluster.limit_scope == LimitScope::Endpoint as u8 { Cluster::UNLIMITED } else { cluster.max_connections }
}

/// Takes a place, unless there is none.
#[inline(always)]
fn enter(account: *mut Account, max_connections: u32) -> bool {
    let before = add!(account, active, 1);
    let admitted = limit::admits(before, max_connections);
    if !admitted {
        add!(account, active, books::MINUS_ONE);
    }
    admitted
}

/// Takes a place in the connection's own account.
#[inline(always)]
fn enter_own(tracked: &Tracked, deferred: bool, max_connections: u32) -> bool {
    maps::account(&books::own(tracked)).is_some_and(|own| deferred || enter(own, max_connections))
}

/// Draws the endpoint and takes a place in its account.
#[inline(always)]
fn choose(
    tracked: &mut Tracked,
    cluster: &Cluster,
    group: *mut Account,
    deferred: bool,
    source: impl Fn() -> [u8; 16],
) -> Result<(), Counter> {
    let (netns_cookie, number) = (tracked.netns_cookie, tracked.cluster);
    let own = |endpoint| AccountKey { netns_cookie, cluster: number, endpoint };
    let active = |endpoint| {
        // SAFETY: a map's value, read while others add to it, whole.
        maps::known_account(&own(endpoint)).map_or(0, |account| unsafe { (&raw const (*account).active).read_volatile() })
    };
    let narrow = cluster.limit_scope == LimitScope::Endpoint as u8 && cluster.max_connections != Cluster::UNLIMITED;
    let is_full = Cell::new(false);
    let usable = |endpoint| {
        if !maps::endpoint(endpoint).is_some_and(|one| one.ejected == 0) {
            return false;
        }
        let full = narrow && !limit::admits(active(endpoint), cluster.max_connections);
        if full {
            is_full.set(true);
        }
        !full
    };
    let hash_or_cursor = if cluster.balancing == Balancing::RoundRobin as u8 {
        add!(group, cursor, 1) as u32
    } else if cluster.balancing == Balancing::SourceHash as u8 {
        pick::source_hash(&source())
    } else {
        0
    };
    let slot = |place: u32| maps::slot(cluster.base.wrapping_add(place));
    let panic = cluster.flags & Cluster::PANIC != 0 && !narrow;
    let nobody = || if is_full.get() { Counter::Overflowed } else { Counter::Unhealthy };
    if cluster.count == 0 {
        return Err(Counter::Unhealthy);
    }
    let drawn = pick::endpoint(
        cluster.balancing,
        cluster.count,
        panic,
        random,
        slot,
        usable,
        active,
        hash_or_cursor,
    );
    let drawn = drawn.ok_or_else(nobody)?;
    let endpoint = maps::endpoint(drawn).ok_or(Counter::TableFailed)?;
    tracked.endpoint = drawn;
    tracked.endpoint_address = endpoint.address;
    tracked.endpoint_port = endpoint.port;
    let max = if narrow { cluster.max_connections } else { Cluster::UNLIMITED };
    let account = maps::account(&books::own(tracked)).ok_or(Counter::TableFailed)?;
    if deferred || enter(account, max) { Ok(()) } else { Err(Counter::Overflowed) }
}

/// Holds the places that were taken, and makes the socket what the cluster wants.
#[inline(always)]
fn settle_down(connect: &Connect, tracked: &mut Tracked, cluster: &Cluster, deferred: bool) {
    if deferred {
        tracked.flags |= Tracked::DEFERRED;
    } else {
        // SAFETY: the socket's own storage; its state is only ever exchanged.
        unsafe { swap(&raw mut tracked.state, limit::RESERVED) };
    }
    if cluster.connect_timeout_ms != 0
        && let Some(before) = connect.set_connect_timeout(cluster.connect_timeout_ms)
    {
        tracked.user_timeout_ms = before;
        tracked.flags |= Tracked::TIMEOUT_SET;
    }
    if cluster.flags & Cluster::KEEPALIVE != 0 {
        connect.set_keepalive(cluster);
    }
}

/// Nobody gets the connection.
#[inline(always)]
fn give_up(tracked: &Tracked, group: *mut Account, counter: Counter) -> Outcome {
    match counter {
        Counter::Overflowed => {
            add!(group, overflowed, 1);
            books::refused(tracked, counter, EventCause::Overflow);
        }
        Counter::Unhealthy => {
            add!(group, unhealthy, 1);
            books::refused(tracked, counter, EventCause::NoEndpoint);
        }
        other => return Outcome::Undecided(other),
    }
    Outcome::Refused
}

/// What an earlier connect() on the same socket left: its place, its timeout, its other name.
#[inline(always)]
pub(crate) fn settle(connect: &Connect) {
    let memory = connect.tracked();
    if memory.is_null() {
        return;
    }
    books::release(memory);
    // SAFETY: not null; the storage of this call's socket.
    let tracked = unsafe { &mut *memory };
    if tracked.flags & Tracked::TIMEOUT_SET != 0 {
        connect.restore_timeout(tracked.user_timeout_ms);
    }
    tracked.flags = 0;
}

/// The places of a connection that was not counted when it was routed.
#[inline(always)]
pub(crate) fn reserve_late(tracked: &mut Tracked) {
    tracked.flags &= !Tracked::DEFERRED;
    let group = books::group(tracked.netns_cookie, tracked.cluster, tracked.limit_scope);
    let both = tracked.endpoint != 0 || tracked.limit_scope == LimitScope::Node as u8;
    if let Some(account) = maps::known_account(&books::own(tracked)) {
        add!(account, active, 1);
    }
    if both && let Some(account) = maps::known_account(&group) {
        add!(account, active, 1);
    }
    // SAFETY: the socket's own storage; its state is only ever exchanged.
    unsafe { swap(&raw mut tracked.state, limit::RESERVED) };
}
