//! The maps that the daemon's listeners are found by: what is steered for somebody. Made once, used by every `deliver`.

use aya_ebpf::{
    bindings::BPF_F_NO_PREALLOC,
    macros::map,
    maps::{HashMap, LpmTrie, lpm_trie::Key},
};
use proxy_common::{Destination, Subnet};

/// Sizes are defaults: the daemon's settings override them at load.
const LISTENERS: u32 = 65_536;

#[map]
static STEERED: HashMap<Destination, u32> = HashMap::with_max_entries(LISTENERS, BPF_F_NO_PREALLOC);

#[map]
static STEERED_RANGES: LpmTrie<Subnet, u32> = LpmTrie::with_max_entries(LISTENERS, 0);

/// Whether exactly this destination is steered.
#[inline(always)]
pub(crate) fn is_steered(destination: &Destination) -> bool {
    STEERED.get_ptr(*destination).is_some()
}

/// Whether the longest prefix that holds the destination is steered.
#[inline(always)]
pub(crate) fn is_range_steered(destination: &Destination) -> bool {
    STEERED_RANGES.get(Key::new(Subnet::BITS, Subnet::from(*destination))).is_some()
}
