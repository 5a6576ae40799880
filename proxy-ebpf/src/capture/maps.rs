//! The maps and settings of `capture`, behind one typed function each.

use aya_ebpf::{
    Global,
    bindings::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC, BPF_NOEXIST},
    btf_maps::SkStorage,
    helpers::generated::{bpf_ktime_get_ns, bpf_sk_storage_get},
    macros::{btf_map, map},
    maps::{Array, HashMap, LpmTrie, PerCpuArray, RingBuf, lpm_trie::Key},
};
use core::{ffi::c_void, ptr::from_ref};
use proxy_common::{
    Counter, ListenerKey, Workload,
    direct::{Account, AccountKey, Cluster, Endpoint, Event, Listener, Slot, Tracked},
};

/// Sizes are defaults: the daemon's settings override them at load.
const MANY: u32 = 65_536;
const EVENT_BYTES: u32 = 1 << 20;
/// Records wait for the daemon to look by itself until so many bytes of them are there.
const PATIENCE_BYTES: u64 = 64 << 10;
const BPF_RB_NO_WAKEUP: u64 = 1;
const BPF_RB_FORCE_WAKEUP: u64 = 2;
const BPF_RB_AVAIL_DATA: u64 = 0;
const BPF_SK_STORAGE_GET_F_CREATE: u64 = 1;

/// The daemon's own cgroup: what its tasks dial is never captured. Set at load.
#[unsafe(no_mangle)]
static OWN_CGROUP: Global<u64> = Global::new(0);

/// The mark of steered sockets. Set at load.
#[unsafe(no_mangle)]
static MARK: Global<u32> = Global::new(0);

/// A connection gets a record when a random number is below this; 0: none does. Set at load.
#[unsafe(no_mangle)]
static DIRECT_LOG: Global<u32> = Global::new(u32::MAX);

#[map]
static WORKLOADS: HashMap<u64, Workload> = HashMap::with_max_entries(4096, BPF_F_NO_PREALLOC);

#[map]
static LISTENERS: HashMap<ListenerKey, Listener> = HashMap::with_max_entries(MANY, BPF_F_NO_PREALLOC);

#[map]
static RANGES: LpmTrie<ListenerKey, Listener> = LpmTrie::with_max_entries(MANY, 0);

#[map]
static SLOTS: Array<Slot> = Array::with_max_entries(4 * MANY, BPF_F_MMAPABLE);

#[map]
static CLUSTERS: HashMap<u32, Cluster> = HashMap::with_max_entries(MANY, BPF_F_NO_PREALLOC);

#[map]
static ENDPOINTS: HashMap<u32, Endpoint> = HashMap::with_max_entries(MANY, BPF_F_NO_PREALLOC);

#[map]
static ACCOUNTS: HashMap<AccountKey, Account> = HashMap::with_max_entries(MANY, BPF_F_NO_PREALLOC);

#[btf_map]
static TRACKED: SkStorage<Tracked> = SkStorage::new();

#[map]
static EVENTS: RingBuf = RingBuf::with_byte_size(EVENT_BYTES, 0);

#[map]
static LEASE: Array<u64> = Array::with_max_entries(1, 0);

#[map]
static COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(Counter::ALL.len() as u32, 0);

/// What a new account begins with: in read-only memory, as the stack is small.
static EMPTY: Account = Account {
    active: 0,
    cursor: 0,
    opened: 0,
    closed: 0,
    failed: 0,
    abandoned: 0,
    overflowed: 0,
    unhealthy: 0,
    missing: 0,
    received: 0,
    sent: 0,
    rtt_us: 0,
    run: 0,
};

/// The workload that lives in the network namespace with this cookie.
#[inline(always)]
pub(crate) fn workload(netns_cookie: u64) -> Option<&'static Workload> {
    // SAFETY: without preallocation an element is freed only after every running program has ended.
    unsafe { WORKLOADS.get(netns_cookie) }
}

