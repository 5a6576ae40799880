//! `maxConnections` on the steered path: permits that are never given beyond the limit and come back by themselves.

use std::{
    collections::HashMap,
    hash::{Hash, Hasher},
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use proxy_common::limit;

use crate::{Limit, LimitScope, Workload};

/// One connection's place within a limit; dropping it gives the place back.
#[derive(Debug)]
pub struct Permit(Arc<AtomicU64>);

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The counts of one cluster, by what its limit counts together.
#[derive(Debug, Default)]
pub(crate) struct Permits(Mutex<HashMap<Key, Arc<AtomicU64>>>);

/// Who is counted together.
#[derive(Debug)]
struct Key {
    workload: Option<Arc<Workload>>,
    endpoint: Option<SocketAddr>,
}

impl Key {
    /// A workload is told by its name: its labels may change while it has connections.
    fn parts(&self) -> (Option<(&str, &str)>, Option<SocketAddr>) {
        (self.workload.as_ref().map(|one| (&*one.namespace, &*one.name)), self.endpoint)
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.parts() == other.parts()
    }
}

impl Eq for Key {}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.parts().hash(state);
    }
}

impl Permits {
    /// One more connection of `workload` to `endpoint` (`None`: the original destination), if `limit` has room.
    pub(crate) fn permit(
        &self,
        workload: &Arc<Workload>,
        endpoint: Option<SocketAddr>,
        limit: &Limit,
    ) -> Option<Permit> {
        let own = || Some(Arc::clone(workload));
        let (workload, endpoint) = match limit.scope {
            LimitScope::Workload => (own(), None),
            LimitScope::Node => (None, None),
            LimitScope::Endpoint => (own(), endpoint),
        };
        let count = self.count(Key { workload, endpoint });
        let more = |open| limit::admits(open, limit.max_connections).then(|| open + 1);
        let admitted = count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        // Not `then_some`: a permit that is only made to be dropped would give back what it never had.
        admitted.is_ok().then(|| Permit(count))
    }

    fn count(&self, key: Key) -> Arc<AtomicU64> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if counts.len() == counts.capacity() {
            // Before it grows: those without a permit have nothing to say.
            counts.retain(|_, count| Arc::strong_count(count) > 1);
        }
        Arc::clone(counts.entry(key).or_default())
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, thread};

    use super::*;

    fn workload(name: &str, label: &str) -> Arc<Workload> {
        let labels = BTreeMap::from([("version".to_owned(), label.to_owned())]);
        Arc::new(Workload { name: name.to_owned(), namespace: "default".to_owned(), labels })
    }

    /// Permits of `max` that are given to each of these in turn, as the places they have in the list.
    fn given(scope: LimitScope, max: u32, asks: &[(&str, u16)]) -> Vec<usize> {
        let permits = Permits::default();
        let limit = Limit { max_connections: max, scope };
        let ask = |(name, port): &(&str, u16)| {
            let endpoint = Some(SocketAddr::from(([10, 0, 0, 1], *port)));
            permits.permit(&workload(name, &port.to_string()), endpoint, &limit)
        };
        let all: Vec<_> = asks.iter().map(ask).collect();
        let given = all.iter().enumerate().filter(|(_, permit)| permit.is_some()).map(|(at, _)| at).collect();
        drop(all);
        // Everything came back: as many again.
        let again: Vec<_> = asks.iter().map(ask).collect();
        assert_eq!(again.iter().filter(|permit| permit.is_some()).count(), Vec::len(&given));
        given
    }

    #[test]
    fn each_scope_counts_its_own_together() {
        let asks = [("a", 1), ("a", 2), ("a", 1), ("b", 1), ("b", 1), ("b", 2), ("a", 2)];
        for (scope, max, want) in [
            (LimitScope::Workload, 2, &[0, 1, 3, 4][..]),
            (LimitScope::Node, 2, &[0, 1]),
            (LimitScope::Endpoint, 1, &[0, 1, 3, 5]),
            (LimitScope::Node, 0, &[]),
            (LimitScope::Node, u32::MAX, &[0, 1, 2, 3, 4, 5, 6]),
        ] {
            assert_eq!(given(scope, max, &asks), want, "{scope:?}");
        }
    }

    #[test]
    fn racers_take_exactly_the_limit() {
        let (permits, client) = (Permits::default(), workload("a", ""));
        let limit = Limit { max_connections: 10, scope: LimitScope::Workload };
        for _ in 0..50 {
            let taken: Vec<_> = thread::scope(|scope| {
                let race =
                    || (0..4).filter_map(|_| permits.permit(&client, None, &limit)).collect::<Vec<_>>();
                let racers: Vec<_> = (0..8).map(|_| scope.spawn(race)).collect();
                racers.into_iter().flat_map(|racer| racer.join().unwrap()).collect()
            });
            assert_eq!(taken.len(), 10);
        }
        assert!(permits.0.lock().unwrap().values().all(|count| count.load(Ordering::Relaxed) == 0));
    }

    #[test]
    fn counts_without_permits_are_forgotten() {
        let permits = Permits::default();
        let limit = Limit { max_connections: 1, scope: LimitScope::Workload };
        let kept = permits.permit(&workload("kept", ""), None, &limit);
        for index in 0..1000 {
            assert!(permits.permit(&workload(&index.to_string(), ""), None, &limit).is_some());
        }
        assert!(permits.0.lock().unwrap().len() < 10);
        assert!(kept.is_some() && permits.permit(&workload("kept", ""), None, &limit).is_none());
    }
}
