//! Everything that arrives at a namespace's interface, as the last word on what has left another.

use std::fmt;
use std::io::{ErrorKind, Read as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

use crate::mesh::{Mesh, Workload};
use crate::wait;

/// The kernel's `ETH_P_ALL`, in network order as the call wants it.
const EVERYTHING: i32 = 3_u16.to_be() as i32;

/// Listens until it is dropped.
#[derive(Debug)]
pub struct Wiretap {
    place: Workload,
    heard: Arc<Heard>,
    listener: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Heard {
    packets: Mutex<Vec<Packet>>,
    done: AtomicBool,
}

/// One IP packet that came in.
#[derive(Clone, PartialEq, Eq)]
pub struct Packet {
    /// Whom it is for.
    pub to: IpAddr,
    /// All of it, the header included.
    pub bytes: Vec<u8>,
}

impl Wiretap {
    /// Listens at the interfaces of `place`.
    pub fn new(place: &Workload) -> Self {
        let socket =
            place.enter(|| Socket::new(Domain::PACKET, Type::DGRAM, Some(Protocol::from(EVERYTHING))));
        let socket = socket.expect("listen to packets");
        socket.set_read_timeout(Some(Duration::from_millis(20))).expect("a deadline");
        socket.set_recv_buffer_size(8 << 20).expect("room for packets");
        let heard = Arc::new(Heard::default());
        let ear = heard.clone();
        let listener = thread::spawn(move || listen(socket, &ear));
        Self { place: place.clone(), heard, listener: Some(listener) }
    }

    /// What has come in until now, packets on their way included.
    pub fn packets(&self, mesh: &Mesh) -> Vec<Packet> {
        // What was sent before this has come before this.
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let last = format!("the last word {}", NEXT.fetch_add(1, Ordering::Relaxed));
        let socket = mesh.node().enter(|| UdpSocket::bind("0.0.0.0:0")).expect("a socket");
        socket.send_to(last.as_bytes(), (self.place.v4(), 9)).expect("send");
        wait::find("the wiretap hears", || {
            let packets = self.heard.packets.lock().expect("nobody panics in here");
            packets.iter().any(|packet| packet.says(&last)).then(|| packets.clone())
        })
    }
}

impl Packet {
    /// Whether `text` is in it.
    pub fn says(&self, text: &str) -> bool {
        self.bytes.windows(text.len()).any(|part| part == text.as_bytes())
    }
}

impl fmt::Debug for Packet {
    /// As much as a person can read.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "to {}: {}", self.to, self.bytes.escape_ascii())
    }
}

fn listen(mut socket: Socket, heard: &Heard) {
    let mut buffer = vec![0; 1 << 16];
    while !heard.done.load(Ordering::SeqCst) {
        match socket.read(&mut buffer) {
            Ok(size) => {
                let packet = packet(&buffer[..size]);
                heard.packets.lock().expect("nobody panics in here").extend(packet);
            }
            Err(error) if [ErrorKind::WouldBlock, ErrorKind::Interrupted].contains(&error.kind()) => {}
            Err(_) => return,
        }
    }
}

/// No packet, if it is of another protocol than IP.
fn packet(bytes: &[u8]) -> Option<Packet> {
    let v4 = || bytes.get(16..20).and_then(|to| <[u8; 4]>::try_from(to).ok()).map(Ipv4Addr::from);
    let v6 = || bytes.get(24..40).and_then(|to| <[u8; 16]>::try_from(to).ok()).map(Ipv6Addr::from);
    let to = match bytes.first()? >> 4 {
        4 => v4()?.into(),
        6 => v6()?.into(),
        _ => return None,
    };
    Some(Packet { to, bytes: bytes.to_vec() })
}

impl Drop for Wiretap {
    fn drop(&mut self) {
        self.heard.done.store(true, Ordering::SeqCst);
        let _ = self.listener.take().map(JoinHandle::join);
    }
}
