//! What the kernel programs and the daemon agree on: every map key and value, and the small decisions that
//! both sides make.
//!
//! No `std`, no allocation, no dependency (aya only to mark the types as plain bytes, feature `user`).
//! Addresses are 16 bytes in network order with IPv4 written as v4-mapped IPv6, ports are 2 bytes in network
//! order: one code path for IPv4, IPv6 and v4-mapped sockets, and no padding in any key.

#![no_std]

mod address;
mod capture;
pub mod direct;
pub mod egress;
pub mod ejection;
pub mod limit;
pub mod pick;

pub use address::{Destination, Subnet, is_loopback, v4_mapped};
pub use capture::{Counter, FailurePolicy, Verdict, Workload};
pub use direct::ListenerKey;
pub use egress::Egress;
