//! What was found for names that clients say, for as long as it holds. Bounded: clients may say any name.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Mutex, MutexGuard, PoisonError},
};

use proxy_traffic::Lookup;
use tokio::time::Instant;

use super::answers::Found;

/// How many names are remembered.
const MOST: usize = 4096;

#[derive(Debug, Default)]
pub(super) struct Cache {
    names: Mutex<HashMap<String, Entry>>,
}

#[derive(Debug)]
struct Entry {
    until: Instant,
    /// The rules under which it was found.
    lookup: Lookup,
    addresses: Vec<IpAddr>,
}

impl Cache {
    pub(super) fn get(&self, name: &str, lookup: &Lookup) -> Option<Vec<IpAddr>> {
        let names = self.lock();
        let entry =
            names.get(name).filter(|entry| entry.until > Instant::now() && entry.lookup == *lookup)?;
        Some(entry.addresses.clone())
    }

    /// Also remembers, for a short time, that there is nothing.
    pub(super) fn put(&self, name: &str, lookup: &Lookup, found: &Found) {
        let now = Instant::now();
        let mut names = self.lock();
        if names.len() >= MOST {
            names.retain(|_, entry| entry.until > now);
        }
        if names.len() >= MOST {
            // Any will do: whoever floods us is as likely to lose one as others are.
            let victim = names.keys().next().cloned();
            victim.and_then(|name| names.remove(&name));
        }
        let (lookup, addresses) = (lookup.clone(), found.addresses.clone());
        names.insert(name.to_owned(), Entry { until: now + found.lifetime, lookup, addresses });
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Entry>> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_forgets_in_time_and_is_bounded() {
        let cache = Cache::default();
        let (inside, outside) = (Lookup::default(), Lookup { external: true, ..Lookup::default() });
        let found =
            Found { addresses: vec![IpAddr::from([203, 0, 113, 1])], lifetime: Duration::from_secs(9) };
        cache.put("a.test", &inside, &found);
        assert_eq!(cache.get("a.test", &inside), Some(found.addresses.clone()));
        assert_eq!(cache.get("a.test", &outside), None);
        tokio::time::advance(Duration::from_secs(9)).await;
        assert_eq!(cache.get("a.test", &inside), None);
        for name in 0..2 * MOST {
            cache.put(&name.to_string(), &inside, &found);
        }
        assert_eq!(cache.lock().len(), MOST);
        let last = (2 * MOST - 1).to_string();
        assert!(cache.get(&last, &inside).is_some());
    }
}
