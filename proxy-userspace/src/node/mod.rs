//! What a daemon needs of the machine it runs on: network namespaces and sockets inside them, the routing rules
//! that turn steered packets to its listeners, cgroups, a private `/etc/hosts`, and the list of
//! open sockets.
//!
//! Nothing here knows eBPF, Istio or a connection's way through the proxy.

pub mod cgroup;
mod connections;
mod datagrams;
mod diag;
pub mod memory;
pub mod mounts;
mod namespace;
mod netlink;
mod packet;
pub mod routing;
mod sockets;
pub mod veth;
mod wait;

pub use connections::Connection;
pub use datagrams::{Answers, NameSockets};
pub use diag::{SocketList, TrackedSocket};
pub use namespace::Namespace;
pub use routing::Steering;
pub use sockets::{Family, Listeners};
pub use wait::Readable;
