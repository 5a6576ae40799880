//! The worker threads: one current-thread runtime each, so a connection lives and dies on one core.

use std::{
    cell::Cell,
    io,
    net::TcpListener as StdListener,
    ops::AddAssign,
    rc::Rc,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, Sender, SyncSender, channel, sync_channel},
    },
    thread,
    time::Duration,
};

use tokio::{
    net::TcpListener,
    runtime::{Builder, LocalOptions},
    sync::{Notify, mpsc, oneshot},
    task::JoinSet,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::{
    Acceptor, Context,
    acceptor::{Entrance, Owner, accept, accept_waiting},
};

/// See [`heartbeat`]; Istio's default connect timeout is twice as long.
const HEARTBEAT: Duration = Duration::from_secs(5);

/// The threads that carry connections. Dropping them ends every connection; [`Workers::drain`] waits first.
#[derive(Debug)]
pub struct Workers {
    threads: Vec<mpsc::UnboundedSender<Command>>,
}

/// How long [`AcceptorHandle::stop`] waits for workers that are busy; each looks up within microseconds.
const STOP_PATIENCE: Duration = Duration::from_secs(1);

/// Stops one listener. Dropping it changes nothing.
#[derive(Debug)]
pub struct AcceptorHandle {
    stop: CancellationToken,
    /// Ends when the last worker has closed its copy of the socket.
    closed: Mutex<Receiver<()>>,
}

impl AcceptorHandle {
    /// No more accepts; connections that exist live on. The listening socket is closed when this returns, so whoever is told
    /// of it finds the port shut.
    pub fn stop(&self) {
        self.stop.cancel();
        // Nobody ever sends: it hears the senders go. One that takes too long closes its copy later.
        let _ = self.closed.lock().unwrap_or_else(PoisonError::into_inner).recv_timeout(STOP_PATIENCE);
    }
}

/// What became of the connections that were open when draining began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drained {
    /// Ended by themselves.
    pub finished: usize,
    /// Ended by the deadline.
    pub cut: usize,
}

impl AddAssign for Drained {
    fn add_assign(&mut self, other: Self) {
        self.finished += other.finished;
        self.cut += other.cut;
    }
}

enum Command {
    Accept { listener: StdListener, owner: Owner, stop: Stop },
    Drain { patience: Duration, done: oneshot::Sender<Drained> },
}

/// When to stop accepting, and who hears that it was done.
struct Stop {
    asked: CancellationToken,
    _closed: Sender<()>,
}

impl Workers {
    /// Starts `threads` workers, at least one.
    ///
    /// # Errors
    /// When a thread or its runtime cannot be made.
    pub fn start(context: &Arc<Context>, threads: usize) -> io::Result<Self> {
        let start = |index| {
            let (commands, inbox) = mpsc::unbounded_channel();
            let context = Arc::clone(context);
            let thread = thread::Builder::new().name(format!("worker-{index}"));
            let (ready, started) = sync_channel(1);
            thread.spawn(move || work(&context, inbox, &ready))?;
            // The runtime belongs to its thread, so it is made there; its failure is ours.
            started.recv().map_err(io::Error::other)?.map(|()| commands)
        };
        Ok(Self { threads: (0..threads.max(1)).map(start).collect::<io::Result<_>>()? })
    }

    /// Every worker accepts from `acceptor` from now on.
    ///
    /// # Errors
    /// When the listener cannot be prepared or duplicated.
    pub fn add(&self, acceptor: Acceptor) -> io::Result<AcceptorHandle> {
        let Acceptor { listener, door, workload, dial } = acceptor;
        listener.set_nonblocking(true)?;
        // Accepted sockets inherit it: one call here instead of one for each connection.
        socket2::SockRef::from(&listener).set_tcp_nodelay(true)?;
        let copies = self.threads.iter().map(|_| listener.try_clone()).collect::<io::Result<Vec<_>>>()?;
        let address = listener.local_addr()?;
        let (stop, owner) = (CancellationToken::new(), Owner { address, door, workload, dial });
        let (closing, closed) = channel();
        for (thread, listener) in self.threads.iter().zip(copies) {
            let stop = Stop { asked: stop.clone(), _closed: closing.clone() };
            let accept = Command::Accept { listener, owner: owner.clone(), stop };
            // Fails only when the thread has ended, with everything else.
            let _ = thread.send(accept);
        }
        Ok(AcceptorHandle { stop, closed: Mutex::new(closed) })
    }

