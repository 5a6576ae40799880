//! One line per connection, written by a thread of its own: a slow disk never holds up a connection. When the
//! thread cannot follow, lines are dropped and counted.

use std::{
    io::{self, Write},
    net::SocketAddr,
    sync::{
        Arc, mpsc,
        mpsc::{Receiver, SyncSender, TrySendError},
    },
    thread,
    time::{Duration, SystemTime},
};

use proxy_traffic::{ClusterName, Flag, Route, Workload};

use super::Cause;
use crate::metrics::Metrics;

mod line;

/// Lines that may wait for the writer.
const WAITING: usize = 8192;
/// The writer gathers lines this long, so that a busy worker does not wake it for each.
const GATHER: Duration = Duration::from_millis(10);

/// How lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `key=value` pairs.
    Text,
    /// One JSON object a line, with the same keys.
    Json,
}

/// Takes lines; clones share one writer.
#[derive(Clone, Debug)]
pub struct AccessLog {
    writer: Option<SyncSender<Message>>,
    metrics: Arc<Metrics>,
}

/// One connection, at its end.
#[derive(Clone, Debug)]
pub struct Entry {
    /// When it ended.
    pub time: SystemTime,
    /// How long it lived.
    pub duration: Duration,
    /// Who dialled.
    pub workload: Arc<Workload>,
    /// From where.
    pub source: SocketAddr,
    /// Where to, before any rewriting.
    pub destination: SocketAddr,
    /// The route's name; `None`: nobody claimed the destination, or it is not known any more.
    pub route: Option<Arc<Route>>,
    /// The cluster that the route chose.
    pub cluster: Option<ClusterName>,
    /// The endpoint that the cluster chose.
    pub endpoint: Option<SocketAddr>,
    /// Bytes that the client got.
    pub sent: u64,
    /// Bytes that the client sent.
    pub received: u64,
    /// What Envoy would call it.
    pub flag: Flag,
    /// Why it ended.
    pub cause: Cause,
    /// Who carried it: `proxy` or `direct`.
    pub path: &'static str,
    /// The name that the client said first, where a rule asked for it: a TLS server name or an HTTP host.
    pub server_name: Option<Box<str>>,
}

#[derive(Debug)]
enum Message {
    Line(Entry),
    Flush(SyncSender<()>),
}

impl AccessLog {
    /// Writes nothing.
    #[must_use]
    pub const fn off(metrics: Arc<Metrics>) -> Self {
        Self { writer: None, metrics }
    }

    /// Writes to `out` from a thread that ends with the last clone.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn start(format: Format, out: Box<dyn Write + Send>, metrics: Arc<Metrics>) -> io::Result<Self> {
        let (writer, messages) = mpsc::sync_channel(WAITING);
        let thread = thread::Builder::new().name("access-log".to_owned());
        thread.spawn(move || write_all(format, out, &messages))?;
        Ok(Self { writer: Some(writer), metrics })
    }

    /// Returns once everything that was logged before is written. Blocks.
    pub fn flush(&self) {
        let Some(writer) = &self.writer else { return };
        let (done, flushed) = mpsc::sync_channel(1);
        if writer.send(Message::Flush(done)).is_ok() {
            // An error means that the writer has ended, and with it everything it could have written.
            let _ = flushed.recv();
        }
    }

    /// Logs one connection, or counts that it could not.
    pub fn write(&self, entry: impl FnOnce() -> Entry) {
        let Some(writer) = &self.writer else { return };
        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) =
            writer.try_send(Message::Line(entry()))
        {
            self.metrics.access_log_dropped();
        }
    }
}

/// The writer's life.
fn write_all(format: Format, mut out: Box<dyn Write + Send>, messages: &Receiver<Message>) {
    let mut text = String::new();
    while let Ok(first) = messages.recv() {
        let urgent = matches!(first, Message::Flush(_));
        let mut flushes = Vec::new();
        take(format, first, &mut text, &mut flushes);
        if !urgent {
            thread::sleep(GATHER);
        }
        for message in messages.try_iter().take(WAITING) {
            take(format, message, &mut text, &mut flushes);
        }
        if let Err(error) = out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
            tracing::warn!(%error, "cannot write the access log; these lines are lost");
        }
        text.clear();
        for done in flushes {
            // Whoever asked may have stopped waiting.
            let _ = done.send(());
        }
    }
}

fn take(format: Format, message: Message, text: &mut String, flushes: &mut Vec<SyncSender<()>>) {
    match message {
        Message::Line(entry) => line::append(format, &entry, text),
        Message::Flush(done) => flushes.push(done),
    }
}
