//! What Shunt must reach, and whether it did.

use std::fmt;

use crate::idle::Idle;
use crate::measure::{Series, Spread};
use crate::workload::{Shape, Workload};

/// Two rows that run identical code differ by up to so much here.
const NOISE: f64 = 0.12;
/// Shunt must not be behind these.
const RIVALS: [&str; 3] = ["haproxy", "haproxy-splice", "nginx"];

/// One bar: `found` has to be at least, or at most, `limit`.
pub(crate) struct Bar {
    pub(crate) what: String,
    pub(crate) limit: f64,
    pub(crate) found: f64,
    at_least: bool,
}

impl Bar {
    /// Whether Shunt reached it.
    pub(crate) fn pass(&self) -> bool {
        if self.at_least { self.found >= self.limit } else { self.found <= self.limit }
    }
}

impl fmt::Display for Bar {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (word, sign) = (if self.pass() { "pass" } else { "MISS" }, if self.at_least { "≥" } else { "≤" });
        write!(out, "{word}  {}: {:.2} ({sign} {:.2})", self.what, self.found, self.limit)
    }
}

/// All bars that the measured workloads allow to judge.
pub(crate) fn judge(tables: &[(Workload, Vec<Series>)], idle: &[Idle]) -> Vec<Bar> {
    let mut bars: Vec<Bar> =
        tables.iter().flat_map(|(workload, series)| of_workload(*workload, series)).collect();
    for row in idle.iter().filter(|row| row.name == "shunt") {
        let at_most = |what: &str, limit, found| Bar { what: what.to_owned(), limit, found, at_least: false };
        bars.push(at_most("idle: KiB of the daemon per connection", 1.0, row.kib_each));
        // Half a hundredth: other files of the daemon come and go meanwhile.
        bars.push(at_most("idle: fds per connection", 2.005, row.files_each));
    }
    bars
}

fn of_workload(workload: Workload, series: &[Series]) -> Vec<Bar> {
    let row = |name: &str| series.iter().find(|row| row.row == name);
    let Some(shunt) = row("shunt") else { return Vec::new() };
    let rate = |row: &Series| median(&row.rate);
    let errors = Bar {
        what: format!("{}: errors", workload.name),
        limit: 0.0,
        found: shunt.errors as f64,
        at_least: false,
    };
    let mut bars = vec![errors];
    let against_direct = match workload.name {
        "b8" => Some(0.85),
        "c64" => Some(0.62),
        "r64x64" => Some(0.53),
        _ => None,
    };
    if let (Some(limit), Some(direct)) = (against_direct, row("direct")) {
        let what = format!("{}: throughput beside no proxy", workload.name);
        bars.push(Bar { what, limit, found: rate(shunt) / rate(direct), at_least: true });
    }
    if let ("r1x64", Some(direct)) = (workload.name, row("direct")) {
        let what = format!("{}: p50 beside no proxy", workload.name);
        bars.push(Bar {
            what,
            limit: 1.25,
            found: median(&shunt.p50) / median(&direct.p50),
            at_least: false,
        });
    }
    for rival in RIVALS.into_iter().filter_map(row) {
        let what = format!("{}: throughput beside {}", workload.name, rival.row);
        bars.push(Bar { what, limit: 1.0 - NOISE, found: rate(shunt) / rate(rival), at_least: true });
        if workload.shape != Shape::Bulk {
            let what = format!("{}: p50 beside {}", workload.name, rival.row);
            let found = median(&shunt.p50) / median(&rival.p50);
            bars.push(Bar { what, limit: 1.0 + NOISE, found, at_least: false });
        }
    }
    bars
}

/// Not a number when there was no round, so that no bar passes on nothing.
fn median(values: &[f64]) -> f64 {
    Spread::of(values).map_or(f64::NAN, |spread| spread.median)
}
