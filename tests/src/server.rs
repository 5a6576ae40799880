//! Servers for workloads: each listens on both families and gives every connection a thread and a behaviour.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv6Addr, Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use sha2::{Digest, Sha256};
use socket2::{Domain, SockRef, Socket, Type};

use crate::mesh::Workload;

/// A listening server; it stops when it is dropped. Connections that it accepted live on.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    listener: Arc<Socket>,
    accepted: Arc<AtomicUsize>,
    acceptor: Option<JoinHandle<()>>,
}

impl Server {
    /// Listens on `port` of `workload` and runs `serve` for every connection.
    pub fn start(
        workload: &Workload,
        port: u16,
        serve: impl Fn(TcpStream) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        let listener = Arc::new(workload.enter(|| listen(port)).expect("listen in the workload"));
        let accepted = Arc::new(AtomicUsize::new(0));
        let (ear, count, serve) = (listener.clone(), accepted.clone(), Arc::new(serve));
        let acceptor = thread::spawn(move || {
            while let Ok((socket, _)) = ear.accept() {
                count.fetch_add(1, Ordering::SeqCst);
                let serve = serve.clone();
                // How a conversation ends is for the client's side of the story to judge.
                thread::spawn(move || serve(socket.into()));
            }
        });
        Self { address: (workload.ip4(), port).into(), listener, accepted, acceptor: Some(acceptor) }
    }

    /// Where it listens, as the rest of the mesh reaches it over IPv4.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many connections it has accepted so far.
    pub fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // A listener that is shut down fails its accept: the thread ends.
        let _ = self.listener.shutdown(Shutdown::Both);
        let _ = self.acceptor.take().map(JoinHandle::join);
    }
}

/// Answers every line with `name`, a space and the line, as Istio's tcp-echo sample does.
pub fn tcp_echo(workload: &Workload, port: u16, name: &str) -> Server {
    let name = name.to_owned();
    Server::start(workload, port, move |mut stream| answer_lines(&mut stream, &name))
}

/// Answers every line of one connection with `name`, a space and the line.
pub(crate) fn answer_lines(stream: &mut TcpStream, name: &str) -> io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?);
    let mut line = Vec::new();
    while lines.read_until(b'\n', &mut line)? > 0 {
        stream.write_all(&[name.as_bytes(), b" ", &line].concat())?;
        line.clear();
    }
    Ok(())
}

/// Sends back what comes, byte for byte.
pub fn echo(workload: &Workload, port: u16) -> Server {
    Server::start(workload, port, |mut stream| io::copy(&mut stream.try_clone()?, &mut stream).map(drop))
}

/// Speaks first: one line `NAME PEER-ADDRESS`, then echoes until the client has finished.
pub fn who_am_i(workload: &Workload, port: u16, name: &str) -> Server {
    let name = name.to_owned();
    Server::start(workload, port, move |mut stream| {
        let peer = stream.peer_addr()?.ip().to_canonical();
        stream.write_all(format!("{name} {peer}\n").as_bytes())?;
        io::copy(&mut stream.try_clone()?, &mut stream).map(drop)
    })
}

/// Reads one line, then resets the connection.
pub fn resetter(workload: &Workload, port: u16) -> Server {
    Server::start(workload, port, |stream| {
        BufReader::new(&stream).read_line(&mut String::new())?;
        SockRef::from(&stream).set_linger(Some(Duration::ZERO))
    })
}

/// Reads until the connection ends and tells `ended` how: `Ok` with the number of bytes, or the error.
pub fn witness(workload: &Workload, port: u16, ended: std::sync::mpsc::Sender<io::Result<u64>>) -> Server {
    Server::start(workload, port, move |mut stream| {
        // A story that has heard enough has dropped its receiver.
        let _ = ended.send(io::copy(&mut stream, &mut io::sink()));
        Ok(())
    })
}

/// Sends `bytes` random bytes while it reads to the end with pauses now and then; then sends the SHA-256 of
/// what it sent and of what it read, 64 bytes, and ends.
pub fn bulk(workload: &Workload, port: u16, bytes: u64, seed: u64) -> Server {
    Server::start(workload, port, move |mut stream| {
        let mut reader = stream.try_clone()?;
        let reading = thread::spawn(move || receive(&mut reader, bytes, Pace::Slow));
        let sent = send(&mut stream, bytes, seed)?;
        let read = reading.join().expect("the reader does not panic")?;
        stream.write_all(&[sent, read].concat())
    })
}

/// How eagerly [`receive`] reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// As fast as bytes come.
    Fast,
    /// With a pause every few megabytes, so that the sender's window fills up.
    Slow,
}

/// Sends `bytes` random bytes in chunks of random size and returns their SHA-256.
pub fn send(stream: &mut TcpStream, bytes: u64, seed: u64) -> io::Result<Vec<u8>> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut pool = vec![0; 1 << 20];
    random.fill(&mut pool);
    let (mut hash, mut left) = (Sha256::new(), bytes);
    while left > 0 {
        // Every order of magnitude is equally likely, from single bytes to 256 KiB.
        let largest = 1 << random.u32(..=18);
        let size = random.usize(1..=largest);
        let size = size.min(usize::try_from(left).unwrap_or(usize::MAX));
        let start = random.usize(..=pool.len() - size);
        let chunk = &pool[start..start + size];
        stream.write_all(chunk)?;
        hash.update(chunk);
        left -= size as u64;
    }
    Ok(hash.finalize().to_vec())
}

/// Reads exactly `bytes` bytes and returns their SHA-256.
pub fn receive(stream: &mut TcpStream, bytes: u64, pace: Pace) -> io::Result<Vec<u8>> {
    let mut buffer = vec![0; 1 << 18];
    let (mut hash, mut left, mut since_pause) = (Sha256::new(), bytes, 0);
    while left > 0 {
        let room = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let size = stream.read(&mut buffer[..room])?;
        if size == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, format!("{left} bytes short")));
        }
        hash.update(&buffer[..size]);
        left -= size as u64;
        since_pause += size;
        if pace == Pace::Slow && since_pause > 8 << 20 {
            since_pause = 0;
            thread::sleep(Duration::from_millis(5));
        }
    }
    Ok(hash.finalize().to_vec())
}

fn listen(port: u16) -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV6, Type::STREAM, None)?;
    socket.set_only_v6(false)?;
    socket.set_reuse_address(true)?;
    socket.bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)).into())?;
    socket.listen(4096)?;
    Ok(socket)
}
