//! The load generator: one epoll thread that keeps a workload's connections busy and counts.
//!
//! It makes its sockets on the calling thread, so in that thread's network namespace.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use socket2::{Domain, Socket, Type};

use crate::machine;
use crate::serve::DOWNLOAD;
use crate::workload::{Shape, Workload};

/// So many errors end a run: it measures nothing any more.
const TOO_MANY: u64 = 1000;
const CONNECT: Duration = Duration::from_secs(5);

/// What to do, to whom, for how long.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// Connections go to these in turn; an address may appear several times, as its weight.
    pub(crate) targets: Vec<SocketAddr>,
    pub(crate) workload: Workload,
    /// Not counted.
    pub(crate) warmup: Duration,
    pub(crate) measure: Duration,
}

/// What one run counted.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outcome {
    /// Operations, or bytes of a bulk download.
    pub(crate) units: u64,
    pub(crate) seconds: f64,
    /// Busy time of the whole machine meanwhile.
    pub(crate) cpu: f64,
    /// Latency of each operation in nanoseconds, in ascending order.
    pub(crate) latencies: Vec<u32>,
    pub(crate) errors: u64,
    pub(crate) last_error: Option<String>,
}

struct Slot {
    stream: TcpStream,
    started: Instant,
    received: usize,
    asked: bool,
}

struct Load<'plan> {
    plan: &'plan Plan,
    epoll: Epoll,
    slots: Vec<Option<Slot>>,
    next_target: usize,
    request: Vec<u8>,
    buffer: Vec<u8>,
    outcome: Outcome,
}

impl Outcome {
    /// The latency in microseconds below which `share` of the operations stayed.
    pub(crate) fn percentile(&self, share: f64) -> Option<f64> {
        let last = self.latencies.len().checked_sub(1)?;
        Some(f64::from(self.latencies[(last as f64 * share).round() as usize]) / 1e3)
    }
}

/// Runs `plan`; `stop` ends it early with an error.
pub(crate) fn run(plan: &Plan, stop: &AtomicBool) -> Result<Outcome> {
    let fill = if plan.workload.shape == Shape::Bulk { DOWNLOAD } else { b'.' };
    let mut load = Load {
        plan,
        epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?,
        slots: Vec::new(),
        next_target: 0,
        request: vec![fill; plan.workload.request()],
        buffer: vec![0; 256 * 1024],
        outcome: Outcome::default(),
    };
    for index in 0..plan.workload.connections {
        load.slots.push(None);
        load.open(index)?;
    }
    load.work_until(Instant::now() + plan.warmup, stop)?;
    load.outcome = Outcome { errors: load.outcome.errors, ..Outcome::default() };
    let (started, busy) = (Instant::now(), machine::busy_seconds()?);
    load.work_until(started + plan.measure, stop)?;
    let mut outcome = load.outcome;
    outcome.cpu = machine::busy_seconds()? - busy;
    outcome.seconds = started.elapsed().as_secs_f64();
    outcome.latencies.sort_unstable();
    Ok(outcome)
}

impl Load<'_> {
    fn work_until(&mut self, end: Instant, stop: &AtomicBool) -> Result<()> {
        let mut events = vec![EpollEvent::empty(); 256];
        while Instant::now() < end {
            if stop.load(Ordering::Relaxed) {
                bail!("interrupted");
            }
            let count = match self.epoll.wait(&mut events, 20u8) {
                Err(nix::errno::Errno::EINTR) => 0,
                other => other?,
            };
            for event in &events[..count] {
                self.handle(event.data() as usize)?;
            }
        }
        Ok(())
    }

    fn handle(&mut self, index: usize) -> Result<()> {
        let result = match self.plan.workload.shape {
            Shape::Bulk => self.download(index),
            Shape::Echo(_) | Shape::Churn => self.echo(index),
        };
        match result {
            Ok(()) => Ok(()),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(()),
            Err(error) => self.failed(index, &error),
        }
    }

    fn failed(&mut self, index: usize, error: &io::Error) -> Result<()> {
        self.outcome.errors += 1;
        self.outcome.last_error = Some(error.to_string());
        if self.outcome.errors >= TOO_MANY {
            bail!("{} errors, the last one: {error}", self.outcome.errors);
        }
        self.slots[index] = None;
        self.open(index)
    }

    fn open(&mut self, index: usize) -> Result<()> {
        let target = self.plan.targets[self.next_target % self.plan.targets.len()];
        self.next_target += 1;
        let opened = match self.plan.workload.shape {
            Shape::Churn => self.start_connecting(index, target),
            Shape::Echo(_) | Shape::Bulk => self.connect(index, target),
        };
        opened.with_context(|| format!("connect to {target}"))
    }

    /// Starts a connection; the socket's first event says that it stands.
    fn start_connecting(&mut self, index: usize, target: SocketAddr) -> io::Result<()> {
        let started = Instant::now();
        let socket = Socket::new(Domain::for_address(target), Type::STREAM.nonblocking(), None)?;
        socket.set_tcp_nodelay(true)?;
        match socket.connect(&target.into()) {
            Err(error) if error.raw_os_error() != Some(nix::libc::EINPROGRESS) => return Err(error),
            _ => {}
        }
        let stream = TcpStream::from(socket);
        let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT | EpollFlags::EPOLLET;
        self.epoll.add(&stream, EpollEvent::new(flags, index as u64))?;
        self.slots[index] = Some(Slot { stream, started, received: 0, asked: false });
        Ok(())
    }

    /// Opens a connection that will last, and asks for the first time.
    fn connect(&mut self, index: usize, target: SocketAddr) -> io::Result<()> {
        let stream = TcpStream::connect_timeout(&target, CONNECT)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        self.epoll.add(&stream, EpollEvent::new(EpollFlags::EPOLLIN, index as u64))?;
        let mut slot = Slot { stream, started: Instant::now(), received: 0, asked: false };
        slot.ask(&self.request)?;
        self.slots[index] = Some(slot);
        Ok(())
    }

    fn download(&mut self, index: usize) -> io::Result<()> {
        let Some(slot) = self.slots[index].as_mut() else { return Ok(()) };
        match slot.stream.read(&mut self.buffer)? {
            0 => Err(ErrorKind::UnexpectedEof.into()),
            count => {
                self.outcome.units += count as u64;
                Ok(())
            }
        }
    }

    fn echo(&mut self, index: usize) -> io::Result<()> {
        let Some(slot) = self.slots[index].as_mut() else { return Ok(()) };
        if !slot.asked {
            return slot.ask(&self.request);
        }
        while slot.received < self.request.len() {
            match slot.stream.read(&mut self.buffer)? {
                0 => return Err(ErrorKind::UnexpectedEof.into()),
                count => slot.received += count,
            }
        }
        let nanos = u32::try_from(slot.started.elapsed().as_nanos()).unwrap_or(u32::MAX);
        self.outcome.latencies.push(nanos);
        self.outcome.units += 1;
        if self.plan.workload.shape == Shape::Churn {
            self.slots[index] = None;
            return self.open(index).map_err(io::Error::other);
        }
        slot.started = Instant::now();
        slot.ask(&self.request)
    }
}

impl Slot {
    fn ask(&mut self, request: &[u8]) -> io::Result<()> {
        self.received = 0;
        self.asked = true;
        match self.stream.write(request)? {
            count if count == request.len() => Ok(()),
            // Nothing else is in flight, so the socket's buffer is empty and takes a small request whole.
            count => Err(io::Error::other(format!("the socket took {count} bytes of a request"))),
        }
    }
}
