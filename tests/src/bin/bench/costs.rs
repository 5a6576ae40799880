//! What a connect costs in the kernel programs: their own time over many connections, by program.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::Result;

use crate::load::{self, Plan};
use crate::programs::{self, Count, Statistics};
use crate::rows::Row;
use crate::workload::Workload;

/// The programs' work for one kind of connection.
#[derive(Clone, Debug)]
pub(crate) struct Cost {
    pub(crate) row: String,
    /// Connections that were opened, used and closed meanwhile.
    pub(crate) connections: u64,
    pub(crate) programs: BTreeMap<String, Count>,
}

impl Cost {
    /// Nanoseconds of all programs together for one connection.
    pub(crate) fn nanos_each(&self) -> f64 {
        self.programs.values().map(|count| count.nanos).sum::<u64>() as f64 / self.connections as f64
    }
}

/// Measures Shunt's rows, and connections from the same place that no rule claims, to `backend`.
pub(crate) fn measure(
    rows: &[Row],
    backend: SocketAddr,
    seconds: f64,
    stop: &AtomicBool,
) -> Result<Vec<Cost>> {
    let _statistics = Statistics::on()?;
    let mut costs = Vec::new();
    for row in rows.iter().filter(|row| row.is_shunt() && row.name != "shunt-gateway") {
        costs.extend(one(row, &row.name, &row.targets, seconds, stop)?);
        costs.extend(one(row, &format!("{}, unclaimed", row.name), &[backend], seconds, stop)?);
    }
    Ok(costs)
}

fn one(
    row: &Row,
    name: &str,
    targets: &[SocketAddr],
    seconds: f64,
    stop: &AtomicBool,
) -> Result<Option<Cost>> {
    let Some(pid) = row.pid else { return Ok(None) };
    let plan = Plan {
        targets: targets.to_vec(),
        workload: Workload::named("c64")?,
        // Nothing that the programs count may be left out of the connections.
        warmup: Duration::ZERO,
        measure: Duration::from_secs_f64(seconds),
    };
    let before = programs::counts(pid)?;
    let outcome = row.place.enter(|| load::run(&plan, stop))??;
    let after = programs::counts(pid)?;
    let more = |(place, now): (String, Count)| {
        let then = before.get(&place).copied().unwrap_or_default();
        let (calls, nanos) = (now.calls.saturating_sub(then.calls), now.nanos.saturating_sub(then.nanos));
        (place, Count { calls, nanos })
    };
    let programs = after.into_iter().map(more).filter(|(_, count)| count.calls > 0).collect();
    // Those that were under way at the end have been through the programs too.
    let connections = outcome.units + plan.workload.connections as u64;
    Ok(Some(Cost { row: name.to_owned(), connections, programs }))
}
