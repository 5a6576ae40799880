//! What becomes of a direct connection: seen at the socket, never at its bytes.

use core::{
    ffi::c_void,
    mem::size_of,
    ptr::{addr_of, from_mut, read_volatile},
};

use aya_ebpf::{
    bindings::{bpf_sock, bpf_sock_ops},
    helpers::generated::{bpf_setsockopt, bpf_sock_ops_cb_flags_set, bpf_tcp_sock},
};
use proxy_common::{
    direct::{AccountKey, Event, EventCause, EventKind, Tracked},
    limit,
};
use proxy_ebpf::{v4_mapped, words};

use crate::{
    books::{self, add},
    direct, maps,
};

const TCP_CONNECT_CB: u32 = 3;
const ACTIVE_ESTABLISHED_CB: u32 = 4;
const RTO_CB: u32 = 8;
const STATE_CB: u32 = 10;
/// Calls at every retransmission timeout, and at every change of state.
const WANTED_CALLS: u32 = 1 | 4;

const ESTABLISHED: u32 = 1;
const FIN_WAIT1: u32 = 4;
const FIN_WAIT2: u32 = 5;
const TIME_WAIT: u32 = 6;
const CLOSE: u32 = 7;
const CLOSE_WAIT: u32 = 8;
const LAST_ACK: u32 = 9;
const CLOSING: u32 = 11;

const SOL_TCP: i32 = 6;
const TCP_USER_TIMEOUT: i32 = 18;
const AF_INET6: u32 = 10;

/// Reads one field of the context, each by a volatile access of its own, as the verifier wants it.
macro_rules! field {
    ($ops:expr, $($field:tt)+) => {{
        let ops: *mut bpf_sock_ops = $ops;
        // SAFETY: the kernel passes a valid `bpf_sock_ops` and allows reads of this field.
        unsafe { read_volatile(addr_of!((*ops).$($field)+)) }
    }};
}

/// Something happened to a socket.
#[inline(always)]
pub(crate) fn happened(ops: *mut bpf_sock_ops) {
    let what = field!(ops, op);
    if what != TCP_CONNECT_CB && what != ACTIVE_ESTABLISHED_CB && what != RTO_CB && what != STATE_CB {
        return;
    }
    let (before, now) = (field!(ops, __bindgen_anon_1.args[0]), field!(ops, __bindgen_anon_1.args[1]));
    let socket = field!(ops, __bindgen_anon_2.sk);
    if socket.is_null() {
        return;
    }
    // SAFETY: the socket is this context's and not null.
    let memory = unsafe { maps::tracked(socket.cast()) };
    if memory.is_null() {
        return;
    }
    // SAFETY: not null; the kernel calls with the socket locked. The state alone is shared, and exchanged by address.
    let tracked = unsafe { &mut *memory };
    match what {
        TCP_CONNECT_CB => begun(ops, tracked),
        ACTIVE_ESTABLISHED_CB => established(ops, tracked),
        RTO_CB => tracked.flags |= Tracked::RETRIED,
        _ => changed(ops, socket, tracked, before, now),
    }
}

/// A SYN is about to leave: from here on the socket's end will be seen.
#[inline(always)]
fn begun(ops: *mut bpf_sock_ops, tracked: &mut Tracked) {
    if tracked.flags & Tracked::DEFERRED != 0 {
        direct::reserve_late(tracked);
    }
    // SAFETY: a volatile read; others exchange it.
    if unsafe { read_volatile(&raw const tracked.state) } == limit::FREE {
        return;
    }
    let flags = field!(ops, bpf_sock_ops_cb_flags) | WANTED_CALLS;
    // SAFETY: the context is the one that this program was called with. The kernel knows both flags.
    unsafe { bpf_sock_ops_cb_flags_set(ops, flags as i32) };
}

