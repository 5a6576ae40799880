//! What Shunt must reach, and whether it did.

use std::fmt;

use crate::held::Held;
use crate::idle::Idle;
use crate::measure::{Series, Spread};
use crate::rows::NO_PROXY;
use crate::workload::{Shape, Workload};

/// Two rows that run identical code differ by up to so much here.
const NOISE: f64 = 0.12;
/// A steered connection must not be behind these.
const RIVALS: [&str; 3] = ["haproxy", "haproxy-splice", "nginx"];
const STEERED: &str = "shunt-steered";
const DIRECT: &str = "shunt-direct";

/// One bar: `found` has to be at least, or at most, `limit`.
pub(crate) struct Bar {
    pub(crate) what: String,
    pub(crate) limit: f64,
    pub(crate) found: f64,
    at_least: bool,
}

impl Bar {
    /// `found` must not be more than `limit`.
    pub(crate) fn at_most(what: &str, limit: f64, found: f64) -> Self {
        Self { what: what.to_owned(), limit, found, at_least: false }
    }

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
pub(crate) fn judge(tables: &[(Workload, Vec<Series>)], idle: &[Idle], held: &[Held]) -> Vec<Bar> {
    let mut bars: Vec<Bar> =
        tables.iter().flat_map(|(workload, series)| of_workload(*workload, series)).collect();
    for row in idle.iter().filter(|row| row.name == STEERED) {
        bars.push(Bar::at_most("idle: KiB of the daemon per connection", 1.0, row.kib_each));
        // Half a hundredth: other files of the daemon come and go meanwhile.
        bars.push(Bar::at_most("idle: fds per connection", 2.005, row.files_each));
    }
    for row in held.iter().filter(|row| row.row == DIRECT) {
        let what = "held: KiB of kernel memory per direct connection beyond no-proxy";
        bars.push(Bar::at_most(what, 0.5, row.beyond));
    }
    bars
}

fn of_workload(workload: Workload, series: &[Series]) -> Vec<Bar> {
    let row = |name: &str| series.iter().find(|row| row.row == name);
    let errors = [DIRECT, STEERED].into_iter().filter_map(row).map(|row| {
        let what = format!("{}: errors of {}", workload.name, row.row);
        Bar { what, limit: 0.0, found: row.errors as f64, at_least: false }
    });
    let steered = row(STEERED).map(|row| of_steered(workload, row, series));
    let direct = row(DIRECT).map(|row| of_direct(workload, row, series));
    errors.chain(steered.into_iter().flatten()).chain(direct.into_iter().flatten()).collect()
}

/// The kernel routes: as if Shunt were not there, and better than address translation.
fn of_direct(workload: Workload, direct: &Series, series: &[Series]) -> Vec<Bar> {
    let churn = workload.shape == Shape::Churn;
    let mut bars = Vec::new();
    let mut bar = |what: &str, beside: &Series, limit, found, at_least| {
        let what = format!("{}: direct, {what} beside {}", workload.name, beside.row);
        bars.push(Bar { what, limit, found, at_least });
    };
    for peer in series {
        let rate = paired(&direct.rate, &peer.rate);
        match peer.row.as_str() {
            NO_PROXY => {
                bar("throughput", peer, if churn { 0.92 } else { 0.97 }, rate, true);
                if workload.shape != Shape::Bulk && !churn {
                    bar("p50", peer, 1.0 / 0.97, paired(&direct.p50, &peer.p50), false);
                }
                bar("CPU", peer, 1.0 + NOISE, paired(&direct.cpu, &peer.cpu), false);
            }
            "iptables" | "nftables" if churn => bar("throughput", peer, 1.0, rate, true),
            _ => {}
        }
    }
    bars
}

/// The median of the rounds' ratios: the two were measured a moment apart in each, so what slows down the machine for
/// longer than that is in both.
fn paired(values: &[f64], floor: &[f64]) -> f64 {
    if values.len() != floor.len() {
        return median(values) / median(floor);
    }
    median(&values.iter().zip(floor).map(|(value, floor)| value / floor).collect::<Vec<_>>())
}

fn of_steered(workload: Workload, shunt: &Series, series: &[Series]) -> Vec<Bar> {
    let row = |name: &str| series.iter().find(|row| row.row == name);
    let rate = |row: &Series| median(&row.rate);
    let mut bars = Vec::new();
    let against_none = match workload.name {
        "b8" => Some(0.85),
        "c64" => Some(0.62),
        "r64x64" => Some(0.53),
        _ => None,
    };
    if let (Some(limit), Some(floor)) = (against_none, row(NO_PROXY)) {
        let what = format!("{}: throughput beside no proxy", workload.name);
        bars.push(Bar { what, limit, found: rate(shunt) / rate(floor), at_least: true });
    }
    if let ("r1x64", Some(floor)) = (workload.name, row(NO_PROXY)) {
        let what = format!("{}: p50 beside no proxy", workload.name);
        bars.push(Bar { what, limit: 1.25, found: median(&shunt.p50) / median(&floor.p50), at_least: false });
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
