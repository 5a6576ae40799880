//! A sorted map whose clones share what they have in common: a snapshot differs from the one before in a few places.
//!
//! The entries stand in chunks of some dozens, in order. Whoever changes an entry copies its chunk and the list of
//! chunks, and nothing else; whoever compares two maps passes over the chunks that both have.

use std::{borrow::Borrow, cmp::Ordering, collections::BTreeMap, fmt, ops::Index, slice, sync::Arc};

/// How many entries a fresh chunk has.
const CHUNK: usize = 64;
/// A chunk of more is split, and neighbours of together less than half of it become one.
const MAX: usize = 2 * CHUNK;

type Chunk<K, V> = Arc<Vec<(K, V)>>;

/// A sorted map, cheap to clone and cheap to change in a few places. No chunk is empty.
pub struct Map<K, V> {
    chunks: Arc<Vec<Chunk<K, V>>>,
    len: usize,
}

/// One key at which two maps may differ: the older value, and the newer.
pub type Change<'a, K, V> = (&'a K, Option<&'a V>, Option<&'a V>);

impl<K, V> Map<K, V> {
    /// A map that holds nothing.
    #[must_use]
    pub fn new() -> Self {
        Self { chunks: Arc::default(), len: 0 }
    }

    /// How many entries there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The entries in the order of their keys.
    #[must_use]
    pub fn iter(&self) -> Iter<'_, K, V> {
        Iter { chunks: self.chunks.iter(), chunk: [].iter() }
    }

    /// The keys in order.
    pub fn keys(&self) -> impl Iterator<Item = &K> {
        self.iter().map(|(key, _)| key)
    }

    /// The values in the order of their keys.
    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.iter().map(|(_, value)| value)
    }

    /// The entry of the smallest key.
    #[must_use]
    pub fn first_key_value(&self) -> Option<(&K, &V)> {
        self.iter().next()
    }

    /// Whether both are the same map, not just alike.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.chunks, &other.chunks)
    }

    /// Where `key` is, or where it would be: chunk and place in it.
    fn find<Q: Ord + ?Sized>(&self, key: &Q) -> (usize, Result<usize, usize>)
    where
        K: Borrow<Q>,
    {
        let after = self.chunks.partition_point(|chunk| chunk[0].0.borrow() <= key);
        let at = after.saturating_sub(1);
        let place = self
            .chunks
            .get(at)
            .map_or(Err(0), |chunk| chunk.binary_search_by(|(other, _)| other.borrow().cmp(key)));
        (at, place)
    }

    /// The value of `key`.
    pub fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        let (at, place) = self.find(key);
        let place = place.ok()?;
        Some(&self.chunks[at][place].1)
    }

    /// Whether `key` has a value.
    pub fn contains_key<Q: Ord + ?Sized>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.get(key).is_some()
    }

    /// Every key at which `newer` may differ from this map, in order. Values are not compared: what both have in the
    /// same chunk is passed over, its neighbours in a changed chunk are not.
    pub fn changes<'a>(&'a self, newer: &'a Self) -> impl Iterator<Item = Change<'a, K, V>>
    where
        K: Ord,
    {
        Changes { older: Cursor::new(self), newer: Cursor::new(newer) }
    }
}

impl<K: Ord + Clone, V: Clone> Map<K, V> {
    /// Gives `key` a value; the one it had comes back.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        let (at, place) = self.find(&key);
        let chunks = Arc::make_mut(&mut self.chunks);
        let Some(chunk) = chunks.get_mut(at) else {
            chunks.push(Arc::new(vec![(key, value)]));
            self.len = 1;
            return None;
        };
        let chunk = Arc::make_mut(chunk);
        match place {
            Ok(place) => Some(std::mem::replace(&mut chunk[place].1, value)),
            Err(place) => {
                chunk.insert(place, (key, value));
                if chunk.len() > MAX {
                    let tail = chunk.split_off(CHUNK);
                    chunks.insert(at + 1, Arc::new(tail));
                }
                self.len += 1;
                None
            }
        }
    }

    /// Takes `key` and its value out.
    pub fn remove<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        let (at, place) = self.find(key);
        let place = place.ok()?;
        let chunks = Arc::make_mut(&mut self.chunks);
        let (_, value) = Arc::make_mut(&mut chunks[at]).remove(place);
        self.len -= 1;
        if chunks[at].is_empty() {
            chunks.remove(at);
        } else if chunks.get(at + 1).is_some_and(|next| chunks[at].len() + next.len() < CHUNK) {
            let next = chunks.remove(at + 1);
            Arc::make_mut(&mut chunks[at]).extend(next.iter().cloned());
        }
        Some(value)
    }
}

