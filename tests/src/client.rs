//! Clients inside workloads: connect with a deadline, say something, and assert what comes back.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use socket2::{Domain, SockRef, Socket, Type};

use crate::mesh::Workload;
use crate::wait::PATIENCE;

/// A connection to be: where to, and from what.
#[derive(Clone, Copy, Debug)]
pub struct Dial {
    to: SocketAddr,
    from_port: u16,
    v4_mapped: bool,
}

/// An open connection; every read and write has a deadline.
#[derive(Debug)]
pub struct Connection {
    /// The socket, for what the helpers do not cover.
    pub stream: TcpStream,
}

impl Dial {
    /// To `to`, from any port.
    pub fn to(to: SocketAddr) -> Self {
        Self { to, from_port: 0, v4_mapped: false }
    }

    /// From a fixed source port, which other connections may use too.
    pub fn from_port(self, from_port: u16) -> Self {
        Self { from_port, ..self }
    }

    /// Over an IPv6 socket, to the IPv4 address written as `::ffff:a.b.c.d`.
    pub fn v4_mapped(self) -> Self {
        Self { v4_mapped: true, ..self }
    }

    /// Connects from `workload`.
    pub fn try_connect(self, workload: &Workload) -> io::Result<Connection> {
        workload.enter(|| self.connect_here())
    }

    /// Connects from the namespace that the calling thread is in; for loops inside [`crate::netns::Netns::enter`].
    pub fn connect_here(self) -> io::Result<Connection> {
        let to = match self.to.ip() {
            IpAddr::V4(v4) if self.v4_mapped => SocketAddr::from((v4.to_ipv6_mapped(), self.to.port())),
            _ => self.to,
        };
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
        if self.from_port != 0 {
            let any: IpAddr =
                if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
            socket.set_reuse_address(true)?;
            socket.bind(&SocketAddr::from((any, self.from_port)).into())?;
        }
        socket.connect_timeout(&to.into(), PATIENCE)?;
        let stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        Ok(Connection { stream })
    }

    /// Connects from `workload`, or fails the test.
    #[track_caller]
    pub fn connect(self, workload: &Workload) -> Connection {
        let name = workload.name();
        self.try_connect(workload).unwrap_or_else(|error| panic!("{name} to {}: {error}", self.to))
    }
}

/// Connects from `workload` to `to`, or fails the test.
#[track_caller]
pub fn connect(workload: &Workload, to: SocketAddr) -> Connection {
    Dial::to(to).connect(workload)
}

/// Asserts that nobody listens at `to` as `workload` sees it: ECONNREFUSED, not a timeout.
#[track_caller]
pub fn must_be_refused(workload: &Workload, to: SocketAddr) {
    match Dial::to(to).try_connect(workload) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => {}
        other => panic!("{to} should refuse, got {other:?}"),
    }
}

impl Connection {
    /// Sends `bytes`.
    #[track_caller]
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        self.stream.write_all(bytes.as_ref()).expect("send");
        self
    }

    /// Reads one line, without its end.
    #[track_caller]
    pub fn line(&mut self) -> String {
        self.try_line().expect("a line")
    }

    /// Reads one line, without its end, byte by byte so that nothing after it is lost.
    pub fn try_line(&mut self) -> io::Result<String> {
        let (mut line, mut byte) = (Vec::new(), [0]);
        loop {
            match self.stream.read(&mut byte)? {
                0 => return Err(io::Error::new(ErrorKind::UnexpectedEof, String::from_utf8_lossy(&line))),
                _ if byte == *b"\n" => return Ok(String::from_utf8_lossy(&line).into_owned()),
                _ => line.push(byte[0]),
            }
        }
    }

    /// Asserts that `line` comes back as `answer`.
    #[track_caller]
    pub fn must_echo(&mut self, line: &str, answer: &str) -> &mut Self {
        self.send(format!("{line}\n"));
        assert_eq!(self.line(), answer);
        self
    }

    /// Reads to the other side's FIN.
    #[track_caller]
    pub fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        self.stream.read_to_end(&mut rest).expect("the rest and a FIN");
        rest
    }

    /// Asserts that the other side closes without another byte: FIN, not RST.
    #[track_caller]
    pub fn must_be_closed(&mut self) {
        let rest = self.rest();
        assert!(rest.is_empty(), "expected a close, got {:?}", String::from_utf8_lossy(&rest));
    }

    /// Asserts that the other side resets.
    #[track_caller]
    pub fn must_be_reset(&mut self) {
        let outcome = self.stream.read_to_end(&mut Vec::new());
        assert_eq!(outcome.map_err(|error| error.kind()), Err(ErrorKind::ConnectionReset));
    }

    /// Sends a FIN and keeps reading.
    #[track_caller]
    pub fn half_close(&mut self) -> &mut Self {
        self.stream.shutdown(Shutdown::Write).expect("half-close");
        self
    }

    /// Ends with a RST.
    #[track_caller]
    pub fn reset(self) {
        SockRef::from(&self.stream).set_linger(Some(Duration::ZERO)).expect("linger");
    }

    /// The address that this side has.
    pub fn local(&self) -> SocketAddr {
        self.stream.local_addr().expect("connected")
    }

    /// The address that this side believes to talk to.
    pub fn peer(&self) -> SocketAddr {
        self.stream.peer_addr().expect("connected")
    }
}
