//! Connections at a steady rate, and some that stay open: what is lost of either.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::folder::{Folder, PORT};
use crate::serve::WHO;

const DEADLINE: Duration = Duration::from_secs(5);
/// Callers that share the rate: one that waits does not hold up the others.
const CALLERS: usize = 8;

/// What became of the connections of one stretch of time.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) made: u64,
    pub(super) failed: u64,
    pub(super) last_error: Option<String>,
    /// From connect to answer, in microseconds, ascending.
    pub(super) micros: Vec<u32>,
}

/// Callers at work. They belong to the network namespace of the thread that started them.
pub(super) struct Calls {
    stop: Arc<AtomicBool>,
    callers: Vec<JoinHandle<Tally>>,
}

/// Asks the service at `vip` who serves it.
pub(super) fn ask(vip: Ipv4Addr) -> io::Result<Ipv4Addr> {
    let mut stream = open(vip)?;
    stream.write_all(&[WHO])?;
    let mut octets = [0; 4];
    stream.read_exact(&mut octets)?;
    Ok(octets.into())
}

fn open(vip: Ipv4Addr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&SocketAddr::from((vip, PORT)), DEADLINE)?;
    stream.set_read_timeout(Some(DEADLINE))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Opens `count` connections to the first services; [`still_there`] tells what is left of them.
pub(super) fn hold(count: usize, services: usize) -> Result<Vec<TcpStream>> {
    let mut held =
        (0..count).map(|index| open(Folder::vip(index % services))).collect::<io::Result<Vec<_>>>();
    held.iter_mut().flatten().try_for_each(echo).and(held).context("hold connections open")
}

/// How many of `held` do not answer any more.
pub(super) fn lost(held: &mut [TcpStream]) -> usize {
    held.iter_mut().filter_map(|stream| echo(stream).err()).count()
}

fn echo(stream: &mut TcpStream) -> io::Result<()> {
    stream.write_all(b".")?;
    stream.read_exact(&mut [0])
}

impl Calls {
    /// Starts `rate` connections a second, over the first `services` in turn.
    pub(super) fn start(rate: u32, services: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let pause = Duration::from_secs(1) * CALLERS as u32 / rate;
        let caller = |first| {
            let stop = stop.clone();
            thread::spawn(move || call(first, services, pause, &stop))
        };
        Self { callers: (0..CALLERS).map(caller).collect(), stop: stop.clone() }
    }

    /// Ends them and returns what they counted.
    pub(super) fn finish(self) -> Tally {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Tally::default();
        for caller in self.callers {
            let tally = caller.join().expect("a caller does not panic");
            all.made += tally.made;
            all.failed += tally.failed;
            all.last_error = all.last_error.or(tally.last_error);
            all.micros.extend(tally.micros);
        }
        all.micros.sort_unstable();
        all
    }
}

impl Tally {
    /// The latency in milliseconds below which `share` of the connections stayed.
    pub(super) fn millis(&self, share: f64) -> f64 {
        let last = self.micros.len().saturating_sub(1);
        let micros = self.micros.get((last as f64 * share).round() as usize);
        micros.map_or(f64::NAN, |&micros| f64::from(micros) / 1e3)
    }
}

fn call(first: usize, services: usize, pause: Duration, stop: &AtomicBool) -> Tally {
    let mut tally = Tally::default();
    let mut next = Instant::now();
    let mut service = first;
    while !stop.load(Ordering::Relaxed) {
        let started = Instant::now();
        let answer = ask(Folder::vip(service % services));
        tally.made += 1;
        tally.micros.push(u32::try_from(started.elapsed().as_micros()).unwrap_or(u32::MAX));
        if let Err(error) = answer {
            tally.failed += 1;
            tally.last_error = Some(error.to_string());
        }
        service += CALLERS + 1;
        next += pause;
        // Who is late by more than a moment does not hurry to catch up.
        next = next.max(Instant::now() - pause);
        thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    tally
}
