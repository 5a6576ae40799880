//! Every `connect()` below the cgroups that these programs are attached to asks here where it goes: its own way, to the
//! daemon, or to an endpoint that is drawn here. `sock_ops` and `sock_release` see how the latter end.
//!
//! A connection that the daemon gets keeps its destination and carries a firewall mark; a routing rule of its network
//! namespace turns marked packets to `lo`, where `deliver` takes them. One that goes to an endpoint is an ordinary
//! connection from there on: no byte of it passes through anything of ours.

#![no_std]
#![no_main]
// Atomic instructions have no other name yet: see `atomic`.
#![feature(asm_experimental_arch)]

mod atomic;
mod books;
mod connect;
mod direct;
mod egress;
mod ends;
mod hunt;
mod maps;
mod records;
mod watch;

use aya_ebpf::{
    macros::{cgroup_sock, cgroup_sock_addr, sock_ops},
    programs::{SockAddrContext, SockContext, SockOpsContext},
};
use aya_log_ebpf::debug;

use proxy_common::{
    Counter, Destination, Egress, FailurePolicy, Verdict, Workload,
    direct::{EventCause, Listener, Tracked},
    limit,
};
use proxy_ebpf::is_v4_mapped;

use crate::{
    connect::{Connect, below_cgroup, current_cgroup},
    direct::{Dial, Outcome},
    egress::Fate,
    ends::Source,
};

/// What `connect()` goes on with, and what makes it fail with the error that was set.
const PROCEED: i32 = 1;
const FAIL: i32 = 0;

/// An IPv4 socket connects.
#[cgroup_sock_addr(connect4)]
pub fn connect4(context: SockAddrContext) -> i32 {
    let connect = Connect::new(context);
    let netns_cookie = connect.netns_cookie();
    let Some(workload) = maps::workload(netns_cookie) else { return PROCEED };
    let destination = &connect.destination4();
    let dial = Dial { connect: &connect, netns_cookie, workload, destination, v4_only: true };
    decide(&dial, |connect| connect.listens4(workload.port4))
}

/// An IPv6 socket connects, perhaps to a v4-mapped address: then IPv4 packets leave, and the IPv4 listener counts.
#[cgroup_sock_addr(connect6)]
pub fn connect6(context: SockAddrContext) -> i32 {
    let connect = Connect::new(context);
    let netns_cookie = connect.netns_cookie();
    let Some(workload) = maps::workload(netns_cookie) else { return PROCEED };
    let destination = &connect.destination6();
    let dial = Dial { connect: &connect, netns_cookie, workload, destination, v4_only: false };
    decide(&dial, |connect| {
        if is_v4_mapped(&destination.address) {
            connect.listens4(workload.port4)
        } else {
            connect.listens6(workload.port6)
        }
    })
}

/// A datagram without a connection leaves over IPv4. The hook says which family: the address and the socket may say another.
#[cgroup_sock_addr(sendmsg4)]
pub fn sendmsg4(context: SockAddrContext) -> i32 {
    let connect = Connect::new(context);
    let netns_cookie = connect.netns_cookie();
    let Some(workload) = maps::workload(netns_cookie) else { return PROCEED };
    send(&connect, netns_cookie, workload, &connect.destination4())
}

/// The same over IPv6.
#[cgroup_sock_addr(sendmsg6)]
pub fn sendmsg6(context: SockAddrContext) -> i32 {
    let connect = Connect::new(context);
    let netns_cookie = connect.netns_cookie();
    let Some(workload) = maps::workload(netns_cookie) else { return PROCEED };
    send(&connect, netns_cookie, workload, &connect.destination6())
}

/// A socket is made.
#[cgroup_sock(sock_create)]
pub fn sock_create(context: SockContext) -> i32 {
    if egress::is_ordinary(&context) {
        return PROCEED;
    }
    let netns_cookie = egress::namespace_of(&context);
    let Some(workload) = maps::workload(netns_cookie) else { return PROCEED };
    if !is_captured(workload) || egress::may_make(netns_cookie, workload, &context) { PROCEED } else { FAIL }
}

/// The same, for the daemon's name service. A program of its own, since it must go when the daemon does: no policy depends on
/// it, and names are to be found without Shunt then.
#[cgroup_sock(sock_create)]
pub fn mark_datagrams(context: SockContext) -> i32 {
    if egress::is_datagram(&context)
        && let Some(workload) = maps::workload(egress::namespace_of(&context))
        && is_captured(workload)
    {
        egress::mark_datagrams(workload, &context);
    }
    PROCEED
}

