//! `deliver`: steered packets, which a routing rule turned to `lo` with their destination intact, find the daemon's
//! listener of their network namespace, and questions to name servers its name socket.
//!
//! Whatever did not come in on `lo`, and whatever is neither claimed nor to be closed, is none of our business and passes. A lookup
//! does not see the mark, and a claimed address may be one of the machine's own: then its ordinary visitors come in on
//! `lo` as well, the daemon's own dials among them. They are known by their source, see [`is_at_home`].

#![no_std]
#![no_main]

mod maps;

use core::ptr::{addr_of, read_volatile};

use aya_ebpf::{macros::sk_lookup, programs::SkLookupContext};
use proxy_common::{Destination, is_loopback};
use proxy_ebpf::{v4_mapped, words};

use crate::maps::Door;

/// `lo` is the first interface of every network namespace.
const LOOPBACK: u32 = 1;
const IPPROTO_TCP: u32 = 6;
const IPPROTO_UDP: u32 = 17;
const AF_INET6: u32 = 10;
const SK_PASS: u32 = 1;

/// Reads one field of the context, each by a volatile access of its own, as the verifier wants it.
macro_rules! field {
    ($context:expr, $($field:tt)+) => {{
        let lookup = $context.lookup;
        // SAFETY: the kernel passes a valid `bpf_sk_lookup` and allows reads of this field.
        unsafe { read_volatile(addr_of!((*lookup).$($field)+)) }
    }};
}

/// A packet looks for the socket that listens for it.
#[sk_lookup]
pub fn deliver(context: SkLookupContext) -> u32 {
    let protocol = field!(context, protocol);
    if field!(context, ingress_ifindex) != LOOPBACK || (protocol != IPPROTO_TCP && protocol != IPPROTO_UDP) {
        return SK_PASS;
    }
    let is_v6 = field!(context, family) == AF_INET6;
    let destination = destination(&context, is_v6);
    let source = source(&context, is_v6);
    if is_at_home(&source, &destination.address) {
        return SK_PASS;
    }
    if protocol == IPPROTO_UDP {
        if maps::is_asked(&destination) {
            maps::hand_over(&context, Door::Names, is_v6);
        }
    } else if maps::is_steered(&destination) {
        maps::hand_over(&context, Door::Connections, is_v6);
    }
    SK_PASS
}

/// Where the packet wants to go. Both families are read up front: reads in two branches become one read through a
/// pointer that the verifier no longer takes for the context. Those of the other family give zeros.
#[inline(always)]
fn destination(context: &SkLookupContext, is_v6: bool) -> Destination {
    let v4 = field!(context, local_ip4);
    let v6 = [
        field!(context, local_ip6[0]),
        field!(context, local_ip6[1]),
        field!(context, local_ip6[2]),
        field!(context, local_ip6[3]),
    ];
    // The one port of this context that is in host order.
    let port = (field!(context, local_port) as u16).to_be_bytes();
    Destination { address: if is_v6 { words(v6) } else { v4_mapped(v4) }, port }
}

/// Where the packet comes from; both families up front, as in [`destination`].
#[inline(always)]
fn source(context: &SkLookupContext, is_v6: bool) -> [u8; 16] {
    let v4 = field!(context, remote_ip4);
    let v6 = [
        field!(context, remote_ip6[0]),
        field!(context, remote_ip6[1]),
        field!(context, remote_ip6[2]),
        field!(context, remote_ip6[3]),
    ];
    if is_v6 { words(v6) } else { v4_mapped(v4) }
}

/// Whether this is how a machine talks to itself: the kernel dials an address of its own from that very address.
/// The local table comes before our rule, so a steered socket looks no different, and nothing is taken away: neither
/// from strangers nor from the daemon, which would meet itself and dial itself again without end. Loopback is
/// claimed where somebody listed it on purpose.
#[inline(always)]
fn is_at_home(source: &[u8; 16], destination: &[u8; 16]) -> bool {
    source == destination && !is_loopback(destination)
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 11] = *b"Apache-2.0\0";
