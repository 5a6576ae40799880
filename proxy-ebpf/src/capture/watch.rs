//! `sock_ops`: what becomes of a tracked connection, from its first SYN to CLOSE.
//!
//! Called for every connection of the cgroup; whoever is not tracked costs one look. A callback may run on behalf of
//! any task: who connects is known from the socket alone.

use core::{
    mem::size_of,
    ptr::{addr_of, from_mut, read_volatile},
};

use aya_ebpf::{
    bindings::{
        BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB, BPF_SOCK_OPS_RTO_CB, BPF_SOCK_OPS_RTO_CB_FLAG,
        BPF_SOCK_OPS_STATE_CB, BPF_SOCK_OPS_STATE_CB_FLAG, BPF_SOCK_OPS_TCP_CONNECT_CB, BPF_TCP_CLOSE,
        BPF_TCP_CLOSE_WAIT, BPF_TCP_CLOSING, BPF_TCP_ESTABLISHED, BPF_TCP_FIN_WAIT1, BPF_TCP_FIN_WAIT2,
        BPF_TCP_LAST_ACK, bpf_sock, bpf_tcp_sock,
    },
    helpers::generated::{bpf_setsockopt, bpf_sock_ops_cb_flags_set, bpf_tcp_sock},
    programs::SockOpsContext,
};
use proxy_common::{
    direct::{EventCause, Tracked},
    limit,
};
use proxy_ebpf::{v4_mapped, words};

use crate::{
    books::{self, cell},
    connect::{IPPROTO_TCP, TCP_USER_TIMEOUT},
    ends::{self, Measured, Source},
    maps,
};

const AF_INET: u32 = 2;

/// Reads one field of the context, each by a volatile access of its own, as the verifier wants it.
macro_rules! field {
    ($context:expr, $($field:tt)+) => {{
        let ops = $context.ops;
        // SAFETY: the kernel passes a valid `bpf_sock_ops` and allows reads of this field.
        unsafe { read_volatile(addr_of!((*ops).$($field)+)) }
    }};
}

/// Something happened to a socket.
#[inline(always)]
pub(crate) fn happened(context: &SockOpsContext) {
    match field!(context, op) {
        BPF_SOCK_OPS_TCP_CONNECT_CB => with_tracked(context, |_, tracked| connecting(context, tracked)),
        BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB => {
            with_tracked(context, |_, tracked| established(context, tracked))
        }
        BPF_SOCK_OPS_RTO_CB => with_tracked(context, |_, tracked| tracked.flags |= Tracked::RETRIED),
        BPF_SOCK_OPS_STATE_CB => {
            let before = field!(context, __bindgen_anon_1.args[0]);
            let after = field!(context, __bindgen_anon_1.args[1]);
            with_tracked(context, |socket, tracked| changed(context, socket, tracked, before, after));
        }
        _ => {}
    }
}

#[inline(always)]
fn with_tracked(context: &SockOpsContext, then: impl FnOnce(*mut bpf_sock, &mut Tracked)) {
    // Read once: after a second read the verifier would want a second check for null.
    let socket = field!(context, __bindgen_anon_2.sk);
    if !socket.is_null()
        && let Some(tracked) = maps::tracked(socket.cast())
    {
        then(socket, tracked);
    }
}

/// The first SYN is about to leave.
#[inline(always)]
fn connecting(context: &SockOpsContext, tracked: &mut Tracked) {
    if tracked.flags & Tracked::LATE != 0 && !reserved_late(tracked) {
        return;
    }
    let reserved = books::state(tracked).get();
    let armed = limit::armed(reserved);
    if reserved == armed || !books::state(tracked).replace(reserved, armed) {
        return;
    }
    // Others may have asked for callbacks of their own.
    let flags =
        field!(context, bpf_sock_ops_cb_flags) | BPF_SOCK_OPS_STATE_CB_FLAG | BPF_SOCK_OPS_RTO_CB_FLAG;
    // SAFETY: the context is the one this program was called with. It cannot fail: the flags are known ones.
    unsafe { bpf_sock_ops_cb_flags_set(context.ops, flags as i32) };
}

/// Takes the place of a connection that could not take it in `connect`.
#[inline(always)]
fn reserved_late(tracked: &mut Tracked) -> bool {
    tracked.flags &= !Tracked::LATE;
    let key = books::endpoint_key(tracked);
    let limit = books::limit_key(key.netns_cookie, key.cluster, key.endpoint, tracked.limit_scope);
    let Some(account) = maps::account(&key) else { return false };
    if limit != key {
        let Some(total) = maps::account(&limit) else { return false };
        books::take(total);
    }
    books::take(account);
    books::state(tracked).exchange(limit::RESERVED);
    true
}

