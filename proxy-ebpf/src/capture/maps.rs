//! The maps and settings of `capture`, behind one typed function each.

use aya_ebpf::{
    Global,
    bindings::BPF_F_NO_PREALLOC,
    macros::map,
    maps::{HashMap, PerCpuArray},
};
use proxy_common::{Counter, Workload};

/// The daemon's own cgroup: what its tasks dial is never captured. Set at load.
#[unsafe(no_mangle)]
static OWN_CGROUP: Global<u64> = Global::new(0);

/// The mark of steered sockets. Set at load.
#[unsafe(no_mangle)]
static MARK: Global<u32> = Global::new(0);

#[map]
static WORKLOADS: HashMap<u64, Workload> = HashMap::with_max_entries(4096, BPF_F_NO_PREALLOC);

#[map]
static COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(Counter::ALL.len() as u32, 0);

/// The workload that lives in the network namespace with this cookie.
#[inline(always)]
pub(crate) fn workload(netns_cookie: u64) -> Option<&'static Workload> {
    // SAFETY: without preallocation an element is freed only after every running program has ended.
    unsafe { WORKLOADS.get(netns_cookie) }
}

/// Counts one.
#[inline(always)]
pub(crate) fn count(counter: Counter) {
    if let Some(cell) = COUNTERS.get_ptr_mut(counter as u32) {
        // SAFETY: the cell is this CPU's own, and a program is not moved to another CPU while it runs.
        unsafe { *cell += 1 };
    }
}

/// The daemon's own cgroup.
#[inline(always)]
pub(crate) fn own_cgroup() -> u64 {
    OWN_CGROUP.load()
}

/// The mark of steered sockets.
#[inline(always)]
pub(crate) fn mark() -> u32 {
    MARK.load()
}
