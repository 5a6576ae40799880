//! The maps that both objects share, behind one typed function each.

use aya_ebpf::{
    bindings::BPF_F_NO_PREALLOC,
    macros::map,
    maps::{HashMap, LpmTrie, lpm_trie::Key},
};
use proxy_common::{Destination, Subnet};

/// Sizes are defaults: the daemon's settings override them at load.
const CLAIMS: u32 = 65_536;

#[map]
static LISTENERS: HashMap<Destination, u32> = HashMap::with_max_entries(CLAIMS, BPF_F_NO_PREALLOC);

#[map]
static SUBNETS: LpmTrie<Subnet, u32> = LpmTrie::with_max_entries(CLAIMS, 0);

/// The verdict of the listener on exactly this destination.
#[inline(always)]
pub(crate) fn listener(destination: &Destination) -> Option<u32> {
    // SAFETY: without preallocation an element is freed only after every running program has ended, so the
    // reference cannot come to mean another key.
    unsafe { LISTENERS.get(destination) }.copied()
}

/// The verdict of the longest prefix that holds the destination.
#[inline(always)]
pub(crate) fn subnet(destination: &Destination) -> Option<u32> {
    SUBNETS.get(Key::new(Subnet::BITS, Subnet::from(*destination))).copied()
}