/// The endpoint answered.
#[inline(always)]
fn established(ops: *mut bpf_sock_ops, tracked: &mut Tracked) {
    // SAFETY: a volatile read; others exchange it.
    if unsafe { read_volatile(&raw const tracked.state) } == limit::FREE {
        return;
    }
    tracked.flags |= Tracked::ESTABLISHED;
    if let Some(account) = maps::known_account(&books::own(tracked)) {
        add!(account, opened, 1);
    }
    if tracked.flags & Tracked::TIMEOUT_SET != 0 {
        tracked.flags &= !Tracked::TIMEOUT_SET;
        let mut timeout = tracked.user_timeout_ms;
        let length = size_of::<u32>() as i32;
        // SAFETY: the value is four initialised bytes on the stack. The kernel took this option before.
        unsafe { bpf_setsockopt(ops.cast(), SOL_TCP, TCP_USER_TIMEOUT, from_mut(&mut timeout).cast(), length) };
    }
    if tracked.flags & Tracked::OUTLIER != 0
        && let Some(account) = maps::known_account(&everybodys(tracked))
    {
        // SAFETY: a map's value; whoever counts a failure meanwhile is as right as we are.
        unsafe { crate::atomic::swap(&raw mut (*account).run, 0) };
    }
}

/// The account that holds an endpoint's run of failures.
#[inline(always)]
fn everybodys(tracked: &Tracked) -> AccountKey {
    AccountKey { netns_cookie: 0, cluster: tracked.cluster, endpoint: tracked.endpoint }
}

/// The connection's state changed.
#[inline(always)]
fn changed(ops: *mut bpf_sock_ops, socket: *mut bpf_sock, tracked: &mut Tracked, before: u32, now: u32) {
    if now == CLOSE {
        closed(ops, socket, tracked, before);
        // Storage outlives the connection; a socket may be used again.
        tracked.flags &= Tracked::TIMEOUT_SET;
        books::release(from_mut(tracked));
    } else if before == ESTABLISHED && now == FIN_WAIT1 {
        tracked.flags |= Tracked::CLIENT_FIRST;
        if tracked.flags & Tracked::LET_GO != 0 {
            tracked.received = received(socket);
            tracked.flags |= Tracked::RECEIVED;
        }
    } else if before == ESTABLISHED && now == CLOSE_WAIT {
        tracked.flags |= Tracked::SERVER_FIRST;
    }
}

/// Bytes that came, a FIN counted as one.
#[inline(always)]
fn received(socket: *mut bpf_sock) -> u64 {
    // SAFETY: the socket is the context's and not null.
    let tcp = unsafe { bpf_tcp_sock(socket) };
    if tcp.is_null() {
        return 0;
    }
    // SAFETY: not null.
    unsafe { read_volatile(addr_of!((*tcp).bytes_received)) }
}

/// A connection ended, or never came to be.
#[inline(always)]
fn closed(ops: *mut bpf_sock_ops, socket: *mut bpf_sock, tracked: &mut Tracked, before: u32) {
    if tracked.flags & Tracked::ESTABLISHED != 0 {
        ended(ops, socket, tracked, before);
        return;
    }
    // SAFETY: a volatile read; others exchange it.
    let is_ours = tracked.flags & Tracked::LET_GO != 0
        || unsafe { read_volatile(&raw const tracked.state) } != limit::FREE;
    if is_ours {
        failed(ops, tracked);
    }
}

