//! One hash or longest-prefix map, and what it holds: nothing is written twice.

use std::{collections::HashMap, hash::Hash};

use aya::{
    Pod,
    maps::{HashMap as BpfHash, LpmTrie, MapData, MapError, lpm_trie::Key},
};

use super::super::error::Error;

/// The things that exact and longest-prefix maps do differently.
pub(super) trait Store {
    type Key: Copy + Eq + Hash;
    type Value: Copy + PartialEq;
    fn put(&mut self, key: Self::Key, value: Self::Value) -> Result<(), MapError>;
    fn delete(&mut self, key: Self::Key) -> Result<(), MapError>;
    fn look_up(&self, key: Self::Key) -> Result<Self::Value, MapError>;
    fn all(&self) -> Result<HashMap<Self::Key, Self::Value>, MapError>;
}

impl<K: Pod + Eq + Hash, V: Pod + PartialEq> Store for BpfHash<MapData, K, V> {
    type Key = K;
    type Value = V;

    fn put(&mut self, key: K, value: V) -> Result<(), MapError> {
        self.insert(key, value, 0)
    }

    fn delete(&mut self, key: K) -> Result<(), MapError> {
        self.remove(&key)
    }

    fn look_up(&self, key: K) -> Result<V, MapError> {
        self.get(&key, 0)
    }

    fn all(&self) -> Result<HashMap<K, V>, MapError> {
        self.iter().collect()
    }
}

impl<K: Pod + Eq + Hash, V: Pod + PartialEq> Store for LpmTrie<MapData, K, V> {
    type Key = (u32, K);
    type Value = V;

    fn put(&mut self, (bits, data): (u32, K), value: V) -> Result<(), MapError> {
        self.insert(&Key::new(bits, data), value, 0)
    }

    fn delete(&mut self, (bits, data): (u32, K)) -> Result<(), MapError> {
        self.remove(&Key::new(bits, data))
    }

    fn look_up(&self, (bits, data): (u32, K)) -> Result<V, MapError> {
        self.get(&Key::new(bits, data), 0)
    }

    fn all(&self) -> Result<HashMap<(u32, K), V>, MapError> {
        let entry = |(key, value): (Key<K>, V)| ((key.prefix_len(), key.data()), value);
        self.iter().map(|found| found.map(entry)).collect()
    }
}

/// Which map it is, how large, and which setting makes it larger.
#[derive(Clone, Copy, Debug)]
pub(in crate::kernel) struct About {
    pub(in crate::kernel) name: &'static str,
    pub(in crate::kernel) size: u32,
    pub(in crate::kernel) flag: &'static str,
}

impl About {
    pub(in crate::kernel) fn full(&self) -> Error {
        let Self { name, size, flag } = *self;
        Error::Full { name, size, flag }
    }
}

/// A map with what it holds.
pub(super) struct Table<M: Store> {
    map: M,
    pub(super) about: About,
    pub(super) held: HashMap<M::Key, M::Value>,
}

impl<M: Store> Table<M> {
    /// Takes a map over with whatever it holds.
    pub(super) fn open(map: M, about: About) -> Result<Self, Error> {
        let held = map.all().map_err(|source| Error::Map { name: about.name, source })?;
        Ok(Self { map, about, held })
    }

    /// What the map itself says.
    pub(super) fn read(&self, key: M::Key) -> Result<Option<M::Value>, Error> {
        match self.map.look_up(key) {
            Ok(value) => Ok(Some(value)),
            Err(MapError::KeyNotFound) => Ok(None),
            Err(source) => Err(Error::Map { name: self.about.name, source }),
        }
    }

    /// Refuses when `fresh` more keys find no room.
    pub(super) fn room_for(&self, fresh: usize) -> Result<(), Error> {
        let fits = self.held.len() + fresh <= self.about.size as usize;
        if fits { Ok(()) } else { Err(self.about.full()) }
    }

    /// Whether anything had to be written.
    pub(super) fn put(&mut self, key: M::Key, value: M::Value) -> Result<bool, Error> {
        if self.held.get(&key) == Some(&value) {
            return Ok(false);
        }
        self.map.put(key, value).map_err(|source| Error::write(&self.about, source))?;
        self.held.insert(key, value);
        Ok(true)
    }

    /// What was there.
    pub(super) fn remove(&mut self, key: M::Key) -> Result<Option<M::Value>, Error> {
        if !self.held.contains_key(&key) {
            return Ok(None);
        }
        match self.map.delete(key) {
            // Somebody else was faster; it is gone.
            Ok(()) | Err(MapError::KeyNotFound) => Ok(self.held.remove(&key)),
            Err(source) => Err(Error::Map { name: self.about.name, source }),
        }
    }
}
