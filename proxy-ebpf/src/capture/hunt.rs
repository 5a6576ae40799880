//! The search for an endpoint that a connect can have: one step of it is a function that the kernel calls in a loop, so
//! that the verifier follows it once, not once for each way that leads to it.

use core::ffi::c_void;

use aya_ebpf::{
    cty::c_long,
    helpers::generated::{bpf_get_prandom_u32, bpf_loop},
};
use proxy_common::{
    direct::{AccountKey, Cluster, Endpoint, LimitScope},
    limit,
    pick::{self, Search},
};
use proxy_ebpf::is_v4_mapped;

use crate::{books, maps};

/// What a step returns.
const GO_ON: c_long = 0;
const STOP: c_long = 1;

/// The search, and what its steps need to know. Words only: what the verifier remembers of them is little.
pub(crate) struct Hunt {
    search: Search,
    base: u32,
    cluster: u32,
    netns_cookie: u64,
    /// `maxConnections` where it is each endpoint's own.
    most: u32,
    panic: u32,
    v4_only: u32,
    /// Places are taken by the search itself: nobody else gets in between.
    takes: u32,
    /// One was passed over because its limit is reached.
    full: u32,
}

impl Hunt {
    #[inline(always)]
    pub(crate) fn new(number: u32, cluster: &Cluster, seed: u32, netns_cookie: u64, v4_only: bool) -> Self {
        let each = cluster.limit_scope == LimitScope::Endpoint as u8;
        Self {
            search: Search::new(cluster.balancing, cluster.count, seed),
            base: cluster.base,
            cluster: number,
            netns_cookie,
            most: if each { cluster.max_connections } else { Cluster::UNLIMITED },
            panic: u32::from(cluster.flags & Cluster::PANIC != 0),
            v4_only: u32::from(v4_only),
            takes: 0,
            full: 0,
        }
    }

    /// Whom this connect goes to. Where limits are each endpoint's own and `counted`, it has its place already.
    #[inline(always)]
    pub(crate) fn run(&mut self, counted: bool) -> Option<u32> {
        self.go_round(draw, pick::DRAWS);
        let limited = self.most != Cluster::UNLIMITED;
        if let Some(found) = self.search.found(|endpoint| self.open(endpoint))
            && (!limited || self.is_admitted(found, counted))
        {
            return Some(found);
        }
        self.search.again();
        self.takes = u32::from(limited && counted);
        self.go_round(look, pick::SCAN);
        self.search.found(|_| 0)
    }

    /// Whether somebody could have served it, were it not for limits.
    #[inline(always)]
    pub(crate) fn met_limits(&self) -> bool {
        self.full != 0
    }

    #[inline(always)]
    fn go_round(&mut self, step: unsafe extern "C" fn(u64, *mut c_void) -> c_long, times: u32) {
        // SAFETY: the step gets this very hunt, which outlives the call.
        unsafe { bpf_loop(times, step as *mut c_void, (&raw mut *self).cast(), 0) };
    }

    #[inline(always)]
    fn key(&self, endpoint: u32) -> AccountKey {
        AccountKey { netns_cookie: self.netns_cookie, cluster: self.cluster, endpoint }
    }

    #[inline(always)]
    fn open(&self, endpoint: u32) -> u64 {
        maps::known_account(&self.key(endpoint)).map_or(0, books::active)
    }

    #[inline(always)]
    fn is_usable(&mut self, number: u32) -> bool {
        let Some(found) = maps::endpoint(number) else { return false };
        if (found.ejected != 0 && self.panic == 0) || !self.reaches(found) {
            return false;
        }
        self.most == Cluster::UNLIMITED || self.is_admitted(number, self.takes != 0)
    }

    #[inline(always)]
    fn reaches(&self, endpoint: &Endpoint) -> bool {
        self.v4_only == 0 || is_v4_mapped(&endpoint.address)
    }

    /// Whether the endpoint has room for one more, which is in there then if it `takes`.
    #[inline(always)]
    fn is_admitted(&mut self, endpoint: u32, takes: bool) -> bool {
        let admitted = if takes {
            // No room in the table: nobody can be counted, so nobody is let in.
            maps::account(&self.key(endpoint)).is_some_and(|account| books::reserve(account, self.most))
        } else {
            limit::admits(self.open(endpoint), self.most)
        };
        if !admitted {
            self.full = 1;
        }
        admitted
    }
}

#[inline(never)]
unsafe extern "C" fn draw(attempt: u64, hunt: *mut c_void) -> c_long {
    // SAFETY: `run` passes itself, and does nothing else meanwhile.
    let hunt = unsafe { &mut *hunt.cast::<Hunt>() };
    let base = hunt.base;
    let mut search = hunt.search;
    let done = search.draw(
        attempt as u32,
        // SAFETY: no argument.
        || unsafe { bpf_get_prandom_u32() },
        |place| maps::slot(base + place),
        |number| hunt.is_usable(number),
    );
    hunt.search = search;
    if done { STOP } else { GO_ON }
}

#[inline(never)]
unsafe extern "C" fn look(seen: u64, hunt: *mut c_void) -> c_long {
    // SAFETY: `run` passes itself, and does nothing else meanwhile.
    let hunt = unsafe { &mut *hunt.cast::<Hunt>() };
    let base = hunt.base;
    let mut search = hunt.search;
    let done = search.look(seen as u32, |place| maps::slot(base + place), |number| hunt.is_usable(number));
    hunt.search = search;
    if done { STOP } else { GO_ON }
}
