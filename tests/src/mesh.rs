//! A mesh of network namespaces: one `node` in the middle that routes, and any number of workloads
//! around it, each on a veth pair with a subnet of its own, IPv4 10.0.K.0/24 and IPv6 fd00:K::/64.
//!
//! Nothing touches the host's own namespace, so every mesh may use the same addresses and tests run
//! side by side. The daemon under test runs in the node.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::Deref;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Once};

use crate::netns::Netns;
use crate::sweep;

/// The mesh; its node namespace goes when it is dropped, a workload's when the last clone of the workload is.
#[derive(Debug)]
pub struct Mesh {
    id: String,
    node: Workload,
    subnets: AtomicU32,
}

/// One namespace of the mesh, with its addresses. Clones share the namespace; everything that
/// [`Netns`] can do, a workload can.
#[derive(Clone, Debug)]
pub struct Workload {
    name: String,
    netns: Arc<Netns>,
    subnet: u16,
    host: u8,
}

impl Mesh {
    /// A mesh with its node and no workload yet. `name` is for people: it shows in `ip netns`.
    pub fn new(name: &str) -> Self {
        static SWEPT: Once = Once::new();
        SWEPT.call_once(sweep::leftovers);
        let id = sweep::unique(name);
        let netns = Arc::new(Netns::create(&format!("{id}-node")));
        netns.sysctl("net/ipv4/ip_forward", "1");
        netns.sysctl("net/ipv6/conf/all/forwarding", "1");
        // The namespaces of one machine share the limit of what may wait for an accept.
        netns.sysctl("net/core/somaxconn", "4096");
        let node = Workload { name: "node".to_owned(), netns, subnet: 1, host: 1 };
        Self { id, node, subnets: AtomicU32::new(0) }
    }

    /// A name that no other mesh has: good for `--instance` and for directories.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The namespace in the middle. It has an address in every workload's subnet; `v4()` and `v6()` are those
    /// in the subnet of the first workload.
    pub fn node(&self) -> &Workload {
        &self.node
    }

    /// Adds a workload: a namespace with one interface `eth0`, routed to all others through the node.
    pub fn workload(&self, name: &str) -> Workload {
        let subnet = self.subnets.fetch_add(1, Ordering::Relaxed) as u16 + 1;
        let netns = Arc::new(Netns::create(&format!("{}-{name}", self.id)));
        let near = Workload { name: name.to_owned(), netns, subnet, host: 2 };
        let far = Workload { host: 1, ..near.clone() };
        let (v4, v6, gateway4, gateway6) = (near.v4(), near.v6(), far.v4(), far.v6());
        self.node.ip(&format!(
            "link add v{subnet} type veth peer name eth0 netns {near}
             addr add {gateway4}/24 dev v{subnet}
             addr add {gateway6}/64 dev v{subnet} nodad
             link set v{subnet} up",
            near = near.netns.name()
        ));
        near.ip(&format!(
            "addr add {v4}/24 dev eth0
             addr add {v6}/64 dev eth0 nodad
             link set eth0 up
             route add default via {gateway4}
             route add default via {gateway6}"
        ));
        near.sysctl("net/core/somaxconn", "4096");
        near
    }
}

impl Workload {
    /// Its name inside the mesh.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its IPv4 address.
    pub fn v4(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 0, self.subnet as u8, self.host)
    }

    /// Its IPv6 address.
    pub fn v6(&self) -> Ipv6Addr {
        Ipv6Addr::new(0xfd00, self.subnet, 0, 0, 0, 0, 0, u16::from(self.host))
    }

    /// Its IPv4 address, as callers that take either family want it.
    pub fn ip4(&self) -> IpAddr {
        IpAddr::V4(self.v4())
    }

    /// The interface of the node that leads to it.
    pub fn far_end(&self) -> String {
        format!("v{}", self.subnet)
    }

    /// Gives the workload one more address (with prefix length) that the whole mesh can reach through the node.
    pub fn claim(&self, mesh: &Mesh, address: IpAddr) {
        let (length, via) = match address {
            IpAddr::V4(_) => (32, IpAddr::V4(self.v4())),
            IpAddr::V6(_) => (128, IpAddr::V6(self.v6())),
        };
        let nodad = if address.is_ipv6() { "nodad" } else { "" };
        self.ip(&format!("addr add {address}/{length} dev eth0 {nodad}"));
        mesh.node.ip(&format!("route add {address}/{length} via {via}"));
    }
}

impl Deref for Workload {
    type Target = Netns;

    fn deref(&self) -> &Netns {
        &self.netns
    }
}
