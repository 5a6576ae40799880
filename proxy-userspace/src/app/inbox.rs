//! What reaches the control loop from outside: changed files, questions, signals, records of the kernel, and time.

use std::{fs, io, net::SocketAddr, path::Path, time::Duration};

use anyhow::Context as _;
use nix::sys::stat::{Mode, fchmod};
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::{
    net::{TcpListener, UnixListener},
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc,
    time::{Instant, Interval, MissedTickBehavior, interval, sleep_until, timeout},
};

use super::dns::News;
use crate::{
    admin::{self, Asked},
    kernel::Kernel,
    node::Readable,
    settings::Settings,
    source::{Changes, Folder, Watch},
};

/// `shunt` commands that may wait for an answer.
const BACKLOG: i32 = 64;
/// How often things are looked after that others may change: routes, ports that were taken, namespaces.
const TEND: Duration = Duration::from_secs(5);
/// How often the kernel's tables are looked after; sooner where a quarter of the lease is shorter.
const UPKEEP: Duration = Duration::from_secs(1);
/// How soon an ejected endpoint's time is found to be over.
const HEALTH: Duration = Duration::from_millis(250);
/// How often the limits' counts are compared with the sockets that exist.
const AUDIT: Duration = Duration::from_secs(30);
/// Records of the kernel gather at least this long, so that a busy node does not wake the daemon for each.
const GATHER: Duration = Duration::from_millis(10);
/// And at most this long: the kernel wakes nobody for a few of them unless they are urgent.
const PATIENCE: Duration = Duration::from_millis(100);

/// The signals that end the daemon.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// From here on they are waited for. One that comes during the start is answered right after it: a start that
    /// was cut off would leave things behind.
    pub(super) fn catch() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    pub(super) async fn recv(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// What reaches the control loop from outside.
pub(super) struct Inbox {
    pub(super) changes: mpsc::Receiver<Changes>,
    pub(super) asked: mpsc::Receiver<Asked>,
    /// What names are now.
    pub(super) news: mpsc::Receiver<News>,
    pub(super) signals: Signals,
    pub(super) records: Records,
    pub(super) ticks: Ticks,
}

impl Inbox {
    /// Opens the doors and starts watching.
    pub(super) fn open(
        settings: &Settings,
        kernel: &Kernel,
        folder: Folder,
        watch: Watch,
        news: mpsc::Receiver<News>,
        signals: Signals,
    ) -> anyhow::Result<Self> {
        let (send_changes, changes) = mpsc::channel(1);
        folder.follow(watch, send_changes)?;
        let (send_asked, asked) = mpsc::channel(64);
        let tcp = listen_tcp(settings.metrics_address)?;
        let unix = listen_unix(&settings.admin_socket())?;
        drop(tokio::spawn(admin::serve_tcp(tcp, send_asked.clone())));
        drop(tokio::spawn(admin::serve_unix(unix, send_asked)));
        let records = Records::watch(kernel).context("cannot wait for the kernel's records")?;
        Ok(Self { changes, asked, news, signals, records, ticks: Ticks::start(settings.lease) })
    }
}

/// Whether the kernel has records of single connections.
pub(super) struct Records {
    ring: Readable,
    /// Not to be looked at before.
    next: Instant,
}

impl Records {
    fn watch(kernel: &Kernel) -> io::Result<Self> {
        Ok(Self { ring: Readable::watch(kernel.events_fd().try_clone_to_owned()?)?, next: Instant::now() })
    }

    /// Waits until there may be some; everything must be read then, or the kernel wakes nobody for what comes next.
    pub(super) async fn ready(&mut self) {
        sleep_until(self.next).await;
        // Late or woken, it is time to look.
        let _ = timeout(PATIENCE, self.ring.ready()).await;
        self.next = Instant::now() + GATHER;
    }
}

/// What it is time for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tick {
    /// What others may have changed.
    Tend,
    /// The kernel's tables and the lease.
    Upkeep,
    /// Ejected endpoints.
    Health,
    /// The limits' counts.
    Audit,
}

/// The control loop's clocks.
pub(super) struct Ticks {
    tend: Interval,
    upkeep: Interval,
    health: Interval,
    audit: Interval,
}

impl Ticks {
    fn start(lease: Duration) -> Self {
        let every = |length| {
            let mut interval = interval(length);
            interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
            interval
        };
        let upkeep = if lease.is_zero() { UPKEEP } else { UPKEEP.min(lease / 4) };
        Self { tend: every(TEND), upkeep: every(upkeep), health: every(HEALTH), audit: every(AUDIT) }
    }

    /// Waits for the next; `watched`: some cluster has outlier detection.
    pub(super) async fn next(&mut self, watched: bool) -> Tick {
        tokio::select! {
            _ = self.upkeep.tick() => Tick::Upkeep,
            _ = self.health.tick(), if watched => Tick::Health,
            _ = self.tend.tick() => Tick::Tend,
            _ = self.audit.tick() => Tick::Audit,
        }
    }

    /// Waits until the kernel's tables want looking after: all that matters to a daemon that is about to end.
    pub(super) async fn upkeep(&mut self) {
        self.upkeep.tick().await;
    }
}

fn listen_tcp(address: SocketAddr) -> anyhow::Result<TcpListener> {
    let bound = std::net::TcpListener::bind(address).and_then(|listener| {
        listener.set_nonblocking(true)?;
        TcpListener::from_std(listener)
    });
    bound.with_context(|| {
        format!("cannot listen on {address} for metrics; name another address with --metrics-address")
    })
}

/// The socket of the `shunt` commands: for root only, in place of what a killed daemon left.
fn listen_unix(path: &Path) -> anyhow::Result<UnixListener> {
    let failed = || format!("cannot listen on {}", path.display());
    drop(fs::remove_file(path));
    let bound = Socket::new(Domain::UNIX, Type::STREAM.nonblocking().cloexec(), None).and_then(|socket| {
        // bind() gives the file the socket's own mode: there is no moment at which others may connect.
        fchmod(&socket, Mode::from_bits_truncate(0o600))?;
        socket.bind(&SockAddr::unix(path)?)?;
        socket.listen(BACKLOG)?;
        UnixListener::from_std(socket.into())
    });
    bound.with_context(failed)
}
