//! The daemon's two listeners in one network namespace.

use aya_ebpf::{macros::map, maps::SockMap, programs::SkLookupContext};

/// Index 0: IPv4, index 1: IPv6. An empty place means that the daemon has no listener of that family.
#[map]
static DOORS: SockMap = SockMap::with_max_entries(2, 0);

/// Hands the packet to the daemon's listener of its family; without one it goes its own way.
#[inline(always)]
pub(crate) fn hand_over(context: &SkLookupContext, is_v6: bool) {
    // A failure leaves the packet to the ordinary lookup, which is what this program does when in doubt.
    let _ = DOORS.redirect_sk_lookup(context, u32::from(is_v6), 0);
}
