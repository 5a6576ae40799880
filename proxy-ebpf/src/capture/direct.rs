//! The verdict *direct*: a cluster by the listener's weights, a place within its limit, an endpoint by its balancing,
//! and the kernel connects there.

use aya_ebpf::helpers::generated::{bpf_get_prandom_u32, bpf_ktime_get_ns};
use proxy_common::{
    Counter, Destination, Workload,
    direct::{
        Account, AccountKey, Balancing, Cluster, Event, EventCause, EventKind, LimitScope, Listener, Tracked,
    },
    limit, pick,
};
use proxy_ebpf::is_v4_mapped;

use crate::{
    books::{self, count_on},
    connect::Connect,
    hunt::Hunt,
    maps, records,
};

/// What `connect` answers.
pub(crate) enum Outcome {
    /// On its way to an endpoint.
    Routed,
    /// Refused on purpose, and counted.
    Refused,
    /// Not by us: the failure policy decides.
    Failed(Counter),
}

/// One connect to a direct listener.
pub(crate) struct Dial<'a> {
    pub(crate) connect: &'a Connect,
    pub(crate) netns_cookie: u64,
    pub(crate) workload: &'static Workload,
    pub(crate) destination: &'a Destination,
    /// An IPv4 socket, which reaches IPv4 endpoints only.
    pub(crate) v4_only: bool,
}

/// What a connect goes to.
struct Chosen {
    number: u32,
    cluster: &'static Cluster,
    /// 0: the original destination.
    endpoint: u32,
    to: Destination,
}

