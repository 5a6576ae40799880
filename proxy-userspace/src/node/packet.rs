//! A UDP datagram as the whole packet that it travels in (RFC 768, 791, 8200). Pure.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
};

const UDP: u8 = 17;
const HOPS: u8 = 64;
const V4_HEADER: usize = 20;
const V6_HEADER: usize = 40;
const UDP_HEADER: usize = 8;

/// The packet that brings `payload` from `source` to `destination`, which are of one family.
pub(super) fn datagram(source: SocketAddr, destination: SocketAddr, payload: &[u8]) -> io::Result<Vec<u8>> {
    let invalid = |why: &str| io::Error::new(io::ErrorKind::InvalidInput, why);
    let length = u16::try_from(UDP_HEADER + payload.len() + V4_HEADER)
        .map_err(|_| invalid("too large for a datagram"))?;
    let udp_length = length - V4_HEADER as u16;
    let mut packet = match (source, destination) {
        (SocketAddr::V4(source), SocketAddr::V4(destination)) => v4(*source.ip(), *destination.ip(), length),
        (SocketAddr::V6(source), SocketAddr::V6(destination)) => {
            v6(*source.ip(), *destination.ip(), udp_length)
        }
        _ => return Err(invalid("source and destination are of two families")),
    };
    let begin = packet.len();
    packet.extend(source.port().to_be_bytes());
    packet.extend(destination.port().to_be_bytes());
    packet.extend(udp_length.to_be_bytes());
    packet.extend([0, 0]);
    packet.extend(payload);
    // What the checksum is about besides: both addresses, protocol and length.
    let addresses = if source.is_ipv4() { V4_HEADER - 8..V4_HEADER } else { V6_HEADER - 32..V6_HEADER };
    let pseudo = sum(&packet[addresses]) + u32::from(UDP) + u32::from(udp_length);
    let checksum = match folded(pseudo + sum(&packet[begin..])) {
        // Zero would mean that there is none.
        0 => u16::MAX,
        other => other,
    };
    packet[begin + 6..begin + 8].copy_from_slice(&checksum.to_be_bytes());
    Ok(packet)
}

/// The kernel fills in what is zero here: number and checksum.
fn v4(source: Ipv4Addr, destination: Ipv4Addr, length: u16) -> Vec<u8> {
    let mut header = vec![0x45, 0];
    header.extend(length.to_be_bytes());
    header.extend([0, 0, 0, 0, HOPS, UDP, 0, 0]);
    header.extend(source.octets());
    header.extend(destination.octets());
    header
}

fn v6(source: Ipv6Addr, destination: Ipv6Addr, length: u16) -> Vec<u8> {
    let mut header = vec![0x60, 0, 0, 0];
    header.extend(length.to_be_bytes());
    header.extend([UDP, HOPS]);
    header.extend(source.octets());
    header.extend(destination.octets());
    header
}

/// The sum of 16-bit words; a last odd byte stands high.
fn sum(bytes: &[u8]) -> u32 {
    let word = |pair: &[u8]| u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
    bytes.chunks(2).map(word).sum()
}

/// The ones' complement of a ones' complement sum.
fn folded(mut sum: u32) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checksum_makes_the_whole_add_up() {
        for (source, destination) in
            [("203.0.113.53:53", "10.0.0.1:40000"), ("[2001:db8::53]:53", "[fd00::1]:40000")]
        {
            let (source, destination): (SocketAddr, SocketAddr) =
                (source.parse().unwrap(), destination.parse().unwrap());
            for payload in [&b""[..], b"x", b"an answer", &[0xff; 1400]] {
                let packet = datagram(source, destination, payload).unwrap();
                let (begin, addresses) = if source.is_ipv4() { (20, 12..20) } else { (40, 8..40) };
                assert_eq!(&packet[begin + 8..], payload);
                let whole =
                    sum(&packet[begin..]) + sum(&packet[addresses]) + 17 + (packet.len() - begin) as u32;
                assert_eq!(folded(whole), 0);
            }
        }
        let (v4, v6) = ("10.0.0.1:1".parse().unwrap(), "[::1]:1".parse().unwrap());
        assert!(datagram(v4, v6, b"").is_err());
        assert!(datagram(v4, v4, &[0; 65_508]).is_err() && datagram(v4, v4, &[0; 65_507]).is_ok());
    }
}
