//! Where it happens: clients, node and server in network namespaces, tuned alike for every row.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::thread;

use anyhow::{Context, Result};
use tests::mesh::{Mesh, Workload};
use tests::netns::Netns;

use crate::serve;

/// The port that the backends listen on.
pub(crate) const PORT: u16 = 9000;

/// The mesh, with a server running in it. Everything goes when this is dropped.
pub(crate) struct Scene {
    pub(crate) mesh: Mesh,
    pub(crate) client: Workload,
    /// Two addresses of one server.
    pub(crate) backends: [SocketAddr; 2],
    /// For configurations and logs.
    pub(crate) dir: PathBuf,
    pub(crate) server: Workload,
}

impl Scene {
    /// Makes the namespaces and starts the server.
    pub(crate) fn new() -> Result<Self> {
        let mesh = Mesh::new("bench");
        let (client, server) = (mesh.workload("client"), mesh.workload("server"));
        let second: IpAddr = [10, 9, 0, 2].into();
        server.claim(&mesh, second);
        [mesh.node(), &client, &server].into_iter().for_each(|place| tune(place));
        let backends = [server.ip4(), second].map(|ip| SocketAddr::new(ip, PORT));
        let listeners = server.enter(|| backends.into_iter().map(serve::listen).collect::<Result<_>>())?;
        // The thread ends with the process; if it ends before, every row shows errors.
        thread::spawn(|| serve::run(listeners));
        let dir = std::env::temp_dir().join(mesh.id());
        fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
        Ok(Self { mesh, client, backends, dir, server })
    }

    /// One more namespace that dials, joined to the node and tuned like the others.
    pub(crate) fn another(&self, name: &str) -> Workload {
        let client = self.mesh.workload(name);
        tune(&client);
        tune(self.mesh.node());
        client
    }

    /// The congestion control that no route pins: that of the hop inside a steered namespace, over `lo`.
    pub(crate) fn loopback_congestion(&self) -> String {
        let read = || fs::read_to_string("/proc/sys/net/ipv4/tcp_congestion_control").unwrap_or_default();
        self.client.enter(read).trim().to_owned()
    }

    /// The node's address as the client sees it.
    pub(crate) fn node(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.mesh.node().ip4(), port)
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        // Nothing to tell anybody about: the next run sweeps what is left.
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// Cubic on every route (a machine that defaults to BBR paces bulk streams), and ports that do not run out.
pub(crate) fn tune(place: &Netns) {
    place.sysctl("net/ipv4/tcp_max_tw_buckets", "2048");
    place.sysctl("net/ipv4/tcp_tw_reuse", "1");
    place.sysctl("net/ipv4/ip_local_port_range", "1024 65000");
    // What no route covers: the hop over `lo` inside a steered namespace. A namespace may choose only what the
    // host allows to everybody, and that is sure to contain reno, which like cubic does not pace.
    place.sysctl("net/ipv4/tcp_congestion_control", "reno");
    let pinned = |line: &str| format!("route replace {} congctl cubic\n", line.trim());
    let routes = place.ip("route show");
    let routes: String = routes.lines().filter(|line| !line.contains("congctl")).map(pinned).collect();
    place.ip(&routes);
}
