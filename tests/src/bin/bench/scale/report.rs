//! What a scale run found out, for people.

use std::io::Write;
use std::time::Duration;

use anyhow::Result;

use super::calls::Tally;
use crate::bars::Bar;
use crate::measure::Spread;

/// From nothing to ready.
pub(super) struct Start {
    pub(super) seconds: f64,
    pub(super) rss_mib: f64,
    pub(super) peak_mib: f64,
    pub(super) tables_mib: f64,
}

/// A stretch of time under connecting load.
pub(super) struct Load {
    pub(super) seconds: f64,
    pub(super) changes: u32,
    /// How often the daemon made new rules of them.
    pub(super) rules: usize,
    /// From the last change until it counts; after a kill, from the new start until it is ready.
    pub(super) settled: Duration,
    /// The daemon's own.
    pub(super) cpu: f64,
    pub(super) held_lost: usize,
    pub(super) tally: Tally,
}

/// Everything.
pub(super) struct Report {
    /// Services and endpoints.
    pub(super) folder: (usize, usize),
    pub(super) start: Start,
    /// Milliseconds of a change in a file with one service.
    pub(super) small: Spread,
    /// And in one with a hundred.
    pub(super) large: Spread,
    pub(super) storm: Load,
    /// `None` when this daemon leaves nothing in place.
    pub(super) kill: Option<Load>,
    pub(super) said: String,
}

impl Report {
    /// Prints it, the bars last.
    pub(super) fn print(&self) -> Result<()> {
        let mut out = std::io::stdout();
        let (services, endpoints) = self.folder;
        let Start { seconds, rss_mib, peak_mib, tables_mib } = self.start;
        writeln!(out, "\nscale: {services} services, {endpoints} endpoints")?;
        writeln!(
            out,
            "  ready after {seconds:.2} s; daemon {rss_mib:.1} MiB, at its peak {peak_mib:.1} MiB"
        )?;
        writeln!(out, "  tables in the kernel: {tables_mib:.1} MiB")?;
        for (what, Spread { median, min, max }) in [("of 1 service", self.small), ("of 100", self.large)] {
            writeln!(
                out,
                "  a changed endpoint in a file {what} answers after {median:.1} ms ({min:.1}–{max:.1})"
            )?;
        }
        writeln!(out, "  the daemon said: {}", self.said)?;
        self.storm.print(&mut out, "a storm of changes")?;
        match &self.kill {
            Some(kill) => kill.print(&mut out, "kill -9 and a new start")?,
            None => writeln!(out, "not measured: kill -9: this daemon leaves no tables in place (--pin)")?,
        }
        writeln!(out, "\nBars")?;
        self.bars().into_iter().try_for_each(|bar| writeln!(out, "  {bar}"))?;
        Ok(())
    }

    fn bars(&self) -> Vec<Bar> {
        let change = "one change: ms from its file to its first connection";
        let mut bars = vec![Bar::at_most(change, 10.0, self.small.median)];
        let loads = [("storm", Some(&self.storm)), ("kill -9", self.kill.as_ref())];
        for (name, load) in loads.into_iter().filter_map(|(name, load)| Some((name, load?))) {
            let failed = load.tally.failed as f64;
            bars.push(Bar::at_most(&format!("{name}: new connections lost"), 0.0, failed));
            bars.push(Bar::at_most(&format!("{name}: open connections lost"), 0.0, load.held_lost as f64));
        }
        bars
    }
}

impl Load {
    fn print(&self, out: &mut impl Write, what: &str) -> Result<()> {
        let Self { seconds, changes, rules, settled, cpu, held_lost, tally } = self;
        writeln!(out, "\n{what}: {seconds:.1} s")?;
        if *changes > 0 {
            let each = f64::from(*changes) / seconds;
            writeln!(
                out,
                "  {changes} changes ({each:.0} a second), {rules} times new rules, {cpu:.1} CPU-s"
            )?;
            writeln!(out, "  the last change counts after {:.0} ms", settled.as_secs_f64() * 1e3)?;
        } else {
            writeln!(out, "  ready again after {:.2} s", settled.as_secs_f64())?;
        }
        let (p50, p99, most) = (tally.millis(0.5), tally.millis(0.99), tally.millis(1.0));
        writeln!(out, "  new connections: {}, lost {}", tally.made, tally.failed)?;
        tally.last_error.iter().try_for_each(|error| writeln!(out, "  last error: {error}"))?;
        writeln!(out, "  connect and answer: p50 {p50:.2} ms, p99 {p99:.2} ms, slowest {most:.1} ms")?;
        writeln!(out, "  open connections lost: {held_lost}")?;
        Ok(())
    }
}
