//! The claimed destinations: from a snapshot, as a difference, into the two maps.

use std::collections::BTreeMap;

use aya::maps::{HashMap as BpfHash, LpmTrie, MapError, lpm_trie::Key};
use proxy_common::{Destination, Subnet, Verdict};
use proxy_traffic::Snapshot;

use super::{error::Error, objects::Held};

/// How much a sync changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Synced {
    /// Destinations that are claimed from now on.
    pub inserted: usize,
    /// Destinations that are no longer claimed.
    pub removed: usize,
}

/// The two maps and what they hold.
pub(super) struct Claims {
    exact: Table<BpfHash<Held, Destination, u32>>,
    ranges: Table<LpmTrie<Held, Subnet, u32>>,
    size: u32,
}

/// A map with what was last written to it.
struct Table<M: Store> {
    map: M,
    held: BTreeMap<M::Key, u32>,
}

/// The one thing that exact and longest-prefix maps do differently.
trait Store {
    type Key: Copy + Ord;
    const NAME: &'static str;
    fn put(&mut self, key: Self::Key, verdict: u32) -> Result<(), MapError>;
    fn delete(&mut self, key: Self::Key) -> Result<(), MapError>;
}

impl Claims {
    pub(super) fn new(
        exact: BpfHash<Held, Destination, u32>,
        ranges: LpmTrie<Held, Subnet, u32>,
        size: u32,
    ) -> Self {
        let (exact, ranges) = (Table::new(exact), Table::new(ranges));
        Self { exact, ranges, size }
    }

    /// Insertions of both maps come before removals of either.
    pub(super) fn sync(&mut self, snapshot: &Snapshot) -> Result<Synced, Error> {
        let exact = diff(&self.exact.held, &exact(snapshot));
        let ranges = diff(&self.ranges.held, &ranges(snapshot));
        self.exact.insert(&exact.insert, self.size)?;
        if let Err(error) = self.ranges.insert(&ranges.insert, self.size) {
            self.exact.undo(&exact.insert);
            return Err(error);
        }
        self.exact.remove(&exact.remove)?;
        self.ranges.remove(&ranges.remove)?;
        Ok(Synced {
            inserted: exact.insert.len() + ranges.insert.len(),
            removed: exact.remove.len() + ranges.remove.len(),
        })
    }
}

impl<M: Store> Table<M> {
    fn new(map: M) -> Self {
        Self { map, held: BTreeMap::new() }
    }

    /// All or nothing.
    fn insert(&mut self, entries: &[(M::Key, u32)], size: u32) -> Result<(), Error> {
        for (done, (key, verdict)) in entries.iter().enumerate() {
            if let Err(error) = self.map.put(*key, *verdict) {
                self.undo(&entries[..done]);
                return Err(Error::write(M::NAME, size, error));
            }
            self.held.insert(*key, *verdict);
        }
        Ok(())
    }

    /// Takes back what was just inserted. Whatever the kernel will not give back stays on our books.
    fn undo(&mut self, entries: &[(M::Key, u32)]) {
        for (key, _) in entries {
            if self.map.delete(*key).is_ok() {
                self.held.remove(key);
            }
        }
    }

    fn remove(&mut self, keys: &[M::Key]) -> Result<(), Error> {
        for key in keys {
            self.map.delete(*key).map_err(|source| Error::Map { name: M::NAME, source })?;
            self.held.remove(key);
        }
        Ok(())
    }
}

impl Store for BpfHash<Held, Destination, u32> {
    type Key = Destination;
    const NAME: &'static str = "LISTENERS";

    fn put(&mut self, key: Destination, verdict: u32) -> Result<(), MapError> {
        self.insert(key, verdict, 0)
    }

    fn delete(&mut self, key: Destination) -> Result<(), MapError> {
        self.remove(&key)
    }
}

impl Store for LpmTrie<Held, Subnet, u32> {
    type Key = (u32, Subnet);
    const NAME: &'static str = "SUBNETS";

    fn put(&mut self, (bits, subnet): Self::Key, verdict: u32) -> Result<(), MapError> {
        self.insert(&Key::new(bits, subnet), verdict, 0)
    }

    fn delete(&mut self, (bits, subnet): Self::Key) -> Result<(), MapError> {
        self.remove(&Key::new(bits, subnet))
    }
}

/// What has to change for `held` to become `wanted`.
#[derive(Debug, PartialEq, Eq)]
struct Diff<K> {
    insert: Vec<(K, u32)>,
    remove: Vec<K>,
}

fn diff<K: Copy + Ord>(held: &BTreeMap<K, u32>, wanted: &BTreeMap<K, u32>) -> Diff<K> {
    let fresh = wanted.iter().filter(|(key, verdict)| held.get(key) != Some(verdict));
    let gone = held.keys().filter(|key| !wanted.contains_key(key));
    Diff { insert: fresh.map(|(key, verdict)| (*key, *verdict)).collect(), remove: gone.copied().collect() }
}

fn exact(snapshot: &Snapshot) -> BTreeMap<Destination, u32> {
    let addresses = snapshot.listeners.keys();
    addresses.map(|address| (Destination::from(*address), Verdict::Steer as u32)).collect()
}

fn ranges(snapshot: &Snapshot) -> BTreeMap<(u32, Subnet), u32> {
    let keys = snapshot.subnets.iter().map(|range| {
        let network = range.subnet.trunc();
        Subnet::new(network.addr(), network.prefix_len(), range.port)
    });
    keys.map(|key| (key, Verdict::Steer as u32)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_changed_is_written() {
        type Rows<'a> = &'a [(u8, u32)];
        for (held, wanted, insert, remove) in [
            (&[][..] as Rows<'_>, &[][..] as Rows<'_>, &[][..] as Rows<'_>, &[][..] as &[u8]),
            (&[], &[(1, 1), (2, 1)], &[(1, 1), (2, 1)], &[]),
            (&[(1, 1), (2, 1)], &[(1, 1), (2, 1)], &[], &[]),
            (&[(1, 1), (2, 1)], &[(2, 1), (3, 1)], &[(3, 1)], &[1]),
            (&[(1, 1)], &[(1, 2)], &[(1, 2)], &[]),
            (&[(1, 1), (2, 1)], &[], &[], &[1, 2]),
        ] {
            let map = |rows: Rows<'_>| rows.iter().copied().collect::<BTreeMap<_, _>>();
            let want = Diff { insert: insert.to_vec(), remove: remove.to_vec() };
            assert_eq!(diff(&map(held), &map(wanted)), want);
        }
    }
}
