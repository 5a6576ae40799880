//! Answers to questions that change nothing.

use std::collections::BTreeMap;

use hyper::StatusCode;
use proxy_common::FailurePolicy;
use proxy_traffic::{Listener, Snapshot};

use super::control::Control;
use crate::{
    admin::{Answer, Ask, RouteRow, Routes, Status},
    cause::chain,
};

/// The format that `Metrics::text` writes.
const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What `ask` is answered; enrolling is not asked here.
pub(super) fn answer(control: &Control, ask: &Ask) -> Answer {
    match ask {
        Ask::Metrics => metrics(control),
        Ask::Live => Answer::ok("live\n"),
        Ask::Ready if control.ready => Answer::ok("ready\n"),
        Ask::Ready => Answer::text(StatusCode::SERVICE_UNAVAILABLE, "not ready\n"),
        Ask::Routes => Answer::json(&routes(&control.snapshot.load())),
        Ask::ConfigDump => Answer::ok(control.snapshot.load().to_string()),
        Ask::Status => Answer::json(&status(control)),
        Ask::Exec if control.workloads.has(&control.settings.name) => Answer::json(&control.exec),
        Ask::Exec => Answer::text(
            StatusCode::CONFLICT,
            format!(
                "the local workload {} is no longer captured: it was unenrolled, or its cgroup was removed; \
                 start the daemon again\n",
                control.settings.name
            ),
        ),
        Ask::Enroll(_) | Ask::Unenroll(_) => Answer::text(StatusCode::NOT_FOUND, "not found\n"),
    }
}

/// What `ask` is answered by a daemon that is about to end: whoever watches it still can, nobody new comes in.
pub(super) fn while_draining(control: &Control, ask: &Ask) -> Answer {
    match ask {
        Ask::Exec | Ask::Enroll(_) | Ask::Unenroll(_) => {
            Answer::text(StatusCode::SERVICE_UNAVAILABLE, "the daemon is draining and about to end\n")
        }
        other => answer(control, other),
    }
}

fn metrics(control: &Control) -> Answer {
    match control.workloads.kernel.counters() {
        Ok(counters) => control.connects.update(&counters),
        Err(error) => tracing::warn!("{error}"),
    }
    match control.metrics.text() {
        Ok(text) => Answer { content_type: CONTENT_TYPE, ..Answer::ok(text) },
        Err(error) => {
            Answer::text(StatusCode::INTERNAL_SERVER_ERROR, format!("cannot write metrics: {error}\n"))
        }
    }
}

/// `message`, or what went wrong.
pub(super) fn done(outcome: anyhow::Result<()>, message: String) -> Answer {
    match outcome {
        Ok(()) => Answer::ok(message),
        Err(error) => Answer::text(StatusCode::CONFLICT, format!("{}\n", chain(error.as_ref()))),
    }
}

fn routes(snapshot: &Snapshot) -> Routes {
    let row = |address: String, verdict: &str, listener: &Listener| RouteRow {
        address,
        listener: listener.name.clone(),
        verdict: verdict.to_owned(),
        rules: listener.rules.iter().map(ToString::to_string).collect(),
    };
    let exact = snapshot.listeners.iter().map(|(address, one)| row(address.to_string(), "steer", one));
    let ranges = snapshot.subnets.iter();
    let ranges = ranges.map(|one| row(format!("{}:{}", one.subnet, one.port), "steer", &one.listener));
    let gateways = snapshot.gateways.iter().map(|(address, one)| row(address.to_string(), "listen", one));
    Routes(exact.chain(ranges).chain(gateways).collect())
}

fn status(control: &Control) -> Status {
    let snapshot = control.snapshot.load();
    let counts = [
        ("listeners", snapshot.listeners.len() + snapshot.subnets.len()),
        ("gateway ports", snapshot.gateways.len()),
        ("clusters", snapshot.clusters.len()),
        ("hosts", snapshot.hosts.len()),
    ];
    let problems = control.resources.problems().iter().map(ToString::to_string);
    Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        uptime_seconds: control.started.elapsed().as_secs(),
        generation: snapshot.generation,
        counts: counts.map(|(what, count)| (what.to_owned(), count)).into(),
        failure_policy: match control.settings.failure_policy {
            FailurePolicy::Open => "captured connects go their own way (open)".to_owned(),
            FailurePolicy::Closed => "captured connects are refused (closed)".to_owned(),
        },
        workloads: control.workloads.rows(),
        connects: connects(control),
        problems: problems.chain(control.gateways.problems().cloned()).collect(),
    }
}

/// What the programs decided so far, by verdict.
fn connects(control: &Control) -> BTreeMap<String, u64> {
    let counters = control.workloads.kernel.counters();
    let counters = counters.inspect_err(|error| tracing::warn!("{error}"));
    counters.into_iter().flatten().map(|(name, count)| (name.to_owned(), count)).collect()
}
