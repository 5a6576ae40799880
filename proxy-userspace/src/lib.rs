//! The daemon's rooms, in the order a connection and a change of configuration meet them.

pub mod admin;
pub mod app;
pub mod cause;
pub mod cli;
pub mod dns;
pub mod kernel;
pub mod metrics;
pub mod node;
pub mod proxy;
pub mod settings;
pub mod source;
