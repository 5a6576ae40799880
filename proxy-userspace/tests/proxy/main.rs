//! The proxy's room on loopback: real sockets, real workers, no root.
//!
//! A listener's own address plays the original destination, as it does behind the capture.

#![allow(clippy::unwrap_used, reason = "a test that cannot set its scene has failed")]

mod egress;
mod failures;
mod harness;
mod lifecycle;
mod policies;
mod scene;
mod sniffing;
mod streams;
