//! A resolver that the test plays on loopback, by datagrams and connections.

mod hostile;
mod kept;

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex},
};

use hickory_proto::{
    op::{Message, Metadata, ResponseCode},
    rr::{Name, RData, Record},
};
use tokio::{
    net::{TcpListener, UdpSocket},
    task::JoinSet,
    time::Instant,
};

use super::{super::forward, *};

/// What is sent for a question; the second argument: whether it came by a connection.
type Play = Box<dyn Fn(&Message, bool) -> Vec<Vec<u8>> + Send + Sync>;

/// Plays until it is dropped.
pub(super) struct Server {
    at: SocketAddr,
    /// When questions came.
    asked: Arc<Mutex<Vec<Instant>>>,
    _tasks: JoinSet<()>,
}

impl Server {
    async fn new(play: impl Fn(&Message, bool) -> Vec<Vec<u8>> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let at = listener.local_addr().unwrap();
        let socket = UdpSocket::bind(at).await.unwrap();
        let play: Arc<Play> = Arc::new(Box::new(play));
        let asked = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = JoinSet::new();
        tasks.spawn(datagrams(socket, play.clone(), asked.clone()));
        tasks.spawn(connections(listener, play));
        Self { at, asked, _tasks: tasks }
    }

    fn resolver(&self, family: LookupFamily) -> Resolver {
        Resolver::new(Some(vec![self.at]), family).unwrap()
    }

    /// How many datagrams came.
    fn asked(&self) -> usize {
        self.asked.lock().unwrap().len()
    }
}

async fn datagrams(socket: UdpSocket, play: Arc<Play>, asked: Arc<Mutex<Vec<Instant>>>) {
    let mut buffer = vec![0; 4096];
    loop {
        let (length, client) = socket.recv_from(&mut buffer).await.unwrap();
        asked.lock().unwrap().push(Instant::now());
        let question = Message::from_vec(&buffer[..length]).unwrap();
        for reply in play(&question, false) {
            socket.send_to(&reply, client).await.unwrap();
        }
    }
}

async fn connections(listener: TcpListener, play: Arc<Play>) {
    loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        while let Ok(question) = forward::read(&mut stream).await {
            let replies = play(&Message::from_vec(&question).unwrap(), true);
            if replies.is_empty() {
                break;
            }
            for reply in replies {
                forward::write(&mut stream, &reply).await.unwrap();
            }
        }
    }
}

/// An honest answer to a question, without records.
pub(super) fn reply(question: &Message) -> Message {
    let mut reply = Message::response(question.metadata.id, question.metadata.op_code);
    reply.metadata = Metadata::response_from_request(&question.metadata);
    reply.metadata.message_type = hickory_proto::op::MessageType::Response;
    reply.queries.clone_from(&question.queries);
    reply
}

pub(super) fn refusal(question: &Message, code: ResponseCode) -> Vec<u8> {
    let mut reply = reply(question);
    reply.metadata.response_code = code;
    reply.to_vec().unwrap()
}

pub(super) fn name(text: &str) -> Name {
    Name::from_ascii(text).unwrap()
}

pub(super) fn record(owner: &str, ttl: u32, address: &str) -> Record {
    Record::from_rdata(name(owner), ttl, RData::from(address.parse::<IpAddr>().unwrap()))
}

/// An honest answer with records of addresses.
pub(super) fn answer(question: &Message, ttl: u32, addresses: &[&str]) -> Vec<u8> {
    let owner = question.queries[0].name().to_string();
    let mut reply = reply(question);
    reply.answers = addresses.iter().map(|address| record(&owner, ttl, address)).collect();
    reply.to_vec().unwrap()
}

#[test]
fn name_servers_are_read_as_the_c_library_reads_them() {
    for (text, want) in [
        ("", vec!["127.0.0.1:53"]),
        ("search a.b\n# nameserver 10.0.0.9\noptions ndots:5\n", vec!["127.0.0.1:53"]),
        ("nameserver 10.0.0.1\nnameserver\t::1 \nnameserver what\n", vec!["10.0.0.1:53", "[::1]:53"]),
    ] {
        let want: Vec<SocketAddr> = want.into_iter().map(|server| server.parse().unwrap()).collect();
        assert_eq!(name_servers(text), want, "{text}");
    }
}
