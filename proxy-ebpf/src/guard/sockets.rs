//! The socket in the workload's namespace that a packet says it comes from.

use aya_ebpf::{
    EbpfContext as _,
    bindings::{bpf_sock_tuple, bpf_sock_tuple__bindgen_ty_1__bindgen_ty_1 as TupleV4},
    helpers::generated::{bpf_sk_release, bpf_skc_lookup_tcp},
    programs::TcContext,
};
use core::{
    mem,
    ptr::{addr_of, read_volatile},
};
use proxy_common::egress::{Guarded, KEPT_INSIDE};
use proxy_ebpf::word;

use crate::{maps, packet::Packet};

const SYN_SENT: u32 = 2;
const LISTEN: u32 = 10;

pub(crate) enum Socket {
    None,
    /// One that has no peer yet: it listens, or is about to connect.
    Alone,
    /// One end of a connection.
    Connected,
    /// One that the daemon connected, at whatever stage.
    Ours,
    /// One that is connected to the daemon: it was told another way out after that.
    KeptInside,
}

/// Looks for it the way a packet to it would: what is the source here is the destination there. One that is bound to a device is
/// not found.
#[inline(always)]
pub(crate) fn find(context: &TcContext, guarded: &Guarded, packet: &Packet) -> Socket {
    // SAFETY: integers; zero is a valid value of each.
    let mut tuple: bpf_sock_tuple = unsafe { mem::zeroed() };
    let (local, remote) = (&packet.source, &packet.destination);
    let length = if packet.is_v6 {
        let words = |address| [word(address, 0), word(address, 1), word(address, 2), word(address, 3)];
        tuple.__bindgen_anon_1.ipv6.saddr = words(&remote.address);
        tuple.__bindgen_anon_1.ipv6.daddr = words(&local.address);
        tuple.__bindgen_anon_1.ipv6.sport = u16::from_ne_bytes(remote.port);
        tuple.__bindgen_anon_1.ipv6.dport = u16::from_ne_bytes(local.port);
        size_of::<bpf_sock_tuple>()
    } else {
        tuple.__bindgen_anon_1.ipv4.saddr = word(&remote.address, 3);
        tuple.__bindgen_anon_1.ipv4.daddr = word(&local.address, 3);
        tuple.__bindgen_anon_1.ipv4.sport = u16::from_ne_bytes(remote.port);
        tuple.__bindgen_anon_1.ipv4.dport = u16::from_ne_bytes(local.port);
        size_of::<TupleV4>()
    };
    // A negative number would be the interface's own namespace.
    if guarded.number < 0 {
        return Socket::None;
    }
    let number = guarded.number as u64;
    // SAFETY: `length` bytes of the tuple are initialised; a socket that is found is released once it was looked at.
    unsafe {
        let found = bpf_skc_lookup_tcp(context.as_ptr(), &raw mut tuple, length as u32, number, 0);
        if found.is_null() {
            return Socket::None;
        }
        let state = read_volatile(addr_of!((*found).state));
        let remembered = maps::remembers(found.cast());
        bpf_sk_release(found.cast());
        match state {
            _ if remembered == Some(KEPT_INSIDE) => Socket::KeptInside,
            _ if remembered.is_some() => Socket::Ours,
            LISTEN | SYN_SENT => Socket::Alone,
            _ => Socket::Connected,
        }
    }
}
