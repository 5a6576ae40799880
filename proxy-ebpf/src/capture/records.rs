//! Records of single connections, and when somebody is woken for them.

use aya_ebpf::{
    bindings::{BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP},
    helpers::generated::{bpf_get_prandom_u32, bpf_ktime_get_ns},
};
use proxy_common::{
    Counter,
    direct::{Event, EventCause, EventKind, Tracked},
};

use crate::maps;

/// The daemon reads ten times a second of its own accord; more than this must not wait for that.
const ENOUGH: u64 = 64 * 1024;
/// Each time that so much more is there, a few records wake it: a wakeup costs as much as ten records.
const FEW: u64 = 1024;

/// The record of a tracked connection. `Event::kind`, `cause` and what was measured are the caller's to fill in.
#[inline(always)]
pub(crate) fn about(tracked: &Tracked, kind: EventKind, cause: EventCause) -> Event {
    // SAFETY: no argument.
    let now = unsafe { bpf_ktime_get_ns() };
    Event {
        kind: kind as u32,
        cause: cause as u32,
        netns_cookie: tracked.netns_cookie,
        at_ns: now,
        duration_ns: now - tracked.started_ns,
        cluster: tracked.cluster,
        endpoint: tracked.endpoint,
        original: tracked.original,
        original_port: tracked.original_port,
        ..Event::default()
    }
}

/// Whether the access log asks for this one.
#[inline(always)]
pub(crate) fn is_logged() -> bool {
    let threshold = maps::log_threshold();
    // SAFETY: no argument.
    threshold != 0 && (threshold == u32::MAX || unsafe { bpf_get_prandom_u32() } <= threshold)
}

/// More than this, and what was denied is counted only: whoever sends denied datagrams by the million must not push other
/// records out.
const TOO_MUCH: u64 = 512 * 1024;

/// Writes a record of something that was denied.
#[inline(always)]
pub(crate) fn denied(fill: impl FnOnce(&mut Event)) {
    if maps::untold() > TOO_MUCH {
        maps::count(Counter::RecordLost);
    } else {
        write(false, fill);
    }
}

/// Writes a record, where it is to lie; `urgent` if somebody is to act on it.
#[inline(always)]
pub(crate) fn write(urgent: bool, fill: impl FnOnce(&mut Event)) {
    let untold = maps::untold();
    let enough = untold >= ENOUGH && untold & (ENOUGH - 1) < FEW;
    let wakeup = if urgent || enough { BPF_RB_FORCE_WAKEUP } else { BPF_RB_NO_WAKEUP };
    if !maps::tell(u64::from(wakeup), fill) {
        maps::count(Counter::RecordLost);
    }
}
