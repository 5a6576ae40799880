//! What a workload may reach that no listener claims, and the ways out that are open to it all the same.

use core::net::IpAddr;

use crate::address::{is_loopback, v4_mapped};

/// What happens to a workload's connection that no listener takes. `Workload::egress`.
#[repr(u8)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Egress {
    /// ALLOW_ANY: the kernel connects, untouched.
    #[default]
    Allow = 0,
    /// REGISTRY_ONLY: the daemon accepts it, closes it, and says so.
    Close = 1,
    /// REGISTRY_ONLY: `connect()` fails with `ECONNREFUSED`.
    Refuse = 2,
}

/// An address of a workload's own network namespace: it never leaves, so no egress rule is about it. Key of `OWN`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OwnAddress {
    /// The namespace.
    pub netns_cookie: u64,
    /// The address, v4-mapped.
    pub address: [u8; 16],
}

/// Packets of one protocol to one port of a range of addresses that may leave a namespace where nothing else may: the
/// data of a longest-prefix key of `WAYS`. A prefix of 32 bits is "this port of any address".
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Way {
    /// `IPPROTO_TCP` or `IPPROTO_UDP`.
    pub protocol: u8,
    /// Explicit, so that no byte of the value is undefined.
    pub padding: u8,
    /// The port, network order.
    pub port: [u8; 2],
    /// The first address, v4-mapped.
    pub address: [u8; 16],
}

/// What a socket remembers for `guard` that is connected to the daemon: its packets stay inside. The daemon's own sockets remember 0.
pub const KEPT_INSIDE: u32 = 1;

impl Way {
    /// Bits of the whole key.
    pub const BITS: u32 = 160;
    /// Bits before the address.
    pub const PORT_BITS: u32 = 32;

    /// The way to one address and port.
    #[inline(always)]
    #[must_use]
    pub const fn to(protocol: u8, port: [u8; 2], address: [u8; 16]) -> Self {
        Self { protocol, padding: 0, port, address }
    }
}

/// Whose packets come out of an interface on the host's side: value of `GUARDED`, whose key is the index of the interface.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Guarded {
    /// The namespace that they come from.
    pub netns_cookie: u64,
    /// The number by which the interface's namespace knows that namespace.
    pub number: i32,
    /// Explicit, so that no byte of the value is undefined.
    pub padding: u32,
}

/// What fragments of one packet have in common, which only the first of them can be judged by: key of `FRAGMENTS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// The interface that they came out of.
    pub ifindex: u32,
    /// The packet's number.
    pub id: u32,
    /// Its protocol.
    pub protocol: u32,
    /// Whether it is IPv6.
    pub is_v6: u32,
    /// Its source, v4-mapped.
    pub source: [u8; 16],
    /// Its destination, v4-mapped.
    pub destination: [u8; 16],
}

/// Whether `octets` are an address of the infrastructure around a machine: link-local (169.254.0.0/16 with the clouds' metadata
/// servers, fe80::/10) or `fd00:ec2::254`. Whoever claims "any address" does not mean these.
#[inline(always)]
#[must_use]
pub fn is_infrastructure(octets: &[u8; 16]) -> bool {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = *octets;
    if a == 0xfe {
        return b & 0xc0 == 0x80;
    }
    let head = u64::from_be_bytes([a, b, c, d, e, f, g, h]);
    let tail = u64::from_be_bytes([i, j, k, l, m, n, o, p]);
    (head == 0 && tail >> 16 == 0xffff_a9fe) || (head == 0xfd00_0ec2_0000_0000 && tail == 0x254)
}

/// Whether a proxy that is asked to go to `address` by anything but the workload's own choice, or a rule that names the
/// address itself, would do what the workload may not be able to: loopback, unspecified, multicast, infrastructure.
#[must_use]
pub fn is_off_limits(address: IpAddr) -> bool {
    let address = address.to_canonical();
    let octets = v4_mapped(address);
    let broadcast = matches!(address, IpAddr::V4(v4) if v4.is_broadcast());
    let nowhere = address.is_unspecified() || address.is_multicast() || broadcast;
    nowhere || is_loopback(&octets) || is_infrastructure(&octets)
}

/// Whether `address` belongs to a network of somebody's own: RFC 1918, RFC 6598, RFC 4193.
#[must_use]
pub fn is_private(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => v4.is_private() || (v4.octets()[0] == 100 && v4.octets()[1] & 0xc0 == 64),
        IpAddr::V6(v6) => v6.is_unique_local(),
    }
}

const _: () = {
    assert!(size_of::<OwnAddress>() == 24 && align_of::<OwnAddress>() == 8);
    assert!(size_of::<Way>() == 20 && align_of::<Way>() == 1);
    assert!(size_of::<Guarded>() == 16 && align_of::<Guarded>() == 8);
    assert!(size_of::<Fragment>() == 48 && align_of::<Fragment>() == 4);
};

// SAFETY: `repr(C)` integers and byte arrays without padding; every bit pattern is valid.
#[cfg(feature = "user")]
unsafe impl aya::Pod for OwnAddress {}
// SAFETY: as above.
#[cfg(feature = "user")]
unsafe impl aya::Pod for Way {}
// SAFETY: as above.
#[cfg(feature = "user")]
unsafe impl aya::Pod for Guarded {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_sent_to_the_infrastructure() {
        for (address, infrastructure, off_limits) in [
            ("169.254.169.254", true, true),
            ("169.253.255.255", false, false),
            ("::ffff:169.254.0.1", true, true),
            ("fe80::1", true, true),
            ("febf::1", true, true),
            ("fec0::1", false, false),
            ("fd00:ec2::254", true, true),
            ("fd00:ec2::253", false, false),
            ("127.0.0.1", false, true),
            ("127.255.0.1", false, true),
            ("::1", false, true),
            ("::", false, true),
            ("0.0.0.0", false, true),
            ("255.255.255.255", false, true),
            ("224.0.0.1", false, true),
            ("10.0.0.1", false, false),
            ("203.0.113.1", false, false),
            ("2001:db8::1", false, false),
        ] {
            let address: IpAddr = address.parse().unwrap();
            assert_eq!(is_infrastructure(&v4_mapped(address)), infrastructure, "{address}");
            assert_eq!(is_off_limits(address), off_limits, "{address}");
        }
    }
}
