//! What the kernel keeps for a connection that is held open, beside what it keeps for one without Shunt.

use std::fs;
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::idle::{self, FULL};
use crate::measure::Spread;
use crate::rows::Row;

const ROUNDS: usize = 3;
/// Where the kernel takes the memory of sockets from, and of what programs keep for them. Whoever else is busy on the
/// machine shows in other caches first: those of files and of address spaces.
const CACHES: [&str; 6] = ["kmalloc", "TCP", "tcp_bind", "sock_inode", "request_sock", "bpf"];

/// Kernel memory of a held connection, both of its sockets, in KiB.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    pub(crate) row: String,
    /// Of each round.
    pub(crate) kib_each: Vec<f64>,
    /// More than without Shunt, by the medians.
    pub(crate) beyond: f64,
}

/// Measures no proxy and Shunt's direct row, in turn.
pub(crate) fn measure(rows: &[Row], stop: &AtomicBool) -> Result<Vec<Held>> {
    let Some(direct) = rows.iter().find(|row| row.name == "shunt-direct") else { return Ok(Vec::new()) };
    let pair = [&rows[0], direct];
    // The first time the kernel also makes what it keeps for good.
    pair.into_iter().try_for_each(|row| slope(row, stop).map(drop))?;
    let mut kib = [Vec::new(), Vec::new()];
    for _ in 0..ROUNDS {
        for (row, values) in pair.into_iter().zip(&mut kib) {
            values.push(slope(row, stop)?);
        }
    }
    let median = |values: &[f64]| Spread::of(values).map_or(f64::NAN, |spread| spread.median);
    let floor = median(&kib[0]);
    let held = |(row, kib_each): (&Row, Vec<f64>)| {
        let beyond = median(&kib_each) - floor;
        Held { row: row.name.clone(), kib_each, beyond }
    };
    Ok(pair.into_iter().zip(kib).map(held).collect())
}

fn slope(row: &Row, stop: &AtomicBool) -> Result<f64> {
    let before = settled()?;
    let held = idle::open(row, FULL, stop)?;
    let after = settled()?;
    drop(held);
    Ok((after - before) / 1024.0 / FULL as f64)
}

/// Waits until the kernel has put away what it frees later, and says what is in use.
fn settled() -> Result<f64> {
    let deadline = Instant::now() + Duration::from_secs(2);
    let mut last = in_use()?;
    loop {
        thread::sleep(Duration::from_millis(200));
        let now = in_use()?;
        // A hundredth of a KiB for each connection.
        if (now - last).abs() < FULL as f64 * 10.0 || Instant::now() > deadline {
            return Ok(now);
        }
        last = now;
    }
}

/// Bytes of the objects in use, by the caches that they come from. The pages that the caches hold say less: those of
/// freed connections are kept and filled again.
fn in_use() -> Result<f64> {
    let text = fs::read_to_string("/proc/slabinfo").context("read /proc/slabinfo")?;
    let cache = |line: &str| {
        let mut numbers = line.split_whitespace().skip(1);
        let active: f64 = numbers.next()?.parse().ok()?;
        Some(active * numbers.nth(1)?.parse::<f64>().ok()?)
    };
    Ok(text.lines().filter(|line| CACHES.iter().any(|name| line.starts_with(name))).filter_map(cache).sum())
}
