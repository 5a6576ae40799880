//! What no listener takes: here the workload's egress policy decides, for connections, datagrams and other kinds of sockets.

use aya_ebpf::{
    EbpfContext as _,
    helpers::generated::{bpf_get_netns_cookie, bpf_ktime_get_ns, bpf_set_retval},
    programs::SockContext,
};
use core::ptr::{addr_of, addr_of_mut, read_volatile, write_volatile};
use proxy_common::{
    Counter, Destination, Egress, Workload,
    direct::{Denied, Event, EventKind},
    is_loopback,
};

use crate::{
    connect::{Connect, IPPROTO_TCP},
    maps, records,
};

pub(crate) const IPPROTO_UDP: u32 = 17;
/// What a socket of MPTCP says while it is made; later it is TCP.
const IPPROTO_MPTCP: u32 = 262;
const SOCK_STREAM: u32 = 1;
const SOCK_DGRAM: u32 = 2;
const EACCES: i32 = 13;
/// Where name servers listen.
const DNS: [u8; 2] = 53_u16.to_be_bytes();

/// What happens to a connection that no listener takes.
pub(crate) enum Fate {
    /// It goes its own way.
    Passes,
    /// It is a question to a name server, which the daemon answers if it can.
    Asks,
    /// The daemon closes it.
    Closes,
    /// It is refused.
    Refused,
}

/// What happens to a TCP connection that no listener takes.
#[inline(always)]
pub(crate) fn unclaimed(netns_cookie: u64, workload: &Workload, destination: &Destination) -> Fate {
    let asks = destination.port == DNS;
    let forbidden = workload.egress != Egress::Allow as u8;
    // Most connections of most workloads end here.
    if !asks && !forbidden {
        return Fate::Passes;
    }
    if is_home(netns_cookie, &destination.address) {
        return Fate::Passes;
    }
    if asks {
        return if workload.flags & Workload::DNS != 0 { Fate::Asks } else { Fate::Passes };
    }
    if workload.egress == Egress::Close as u8 {
        return Fate::Closes;
    }
    refused(netns_cookie, destination);
    Fate::Refused
}

/// Whether a connection that is the daemon's would pass it by, out of an interface that its socket is bound to: forbidden where
/// not everything may leave.
#[inline(always)]
pub(crate) fn passes_by(
    connect: &Connect,
    netns_cookie: u64,
    workload: &Workload,
    destination: &Destination,
) -> bool {
    if workload.egress == Egress::Allow as u8 || !connect.is_bound_outside() {
        return false;
    }
    refused(netns_cookie, destination);
    true
}

#[inline(always)]
fn refused(netns_cookie: u64, destination: &Destination) {
    maps::count(Counter::EgressRefused);
    tell(netns_cookie, Denied::Tcp, IPPROTO_TCP, destination);
}

/// Whether a datagram may go to `destination`, or a socket that is not TCP's may connect to it. One that may not is told.
#[inline(always)]
pub(crate) fn may_send(
    connect: &Connect,
    netns_cookie: u64,
    workload: &Workload,
    destination: &Destination,
) -> bool {
    if workload.egress == Egress::Allow as u8 || is_home(netns_cookie, &destination.address) {
        return true;
    }
    let protocol = connect.protocol();
    if protocol == IPPROTO_UDP && (destination.port == DNS || maps::has_way(IPPROTO_UDP as u8, destination)) {
        return true;
    }
    maps::count(Counter::DatagramRefused);
    tell(netns_cookie, Denied::Udp, protocol, destination);
    false
}

/// Whether a socket is of a kind that everybody may have: where it connects or sends to is looked at later.
#[inline(always)]
pub(crate) fn is_ordinary(context: &SockContext) -> bool {
    let protocol = protocol(context);
    let streams = kind(context) == SOCK_STREAM && (protocol == IPPROTO_TCP || protocol == IPPROTO_MPTCP);
    streams || is_datagram(context)
}

/// Whether a socket is UDP's.
#[inline(always)]
pub(crate) fn is_datagram(context: &SockContext) -> bool {
    kind(context) == SOCK_DGRAM && protocol(context) == IPPROTO_UDP
}

/// Whether a socket that is not ordinary may be made; one that may not gets its error and is told.
#[inline(always)]
pub(crate) fn may_make(netns_cookie: u64, workload: &Workload, context: &SockContext) -> bool {
    if workload.egress == Egress::Allow as u8 {
        return true;
    }
    let protocol = protocol(context);
    maps::count(Counter::SocketRefused);
    tell(netns_cookie, Denied::Socket, protocol, &Destination { address: [0; 16], port: [0; 2] });
    // SAFETY: no pointer; where it fails the caller gets EPERM, which is true as well.
    unsafe { bpf_set_retval(-EACCES) };
    false
}

/// Marks a UDP socket as one whose questions to name servers the daemon answers; a mark that is there stays.
#[inline(always)]
pub(crate) fn mark_datagrams(workload: &Workload, context: &SockContext) {
    if workload.flags & Workload::DNS == 0 {
        return;
    }
    // SAFETY: the kernel passes a valid `bpf_sock`, and lets programs at its making read and write the mark.
    unsafe {
        if read_volatile(addr_of!((*context.sock).mark)) == 0 {
            write_volatile(addr_of_mut!((*context.sock).mark), maps::mark());
        }
    }
}

/// The network namespace that a socket is made in.
#[inline(always)]
pub(crate) fn namespace_of(context: &SockContext) -> u64 {
    // SAFETY: the context is the one this program was called with.
    unsafe { bpf_get_netns_cookie(context.as_ptr()) }
}

#[inline(always)]
fn kind(context: &SockContext) -> u32 {
    // SAFETY: the kernel passes a valid `bpf_sock` and allows reads of this field.
    unsafe { read_volatile(addr_of!((*context.sock).type_)) }
}

#[inline(always)]
fn protocol(context: &SockContext) -> u32 {
    // SAFETY: as above.
    unsafe { read_volatile(addr_of!((*context.sock).protocol)) }
}

/// Whether packets to `address` stay in the namespace: loopback, its own addresses, and "any", which is loopback to connect().
#[inline(always)]
fn is_home(netns_cookie: u64, address: &[u8; 16]) -> bool {
    is_loopback(address) || is_unspecified(address) || maps::is_own(netns_cookie, address)
}

#[inline(always)]
fn is_unspecified(address: &[u8; 16]) -> bool {
    let word = |index| proxy_ebpf::word(address, index);
    let mapped = word(2) == u32::from_ne_bytes([0, 0, 0xff, 0xff]);
    word(0) == 0 && word(1) == 0 && (word(2) == 0 || mapped) && word(3) == 0
}

/// Tells the daemon that something was denied.
#[inline(always)]
fn tell(netns_cookie: u64, what: Denied, protocol: u32, destination: &Destination) {
    records::denied(|event| {
        // SAFETY: no argument.
        let now = unsafe { bpf_ktime_get_ns() };
        *event = Event {
            kind: EventKind::Denied as u32,
            cause: what as u32,
            netns_cookie,
            at_ns: now,
            run: protocol,
            original: destination.address,
            original_port: destination.port,
            logged: 1,
            ..Event::default()
        };
    });
}
