//! The list of open sockets, asked for a value that this test gives to some of them. Needs root.

#![allow(clippy::unwrap_used, reason = "helpers of tests count as tests")]

use std::{
    io::{self, Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    os::fd::{AsFd as _, AsRawFd as _, FromRawFd as _, OwnedFd, RawFd},
    time::{Duration, Instant},
};

use nix::libc;
use proxy_common::direct::Tracked;
use shunt::node::{Namespace, SocketList, TrackedSocket};

const MAP_CREATE: libc::c_int = 0;
const MAP_UPDATE: libc::c_int = 2;
const BTF_LOAD: libc::c_int = 18;

/// A call of bpf() with the given words as its attributes.
fn bpf(command: libc::c_int, words: &mut [u32]) -> io::Result<libc::c_long> {
    // SAFETY: the attributes are as long as stated; pointers among them are made by callers from live references.
    let status = unsafe { libc::syscall(libc::SYS_bpf, command, words.as_mut_ptr(), size_of_val(words)) };
    if status < 0 { Err(io::Error::last_os_error()) } else { Ok(status) }
}

fn owned(status: libc::c_long) -> OwnedFd {
    // SAFETY: the call has just made this descriptor, so nobody else owns it.
    unsafe { OwnedFd::from_raw_fd(status as RawFd) }
}

fn halves<T>(pointer: &T) -> [u32; 2] {
    let address = std::ptr::from_ref(pointer).addr() as u64;
    [address as u32, (address >> 32) as u32]
}

/// Types of a key, u32, and of a value, [u8; 80], as the kernel wants socket storage described.
fn types() -> OwnedFd {
    let (int, array) = (1_u32 << 24, 3_u32 << 24);
    let words = [
        // Magic and version, length of this header, the types and the names after it.
        [0x0001_eb9f, 24, 0, 68, 68, 8].as_slice(),
        &[1, int, 4, 32],
        &[5, int, 1, 8],
        &[0, array, 0, 2, 1, size_of::<Tracked>() as u32],
    ]
    .concat();
    let mut blob: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
    let types = (blob.len() - 24) as u32;
    blob[12..16].copy_from_slice(&types.to_ne_bytes());
    blob[16..20].copy_from_slice(&types.to_ne_bytes());
    blob.extend(b"\0u32\0u8\0");
    let [low, high] = halves(&blob[0]);
    owned(bpf(BTF_LOAD, &mut [low, high, 0, 0, blob.len() as u32, 0, 0]).unwrap())
}

fn storage() -> OwnedFd {
    const SK_STORAGE: u32 = 24;
    const NO_PREALLOC: u32 = 1;
    let (types, value) = (types(), size_of::<Tracked>() as u32);
    let head = [SK_STORAGE, 4, value, 0, NO_PREALLOC, 0, 0, 0, 0, 0, 0, 0];
    let described = [types.as_raw_fd() as u32, 1, 3];
    owned(bpf(MAP_CREATE, &mut [head.as_slice(), &described].concat()).unwrap())
}

fn give(map: &OwnedFd, socket: &TcpStream, tracked: Tracked) {
    let key = socket.as_raw_fd();
    let ([key_low, key_high], [low, high]) = (halves(&key), halves(&tracked));
    bpf(MAP_UPDATE, &mut [map.as_raw_fd() as u32, 0, key_low, key_high, low, high, 0, 0]).unwrap();
}

/// What the list has, once `fits` is true of it.
fn await_list(
    list: &SocketList,
    map: &OwnedFd,
    fits: impl Fn(&[TrackedSocket]) -> bool,
) -> Vec<TrackedSocket> {
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        let mut found = Vec::new();
        list.tracked(map.as_fd(), |socket| found.push(socket)).unwrap();
        found.sort_by_key(|socket| socket.tracked.endpoint);
        if fits(&found) {
            return found;
        }
        assert!(Instant::now() < deadline, "{found:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn sockets_with_a_value_are_listed_with_their_bytes_and_others_are_not() {
    let map = storage();
    let list = SocketList::open(&Namespace::current().unwrap()).unwrap();
    let mut ends = Vec::new();
    for (endpoint, address) in [(1, "127.0.0.1:0"), (2, "[::1]:0"), (3, "127.0.0.1:0")] {
        let listener = TcpListener::bind(address).unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (server, _) = listener.accept().unwrap();
        if endpoint < 3 {
            give(&map, &client, Tracked { endpoint, netns_cookie: 7, ..Tracked::default() });
        }
        ends.push((client, server));
    }
    let fresh = await_list(&list, &map, |found| found.len() == 2);
    for (socket, endpoint) in fresh.iter().zip(1..) {
        assert_eq!((socket.tracked.endpoint, socket.tracked.netns_cookie), (endpoint, 7));
        assert_eq!((socket.sent, socket.received), (0, 0));
    }
    let (client, server) = &mut ends[0];
    client.write_all(&[0; 1000]).unwrap();
    server.read_exact(&mut [0; 1000]).unwrap();
    server.write_all(&[0; 50]).unwrap();
    await_list(&list, &map, |found| (found[0].sent, found[0].received) == (1000, 50));
    // The ends of the streams are no bytes.
    server.shutdown(Shutdown::Write).unwrap();
    client.read_exact(&mut [0; 50]).unwrap();
    assert_eq!(client.read(&mut [0; 1]).unwrap(), 0);
    await_list(&list, &map, |found| (found[0].sent, found[0].received) == (1000, 50));
    let (client, server) = &mut ends[1];
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(server.read(&mut [0; 1]).unwrap(), 0);
    await_list(&list, &map, |found| (found[1].sent, found[1].received) == (0, 0));
    drop(ends);
    await_list(&list, &map, <[_]>::is_empty);
}

#[test]
fn another_kind_of_map_is_an_error() {
    let list = SocketList::open(&Namespace::current().unwrap()).unwrap();
    const ARRAY: u32 = 2;
    let array = owned(bpf(MAP_CREATE, &mut [ARRAY, 4, 8, 1, 0, 0]).unwrap());
    assert!(list.tracked(array.as_fd(), |_| {}).is_err());
}

/// Two ends of a connection.
fn pair(listener: &TcpListener, to: SocketAddr) -> (TcpStream, TcpStream) {
    let client = TcpStream::connect(to).unwrap();
    client.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    (client, listener.accept().unwrap().0)
}

#[test]
fn a_connection_that_is_picked_is_reset_at_both_ends_and_no_other() {
    let list = SocketList::open(&Namespace::current().unwrap()).unwrap();
    // The last is IPv4 on an IPv6 socket at both ends.
    for (own, to) in [("127.0.0.1:0", "127.0.0.1"), ("[::1]:0", "::1"), ("[::]:0", "::ffff:127.0.0.1")] {
        let listener = TcpListener::bind(own).unwrap();
        let to = SocketAddr::new(to.parse().unwrap(), listener.local_addr().unwrap().port());
        let (mut unwanted, mut server) = pair(&listener, to);
        let (mut other, mut others_server) = pair(&listener, to);
        let plain = |end: SocketAddr| SocketAddr::new(end.ip().to_canonical(), end.port());
        let source = plain(unwanted.local_addr().unwrap());
        let destination = plain(unwanted.peer_addr().unwrap());
        let closed = list.close_connections(|one| {
            let is_it = (one.source, one.destination) == (source, destination);
            assert!(!is_it || (!one.is_inbound && one.cgroup_id != 0), "{one:?}");
            assert!((one.destination, one.source) != (source, destination) || one.is_inbound, "{one:?}");
            is_it
        });
        assert_eq!(closed.unwrap(), 1, "{to}");
        assert_eq!(unwanted.read(&mut [0]).unwrap_err().kind(), io::ErrorKind::ConnectionAborted);
        assert_eq!(server.read(&mut [0]).unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        other.write_all(b"x").unwrap();
        others_server.read_exact(&mut [0]).unwrap();
    }
}
