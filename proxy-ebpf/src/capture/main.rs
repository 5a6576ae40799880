//! `capture`: every `connect()` below the cgroups it is attached to asks here what becomes of it, and every socket that
//! was sent somewhere says here how it ended.
//!
//! A connection that the daemon gets keeps its destination and carries a firewall mark; a routing rule of its network
//! namespace turns marked packets to `lo`, where `deliver` takes them. A connection that the kernel routes by itself
//! gets another destination, and `getpeername` goes on showing the one it asked for.

#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

mod atomic;
mod books;
mod connect;
mod direct;
mod maps;
mod peer;
mod socket;

use aya_ebpf::{
    macros::{cgroup_sock, cgroup_sock_addr, sock_ops},
    programs::{SockAddrContext, SockContext, SockOpsContext},
};
use aya_log_ebpf::debug;
use proxy_common::{
    Counter, Destination, FailurePolicy, ListenerKey, Verdict, Workload, direct::Listener, is_loopback,
};
use proxy_ebpf::{v4_mapped, words};

use crate::{
    connect::{Connect, below_cgroup, in_cgroup},
    direct::Outcome,
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
    let destination = connect.destination4();
    match decide(&connect, workload, &destination, |connect| connect.listens4(workload.port4)) {
        Decision::Done(verdict) => verdict,
        Decision::Direct(listener) => {
            let outcome = direct::route(&connect, netns_cookie, listener, &destination, || {
                let bound = connect.bound4();
                if bound == 0 { workload.source4 } else { v4_mapped(bound) }
            });
            directed(&connect, workload, outcome, |address, port| connect.write4(address, port))
        }
    }
}

/// An IPv6 socket connects, perhaps to a v4-mapped address: then IPv4 packets leave, and the IPv4 listener counts.
#[cgroup_sock_addr(connect6)]
pub fn connect6(context: SockAddrContext) -> i32 {
    let connect = Connect::new(context);
    let netns_cookie = connect.netns_cookie();
    let Some(workload) = maps::workload(netns_cookie) else { return PROCEED };
    let destination = connect.destination6();
    let is_v4 = is_v4_mapped(&destination);
    let listens = |connect: &Connect| {
        if is_v4 { connect.listens4(workload.port4) } else { connect.listens6(workload.port6) }
    };
    match decide(&connect, workload, &destination, listens) {
        Decision::Done(verdict) => verdict,
        Decision::Direct(listener) => {
            let outcome = direct::route(&connect, netns_cookie, listener, &destination, || {
                let bound = connect.bound6();
                match (bound == [0; 4], is_v4) {
                    (false, _) => words(bound),
                    (true, true) => workload.source4,
                    (true, false) => workload.source6,
                }
            });
            directed(&connect, workload, outcome, |address, port| connect.write6(address, port))
        }
    }
}

/// `getpeername()` of an IPv4 socket.
#[cgroup_sock_addr(getpeername4)]
pub fn getpeername4(context: SockAddrContext) -> i32 {
    peer::show4(&Connect::new(context));
    PROCEED
}

/// `getpeername()` of an IPv6 socket.
#[cgroup_sock_addr(getpeername6)]
pub fn getpeername6(context: SockAddrContext) -> i32 {
    peer::show6(&Connect::new(context));
    PROCEED
}

/// Something happened to a TCP socket.
#[sock_ops]
pub fn sock_event(context: SockOpsContext) -> u32 {
    socket::happened(context.ops);
    PROCEED as u32
}

/// The last descriptor of a socket is closed.
#[cgroup_sock(sock_release)]
pub fn sock_release(context: SockContext) -> i32 {
    socket::let_go(context.sock);
    PROCEED
}

