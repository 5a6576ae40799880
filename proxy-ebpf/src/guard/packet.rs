//! Where a packet comes from and goes to, and what it carries.
//!
//! What may name another destination than the one that is looked at (options of IPv4, routing headers of IPv6 that are not at their
//! end) makes a packet unreadable, and so does whatever is cut short.

use aya_ebpf::programs::TcContext;
use proxy_common::Destination;
use proxy_ebpf::{v4_mapped, words};

const ETHERNET: usize = 14;
const NOWHERE: Destination = Destination { address: [0; 16], port: [0; 2] };

pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const DESTINATION: u8 = 60;
/// More headers than this before the one that counts nobody needs.
const HEADERS: usize = 6;

/// What of a packet decides.
pub(crate) struct Packet {
    pub(crate) source: Destination,
    pub(crate) destination: Destination,
    /// Where the transport's header begins.
    pub(crate) at: u32,
    /// Where the packet ends, by its own account.
    pub(crate) end: u32,
    /// What fragments of one packet have in common.
    pub(crate) id: u32,
    pub(crate) part: Part,
    pub(crate) protocol: u8,
    pub(crate) is_v6: bool,
}

/// How much of a packet one is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    Whole,
    /// The fragment in which the transport's header is.
    First,
    Later,
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

impl Packet {
    /// One of which nothing is known.
    pub(crate) const UNKNOWN: Self = Self {
        source: NOWHERE,
        destination: NOWHERE,
        at: 0,
        end: 0,
        id: 0,
        part: Part::Whole,
        protocol: 0,
        is_v6: false,
    };

    /// Reads one of IPv4. `None`: it cannot be judged; what is known of it by then is there.
    #[inline(always)]
    pub(crate) fn read_v4(&mut self, context: &TcContext) -> Option<()> {
        let header = context.load::<V4>(ETHERNET).ok()?;
        self.protocol = header.protocol;
        self.source.address = v4_mapped(header.source);
        self.destination.address = v4_mapped(header.destination);
        // Version 4, five words: without options.
        if header.version_and_length != 0x45 {
            return None;
        }
        // Whether more follow, and where this one belongs.
        let fragment = u16::from_be_bytes(header.fragment) & 0x3fff;
        self.id = u32::from(u16::from_be_bytes(header.id));
        self.part = part(fragment, fragment & 0x1fff);
        self.at = (ETHERNET + size_of::<V4>()) as u32;
        self.end = ETHERNET as u32 + u32::from(u16::from_be_bytes(header.length));
        self.read_ports(context)
    }

    /// The same for IPv6.
    #[inline(always)]
    pub(crate) fn read_v6(&mut self, context: &TcContext) -> Option<()> {
        let header = context.load::<V6>(ETHERNET).ok()?;
        self.is_v6 = true;
        self.protocol = header.next;
        self.source.address = words(header.source);
        self.destination.address = words(header.destination);
        self.at = (ETHERNET + size_of::<V6>()) as u32;
        self.end = self.at + u32::from(u16::from_be_bytes(header.length));
        for _ in 0..HEADERS {
            // Of a later fragment the next byte is anything.
            if self.part == Part::Later || !is_on_the_way(self.protocol) {
                return self.read_ports(context);
            }
            self.skip(context)?;
        }
        None
    }

    /// Steps over one header that is not the transport's.
    #[inline(always)]
    fn skip(&mut self, context: &TcContext) -> Option<()> {
        let [next, length, third, fourth, rest @ ..] = context.load::<[u8; 8]>(self.at as usize).ok()?;
        let protocol = self.protocol;
        self.protocol = next;
        if protocol != FRAGMENT {
            self.at += (u32::from(length) + 1) * 8;
            // The number of addresses that a routing header still leads to.
            return (protocol != ROUTING || fourth == 0).then_some(());
        }
        self.at += 8;
        let fragment = u16::from_be_bytes([third, fourth]) & 0xfff9;
        // A packet that is its only fragment is as if it were none, and fragments of fragments are for nobody.
        if fragment != 0 {
            if self.part != Part::Whole {
                return None;
            }
            self.id = u32::from_ne_bytes(rest);
            self.part = part(fragment, fragment & 0xfff8);
        }
        Some(())
    }

    /// Reads the ports, if there are any in this part.
    #[inline(always)]
    fn read_ports(&mut self, context: &TcContext) -> Option<()> {
        if self.part != Part::Later && matches!(self.protocol, TCP | UDP) {
            let [a, b, c, d] = context.load::<[u8; 4]>(self.at as usize).ok()?;
            (self.source.port, self.destination.port) = ([a, b], [c, d]);
        }
        Some(())
    }
}

/// Which part a packet is whose header says this of fragments, and of where in the whole it belongs.
#[inline(always)]
fn part(fragment: u16, place: u16) -> Part {
    match (fragment, place) {
        (0, _) => Part::Whole,
        (_, 0) => Part::First,
        _ => Part::Later,
    }
}

/// Whether this is a header before the transport's.
#[inline(always)]
fn is_on_the_way(protocol: u8) -> bool {
    matches!(protocol, HOP_BY_HOP | ROUTING | FRAGMENT | DESTINATION)
}
