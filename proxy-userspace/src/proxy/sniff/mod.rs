//! Listens to what a client says first, where a rule needs to know it. Nothing is taken: the bytes stay in the socket, so what
//! forwards them later sees them all, and a connection that waits holds no memory for them.
//!
//! What the bytes mean is in `hello.rs` (TLS) and `request.rs` (HTTP), which are pure.

mod hello;
mod name;
mod request;

use std::{
    io::{self, ErrorKind},
    os::fd::{AsFd as _, AsRawFd as _},
    time::Duration,
};

use nix::{
    errno::Errno,
    sys::socket::{MsgFlags, recv},
};
use proxy_traffic::{Door, Error, Flow, Sniff, Sniffed, route};
use tokio::{
    io::{Interest, Ready},
    net::TcpStream,
    time::{Instant, timeout_at},
};

use super::{buffer, record::Record};

/// At most this much is looked at.
const CAP: usize = 16 * 1024;
/// A client may take so long to say it.
const PATIENCE: Duration = Duration::from_secs(5);
/// A client that has said nothing for so long may be waiting for its server to speak first.
const SILENCE: Duration = Duration::from_millis(100);

/// What some first bytes say.
#[derive(Debug, PartialEq, Eq)]
enum Parsed {
    /// More bytes could say more; without, it is this.
    NeedMore(Sniffed),
    /// This, whatever follows.
    Found(Sniffed),
}

/// What is listened for, and for how long.
struct Question {
    wants: Sniff,
    /// How long the client may be silent.
    silence: Duration,
}

/// Why listening came to an end without an answer.
enum Stop {
    /// What was said, if anything, is not enough, and more may come.
    Waiting(Option<Sniffed>),
    /// The client's side was reset.
    Gone,
}

/// What the client says first, if a rule that its connection may meet asks for it.
pub(super) async fn listen(downstream: &mut TcpStream, record: &Record) -> Result<Sniffed, Error> {
    let Some(question) = question(record) else { return Ok(Sniffed::Nothing) };
    let gone = || Error::DownstreamClosed { endpoint: record.destination() };
    let begun = Instant::now();
    let mut so_far = None;
    loop {
        let patience = if so_far.is_none() { question.silence } else { PATIENCE };
        let ready = downstream.ready(Interest::READABLE | Interest::ERROR);
        let Ok(ready) = timeout_at(begun + patience, ready).await else { break };
        match look(downstream, ready.map_err(|_| gone())?, question.wants) {
            Ok(sniffed) => return Ok(sniffed),
            Err(Stop::Gone) => return Err(gone()),
            Err(Stop::Waiting(said)) => so_far = said.or(so_far),
        }
    }
    let Some(sniffed) = so_far else { return Ok(Sniffed::Nothing) };
    watch_anew(downstream).map_err(|_| gone())?;
    Ok(sniffed)
}

/// What this connection has to be asked, by the rules in force now.
fn question(record: &Record) -> Option<Question> {
    let entrance = record.entrance();
    let (owner, snapshot) = (&entrance.owner, entrance.context.snapshot.load());
    let flow = record.flow(&entrance, &Sniffed::Nothing);
    let Flow { door, destination, .. } = flow;
    let listener = match door {
        Door::Mesh => snapshot.listener(destination),
        Door::Gateway(bind) => snapshot.gateways.get(&bind),
    };
    let mut wants = listener.map_or_else(Sniff::default, |listener| listener.sniff);
    let may_speak_http = snapshot.http_ports.contains(&destination.port());
    if !wants.any() && !may_speak_http {
        return None;
    }
    let allowed = door == Door::Mesh && snapshot.egress.of(&owner.workload).allows_any();
    let taken = allowed || matches!(route::select(&snapshot, &flow), Ok(Some(_)));
    // What is turned away is answered in HTTP if it asks in HTTP.
    wants.http |= may_speak_http && door == Door::Mesh && !taken;
    wants.any().then_some(Question { wants, silence: if taken { SILENCE } else { PATIENCE } })
}

/// Looks at what is there. As long as that is not enough, the next bytes are a new event.
fn look(downstream: &TcpStream, ready: Ready, wants: Sniff) -> Result<Sniffed, Stop> {
    if ready.is_error() {
        return Err(Stop::Gone);
    }
    let mut waiting = None;
    let looked = downstream.try_io(Interest::READABLE, || {
        let parsed = buffer::with(|buffer| {
            let seen = peek(downstream, &mut buffer[..CAP])?;
            let last = seen == 0 || seen == CAP || ready.is_read_closed();
            Ok::<_, io::Error>((parse(&buffer[..seen], wants), last))
        });
        match parsed? {
            (Parsed::Found(sniffed), _) | (Parsed::NeedMore(sniffed), true) => Ok(sniffed),
            (Parsed::NeedMore(sniffed), false) => {
                waiting = Some(sniffed);
                Err(ErrorKind::WouldBlock.into())
            }
        }
    });
    match (looked, waiting) {
        (Ok(sniffed), _) => Ok(sniffed),
        (Err(_), Some(sniffed)) => Err(Stop::Waiting(Some(sniffed))),
        // Woken up without a byte.
        (Err(error), None) if error.kind() == ErrorKind::WouldBlock => Err(Stop::Waiting(None)),
        (Err(_), None) => Err(Stop::Gone),
    }
}

/// Reads without taking.
fn peek(stream: &TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match recv(stream.as_raw_fd(), buffer, MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT) {
            Err(Errno::EINTR) => {}
            read => return Ok(read?),
        }
    }
}

/// Makes bytes that were seen, and not found to be enough, an event once more: for whoever reads them next.
fn watch_anew(stream: &mut TcpStream) -> io::Result<()> {
    let copy = stream.as_fd().try_clone_to_owned()?;
    *stream = TcpStream::from_std(copy.into())?;
    Ok(())
}

/// What `bytes` say to who wants to know this.
fn parse(bytes: &[u8], wants: Sniff) -> Parsed {
    let tls = if wants.tls { hello::parse(bytes) } else { Parsed::Found(Sniffed::Nothing) };
    match tls {
        Parsed::Found(Sniffed::Nothing) if wants.http => request::parse(bytes),
        tls => tls,
    }
}

#[cfg(test)]
mod tests;
