//! `cargo xtask bench`: Shunt beside no proxy and its peers, in one interleaved run.
//!
//! `bench load` and `bench serve` are the two ends of the load alone, in the current network namespace.

mod bars;
mod costs;
mod daemon;
mod held;
mod idle;
mod load;
mod machine;
mod measure;
mod names;
mod nat;
mod peers;
mod place;
mod process;
mod programs;
mod report;
mod rows;
mod scale;
mod scene;
mod serve;
mod shunt;
mod workload;

use std::collections::HashSet;
use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::{Args, Parser, Subcommand};

use crate::load::Plan;
use crate::report::Report;
use crate::scene::Scene;
use crate::workload::Workload;

#[derive(Debug, Parser)]
#[command(
    name = "bench",
    about = "Measures Shunt beside no proxy, address translation, HAProxy, nginx and Envoy",
    args_conflicts_with_subcommands = true
)]
struct Cli {
    #[command(flatten)]
    options: Options,
    #[command(subcommand)]
    alone: Option<Alone>,
}

#[derive(Debug, Args)]
struct Options {
    /// How often every row is measured; the tables show medians.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// How long each measurement takes.
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Only these workloads: c64, r64x64, r64x4096, r1x64, b1, b8, idle, costs, held.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Only these beside no proxy.
    #[arg(long, value_delimiter = ',', default_values = rows::NAMES, value_parser = rows::NAMES)]
    peers: Vec<String>,
    /// Two rounds of one second: to see that all of it works, not to judge by.
    #[arg(long)]
    quick: bool,
    /// Also writes every number to this file.
    #[arg(long)]
    json: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Alone {
    /// Only the load generator, here and now.
    Load {
        /// Where to connect to; several take turns.
        #[arg(long, required = true, value_delimiter = ',')]
        connect: Vec<SocketAddr>,
        /// c64, r64x64, r64x4096, r1x64, b1 or b8.
        #[arg(long, default_value = "c64")]
        workload: String,
        #[arg(long, default_value_t = 2.0)]
        seconds: f64,
    },
    /// Queries for names, through the daemon and past it.
    Dns(names::Options),
    /// Thousands of services in one daemon: start, change, a storm of changes, and kill -9, under connecting load.
    Scale(scale::Options),
    /// Only the server: echo, or an endless download for a connection that starts with `D`.
    Serve {
        #[arg(long, required = true, value_delimiter = ',')]
        listen: Vec<SocketAddr>,
    },
}

fn main() -> Result<()> {
    let cli = Cli::parse();
    machine::raise_file_limit()?;
    let stop = Arc::new(AtomicBool::new(false));
    match cli.alone {
        Some(Alone::Load { connect, workload, seconds }) => {
            watch_signals(&stop)?;
            load_alone(connect, Workload::named(&workload)?, seconds, &stop)
        }
        Some(Alone::Serve { listen }) => {
            serve::run(listen.into_iter().map(serve::listen).collect::<Result<_>>()?)
        }
        Some(Alone::Dns(options)) => {
            watch_signals(&stop)?;
            names::run(&options, &stop)
        }
        Some(Alone::Scale(options)) => {
            watch_signals(&stop)?;
            scale::run(&options, &stop)
        }
        None => {
            watch_signals(&stop)?;
            compare(&cli.options, &stop)
        }
    }
}

fn compare(options: &Options, stop: &AtomicBool) -> Result<()> {
    let (rounds, seconds) = if options.quick { (2, 1.0) } else { (options.rounds, options.seconds) };
    ensure!(rounds > 0 && seconds > 0.0, "--rounds and --seconds: must be more than zero");
    let chosen = |name: &str| options.only.is_empty() || options.only.iter().any(|only| only == name);
    for name in options.only.iter().filter(|name| !["idle", "costs", "held"].contains(&name.as_str())) {
        Workload::named(name)?;
    }
    let mut facts = machine::facts();
    // Rows end before the scene that they are in: values are dropped in reverse.
    let scene = Scene::new()?;
    let mut rows = rows::start(&scene, &options.peers)?;
    let mut tables = Vec::new();
    for workload in workload::ALL.into_iter().filter(|workload| chosen(workload.name)) {
        tables.push((workload, measure::workload(&rows.rows, workload, rounds, seconds, stop)?));
    }
    let mut idle = Vec::new();
    // Once per process: the second time it would live on what the first has left it.
    let mut seen = HashSet::new();
    for row in rows.rows.iter().filter(|row| chosen("idle") && seen.insert(row.pid)) {
        idle.extend(idle::measure(row, stop)?);
    }
    let held = if chosen("held") { held::measure(&rows.rows, stop)? } else { Vec::new() };
    let mut costs = Vec::new();
    if chosen("costs") {
        match costs::measure(&rows.rows, scene.backends[0], seconds, stop) {
            Ok(found) => costs = found,
            Err(error) => drop(rows.absent.insert("costs".to_owned(), format!("{error:#}"))),
        }
    }
    let measured = serve::CONGESTION.get().cloned().unwrap_or_default();
    facts.insert("congestion control, measured".to_owned(), measured);
    facts.insert("congestion control, hop over lo".to_owned(), scene.loopback_congestion());
    facts.insert("rounds".to_owned(), format!("{rounds} of {seconds} s, order rotated"));
    let bars = bars::judge(&tables, &idle, &held);
    let report = Report { facts, absent: rows.absent.clone(), tables, idle, costs, held, bars };
    if let Some(file) = &options.json {
        let text = serde_json::to_string_pretty(&report.json())?;
        std::fs::write(file, text).with_context(|| format!("write {}", file.display()))?;
    }
    std::io::stdout().write_all(report.text().as_bytes())?;
    Ok(())
}

/// From now on Ctrl-C and SIGTERM raise a flag, so that everything is dropped in order.
fn watch_signals(stop: &Arc<AtomicBool>) -> Result<()> {
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(stop))?;
    }
    Ok(())
}

fn load_alone(targets: Vec<SocketAddr>, workload: Workload, seconds: f64, stop: &AtomicBool) -> Result<()> {
    let (warmup, measure) = (Duration::from_millis(300), Duration::from_secs_f64(seconds));
    let outcome = load::run(&Plan { targets, workload, warmup, measure }, stop)?;
    let ((unit, one), (work, many)) = (workload.unit(), workload.work());
    let rate = outcome.units as f64 / outcome.seconds / one;
    let cpu = outcome.cpu / (outcome.units as f64 / many);
    let micros = |share| outcome.percentile(share).map_or_else(|| "–".to_owned(), |p| format!("{p:.0} µs"));
    let (p50, p99, errors) = (micros(0.5), micros(0.99), outcome.errors);
    let name = workload.name;
    let mut out = std::io::stdout();
    writeln!(out, "{name}: {rate:.2} {unit}, system {cpu:.4} {work}, p50 {p50}, p99 {p99}, {errors} errors")?;
    outcome.last_error.iter().try_for_each(|error| writeln!(out, "last error: {error}"))?;
    Ok(())
}
