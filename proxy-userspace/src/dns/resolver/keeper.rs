//! Keeps up with the names whose addresses are endpoints: asks again when an answer ends, and tells what changed.

use std::{collections::HashMap, net::IpAddr, sync::Arc, time::Duration};

use proxy_traffic::{Lookup, Map};
use tokio::{
    sync::{Semaphore, mpsc},
    task::{AbortHandle, JoinSet},
};

use super::{Error, Resolver, answers::Found};

/// After a failure we ask again this soon, then after twice the time, and so on up to the second.
const RETRY: Duration = Duration::from_secs(5);
const LONGEST_RETRY: Duration = Duration::from_secs(60);
/// How many names are asked for at once.
const AT_ONCE: usize = 32;

/// Follows a set of names. Dropping it ends that.
#[derive(Debug)]
pub struct Keeper {
    resolver: Resolver,
    changes: mpsc::Sender<(String, Vec<IpAddr>)>,
    places: Arc<Semaphore>,
    followed: Map<String, Lookup>,
    handles: HashMap<String, AbortHandle>,
    tasks: JoinSet<()>,
}

impl Keeper {
    /// Follows nothing yet. Each name's addresses go to `changes` when they are known, and when they are others; their order alone
    /// is no change. A name that had addresses keeps them until it has others.
    #[must_use]
    pub fn new(resolver: Resolver, changes: mpsc::Sender<(String, Vec<IpAddr>)>) -> Self {
        let places = Arc::new(Semaphore::new(AT_ONCE));
        let (followed, handles, tasks) = (Map::new(), HashMap::new(), JoinSet::new());
        Self { resolver, changes, places, followed, handles, tasks }
    }

    /// Follows `lookups` from now on, and no other names. What is followed in the same way already goes on undisturbed. Called in a
    /// runtime of tokio, whose tasks follow.
    pub fn follow(&mut self, lookups: &Map<String, Lookup>) {
        while self.tasks.try_join_next().is_some() {}
        let before = std::mem::replace(&mut self.followed, lookups.clone());
        for (name, old, new) in before.changes(lookups) {
            if old == new {
                continue;
            }
            if let Some(task) = self.handles.remove(name) {
                task.abort();
            }
            if let Some(lookup) = new {
                let kept = keep(
                    self.resolver.clone(),
                    name.clone(),
                    lookup.clone(),
                    self.changes.clone(),
                    self.places.clone(),
                );
                self.handles.insert(name.clone(), self.tasks.spawn(kept));
            }
        }
    }
}

async fn keep(
    resolver: Resolver,
    name: String,
    lookup: Lookup,
    changes: mpsc::Sender<(String, Vec<IpAddr>)>,
    places: Arc<Semaphore>,
) {
    let mut known = Known::default();
    loop {
        let outcome = {
            let Ok(_place) = places.acquire().await else { return };
            resolver.ask(&name, &lookup).await
        };
        if let Err(error) = &outcome {
            known.complain(error);
        }
        let (news, pause) = known.learn(outcome.ok());
        if let Some(addresses) = news
            && changes.send((name.clone(), addresses)).await.is_err()
        {
            return;
        }
        tokio::time::sleep(pause).await;
    }
}

/// What is known of a name.
#[derive(Debug, Default)]
struct Known {
    /// Sorted.
    addresses: Vec<IpAddr>,
    /// In a row.
    failures: u32,
}

impl Known {
    /// Says the first failure in a row.
    fn complain(&self, error: &Error) {
        if self.failures > 0 {
            return;
        }
        if self.addresses.is_empty() {
            tracing::warn!("{error}: connections to it fail until it has one");
        } else {
            tracing::warn!("{error}: the addresses it had stay in force");
        }
    }

    /// What is to be told, and when to ask again.
    fn learn(&mut self, outcome: Option<Found>) -> (Option<Vec<IpAddr>>, Duration) {
        let Some(found) = outcome else {
            let pause = RETRY.saturating_mul(1 << self.failures.min(8)).min(LONGEST_RETRY);
            self.failures += 1;
            return (None, pause);
        };
        self.failures = 0;
        let mut sorted = found.addresses.clone();
        sorted.sort_unstable();
        let is_news = sorted != self.addresses;
        self.addresses = sorted;
        (is_news.then_some(found.addresses), found.lifetime)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_another_set_of_addresses_is_news_and_failures_change_nothing() {
        let address = |last| IpAddr::from([203, 0, 113, last]);
        let found = |addresses: &[u8], seconds| {
            let addresses = addresses.iter().copied().map(address).collect();
            Some(Found { addresses, lifetime: Duration::from_secs(seconds) })
        };
        let mut known = Known::default();
        for (outcome, news, pause) in [
            (None, None, 5),
            (None, None, 10),
            (found(&[2, 1], 30), Some(vec![address(2), address(1)]), 30),
            (found(&[1, 2], 40), None, 40),
            (None, None, 5),
            (None, None, 10),
            (None, None, 20),
            (None, None, 40),
            (None, None, 60),
            (None, None, 60),
            (found(&[1, 2], 3600), None, 3600),
            (found(&[1], 7), Some(vec![address(1)]), 7),
            (None, None, 5),
        ] {
            assert_eq!(known.learn(outcome), (news, Duration::from_secs(pause)));
        }
        known.failures = u32::MAX - 1;
        assert_eq!(known.learn(None).1, LONGEST_RETRY);
    }
}