    /// Stops accepting, waits up to `deadline` for the connections to end, and cuts the rest.
    pub async fn drain(&self, deadline: Duration) -> Drained {
        let asked: Vec<_> = self.threads.iter().map(|thread| ask_to_drain(thread, deadline)).collect();
        let mut total = Drained::default();
        for answer in asked {
            total += answer.await.unwrap_or_default();
        }
        total
    }
}

fn ask_to_drain(thread: &mpsc::UnboundedSender<Command>, patience: Duration) -> oneshot::Receiver<Drained> {
    let (done, answer) = oneshot::channel();
    // When the thread has ended, so has the receiver's hope, and nothing was left to drain.
    let _ = thread.send(Command::Drain { patience, done });
    answer
}

/// A worker's life. `ready` hears whether it could begin.
fn work(context: &Arc<Context>, inbox: mpsc::UnboundedReceiver<Command>, ready: &SyncSender<io::Result<()>>) {
    let built = Builder::new_current_thread().enable_io().enable_time().build_local(LocalOptions::default());
    let (runtime, result) = match built {
        Ok(runtime) => (Some(runtime), Ok(())),
        Err(error) => (None, Err(error)),
    };
    // Whoever starts workers waits for this.
    let _ = ready.send(result);
    let Some(runtime) = runtime else { return };
    let live = Rc::new(Live::default());
    let drained = runtime.block_on(obey(inbox, context, &live));
    // The records of connections that are cut close here, before anybody hears that draining is done.
    drop(runtime);
    if let Some((drained, done)) = drained {
        // Whoever asked may have stopped waiting.
        let _ = done.send(drained);
    }
}

/// Follows commands until it was told to drain, and did.
async fn obey(
    mut inbox: mpsc::UnboundedReceiver<Command>,
    context: &Arc<Context>,
    live: &Rc<Live>,
) -> Option<(Drained, oneshot::Sender<Drained>)> {
    let stop_all = CancellationToken::new();
    let mut acceptors = JoinSet::new();
    tokio::task::spawn_local(heartbeat());
    loop {
        match inbox.recv().await? {
            Command::Accept { listener, owner, stop } => {
                // Those that were stopped meanwhile are not worth keeping.
                while acceptors.try_join_next().is_some() {}
                let entrance = Entrance { context: Arc::clone(context), owner, live: Rc::clone(live) };
                acceptors.spawn_local(accept_from(listener, entrance, stop, stop_all.clone()));
            }
            Command::Drain { patience, done } => {
                stop_all.cancel();
                while acceptors.join_next().await.is_some() {}
                return Some((live.drain(patience).await, done));
            }
        }
    }
}

/// Keeps a timer pending that is due before most connect timeouts. A timer that becomes the first to be due wakes the
/// runtime, from within itself, by a write and a read of its eventfd: two calls saved for each connection.
async fn heartbeat() {
    loop {
        tokio::time::sleep(HEARTBEAT).await;
    }
}

/// Accepts until it is told to stop, and then what the kernel has accepted for us already: closing the socket
/// would reset those connections.
async fn accept_from(
    listener: StdListener,
    entrance: Entrance,
    // Arguments outlive the listener below: who waits for this one's end finds the socket closed.
    stop: Stop,
    stop_all: CancellationToken,
) {
    match TcpListener::from_std(listener) {
        Ok(listener) => {
            let entrance = Rc::new(entrance);
            stop_all.run_until_cancelled(stop.asked.run_until_cancelled(accept(&listener, &entrance))).await;
            accept_waiting(&listener, &entrance).await;
        }
        Err(error) => {
            let workload = &entrance.owner.workload;
            tracing::error!(workload = %workload.name, %error, "a worker cannot watch this listener");
        }
    }
}

/// Counts a worker's open connections.
#[derive(Default)]
pub(super) struct Live {
    open: Cell<usize>,
    none_left: Notify,
}

impl Live {
    pub(super) fn opened(&self) {
        self.open.set(self.open.get() + 1);
    }

    pub(super) fn closed(&self) {
        self.open.set(self.open.get() - 1);
        if self.open.get() == 0 {
            self.none_left.notify_one();
        }
    }

    /// Waits until none is open, but not longer than `patience`.
    async fn drain(&self, patience: Duration) -> Drained {
        let before = self.open.get();
        let empty = async {
            while self.open.get() > 0 {
                self.none_left.notified().await;
            }
        };
        // Late or not, what is still open is what counts.
        let _ = timeout(patience, empty).await;
        let cut = self.open.get();
        Drained { finished: before.saturating_sub(cut), cut }
    }
}
