//! `connect4` and `connect6`: every `connect()` below the cgroups they are attached to asks here whether the daemon
//! gets the connection.
//!
//! The destination is never rewritten. A connection that the daemon gets carries a firewall mark; a routing rule
//! of its network namespace turns marked packets to `lo`, where `deliver` takes them.

#![no_std]
#![no_main]

mod connect;
mod maps;

use aya_ebpf::{macros::cgroup_sock_addr, programs::SockAddrContext};
use aya_log_ebpf::debug;
use proxy_common::{Counter, Destination, FailurePolicy, Verdict, Workload};

use crate::connect::{Connect, below_cgroup, in_cgroup};

/// What `connect()` goes on with, and what makes it fail with the error that was set.
const PROCEED: i32 = 1;
const FAIL: i32 = 0;

/// An IPv4 socket connects.
#[cgroup_sock_addr(connect4)]
pub fn connect4(context: SockAddrContext) -> i32 {
    let connect = Connect::new(context);
    let Some(workload) = maps::workload(connect.netns_cookie()) else { return PROCEED };
    let destination = connect.destination4();
    decide(&connect, workload, &destination, |connect| connect.listens4(workload.port4))
}

/// An IPv6 socket connects, perhaps to a v4-mapped address: then IPv4 packets leave, and the IPv4 listener counts.
#[cgroup_sock_addr(connect6)]
pub fn connect6(context: SockAddrContext) -> i32 {
    let connect = Connect::new(context);
    let Some(workload) = maps::workload(connect.netns_cookie()) else { return PROCEED };
    let destination = connect.destination6();
    decide(&connect, workload, &destination, |connect| {
        if is_v4_mapped(&destination) {
            connect.listens4(workload.port4)
        } else {
            connect.listens6(workload.port6)
        }
    })
}

/// The verdict on one connect of a workload's namespace. `listens` is the liveness guard.
#[inline(always)]
fn decide(
    connect: &Connect,
    workload: &Workload,
    destination: &Destination,
    listens: impl FnOnce(&Connect) -> bool,
) -> i32 {
    if !connect.is_tcp() || !is_captured(workload) {
        return pass(connect, workload);
    }
    match proxy_ebpf::claim(destination) {
        None => {
            maps::count(Counter::Passed);
            pass(connect, workload)
        }
        Some(verdict) if verdict == Verdict::Pass as u32 => pass(connect, workload),
        Some(verdict) if verdict == Verdict::Refuse as u32 => refuse(connect),
        Some(_) if listens(connect) => steer(connect, workload, destination),
        Some(_) => fail(connect, workload, destination),
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
fn fail(connect: &Connect, workload: &Workload, destination: &Destination) -> i32 {
    debug!(
        connect.context(),
        "no daemon for {:i}:{}",
        destination.address,
        u16::from_be_bytes(destination.port)
    );
    if is_closed(workload) {
        maps::count(Counter::FailedClosed);
        return refuse(connect);
    }
    maps::count(Counter::FailedOpen);
    pass(connect, workload)
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