/// An IPv4 socket is asked for its peer.
#[cgroup_sock_addr(getpeername4)]
pub fn getpeername4(context: SockAddrContext) -> i32 {
    let connect = Connect::new(context);
    if let Some(tracked) = connect.tracked() {
        show_original(&connect, tracked, &connect.destination4(), true);
    }
    PROCEED
}

/// An IPv6 socket is asked for its peer.
#[cgroup_sock_addr(getpeername6)]
pub fn getpeername6(context: SockAddrContext) -> i32 {
    let connect = Connect::new(context);
    if let Some(tracked) = connect.tracked() {
        show_original(&connect, tracked, &connect.destination6(), false);
    }
    PROCEED
}

/// Something happened to a socket.
#[sock_ops]
pub fn sock_ops(context: SockOpsContext) -> u32 {
    watch::happened(&context);
    1
}

/// The last descriptor of a socket is closed.
#[cgroup_sock(sock_release)]
pub fn sock_release(context: SockContext) -> i32 {
    if let Some(tracked) = maps::tracked(context.sock.cast()) {
        ends::abandoned(tracked);
    }
    PROCEED
}

/// The peer is whom the application dialled.
#[inline(always)]
fn show_original(connect: &Connect, tracked: &Tracked, peer: &Destination, v4_only: bool) {
    // Another peer is that of a connect that nobody told us of.
    let is_ours = peer.address == tracked.endpoint_address && peer.port == tracked.endpoint_port;
    if tracked.flags & Tracked::REWRITTEN != 0 && is_ours {
        connect.go_to(&Destination { address: tracked.original, port: tracked.original_port }, v4_only);
    }
}

/// The verdict on one connect of a workload's namespace. `listens` is the liveness guard.
#[inline(always)]
fn decide(dial: &Dial<'_>, listens: impl FnOnce(&Connect) -> bool) -> i32 {
    let Dial { connect, workload, destination, .. } = *dial;
    if !connect.is_tcp() {
        return send(connect, dial.netns_cookie, workload, destination);
    }
    if !is_captured(workload) {
        if workload.egress != Egress::Allow as u8 && current_cgroup() == maps::own_cgroup() {
            connect.is_ours();
        }
        return pass(connect, workload);
    }
    if let Some(tracked) = connect.tracked() {
        if is_routed(tracked, destination) {
            return PROCEED;
        }
        settle(connect, tracked);
    }
    // A copy: after a pointer into either map the verifier would go through all that follows twice, and the compiler would
    // read late.
    let listener = match maps::listener(workload.scope, destination) {
        // SAFETY: a valid reference.
        Some(listener) => unsafe { core::ptr::read_volatile(listener) },
        None => Listener::default(),
    };
    match listener.verdict {
        verdict if verdict == Verdict::Direct as u32 => match dial.route(&listener) {
            Outcome::Routed => pass(connect, workload),
            Outcome::Refused => refuse(connect),
            Outcome::Failed(counter) => {
                maps::count(counter);
                give_up(connect, workload)
            }
        },
        verdict if verdict == Verdict::Refuse as u32 => refuse(connect),
        // Also where there is no listener.
        verdict if verdict == Verdict::Pass as u32 => unclaimed(dial, listens),
        _ if listens(connect) => steer(dial),
        _ => fail(connect, workload, destination),
    }
}

/// The verdict on a connect that no listener takes.
#[inline(always)]
fn unclaimed(dial: &Dial<'_>, listens: impl FnOnce(&Connect) -> bool) -> i32 {
    let Dial { connect, workload, destination, .. } = *dial;
    let closes = match egress::unclaimed(dial.netns_cookie, workload, destination) {
        Fate::Refused => return refuse(connect),
        Fate::Passes => {
            maps::count(Counter::Passed);
            return pass(connect, workload);
        }
        Fate::Closes => true,
        Fate::Asks => false,
    };
    if !closes && workload.egress == Egress::Allow as u8 && connect.is_bound_outside() {
        // It insists on its own way to a name server, and may have it.
        pass(connect, workload)
    } else if listens(connect) {
        if closes {
            maps::count(Counter::EgressClosed);
        }
        steer(dial)
    } else if closes {
        fail(connect, workload, destination)
    } else {
        // Without a daemon a name server is asked as ever.
        pass(connect, workload)
    }
}

