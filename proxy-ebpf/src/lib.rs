//! What both objects share: addresses as the maps hold them, and which destinations are steered.
//!
//! `capture` knows more: for whom. `deliver` cannot tell whom a packet is from, and asks the two maps here, which the
//! daemon fills before and empties after those of `capture`.

#![no_std]

mod maps;

use proxy_common::{Destination, is_loopback};

/// Whether connections to `destination` may be on their way to the daemon. A loopback destination is only ever claimed
/// exactly: `0.0.0.0/0` is not meant to take a workload's own servers away.
#[inline(always)]
#[must_use]
pub fn is_steered(destination: &Destination) -> bool {
    maps::is_steered(destination) || (!is_loopback(&destination.address) && maps::is_range_steered(destination))
}

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
