//! Passes a question on to the resolver that was asked, as it is, and takes nobody else's answer.

use std::{io, net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream, UdpSocket},
    time::timeout,
};

use super::{Sockets, message};

/// How long a resolver may take. Clients that ask again meanwhile are passed on again.
const PATIENCE: Duration = Duration::from_secs(5);
/// The largest message.
const LARGEST: usize = u16::MAX as usize;

/// Asks `resolver` by one datagram, from a socket of its own.
pub(super) async fn datagram(
    query: &[u8],
    resolver: SocketAddr,
    sockets: &dyn Sockets,
) -> io::Result<Vec<u8>> {
    let socket = UdpSocket::from_std(sockets.datagram(resolver.is_ipv4())?.into())?;
    socket.connect(resolver).await?;
    socket.send(query).await?;
    timeout(PATIENCE, answer(&socket, query)).await?
}

async fn answer(socket: &UdpSocket, query: &[u8]) -> io::Result<Vec<u8>> {
    loop {
        socket.readable().await?;
        let mut reply = Vec::with_capacity(LARGEST);
        match socket.try_recv_buf(&mut reply) {
            Ok(_) if message::echoes(query, &reply) => return Ok(reply),
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
            _ => {}
        }
    }
}

/// A connection to the resolver that was asked: made when there is something to ask, made again when the resolver has closed it.
pub(super) struct Upstream<'a> {
    resolver: SocketAddr,
    sockets: &'a dyn Sockets,
    open: Option<TcpStream>,
}

impl<'a> Upstream<'a> {
    /// Who is asked.
    pub(super) fn resolver(&self) -> SocketAddr {
        self.resolver
    }

    pub(super) fn new(resolver: SocketAddr, sockets: &'a dyn Sockets) -> Self {
        Self { resolver, sockets, open: None }
    }

    pub(super) async fn ask(&mut self, query: &[u8]) -> io::Result<Vec<u8>> {
        let was_open = self.open.is_some();
        match timeout(PATIENCE, self.exchange(query)).await? {
            Err(_) if was_open => timeout(PATIENCE, self.exchange(query)).await?,
            outcome => outcome,
        }
    }

    /// The connection is taken, and put back only when it has answered.
    async fn exchange(&mut self, query: &[u8]) -> io::Result<Vec<u8>> {
        let mut stream = match self.open.take() {
            Some(stream) => stream,
            None => connect(self.resolver, self.sockets).await?,
        };
        write(&mut stream, query).await?;
        loop {
            let reply = read(&mut stream).await?;
            if message::echoes(query, &reply) {
                self.open = Some(stream);
                return Ok(reply);
            }
        }
    }
}

async fn connect(resolver: SocketAddr, sockets: &dyn Sockets) -> io::Result<TcpStream> {
    let socket = sockets.stream(resolver.is_ipv4())?;
    TcpSocket::from_std_stream(socket.into()).connect(resolver).await
}

/// Reads one message behind its length.
pub(super) async fn read(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut message = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut message).await?;
    Ok(message)
}

/// Writes one message behind its length.
pub(super) async fn write(stream: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    let length = u16::try_from(message.len()).map_err(io::Error::other)?;
    let framed = [&length.to_be_bytes(), message].concat();
    stream.write_all(&framed).await
}
