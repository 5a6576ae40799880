//! Both directions of one connection, and what the end of either means for the other.
//!
//! The end of a stream is passed on in its own direction only. A reset ends both, and becomes a reset on the
//! other side at once, also when that side is idle or takes nothing.

use std::{
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::net::TcpStream;

use super::{
    direction::{Broken, Direction, Waits},
    record::Record,
    upstream::gone,
};

/// How a forwarded connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// Both sides ended their streams, the client first.
    ClientFirst,
    /// Both sides ended their streams, the server first.
    ServerFirst,
    /// The client's side was reset.
    ClientReset,
    /// The server's side was reset.
    ServerReset,
}

/// Forwards until both directions have ended or one side broke. The sockets are the caller's to close.
pub(super) async fn both_ways(downstream: &TcpStream, upstream: &TcpStream, record: &mut Record) -> Ended {
    let mut both = Both::new(downstream, upstream);
    poll_fn(|cx| both.poll(cx, record)).await
}

/// Waits for a reset. Boxed: only connections that are half closed or stuck need it.
type Watch<'a> = Option<Pin<Box<dyn Future<Output = ()> + 'a>>>;

struct Both<'a> {
    downstream: &'a TcpStream,
    upstream: &'a TcpStream,
    request: Direction,
    response: Direction,
    first: Option<Ended>,
    downstream_watch: Watch<'a>,
    upstream_watch: Watch<'a>,
}

impl<'a> Both<'a> {
    const fn new(downstream: &'a TcpStream, upstream: &'a TcpStream) -> Self {
        Self {
            downstream,
            upstream,
            request: Direction::new(),
            response: Direction::new(),
            first: None,
            downstream_watch: None,
            upstream_watch: None,
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>, record: &mut Record) -> Poll<Ended> {
        let (down, up) = (self.downstream, self.upstream);
        let (mut received, mut sent) = (0, 0);
        let last = self.response.waits == Waits::Ended;
        let request = self.request.poll(cx, (down, up), last, &mut received);
        // Also after a failure: what the server said before it broke still reaches the client, but no FIN does.
        let last = self.request.waits == Waits::Ended || matches!(request, Poll::Ready(Err(_)));
        let response = self.response.poll(cx, (up, down), last, &mut sent);
        record.moved(received, sent);
        match (request, response) {
            (Poll::Ready(Err(Broken::Sender)), _) | (_, Poll::Ready(Err(Broken::Receiver))) => {
                self.client_reset()
            }
            (Poll::Ready(Err(Broken::Receiver)), _) | (_, Poll::Ready(Err(Broken::Sender))) => {
                self.server_reset()
            }
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => {
                Poll::Ready(self.first.unwrap_or(Ended::ClientFirst))
            }
            (Poll::Ready(Ok(())), Poll::Pending) => self.half_closed(cx, Ended::ClientFirst),
            (Poll::Pending, Poll::Ready(Ok(()))) => self.half_closed(cx, Ended::ServerFirst),
            (Poll::Pending, Poll::Pending) => self.watch(cx),
        }
    }

    fn half_closed(&mut self, cx: &mut Context<'_>, first: Ended) -> Poll<Ended> {
        self.first.get_or_insert(first);
        self.watch(cx)
    }

    /// A reset shows up in reads and writes. A socket that no direction waits for, because its own stream has
    /// ended or is held up by the other side, is watched here.
    fn watch(&mut self, cx: &mut Context<'_>) -> Poll<Ended> {
        let seen = |reads: &Direction, writes: &Direction| {
            reads.waits == Waits::Sender || writes.waits == Waits::Receiver
        };
        if is_gone(&mut self.downstream_watch, self.downstream, seen(&self.request, &self.response), cx) {
            return self.client_reset();
        }
        if is_gone(&mut self.upstream_watch, self.upstream, seen(&self.response, &self.request), cx) {
            return self.server_reset();
        }
        Poll::Pending
    }

    fn client_reset(&self) -> Poll<Ended> {
        reset_on_close(self.upstream);
        Poll::Ready(Ended::ClientReset)
    }

    fn server_reset(&self) -> Poll<Ended> {
        reset_on_close(self.downstream);
        Poll::Ready(Ended::ServerReset)
    }
}

/// Whether `stream` was reset, unless somebody waits for it anyway.
fn is_gone<'a>(watch: &mut Watch<'a>, stream: &'a TcpStream, seen: bool, cx: &mut Context<'_>) -> bool {
    if seen {
        *watch = None;
        return false;
    }
    watch.get_or_insert_with(|| Box::pin(gone(stream))).as_mut().poll(cx).is_ready()
}

/// Makes closing `stream` send a reset.
fn reset_on_close(stream: &TcpStream) {
    // Fails only when the socket is past caring.
    let _ = socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO));
}