/// What is known before a direct listener's endpoint is drawn.
enum Decision {
    /// All is decided.
    Done(i32),
    /// The listener's arms decide.
    Direct(&'static Listener),
}

/// The verdict on one connect of a workload's namespace. `listens` is the liveness guard.
#[inline(always)]
fn decide(
    connect: &Connect,
    workload: &Workload,
    destination: &Destination,
    listens: impl FnOnce(&Connect) -> bool,
) -> Decision {
    if !connect.is_tcp() || !is_captured(workload) {
        return Decision::Done(pass(connect, workload));
    }
    direct::settle(connect);
    let Some(listener) = listener(workload.scope, destination) else {
        maps::count(Counter::Passed);
        return Decision::Done(pass(connect, workload));
    };
    let verdict = listener.verdict;
    Decision::Done(if verdict == Verdict::Direct as u32 {
        if !maps::is_lease_over(maps::now_ns()) {
            return Decision::Direct(listener);
        }
        fail(connect, workload, Counter::LeaseExpired)
    } else if verdict == Verdict::Pass as u32 {
        pass(connect, workload)
    } else if verdict == Verdict::Refuse as u32 {
        refuse(connect)
    } else if listens(connect) {
        steer(connect, workload, destination)
    } else {
        absent(connect, workload, destination)
    })
}

/// The listener of `destination` for workloads of `scope`: the scope's own before everybody's, exact before the longest
/// prefix. A loopback destination is only ever claimed exactly: `0.0.0.0/0` is not meant to take a workload's own
/// servers away.
#[inline(always)]
fn listener(scope: u32, destination: &Destination) -> Option<&'static Listener> {
    let key = |scope: u32| ListenerKey {
        scope: scope.to_be_bytes(),
        port: destination.port,
        address: destination.address,
    };
    if scope != 0
        && let Some(own) = maps::listener(&key(scope))
    {
        return Some(own);
    }
    if let Some(everybodys) = maps::listener(&key(0)) {
        return Some(everybodys);
    }
    if is_loopback(&destination.address) {
        return None;
    }
    let everybodys = maps::range(&key(0));
    let own = if scope == 0 { None } else { maps::range(&key(scope)) };
    match (own, everybodys) {
        (Some(own), Some(other)) => Some(if own.bits >= other.bits { own } else { other }),
        (own, everybodys) => own.or(everybodys),
    }
}

/// A direct listener's connection goes on.
#[inline(always)]
fn directed(
    connect: &Connect,
    workload: &Workload,
    outcome: Outcome,
    write: impl FnOnce(&[u8; 16], [u8; 2]),
) -> i32 {
    match outcome {
        Outcome::Original => {
            maps::count(Counter::Direct);
            pass(connect, workload)
        }
        Outcome::Endpoint(address, port) => {
            maps::count(Counter::Direct);
            write(&address, port);
            pass(connect, workload)
        }
        Outcome::Refused => refuse(connect),
        Outcome::Undecided(why) => fail(connect, workload, why),
    }
}

/// Whether the calling task is one of the workload's and not the daemon, which shares its namespace.
#[inline(always)]
fn is_captured(workload: &Workload) -> bool {
    !in_cgroup(maps::own_cgroup()) && (workload.cgroup_id == 0 || below_cgroup(workload.cgroup_id))
}

/// The daemon gets the connection.
#[inline(always)]
fn steer(connect: &Connect, workload: &Workload, destination: &Destination) -> i32 {
    if !connect.set_mark(maps::mark()) {
        return mark_failed(connect, workload);
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
fn absent(connect: &Connect, workload: &Workload, destination: &Destination) -> i32 {
    debug!(
        connect.context(),
        "no daemon for {:i}:{}",
        destination.address,
        u16::from_be_bytes(destination.port)
    );
    let counter = if is_closed(workload) { Counter::FailedClosed } else { Counter::FailedOpen };
    fail(connect, workload, counter)
}

/// What a listener promises cannot be had, for the reason that `counter` counts: the failure policy decides.
#[inline(always)]
fn fail(connect: &Connect, workload: &Workload, counter: Counter) -> i32 {
    maps::count(counter);
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

#[inline(always)]
fn is_v4_mapped(destination: &Destination) -> bool {
    destination.address.starts_with(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff])
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 11] = *b"Apache-2.0\0";