impl<K: Ord + Clone, V: Clone> Map<K, V> {
    /// Makes the map hold `wanted`, entry by entry where few are not the `same`: what both share stays shared.
    pub fn assign(&mut self, wanted: BTreeMap<K, V>, same: impl Fn(&V, &V) -> bool) {
        let mut edits: Vec<(K, Option<V>)> = Vec::new();
        let mut known = self.iter().peekable();
        for (key, value) in &wanted {
            while let Some((gone, _)) = known.next_if(|(known, _)| *known < key) {
                edits.push((gone.clone(), None));
            }
            let kept = known.next_if(|(known, _)| *known == key);
            if !kept.is_some_and(|(_, known)| same(known, value)) {
                edits.push((key.clone(), Some(value.clone())));
            }
        }
        edits.extend(known.map(|(gone, _)| (gone.clone(), None)));
        if edits.len() * 4 > wanted.len() {
            *self = wanted.into();
            return;
        }
        for (key, value) in edits {
            match value {
                Some(value) => drop(self.insert(key, value)),
                None => drop(self.remove(&key)),
            }
        }
    }
}

impl<K, V> Default for Map<K, V> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K, V> Clone for Map<K, V> {
    fn clone(&self) -> Self {
        Self { chunks: self.chunks.clone(), len: self.len }
    }
}

impl<K: fmt::Debug, V: fmt::Debug> fmt::Debug for Map<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self).finish()
    }
}

impl<K: PartialEq, V: PartialEq> PartialEq for Map<K, V> {
    fn eq(&self, other: &Self) -> bool {
        self.len == other.len && (self.is_same(other) || self.iter().eq(other.iter()))
    }
}

impl<K: Eq, V: Eq> Eq for Map<K, V> {}

impl<K: Ord, V> From<BTreeMap<K, V>> for Map<K, V> {
    fn from(sorted: BTreeMap<K, V>) -> Self {
        let len = sorted.len();
        let mut entries = sorted.into_iter();
        let mut chunk =
            || Some(entries.by_ref().take(CHUNK).collect::<Vec<_>>()).filter(|one| !one.is_empty());
        Self { chunks: Arc::new(std::iter::from_fn(&mut chunk).map(Arc::new).collect()), len }
    }
}

impl<K: Ord, V> FromIterator<(K, V)> for Map<K, V> {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(entries: I) -> Self {
        entries.into_iter().collect::<BTreeMap<_, _>>().into()
    }
}

impl<K: Ord, V, const N: usize> From<[(K, V); N]> for Map<K, V> {
    fn from(entries: [(K, V); N]) -> Self {
        entries.into_iter().collect()
    }
}

impl<K: Borrow<Q>, Q: Ord + ?Sized, V> Index<&Q> for Map<K, V> {
    type Output = V;

    /// The value of a key that is there; as with the maps of the standard library, another one ends the program.
    fn index(&self, key: &Q) -> &V {
        self.get(key).expect("no such key")
    }
}

impl<'a, K, V> IntoIterator for &'a Map<K, V> {
    type Item = (&'a K, &'a V);
    type IntoIter = Iter<'a, K, V>;

    fn into_iter(self) -> Iter<'a, K, V> {
        self.iter()
    }
}

/// Entries in the order of their keys.
#[derive(Debug)]
pub struct Iter<'a, K, V> {
    chunks: slice::Iter<'a, Chunk<K, V>>,
    chunk: slice::Iter<'a, (K, V)>,
}

impl<'a, K, V> Iterator for Iter<'a, K, V> {
    type Item = (&'a K, &'a V);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some((key, value)) = self.chunk.next() {
                return Some((key, value));
            }
            self.chunk = self.chunks.next()?.iter();
        }
    }
}

