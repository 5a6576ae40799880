//! Both directions of one connection, and what the end of either means for the other.
//!
//! The end of a stream is passed on in its own direction only. A reset ends both, and becomes a reset on the
//! other side at once, also when that side is idle or takes nothing.

use std::{
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
///
/// Written out rather than an async fn, which would keep its arguments twice in every idle connection.
pub(super) struct BothWays<'a> {
    downstream: &'a TcpStream,
    upstream: &'a TcpStream,
    record: &'a mut Record,
    request: Direction,
    response: Direction,
    first: Option<Ended>,
    watches: Option<Box<Watches<'a>>>,
}

/// Waits for a reset.
type Watch<'a> = Option<Pin<Box<dyn Future<Output = ()> + 'a>>>;

/// Of both sides. Boxed: only connections that are half closed or stuck need them.
#[derive(Default)]
struct Watches<'a> {
    downstream: Watch<'a>,
    upstream: Watch<'a>,
}

impl Future for BothWays<'_> {
    type Output = Ended;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Ended> {
        let this = self.get_mut();
        let (down, up) = (this.downstream, this.upstream);
        let (mut received, mut sent) = (0, 0);
        let last = this.response.waits == Waits::Ended;
        let request = this.request.poll(cx, (down, up), last, &mut received);
        // Also after a failure: what the server said before it broke still reaches the client, but no FIN does.
        let last = this.request.waits == Waits::Ended || matches!(request, Poll::Ready(Err(_)));
        let response = this.response.poll(cx, (up, down), last, &mut sent);
        this.record.moved(received, sent);
        match (request, response) {
            (Poll::Ready(Err(Broken::Sender)), _) | (_, Poll::Ready(Err(Broken::Receiver))) => {
                this.client_reset()
            }
            (Poll::Ready(Err(Broken::Receiver)), _) | (_, Poll::Ready(Err(Broken::Sender))) => {
                this.server_reset()
            }
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => {
                Poll::Ready(this.first.unwrap_or(Ended::ClientFirst))
            }
            (Poll::Ready(Ok(())), Poll::Pending) => this.half_closed(cx, Ended::ClientFirst),
            (Poll::Pending, Poll::Ready(Ok(()))) => this.half_closed(cx, Ended::ServerFirst),
            (Poll::Pending, Poll::Pending) => this.watch(cx),
        }
    }
}

impl<'a> BothWays<'a> {
    pub(super) const fn new(
        downstream: &'a TcpStream,
        upstream: &'a TcpStream,
        record: &'a mut Record,
    ) -> Self {
        Self {
            downstream,
            upstream,
            record,
            request: Direction::new(),
            response: Direction::new(),
            first: None,
            watches: None,
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
        let downstream_seen = seen(&self.request, &self.response);
        let upstream_seen = seen(&self.response, &self.request);
        if downstream_seen && upstream_seen {
            self.watches = None;
            return Poll::Pending;
        }
        let watches = self.watches.get_or_insert_default();
        if is_gone(&mut watches.downstream, self.downstream, downstream_seen, cx) {
            return self.client_reset();
        }
        if is_gone(&mut watches.upstream, self.upstream, upstream_seen, cx) {
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
