//! Are the limits' counts right? The sockets that exist are the truth: each carries whose account it is on. Pure.

use std::collections::{HashMap, HashSet};

use proxy_common::{
    direct::{Account, AccountKey, LimitScope, Tracked},
    limit,
};

/// What the sockets say.
#[derive(Debug, Default)]
pub(super) struct Count {
    active: HashMap<AccountKey, u64>,
    namespaces: HashSet<u64>,
}

/// An account whose count is not that of its sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Drift {
    pub(super) key: AccountKey,
    pub(super) active: u64,
    pub(super) sockets: u64,
}

/// Remembers the last comparison: sockets come and go while accounts are read, so only what stays is told, once.
#[derive(Debug, Default)]
pub(super) struct Audit {
    before: HashMap<AccountKey, Drift>,
    told: HashMap<AccountKey, Drift>,
}

impl Count {
    /// A socket of ours; one that has given its place back counts no more.
    pub(super) fn add(&mut self, tracked: &Tracked) {
        if tracked.state != limit::FREE {
            for key in accounts(tracked) {
                *self.active.entry(key).or_default() += 1;
            }
        }
    }

    /// All sockets of a namespace were added.
    pub(super) fn listed(&mut self, cookie: u64) {
        self.namespaces.insert(cookie);
    }
}

/// The accounts that count a socket: that of its limit, and its own.
fn accounts(tracked: &Tracked) -> impl Iterator<Item = AccountKey> {
    let Tracked { netns_cookie, cluster, endpoint, .. } = *tracked;
    let key = |netns_cookie, endpoint| AccountKey { netns_cookie, cluster, endpoint };
    let limit = match tracked.limit_scope {
        scope if scope == LimitScope::Node as u8 => key(0, 0),
        scope if scope == LimitScope::Endpoint as u8 => key(netns_cookie, endpoint),
        _ => key(netns_cookie, 0),
    };
    let own = key(netns_cookie, endpoint);
    std::iter::once(limit).chain((own != limit).then_some(own))
}

impl Audit {
    /// What differs by the same as last time and was not told yet.
    pub(super) fn compare(&mut self, accounts: &[(AccountKey, Account)], count: &Count) -> Vec<Drift> {
        // A count over all namespaces can be compared only when none of them is out of sight.
        let cookies = || accounts.iter().map(|(key, _)| key.netns_cookie).filter(|cookie| *cookie != 0);
        let all = cookies().all(|cookie| count.namespaces.contains(&cookie));
        let comparable = |key: &AccountKey| match key.netns_cookie {
            0 => all && key.endpoint == 0,
            cookie => count.namespaces.contains(&cookie),
        };
        let drifts = accounts.iter().filter(|(key, _)| comparable(key)).filter_map(|(key, account)| {
            let sockets = count.active.get(key).copied().unwrap_or_default();
            let drift = Drift { key: *key, active: account.active, sockets };
            (account.active != sockets).then_some((*key, drift))
        });
        let now: HashMap<_, _> = drifts.collect();
        let stays = |drift: &&Drift| {
            let by = |one: &Drift| one.active.wrapping_sub(one.sockets);
            self.before.get(&drift.key).is_some_and(|before| by(before) == by(drift))
                && self.told.get(&drift.key).is_none_or(|told| by(told) != by(drift))
        };
        let fresh: Vec<_> = now.values().filter(stays).copied().collect();
        self.told.retain(|key, _| now.contains_key(key));
        self.told.extend(fresh.iter().map(|drift| (drift.key, *drift)));
        self.before = now;
        fresh
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(netns_cookie: u64, endpoint: u32) -> AccountKey {
        AccountKey { netns_cookie, cluster: 1, endpoint }
    }

    fn tracked(state: u64, netns_cookie: u64, endpoint: u32, scope: LimitScope) -> Tracked {
        Tracked { state, netns_cookie, cluster: 1, endpoint, limit_scope: scope as u8, ..Tracked::default() }
    }

    fn account(key: AccountKey, active: u64) -> (AccountKey, Account) {
        (key, Account { active, ..Account::default() })
    }

    #[test]
    fn a_socket_is_counted_by_its_limit_and_its_endpoint() {
        let mut count = Count::default();
        for socket in [
            tracked(limit::RESERVED, 7, 3, LimitScope::Workload),
            tracked(limit::ARMED, 7, 3, LimitScope::Node),
            tracked(limit::ARMED, 7, 4, LimitScope::Endpoint),
            tracked(limit::ARMED, 7, 0, LimitScope::Workload),
            tracked(limit::ARMED, 8, 0, LimitScope::Node),
            tracked(limit::FREE, 7, 3, LimitScope::Workload),
        ] {
            count.add(&socket);
        }
        let want = [(key(7, 0), 2), (key(7, 3), 2), (key(0, 0), 2), (key(7, 4), 1), (key(8, 0), 1)];
        assert_eq!(count.active, HashMap::from(want));
    }

    #[test]
    fn only_what_differs_twice_by_the_same_is_told_and_once() {
        let mut audit = Audit::default();
        let mut count = Count::default();
        count.add(&tracked(limit::ARMED, 7, 3, LimitScope::Workload));
        count.listed(7);
        let accounts = |active| [account(key(7, 0), active), account(key(7, 3), 1), account(key(9, 0), 5)];
        assert_eq!(audit.compare(&accounts(2), &count), []);
        assert_eq!(audit.compare(&accounts(3), &count), [], "it moved");
        let drift = Drift { key: key(7, 0), active: 3, sockets: 1 };
        assert_eq!(audit.compare(&accounts(3), &count), [drift]);
        assert_eq!(audit.compare(&accounts(3), &count), [], "told before");
        assert_eq!(audit.compare(&accounts(1), &count), [], "mended");
        assert_eq!(audit.compare(&accounts(3), &count), []);
        assert_eq!(audit.compare(&accounts(3), &count), [drift], "and back");
    }

    #[test]
    fn a_count_over_all_is_compared_only_when_all_are_seen() {
        let accounts =
            [account(key(0, 0), 2), account(key(0, 3), 9), account(key(7, 3), 0), account(key(9, 3), 0)];
        let mut count = Count::default();
        count.listed(7);
        let mut audit = Audit::default();
        for _ in 0..3 {
            assert_eq!(audit.compare(&accounts, &count), []);
        }
        count.listed(9);
        audit.compare(&accounts, &count);
        let told = audit.compare(&accounts, &count);
        assert_eq!(told, [Drift { key: key(0, 0), active: 2, sockets: 0 }]);
    }
}
