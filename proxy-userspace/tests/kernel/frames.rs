//! Frames that a workload puts together by itself, and what of them arrives at the other end.

use std::{
    io::{ErrorKind, Read as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    process::Command,
    time::Instant,
};

use nix::{
    libc,
    net::if_::if_nametoindex,
    sched::{CpuSet, sched_getaffinity, sched_getcpu, sched_setaffinity},
    unistd::Pid,
};
use proxy_common::{
    Destination,
    direct::{Denied, EventKind},
};
use socket2::{Domain, SockAddr, Socket, Type};

use crate::world::{PATIENCE, World};

pub(crate) const ICMP: u8 = 1;
pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;
pub(crate) const GRE: u8 = 47;
pub(crate) const ICMPV6: u8 = 58;
pub(crate) const SCTP: u8 = 132;
pub(crate) const FIN: u8 = 1;
pub(crate) const SYN: u8 = 2;
pub(crate) const RST: u8 = 4;
pub(crate) const ACK: u8 = 16;

const ETH_P_ALL: u16 = 3;
const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
const VLAN: u16 = 0x8100;
const FRAGMENT: u8 = 44;
/// What every packet has somewhere.
const SIGN: &[u8; 8] = b"crafted!";

/// An IP packet to be.
#[derive(Clone, Debug)]
pub(crate) struct Packet {
    pub(crate) to: IpAddr,
    pub(crate) protocol: u8,
    /// Header of the transport and what follows.
    body: Vec<u8>,
    /// Between the header of IP and that: options, or headers that begin with the next one's protocol.
    between: Vec<u8>,
    /// The protocol of whatever follows the header of IPv6.
    next: u8,
    /// Offset in units of 8 bytes, and whether others follow.
    fragment: Option<(u16, bool)>,
    pub(crate) is_tagged: bool,
}

impl Packet {
    fn new(to: IpAddr, protocol: u8, body: Vec<u8>) -> Self {
        Self { to, protocol, body, between: Vec::new(), next: protocol, fragment: None, is_tagged: false }
    }

    pub(crate) fn udp(to: &str) -> Self {
        Self::udp_from(54321, to)
    }

    pub(crate) fn udp_from(port: u16, to: &str) -> Self {
        let to: SocketAddr = to.parse().unwrap();
        let header = [port, to.port(), 16, 0].map(u16::to_be_bytes).concat();
        Self::new(to.ip(), UDP, [&header, &SIGN[..]].concat())
    }

    /// Its numbers are the sign.
    pub(crate) fn tcp(to: &str, flags: u8, payload: &[u8]) -> Self {
        Self::tcp_from(54321, to, flags, payload)
    }

    pub(crate) fn tcp_from(port: u16, to: &str, flags: u8, payload: &[u8]) -> Self {
        let to: SocketAddr = to.parse().unwrap();
        let ports = [port, to.port()].map(u16::to_be_bytes).concat();
        let rest = [0x50, flags, 0xff, 0xff, 0, 0, 0, 0];
        Self::new(to.ip(), TCP, [&ports, &SIGN[..], &rest, payload].concat())
    }

    pub(crate) fn icmp(to: &str, kind: u8) -> Self {
        let to: IpAddr = to.parse().unwrap();
        let mut body = [&[kind, 0, 0, 0, 0, 0, 0, 0], &SIGN[..]].concat();
        if to.is_ipv4() {
            let sum = checksum(&body);
            body[2..4].copy_from_slice(&sum);
            return Self::new(to, ICMP, body);
        }
        Self::new(to, ICMPV6, body)
    }

    /// Of a protocol of which nothing is known.
    pub(crate) fn other(to: &str, protocol: u8) -> Self {
        Self::new(to.parse().unwrap(), protocol, SIGN.repeat(2))
    }

    /// With options, or with headers of which the first has the protocol `next`.
    pub(crate) fn behind(self, next: u8, between: &[u8]) -> Self {
        Self { next, between: between.to_vec(), ..self }
    }

    /// In another network on the same wire.
    pub(crate) fn tagged(self) -> Self {
        Self { is_tagged: true, ..self }
    }

    /// The same in two.
    pub(crate) fn halves(&self, at: usize) -> [Self; 2] {
        let (first, second) = self.body.split_at(at);
        let part = |body: &[u8], fragment| Self { body: body.to_vec(), fragment, ..self.clone() };
        [part(first, Some((0, true))), part(second, Some((at as u16 / 8, false)))]
    }

    fn bytes(&self) -> Vec<u8> {
        match self.to {
            IpAddr::V4(to) => self.v4(to),
            IpAddr::V6(to) => self.v6(to),
        }
    }

    fn v4(&self, to: Ipv4Addr) -> Vec<u8> {
        let length = 20 + self.between.len() + self.body.len();
        let (offset, more) = self.fragment.unwrap_or_default();
        let fragment = offset | u16::from(more) << 13;
        let start = [0x40 | (5 + self.between.len() / 4) as u8, 0];
        let words = [length as u16, 0x0707, fragment].map(u16::to_be_bytes).concat();
        let rest = [64, self.protocol, 0, 0, 10, 77, 0, 2];
        let mut header = [&start[..], &words, &rest, &to.octets(), &self.between].concat();
        let sum = checksum(&header);
        header[10..12].copy_from_slice(&sum);
        [header, self.body.clone()].concat()
    }

    fn v6(&self, to: Ipv6Addr) -> Vec<u8> {
        let addresses = ["fd77::2".parse().unwrap(), to].map(|address: Ipv6Addr| address.octets()).concat();
        let (mut next, mut between) = (self.next, self.between.clone());
        if let Some((offset, more)) = self.fragment {
            let fragment = (offset << 3 | u16::from(more)).to_be_bytes();
            (next, between) = (FRAGMENT, [&[self.protocol, 0], &fragment[..], &[7; 4]].concat());
        }
        let mut body = self.body.clone();
        if self.protocol == ICMPV6 {
            let pseudo = [&addresses, &[0, 0, 0, body.len() as u8, 0, 0, 0, ICMPV6][..], &body].concat();
            body[2..4].copy_from_slice(&checksum(&pseudo));
        }
        let length = ((between.len() + body.len()) as u16).to_be_bytes();
        [&[0x60, 0, 0, 0], &length[..], &[next, 64], &addresses, &between, &body].concat()
    }
}

fn checksum(bytes: &[u8]) -> [u8; 2] {
    let words = bytes.chunks(2).map(|pair| u64::from(pair[0]) << 8 | u64::from(*pair.get(1).unwrap_or(&0)));
    let sum: u64 = words.sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    (!((folded & 0xffff) + (folded >> 16)) as u16).to_be_bytes()
}

/// The workload's end, where frames are sent, and the other, where they arrive.
pub(crate) struct Wire {
    sender: Socket,
    /// From whom to whom.
    macs: Vec<u8>,
    inboxes: Vec<Socket>,
}

impl Wire {
    pub(crate) fn open(world: &World) -> Self {
        let (theirs, inboxes) = world.server.enter(|| (mac("eth0"), inboxes())).unwrap();
        let ours = world.in_workload(|| mac("eth0"));
        Self { sender: world.in_workload(sender), macs: [theirs, ours].concat(), inboxes }
    }

    pub(crate) fn send(&self, packet: &Packet) {
        let mut frame = self.macs.clone();
        if packet.is_tagged {
            frame.extend([VLAN, 5].map(u16::to_be_bytes).concat());
        }
        frame.extend(if packet.to.is_ipv6() { IPV6 } else { IPV4 }.to_be_bytes());
        frame.extend(packet.bytes());
        assert_eq!(self.sender.send(&frame).unwrap(), frame.len());
    }

    /// Sends something that is not IP.
    pub(crate) fn send_other(&self, ethertype: u16) {
        let frame = [&self.macs, &ethertype.to_be_bytes()[..], &[0; 46]].concat();
        assert_eq!(self.sender.send(&frame).unwrap(), frame.len());
    }

    /// Whether the packet arrives: either it does, or it is told of as dropped.
    pub(crate) fn arrives(&self, world: &mut World, packet: &Packet) -> bool {
        self.send(packet);
        let deadline = Instant::now() + PATIENCE;
        loop {
            if self.hears() {
                assert_eq!(told(world), [], "arrived, and told of as dropped: {packet:?}");
                return true;
            }
            let told = told(world);
            if let [(kind, protocol, to)] = told[..] {
                assert_eq!((kind, to.ip()), (Denied::Packet as u32, packet.to), "{packet:?}");
                assert_eq!(protocol, u32::from(packet.protocol), "{packet:?}");
                assert!(!self.hears(), "dropped, and arrived all the same: {packet:?}");
                return false;
            }
            assert_eq!(told, [], "{packet:?}");
            assert!(Instant::now() < deadline, "neither arrived nor dropped: {packet:?}");
            std::thread::yield_now();
        }
    }

    /// Whether both arrive, and not the second alone. Whoever sends from one processor is heard in that order.
    pub(crate) fn both_arrive(&self, first: &Packet, second: &Packet) -> bool {
        let mut here = CpuSet::new();
        here.set(sched_getcpu().unwrap()).unwrap();
        let anywhere = sched_getaffinity(Pid::from_raw(0)).unwrap();
        sched_setaffinity(Pid::from_raw(0), &here).unwrap();
        self.send(first);
        self.send(second);
        sched_setaffinity(Pid::from_raw(0), &anywhere).unwrap();
        let (mut heard, deadline) = (Vec::new(), Instant::now() + PATIENCE);
        while !heard.contains(&second.to) {
            assert!(Instant::now() < deadline, "does not arrive: {second:?}");
            let to = |bytes: Vec<u8>| [first.to, second.to].into_iter().find(|to| is_to(&bytes, *to));
            heard.extend(self.inboxes.iter().flat_map(ours).filter_map(to));
            std::thread::yield_now();
        }
        heard.contains(&first.to)
    }

    /// Whether some have arrived since the last call.
    pub(crate) fn hears(&self) -> bool {
        self.inboxes.iter().any(|inbox| !ours(inbox).is_empty())
    }
}

/// What was denied since the last call: its kind, protocol and destination.
pub(crate) fn told(world: &mut World) -> Vec<(u32, u32, SocketAddr)> {
    let (mut all, cookie) = (Vec::new(), world.workload.cookie());
    world.kernel_mut().events(|event| {
        if event.kind == EventKind::Denied as u32 {
            assert_eq!(event.netns_cookie, cookie, "{event:?}");
            let to = Destination { address: event.original, port: event.original_port };
            all.push((event.cause, event.run, to.into()));
        }
    });
    all
}

/// The packets of ours that have come since the last call.
fn ours(mut inbox: &Socket) -> Vec<Vec<u8>> {
    let (mut bytes, mut found) = ([0; 2048], Vec::new());
    loop {
        match inbox.read(&mut bytes) {
            Ok(length) => found.push(bytes[..length].to_vec()),
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => panic!("{error}"),
        }
    }
    found.retain(|bytes| bytes.windows(SIGN.len()).any(|part| part == SIGN));
    found
}

/// Whether a packet of IPv4, from its first byte on, goes to `address`.
fn is_to(bytes: &[u8], address: IpAddr) -> bool {
    matches!(address, IpAddr::V4(to) if bytes[16..20] == to.octets())
}

fn mac(interface: &str) -> Vec<u8> {
    let output = Command::new("ip").args(["-o", "link", "show", interface]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let mac = text.split("link/ether ").nth(1).unwrap().split(' ').next().unwrap();
    mac.split(':').map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect()
}

/// A socket whose every send is a whole frame.
fn sender() -> Socket {
    let all = i32::from(ETH_P_ALL.to_be());
    let socket = Socket::new(Domain::PACKET, Type::RAW, Some(all.into())).unwrap();
    let index = if_nametoindex("eth0").unwrap();
    let fill = |storage: *mut socket2::SockAddrStorage, length: *mut libc::socklen_t| {
        // SAFETY: zero is a valid value of every field.
        let mut device: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        device.sll_family = libc::AF_PACKET as libc::sa_family_t;
        device.sll_protocol = ETH_P_ALL.to_be();
        device.sll_ifindex = index as libc::c_int;
        // SAFETY: the storage is larger than any address, and both are ours to write.
        unsafe {
            storage.cast::<libc::sockaddr_ll>().write(device);
            length.write(size_of::<libc::sockaddr_ll>() as libc::socklen_t);
        }
        Ok(())
    };
    // SAFETY: the address is initialised, and of the length that was written.
    let ((), device) = unsafe { SockAddr::try_init(fill) }.unwrap();
    socket.bind(&device).unwrap();
    socket
}

/// Sockets that hear every packet of a protocol that IP takes in; where DHCP servers are asked over IPv6, too.
fn inboxes() -> Vec<Socket> {
    let index = if_nametoindex("eth0").unwrap();
    let open = |(domain, protocol): (Domain, u8)| {
        let socket = Socket::new(domain, Type::RAW, Some(i32::from(protocol).into())).unwrap();
        socket.set_nonblocking(true).unwrap();
        if domain == Domain::IPV6 {
            socket.join_multicast_v6(&"ff02::1:2".parse().unwrap(), index).unwrap();
        }
        socket
    };
    let v4 = [ICMP, TCP, UDP, GRE, SCTP].map(|protocol| (Domain::IPV4, protocol));
    let v6 = [ICMPV6, TCP, UDP, GRE, SCTP].map(|protocol| (Domain::IPV6, protocol));
    v4.into_iter().chain(v6).map(open).collect()
}