impl Dial<'_> {
    /// Routes the connect.
    #[inline(always)]
    pub(crate) fn route(&self, listener: &Listener) -> Outcome {
        // SAFETY: no argument.
        let now = unsafe { bpf_ktime_get_ns() };
        let lease = maps::lease();
        if lease != 0 && lease < now {
            return Outcome::Failed(Counter::LeaseExpired);
        }
        let Some(number) = arm(listener) else { return Outcome::Failed(Counter::TableFailed) };
        let Some(cluster) = maps::cluster(number) else { return Outcome::Failed(Counter::TableFailed) };
        if cluster.flags & Cluster::MISSING != 0 {
            count_on!(&self.key(number, 0), missing);
            return self.refused(number, now, Counter::Missing, EventCause::NoCluster);
        }
        let is_late = self.connect.is_mptcp();
        let tracked = self.connect.track();
        if tracked.is_none() && cluster.max_connections != Cluster::UNLIMITED {
            return Outcome::Failed(Counter::Untracked);
        }
        let counted = tracked.is_some() && !is_late;
        // Whose count the limit is on; per endpoint it is known later.
        let each = cluster.limit_scope == LimitScope::Endpoint as u8;
        let key = books::limit_key(self.netns_cookie, number, 0, cluster.limit_scope);
        let Some(total) = maps::account(&key) else { return Outcome::Failed(Counter::TableFailed) };
        if !each && !admitted(total, cluster, counted) {
            return self.overflowed(number, now);
        }
        let outcome = match self.choose(number, cluster, total, counted) {
            Ok(chosen) => self.go(&chosen, tracked, total, is_late, now),
            Err(EventCause::Overflow) => self.overflowed(number, now),
            Err(_) => {
                count_on!(&self.key(number, 0), unhealthy);
                self.refused(number, now, Counter::Unhealthy, EventCause::NoEndpoint)
            }
        };
        if counted && !each && !matches!(outcome, Outcome::Routed) {
            books::release(total);
        }
        outcome
    }

    #[inline(always)]
    fn key(&self, cluster: u32, endpoint: u32) -> AccountKey {
        AccountKey { netns_cookie: self.netns_cookie, cluster, endpoint }
    }

    /// An endpoint of the cluster that this socket can reach. Where limits are each endpoint's own and it is `counted`,
    /// it has its place there.
    #[inline(always)]
    fn choose(
        &self,
        number: u32,
        cluster: &'static Cluster,
        total: *mut Account,
        counted: bool,
    ) -> Result<Chosen, EventCause> {
        if cluster.balancing == Balancing::OriginalDestination as u8 {
            if cluster.limit_scope == LimitScope::Endpoint as u8 && !admitted(total, cluster, counted) {
                return Err(EventCause::Overflow);
            }
            return Ok(Chosen { number, cluster, endpoint: 0, to: *self.destination });
        }
        let seed = if cluster.balancing == Balancing::RoundRobin as u8 {
            books::turn(total)
        } else if cluster.balancing == Balancing::SourceHash as u8 {
            let v4 = is_v4_mapped(&self.destination.address);
            let own = if v4 { &self.workload.source4 } else { &self.workload.source6 };
            pick::source_hash(&self.connect.bound_source(self.v4_only).unwrap_or(*own))
        } else {
            0
        };
        let mut hunt = Hunt::new(number, cluster, seed, self.netns_cookie, self.v4_only);
        let Some(endpoint) = hunt.run(counted) else {
            return Err(if hunt.met_limits() { EventCause::Overflow } else { EventCause::NoEndpoint });
        };
        let Some(found) = maps::endpoint(endpoint) else { return Err(EventCause::NoEndpoint) };
        let to = Destination { address: found.address, port: found.port };
        Ok(Chosen { number, cluster, endpoint, to })
    }

    /// Counts the connection, remembers it, and sends the kernel there.
    #[inline(always)]
    fn go(
        &self,
        chosen: &Chosen,
        tracked: Option<&'static mut Tracked>,
        total: *mut Account,
        is_late: bool,
        now: u64,
    ) -> Outcome {
        let Chosen { cluster, endpoint, .. } = *chosen;
        if let Some(tracked) = tracked {
            let Some(account) = self.account(chosen, total) else {
                return Outcome::Failed(Counter::TableFailed);
            };
            // The limit's count may be on the same account.
            let once = if endpoint == 0 {
                cluster.limit_scope != LimitScope::Node as u8
            } else {
                cluster.limit_scope == LimitScope::Endpoint as u8
                    && cluster.max_connections != Cluster::UNLIMITED
            };
            if !is_late && !once {
                books::take(account);
            }
            self.remember(tracked, chosen, is_late, now);
        } else {
            maps::count(Counter::Untracked);
        }
        self.connect.keep_alive(cluster);
        if endpoint != 0 {
            self.connect.go_to(&chosen.to, self.v4_only);
        }
        maps::count(Counter::Direct);
        Outcome::Routed
    }

    /// The account of the chosen endpoint. The original destination has none but the workload's for the cluster.
    #[inline(always)]
    fn account(&self, chosen: &Chosen, total: *mut Account) -> Option<*mut Account> {
        if chosen.endpoint == 0 && chosen.cluster.limit_scope != LimitScope::Node as u8 {
            return Some(total);
        }
        maps::account(&self.key(chosen.number, chosen.endpoint))
    }

    #[inline(always)]
    fn remember(&self, tracked: &mut Tracked, chosen: &Chosen, is_late: bool, now: u64) {
        let Chosen { number, cluster, endpoint, .. } = *chosen;
        tracked.netns_cookie = self.netns_cookie;
        tracked.started_ns = now;
        tracked.cluster = number;
        tracked.endpoint = endpoint;
        tracked.original = self.destination.address;
        tracked.original_port = self.destination.port;
        tracked.endpoint_port = chosen.to.port;
        tracked.endpoint_address = chosen.to.address;
        tracked.limit_scope = cluster.limit_scope;
        let mut flags = if endpoint != 0 { Tracked::REWRITTEN } else { 0 };
        if cluster.flags & Cluster::OUTLIER != 0 {
            flags |= Tracked::OUTLIER;
        }
        if cluster.connect_timeout_ms != 0
            && let Some(theirs) = self.connect.bound(cluster.connect_timeout_ms)
        {
            tracked.user_timeout_ms = theirs;
            flags |= Tracked::TIMEOUT_SET;
        }
        if is_late {
            flags |= Tracked::LATE;
        }
        tracked.flags = flags;
        if !is_late {
            books::state(tracked).exchange(limit::RESERVED);
        }
    }

    #[inline(always)]
    fn overflowed(&self, cluster: u32, now: u64) -> Outcome {
        count_on!(&self.key(cluster, 0), overflowed);
        self.refused(cluster, now, Counter::Overflowed, EventCause::Overflow)
    }

    #[inline(always)]
    fn refused(&self, cluster: u32, now: u64, counter: Counter, cause: EventCause) -> Outcome {
        maps::count(counter);
        if records::is_logged() {
            records::write(false, |event| {
                *event = Event {
                    kind: EventKind::Refused as u32,
                    cause: cause as u32,
                    netns_cookie: self.netns_cookie,
                    at_ns: now,
                    cluster,
                    original: self.destination.address,
                    original_port: self.destination.port,
                    logged: 1,
                    ..Event::default()
                };
            });
        }
        Outcome::Refused
    }
}

/// Whether one more is within the limit; it has its place then if it is `counted` now, and will have to ask for none.
#[inline(always)]
fn admitted(account: *mut Account, cluster: &Cluster, counted: bool) -> bool {
    if counted {
        books::reserve(account, cluster.max_connections)
    } else {
        limit::admits(books::active(account), cluster.max_connections)
    }
}

/// The number of the cluster that the listener's weights give this connect.
#[inline(always)]
fn arm(listener: &Listener) -> Option<u32> {
    let draw = || {
        // SAFETY: no argument.
        unsafe { bpf_get_prandom_u32() }
    };
    match listener.count {
        0 => None,
        1 => maps::slot(listener.base).map(|slot| slot.own),
        count => {
            let slot = maps::slot(listener.base + pick::index(draw(), count))?;
            Some(pick::column(slot, draw()))
        }
    }
}
