//! The maps that the daemon writes, by name, with their sizes.

use aya::maps::{HashMap as BpfHash, LpmTrie, MapData};
use proxy_common::{
    Destination, ListenerKey, Subnet, Verdict, Workload,
    direct::{self, AccountKey},
    egress::{OwnAddress, Way},
};

use super::{
    super::error::Error,
    plan::{EntryKey, SteeredKey},
    slots::Slots,
    table::{About, Table},
};

pub(super) const MAX_LISTENERS: &str = "--max-listeners";
pub(super) const MAX_ENDPOINTS: &str = "--max-endpoints";
/// No setting makes it larger: so many workloads one machine does not have.
const FEWER_WORKLOADS: &str = "fewer workloads";

type Hash<K, V> = BpfHash<MapData, K, V>;
type Trie<K, V> = LpmTrie<MapData, K, V>;

/// The maps as they come out of the object.
pub(in crate::kernel) struct Opened {
    pub(in crate::kernel) workloads: Hash<u64, Workload>,
    pub(in crate::kernel) listeners: Hash<ListenerKey, direct::Listener>,
    pub(in crate::kernel) ranges: Trie<ListenerKey, direct::Listener>,
    pub(in crate::kernel) own: Hash<OwnAddress, u32>,
    pub(in crate::kernel) ways: Trie<Way, u32>,
    pub(in crate::kernel) slots: aya::maps::Array<MapData, direct::Slot>,
    pub(in crate::kernel) clusters: Hash<u32, direct::Cluster>,
    pub(in crate::kernel) endpoints: Hash<u32, direct::Endpoint>,
    pub(in crate::kernel) accounts: Hash<AccountKey, direct::Account>,
    pub(in crate::kernel) steered: Hash<Destination, u32>,
    pub(in crate::kernel) steered_ranges: Trie<Subnet, u32>,
}

/// How many entries each map has room for.
#[derive(Clone, Copy, Debug)]
pub(in crate::kernel) struct Sizes {
    pub(in crate::kernel) workloads: u32,
    /// Of `LISTENERS`, `RANGES`, `CLUSTERS`, `STEERED` and `STEERED_RANGES`; `WAYS` takes in every endpoint as well.
    pub(in crate::kernel) listeners: u32,
    /// Of `ENDPOINTS` and `ACCOUNTS`.
    pub(in crate::kernel) endpoints: u32,
}

impl Sizes {
    /// Addresses that never leave their namespace: a few for each workload.
    pub(in crate::kernel) fn own(&self) -> u32 {
        self.workloads.saturating_mul(4)
    }

    /// Ways for so many listeners and endpoints.
    pub(in crate::kernel) fn ways(&self) -> u32 {
        self.endpoints.saturating_add(self.listeners)
    }

    /// Slots for so many listeners and endpoints.
    pub(in crate::kernel) fn slots(&self) -> u32 {
        self.endpoints.saturating_mul(4)
    }
}

/// The maps with what they hold.
pub(super) struct Maps {
    pub(super) workloads: Table<Hash<u64, Workload>>,
    pub(super) listeners: Table<Hash<ListenerKey, direct::Listener>>,
    pub(super) ranges: Table<Trie<ListenerKey, direct::Listener>>,
    pub(super) own: Table<Hash<OwnAddress, u32>>,
    pub(super) ways: Table<Trie<Way, u32>>,
    pub(super) slots: Slots,
    pub(super) clusters: Table<Hash<u32, direct::Cluster>>,
    pub(super) endpoints: Table<Hash<u32, direct::Endpoint>>,
    pub(super) steered: Table<Hash<Destination, u32>>,
    pub(super) steered_ranges: Table<Trie<Subnet, u32>>,
}

