//! `cargo xtask bench`: Shunt beside no proxy and its peers, in one interleaved run.
//!
//! `bench load` and `bench serve` are the two ends of the load alone, in the current network namespace.

mod load;
mod machine;
mod serve;
mod workload;

use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::load::Plan;
use crate::workload::Workload;

#[derive(Debug, Parser)]
#[command(name = "bench", about = "Measures Shunt beside no proxy, HAProxy, nginx and Envoy")]
struct Cli {
    #[command(subcommand)]
    alone: Option<Alone>,
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
        None => Ok(()),
    }
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
