//! The open TCP sockets of a namespace that carry a value of ours: one question to the kernel's socket list, with the
//! value, the state and the bytes so far in each answer.
//!
//! Layouts are those of linux/{sock_diag,inet_diag,tcp}.h, read by offset: they only ever grow at their end.

use std::{
    io,
    os::fd::{AsRawFd as _, BorrowedFd},
};

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_SOCK_DIAG};
use nix::libc;
use proxy_common::direct::Tracked;

use super::{Family, Namespace};

/// `SOCK_DIAG_BY_FAMILY`.
pub(super) const BY_FAMILY: u16 = 20;
/// `INET_DIAG_REQ_SK_BPF_STORAGES` and, inside it, `SK_DIAG_BPF_STORAGE_REQ_MAP_FD`.
const ASK_STORAGES: u16 = 2;
const ASK_MAP_FD: u16 = 1;
/// `INET_DIAG_INFO`; a question has a bit for it.
const INFO: u16 = 2;
/// `INET_DIAG_SK_BPF_STORAGES`, inside it `SK_DIAG_BPF_STORAGE`, inside that `SK_DIAG_BPF_STORAGE_MAP_VALUE`.
const STORAGES: u16 = 20;
const STORAGE: u16 = 1;
const VALUE: u16 = 3;
/// The two high bits of an attribute's kind say what is inside and how it is ordered.
const KIND: u16 = 0x3fff;

/// Sizes of `nlmsghdr`, `inet_diag_req_v2` and `inet_diag_msg`.
pub(super) const HEADER: usize = 16;
pub(super) const QUESTION: usize = 56;
pub(super) const ANSWER: usize = 72;
/// Places of `tcpi_bytes_acked` and `tcpi_bytes_received` in `tcp_info`.
const ACKED: usize = 120;
const RECEIVED: usize = 128;

/// States that a socket of ours can be listed in: all but CLOSE, LISTEN and those without a socket. 1 is ESTABLISHED,
/// as in netinet/tcp.h.
const STATES: u32 = 1 << 1 | 1 << 2 | 1 << 4 | 1 << 5 | 1 << 8 | 1 << 9 | 1 << 11;
/// The state in which a connection is not answered yet.
const SYN_SENT: u8 = 2;
/// States after the peer's FIN: CLOSE_WAIT, LAST_ACK, CLOSING.
const PEER_ENDED: [u8; 3] = [8, 9, 11];
/// FIN_WAIT2: our own FIN was acknowledged.
const END_ACKED: u8 = 5;

/// The kernel fills at most 32 KiB at a time.
const BUFFER: usize = 64 << 10;

/// An open socket that carries a value of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrackedSocket {
    /// The value, as it was when the list was made.
    pub tracked: Tracked,
    /// Bytes that were sent and acknowledged.
    pub sent: u64,
    /// Bytes that were received.
    pub received: u64,
}

/// A connection to the socket list of one namespace.
#[derive(Debug)]
pub struct SocketList {
    pub(super) socket: Socket,
}

impl SocketList {
    /// The list of `namespace`; it may be asked from anywhere.
    ///
    /// # Errors
    /// When the namespace cannot be entered, or there is no room for another descriptor.
    pub fn open(namespace: &Namespace) -> io::Result<Self> {
        let open = || {
            let mut socket = Socket::new(NETLINK_SOCK_DIAG)?;
            socket.bind_auto()?;
            socket.connect(&SocketAddr::new(0, 0))?;
            Ok(Self { socket })
        };
        namespace.enter(open)?
    }

    /// Every open TCP socket of the namespace with a value in `map`, an SK_STORAGE of [`Tracked`].
    ///
    /// # Errors
    /// When the kernel does not list sockets, or the map is none of that kind.
    pub fn tracked(&self, map: BorrowedFd<'_>, mut each: impl FnMut(TrackedSocket)) -> io::Result<()> {
        for family in [Family::V4, Family::V6] {
            self.ask(&question(family, map), |message| parse(message).into_iter().for_each(&mut each))?;
        }
        Ok(())
    }

    /// Asks `question`, and hands out each `inet_diag_msg` of the answer with its attributes.
    pub(super) fn ask(&self, question: &[u8], mut each: impl FnMut(&[u8])) -> io::Result<()> {
        let mut buffer = vec![0; BUFFER];
        self.socket.send(question, 0)?;
        while self.receive(&mut buffer, &mut each)? {}
        Ok(())
    }

