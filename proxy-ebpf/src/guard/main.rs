//! `guard`: what comes out of a namespace whose workload may only go to certain destinations, seen from the other end of its
//! veth pair. Frames that the workload made by itself, and sockets that were given to it from elsewhere, pass no program at
//! sockets; they pass here or not at all.
//!
//! What is not known to be allowed is dropped, counted and told.

#![no_std]
#![no_main]

mod maps;
mod packet;
mod rules;
mod sockets;

use aya_ebpf::{macros::classifier, programs::TcContext};
use core::ptr::{addr_of, read_volatile};

use crate::packet::Packet;

/// Whoever else looks at packets here has the next word; whoever sees a dropped one has none.
const NEXT: i32 = -1;
const DROP: i32 = 2;

const IPV4: u16 = 0x0800;
const ARP: u16 = 0x0806;
const IPV6: u16 = 0x86dd;
const EAPOL: u16 = 0x888e;

/// Reads one field of the context, each by a volatile access of its own, as the verifier wants it.
macro_rules! field {
    ($context:expr, $field:ident) => {{
        let buffer = $context.skb.skb;
        // SAFETY: the kernel passes a valid `__sk_buff` and allows reads of this field.
        unsafe { read_volatile(addr_of!((*buffer).$field)) }
    }};
}

/// A packet has left the namespace.
#[classifier]
pub fn guard(context: TcContext) -> i32 {
    let ifindex = field!(context, ifindex);
    let ethertype = u16::from_be(field!(context, protocol) as u16);
    // A tag leads into a network that no rule speaks of.
    let is_tagged = field!(context, vlan_present) != 0;
    let mut packet = Packet::UNKNOWN;
    let read = match ethertype {
        _ if is_tagged => None,
        ARP | EAPOL => return NEXT,
        IPV4 => packet.read_v4(&context),
        IPV6 => packet.read_v6(&context),
        _ => None,
    };
    if read.is_some() && rules::may_pass(&context, ifindex, &packet) {
        return NEXT;
    }
    maps::tell(ifindex, &packet);
    DROP
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 11] = *b"Apache-2.0\0";
