//! The internet's name server: names and their addresses, which a story may change at any time, and who has asked for what.

use std::collections::BTreeMap;
use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};

use super::wire::{self, NO_ERROR, NX_DOMAIN};
use crate::datagrams::Datagrams;
use crate::mesh::Workload;
use crate::server::Server;

/// What the name server says, and what it was asked.
#[derive(Debug, Default)]
pub struct Zone {
    names: Mutex<BTreeMap<String, Addresses>>,
    lies: Mutex<BTreeMap<String, Lie>>,
    asked: Mutex<Vec<Question>>,
}

/// Makes the answer to a query: any bytes at all.
pub type Lie = fn(&[u8]) -> Vec<u8>;

#[derive(Clone, Debug)]
struct Addresses {
    addresses: Vec<IpAddr>,
    ttl: u32,
}

/// One query that came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// In lower case.
    pub name: String,
    /// [`wire::A`], [`wire::AAAA`] or another type.
    pub kind: u16,
    /// Who asked.
    pub from: SocketAddr,
    /// Over TCP.
    pub tcp: bool,
    /// The query, byte for byte.
    pub bytes: Vec<u8>,
    /// The answer, byte for byte.
    pub answer: Vec<u8>,
}

/// A running name server: UDP at every one of its addresses, and TCP.
#[derive(Debug)]
pub(super) struct NameServer {
    _datagrams: Vec<Datagrams>,
    _streams: Server,
}

impl Zone {
    /// From now on `name` has these addresses; without any it still exists.
    pub fn set(&self, name: &str, addresses: &[IpAddr], ttl: u32) {
        locked(&self.names).insert(name.to_owned(), Addresses { addresses: addresses.to_vec(), ttl });
    }

    /// From now on `name` does not exist.
    pub fn remove(&self, name: &str) {
        locked(&self.names).remove(name);
    }

    /// From now on queries for `name` are answered with what `lie` makes of them.
    pub fn lie(&self, name: &str, lie: Lie) {
        locked(&self.lies).insert(name.to_owned(), lie);
    }

    /// All queries for `name` so far.
    pub fn asked(&self, name: &str) -> Vec<Question> {
        locked(&self.asked).iter().filter(|question| question.name == name).cloned().collect()
    }

    pub(super) fn has(&self, name: &str) -> bool {
        locked(&self.names).contains_key(name)
    }

    /// The answer to `bytes`; nothing, if that is no query.
    fn answer(&self, bytes: &[u8], from: SocketAddr, tcp: bool) -> Option<Vec<u8>> {
        let query = wire::parse(bytes)?;
        let found = locked(&self.names).get(&query.name).cloned();
        let lie = locked(&self.lies).get(&query.name).copied();
        let answer = match (lie, found) {
            (Some(lie), _) => lie(bytes),
            (None, Some(Addresses { addresses, ttl })) => wire::answer(&query, NO_ERROR, &addresses, ttl),
            (None, None) => wire::answer(&query, NX_DOMAIN, &[], 0),
        };
        let (bytes, said) = (bytes.to_vec(), answer.clone());
        let question = Question { name: query.name, kind: query.kind, from, tcp, bytes, answer: said };
        locked(&self.asked).push(question);
        Some(answer)
    }
}

/// Serves `zone` at port 53 of `addresses` of `place`.
pub(super) fn serve(place: &Workload, addresses: &[IpAddr], zone: &Arc<Zone>) -> NameServer {
    let datagrams = |address: &IpAddr| {
        let zone = zone.clone();
        let answer = move |bytes: &[u8], from| zone.answer(bytes, from, false).into_iter().collect();
        Datagrams::start(place, (*address, 53).into(), answer)
    };
    let streams = zone.clone();
    NameServer {
        _datagrams: addresses.iter().map(datagrams).collect(),
        _streams: Server::start(place, 53, move |stream| converse(stream, &streams)),
    }
}

/// Answers one query after the other.
fn converse(mut stream: TcpStream, zone: &Zone) -> io::Result<()> {
    let peer = stream.peer_addr()?;
    let from = SocketAddr::new(peer.ip().to_canonical(), peer.port());
    while let Ok(query) = read_framed(&mut stream) {
        let Some(answer) = zone.answer(&query, from, true) else { break };
        write_framed(&mut stream, &answer)?;
    }
    Ok(())
}

/// Reads one message of DNS over TCP.
pub fn read_framed(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut message)?;
    Ok(message)
}

/// Writes one message of DNS over TCP.
pub fn write_framed(stream: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    let length = (message.len() as u16).to_be_bytes();
    stream.write_all(&[&length[..], message].concat())
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("nobody panics in here")
}
