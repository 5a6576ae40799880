//! Serves a connection to a resolver: several questions one after the other, each behind its length (RFC 7766). What is answered in
//! several messages, a zone transfer, is not served: only its first would come.

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use tokio::{net::TcpStream, time::timeout};

use super::{
    Counters, Sockets, Verdict, Zone,
    forward::{self, Upstream},
    message,
};

/// How long a client may say nothing, or take nothing.
const IDLE: Duration = Duration::from_secs(10);

/// Serves `stream`, whose client meant to reach `resolver`, until either side is done.
pub async fn serve_stream(
    mut stream: TcpStream,
    resolver: SocketAddr,
    zone: &Zone,
    sockets: &dyn Sockets,
    counters: &Counters,
) {
    let mut upstream = Upstream::new(resolver, sockets);
    while let Ok(Ok(query)) = timeout(IDLE, forward::read(&mut stream)).await {
        let reply = match zone.answer(&query, true) {
            Verdict::Answer(reply) => {
                count(&counters.answered);
                Some(reply)
            }
            Verdict::Forward => ask(&mut upstream, &query, zone, counters).await,
            Verdict::Drop => {
                count(&counters.dropped);
                None
            }
        };
        let Some(reply) = reply else { return };
        if !matches!(timeout(IDLE, forward::write(&mut stream, &reply)).await, Ok(Ok(()))) {
            return;
        }
    }
}

async fn ask(upstream: &mut Upstream<'_>, query: &[u8], zone: &Zone, counters: &Counters) -> Option<Vec<u8>> {
    let Some(_place) = zone.places.take(upstream.resolver()) else {
        count(&counters.dropped);
        return None;
    };
    if let Ok(reply) = upstream.ask(query).await {
        count(&counters.forwarded);
        return Some(reply);
    }
    count(&counters.failed);
    message::servfail(query)
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
