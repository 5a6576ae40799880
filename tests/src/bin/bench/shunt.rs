//! Shunt's rows: a daemon in the node for each data path, each with a client of its own, and a gateway port.

use std::fs;
use std::net::SocketAddr;

use anyhow::{Result, ensure};
use tests::yaml::{service, split, subsets, workload_entry};

use crate::daemon::{self, Daemon};
use crate::place::{Cgroup, Place};
use crate::rows::Row;
use crate::scene::{PORT, Scene};

/// The address of the service, which only Shunt serves.
const VIP: &str = "10.96.0.10";
/// The gateway port of Istio's examples.
const GATEWAY: u16 = 31400;
const READY: std::time::Duration = std::time::Duration::from_secs(15);

/// Who carries the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Datapath {
    /// The kernel routes what it can.
    Auto,
    /// The daemon, every byte.
    Steer,
}

/// A running daemon and its client's cgroup.
pub(crate) struct Shunt {
    _daemon: Daemon,
    _cgroup: Cgroup,
}

impl Datapath {
    /// That of the row called `name`, if it is one of Shunt's.
    pub(crate) fn of_row(name: &str) -> Option<Self> {
        [Self::Auto, Self::Steer].into_iter().find(|datapath| datapath.row() == name)
    }

    fn row(self) -> &'static str {
        match self {
            Self::Auto => "shunt-direct",
            Self::Steer => "shunt-steered",
        }
    }

    fn flags(self) -> [&'static str; 4] {
        match self {
            Self::Auto => ["--datapath", "auto", "--metrics-address", "127.0.0.1:15000"],
            Self::Steer => ["--datapath", "steer", "--metrics-address", "127.0.0.1:15001"],
        }
    }
}

/// Starts a daemon and enrols a client: a row for the mesh, and one for the gateway of the daemon that steers.
pub(crate) fn start(scene: &Scene, datapath: Datapath) -> Result<(Vec<Row>, Shunt)> {
    let knows = daemon::knows(&daemon::binary()?, "--datapath")?;
    ensure!(knows || datapath == Datapath::Steer, "this binary steers everything: it has no --datapath");
    let (name, instance) = (datapath.row(), format!("{}-{}", scene.mesh.id(), datapath.row()));
    let dir = scene.dir.join(name);
    fs::create_dir_all(dir.join("config"))?;
    let steers = datapath == Datapath::Steer;
    let resources = mesh(scene.backends) + &if steers { gateway() } else { String::new() };
    fs::write(dir.join("config/echo.yaml"), resources)?;
    let client = scene.another(name);
    let cgroup = Cgroup::create(&format!("{instance}-client"))?;
    let flags = datapath.flags();
    let mut daemon = Daemon::start(scene.mesh.node(), &instance, &dir, &flags[if knows { 0 } else { 2 }..])?;
    daemon.await_ready(READY)?;
    daemon.enroll(&client, &cgroup)?;
    let mut rows = vec![(name, SocketAddr::new(VIP.parse()?, PORT), Place::new(&client, Some(&cgroup)))];
    if steers {
        // A gateway's clients are anybody.
        rows.push(("shunt-gateway", scene.node(GATEWAY), Place::new(&scene.client, None)));
    }
    let pid = Some(daemon.pid()?);
    let row = |(name, target, place): (&str, _, _)| {
        daemon.await_echo(target, || place_echoes(&place, target))?;
        Ok(Row { name: name.to_owned(), targets: vec![target], pid, place })
    };
    let rows = rows.into_iter().map(row).collect::<Result<_>>()?;
    Ok((rows, Shunt { _daemon: daemon, _cgroup: cgroup }))
}

fn place_echoes(place: &Place, target: SocketAddr) -> bool {
    matches!(place.enter(|| crate::idle::echo_once(target)), Ok(Ok(_)))
}

/// The service with its two versions, 80/20.
fn mesh([first, second]: [SocketAddr; 2]) -> String {
    let weights = [("v1", 80), ("v2", 20)];
    let service = service("tcp-echo", &[VIP], PORT);
    let entries = workload_entry("tcp-echo", "v1", first) + &workload_entry("tcp-echo", "v2", second);
    service + &entries + &subsets("tcp-echo", &["v1", "v2"]) + &split(&weights)
}

/// The same split for a gateway port.
fn gateway() -> String {
    format!(
        "---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {{name: bench}}
spec:
  selector: {{istio: ingressgateway}}
  servers: [{{port: {{number: {GATEWAY}, name: tcp, protocol: TCP}}, hosts: [\"*\"]}}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: bench-gateway}}
spec:
  hosts: [\"*\"]
  gateways: [bench]
  tcp:
  - match: [{{port: {GATEWAY}}}]
    route:
    - {{destination: {{host: tcp-echo, subset: v1, port: {{number: {PORT}}}}}, weight: 80}}
    - {{destination: {{host: tcp-echo, subset: v2, port: {{number: {PORT}}}}}, weight: 20}}
"
    )
}
