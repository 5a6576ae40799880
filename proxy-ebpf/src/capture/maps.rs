//! The maps and settings of `capture`, behind one typed function each.

use core::{ffi::c_void, ptr};

use aya_ebpf::{
    Global,
    bindings::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC, BPF_NOEXIST, BPF_SK_STORAGE_GET_F_CREATE},
    btf_maps::SkStorage,
    helpers::generated::bpf_sk_storage_get,
    macros::{btf_map, map},
    maps::{Array, HashMap, LpmTrie, PerCpuArray, RingBuf, lpm_trie::Key},
};
use proxy_common::{
    Counter, Destination, ListenerKey, Workload,
    direct::{Account, AccountKey, Cluster, Endpoint, Event, Listener, Slot, Tracked},
    egress::KEPT_INSIDE,
    egress::{OwnAddress, Way},
    is_loopback,
};
use proxy_ebpf::is_meant;

/// The daemon's own cgroup: what its tasks dial is never captured. Set at load.
#[unsafe(no_mangle)]
static OWN_CGROUP: Global<u64> = Global::new(0);

/// The mark of steered sockets. Set at load.
#[unsafe(no_mangle)]
static MARK: Global<u32> = Global::new(0);

/// A record is written when a draw is at most this; 0: never. Set at load.
#[unsafe(no_mangle)]
static DIRECT_LOG: Global<u32> = Global::new(u32::MAX);

/// Bits of a [`ListenerKey`] before the address: scope and port.
const PORT_BITS: u32 = ListenerKey::BITS - 128;

/// Sizes are defaults: the daemon's settings override them at load.
const LISTENERS_SIZE: u32 = 65_536;
const ENDPOINTS_SIZE: u32 = 131_072;

#[map]
static WORKLOADS: HashMap<u64, Workload> = HashMap::with_max_entries(4096, BPF_F_NO_PREALLOC);

#[map]
static LISTENERS: HashMap<ListenerKey, Listener> =
    HashMap::with_max_entries(LISTENERS_SIZE, BPF_F_NO_PREALLOC);

#[map]
static RANGES: LpmTrie<ListenerKey, Listener> = LpmTrie::with_max_entries(LISTENERS_SIZE, BPF_F_NO_PREALLOC);

/// Of each workload's namespace a few.
const OWN_SIZE: u32 = 16_384;

#[map]
static OWN: HashMap<OwnAddress, u32> = HashMap::with_max_entries(OWN_SIZE, BPF_F_NO_PREALLOC);

#[map]
static WAYS: LpmTrie<Way, u32> = LpmTrie::with_max_entries(LISTENERS_SIZE, BPF_F_NO_PREALLOC);

#[map]
static SLOTS: Array<Slot> = Array::with_max_entries(4 * ENDPOINTS_SIZE, BPF_F_MMAPABLE);

#[map]
static CLUSTERS: HashMap<u32, Cluster> = HashMap::with_max_entries(LISTENERS_SIZE, BPF_F_NO_PREALLOC);

#[map]
static ENDPOINTS: HashMap<u32, Endpoint> = HashMap::with_max_entries(ENDPOINTS_SIZE, BPF_F_NO_PREALLOC);

#[map]
static ACCOUNTS: HashMap<AccountKey, Account> = HashMap::with_max_entries(ENDPOINTS_SIZE, BPF_F_NO_PREALLOC);

#[btf_map]
static TRACKED: SkStorage<Tracked> = SkStorage::new();

/// Sockets that `guard` does not treat like others.
#[btf_map]
static OURS: SkStorage<u32> = SkStorage::new();

#[map]
static EVENTS: RingBuf = RingBuf::with_byte_size(1 << 20, 0);

#[map]
static LEASE: Array<u64> = Array::with_max_entries(1, 0);

#[map]
static COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(Counter::ALL.len() as u32, 0);

/// What an account begins as. It is copied from here: the programs' stacks are small.
// SAFETY: integers; zero is a valid value of each.
static FRESH: Account = unsafe { core::mem::zeroed() };

/// The workload that lives in the network namespace with this cookie.
#[inline(always)]
pub(crate) fn workload(netns_cookie: u64) -> Option<&'static Workload> {
    // SAFETY: without preallocation an element is freed only after every running program has ended; the same holds
    // for the other tables.
    unsafe { WORKLOADS.get(netns_cookie) }
}

/// The listener for `destination` of workloads with this scope: exact before ranges, its own before everybody's, of
/// ranges the longer. A loopback destination is only ever claimed exactly, and whoever claims any address does not mean the
/// infrastructure.
#[inline(always)]
pub(crate) fn listener(scope: u32, destination: &Destination) -> Option<&'static Listener> {
    let key = |scope: u32| ListenerKey {
        scope: scope.to_be_bytes(),
        port: destination.port,
        address: destination.address,
    };
    // SAFETY: as in `workload`.
    let exact = |scope| unsafe { LISTENERS.get(key(scope)) };
    if scope != 0
        && let Some(listener) = exact(scope)
    {
        return Some(listener);
    }
    if let Some(listener) = exact(0) {
        return Some(listener);
    }
    if is_loopback(&destination.address) {
        return None;
    }
    let fits = |listener: &&Listener| is_meant(listener.bits - PORT_BITS, &destination.address);
    let range = |scope| RANGES.get(Key::new(ListenerKey::BITS, key(scope))).filter(fits);
    let common = range(0);
    if scope == 0 {
        return common;
    }
    match (range(scope), common) {
        (Some(own), Some(common)) if common.bits > own.bits => Some(common),
        (Some(own), _) => Some(own),
        (None, common) => common,
    }
}