    /// Reads one datagram; false at the end of the list, or when an order was carried out.
    fn receive(&self, buffer: &mut [u8], each: &mut impl FnMut(&[u8])) -> io::Result<bool> {
        let length = self.socket.recv(&mut &mut *buffer, libc::MSG_TRUNC)?;
        let mut rest = buffer.get(..length).ok_or_else(cut_off)?;
        while let Some(length) = at(rest, 0).map(u32::from_ne_bytes) {
            let message = rest.get(HEADER..length as usize).ok_or_else(cut_off)?;
            match i32::from(at(rest, 4).map_or(0, u16::from_ne_bytes)) {
                libc::NLMSG_DONE => return Ok(false),
                libc::NLMSG_ERROR => {
                    let code = at(message, 0).map_or(0, i32::from_ne_bytes);
                    return if code == 0 { Ok(false) } else { Err(io::Error::from_raw_os_error(-code)) };
                }
                _ => each(message),
            }
            rest = rest.get((length as usize).next_multiple_of(4)..).unwrap_or_default();
        }
        Ok(true)
    }
}

fn cut_off() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "an answer of the socket list was cut off")
}

/// All sockets of `family`, with their `tcp_info` and their value in `map`.
fn question(family: Family, map: BorrowedFd<'_>) -> Vec<u8> {
    let mut bytes = message(family, STATES);
    bytes[HEADER + 2] = 1 << (INFO - 1);
    // One attribute inside another: the descriptor of the map.
    for (length, kind) in [(12_u16, ASK_STORAGES), (8, ASK_MAP_FD)] {
        bytes.extend(length.to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
    }
    bytes.extend(map.as_raw_fd().to_ne_bytes());
    sealed(bytes, BY_FAMILY, libc::NLM_F_DUMP)
}

/// An `inet_diag_req_v2` about TCP sockets in `states`, with room for its header.
pub(super) fn message(family: Family, states: u32) -> Vec<u8> {
    let family = match family {
        Family::V4 => libc::AF_INET,
        Family::V6 => libc::AF_INET6,
    };
    let mut bytes = vec![0; HEADER + QUESTION];
    bytes[HEADER..HEADER + 2].copy_from_slice(&[family as u8, libc::IPPROTO_TCP as u8]);
    bytes[HEADER + 4..HEADER + 8].copy_from_slice(&states.to_ne_bytes());
    bytes
}

/// `message` with its header.
pub(super) fn sealed(mut message: Vec<u8>, kind: u16, flags: libc::c_int) -> Vec<u8> {
    let length = message.len() as u32;
    message[..4].copy_from_slice(&length.to_ne_bytes());
    message[4..6].copy_from_slice(&kind.to_ne_bytes());
    message[6..8].copy_from_slice(&((libc::NLM_F_REQUEST | flags) as u16).to_ne_bytes());
    message
}

/// One `inet_diag_msg` with its attributes; `None` for a socket without a value.
fn parse(message: &[u8]) -> Option<TrackedSocket> {
    let (state, attributes) = (*message.get(1)?, message.get(ANSWER..)?);
    let storage = find(find(attributes, STORAGES)?, STORAGE)?;
    let tracked = tracked(find(storage, VALUE)?)?;
    let info = find(attributes, INFO)?;
    // The kernel counts the SYN and the FINs like a byte each.
    let own = u64::from(state != SYN_SENT) + u64::from(state == END_ACKED);
    let peers = u64::from(PEER_ENDED.contains(&state));
    Some(TrackedSocket {
        tracked,
        sent: u64::from_ne_bytes(at(info, ACKED)?).saturating_sub(own),
        received: u64::from_ne_bytes(at(info, RECEIVED)?).saturating_sub(peers),
    })
}

fn tracked(value: &[u8]) -> Option<Tracked> {
    if value.len() < size_of::<Tracked>() {
        return None;
    }
    // SAFETY: the slice is long enough, any bytes are a valid `Tracked`, and the read asks for no alignment.
    Some(unsafe { value.as_ptr().cast::<Tracked>().read_unaligned() })
}

/// What is inside the first attribute of `kind`.
pub(super) fn find(mut attributes: &[u8], kind: u16) -> Option<&[u8]> {
    loop {
        let length = usize::from(u16::from_ne_bytes(at(attributes, 0)?));
        let inside = attributes.get(4..length)?;
        if u16::from_ne_bytes(at(attributes, 2)?) & KIND == kind {
            return Some(inside);
        }
        attributes = attributes.get(length.next_multiple_of(4)..)?;
    }
}

/// The bytes at `place`.
pub(super) fn at<const N: usize>(bytes: &[u8], place: usize) -> Option<[u8; N]> {
    bytes.get(place..place + N)?.try_into().ok()
}