/// An established connection ended.
#[inline(always)]
fn ended(ops: *mut bpf_sock_ops, socket: *mut bpf_sock, tracked: &Tracked, before: u32) {
    // SAFETY: the socket is the context's and not null.
    let tcp = unsafe { bpf_tcp_sock(socket) };
    if tcp.is_null() {
        return;
    }
    // SAFETY: not null; each field is read once.
    let (acked, arrived, rtt) = unsafe {
        (
            read_volatile(addr_of!((*tcp).bytes_acked)),
            read_volatile(addr_of!((*tcp).bytes_received)),
            read_volatile(addr_of!((*tcp).srtt_us)),
        )
    };
    // The kernel counts SYN and FIN as a byte each.
    let fin_acked = before == FIN_WAIT2 || before == LAST_ACK || before == CLOSING || before == TIME_WAIT;
    let from_client = acked.saturating_sub(1 + u64::from(fin_acked));
    let fin_came = tracked.flags & Tracked::SERVER_FIRST != 0 || before == FIN_WAIT2 || before == CLOSING;
    let to_client = if tracked.flags & Tracked::RECEIVED != 0 {
        tracked.received
    } else {
        arrived.saturating_sub(u64::from(fin_came))
    };
    let rtt_us = rtt >> 3;
    if let Some(account) = maps::known_account(&books::own(tracked)) {
        add!(account, closed, 1);
        add!(account, received, from_client);
        add!(account, sent, to_client);
        add!(account, rtt_us, u64::from(rtt_us));
    }
    if books::is_logged() {
        let mut event = books::event(tracked, EventKind::Closed, end_of(tracked, before));
        (event.received, event.sent, event.rtt_us) = (from_client, to_client, rtt_us);
        source(ops, &mut event);
        maps::record(&event, false);
    }
}

/// Why an established connection ended.
#[inline(always)]
fn end_of(tracked: &Tracked, before: u32) -> EventCause {
    let in_order = before == FIN_WAIT2 || before == LAST_ACK || before == CLOSING || before == TIME_WAIT;
    if in_order {
        let client_first = tracked.flags & Tracked::CLIENT_FIRST != 0;
        return if client_first { EventCause::ClientFin } else { EventCause::ServerFin };
    }
    // A client that closes with bytes unread, or is told not to linger, resets.
    if tracked.flags & Tracked::LET_GO != 0 { EventCause::ClientReset } else { EventCause::ServerReset }
}

/// A connection was never established.
#[inline(always)]
fn failed(ops: *mut bpf_sock_ops, tracked: &Tracked) {
    let cause = if tracked.flags & Tracked::LET_GO != 0 {
        EventCause::ClientGone
    } else if tracked.flags & Tracked::RETRIED != 0 {
        EventCause::ConnectTimeout
    } else {
        EventCause::ConnectRefused
    };
    let gave_up = tracked.flags & Tracked::LET_GO != 0;
    if let Some(account) = maps::known_account(&books::own(tracked)) {
        if gave_up {
            add!(account, abandoned, 1);
        } else {
            add!(account, failed, 1);
        }
    }
    let mut run = 0;
    // That an application gave up says little about the endpoint.
    if tracked.flags & Tracked::OUTLIER != 0
        && !gave_up
        && tracked.endpoint != 0
        && let Some(account) = maps::account(&everybodys(tracked))
    {
        run = add!(account, run, 1) as u32 + 1;
    }
    let logged = books::is_logged();
    if !logged && run == 0 {
        return;
    }
    let mut event = books::event(tracked, EventKind::Failed, cause);
    (event.run, event.logged) = (run, u8::from(logged));
    source(ops, &mut event);
    maps::record(&event, run != 0);
}

/// The client's own end of the connection. Both families are read up front, as the verifier wants it.
#[inline(always)]
fn source(ops: *mut bpf_sock_ops, event: &mut Event) {
    let v4 = field!(ops, local_ip4);
    let v6 = [
        field!(ops, local_ip6[0]),
        field!(ops, local_ip6[1]),
        field!(ops, local_ip6[2]),
        field!(ops, local_ip6[3]),
    ];
    let is_v6 = field!(ops, family) == AF_INET6;
    // The one port of this context that is in host order.
    event.source_port = (field!(ops, local_port) as u16).to_be_bytes();
    event.source = if is_v6 { words(v6) } else { v4_mapped(v4) };
}

/// The application let go of a socket. An established connection may have bytes to deliver still, and ends later.
#[inline(always)]
pub(crate) fn let_go(socket: *mut bpf_sock) {
    // SAFETY: the socket is this context itself.
    let memory = unsafe { maps::tracked(socket.cast::<c_void>()) };
    if memory.is_null() {
        return;
    }
    // SAFETY: not null.
    unsafe { (*memory).flags |= Tracked::LET_GO };
    books::release(memory);
}
