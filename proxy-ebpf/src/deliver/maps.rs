//! What is steered for anybody, and in one network namespace: the daemon's sockets, the machine's own addresses, and what
//! else is steered there.

use aya_ebpf::{
    bindings::BPF_F_NO_PREALLOC,
    macros::map,
    maps::{Array, HashMap, LpmTrie, SockMap, lpm_trie::Key},
    programs::SkLookupContext,
};
use proxy_common::{Destination, Subnet, Verdict, is_loopback};
use proxy_ebpf::is_meant;

/// The daemon creates these two once, for all namespaces, in the size that its settings say.
const CLAIMS: u32 = 65_536;
/// Addresses that one namespace may have, beyond which it is like any other's.
const ADDRESSES: u32 = 256;
/// Bits of [`FLAGS`]: what no listener claims is steered too, since it is to be closed.
const STEERS_ALL: u32 = 1;
/// Questions to name servers come to the daemon.
const ANSWERS: u32 = 2;
/// Bits of a [`Subnet`] before the address.
const PORT_BITS: u32 = Subnet::BITS - 128;
/// Where name servers listen.
const DNS: [u8; 2] = 53_u16.to_be_bytes();

#[map]
static STEERED: HashMap<Destination, u32> = HashMap::with_max_entries(CLAIMS, BPF_F_NO_PREALLOC);

/// The value is the number of bits of the key.
#[map]
static STEERED_RANGES: LpmTrie<Subnet, u32> = LpmTrie::with_max_entries(CLAIMS, BPF_F_NO_PREALLOC);

/// The namespace's own addresses.
#[map]
static HOME: HashMap<[u8; 16], u32> = HashMap::with_max_entries(ADDRESSES, BPF_F_NO_PREALLOC);

#[map]
static FLAGS: Array<u32> = Array::with_max_entries(1, 0);

/// Each door for IPv4, then for IPv6. An empty place means that the daemon has no such socket.
#[map]
static DOORS: SockMap = SockMap::with_max_entries(4, 0);

/// One of the daemon's sockets in the namespace.
#[derive(Clone, Copy)]
pub(crate) enum Door {
    /// Its listener.
    Connections = 0,
    /// Its socket for name queries.
    Names = 2,
}

/// Whether a connection to `destination` is steered: its exact listener says it, else its longest prefix, else the policy of
/// the namespace. A loopback destination is only ever claimed exactly, and so are the machine's own: ranges are not meant to
/// take a workload's own servers away. Whoever claims any address does not mean the infrastructure.
#[inline(always)]
pub(crate) fn is_steered(destination: &Destination) -> bool {
    // SAFETY: without preallocation an element is freed only after every running program has ended, so the
    // reference cannot come to mean another key.
    if let Some(verdict) = unsafe { STEERED.get(destination) } {
        return *verdict == Verdict::Steer as u32;
    }
    if is_home(destination) {
        return false;
    }
    let range = STEERED_RANGES.get(Key::new(Subnet::BITS, Subnet::from(*destination)));
    range.is_some_and(|bits| is_meant(*bits - PORT_BITS, &destination.address))
        || has(STEERS_ALL)
        || (has(ANSWERS) && destination.port == DNS)
}

/// Whether a datagram to `destination` is a question that the daemon answers.
#[inline(always)]
pub(crate) fn is_asked(destination: &Destination) -> bool {
    destination.port == DNS && has(ANSWERS) && !is_home(destination)
}

/// Hands the packet to the daemon's socket of its family; without one it goes its own way.
#[inline(always)]
pub(crate) fn hand_over(context: &SkLookupContext, door: Door, is_v6: bool) {
    // A failure leaves the packet to the ordinary lookup, which is what this program does when in doubt.
    let _ = DOORS.redirect_sk_lookup(context, door as u32 + u32::from(is_v6), 0);
}

#[inline(always)]
fn is_home(destination: &Destination) -> bool {
    // SAFETY: as in `is_steered`.
    is_loopback(&destination.address) || unsafe { HOME.get(destination.address) }.is_some()
}

#[inline(always)]
fn has(flag: u32) -> bool {
    FLAGS.get(0).is_some_and(|flags| *flags & flag != 0)
}
