//! What `shunt status` is answered: a little of every room.

use std::{collections::BTreeMap, fs, path::Path};

use proxy_common::{FailurePolicy, direct::LAYOUT};
use proxy_traffic::Snapshot;

use super::control::Control;
use crate::{
    admin::{EjectedRow, ForeignRow, Pins, Status, TableRow},
    settings::{Datapath, Overflow, Settings},
};

/// The daemon's state now.
pub(super) fn of(control: &Control) -> Status {
    let (snapshot, settings) = (control.snapshot.load(), &control.settings);
    let workloads = &control.workloads;
    let tables = workloads.kernel.fill().into_iter();
    let problems = control.resources.problems().iter().map(ToString::to_string);
    let trouble =
        workloads.kernel.trouble().map(|why| format!("the kernel's tables are not up to date: {why}"));
    Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        uptime_seconds: control.started.elapsed().as_secs(),
        generation: snapshot.generation,
        counts: counts(&snapshot),
        failure_policy: match settings.failure_policy {
            FailurePolicy::Open => "captured connects go their own way (open)".to_owned(),
            FailurePolicy::Closed => "captured connects are refused (closed)".to_owned(),
        },
        workloads: workloads.rows(&snapshot),
        datapath: datapath(settings),
        pins: settings.pins().then(|| pins(control)),
        lease_seconds: workloads.direct.lease_left().map(|left| left.as_secs()),
        tables: tables
            .map(|one| TableRow { table: one.table.to_owned(), used: one.used.into(), size: one.size.into() })
            .collect(),
        ejected: ejected(&snapshot),
        foreign: foreign(control),
        connects: connects(control),
        problems: problems.chain(control.gateways.problems().cloned()).chain(trouble).collect(),
    }
}

fn counts(snapshot: &Snapshot) -> BTreeMap<String, usize> {
    let counts = [
        ("listeners", snapshot.listeners.len() + snapshot.subnets.len()),
        ("gateway ports", snapshot.gateways.len()),
        ("clusters", snapshot.clusters.len()),
        ("hosts", snapshot.hosts.len()),
    ];
    counts.map(|(what, count)| (what.to_owned(), count)).into()
}

fn datapath(settings: &Settings) -> String {
    let datapath = match settings.datapath {
        Datapath::Auto => "the kernel routes what it can (auto)",
        Datapath::Steer => "the daemon carries everything (steer)",
    };
    let overflow = match settings.overflow {
        Overflow::Refuse => "connections beyond a limit are refused",
        Overflow::Close => "connections beyond a limit are accepted and closed",
    };
    format!("{datapath}; {overflow}")
}

fn pins(control: &Control) -> Pins {
    let adopted = control.adopted;
    let folder = control.settings.run_dir.join("pins");
    // When a pin cannot be looked at, this daemon is what is known of its age.
    let age_seconds = oldest(&folder).unwrap_or_else(|| control.started.elapsed().as_secs());
    Pins { layout: LAYOUT, adopted, age_seconds }
}

/// Age of the oldest pin, in seconds.
fn oldest(folder: &Path) -> Option<u64> {
    let made = fs::read_dir(folder).ok()?.flatten().filter_map(|pin| pin.metadata().ok()?.modified().ok());
    Some(made.min()?.elapsed().ok()?.as_secs())
}

fn ejected(snapshot: &Snapshot) -> Vec<EjectedRow> {
    let mut all = Vec::new();
    for cluster in snapshot.clusters.values().filter(|cluster| cluster.outlier.is_some()) {
        let health = cluster.state.health();
        all.extend(health.ejected.iter().map(|endpoint| EjectedRow {
            cluster: cluster.name.to_string(),
            endpoint: endpoint.to_string(),
            used_anyway: health.panic,
        }));
    }
    all
}

fn foreign(control: &Control) -> Vec<ForeignRow> {
    let found = control.workloads.kernel.foreign(&control.workloads.cgroups());
    let found = found.inspect_err(|error| tracing::warn!("{error}")).unwrap_or_default();
    let rows = found.into_iter().map(|one| ForeignRow {
        cgroup: one.cgroup,
        hook: one.hook.to_owned(),
        program: one.id,
        name: one.name,
        runs: if one.before { "before" } else { "after" }.to_owned(),
    });
    rows.collect()
}

/// What the programs decided so far, by verdict.
fn connects(control: &Control) -> BTreeMap<String, u64> {
    let counters = control.workloads.kernel.counters();
    let counters = counters.inspect_err(|error| tracing::warn!("{error}"));
    counters.into_iter().flatten().map(|(name, count)| (name.to_owned(), count)).collect()
}
