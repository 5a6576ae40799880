//! What `connect()` would find, read from the maps as the programs read them.

use proxy_common::{
    Destination, ListenerKey,
    direct::{Cluster, Endpoint, Listener, Slot},
};

/// A listener with everything that it leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Under which scope it stands: 0 for everybody.
    pub scope: u32,
    /// What `LISTENERS` or `RANGES` says.
    pub listener: Listener,
    /// Its arms.
    pub arms: Vec<Slot>,
    /// The clusters that they name, by number, with their slots.
    pub clusters: Vec<(u32, Cluster, Vec<Slot>)>,
    /// The endpoints that those name, by number.
    pub endpoints: Vec<(u32, Endpoint)>,
}

/// The key that a lookup for `destination` asks with.
pub(super) fn key(scope: u32, destination: Destination) -> ListenerKey {
    ListenerKey { scope: scope.to_be_bytes(), port: destination.port, address: destination.address }
}

/// The numbers that slots name, each once.
pub(super) fn numbers<'a>(slots: impl IntoIterator<Item = &'a Slot>) -> Vec<u32> {
    let mut numbers: Vec<_> = slots.into_iter().flat_map(|slot| [slot.own, slot.alias]).collect();
    numbers.sort_unstable();
    numbers.dedup();
    numbers
}
