//! What the programs say, as `tracing` events of target `bpf`.

use std::{
    os::fd::AsFd as _,
    sync::Arc,
    thread::{self, JoinHandle},
};

use aya::Ebpf;
use aya_log::EbpfLogger;
use nix::sys::{
    epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout},
    eventfd::{EfdFlags, EventFd},
};

use super::error::Error;

/// How much the programs say. Off leaves no trace in the verified program.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum LogLevel {
    /// Nothing.
    #[default]
    Off = 0,
    /// What should not happen.
    Error = 1,
    /// What somebody should look at.
    Warn = 2,
    /// What happens now and then.
    Info = 3,
    /// Every steered connect.
    Debug = 4,
}

/// The thread that reads the ring; it ends with this value.
pub(super) struct LogReader {
    stop: Arc<EventFd>,
    thread: Option<JoinHandle<()>>,
}

impl LogReader {
    /// Starts reading, unless there is nothing to read.
    pub(super) fn start(capture: &mut Ebpf, level: LogLevel) -> Result<Option<Self>, Error> {
        if level == LogLevel::Off {
            return Ok(None);
        }
        let failed = |error: &dyn std::error::Error| Error::Log(error.to_string());
        let mut logger = EbpfLogger::init_with_logger(capture, Tracing).map_err(|error| failed(&error))?;
        let stop = Arc::new(EventFd::from_flags(EfdFlags::EFD_CLOEXEC).map_err(|error| failed(&error))?);
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(|error| failed(&error))?;
        for (fd, token) in [(logger.as_fd(), RING), (stop.as_fd(), STOP)] {
            epoll.add(fd, EpollEvent::new(EpollFlags::EPOLLIN, token)).map_err(|error| failed(&error))?;
        }
        let read = move || {
            while await_ring(&epoll) {
                logger.flush()
            }
        };
        let thread =
            thread::Builder::new().name("bpf-log".into()).spawn(read).map_err(|error| failed(&error))?;
        Ok(Some(Self { stop, thread: Some(thread) }))
    }
}

impl Drop for LogReader {
    fn drop(&mut self) {
        if self.stop.write(1).is_ok() {
            let _ = self.thread.take().map(JoinHandle::join);
        }
    }
}

const RING: u64 = 0;
const STOP: u64 = 1;

/// Waits until the ring has something to read; false when it is time to end.
fn await_ring(epoll: &Epoll) -> bool {
    let mut events = [EpollEvent::empty(); 2];
    match epoll.wait(&mut events, EpollTimeout::NONE) {
        Ok(count) => !events[..count].iter().any(|event| event.data() == STOP),
        Err(nix::Error::EINTR) => true,
        Err(_) => false,
    }
}

/// Hands records of the `log` crate, which aya speaks, on to `tracing`.
struct Tracing;

impl ::log::Log for Tracing {
    fn enabled(&self, _: &::log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &::log::Record<'_>) {
        let text = record.args();
        match record.level() {
            ::log::Level::Error => tracing::error!(target: "bpf", "{text}"),
            ::log::Level::Warn => tracing::warn!(target: "bpf", "{text}"),
            ::log::Level::Info => tracing::info!(target: "bpf", "{text}"),
            ::log::Level::Debug | ::log::Level::Trace => tracing::debug!(target: "bpf", "{text}"),
        }
    }

    fn flush(&self) {}
}
