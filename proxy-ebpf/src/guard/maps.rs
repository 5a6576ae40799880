//! The maps of `guard`: those that `capture` has too are shared.

use core::{ffi::c_void, ptr};

use aya_ebpf::{
    bindings::{BPF_F_NO_PREALLOC, BPF_RB_NO_WAKEUP},
    btf_maps::SkStorage,
    helpers::generated::{bpf_ktime_get_ns, bpf_sk_storage_get},
    macros::{btf_map, map},
    maps::{HashMap, LpmTrie, LruHashMap, PerCpuArray, RingBuf, lpm_trie::Key},
};
use proxy_common::{
    Counter, Destination,
    direct::{Denied, Event, EventKind},
    egress::{Fragment, Guarded, Way},
};
use proxy_ebpf::is_meant;

use crate::packet::Packet;

/// Sizes of shared maps are those that `capture` was loaded with.
const SHARED: u32 = 65_536;
/// As many workloads as one daemon can look after.
const WORKLOADS: u32 = 4096;
/// Packets in fragments whose end may still be to come.
const FRAGMENTED: u32 = 4096;
/// More than this that nobody has read, and a drop is counted only: whoever sends by the million must not push other records out.
const TOO_MUCH: u64 = 512 * 1024;

#[map]
static WAYS: LpmTrie<Way, u32> = LpmTrie::with_max_entries(SHARED, BPF_F_NO_PREALLOC);

#[map]
static EVENTS: RingBuf = RingBuf::with_byte_size(1 << 20, 0);

#[map]
static COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(Counter::ALL.len() as u32, 0);

/// The daemon's own sockets, and those that are connected to it.
#[btf_map]
static OURS: SkStorage<u32> = SkStorage::new();

#[map]
static GUARDED: HashMap<u32, Guarded> = HashMap::with_max_entries(WORKLOADS, BPF_F_NO_PREALLOC);

#[map]
static FRAGMENTS: LruHashMap<Fragment, u32> = LruHashMap::with_max_entries(FRAGMENTED, 0);

/// Whose packets come out of this interface.
#[inline(always)]
pub(crate) fn guarded(ifindex: u32) -> Option<&'static Guarded> {
    // SAFETY: without preallocation an element is freed only after every running program has ended.
    unsafe { GUARDED.get(ifindex) }
}

/// Whether packets of `protocol` may leave to `destination`.
#[inline(always)]
pub(crate) fn has_way(protocol: u8, destination: &Destination) -> bool {
    let key = Key::new(Way::BITS, Way::to(protocol, destination.port, destination.address));
    WAYS.get(key).is_some_and(|bits| is_meant(*bits - Way::PORT_BITS, &destination.address))
}

/// What this socket, which the kernel gave to this program, remembers: whether it is the daemon's own, or connected to it.
#[inline(always)]
pub(crate) fn remembers(socket: *mut c_void) -> Option<u32> {
    // aya's own accessor knows only one kind of context.
    let map = ptr::from_ref(&OURS).cast_mut().cast();
    // SAFETY: the kernel checks the socket, and the value is a word.
    unsafe { bpf_sk_storage_get(map, socket, ptr::null_mut(), 0).cast::<u32>().as_ref().copied() }
}

/// Lets the other fragments of `packet` follow it; false: they would not.
#[inline(always)]
pub(crate) fn remember(ifindex: u32, packet: &Packet) -> bool {
    FRAGMENTS.insert(key(ifindex, packet), 0, 0).is_ok()
}

/// Whether the first fragment of `packet` was let pass.
#[inline(always)]
pub(crate) fn is_remembered(ifindex: u32, packet: &Packet) -> bool {
    // SAFETY: whether there is a value is all that is asked.
    unsafe { FRAGMENTS.get(key(ifindex, packet)) }.is_some()
}

#[inline(always)]
fn key(ifindex: u32, packet: &Packet) -> Fragment {
    Fragment {
        ifindex,
        id: packet.id,
        protocol: u32::from(packet.protocol),
        is_v6: u32::from(packet.is_v6),
        source: packet.source.address,
        destination: packet.destination.address,
    }
}

/// Counts a packet that was dropped, and tells the daemon of it as long as it listens.
#[inline(always)]
pub(crate) fn tell(ifindex: u32, packet: &Packet) {
    count(Counter::PacketDropped);
    let room = if EVENTS.query(0) > TOO_MUCH { None } else { EVENTS.reserve::<Event>(0) };
    let Some(mut record) = room else {
        count(Counter::RecordLost);
        return;
    };
    // SAFETY: integers and bytes, all of which are written before anybody reads them.
    let event = unsafe { &mut *record.as_mut_ptr() };
    *event = Event {
        kind: EventKind::Denied as u32,
        cause: Denied::Packet as u32,
        netns_cookie: guarded(ifindex).map_or(0, |guarded| guarded.netns_cookie),
        // SAFETY: no argument.
        at_ns: unsafe { bpf_ktime_get_ns() },
        run: u32::from(packet.protocol),
        source: packet.source.address,
        source_port: packet.source.port,
        original: packet.destination.address,
        original_port: packet.destination.port,
        logged: 1,
        ..Event::default()
    };
    record.submit(u64::from(BPF_RB_NO_WAKEUP));
}

#[inline(always)]
fn count(counter: Counter) {
    if let Some(cell) = COUNTERS.get_ptr_mut(counter as u32) {
        // SAFETY: the cell is this CPU's own, and a program is not moved to another CPU while it runs.
        unsafe { *cell += 1 };
    }
}
