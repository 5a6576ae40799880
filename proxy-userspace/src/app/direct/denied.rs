//! What the kernel denied: counted by who tried to reach what.

use std::{net::SocketAddr, sync::Arc};

use proxy_common::{
    Destination,
    direct::{Denied, Event},
};
use proxy_traffic::Workload;

use crate::{metrics::Metrics, proxy::Cause};

const ICMP: u32 = 1;
const TCP: u32 = 6;
const UDP: u32 = 17;
const ICMPV6: u32 = 58;
const SCTP: u32 = 132;
const UDP_LITE: u32 = 136;
const RAW: u32 = 255;

/// Where it is counted.
pub(super) struct Denials(pub(super) Arc<Metrics>);

impl Denials {
    /// One that the kernel tells of.
    pub(super) fn told(&self, event: &Event, workload: &Workload) {
        let to = SocketAddr::from(Destination { address: event.original, port: event.original_port });
        let to = (!to.ip().is_unspecified()).then_some(to);
        let verdict = if event.cause == Denied::Packet as u32 { "drop" } else { "refuse" };
        self.0.egress_blocked(workload, to, protocol(event), verdict);
    }
}

/// Why, as the access log says it.
pub(super) fn cause(event: &Event) -> Cause {
    const UDP: u32 = Denied::Udp as u32;
    const SOCKET: u32 = Denied::Socket as u32;
    const PACKET: u32 = Denied::Packet as u32;
    match event.cause {
        UDP => Cause::DatagramDenied,
        SOCKET => Cause::SocketDenied,
        PACKET => Cause::PacketDenied,
        _ => Cause::EgressDenied,
    }
}

/// The protocol's name, as far as it has one here.
fn protocol(event: &Event) -> &'static str {
    match event.run {
        ICMP => "icmp",
        TCP => "tcp",
        UDP => "udp",
        ICMPV6 => "icmpv6",
        SCTP => "sctp",
        UDP_LITE => "udplite",
        RAW => "raw",
        _ => "other",
    }
}