impl Maps {
    /// Reads what the maps hold.
    pub(super) fn open(
        opened: Opened,
        sizes: Sizes,
    ) -> Result<(Self, Hash<AccountKey, direct::Account>), Error> {
        let listeners = |name| About { name, size: sizes.listeners, flag: MAX_LISTENERS };
        let endpoints = About { name: "ENDPOINTS", size: sizes.endpoints, flag: MAX_ENDPOINTS };
        let workloads = About { name: "WORKLOADS", size: sizes.workloads, flag: FEWER_WORKLOADS };
        let own = About { name: "OWN", size: sizes.own(), flag: FEWER_WORKLOADS };
        let ways = About { name: "WAYS", size: sizes.ways(), flag: MAX_ENDPOINTS };
        let maps = Self {
            workloads: Table::open(opened.workloads, workloads)?,
            listeners: Table::open(opened.listeners, listeners("LISTENERS"))?,
            ranges: Table::open(opened.ranges, listeners("RANGES"))?,
            own: Table::open(opened.own, own)?,
            ways: Table::open(opened.ways, ways)?,
            slots: Slots::map(opened.slots)?,
            clusters: Table::open(opened.clusters, listeners("CLUSTERS"))?,
            endpoints: Table::open(opened.endpoints, endpoints)?,
            steered: Table::open(opened.steered, listeners("STEERED"))?,
            steered_ranges: Table::open(opened.steered_ranges, listeners("STEERED_RANGES"))?,
        };
        Ok((maps, opened.accounts))
    }

    pub(super) fn slots_about(&self) -> About {
        About { name: "SLOTS", size: self.slots.size(), flag: MAX_ENDPOINTS }
    }

    pub(super) fn listener(&self, at: EntryKey) -> Option<&direct::Listener> {
        if at.exact { self.listeners.held.get(&at.key) } else { self.ranges.held.get(&(at.bits, at.key)) }
    }

    pub(super) fn put_listener(&mut self, at: EntryKey, value: direct::Listener) -> Result<bool, Error> {
        if at.exact { self.listeners.put(at.key, value) } else { self.ranges.put((at.bits, at.key), value) }
    }

    pub(super) fn remove_listener(&mut self, at: EntryKey) -> Result<Option<direct::Listener>, Error> {
        if at.exact { self.listeners.remove(at.key) } else { self.ranges.remove((at.bits, at.key)) }
    }

    /// Every key of `LISTENERS` and `RANGES`.
    pub(super) fn listener_keys(&self) -> impl Iterator<Item = EntryKey> {
        let exact = self.listeners.held.keys();
        let exact = exact.map(|key| EntryKey { exact: true, bits: ListenerKey::BITS, key: *key });
        let ranges = self.ranges.held.keys();
        exact.chain(ranges.map(|(bits, key)| EntryKey { exact: false, bits: *bits, key: *key }))
    }

    pub(super) fn is_steered(&self, key: SteeredKey) -> bool {
        match key {
            SteeredKey::Exact(key) => self.steered.held.contains_key(&key),
            SteeredKey::Range(bits, key) => self.steered_ranges.held.contains_key(&(bits, key)),
        }
    }

    /// Of a range `deliver` wants to know how long it is.
    pub(super) fn put_steered(&mut self, key: SteeredKey) -> Result<bool, Error> {
        match key {
            SteeredKey::Exact(key) => self.steered.put(key, Verdict::Steer as u32),
            SteeredKey::Range(bits, key) => self.steered_ranges.put((bits, key), bits),
        }
    }

    pub(super) fn remove_steered(&mut self, key: SteeredKey) -> Result<bool, Error> {
        Ok(match key {
            SteeredKey::Exact(key) => self.steered.remove(key)?.is_some(),
            SteeredKey::Range(bits, key) => self.steered_ranges.remove((bits, key))?.is_some(),
        })
    }

    /// Every key of `STEERED` and `STEERED_RANGES`.
    pub(super) fn steered_keys(&self) -> impl Iterator<Item = SteeredKey> {
        let exact = self.steered.held.keys().map(|key| SteeredKey::Exact(*key));
        exact.chain(self.steered_ranges.held.keys().map(|(bits, key)| SteeredKey::Range(*bits, *key)))
    }
}
