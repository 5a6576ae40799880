//! The report: tables for people, JSON for programs.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde_json::{Value, json};

use crate::bars::Bar;
use crate::costs::Cost;
use crate::held::Held;
use crate::idle::{FULL, Idle};
use crate::measure::{Series, Spread};
use crate::workload::Workload;

/// Everything that a run found out.
pub(crate) struct Report {
    pub(crate) facts: BTreeMap<String, String>,
    pub(crate) absent: BTreeMap<String, String>,
    pub(crate) tables: Vec<(Workload, Vec<Series>)>,
    pub(crate) idle: Vec<Idle>,
    pub(crate) costs: Vec<Cost>,
    pub(crate) held: Vec<Held>,
    pub(crate) bars: Vec<Bar>,
}

impl Report {
    /// The tables.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        let facts = self.facts.iter().map(|(key, value)| format!("{key}: {value}\n"));
        text.extend(facts);
        text.extend(self.absent.iter().map(|(name, why)| format!("not measured: {name}: {why}\n")));
        self.tables.iter().for_each(|(workload, series)| text.push_str(&table(*workload, series)));
        if !self.idle.is_empty() {
            text.push_str(&idle_table(&self.idle));
        }
        if !self.costs.is_empty() {
            text.push_str(&costs_table(&self.costs));
        }
        if !self.held.is_empty() {
            text.push_str(&held_table(&self.held));
        }
        if !self.bars.is_empty() {
            text.push_str("\nBars\n");
            text.extend(self.bars.iter().map(|bar| format!("  {bar}\n")));
        }
        text
    }

    /// The same as JSON, with every round's numbers.
    pub(crate) fn json(&self) -> Value {
        let row = |series: &Series| {
            json!({
                "row": series.row, "rate": series.rate, "system_cpu": series.cpu, "p50_us": series.p50,
                "p99_us": series.p99, "errors": series.errors, "last_error": series.last_error,
                "rate_median": Spread::of(&series.rate).map(|spread| spread.median),
            })
        };
        let tables = self.tables.iter().map(|(workload, series)| {
            json!({
                "workload": workload.name, "title": workload.title, "unit": workload.unit().0,
                "cpu_unit": workload.work().0, "rows": series.iter().map(row).collect::<Vec<_>>(),
            })
        });
        let idle = self.idle.iter().map(|idle| {
            json!({
                "row": idle.name, "base_mib": idle.base_mib, "kib_per_connection": idle.kib_each,
                "files_per_connection": idle.files_each,
            })
        });
        let costs = self.costs.iter().map(|cost| {
            let programs = cost.programs.iter();
            let programs = programs
                .map(|(name, count)| json!({ "program": name, "calls": count.calls, "nanos": count.nanos }));
            json!({
                "row": cost.row, "connections": cost.connections, "nanos_per_connection": cost.nanos_each(),
                "programs": programs.collect::<Vec<_>>(),
            })
        });
        let held = self.held.iter().map(|held| {
            json!({ "row": held.row, "kernel_kib_per_connection": held.kib_each, "beyond_no_proxy": held.beyond })
        });
        let bars = self.bars.iter().map(
            |bar| json!({ "bar": bar.what, "limit": bar.limit, "found": bar.found, "pass": bar.pass() }),
        );
        json!({
            "facts": self.facts, "absent": self.absent, "workloads": tables.collect::<Vec<_>>(),
            "idle": idle.collect::<Vec<_>>(), "costs": costs.collect::<Vec<_>>(), "held": held.collect::<Vec<_>>(),
            "bars": bars.collect::<Vec<_>>(),
        })
    }
}

fn table(workload: Workload, series: &[Series]) -> String {
    let (unit, work) = (workload.unit().0, workload.work().0);
    let mut text = format!("\n{}: {}\n", workload.name, workload.title);
    let heads = [unit, "ratio", work, "ratio", "p50 µs", "p99 µs"];
    let _ = writeln!(
        text,
        "  {:<15} {:>28} {:>6} {:>23} {:>6} {:>8} {:>8}  errors",
        "", heads[0], heads[1], heads[2], heads[3], heads[4], heads[5]
    );
    for row in series {
        let floor = &series[0];
        let _ = writeln!(
            text,
            "  {:<15} {:>28} {:>6} {:>23} {:>6} {:>8} {:>8}  {}{}",
            row.row,
            spread(&row.rate, if unit == "per s" { 0 } else { 1 }),
            ratio(&row.rate, &floor.rate),
            spread(&row.cpu, 3),
            ratio(&row.cpu, &floor.cpu),
            median(&row.p50),
            median(&row.p99),
            row.errors,
            row.last_error.as_ref().map(|error| format!(" (last: {error})")).unwrap_or_default(),
        );
    }
    text
}

fn idle_table(rows: &[Idle]) -> String {
    let mut text = format!("\nidle: {FULL} connections after a 1 B echo\n");
    let _ =
        writeln!(text, "  {:<15} {:>15} {:>15} {:>12}", "", "KiB/connection", "fds/connection", "base MiB");
    for Idle { name, kib_each, files_each, base_mib } in rows {
        let _ = writeln!(text, "  {name:<15} {kib_each:>15.2} {files_each:>15.2} {base_mib:>12.1}");
    }
    text
}

fn costs_table(costs: &[Cost]) -> String {
    let mut text =
        "\ncosts: time of the kernel programs for a connection, opened, used and closed\n".to_owned();
    let _ = writeln!(
        text,
        "  {:<25} {:<15} {:>12} {:>10} {:>14}",
        "", "program", "ns/call", "calls", "ns/connection"
    );
    for cost in costs {
        let connections = cost.connections as f64;
        for (place, count) in &cost.programs {
            let (calls, nanos) = (count.calls as f64, count.nanos as f64);
            let _ = writeln!(
                text,
                "  {:<25} {place:<15} {:>12.0} {:>10.2} {:>14.0}",
                cost.row,
                nanos / calls,
                calls / connections,
                nanos / connections
            );
        }
        let (name, all) = (&cost.row, cost.nanos_each());
        let _ = writeln!(text, "  {name:<25} {:<15} {:>12} {:>10} {all:>14.0}", "together", "", "");
    }
    text
}

fn held_table(rows: &[Held]) -> String {
    let mut text = format!("\nheld: kernel memory of {FULL} open connections, both ends\n");
    let _ = writeln!(text, "  {:<15} {:>24} {:>18}", "", "KiB/connection", "beyond no-proxy");
    for row in rows {
        let _ = writeln!(text, "  {:<15} {:>24} {:>18.2}", row.row, spread(&row.kib_each, 2), row.beyond);
    }
    text
}

fn spread(values: &[f64], digits: usize) -> String {
    let show = |Spread { median, min, max }| format!("{median:.digits$} ({min:.digits$}–{max:.digits$})");
    Spread::of(values).map_or_else(|| "–".to_owned(), show)
}

fn median(values: &[f64]) -> String {
    Spread::of(values).map_or_else(|| "–".to_owned(), |spread| format!("{:.0}", spread.median))
}

fn ratio(values: &[f64], floor: &[f64]) -> String {
    let ratio = || Some(Spread::of(values)?.median / Spread::of(floor)?.median);
    ratio().map_or_else(|| "–".to_owned(), |ratio| format!("{ratio:.2}"))
}
