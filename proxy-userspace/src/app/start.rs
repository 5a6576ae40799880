//! From settings to what each room is started with.

use std::{
    fs::OpenOptions,
    io::{self, Write},
    path::PathBuf,
    sync::Arc,
    thread,
    time::Duration,
};

use anyhow::Context as _;
use arc_swap::ArcSwap;
use proxy_traffic::{Cluster, Snapshot, istio};

use super::{cgroups::Cgroups, dns::Names, workloads::Places};
use crate::{
    admin::ExecContext,
    kernel::KernelSettings,
    metrics::Metrics,
    node::Steering,
    proxy::{AccessLog, Context, Workers, access_log::Format},
    settings::{Blocked, Datapath, Overflow, Settings, Switch},
};

/// Kubernetes' name for the end of every service name.
pub(super) const CLUSTER_DOMAIN: &str = "cluster.local";
/// Istio's `connectTimeout` where no DestinationRule says otherwise.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The threads that carry connections.
pub(super) fn workers(
    settings: &Settings,
    snapshot: Arc<ArcSwap<Snapshot>>,
    metrics: Arc<Metrics>,
    access_log: AccessLog,
    names: &Names,
) -> anyhow::Result<Workers> {
    let passthrough = Arc::new(Cluster::passthrough(CONNECT_TIMEOUT));
    let context = Context {
        snapshot,
        metrics,
        access_log,
        passthrough,
        blackhole: Arc::new(Cluster::blackhole()),
        http_status: settings.egress.http_blocked_status,
        resolver: names.resolver(),
        dns: names.streams(),
    };
    // The node's processors belong to the workloads first, and a worker with more to do does more at a time.
    let half = thread::available_parallelism().map_or(1, |cores| cores.get().div_ceil(2));
    let threads = settings.workers.map_or(half, usize::from);
    Workers::start(&Arc::new(context), threads).context("cannot start the worker threads")
}

/// Where each connection's line goes.
pub(super) fn access_log(settings: &Settings, metrics: Arc<Metrics>) -> anyhow::Result<AccessLog> {
    let format = match settings.access_log.as_str() {
        "off" => return Ok(AccessLog::off(metrics)),
        "json" => Format::Json,
        _ => Format::Text,
    };
    let out: Box<dyn Write + Send> = match &settings.access_log_file {
        None => Box::new(io::stdout()),
        Some(path) => {
            let file = OpenOptions::new().create(true).append(true).open(path);
            Box::new(file.with_context(|| format!("cannot open the access log {}", path.display()))?)
        }
    };
    AccessLog::start(format, out, metrics).context("cannot start the access log's thread")
}

/// What the kernel programs are told.
pub(super) fn kernel(settings: &Settings, cgroups: &Cgroups) -> anyhow::Result<KernelSettings> {
    Ok(KernelSettings {
        own_cgroup: cgroups.daemon_id()?,
        mark: settings.mark,
        claims: settings.max_listeners,
        endpoints: settings.max_endpoints,
        lease: settings.lease,
        direct_log_percent: if settings.access_log == "off" { 0 } else { settings.direct_log },
        pin: settings.pins().then(|| pin_folder(settings)),
        log: settings.bpf_log,
    })
}

/// Where links are pinned that must outlive a killed daemon.
fn pin_folder(settings: &Settings) -> PathBuf {
    settings.run_dir.join("pins")
}

/// What all workloads have in common. Routing table and rule share their number.
pub(super) fn places(settings: &Settings, cgroups: &Cgroups) -> Places {
    let names = settings.egress.dns == Switch::On;
    let steering =
        Steering { mark: settings.mark, table: settings.route_table, priority: settings.route_table, names };
    let (failure_policy, root) = (settings.failure_policy, cgroups.root().to_owned());
    let stale_pins = (!settings.pins()).then(|| pin_folder(settings));
    Places { steering, failure_policy, root, stale_pins }
}

/// What compiling needs to know of this process.
pub(super) fn istio(settings: &Settings) -> istio::Settings {
    istio::Settings {
        cluster_domain: CLUSTER_DOMAIN.to_owned(),
        gateway_labels: settings.gateway_labels(),
        gateway_address: settings.gateway_address,
        connect_timeout: CONNECT_TIMEOUT,
        locality: settings.locality.clone(),
        steer_all: settings.datapath == Datapath::Steer,
        overflow_closes: settings.overflow == Overflow::Close,
        root_namespace: settings.egress.root_namespace.clone(),
        egress_refuses: settings.egress.egress_blocked == Blocked::Refuse,
    }
}

/// What `shunt exec` is told.
pub(super) fn exec_context(settings: &Settings, cgroups: &Cgroups) -> ExecContext {
    ExecContext {
        cgroup: cgroups.workload().to_owned(),
        hosts: settings.run_dir.join("hosts"),
        netns: format!("/proc/{}/ns/net", std::process::id()).into(),
    }
}
