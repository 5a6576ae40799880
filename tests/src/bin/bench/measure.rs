//! The rounds: every row once in each, in an order that is rotated from round to round.

use std::io::Write;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::load::{self, Outcome, Plan};
use crate::rows::Row;
use crate::workload::Workload;

const WARMUP: Duration = Duration::from_millis(400);

/// All rounds of one row under one workload.
#[derive(Clone, Debug)]
pub(crate) struct Series {
    pub(crate) row: String,
    /// Throughput of each round in the workload's unit.
    pub(crate) rate: Vec<f64>,
    /// Busy time of the whole machine per unit of work, of each round.
    pub(crate) cpu: Vec<f64>,
    /// Latencies of each round in microseconds.
    pub(crate) p50: Vec<f64>,
    pub(crate) p99: Vec<f64>,
    pub(crate) errors: u64,
    pub(crate) last_error: Option<String>,
}

/// Median, least and greatest of some rounds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

impl Spread {
    /// The spread of `values`; `None` when there are none.
    pub(crate) fn of(values: &[f64]) -> Option<Self> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let half = sorted.len() / 2;
        let median =
            if sorted.len() % 2 == 1 { sorted[half] } else { f64::midpoint(sorted[half - 1], sorted[half]) };
        Some(Self { median, min, max })
    }
}

/// Runs `workload` over all `rows`, `rounds` times.
pub(crate) fn workload(
    rows: &[Row],
    workload: Workload,
    rounds: usize,
    seconds: f64,
    stop: &AtomicBool,
) -> Result<Vec<Series>> {
    let mut series: Vec<Series> = rows.iter().map(|row| Series::new(&row.name)).collect();
    for round in 0..rounds {
        writeln!(std::io::stderr(), "{} round {} of {rounds}", workload.name, round + 1)?;
        for position in 0..rows.len() {
            let index = (position + round) % rows.len();
            let (targets, measure) = (rows[index].targets.clone(), Duration::from_secs_f64(seconds));
            let plan = Plan { targets, workload, warmup: WARMUP, measure };
            let outcome = rows[index].place.enter(|| load::run(&plan, stop))?;
            let outcome = outcome.with_context(|| format!("{} over {}", workload.name, rows[index].name));
            series[index].add(workload, outcome, stop)?;
        }
    }
    Ok(series)
}

impl Series {
    fn new(row: &str) -> Self {
        let (rate, cpu, p50, p99) = Default::default();
        Self { row: row.to_owned(), rate, cpu, p50, p99, errors: 0, last_error: None }
    }

    /// A run that failed is an error of its row and no end of the others, unless somebody wants the end.
    fn add(&mut self, workload: Workload, outcome: Result<Outcome>, stop: &AtomicBool) -> Result<()> {
        let outcome = match outcome {
            Err(error) if stop.load(std::sync::atomic::Ordering::Relaxed) => return Err(error),
            Err(error) => {
                self.errors += 1;
                self.last_error = Some(format!("{error:#}"));
                return Ok(());
            }
            Ok(outcome) => outcome,
        };
        let ((_, unit), (_, work)) = (workload.unit(), workload.work());
        self.errors += outcome.errors;
        self.rate.push(outcome.units as f64 / outcome.seconds / unit);
        if outcome.units == 0 {
            self.errors += 1;
            self.last_error = Some("nothing came through in a whole round".to_owned());
        } else {
            self.cpu.push(outcome.cpu / (outcome.units as f64 / work));
        }
        self.p50.extend(outcome.percentile(0.5));
        self.p99.extend(outcome.percentile(0.99));
        self.last_error = outcome.last_error.or_else(|| self.last_error.take());
        Ok(())
    }
}
