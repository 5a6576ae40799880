//! The books of one direct connection: whose place it holds, and what is counted when.

use proxy_common::{
    Counter,
    direct::{AccountKey, Event, EventCause, EventKind, LimitScope, Tracked},
    limit,
};

use crate::{atomic::swap, maps};

/// What is added to take one away.
pub(crate) const MINUS_ONE: u64 = u64::MAX;

/// Adds `value` to one field of an account.
macro_rules! add {
    ($account:expr, $field:ident, $value:expr) => {{
        let account: *mut proxy_common::direct::Account = $account;
        // SAFETY: the account is a map's value, which lives until this program ends, and is only ever added to.
        unsafe { $crate::atomic::fetch_add(&raw mut (*account).$field, $value) }
    }};
}
pub(crate) use add;

/// The account that holds the round robin's place and, unless endpoints have limits of their own, the limit's count.
#[inline(always)]
pub(crate) fn group(netns_cookie: u64, cluster: u32, limit_scope: u8) -> AccountKey {
    let everybody = limit_scope == LimitScope::Node as u8;
    AccountKey { netns_cookie: if everybody { 0 } else { netns_cookie }, cluster, endpoint: 0 }
}

/// The account of a workload's connections to one endpoint.
#[inline(always)]
pub(crate) fn own(tracked: &Tracked) -> AccountKey {
    AccountKey { netns_cookie: tracked.netns_cookie, cluster: tracked.cluster, endpoint: tracked.endpoint }
}

/// Gives a connection's place back, if it holds one: of all who come here for it only the first does.
#[inline(always)]
pub(crate) fn release(tracked: *mut Tracked) {
    // SAFETY: a socket's storage lives until this program ends; its state is only ever exchanged.
    let (taken, tracked) = unsafe { (swap(&raw mut (*tracked).state, limit::FREE), &*tracked) };
    if !limit::releases(taken) {
        return;
    }
    leave(&own(tracked));
    if tracked.endpoint != 0 || tracked.limit_scope == LimitScope::Node as u8 {
        leave(&group(tracked.netns_cookie, tracked.cluster, tracked.limit_scope));
    }
}

/// One connection fewer.
#[inline(always)]
pub(crate) fn leave(key: &AccountKey) {
    if let Some(account) = maps::known_account(key) {
        add!(account, active, MINUS_ONE);
    }
}

/// Whether this connection is among those that get a line in the access log.
#[inline(always)]
pub(crate) fn is_logged() -> bool {
    let share = maps::direct_log();
    share != 0 && (share == u32::MAX || crate::connect::random() < share)
}

/// A connection was turned away before it had an endpoint.
#[inline(always)]
pub(crate) fn refused(tracked: &Tracked, counter: Counter, cause: EventCause) {
    maps::count(counter);
    if is_logged() {
        maps::record(&event(tracked, EventKind::Refused, cause), false);
    }
}

/// A record as far as the socket's own memory fills it.
#[inline(always)]
pub(crate) fn event(tracked: &Tracked, kind: EventKind, cause: EventCause) -> Event {
    let now = maps::now_ns();
    Event {
        kind: kind as u32,
        cause: cause as u32,
        netns_cookie: tracked.netns_cookie,
        at_ns: now,
        duration_ns: now.wrapping_sub(tracked.started_ns),
        received: 0,
        sent: 0,
        cluster: tracked.cluster,
        endpoint: tracked.endpoint,
        rtt_us: 0,
        run: 0,
        source: [0; 16],
        original: tracked.original,
        source_port: [0; 2],
        original_port: tracked.original_port,
        logged: 1,
        padding: [0; 3],
    }
}
