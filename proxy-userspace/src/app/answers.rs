//! Answers to questions that change nothing.

use hyper::StatusCode;

use super::{control::Control, routes, status};
use crate::{
    admin::{Answer, Ask},
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
        Ask::Routes => Answer::json(&routes::of(&control.snapshot.load(), &control.workloads.classes())),
        Ask::ConfigDump => Answer::ok(control.snapshot.load().to_string()),
        Ask::Status => Answer::json(&status::of(control)),
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
