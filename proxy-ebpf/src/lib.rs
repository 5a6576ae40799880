//! What the objects share: addresses as contexts hold them and as the maps do, and which of them a range means.

#![no_std]

use proxy_common::egress::is_infrastructure;

/// Bits that make an address v4-mapped.
const V4_MAPPED: u32 = 96;

/// The `::ffff:a.b.c.d` form of an IPv4 address that a context holds as one word in network order.
#[inline(always)]
#[must_use]
pub fn v4_mapped(address: u32) -> [u8; 16] {
    words([0, 0, u32::from_ne_bytes([0, 0, 0xff, 0xff]), address])
}

/// An IPv6 address that a context holds as four words in network order.
#[inline(always)]
#[must_use]
pub fn words(words: [u32; 4]) -> [u8; 16] {
    let [a, b, c, d] = words.map(u32::to_ne_bytes);
    [a[0], a[1], a[2], a[3], b[0], b[1], b[2], b[3], c[0], c[1], c[2], c[3], d[0], d[1], d[2], d[3]]
}

/// The word `index`, 0 to 3, of an address, as a context wants it.
#[inline(always)]
#[must_use]
pub fn word(address: &[u8; 16], index: usize) -> u32 {
    let at = index * 4;
    u32::from_ne_bytes([address[at], address[at + 1], address[at + 2], address[at + 3]])
}

/// Whether an address is an IPv4 one.
#[inline(always)]
#[must_use]
pub fn is_v4_mapped(address: &[u8; 16]) -> bool {
    word(address, 0) == 0
        && word(address, 1) == 0
        && word(address, 2) == u32::from_ne_bytes([0, 0, 0xff, 0xff])
}

/// Whether a range that begins with so many bits of an address means `address`, which it holds: `::/0` no IPv4 address,
/// `0.0.0.0/0` and `::/0` none of the infrastructure.
#[inline(always)]
#[must_use]
pub fn is_meant(prefix: u32, address: &[u8; 16]) -> bool {
    if prefix > V4_MAPPED {
        return true;
    }
    let is_v4 = is_v4_mapped(address);
    let is_any = prefix == 0 || (is_v4 && prefix == V4_MAPPED);
    !(is_v4 && prefix < V4_MAPPED) && !(is_any && is_infrastructure(address))
}
