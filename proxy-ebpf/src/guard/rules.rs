//! Which packets may leave.

use aya_ebpf::programs::TcContext;
use proxy_common::Destination;
use proxy_ebpf::v4_mapped;

use crate::{
    maps,
    packet::{Packet, Part, TCP, UDP},
    sockets::{self, Socket},
};

const ICMP: u8 = 1;
const ICMPV6: u8 = 58;

/// Where name servers listen: whom a workload may ask, and how, is not for us to say.
const DNS: [u8; 2] = 53_u16.to_be_bytes();
const DHCP: ([u8; 2], [u8; 2]) = (68_u16.to_be_bytes(), 67_u16.to_be_bytes());
const DHCPV6: ([u8; 2], [u8; 2]) = (546_u16.to_be_bytes(), 547_u16.to_be_bytes());
const BROADCAST: u32 = u32::MAX;
/// All DHCP servers and relays of the link.
const DHCPV6_SERVERS: [u8; 16] = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 2];

const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;

/// Whether the packet may leave. Of fragments the first decides for all, and it is looked for before the others: they leave in order.
#[inline(always)]
pub(crate) fn may_pass(context: &TcContext, ifindex: u32, packet: &Packet) -> bool {
    match packet.part {
        Part::Whole => is_allowed(context, ifindex, packet),
        Part::First => is_allowed(context, ifindex, packet) && maps::remember(ifindex, packet),
        Part::Later => maps::is_remembered(ifindex, packet),
    }
}

#[inline(always)]
fn is_allowed(context: &TcContext, ifindex: u32, packet: &Packet) -> bool {
    match packet.protocol {
        TCP => is_allowed_tcp(context, ifindex, packet),
        UDP => is_allowed_udp(packet),
        ICMP if !packet.is_v6 => kind(context, packet).is_some_and(is_answer),
        ICMPV6 if packet.is_v6 => kind(context, packet).is_some_and(is_answer_or_neighbourly),
        _ => false,
    }
}

/// What begins a connection needs a way, or is the daemon's own; the rest of it belongs to a connection that is there, whoever
/// began it and when.
#[inline(always)]
fn is_allowed_tcp(context: &TcContext, ifindex: u32, packet: &Packet) -> bool {
    let Ok([length, flags]) = context.load::<[u8; 2]>(packet.at as usize + 12) else { return false };
    if packet.destination.port == DNS || maps::has_way(TCP, &packet.destination) {
        return true;
    }
    let Some(guarded) = maps::guarded(ifindex) else { return false };
    let begins = flags & (SYN | ACK) == SYN;
    let refuses = flags & RST != 0;
    let is_bare = packet.at + u32::from(length >> 4) * 4 == packet.end;
    match sockets::find(context, guarded, packet) {
        Socket::None => !begins && refuses && is_bare,
        Socket::Alone => !begins && (refuses || flags & SYN != 0) && is_bare,
        Socket::Connected => !begins,
        Socket::Ours => true,
        Socket::KeptInside => false,
    }
}

#[inline(always)]
fn is_allowed_udp(packet: &Packet) -> bool {
    let Destination { port, address } = packet.destination;
    if port == DNS || maps::has_way(UDP, &packet.destination) {
        return true;
    }
    let ports = (packet.source.port, port);
    if packet.is_v6 {
        ports == DHCPV6 && address == DHCPV6_SERVERS
    } else {
        ports == DHCP && address == v4_mapped(BROADCAST)
    }
}

/// The type of a message of ICMP, of either version.
#[inline(always)]
fn kind(context: &TcContext, packet: &Packet) -> Option<u8> {
    context.load::<u8>(packet.at as usize).ok()
}

/// Echo reply, unreachable, quench, time exceeded, bad parameter.
#[inline(always)]
fn is_answer(kind: u8) -> bool {
    matches!(kind, 0 | 3 | 4 | 11 | 12)
}

/// Errors, echo reply; who listens to which multicast, routers and neighbours.
#[inline(always)]
fn is_answer_or_neighbourly(kind: u8) -> bool {
    matches!(kind, 1..=4 | 129 | 130..=137 | 143)
}