/// The verdict on a datagram, or on the connect of a socket that is not TCP's. Its mark, if it has one, is for questions to
/// name servers and stays.
#[inline(always)]
fn send(connect: &Connect, netns_cookie: u64, workload: &Workload, destination: &Destination) -> i32 {
    // Who dials is asked only where it matters: that costs more than the rest.
    let open = workload.egress == Egress::Allow as u8;
    if open || !is_captured(workload) || egress::may_send(connect, netns_cookie, workload, destination) {
        return PROCEED;
    }
    connect.refuse();
    FAIL
}

/// Whether the calling task is one of the workload's and not the daemon, which shares its namespace.
#[inline(always)]
fn is_captured(workload: &Workload) -> bool {
    let current = current_cgroup();
    let id = workload.cgroup_id;
    current != maps::own_cgroup() && (id == 0 || current == id || below_cgroup(id))
}

/// Whether this very connect was routed a moment ago, by the same program attached further down.
#[inline(always)]
fn is_routed(tracked: &mut Tracked, destination: &Destination) -> bool {
    books::state(tracked).get() == limit::RESERVED
        && tracked.endpoint_address == destination.address
        && tracked.endpoint_port == destination.port
}

/// The socket connects again: an earlier attempt must not count any longer, nor show.
#[inline(always)]
fn settle(connect: &Connect, tracked: &mut Tracked) {
    if limit::releases(books::let_go(tracked)) {
        ends::failed(tracked, EventCause::Unknown, false, Source::default());
    }
    if tracked.flags & Tracked::TIMEOUT_SET != 0 {
        connect.unbound(tracked.user_timeout_ms);
    }
    tracked.flags = 0;
}

/// The daemon gets the connection.
#[inline(always)]
fn steer(dial: &Dial<'_>) -> i32 {
    let Dial { connect, workload, destination, .. } = *dial;
    if egress::passes_by(connect, dial.netns_cookie, workload, destination) {
        return refuse(connect);
    }
    if !connect.set_mark(maps::mark()) {
        return mark_failed(connect, workload);
    }
    if workload.egress != Egress::Allow as u8 {
        connect.is_kept_inside();
    }
    maps::count(Counter::Steered);
    debug!(connect.context(), "steered {:i}:{}", destination.address, u16::from_be_bytes(destination.port));
    PROCEED
}

/// The kernel connects as if Shunt were not there. An earlier connect on the same socket may have left our mark.
#[inline(always)]
fn pass(connect: &Connect, workload: &Workload) -> i32 {
    if connect.mark() == maps::mark() && !connect.set_mark(0) {
        return mark_failed(connect, workload);
    }
    PROCEED
}

/// The caller gets ECONNREFUSED; the mark goes too, as the socket may be used again.
#[inline(always)]
fn refuse(connect: &Connect) -> i32 {
    if connect.mark() == maps::mark() {
        connect.set_mark(0);
    }
    connect.refuse();
    FAIL
}

/// Nobody listens: the daemon is gone.
#[inline(always)]
fn fail(connect: &Connect, workload: &Workload, destination: &Destination) -> i32 {
    debug!(
        connect.context(),
        "no daemon for {:i}:{}",
        destination.address,
        u16::from_be_bytes(destination.port)
    );
    maps::count(if is_closed(workload) { Counter::FailedClosed } else { Counter::FailedOpen });
    give_up(connect, workload)
}

/// We cannot do what the rules say: the workload's failure policy decides.
#[inline(always)]
fn give_up(connect: &Connect, workload: &Workload) -> i32 {
    if is_closed(workload) { refuse(connect) } else { pass(connect, workload) }
}

/// The kernel did not let us change the mark, so the socket cannot go where it should.
#[inline(always)]
fn mark_failed(connect: &Connect, workload: &Workload) -> i32 {
    maps::count(Counter::MarkFailed);
    if is_closed(workload) {
        connect.refuse();
        return FAIL;
    }
    PROCEED
}

#[inline(always)]
fn is_closed(workload: &Workload) -> bool {
    workload.failure_policy == FailurePolicy::Closed as u8
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 11] = *b"Apache-2.0\0";
