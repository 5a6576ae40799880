//! Shunt itself: a daemon in the node, the client's namespace enrolled, and a gateway port.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use tests::sweep::{cgroup2, remove_cgroup};

use crate::process::Process;
use crate::rows::Row;
use crate::scene::{PORT, Scene};

/// The address of the service, which only Shunt serves.
const VIP: &str = "10.96.0.10";
/// The gateway port of Istio's examples.
const GATEWAY: u16 = 31400;

/// A running daemon; its cgroup goes with it, however it ended.
pub(crate) struct Shunt {
    process: Option<Process>,
    cgroup: PathBuf,
}

/// The program to measure: `SHUNT_BIN`, else the release build.
pub(crate) fn binary() -> Option<PathBuf> {
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/release/shunt");
    let named = std::env::var_os("SHUNT_BIN").map(PathBuf::from);
    named.or(Some(built)).filter(|path| path.is_file())
}

/// Starts the daemon and enrols the client: one row for the mesh, one for the gateway.
pub(crate) fn start(scene: &Scene, binary: &Path) -> Result<(Vec<Row>, Shunt)> {
    let config = scene.dir.join("config");
    fs::create_dir_all(&config)?;
    fs::write(config.join("echo.yaml"), resources(scene.backends))?;
    let dir = scene.dir.display();
    let args = format!(
        "run --config {dir}/config --run-dir {dir}/run --state-dir {dir}/state --instance {} --access-log off",
        scene.mesh.id()
    );
    let args: Vec<&str> = args.split(' ').collect();
    let process = Process::start(scene.mesh.node(), binary, &args, scene.dir.join("shunt.log"))?;
    let mut shunt = Shunt { process: Some(process), cgroup: cgroup2().join(scene.mesh.id()) };
    let pid = shunt.enroll(scene, binary)?;
    let vip = SocketAddr::new(VIP.parse()?, PORT);
    let row = |name: &str, target| Row { name: name.to_owned(), targets: vec![target], pid: Some(pid) };
    Ok((vec![row("shunt", vip), row("shunt-gateway", scene.node(GATEWAY))], shunt))
}

impl Shunt {
    /// Waits until the daemon is ready, enrols the client's namespace, and waits until both ways in work.
    fn enroll(&mut self, scene: &Scene, binary: &Path) -> Result<u32> {
        let process = self.process.as_mut().context("the daemon runs until this is dropped")?;
        let log = scene.dir.join("shunt.log");
        let said = || fs::read_to_string(&log).unwrap_or_default();
        process.await_ready("shunt run", || {
            said().lines().any(|line| line.split_whitespace().any(|word| word == "ready"))
        })?;
        let mut enroll = Command::new(binary);
        enroll.args(["enroll", "--name", "client", "--netns"]).arg(scene.client.path());
        let output = enroll.arg("--run-dir").arg(scene.dir.join("run")).output()?;
        if !output.status.success() {
            let complaint = String::from_utf8_lossy(&output.stderr);
            bail!("shunt enroll: {}\n{complaint}\nthe daemon said:\n{}", output.status, process.output());
        }
        for target in [SocketAddr::new(VIP.parse()?, PORT), scene.node(GATEWAY)] {
            let works = || scene.client.enter(|| crate::idle::echo_once(target).is_ok());
            process.await_ready(&format!("shunt at {target}"), works)?;
        }
        Ok(process.pid())
    }
}

impl Drop for Shunt {
    fn drop(&mut self) {
        self.process = None;
        remove_cgroup(&self.cgroup);
    }
}

/// The service with its two versions, 80/20 both in the mesh and through the gateway.
fn resources([first, second]: [SocketAddr; 2]) -> String {
    use tests::yaml::{service, split, subsets, workload_entry};
    let weights = [("v1", 80), ("v2", 20)];
    let service = service("tcp-echo", &[VIP], PORT);
    let entries = workload_entry("tcp-echo", "v1", first) + &workload_entry("tcp-echo", "v2", second);
    let gateway = format!(
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
    );
    service + &entries + &subsets("tcp-echo", &["v1", "v2"]) + &split(&weights) + &gateway
}
