//! What an idle connection costs the proxy: memory and open files, as a slope over thousands of them.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::machine;
use crate::rows::Row;
use crate::scene::Scene;

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
pub(crate) fn measure(scene: &Scene, row: &Row, stop: &AtomicBool) -> Result<Option<Idle>> {
    let Some(pid) = row.pid else { return Ok(None) };
    let target = row.targets[0];
    let mut held = Vec::with_capacity(FULL);
    let base_mib = machine::pss_kib(pid)? / 1024.0;
    let mut grow = |count: usize| -> Result<(f64, f64)> {
        while held.len() < count {
            if stop.load(Ordering::Relaxed) {
                bail!("interrupted");
            }
            let opened =
                scene.client.enter(|| (0..FIRST).map(|_| echo_once(target)).collect::<io::Result<Vec<_>>>());
            held.extend(opened.with_context(|| format!("{}: open an idle connection", row.name))?);
        }
        Ok((machine::pss_kib(pid)?, machine::open_files(pid)? as f64))
    };
    let (first, full) = (grow(FIRST)?, grow(FULL)?);
    let more = (FULL - FIRST) as f64;
    let (kib_each, files_each) = ((full.0 - first.0) / more, (full.1 - first.1) / more);
    Ok(Some(Idle { name: row.name.clone(), base_mib, kib_each, files_each }))
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
