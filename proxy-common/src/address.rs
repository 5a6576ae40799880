//! Addresses as the maps hold them: 16 octets, IPv4 as `::ffff:a.b.c.d`, ports in network order.

use core::net::{IpAddr, Ipv4Addr, SocketAddr};

/// Bits that `::ffff:0:0/96` takes from the 128 of an address.
const V4_MAPPED_BITS: u8 = 96;

/// `address` in the one form that all maps use: IPv4 becomes `::ffff:a.b.c.d`.
#[must_use]
pub fn v4_mapped(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

/// Whether `octets` are `127.0.0.0/8` (v4-mapped) or `::1`: such a destination never leaves its host.
#[inline(always)]
#[must_use]
pub fn is_loopback(octets: &[u8; 16]) -> bool {
    let mut zeros = 0;
    while zeros < 10 && octets[zeros] == 0 {
        zeros += 1;
    }
    if zeros < 10 {
        return false;
    }
    match (octets[10], octets[11]) {
        (0xff, 0xff) => octets[12] == 127,
        (0, 0) => octets[12] == 0 && octets[13] == 0 && octets[14] == 0 && octets[15] == 1,
        _ => false,
    }
}

/// A destination address and port: the key of the exact listeners.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Destination {
    /// The address, v4-mapped.
    pub address: [u8; 16],
    /// The port, network order.
    pub port: [u8; 2],
}

const _: () = assert!(size_of::<Destination>() == 18 && align_of::<Destination>() == 1);

impl From<SocketAddr> for Destination {
    fn from(socket: SocketAddr) -> Self {
        Self { address: v4_mapped(socket.ip()), port: socket.port().to_be_bytes() }
    }
}

/// A port on a range of addresses: the data of a longest-prefix key. The port comes first, so that a prefix of
/// 16 bits is "this port on any address".
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Subnet {
    /// The port, network order.
    pub port: [u8; 2],
    /// The first address, v4-mapped.
    pub address: [u8; 16],
}

const _: () = assert!(size_of::<Subnet>() == 18 && align_of::<Subnet>() == 1);

impl Subnet {
    /// Bits of a whole key: what a lookup asks with.
    pub const BITS: u32 = 16 + 128;

    /// The key for `port` on `address/length`, and its prefix length in bits. `length` counts the bits of the
    /// address's own family.
    #[must_use]
    pub fn new(address: IpAddr, length: u8, port: u16) -> (u32, Self) {
        let bits = if address.is_ipv4() { V4_MAPPED_BITS + length } else { length };
        (16 + u32::from(bits), Self { port: port.to_be_bytes(), address: v4_mapped(address) })
    }
}

impl From<Destination> for Subnet {
    #[inline(always)]
    fn from(destination: Destination) -> Self {
        Self { port: destination.port, address: destination.address }
    }
}

impl From<Destination> for SocketAddr {
    fn from(destination: Destination) -> Self {
        let v6 = core::net::Ipv6Addr::from(destination.address);
        let address = v6.to_ipv4_mapped().map_or(IpAddr::V6(v6), |v4: Ipv4Addr| IpAddr::V4(v4));
        Self::new(address, u16::from_be_bytes(destination.port))
    }
}

// SAFETY: `repr(C)` byte arrays: no padding, every bit pattern is a valid value.
#[cfg(feature = "user")]
unsafe impl aya::Pod for Destination {}

// SAFETY: `repr(C)` byte arrays: no padding, every bit pattern is a valid value.
#[cfg(feature = "user")]
unsafe impl aya::Pod for Subnet {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_seen_in_both_families_and_nothing_else_is() {
        for (address, want) in [
            ("127.0.0.1", true),
            ("127.255.3.9", true),
            ("128.0.0.1", false),
            ("::1", true),
            ("::", false),
            ("::2", false),
            ("::ffff:127.0.0.1", true),
            ("::ffff:10.0.0.1", false),
            ("2001:db8::1", false),
            ("0:1::1", false),
        ] {
            let parsed: IpAddr = address.parse().unwrap();
            assert_eq!(is_loopback(&v4_mapped(parsed)), want, "{address}");
        }
    }

    #[test]
    fn a_destination_survives_the_round_trip() {
        for text in ["10.1.2.3:80", "[2001:db8::7]:65535", "240.240.0.1:1"] {
            let socket: SocketAddr = text.parse().unwrap();
            assert_eq!(SocketAddr::from(Destination::from(socket)), socket);
        }
    }

    #[test]
    fn a_v4_prefix_counts_the_port_and_the_mapping() {
        let (bits, subnet) = Subnet::new("10.0.0.0".parse().unwrap(), 8, 443);
        assert_eq!((bits, subnet.port), (16 + 96 + 8, [1, 187]));
        assert_eq!(Subnet::new("::".parse().unwrap(), 0, 443).0, 16);
    }
}
