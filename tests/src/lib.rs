//! The end-to-end harness: a mesh of network namespaces, servers and clients in it, and the daemon under test.
//!
//! It knows the command line of `shunt` and nothing of its insides: the stories assert on what an
//! operator or an application would see. Everything it makes is gone when its value is dropped,
//! panics included; what a killed test run left behind is removed at the next start.

pub mod client;
pub mod daemon;
pub mod datagrams;
pub mod internet;
pub mod mesh;
pub mod metrics;
pub mod netns;
pub mod objects;
pub mod server;
pub mod setup;
pub mod sweep;
pub mod wait;
pub mod wiretap;
pub mod yaml;
