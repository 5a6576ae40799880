//! Joins two rooms that do not know each other: the proxy asks for sockets, a namespace makes them.

use std::{io, os::fd::OwnedFd, sync::Arc};

use crate::{
    node::{self, Namespace},
    proxy::{Dial, Family},
};

/// Dials from inside a workload's network namespace, so that its upstreams see the workload's own address.
pub(super) struct InNamespace(pub(super) Arc<Namespace>);

impl Dial for InNamespace {
    fn socket(&self, family: Family) -> io::Result<OwnedFd> {
        self.0.socket(of_node(family))
    }

    fn datagram(&self, family: Family) -> io::Result<OwnedFd> {
        self.0.datagram(of_node(family))
    }
}

pub(super) fn of_node(family: Family) -> node::Family {
    match family {
        Family::V4 => node::Family::V4,
        Family::V6 => node::Family::V6,
    }
}
