//! UDP servers for workloads. Each is bound to one address, so that its answers come from where they were asked.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};

use nix::sys::socket::{Shutdown, shutdown};
use std::os::fd::AsRawFd as _;

use crate::mesh::Workload;

/// A UDP server; it stops when it is dropped.
#[derive(Debug)]
pub struct Datagrams {
    address: SocketAddr,
    ear: Arc<Ear>,
    server: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Ear {
    socket: UdpSocket,
    received: AtomicUsize,
    done: AtomicBool,
}

impl Datagrams {
    /// Binds `address` in `workload`, which must have it, and answers each datagram with what `serve` makes of it.
    pub fn start(
        workload: &Workload,
        address: SocketAddr,
        mut serve: impl FnMut(&[u8], SocketAddr) -> Vec<Vec<u8>> + Send + 'static,
    ) -> Self {
        let socket = workload.enter(|| UdpSocket::bind(address)).expect("bind in the workload");
        let ear = Arc::new(Ear { socket, received: AtomicUsize::new(0), done: AtomicBool::new(false) });
        let open = ear.clone();
        let server = thread::spawn(move || {
            let mut buffer = vec![0; 1 << 16];
            while let Some((size, from)) = open.next(&mut buffer) {
                for answer in serve(&buffer[..size], from) {
                    // Who has asked and is gone misses nothing.
                    let _ = open.socket.send_to(&answer, from);
                }
            }
        });
        Self { address, ear, server: Some(server) }
    }

    /// Sends back what comes.
    pub fn echo(workload: &Workload, address: SocketAddr) -> Self {
        Self::start(workload, address, |datagram, _| vec![datagram.to_vec()])
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many datagrams have come so far.
    pub fn received(&self) -> usize {
        self.ear.received.load(Ordering::SeqCst)
    }
}

impl Ear {
    /// The next datagram, unless the server is to stop.
    fn next(&self, buffer: &mut [u8]) -> Option<(usize, SocketAddr)> {
        loop {
            let outcome: io::Result<_> = self.socket.recv_from(buffer);
            if self.done.load(Ordering::SeqCst) {
                return None;
            }
            // An error is about an answer that nobody was there for.
            if let Ok(datagram) = outcome {
                self.received.fetch_add(1, Ordering::SeqCst);
                return Some(datagram);
            }
        }
    }
}

impl Drop for Datagrams {
    fn drop(&mut self) {
        self.ear.done.store(true, Ordering::SeqCst);
        // It says that nobody is connected, and wakes who waits for a datagram.
        let _ = shutdown(self.ear.socket.as_raw_fd(), Shutdown::Both);
        let _ = self.server.take().map(JoinHandle::join);
    }
}
