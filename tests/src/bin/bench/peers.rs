//! The proxies that Shunt is measured beside, each as fast as its documentation lets it be for this job.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::place::Place;
use crate::process::Process;
use crate::rows::Row;
use crate::scene::Scene;

const HAPROXY: u16 = 10001;
const HAPROXY_SPLICE: u16 = 10002;
const NGINX: u16 = 10003;
const ENVOY: u16 = 10004;
const NGINX_SIDECAR: u16 = 10005;

/// Starts the peer called `name`, or says why it is not there.
pub(crate) fn start(scene: &Scene, name: &str) -> Result<std::result::Result<(Row, Process), String>> {
    let (program, port) = match name {
        "haproxy" => (find("HAPROXY_BIN", &["/usr/sbin/haproxy"]), HAPROXY),
        "haproxy-splice" => (find("HAPROXY_BIN", &["/usr/sbin/haproxy"]), HAPROXY_SPLICE),
        "nginx" => (find("NGINX_BIN", &["/usr/sbin/nginx"]), NGINX),
        "nginx-sidecar" => (find("NGINX_BIN", &["/usr/sbin/nginx"]), NGINX_SIDECAR),
        "envoy" => (find("ENVOY_BIN", &["target/tools/envoy/envoy/_bin/envoy", "target/tools/envoy"]), ENVOY),
        // Its mesh comes from a control plane, and its traffic from iptables: a scene of its own.
        _ => return Ok(Err("this benchmark does not drive it yet".to_owned())),
    };
    let Some(program) = program else { return Ok(Err("not present".to_owned())) };
    let text = match name {
        "haproxy" => haproxy(port, "", scene.backends),
        "haproxy-splice" => haproxy(port, "option splice-request\n option splice-response", scene.backends),
        "nginx" | "nginx-sidecar" => match nginx(port, scene) {
            Some(text) => text,
            None => return Ok(Err("its stream module is not present (libnginx-mod-stream)".to_owned())),
        },
        _ => envoy(port, scene.backends),
    };
    // Envoy tells the language by the ending; the others do not care.
    let config = scene.dir.join(format!("{name}.yaml"));
    fs::write(&config, text).with_context(|| format!("write {}", config.display()))?;
    let mut process = launch(scene, name, &program, &config)?;
    let target = if is_sidecar(name) { (Ipv4Addr::LOCALHOST, port).into() } else { scene.node(port) };
    process.await_ready(name, || scene.client.enter(|| crate::idle::echo_once(target).is_ok()))?;
    let place = Place::new(&scene.client, None);
    Ok(Ok((Row { name: name.to_owned(), targets: vec![target], pid: Some(process.pid()), place }, process)))
}

/// A sidecar runs in the client's own namespace, as a steered connection's proxy does: one hop more than a proxy in the
/// node's, which every packet passes anyway.
fn is_sidecar(name: &str) -> bool {
    name.ends_with("-sidecar")
}

fn launch(scene: &Scene, name: &str, program: &Path, config: &Path) -> Result<Process> {
    let config = config.display().to_string();
    let args: Vec<&str> = match name {
        "nginx" | "nginx-sidecar" => vec!["-c", &config, "-e", "stderr", "-g", "daemon off;"],
        "envoy" => {
            vec!["-c", &config, "--concurrency", "2", "--log-level", "error", "--disable-hot-restart"]
        }
        _ => vec!["-db", "-f", &config],
    };
    let place = if is_sidecar(name) { &scene.client } else { scene.mesh.node() };
    Process::start(place, program, &args, scene.dir.join(format!("{name}.log")))
}

/// The program that the environment names, else the first of `places` that exists.
fn find(variable: &str, places: &[&str]) -> Option<PathBuf> {
    let named = std::env::var_os(variable).map(PathBuf::from);
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    named.into_iter().chain(places.iter().map(|place| root.join(place))).find(|path| path.is_file())
}

fn haproxy(port: u16, options: &str, [first, second]: [SocketAddr; 2]) -> String {
    // 7000 connections, two ends each, and the pipes stay below 20,000 open files.
    format!(
        "global
 nbthread 2
 maxconn 7000
 maxpipes 500
defaults
 mode tcp
 timeout connect 10s
 timeout client 1h
 timeout server 1h
 {options}
listen echo
 bind :{port} backlog 4096
 maxconn 7000
 balance random
 server v1 {first} weight 80
 server v2 {second} weight 20
"
    )
}

fn nginx(port: u16, scene: &Scene) -> Option<String> {
    let [first, second] = scene.backends;
    let module = find("NGINX_STREAM_MODULE", &["/usr/lib/nginx/modules/ngx_stream_module.so"])?;
    let (module, pid) = (module.display(), scene.dir.join(format!("nginx-{port}.pid")));
    Some(format!(
        "load_module {module};
user root;
worker_processes 2;
worker_rlimit_nofile 20000;
pid {};
events {{ worker_connections 16384; }}
stream {{
  upstream echo {{ server {first} weight=80; server {second} weight=20; }}
  server {{
    listen {port} reuseport backlog=4096 so_keepalive=off;
    proxy_pass echo;
    proxy_timeout 1h;
    tcp_nodelay on;
  }}
}}
",
        pid.display()
    ))
}

fn envoy(port: u16, backends: [SocketAddr; 2]) -> String {
    let cluster = |name: &str, address: SocketAddr| {
        let (ip, port) = (address.ip(), address.port());
        format!(
            "  - name: {name}
    type: STATIC
    connect_timeout: 10s
    circuit_breakers: {{thresholds: [{{max_connections: 100000, max_pending_requests: 100000}}]}}
    load_assignment:
      cluster_name: {name}
      endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: {ip}, port_value: {port}}}}}}}}}]}}]
"
        )
    };
    let clusters = cluster("v1", backends[0]) + &cluster("v2", backends[1]);
    format!(
        "static_resources:
  listeners:
  - name: echo
    address: {{socket_address: {{address: 0.0.0.0, port_value: {port}}}}}
    tcp_backlog_size: 4096
    filter_chains:
    - filters:
      - name: envoy.filters.network.tcp_proxy
        typed_config:
          \"@type\": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy
          stat_prefix: echo
          weighted_clusters: {{clusters: [{{name: v1, weight: 80}}, {{name: v2, weight: 20}}]}}
  clusters:
{clusters}"
    )
}