/// The listener of exactly this address.
#[inline(always)]
pub(crate) fn listener(key: &ListenerKey) -> Option<&'static Listener> {
    // SAFETY: as for `workload`.
    unsafe { LISTENERS.get(key) }
}

/// The listener of the longest prefix that holds the address.
#[inline(always)]
pub(crate) fn range(key: &ListenerKey) -> Option<&'static Listener> {
    RANGES.get(Key::new(ListenerKey::BITS, *key))
}

/// The slot at `place`.
#[inline(always)]
pub(crate) fn slot(place: u32) -> Option<Slot> {
    SLOTS.get(place).copied()
}

/// The cluster of this number.
#[inline(always)]
pub(crate) fn cluster(number: u32) -> Option<&'static Cluster> {
    // SAFETY: as for `workload`.
    unsafe { CLUSTERS.get(number) }
}

/// The endpoint of this number.
#[inline(always)]
pub(crate) fn endpoint(number: u32) -> Option<&'static Endpoint> {
    // SAFETY: as for `workload`.
    unsafe { ENDPOINTS.get(number) }
}

/// The account of `key`, if somebody opened it.
#[inline(always)]
pub(crate) fn known_account(key: &AccountKey) -> Option<*mut Account> {
    ACCOUNTS.get_ptr_mut(key)
}

/// The account of `key`, opened if need be; `None`: there is no room.
#[inline(always)]
pub(crate) fn account(key: &AccountKey) -> Option<*mut Account> {
    if let Some(known) = ACCOUNTS.get_ptr_mut(key) {
        return Some(known);
    }
    // Another processor may be first, which is as good.
    let _ = ACCOUNTS.insert(key, &EMPTY, u64::from(BPF_NOEXIST));
    ACCOUNTS.get_ptr_mut(key)
}

/// What `socket` remembers; null: nothing.
///
/// # Safety
/// `socket` comes from this program's context.
#[inline(always)]
pub(crate) unsafe fn tracked(socket: *mut c_void) -> *mut Tracked {
    // SAFETY: the caller's word on the socket; without a flag nothing is made.
    unsafe { bpf_sk_storage_get(tracked_map(), socket, core::ptr::null_mut(), 0).cast() }
}

/// What `socket` remembers, zeros if that is nothing yet; null: there is no memory.
///
/// # Safety
/// `socket` comes from this program's context.
#[inline(always)]
pub(crate) unsafe fn track(socket: *mut c_void) -> *mut Tracked {
    let flags = BPF_SK_STORAGE_GET_F_CREATE;
    // SAFETY: the caller's word on the socket; without a value the kernel gives zeros.
    unsafe { bpf_sk_storage_get(tracked_map(), socket, core::ptr::null_mut(), flags).cast() }
}

/// The library's own accessors take connect contexts only.
#[inline(always)]
fn tracked_map() -> *mut c_void {
    from_ref(&TRACKED).cast_mut().cast()
}

/// Gives a record to the daemon: at once if it is `urgent`, else when it looks by itself or many are waiting.
#[inline(always)]
pub(crate) fn record(event: &Event, urgent: bool) {
    let wake = urgent || EVENTS.query(BPF_RB_AVAIL_DATA) > PATIENCE_BYTES;
    let flags = if wake { BPF_RB_FORCE_WAKEUP } else { BPF_RB_NO_WAKEUP };
    if EVENTS.output::<Event>(event, flags).is_err() {
        count(Counter::RecordLost);
    }
}

/// Whether the tables are nobody's word any more: the daemon has been gone for too long.
#[inline(always)]
pub(crate) fn is_lease_over(now_ns: u64) -> bool {
    LEASE.get(0).is_some_and(|until| *until != 0 && *until < now_ns)
}

/// CLOCK_MONOTONIC.
#[inline(always)]
pub(crate) fn now_ns() -> u64 {
    // SAFETY: no argument.
    unsafe { bpf_ktime_get_ns() }
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

/// The share of connections that get a record, of `u32::MAX`.
#[inline(always)]
pub(crate) fn direct_log() -> u32 {
    DIRECT_LOG.load()
}
