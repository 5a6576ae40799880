//! The internet's web server: HTTP and HTTPS at all addresses, with the paths of httpbin that stories use, and a record of
//! which host was asked for at which address.

use std::io::{self, Read, Write};
use std::net::{IpAddr, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::mesh::Workload;
use crate::server::Server;

/// One request that came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The address that it came to.
    pub at: IpAddr,
    /// Who sent it.
    pub from: IpAddr,
    /// The TLS server name; empty: plain HTTP.
    pub server_name: String,
    /// The header `host`.
    pub host: String,
    /// What was asked for.
    pub path: String,
}

/// A running web server.
#[derive(Debug)]
pub(super) struct Web {
    _http: Server,
    _https: Server,
    requests: Requests,
}

type Requests = Arc<Mutex<Vec<Request>>>;

impl Web {
    pub(super) fn start(place: &Workload, tls: Arc<ServerConfig>) -> Self {
        let requests = Requests::default();
        let (plain, secret) = (requests.clone(), requests.clone());
        let http = Server::start(place, 80, move |stream| {
            let (at, from) = ends(&stream)?;
            serve(stream, Request { at, from, ..nothing() }, &plain)
        });
        let https = Server::start(place, 443, move |stream| {
            let (at, from) = ends(&stream)?;
            let mut session =
                StreamOwned::new(ServerConnection::new(tls.clone()).map_err(io::Error::other)?, stream);
            session.conn.complete_io(&mut session.sock)?;
            let server_name = session.conn.server_name().unwrap_or_default().to_owned();
            serve(&mut session, Request { at, from, server_name, ..nothing() }, &secret)?;
            session.conn.send_close_notify();
            session.flush()
        });
        Self { _http: http, _https: https, requests }
    }

    pub(super) fn requests(&self) -> Vec<Request> {
        self.requests.lock().expect("nobody panics in here").clone()
    }
}

fn nothing() -> Request {
    let nowhere = IpAddr::from([0; 4]);
    Request {
        at: nowhere,
        from: nowhere,
        server_name: String::new(),
        host: String::new(),
        path: String::new(),
    }
}

/// The address that was dialled and the client's.
fn ends(stream: &TcpStream) -> io::Result<(IpAddr, IpAddr)> {
    stream.set_read_timeout(Some(crate::wait::PATIENCE))?;
    Ok((stream.local_addr()?.ip().to_canonical(), stream.peer_addr()?.ip().to_canonical()))
}

/// One request and its answer.
fn serve(mut stream: impl Read + Write, mut request: Request, requests: &Requests) -> io::Result<()> {
    let head = head(&mut stream)?;
    let mut words = head.split(' ');
    let method = words.next().unwrap_or_default();
    request.path = words.next().unwrap_or_default().to_owned();
    let header = |line: &str| {
        line.split_once(':')
            .filter(|(key, _)| key.eq_ignore_ascii_case("host"))
            .map(|(_, host)| host.trim().to_owned())
    };
    request.host = head.lines().find_map(header).unwrap_or_default();
    let (status, body) = content(&request, &head);
    requests.lock().expect("nobody panics in here").push(request);
    let length = body.len();
    let answer =
        format!("HTTP/1.1 {status} as asked\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n");
    stream.write_all(answer.as_bytes())?;
    if method != "HEAD" {
        stream.write_all(body.as_bytes())?;
    }
    stream.flush()
}

/// `/status/N` answers with the status N, `/headers` with the request's, `/delay/N` after N seconds; all else names the
/// address and the host that were asked.
fn content(request: &Request, head: &str) -> (u16, String) {
    let mut parts = request.path.trim_start_matches('/').split('/');
    let (what, number) = (parts.next().unwrap_or_default(), parts.next().and_then(|text| text.parse().ok()));
    match (what, number) {
        ("status", Some(status)) => (status, String::new()),
        ("headers", _) => (200, head.to_owned()),
        ("delay", Some(seconds)) => {
            thread::sleep(Duration::from_secs(u64::from(seconds).min(10)));
            (200, "late\n".to_owned())
        }
        _ => (200, format!("{} at {}\n", request.host, request.at)),
    }
}

/// Everything before the empty line.
fn head(stream: &mut impl Read) -> io::Result<String> {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte)? == 0 || head.len() > 1 << 16 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        head.push(byte[0]);
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}
