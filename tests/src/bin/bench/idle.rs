//! What an idle connection costs the proxy: memory and open files, as a slope over thousands of them.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::machine;
use crate::rows::Row;

/// Connections that are open before the slope begins, so that what a proxy sets up once is not in it.
const FIRST: usize = 600;
/// Connections at the end of the slope.
pub(crate) const FULL: usize = 6000;

/// What one proxy needs for a connection that does nothing.
#[derive(Clone, Debug)]
pub(crate) struct Idle {
    pub(crate) name: String,
    /// Before any of the connections; work that the proxy did earlier has left its traces in it.
    pub(crate) base_mib: f64,
    pub(crate) kib_each: f64,
    pub(crate) files_each: f64,
}

/// Measures one row; `None` when there is no proxy in it.
pub(crate) fn measure(row: &Row, stop: &AtomicBool) -> Result<Option<Idle>> {
    let Some(pid) = row.pid else { return Ok(None) };
    let base_mib = machine::pss_kib(pid)? / 1024.0;
    let weigh = || anyhow::Ok((machine::pss_kib(pid)?, machine::open_files(pid)? as f64));
    let few = open(row, FIRST, stop)?;
    let first = weigh()?;
    let most = open(row, FULL - FIRST, stop)?;
    let full = weigh()?;
    drop((few, most));
    let more = (FULL - FIRST) as f64;
    let (kib_each, files_each) = ((full.0 - first.0) / more, (full.1 - first.1) / more);
    Ok(Some(Idle { name: row.name.clone(), base_mib, kib_each, files_each }))
}

/// Opens `count` connections over `row`, each with a byte echoed.
pub(crate) fn open(row: &Row, count: usize, stop: &AtomicBool) -> Result<Vec<TcpStream>> {
    let one = |index: usize| {
        if stop.load(Ordering::Relaxed) {
            bail!("interrupted");
        }
        Ok(echo_once(row.targets[index % row.targets.len()])?)
    };
    let opened = row.place.enter(|| (0..count).map(one).collect::<Result<Vec<_>>>())?;
    opened.with_context(|| format!("{}: open {count} idle connections", row.name))
}

/// Opens a connection and has one byte echoed over it.
pub(crate) fn echo_once(target: SocketAddr) -> io::Result<TcpStream> {
    let deadline = Duration::from_secs(5);
    let mut stream = TcpStream::connect_timeout(&target, deadline)?;
    stream.set_read_timeout(Some(deadline))?;
    stream.write_all(b".")?;
    stream.read_exact(&mut [0])?;
    Ok(stream)
}