/// The endpoint has answered.
#[inline(always)]
fn established(context: &SockOpsContext, tracked: &mut Tracked) {
    // Two daemons' lives may overlap, or two cgroups: whoever comes second finds it done, here as everywhere below.
    if books::state(tracked).get() != limit::ARMED || tracked.flags & Tracked::ESTABLISHED != 0 {
        return;
    }
    tracked.flags |= Tracked::ESTABLISHED;
    if let Some(account) = maps::account(&books::endpoint_key(tracked)) {
        cell!(account, opened).add(1);
    }
    if tracked.flags & Tracked::OUTLIER != 0 {
        books::end_run(tracked);
    }
    if tracked.flags & Tracked::TIMEOUT_SET != 0 {
        // What bounded the connect must not kill a connection that merely stalls.
        tracked.flags &= !Tracked::TIMEOUT_SET;
        let mut theirs = tracked.user_timeout_ms;
        let length = size_of::<u32>() as i32;
        // SAFETY: the value is four initialised bytes on the stack and outlives the call.
        unsafe {
            bpf_setsockopt(
                context.ops.cast(),
                IPPROTO_TCP as i32,
                TCP_USER_TIMEOUT,
                from_mut(&mut theirs).cast(),
                length,
            )
        };
    }
}

/// The socket goes from one TCP state to another.
#[inline(always)]
fn changed(context: &SockOpsContext, socket: *mut bpf_sock, tracked: &mut Tracked, before: u32, after: u32) {
    if tracked.flags & Tracked::ESTABLISHED == 0 {
        if after == BPF_TCP_CLOSE {
            never_established(context, socket, tracked);
        }
        return;
    }
    match after {
        BPF_TCP_CLOSE => closing(context, socket, tracked, before),
        BPF_TCP_CLOSE_WAIT if before == BPF_TCP_ESTABLISHED => tracked.flags |= Tracked::SERVER_ENDED,
        BPF_TCP_FIN_WAIT1 if before == BPF_TCP_ESTABLISHED => tracked.flags |= Tracked::CLIENT_ENDED,
        BPF_TCP_FIN_WAIT2 => tracked.came_before_fin = received(socket) as u32,
        _ => {}
    }
}

#[inline(always)]
fn never_established(context: &SockOpsContext, socket: *mut bpf_sock, tracked: &mut Tracked) {
    let taken = books::let_go(tracked);
    if !limit::releases(taken) {
        return;
    }
    let (cause, blame) = if taken == limit::RESERVED {
        (EventCause::Unknown, false)
    } else if segments_in(socket) != 0 {
        (EventCause::ConnectRefused, true)
    } else if tracked.flags & Tracked::RETRIED != 0 {
        (EventCause::ConnectTimeout, true)
    } else {
        (EventCause::Unknown, true)
    };
    ends::failed(tracked, cause, blame, source(context));
}

#[inline(always)]
fn closing(context: &SockOpsContext, socket: *mut bpf_sock, tracked: &mut Tracked, before: u32) {
    let given_up_before = !limit::releases(books::let_go(tracked));
    let cause = if tracked.flags & Tracked::SERVER_ENDED != 0 {
        EventCause::ServerFin
    } else if tracked.flags & Tracked::CLIENT_ENDED != 0 {
        EventCause::ClientFin
    } else if given_up_before {
        EventCause::ClientReset
    } else {
        EventCause::ServerReset
    };
    tracked.flags &= !Tracked::ESTABLISHED;
    let measured = measured(socket, tracked, before);
    ends::closed(tracked, cause, measured, source(context));
}

/// What the kernel measured: its byte counts hold our SYN, and either FIN once it was taken.
#[inline(always)]
fn measured(socket: *mut bpf_sock, tracked: &Tracked, before: u32) -> Measured {
    let Some(tcp) = tcp(socket) else {
        return Measured { received: 0, sent: 0, rtt_us: 0 };
    };
    let got = tcp.bytes_received;
    let (our_fin, their_fin) = match before {
        BPF_TCP_LAST_ACK => (1, 1),
        BPF_TCP_CLOSING => (1, 1),
        BPF_TCP_CLOSE_WAIT => (0, 1),
        BPF_TCP_FIN_WAIT2 => (1, u64::from(got as u32 != tracked.came_before_fin)),
        _ => (0, 0),
    };
    Measured {
        received: tcp.bytes_acked.saturating_sub(1 + our_fin),
        sent: got.saturating_sub(their_fin),
        rtt_us: tcp.srtt_us >> 3,
    }
}

#[inline(always)]
fn received(socket: *mut bpf_sock) -> u64 {
    tcp(socket).map_or(0, |tcp| tcp.bytes_received)
}

#[inline(always)]
fn segments_in(socket: *mut bpf_sock) -> u32 {
    tcp(socket).map_or(0, |tcp| tcp.segs_in)
}

#[inline(always)]
fn tcp(socket: *mut bpf_sock) -> Option<&'static bpf_tcp_sock> {
    // SAFETY: the socket is this context's own; the answer is null or valid while this program runs.
    unsafe { bpf_tcp_sock(socket).as_ref() }
}

/// The client's own end; both families are read up front, as the verifier wants it.
#[inline(always)]
fn source(context: &SockOpsContext) -> Source {
    let v4 = field!(context, local_ip4);
    let v6 = [
        field!(context, local_ip6[0]),
        field!(context, local_ip6[1]),
        field!(context, local_ip6[2]),
        field!(context, local_ip6[3]),
    ];
    let is_v4 = field!(context, family) == AF_INET;
    // In host order, unlike the peer's.
    let port = (field!(context, local_port) as u16).to_be_bytes();
    Source { address: if is_v4 { v4_mapped(v4) } else { words(v6) }, port }
}
