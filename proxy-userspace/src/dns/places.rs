//! Places for questions that wait for a resolver: so many for a workload, and of these a share for each resolver, so that one that
//! does not answer leaves the others theirs.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Resolvers that may be waited for at once.
const RESOLVERS: usize = 64;

/// The places of one workload.
#[derive(Debug)]
pub(super) struct Places {
    all: Arc<Semaphore>,
    share: usize,
    shares: Mutex<HashMap<SocketAddr, Arc<Semaphore>>>,
}

/// One place, given back when it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    _of_all: OwnedSemaphorePermit,
    _of_share: OwnedSemaphorePermit,
}

impl Places {
    /// So many altogether, and at most `share` for one resolver.
    pub(super) fn new(all: usize, share: usize) -> Self {
        Self { all: Arc::new(Semaphore::new(all)), share, shares: Mutex::default() }
    }

    /// A place to wait for `resolver`, if there is one.
    pub(super) fn take(&self, resolver: SocketAddr) -> Option<Place> {
        let share = self.share_of(resolver)?;
        let _of_share = share.try_acquire_owned().ok()?;
        let _of_all = self.all.clone().try_acquire_owned().ok()?;
        Some(Place { _of_all, _of_share })
    }

    fn share_of(&self, resolver: SocketAddr) -> Option<Arc<Semaphore>> {
        let mut shares = self.shares.lock().unwrap_or_else(PoisonError::into_inner);
        if shares.len() >= RESOLVERS && !shares.contains_key(&resolver) {
            // Nobody waits for these.
            shares.retain(|_, share| share.available_permits() < self.share);
            if shares.len() >= RESOLVERS {
                return None;
            }
        }
        let fresh = || Arc::new(Semaphore::new(self.share));
        Some(shares.entry(resolver).or_insert_with(fresh).clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resolver_that_does_not_answer_leaves_the_others_their_places() {
        let places = Places::new(8, 2);
        let resolver = |number: usize| SocketAddr::from(([10, 0, 0, 1], number as u16));
        let dead: Vec<_> = (0..5).map(|_| places.take(resolver(1))).collect();
        assert_eq!(dead.iter().flatten().count(), 2);
        let live = places.take(resolver(2));
        assert!(live.is_some());
        drop((dead, live));
        // All that there are, whoever is waited for.
        let many: Vec<_> = (0..20).map(|number| places.take(resolver(number))).collect();
        assert_eq!(many.iter().flatten().count(), 8);
        drop(many);
        // Those for whom nobody waits are forgotten.
        for number in 0..10 * RESOLVERS {
            assert!(places.take(resolver(number)).is_some(), "{number}");
        }
        assert!(places.shares.lock().unwrap().len() <= RESOLVERS);
    }
}
