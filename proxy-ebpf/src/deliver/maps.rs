//! What is steered for anybody, and the daemon's two listeners in one network namespace.

use aya_ebpf::{
    bindings::BPF_F_NO_PREALLOC,
    macros::map,
    maps::{HashMap, LpmTrie, SockMap, lpm_trie::Key},
    programs::SkLookupContext,
};
use proxy_common::{Destination, Subnet, Verdict, is_loopback};

/// The daemon creates these two once, for all namespaces, in the size that its settings say.
const CLAIMS: u32 = 65_536;

#[map]
static STEERED: HashMap<Destination, u32> = HashMap::with_max_entries(CLAIMS, BPF_F_NO_PREALLOC);

#[map]
static STEERED_RANGES: LpmTrie<Subnet, u32> = LpmTrie::with_max_entries(CLAIMS, BPF_F_NO_PREALLOC);

/// Index 0: IPv4, index 1: IPv6. An empty place means that the daemon has no listener of that family.
#[map]
static DOORS: SockMap = SockMap::with_max_entries(2, 0);

/// Whether `destination` is steered: its exact listener, else its longest prefix. A loopback destination is only ever
/// claimed exactly: `0.0.0.0/0` is not meant to take a workload's own servers away.
#[inline(always)]
pub(crate) fn is_steered(destination: &Destination) -> bool {
    // SAFETY: without preallocation an element is freed only after every running program has ended, so the
    // reference cannot come to mean another key.
    let exact = unsafe { STEERED.get(destination) }.copied();
    let verdict = match exact {
        None if is_loopback(&destination.address) => None,
        None => STEERED_RANGES.get(Key::new(Subnet::BITS, Subnet::from(*destination))).copied(),
        exact => exact,
    };
    verdict == Some(Verdict::Steer as u32)
}

/// Hands the packet to the daemon's listener of its family; without one it goes its own way.
#[inline(always)]
pub(crate) fn hand_over(context: &SkLookupContext, is_v6: bool) {
    // A failure leaves the packet to the ordinary lookup, which is what this program does when in doubt.
    let _ = DOORS.redirect_sk_lookup(context, u32::from(is_v6), 0);
}
