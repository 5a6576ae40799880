//! Where a packet comes from and goes to, and what it carries.
//!
//! What may name another destination than the one that is looked at (options of IPv4, routing headers of IPv6 that are not at their
//! end) makes a packet unreadable, and so does whatever is cut short.

use aya_ebpf::programs::TcContext;
use proxy_common::Destination;
use proxy_ebpf::{v4_mapped, words};

const ETHERNET: usize = 14;
const NO_PORT: [u8; 2] = [0; 2];

pub(crate) const HOP_BY_HOP: u8 = 0;
pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const DESTINATION: u8 = 60;
/// More headers than this before the one that counts nobody needs.
const HEADERS: usize = 6;

/// What of a packet decides.
pub(crate) struct Packet {
    pub(crate) protocol: u8,
    pub(crate) is_v6: bool,
    pub(crate) source: Destination,
    pub(crate) destination: Destination,
    /// Where the transport's header begins.
    pub(crate) at: usize,
    /// Where the packet ends, by its own account.
    pub(crate) end: usize,
    pub(crate) fragment: Option<Part>,
}

/// One of several.
pub(crate) struct Part {
    pub(crate) id: u32,
    pub(crate) is_first: bool,
}

/// A packet that cannot be judged: as much as is known of it.
pub(crate) struct Unread {
    protocol: u8,
    destination: [u8; 16],
}

impl Default for Unread {
    #[inline(always)]
    fn default() -> Self {
        Self { protocol: 0, destination: [0; 16] }
    }
}

impl Unread {
    /// For those who only tell of it.
    #[inline(always)]
    pub(crate) fn as_packet(&self) -> Packet {
        Packet {
            protocol: self.protocol,
            is_v6: false,
            source: Destination { address: [0; 16], port: NO_PORT },
            destination: Destination { address: self.destination, port: NO_PORT },
            at: 0,
            end: 0,
            fragment: None,
        }
    }
}

#[repr(C)]
struct V4 {
    version_and_length: u8,
    service: u8,
    length: [u8; 2],
    id: [u8; 2],
    fragment: [u8; 2],
    lifetime: u8,
    protocol: u8,
    checksum: [u8; 2],
    source: u32,
    destination: u32,
}

#[repr(C)]
struct V6 {
    version: u32,
    length: [u8; 2],
    next: u8,
    lifetime: u8,
    source: [u32; 4],
    destination: [u32; 4],
}

#[inline(always)]
pub(crate) fn read_v4(context: &TcContext) -> Result<Packet, Unread> {
    let Ok(header) = context.load::<V4>(ETHERNET) else { return Err(Unread::default()) };
    let destination = v4_mapped(header.destination);
    // Version 4, five words: without options.
    if header.version_and_length != 0x45 {
        return Err(Unread { protocol: header.protocol, destination });
    }
    // More fragments, and where this one belongs.
    let bits = u16::from_be_bytes(header.fragment) & 0x3fff;
    let fragment = (bits != 0)
        .then_some(Part { id: u32::from(u16::from_be_bytes(header.id)), is_first: bits & 0x1fff == 0 });
    let packet = Packet {
        protocol: header.protocol,
        is_v6: false,
        source: Destination { address: v4_mapped(header.source), port: NO_PORT },
        destination: Destination { address: destination, port: NO_PORT },
        at: ETHERNET + size_of::<V4>(),
        end: ETHERNET + usize::from(u16::from_be_bytes(header.length)),
        fragment,
    };
    with_ports(context, packet)
}

#[inline(always)]
pub(crate) fn read_v6(context: &TcContext) -> Result<Packet, Unread> {
    let Ok(header) = context.load::<V6>(ETHERNET) else { return Err(Unread::default()) };
    let destination = words(header.destination);
    let mut packet = Packet {
        protocol: header.next,
        is_v6: true,
        source: Destination { address: words(header.source), port: NO_PORT },
        destination: Destination { address: destination, port: NO_PORT },
        at: ETHERNET + size_of::<V6>(),
        end: ETHERNET + size_of::<V6>() + usize::from(u16::from_be_bytes(header.length)),
        fragment: None,
    };
    for _ in 0..HEADERS {
        // Of a later fragment the next byte is anything.
        if matches!(packet.fragment, Some(Part { is_first: false, .. })) {
            break;
        }
        match skip(context, &mut packet) {
            Some(true) => {}
            Some(false) => break,
            None => return Err(Unread { protocol: packet.protocol, destination }),
        }
    }
    if matches!(packet.protocol, HOP_BY_HOP | ROUTING | FRAGMENT | DESTINATION) && packet.fragment.is_none() {
        return Err(Unread { protocol: packet.protocol, destination });
    }
    with_ports(context, packet)
}

/// Steps over one header that is not the transport's; false: there is none. `None`: it cannot be read, or leads elsewhere.
#[inline(always)]
fn skip(context: &TcContext, packet: &mut Packet) -> Option<bool> {
    let protocol = packet.protocol;
    if !matches!(protocol, HOP_BY_HOP | ROUTING | FRAGMENT | DESTINATION) {
        return Some(false);
    }
    let [next, length, third, fourth, rest @ ..] = context.load::<[u8; 8]>(packet.at).ok()?;
    packet.protocol = next;
    if protocol != FRAGMENT {
        packet.at += (usize::from(length) + 1) * 8;
        // The number of addresses that a routing header still leads to.
        return (protocol != ROUTING || fourth == 0).then_some(true);
    }
    packet.at += 8;
    let bits = u16::from_be_bytes([third, fourth]) & 0xfff9;
    // A packet that is its only fragment is as if it were none.
    if bits != 0 {
        let is_first = bits & 0xfff8 == 0;
        // Fragments of fragments are not for anybody.
        if packet.fragment.replace(Part { id: u32::from_ne_bytes(rest), is_first }).is_some() {
            return None;
        }
    }
    Some(true)
}

/// The same with its ports, if it has any and they are in it.
#[inline(always)]
fn with_ports(context: &TcContext, mut packet: Packet) -> Result<Packet, Unread> {
    let is_later = matches!(packet.fragment, Some(Part { is_first: false, .. }));
    if is_later || !matches!(packet.protocol, TCP | UDP) {
        return Ok(packet);
    }
    let Ok([a, b, c, d]) = context.load::<[u8; 4]>(packet.at) else {
        return Err(Unread { protocol: packet.protocol, destination: packet.destination.address });
    };
    (packet.source.port, packet.destination.port) = ([a, b], [c, d]);
    Ok(packet)
}
