//! The daemon's rooms, in the order a connection and a change of configuration meet them.

pub mod metrics;
pub mod proxy;