/// A place in a map, chunk by chunk.
struct Cursor<'a, K, V> {
    chunks: &'a [Chunk<K, V>],
    place: usize,
}

impl<'a, K, V> Cursor<'a, K, V> {
    fn new(map: &'a Map<K, V>) -> Self {
        Self { chunks: &map.chunks, place: 0 }
    }

    fn entry(&self) -> Option<&'a (K, V)> {
        self.chunks.first().map(|chunk| &chunk[self.place])
    }

    fn step(&mut self) {
        self.place += 1;
        if self.chunks.first().is_some_and(|chunk| chunk.len() == self.place) {
            self.skip();
        }
    }

    /// On to the next chunk.
    fn skip(&mut self) {
        self.chunks = &self.chunks[1..];
        self.place = 0;
    }

    /// The chunk that begins here.
    fn whole(&self) -> Option<&'a Chunk<K, V>> {
        self.chunks.first().filter(|_| self.place == 0)
    }
}

/// See [`Map::changes`].
struct Changes<'a, K, V> {
    older: Cursor<'a, K, V>,
    newer: Cursor<'a, K, V>,
}

impl<'a, K: Ord, V> Iterator for Changes<'a, K, V> {
    type Item = Change<'a, K, V>;

    fn next(&mut self) -> Option<Self::Item> {
        while let (Some(older), Some(newer)) = (self.older.whole(), self.newer.whole()) {
            if !Arc::ptr_eq(older, newer) {
                break;
            }
            self.older.skip();
            self.newer.skip();
        }
        let (older, newer) = (self.older.entry(), self.newer.entry());
        let order = match (older, newer) {
            (None, None) => return None,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some((one, _)), Some((other, _))) => one.cmp(other),
        };
        let older = older.filter(|_| order.is_le());
        let newer = newer.filter(|_| order.is_ge());
        older.iter().for_each(|_| self.older.step());
        newer.iter().for_each(|_| self.newer.step());
        let key = older.or(newer).map(|(key, _)| key)?;
        Some((key, older.map(|(_, value)| value), newer.map(|(_, value)| value)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn it_is_a_sorted_map_and_knows_what_changed(
            first in vec((0u16..900, any::<u8>()), 0..900),
            edits in vec((0u16..900, prop::option::of(any::<u8>())), 0..900),
        ) {
            let mut model: BTreeMap<_, _> = first.iter().copied().collect();
            let mut map: Map<_, _> = first.into_iter().collect();
            let (before, old) = (map.clone(), model.clone());
            for (key, value) in edits {
                match value {
                    Some(value) => prop_assert_eq!(map.insert(key, value), model.insert(key, value)),
                    None => prop_assert_eq!(map.remove(&key), model.remove(&key)),
                }
                prop_assert_eq!(map.get(&key), model.get(&key));
            }
            prop_assert!(map.iter().eq(&model) && map.len() == model.len());
            prop_assert!(before.iter().eq(&old));
            let mut assigned = before.clone();
            assigned.assign(model.clone(), |one, other| one == other);
            prop_assert_eq!(&assigned, &map);
            let differ = before.changes(&map).filter(|(_, one, other)| one != other);
            let keys: std::collections::BTreeSet<_> = old.keys().chain(model.keys()).collect();
            let want = keys.into_iter().map(|key| (key, old.get(key), model.get(key)));
            prop_assert!(differ.eq(want.filter(|(_, one, other)| one != other)));
        }
    }

    #[test]
    fn nothing_is_in_an_empty_map() {
        let mut map = Map::<u8, u8>::new();
        assert_eq!(map.remove(&1), None);
        assert_eq!((map.get(&1), map.iter().next()), (None, None));
        assert_eq!(map.changes(&Map::new()).count(), 0);
    }

    #[test]
    fn a_change_copies_one_chunk() {
        let map: Map<_, _> = (0..1000).map(|key| (key, key)).collect();
        let mut next = map.clone();
        assert!(next.is_same(&map));
        next.insert(500, 0);
        assert!(!next.is_same(&map));
        assert!(map.changes(&next).count() <= MAX);
    }
}
