//! The one accept loop: every worker runs one per listener, all on the same kernel socket.
//!
//! Out of descriptors or memory it waits instead of spinning, and says so at most once a second.

use std::{
    future::poll_fn,
    io,
    net::{SocketAddr, TcpListener as StdListener},
    rc::Rc,
    sync::Arc,
    task::Poll,
    time::{Duration, Instant},
};

use nix::libc;
use proxy_traffic::{Door, Workload};
use tokio::net::{TcpListener, TcpStream};

use super::{Context, Dial, record::Record, tcp, workers::Live};

/// The first pause after an accept that failed for want of resources, and the longest.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(500));
/// Log lines about one listener's trouble are at least this far apart.
const LOG_EVERY: Duration = Duration::from_secs(1);

/// A listening socket, and whose connections it takes.
pub struct Acceptor {
    /// The listening socket.
    pub listener: StdListener,
    /// Which way its connections come in.
    pub door: Door,
    /// Who dials through it; the gateway itself for a gateway.
    pub workload: Arc<Workload>,
    /// Opens upstream sockets in the right network namespace.
    pub dial: Arc<dyn Dial>,
}

impl std::fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Acceptor").field("listener", &self.listener).field("door", &self.door).finish()
    }
}

/// An acceptor without its socket, which must close when accepting stops, not when the last connection ends.
#[derive(Clone)]
pub(super) struct Owner {
    /// Where it listens.
    pub(super) address: SocketAddr,
    pub(super) door: Door,
    pub(super) workload: Arc<Workload>,
    pub(super) dial: Arc<dyn Dial>,
}

/// What all connections of one acceptor share on one worker.
pub(super) struct Entrance {
    pub(super) context: Arc<Context>,
    pub(super) owner: Owner,
    pub(super) live: Rc<Live>,
}

/// Accepts until it is dropped.
pub(super) async fn accept(listener: &TcpListener, entrance: &Rc<Entrance>) {
    let mut trouble = Trouble::default();
    loop {
        match listener.accept().await {
            Ok((downstream, source)) => {
                trouble.pause = BACKOFF.0;
                start(entrance, downstream, source);
            }
            Err(error) if is_exhausted(&error) => {
                entrance.context.metrics.accept_backed_off();
                tokio::time::sleep(trouble.note(&entrance.owner.workload, &error)).await;
            }
            // The client left before it was accepted: its affair.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            // accept(2) also reports pending network errors of the new socket: the next one may be fine, but a
            // listener that only fails must not spin either.
            Err(error) => tokio::time::sleep(trouble.note(&entrance.owner.workload, &error)).await,
        }
    }
}

/// Serves what waits to be accepted, and waits for nothing more.
pub(super) async fn accept_waiting(listener: &TcpListener, entrance: &Rc<Entrance>) {
    let next = || poll_fn(|cx| Poll::Ready(listener.poll_accept(cx)));
    while let Poll::Ready(Ok((downstream, source))) = next().await {
        start(entrance, downstream, source);
    }
}

/// Opens the connection's record and serves it in a task of its own.
fn start(entrance: &Rc<Entrance>, downstream: TcpStream, source: SocketAddr) {
    // Only fails for a descriptor that is no socket.
    let Ok(destination) = downstream.local_addr() else { return };
    let record = Box::new(Record::open(Rc::clone(entrance), source, destination));
    tokio::task::spawn_local(tcp::serve(downstream, record));
}

/// Whether the process or the machine ran out of something that comes back.
fn is_exhausted(error: &io::Error) -> bool {
    let codes = [libc::EMFILE, libc::ENFILE, libc::ENOMEM, libc::ENOBUFS];
    error.raw_os_error().is_some_and(|code| codes.contains(&code))
}

/// How long one listener has been in trouble.
struct Trouble {
    pause: Duration,
    logged: Option<Instant>,
}

impl Default for Trouble {
    fn default() -> Self {
        Self { pause: BACKOFF.0, logged: None }
    }
}

impl Trouble {
    /// Says so if it is time to, and how long to wait: twice as long each time.
    fn note(&mut self, workload: &Workload, error: &io::Error) -> Duration {
        if self.logged.is_none_or(|last| last.elapsed() >= LOG_EVERY) {
            self.logged = Some(Instant::now());
            tracing::warn!(workload = %workload.name, namespace = %workload.namespace, %error,
                "cannot accept connections; they wait in the backlog (raise the limit of open files?)");
        }
        let pause = self.pause;
        self.pause = (pause * 2).min(BACKOFF.1);
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_want_of_resources_is_exhaustion() {
        for (code, want) in [
            (libc::EMFILE, true),
            (libc::ENFILE, true),
            (libc::ENOMEM, true),
            (libc::ENOBUFS, true),
            (libc::ECONNABORTED, false),
            (libc::EINVAL, false),
        ] {
            assert_eq!(is_exhausted(&io::Error::from_raw_os_error(code)), want, "{code}");
        }
    }
}
