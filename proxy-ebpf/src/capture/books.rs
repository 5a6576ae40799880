//! The accounts of one connection: a place taken, given back exactly once, and what became of it.

use proxy_common::{
    direct::{Account, AccountKey, LimitScope, Tracked},
    limit,
};

use crate::{atomic::Number, maps};

/// What is added to take one away.
const MINUS_ONE: u64 = u64::MAX;

/// The counter `$field` of an account, on which other CPUs are at work too.
macro_rules! cell {
    ($account:expr, $field:ident) => {{
        let account: *mut proxy_common::direct::Account = $account;
        // SAFETY: an aligned u64 of a map's element, which lives as long as this program runs.
        unsafe { $crate::atomic::Number::at(core::ptr::addr_of_mut!((*account).$field)) }
    }};
}

/// The account that the limit counts on.
#[inline(always)]
pub(crate) fn limit_key(netns_cookie: u64, cluster: u32, endpoint: u32, scope: u8) -> AccountKey {
    let node = scope == LimitScope::Node as u8;
    let each = scope == LimitScope::Endpoint as u8;
    AccountKey {
        netns_cookie: if node { 0 } else { netns_cookie },
        cluster,
        endpoint: if each { endpoint } else { 0 },
    }
}

/// Takes a place; false: the limit is reached, and nothing was taken.
#[inline(always)]
pub(crate) fn reserve(account: *mut Account, max_connections: u32) -> bool {
    let active = cell!(account, active);
    if limit::admits(active.add(1), max_connections) {
        return true;
    }
    active.add(MINUS_ONE);
    false
}

/// Takes a place whatever the limit says.
#[inline(always)]
pub(crate) fn take(account: *mut Account) {
    cell!(account, active).add(1);
}

/// Gives a place back.
#[inline(always)]
pub(crate) fn release(account: *mut Account) {
    cell!(account, active).add(MINUS_ONE);
}

/// The places that are taken.
#[inline(always)]
pub(crate) fn active(account: *mut Account) -> u64 {
    cell!(account, active).get()
}

/// The next place of the round robin.
#[inline(always)]
pub(crate) fn turn(account: *mut Account) -> u32 {
    cell!(account, cursor).add(1) as u32
}

/// Counts one on the field of the workload's account for a cluster.
macro_rules! count_on {
    ($key:expr, $field:ident) => {
        if let Some(account) = $crate::maps::account($key) {
            $crate::books::cell!(account, $field).add(1);
        }
    };
}
pub(crate) use {cell, count_on};

/// The state of a connection.
#[inline(always)]
pub(crate) fn state(tracked: &mut Tracked) -> &Number {
    // SAFETY: an aligned u64 that is only ever accessed like this once the storage is published.
    unsafe { Number::at(&raw mut tracked.state) }
}

/// The account of the connection's endpoint.
#[inline(always)]
pub(crate) fn endpoint_key(tracked: &Tracked) -> AccountKey {
    let Tracked { netns_cookie, cluster, endpoint, .. } = *tracked;
    AccountKey { netns_cookie, cluster, endpoint }
}

/// Gives back what the connection holds, unless somebody has; the state that it was in.
#[inline(always)]
pub(crate) fn let_go(tracked: &mut Tracked) -> u64 {
    let taken = state(tracked).exchange(limit::FREE);
    if limit::releases(taken) {
        let key = endpoint_key(tracked);
        let limit = limit_key(key.netns_cookie, key.cluster, key.endpoint, tracked.limit_scope);
        if let Some(account) = maps::known_account(&key) {
            release(account);
        }
        if limit != key
            && let Some(account) = maps::known_account(&limit)
        {
            release(account);
        }
    }
    taken
}

/// A failure of the endpoint; how many there are in a row now.
#[inline(always)]
pub(crate) fn lengthen_run(tracked: &Tracked) -> u32 {
    match maps::account(&AccountKey { netns_cookie: 0, ..endpoint_key(tracked) }) {
        Some(account) => (cell!(account, run).add(1) + 1) as u32,
        None => 0,
    }
}

/// A success of the endpoint.
#[inline(always)]
pub(crate) fn end_run(tracked: &Tracked) {
    if let Some(account) = maps::known_account(&AccountKey { netns_cookie: 0, ..endpoint_key(tracked) }) {
        let run = cell!(account, run);
        if run.get() != 0 {
            run.exchange(0);
        }
    }
}