/// Whether `address` is one of the namespace's own.
#[inline(always)]
pub(crate) fn is_own(netns_cookie: u64, address: &[u8; 16]) -> bool {
    // SAFETY: as in `workload`.
    unsafe { OWN.get(OwnAddress { netns_cookie, address: *address }) }.is_some()
}

/// Whether packets of `protocol` may leave to `destination`.
#[inline(always)]
pub(crate) fn has_way(protocol: u8, destination: &Destination) -> bool {
    let key = Key::new(Way::BITS, Way::to(protocol, destination.port, destination.address));
    WAYS.get(key).is_some_and(|bits| is_meant(*bits - Way::PORT_BITS, &destination.address))
}

/// The slot at this place.
#[inline(always)]
pub(crate) fn slot(place: u32) -> Option<Slot> {
    SLOTS.get(place).copied()
}

/// The cluster with this number.
#[inline(always)]
pub(crate) fn cluster(number: u32) -> Option<&'static Cluster> {
    // SAFETY: as in `workload`.
    unsafe { CLUSTERS.get(number) }
}

/// The endpoint with this number.
#[inline(always)]
pub(crate) fn endpoint(number: u32) -> Option<&'static Endpoint> {
    // SAFETY: as in `workload`.
    unsafe { ENDPOINTS.get(number) }
}

/// The account, if there is one.
#[inline(always)]
pub(crate) fn known_account(key: &AccountKey) -> Option<*mut Account> {
    ACCOUNTS.get_ptr_mut(key)
}

/// The account, made if need be; `None`: no room.
#[inline(always)]
pub(crate) fn account(key: &AccountKey) -> Option<*mut Account> {
    if let Some(account) = known_account(key) {
        return Some(account);
    }
    // Somebody else may be faster; theirs is as good.
    let _ = ACCOUNTS.insert(key, &FRESH, u64::from(BPF_NOEXIST));
    known_account(key)
}

/// What a socket remembers, if anything. `socket` is one that the kernel gave to this program.
#[inline(always)]
pub(crate) fn tracked(socket: *mut c_void) -> Option<&'static mut Tracked> {
    storage(&TRACKED, socket, 0)
}

/// What a socket remembers, made if need be; `None`: no memory.
#[inline(always)]
pub(crate) fn track(socket: *mut c_void) -> Option<&'static mut Tracked> {
    storage(&TRACKED, socket, u64::from(BPF_SK_STORAGE_GET_F_CREATE))
}

/// Remembers that a socket is the daemon's own. Without memory for that its packets are like others'.
#[inline(always)]
pub(crate) fn is_ours(socket: *mut c_void) {
    let _ = storage(&OURS, socket, u64::from(BPF_SK_STORAGE_GET_F_CREATE));
}

/// Remembers that a socket is connected to the daemon, so that none of its packets has any business outside.
#[inline(always)]
pub(crate) fn is_kept_inside(socket: *mut c_void) {
    if let Some(whose) = storage(&OURS, socket, u64::from(BPF_SK_STORAGE_GET_F_CREATE)) {
        *whose = KEPT_INSIDE;
    }
}

#[inline(always)]
fn storage<T>(map: &SkStorage<T>, socket: *mut c_void, flags: u64) -> Option<&'static mut T> {
    // aya's own accessor knows only one kind of context.
    let map = ptr::from_ref(map).cast_mut().cast();
    // SAFETY: the map holds values of this type, zeros at first; the kernel checks the socket. The socket's lock keeps
    // others away, except from `state`, which is only ever exchanged.
    unsafe { bpf_sk_storage_get(map, socket, ptr::null_mut(), flags).cast::<T>().as_mut() }
}

/// Until when direct listeners may be used; 0: for ever.
#[inline(always)]
pub(crate) fn lease() -> u64 {
    LEASE.get(0).copied().unwrap_or(0)
}

/// Writes a record; false: no room.
#[inline(always)]
pub(crate) fn tell(wakeup: u64, fill: impl FnOnce(&mut Event)) -> bool {
    let Some(mut record) = EVENTS.reserve::<Event>(0) else { return false };
    // SAFETY: integers and bytes, all of which `fill` writes before anybody reads them.
    fill(unsafe { &mut *record.as_mut_ptr() });
    record.submit(wakeup);
    true
}

/// Bytes of records that nobody has read yet.
#[inline(always)]
pub(crate) fn untold() -> u64 {
    EVENTS.query(0)
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

/// Up to which draw a record is written; 0: never.
#[inline(always)]
pub(crate) fn log_threshold() -> u32 {
    DIRECT_LOG.load()
}
