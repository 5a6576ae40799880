//! The server: one epoll thread. A connection whose first byte is `D` is a download that never ends;
//! one whose first byte is `W` is told which address it has reached; every other one is echoed.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::OnceLock;

use anyhow::{Context, Result};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use socket2::{Domain, SockRef, Socket, Type};

/// The first byte of a connection that asks for a download.
pub(crate) const DOWNLOAD: u8 = b'D';

/// The first byte of a connection that asks where it ended.
pub(crate) const WHO: u8 = b'W';

/// The congestion control that the server's sockets really have, once one was accepted.
pub(crate) static CONGESTION: OnceLock<String> = OnceLock::new();

const BUFFER: usize = 256 * 1024;

struct Connection {
    stream: TcpStream,
    /// What the socket would not take yet of an echo.
    owed: Vec<u8>,
    download: bool,
    fresh: bool,
}

struct Server {
    epoll: Epoll,
    listeners: Vec<TcpListener>,
    connections: Vec<Option<Connection>>,
    free: Vec<usize>,
    buffer: Vec<u8>,
}

/// Opens a listener with a backlog that 64 clients in a hurry do not overflow.
pub(crate) fn listen(address: SocketAddr) -> Result<TcpListener> {
    let open = || -> io::Result<TcpListener> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.bind(&address.into())?;
        socket.listen(4096)?;
        socket.set_nonblocking(true)?;
        Ok(socket.into())
    };
    open().with_context(|| format!("listen on {address}"))
}

/// Serves until the process ends. The sockets stay in the namespace in which the listeners were opened.
pub(crate) fn run(listeners: Vec<TcpListener>) -> Result<()> {
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    for (index, listener) in listeners.iter().enumerate() {
        epoll.add(listener, EpollEvent::new(EpollFlags::EPOLLIN, index as u64))?;
    }
    let (connections, free, buffer) = (Vec::new(), Vec::new(), vec![0x5a; BUFFER]);
    let mut server = Server { epoll, listeners, connections, free, buffer };
    let mut events = vec![EpollEvent::empty(); 512];
    loop {
        let count = match server.epoll.wait(&mut events, EpollTimeout::NONE) {
            Err(nix::errno::Errno::EINTR) => 0,
            other => other?,
        };
        for event in &events[..count] {
            server.handle(event.data() as usize)?;
        }
    }
}

impl Server {
    fn handle(&mut self, token: usize) -> Result<()> {
        if token < self.listeners.len() {
            return self.accept(token);
        }
        let index = token - self.listeners.len();
        let Some(connection) = self.connections[index].as_mut() else { return Ok(()) };
        match connection.advance(&mut self.buffer, &self.epoll, token) {
            Ok(()) => {}
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            // The client's end of the connection counts errors; here it is only over.
            Err(_) => {
                self.connections[index] = None;
                self.free.push(index);
            }
        }
        Ok(())
    }

    fn accept(&mut self, listener: usize) -> Result<()> {
        loop {
            let stream = match self.listeners[listener].accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                // A connection that its client has already reset.
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => continue,
                Err(error) => return Err(error).context("accept"),
            };
            stream.set_nonblocking(true)?;
            stream.set_nodelay(true)?;
            CONGESTION.get_or_init(|| congestion(&stream));
            let index = self.free.pop().unwrap_or(self.connections.len());
            if index == self.connections.len() {
                self.connections.push(None);
            }
            let token = (index + self.listeners.len()) as u64;
            self.epoll.add(&stream, EpollEvent::new(EpollFlags::EPOLLIN, token))?;
            self.connections[index] =
                Some(Connection { stream, owed: Vec::new(), download: false, fresh: true });
        }
    }
}

impl Connection {
    fn advance(&mut self, buffer: &mut [u8], epoll: &Epoll, token: usize) -> io::Result<()> {
        if self.download {
            return self.stream.write(buffer).map(drop);
        }
        if !self.owed.is_empty() {
            return self.pay(epoll, token);
        }
        let count = self.stream.read(buffer)?;
        if count == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        match buffer[0] {
            first if !std::mem::take(&mut self.fresh) || ![DOWNLOAD, WHO].contains(&first) => {}
            WHO => return self.introduce(),
            _ => {
                self.download = true;
                return self.watch(epoll, token, EpollFlags::EPOLLOUT);
            }
        }
        let written = match self.stream.write(&buffer[..count]) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
            other => other?,
        };
        if written < count {
            self.owed.extend_from_slice(&buffer[written..count]);
            self.watch(epoll, token, EpollFlags::EPOLLOUT)?;
        }
        Ok(())
    }

    fn introduce(&mut self) -> io::Result<()> {
        let IpAddr::V4(own) = self.stream.local_addr()?.ip() else { return Ok(()) };
        self.stream.write_all(&own.octets())
    }

    fn pay(&mut self, epoll: &Epoll, token: usize) -> io::Result<()> {
        let written = self.stream.write(&self.owed)?;
        self.owed.drain(..written);
        if self.owed.is_empty() {
            self.owed = Vec::new();
            self.watch(epoll, token, EpollFlags::EPOLLIN)?;
        }
        Ok(())
    }

    fn watch(&self, epoll: &Epoll, token: usize, flags: EpollFlags) -> io::Result<()> {
        Ok(epoll.modify(&self.stream, &mut EpollEvent::new(flags, token as u64))?)
    }
}

/// The congestion control of a socket, by name.
pub(crate) fn congestion(stream: &TcpStream) -> String {
    let name = SockRef::from(stream).tcp_congestion().unwrap_or_default();
    String::from_utf8_lossy(&name).trim_end_matches('\0').to_owned()
}
